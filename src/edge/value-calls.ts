/** Calls about users' values. A value belongs to who wrote it: the same names of two users are two values. */
import { hash } from "node:crypto";
import { z } from "zod";
import { InvalidInputError, NotFoundError, PreconditionFailedError, TooLargeError } from "../errors.ts";
import {
  KEY_VALUE_BYTES_MAX,
  type KeyValueInfo,
  type ValueCondition,
  type WriteOutcome,
} from "../node/key-values.ts";
import type { ValueEvent } from "../node/value-watch.ts";
import { type Permitted, protectedCall } from "./call.ts";
import { entityTagOf, holds, ifMatch, ifNoneMatch } from "./entity-tag.ts";
import type { SentEvent } from "./event-stream.ts";
import { idempotencyKeySchema, pageSchema } from "./job-calls.ts";

const TTL_MS_MAX = 10 * 365 * 86_400_000;
const HEADER_CHARS_MAX = 4096;
const BASE64_CHARS_MAX = 4 * Math.ceil(KEY_VALUE_BYTES_MAX / 3);

// "." and ".." stand for no key in a URL, whoever writes it.
export const nameSchema = (charsMax: number) =>
  z
    .string()
    .min(1)
    .max(charsMax)
    .refine((text) => !/\p{Cc}|\p{Cs}/u.test(text) && text !== "." && text !== "..", {
      error: `must be 1 to ${charsMax} characters, none of them a control character, and not . or ..`,
    });
export const namespaceSchema = nameSchema(128);
export const valueNameSchema = z.object({ namespace: namespaceSchema, key: nameSchema(512) });

const conditionHeader = z.string().max(HEADER_CHARS_MAX).optional();
/** As HTTP states them; `ifMatch` and `ifNoneMatch` hold ETags with their quotes, or `*`. */
export const conditionsSchema = z.object({ ifMatch: conditionHeader, ifNoneMatch: conditionHeader });

export const ttlMsSchema = z.int(`must be whole milliseconds, 1 to ${TTL_MS_MAX}`).min(1).max(TTL_MS_MAX);

export const contentTypeSchema = z
  .string()
  .regex(/^[\x20-\x7e]{1,255}$/, "must be 1 to 255 printable ASCII characters");
export const CONTENT_TYPE = "application/octet-stream";

const writeSchema = valueNameSchema.extend(conditionsSchema.shape).extend({
  idempotencyKey: idempotencyKeySchema.optional(),
});

export const setSchema = writeSchema.extend({
  /** Base64 on the wire. */
  value: z
    .base64()
    .max(BASE64_CHARS_MAX, `must be at most ${KEY_VALUE_BYTES_MAX} bytes`)
    .transform((text): Uint8Array => Buffer.from(text, "base64")),
  contentType: contentTypeSchema.default(CONTENT_TYPE),
  ttlMs: ttlMsSchema.optional(),
});

export const valueWrittenSchema = z.object({
  namespace: z.string(),
  key: z.string(),
  etag: z.string(),
  /** ISO 8601; null: never. */
  expiresAt: z.string().nullable(),
});

export const valueInfoSchema = z.object({
  key: z.string(),
  etag: z.string(),
  contentType: z.string(),
  /** Bytes. */
  size: z.int().nonnegative(),
  /** ISO 8601; null: never. */
  expiresAt: z.string().nullable(),
});

export type ReadValue =
  | {
      readonly kind: "value";
      readonly bytes: Uint8Array;
      readonly contentType: string;
      readonly etag: string;
      readonly expiresAt: string | null;
      /** Of a stale read: since when it may be out of date; null: not known. */
      readonly ageMs?: number | null;
    }
  /** The asker has it already. */
  | { readonly kind: "unchanged"; readonly etag: string };

export const getValue = protectedCall({
  access: "kv:read",
  input: valueNameSchema.extend(conditionsSchema.shape).extend({
    /** From the copy at hand, quick and without a majority, but perhaps out of date. */
    stale: z.boolean().default(false),
  }),
  run: async ({ ground, principal }, { namespace, key, stale, ...conditions }): Promise<ReadValue> => {
    const required = conditions.ifMatch === undefined ? undefined : ifMatch(conditions.ifMatch);
    const wanted = conditions.ifNoneMatch === undefined ? undefined : ifNoneMatch(conditions.ifNoneMatch);
    const { value, ageMs } = await ground.backend.values.get(
      { user: principal.username, namespace, key },
      { isStale: stale },
    );
    if (required !== undefined && !holds(required, value?.version)) throw changed(value?.version);
    if (value === undefined) throw notThere(namespace, key);
    const etag = entityTagOf(value.version);
    if (wanted !== undefined && !holds(wanted, value.version)) return { kind: "unchanged", etag };
    const { bytes, contentType } = value;
    return {
      kind: "value",
      bytes,
      contentType,
      etag,
      expiresAt: isoOf(value.expiresAtMs),
      ...(ageMs === undefined ? {} : { ageMs }),
    };
  },
});

export const setValue = protectedCall({
  access: "kv:write",
  input: setSchema,
  run: async (asker, input): Promise<z.output<typeof valueWrittenSchema>> => {
    const { namespace, key, value: bytes, contentType, ttlMs } = input;
    if (bytes.byteLength > KEY_VALUE_BYTES_MAX) {
      throw new TooLargeError(
        `a value has at most ${KEY_VALUE_BYTES_MAX} bytes, this one ${bytes.byteLength}`,
      );
    }
    const expiresAtMs = ttlMs === undefined ? undefined : Date.now() + ttlMs;
    const { values } = asker.ground.backend;
    const user = asker.principal.username;
    const outcome = await values.put(
      { user, namespace, key },
      { bytes, contentType, expiresAtMs },
      {
        condition: conditionOf(input),
        requestId: requestIdOf(asker, input, () => ["put", contentType, String(ttlMs), digestOf(bytes)]),
      },
    );
    return { namespace, key, etag: tagOf(outcome), expiresAt: isoOf(expiresAtMs) };
  },
});

