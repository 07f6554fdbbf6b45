/** The part of the REST table that is about locks. */
import { z } from "zod";
import { idempotencyKeySchema } from "./job-calls.ts";
import {
  acquireLock,
  acquireSchema,
  lockNameSchema,
  lockSchema,
  releaseLock,
  releaseSchema,
  renewLock,
  renewSchema,
} from "./lock-calls.ts";
import { asEmpty, asJson, type Route, route } from "./route.ts";

const BODY_BYTES_MAX = 4 * 1024;

export const lockRoutes: readonly Route[] = [
  route("post", "/v1/locks/:name", {
    call: acquireLock,
    summary: "Take a lock for ttlMs, waiting for it up to waitMs; 409 when somebody else holds it",
    params: lockNameSchema,
    headers: z.object({ "idempotency-key": idempotencyKeySchema.optional() }),
    body: { schema: acquireSchema, bytesMax: BODY_BYTES_MAX },
    response: lockSchema,
    input: ({ params, headers, body }) => ({
      ...params,
      ...body,
      idempotencyKey: headers["idempotency-key"],
    }),
    answer: asJson,
  }),
  route("put", "/v1/locks/:name", {
    call: renewLock,
    summary: "Hold a lock for ttlMs from now on, under the same fencing token",
    params: lockNameSchema,
    body: { schema: renewSchema, bytesMax: BODY_BYTES_MAX },
    response: lockSchema,
    input: ({ params, body }) => ({ ...params, ...body }),
    answer: asJson,
  }),
  route("delete", "/v1/locks/:name", {
    call: releaseLock,
    summary: "Release a lock; one that nobody holds is released already",
    params: lockNameSchema,
    body: { schema: releaseSchema, bytesMax: BODY_BYTES_MAX },
    response: null,
    status: 204,
    input: ({ params, body }) => ({ ...params, ...body }),
    answer: asEmpty,
  }),
];
