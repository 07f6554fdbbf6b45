/** The part of the REST table that is about users' values. */
import { z } from "zod";
import { KEY_VALUE_BYTES_MAX } from "../node/key-values.ts";
import { idempotencyKeySchema, pageSchema } from "./job-calls.ts";
import { type Answer, asEmpty, asJson, type Route, route } from "./route.ts";
import {
  CONTENT_TYPE,
  conditionsSchema,
  contentTypeSchema,
  getValue,
  listValues,
  namespaceSchema,
  type ReadValue,
  removeValue,
  setValue,
  ttlMsSchema,
  valueInfoSchema,
  valueNameSchema,
  valueWrittenSchema,
} from "./value-calls.ts";

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
    headers: readHeaders,
    response: "raw",
    input: ({ params, headers }) => ({ ...params, ...conditionsOf(headers) }),
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
    call: listValues,
    summary: "The keys of a namespace, in an order of the cluster's own",
    params: z.object({ namespace: namespaceSchema }),
    query: pageSchema.extend({ prefix: z.string().max(512).default("") }),
    response: z.object({ items: z.array(valueInfoSchema), nextCursor: z.string().nullable() }),
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
      ...(read.expiresAt === null ? {} : { "X-Expires-At": read.expiresAt }),
    },
    body: read.bytes,
  };
}