export const removeValue = protectedCall({
  access: "kv:write",
  input: writeSchema,
  run: async (asker, input): Promise<void> => {
    const { namespace, key } = input;
    if (input.ifNoneMatch !== undefined) throw unwanted("If-None-Match", "can't be met by what is removed");
    const outcome = await asker.ground.backend.values.remove(
      { user: asker.principal.username, namespace, key },
      { condition: conditionOf(input), requestId: requestIdOf(asker, input, () => ["delete"]) },
    );
    const isAbsent = outcome.kind === "conflict" && outcome.found === undefined;
    if (isAbsent && input.ifMatch === undefined) throw notThere(namespace, key);
    tagOf(outcome);
  },
});

const prefixSchema = z.string().max(512).default("");
export const listQuerySchema = pageSchema.extend({ prefix: prefixSchema });

export const listValues = protectedCall({
  access: "kv:read",
  input: listQuerySchema.extend({ namespace: namespaceSchema }),
  run: async ({ ground, principal }, { namespace, prefix, limit, cursor }) => {
    const { values } = ground.backend;
    const { items, nextCursor } = await values.list(
      { user: principal.username, namespace },
      { prefix, limit, cursor },
    );
    return { items: items.map(publicInfo), nextCursor };
  },
});

/** What `value` tells of a watch, in JSON. `id` stands for the key: `deleted` knows it by nothing else. */
export interface WatchedValue extends z.output<typeof valueInfoSchema> {
  readonly id: string;
  /** Base64. */
  readonly value: string;
}

/**
 * Server-sent events `value`, `deleted`, `ready`, `reset`, until the asker is gone:
 * first what is there, then what changes.
 */
export const watchValues = protectedCall({
  access: "kv:read",
  input: z.object({
    namespace: namespaceSchema,
    key: valueNameSchema.shape.key.optional(),
    prefix: prefixSchema,
  }),
  run: async ({ ground, principal, signal }, { namespace, key, prefix }) =>
    sentEvents(ground.backend.valueWatch.watch({ user: principal.username, namespace, key }, signal), prefix),
});

async function* sentEvents(events: AsyncIterable<ValueEvent>, prefix: string): AsyncGenerator<SentEvent> {
  for await (const event of events) {
    switch (event.kind) {
      case "value": {
        const { bytes, ...rest } = event.value;
        if (!rest.key.startsWith(prefix)) break;
        const watched: WatchedValue = {
          id: event.id,
          ...publicInfo({ ...rest, size: bytes.byteLength }),
          value: Buffer.from(bytes).toString("base64"),
        };
        yield { event: "value", data: watched };
        break;
      }
      case "deleted":
        yield { event: "deleted", data: { id: event.id } };
        break;
      case "ready":
      case "reset":
        yield { event: event.kind, data: {} };
        break;
    }
  }
}

function publicInfo({ key, version, contentType, size, expiresAtMs }: KeyValueInfo) {
  return { key, etag: entityTagOf(version), contentType, size, expiresAt: isoOf(expiresAtMs) };
}

function conditionOf(conditions: z.output<typeof conditionsSchema>): ValueCondition {
  if (conditions.ifMatch !== undefined && conditions.ifNoneMatch !== undefined) {
    throw unwanted("If-None-Match", "can't stand beside If-Match: send one of them");
  }
  if (conditions.ifMatch !== undefined) return ifMatch(conditions.ifMatch);
  if (conditions.ifNoneMatch !== undefined) return ifNoneMatch(conditions.ifNoneMatch);
  return { kind: "any" };
}

/** The same key with another request is another request: it must never get this one's outcome. */
function requestIdOf(
  { ground, principal }: Permitted,
  input: z.output<typeof writeSchema>,
  parts: () => readonly string[],
): string | undefined {
  const { namespace, key, idempotencyKey, ifMatch = "", ifNoneMatch = "" } = input;
  if (idempotencyKey === undefined) return undefined;
  const all = [namespace, key, idempotencyKey, ifMatch, ifNoneMatch, ...parts()];
  return ground.backend.values.requestId(principal.username, all);
}

/** @throws {PreconditionFailedError} nothing was written. */
function tagOf(outcome: WriteOutcome): string {
  if (outcome.kind === "conflict") throw changed(outcome.found);
  return entityTagOf(outcome.version);
}

function changed(found: string | undefined): PreconditionFailedError {
  return new PreconditionFailedError(
    found === undefined
      ? "the condition does not hold: there is no value under this key"
      : "the condition does not hold: the value is another one by now, or is there already; read it again",
    found === undefined ? null : entityTagOf(found),
  );
}

function notThere(namespace: string, key: string): NotFoundError {
  return new NotFoundError(`there is no value under ${key.slice(0, 100)} in ${namespace}`);
}

function unwanted(path: string, message: string): InvalidInputError {
  return new InvalidInputError(`${path} ${message}`, [{ path, message }]);
}

function digestOf(bytes: Uint8Array): string {
  return hash("sha256", bytes, "base64url");
}

function isoOf(epochMs: number | undefined): string | null {
  return epochMs === undefined ? null : new Date(epochMs).toISOString();
}
