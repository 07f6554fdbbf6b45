/** The part of the REST table that is about users' values. */
import { z } from "zod";
import { KEY_VALUE_BYTES_MAX } from "../node/key-values.ts";
import { idempotencyKeySchema } from "./job-calls.ts";
import { type Answer, asEmpty, asJson, listOf, type Route, route } from "./route.ts";
import {
  CONTENT_TYPE,
  conditionsSchema,
  contentTypeSchema,
  getValue,
  listQuerySchema,
  listValues,
  namespaceSchema,
  type ReadValue,
  removeValue,
  setValue,
  ttlMsSchema,
  valueInfoSchema,
  valueNameSchema,
  valueWrittenSchema,
  watchValues,
} from "./value-calls.ts";

const flag = z
  .enum(["true", "false"])
  .default("false")
  .transform((text) => text === "true");
const readHeaders = z.object({
  "if-match": conditionsSchema.shape.ifMatch,
  "if-none-match": conditionsSchema.shape.ifNoneMatch,
});
const writeHeaders = readHeaders.extend({ "idempotency-key": idempotencyKeySchema.optional() });
const conditionsOf = (headers: z.output<typeof writeHeaders>) => ({
  ifMatch: headers["if-match"],
  ifNoneMatch: headers["if-none-match"],
  idempotencyKey: headers["idempotency-key"],
});

export const valueRoutes: readonly Route[] = [
  route("get", "/v1/kv/:namespace/:key", {
    call: getValue,
    summary: "The value last written, with its content type and ETag",
    params: valueNameSchema,
    query: z.strictObject({ stale: flag }),
    headers: readHeaders,
    response: "raw",
    input: ({ params, query, headers }) => ({ ...params, ...query, ...conditionsOf(headers) }),
    answer: asValue,
  }),
  route("put", "/v1/kv/:namespace/:key", {
    call: setValue,
    summary: "Write a value of any type, if the conditions hold; it expires after ttlMs",
    params: valueNameSchema,
    query: z.strictObject({ ttlMs: z.coerce.number().pipe(ttlMsSchema).optional() }),
    headers: writeHeaders.extend({ "content-type": contentTypeSchema.default(CONTENT_TYPE) }),
    rawBody: { bytesMax: KEY_VALUE_BYTES_MAX },
    response: valueWrittenSchema,
    input: ({ params, query, headers, bytes }) => ({
      ...params,
      ...conditionsOf(headers),
      ttlMs: query.ttlMs,
      contentType: headers["content-type"],
      value: bytes,
    }),
    answer: (written) => ({ kind: "json", body: written, headers: { ETag: written.etag } }),
  }),
  route("delete", "/v1/kv/:namespace/:key", {
    call: removeValue,
    summary: "Remove a value, if the condition holds",
    params: valueNameSchema,
    headers: writeHeaders,
    response: null,
    status: 204,
    input: ({ params, headers }) => ({ ...params, ...conditionsOf(headers) }),
    answer: asEmpty,
  }),
  route("get", "/v1/kv/:namespace", {
    call: watchValues,
    summary: "Server-sent events: the values of a namespace, or of one key, and each change of them",
    params: z.object({ namespace: namespaceSchema }),
    onlyWithQuery: "watch",
    query: z.strictObject({
      watch: z.literal("true"),
      key: valueNameSchema.shape.key.optional(),
      prefix: listQuerySchema.shape.prefix,
    }),
    response: "events",
    input: ({ params, query: { key, prefix } }) => ({ ...params, key, prefix }),
    answer: (events) => ({ kind: "events", events }),
  }),
  route("get", "/v1/kv/:namespace", {
    call: listValues,
    summary: "The keys of a namespace, in an order of the cluster's own",
    params: z.object({ namespace: namespaceSchema }),
    query: listQuerySchema,
    response: listOf(valueInfoSchema),
    input: ({ params, query }) => ({ ...query, ...params }),
    answer: asJson,
  }),
];

/** What a user stored is shown as data only: a browser is to run nothing of it. */
function asValue(read: ReadValue): Answer {
  const headers = { ETag: read.etag, "Cache-Control": "private, no-cache" };
  if (read.kind === "unchanged") return { kind: "raw", status: 304, headers, body: null };
  return {
    kind: "raw",
    status: 200,
    headers: {
      ...headers,
      "Content-Type": read.contentType,
      "Content-Security-Policy": "sandbox; default-src 'none'",
      ...(typeof read.ageMs === "number" ? { "X-Stale-Age-Ms": String(Math.round(read.ageMs)) } : {}),
      ...(read.expiresAt === null ? {} : { "X-Expires-At": read.expiresAt }),
    },
    body: read.bytes,
  };
}
