/**
 * Values of the cluster's users: each read sees the last write that was
 * acknowledged, whichever server answers.
 *
 * Every write carries a key of its own under which the cluster knows a repeat
 * again: a write whose answer was lost is neither made twice nor taken for a
 * rival's.
 */
import { randomUUID } from "node:crypto";
import type { WatchedValue } from "../edge/value-calls.ts";
import { NotFoundError, PreconditionFailedError } from "../errors.ts";
import type { Caller } from "./caller.ts";
import { followEvents } from "./event-source.ts";

/** Bytes and text are kept as they are, anything else as JSON. */
export type Value =
  | Uint8Array
  | string
  | number
  | boolean
  | null
  | readonly unknown[]
  | { readonly [name: string]: unknown };

export interface SetOptions {
  /** Of the value's own kind when left out: octets, `text/plain` or `application/json`. */
  readonly contentType?: string | undefined;
  /** Milliseconds until it is gone; never, when left out. */
  readonly ttlMs?: number | undefined;
}

export interface WrittenValue {
  /** As HTTP has it, with its quotes. Each write has another one. */
  readonly etag: string;
  /** ISO 8601; null: never. */
  readonly expiresAt: string | null;
}

/** `etag` of a conflict: of what stands there; null: nothing does. */
export type WriteResult =
  | ({ readonly written: true } & WrittenValue)
  | { readonly written: false; readonly etag: string | null };

export interface ValueInfo extends WrittenValue {
  readonly key: string;
  readonly contentType: string;
  /** Bytes. */
  readonly size: number;
}

interface Conditions {
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
}

const KEYS_PER_PAGE = 1000;

interface ReadFields extends WrittenValue {
  /** Base64. */
  readonly value: string;
  readonly contentType: string;
  readonly ageMs?: number | null;
}

export type ValueChange =
  | { readonly kind: "value"; readonly key: string; readonly value: StoredValue }
  | { readonly kind: "deleted"; readonly key: string };

/** A value as it was read. */
export class StoredValue {
  readonly bytes: Uint8Array;
  readonly contentType: string;
  readonly etag: string;
  /** ISO 8601; null: never. */
  readonly expiresAt: string | null;

  /** Of a stale read: milliseconds since the copy was surely up to date; null: not known; undefined: it is. */
  readonly ageMs: number | null | undefined;

  constructor(read: ReadFields) {
    this.bytes = Buffer.from(read.value, "base64");
    this.contentType = read.contentType;
    this.etag = read.etag;
    this.expiresAt = read.expiresAt;
    this.ageMs = read.ageMs;
  }

  text(): string {
    return new TextDecoder().decode(this.bytes);
  }

  /** @throws {SyntaxError} it is no JSON. */
  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }
}

export class Values {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Undefined: nothing was written under it, or it was deleted or has expired.
   *
   * @param options.stale from the copy at hand: quick, also without a majority, perhaps out of date; see `ageMs`.
   */
  async get(
    namespace: string,
    key: string,
    options: { readonly stale?: boolean | undefined } = {},
  ): Promise<StoredValue | undefined> {
    const input = { namespace, key, stale: options.stale === true };
    try {
      const read = await this.#caller.call((to, rest) => to.kv.get.query(input, rest));
      return "value" in read ? new StoredValue(read) : undefined;
    } catch (error) {
      if (error instanceof NotFoundError) return undefined;
      throw error;
    }
  }

  /** Whatever stood there before. */
  set(namespace: string, key: string, value: Value, options: SetOptions = {}): Promise<WrittenValue> {
    return this.#write(namespace, key, value, options, {});
  }

  /** Only where nothing stands. */
  create(namespace: string, key: string, value: Value, options: SetOptions = {}): Promise<WriteResult> {
    return orConflict(this.#write(namespace, key, value, options, { ifNoneMatch: "*" }));
  }

  /** Only in the place of the value that `etag` names. */
  compareAndSet(
    namespace: string,
    key: string,
    etag: string,
    value: Value,
    options: SetOptions = {},
  ): Promise<WriteResult> {
    return orConflict(this.#write(namespace, key, value, options, { ifMatch: etag }));
  }

  /**
   * False: there was nothing.
   *
   * @param options.ifMatch the ETag of the value that may be deleted.
   * @throws {PreconditionFailedError} another one stands there, or none.
   */
  async delete(
    namespace: string,
    key: string,
    options: { readonly ifMatch?: string | undefined } = {},
  ): Promise<boolean> {
    const { ifMatch } = options;
    const input = {
      namespace,
      key,
      idempotencyKey: randomUUID(),
      ...(ifMatch === undefined ? {} : { ifMatch }),
    };
    try {
      await this.#caller.call((to, rest) => to.kv.remove.mutate(input, rest));
      return true;
    } catch (error) {
      if (error instanceof NotFoundError) return false;
      throw error;
    }
  }

  /** All keys of a namespace, each once, in an order of the cluster's own; not from one moment. */
  async *list(
    namespace: string,
    options: { readonly prefix?: string | undefined } = {},
  ): AsyncGenerator<ValueInfo, void, void> {
    const { prefix = "" } = options;
    let cursor: string | undefined;
    do {
      const page = { namespace, prefix, limit: KEYS_PER_PAGE, cursor };
      const { items, nextCursor } = await this.#caller.call((to, rest) => to.kv.list.query(page, rest));
      yield* items;
      cursor = nextCursor ?? undefined;
    } while (cursor !== undefined);
  }

  /**
   * What is there, then each change as it is committed; for each key in order. It goes
   * on at another server when its own dies, and misses no key's last state: of several
   * changes in quick succession, or during a change of servers, it may tell the last only.
   *
   * Remembers the keys that it has told of: bounded by the size of what is watched.
   *
   * @param options.key only this one.
   */
  async *watch(
    namespace: string,
    options: {
      readonly key?: string | undefined;
      readonly prefix?: string | undefined;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): AsyncGenerator<ValueChange, void, void> {
    const { key, prefix = "", signal } = options;
    const query = new URLSearchParams({ watch: "true", prefix, ...(key === undefined ? {} : { key }) });
    const path = `/v1/kv/${encodeURIComponent(namespace)}?${query}`;
    // By id: what was told last. Between a beginning and `ready`, `confirmed` holds what is still there.
    const told = new Map<string, { readonly key: string; readonly etag: string }>();
    let confirmed: Set<string> | undefined;
    for await (const { event, data } of followEvents(this.#caller, path, { signal })) {
      switch (event) {
        case "opened":
        case "reset":
          confirmed = new Set();
          break;
        case "value": {
          const watched = JSON.parse(data) as WatchedValue;
          confirmed?.add(watched.id);
          if (told.get(watched.id)?.etag === watched.etag) break;
          told.set(watched.id, { key: watched.key, etag: watched.etag });
          yield { kind: "value", key: watched.key, value: new StoredValue(watched) };
          break;
        }
        case "deleted": {
          const { id } = JSON.parse(data) as { id: string };
          const known = told.get(id);
          told.delete(id);
          if (known !== undefined) yield { kind: "deleted", key: known.key };
          break;
        }
        case "ready":
          for (const [id, known] of told) {
            if (confirmed?.has(id) !== false) continue;
            told.delete(id);
            yield { kind: "deleted", key: known.key };
          }
          confirmed = undefined;
          break;
      }
    }
  }

  #write(
    namespace: string,
    key: string,
    value: Value,
    { contentType, ttlMs }: SetOptions,
    conditions: Conditions,
  ): Promise<WrittenValue> {
    const { bytes, kind } = encoded(value);
    const input = {
      namespace,
      key,
      value: bytes.toString("base64"),
      contentType: contentType ?? kind,
      idempotencyKey: randomUUID(),
      ...conditions,
      ...(ttlMs === undefined ? {} : { ttlMs }),
    };
    return this.#caller.call(async (to, rest) => {
      const { etag, expiresAt } = await to.kv.set.mutate(input, rest);
      return { etag, expiresAt };
    });
  }
}

function encoded(value: Value): { bytes: Buffer; kind: string } {
  if (typeof value === "string") return { bytes: Buffer.from(value), kind: "text/plain; charset=utf-8" };
  if (value instanceof Uint8Array) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return { bytes, kind: "application/octet-stream" };
  }
  return { bytes: Buffer.from(JSON.stringify(value)), kind: "application/json" };
}

async function orConflict(writing: Promise<WrittenValue>): Promise<WriteResult> {
  try {
    return { written: true, ...(await writing) };
  } catch (error) {
    if (error instanceof PreconditionFailedError) return { written: false, etag: error.etag };
    throw error;
  }
}
