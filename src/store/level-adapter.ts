/**
 * LevelDB as a Keyv 6 storage adapter, and as the table that a partition store
 * needs: every commit is one atomic LevelDB write batch, and all that wait share
 * one fsync. LevelDB's own concurrent synced writes reach a tenth of that.
 *
 * What is handed over but not yet in LevelDB lies in an ordered overlay, so reads
 * and snapshots see it at once.
 */
import { EventEmitter } from "node:events";
import type { ClassicLevel, Snapshot } from "classic-level";
import { type KeyvStorageAdapter, type KeyvStorageEntry, keyvStorageCapability } from "keyv";
import { DamagedError, UnavailableError } from "../errors.ts";
import { GroupCommit } from "./group-commit.ts";
import { OrderedMap } from "./ordered-map.ts";
import {
  prefixEnd,
  type RecordChange,
  type RecordRange,
  type RecordSnapshot,
  type RecordTable,
  type SharedRecord,
} from "./record-table.ts";

export type Level = ClassicLevel<string, Buffer>;

/** Binary strings as keys: LevelDB orders bytes, as `<` orders the strings. */
export const binaryKeys = {
  name: "latin1",
  format: "buffer",
  encode: (key: string): Buffer => Buffer.from(key, "latin1"),
  decode: (bytes: Buffer): string => bytes.toString("latin1"),
} as const;

type Operation =
  | { readonly type: "put"; readonly key: string; readonly value: Buffer }
  | { readonly type: "del"; readonly key: string };

/** First byte of a value: what follows it, and whether 8 bytes of expiry (double, ms) come in between. */
const TEXT = 1;
const EXPIRES = 2;

export class LevelAdapter extends EventEmitter implements KeyvStorageAdapter, RecordTable {
  /** Set by Keyv; a prefix of all keys. Unset in a partition store. */
  namespace?: string | undefined;
  readonly #level: Level;
  // Operations that may not be visible in LevelDB yet, the newest of each key.
  readonly #overlay = new OrderedMap<Operation>();
  readonly #commits: GroupCommit<Operation | SharedRecord>;

  /** @param level open, with `binaryKeys` and values as buffers. */
  constructor(level: Level) {
    super();
    this.#level = level;
    this.#commits = new GroupCommit(level.location, (group) => this.#write(group));
  }

  get capabilities() {
    return keyvStorageCapability(this);
  }

  // --- the table ---

  read(key: string): Uint8Array | undefined {
    return this.#readRaw(this.#prefixed(key))?.subarray(1);
  }

  get failure(): UnavailableError | undefined {
    return this.#commits.failure;
  }

  /** For the first byte of a value. */
  get room(): number {
    return 1;
  }

  commit(changes: readonly RecordChange[], shared?: SharedRecord): Promise<void> {
    const operations = changes.map(({ key, record }) => this.#operation(key, record && asRecord(record)));
    return this.#commit(operations, shared);
  }

  snapshot(): RecordSnapshot {
    if (this.#level.status !== "open") throw new UnavailableError(`${this.#level.location} is closed`);
    return new LevelSnapshot(this.#level, this.#level.snapshot(), this.#overlay.copy());
  }

  async close(): Promise<void> {
    await this.#commits.idle();
    this.#commits.close();
    await this.#level.close();
  }

  // --- the Keyv adapter ---

  async get<Value>(key: string): Promise<KeyvEntryOf<Value>> {
    return unfold<Value>(this.#readRaw(this.#prefixed(key)));
  }

  async getMany<Value>(keys: string[]): Promise<KeyvEntryOf<Value | undefined>[]> {
    return keys.map((key) => unfold<Value>(this.#readRaw(this.#prefixed(key))));
  }

  async set(key: string, value: unknown, expires?: number): Promise<boolean> {
    await this.#commit([this.#operation(key, fold(value, expires))]);
    return true;
  }

  async setMany<Value>(entries: KeyvStorageEntry<Value>[]): Promise<boolean[]> {
    await this.#commit(entries.map(({ key, value, expires }) => this.#operation(key, fold(value, expires))));
    return entries.map(() => true);
  }

  async has(key: string): Promise<boolean> {
    return (await this.get(key)) !== undefined;
  }

  hasMany(keys: string[]): Promise<boolean[]> {
    return Promise.all(keys.map((key) => this.has(key)));
  }

  async delete(key: string): Promise<boolean> {
    return (await this.deleteMany([key]))[0]!;
  }

  async deleteMany(keys: string[]): Promise<boolean[]> {
    const had = await this.hasMany(keys);
    await this.#commit(keys.map((key) => this.#operation(key, undefined)));
    return had;
  }

  /** Only what lies in the namespace, when there is one. */
  async clear(): Promise<void> {
    for await (const keys of this.#pages((snapshot, range) => snapshot.keys(range))) {
      await this.#commit(keys.map((key): Operation => ({ type: "del", key })));
    }
  }

  async disconnect(): Promise<void> {
    await this.close();
  }

  async *iterator<Value>(): AsyncGenerator<Array<string | Awaited<Value> | undefined>, void> {
    const cut = this.#prefixed("").length;
    for await (const page of this.#pages((snapshot, range) => snapshot.scanRaw(range))) {
      for (const [key, bytes] of page) {
        const entry = unfold<Awaited<Value>>(bytes);
        // Keyv decodes what stands in the second place as `get` returned it.
        if (entry !== undefined) yield [key.slice(cut), entry as Awaited<Value>];
      }
    }
  }

  async *#pages<T>(read: (snapshot: LevelSnapshot, range: RecordRange) => Promise<T[]>): AsyncGenerator<T[]> {
    const limit = 1_000;
    const until = prefixEnd(this.#prefixed(""));
    const snapshot = new LevelSnapshot(this.#level, this.#level.snapshot(), this.#overlay.copy());
    try {
      for (let from: string | undefined = this.#prefixed(""); from !== undefined; ) {
        const page: T[] = await read(snapshot, { from, until, limit });
        yield page;
        const last: T | undefined = page[limit - 1];
        const lastKey: unknown = Array.isArray(last) ? last[0] : last;
        from = typeof lastKey === "string" ? `${lastKey}\0` : undefined;
      }
    } finally {
      await snapshot.close();
    }
  }

  #prefixed(key: string): string {
    return this.namespace === undefined ? key : `${this.namespace}:${key}`;
  }

  #operation(key: string, value: Buffer | undefined): Operation {
    const prefixed = this.#prefixed(key);
    return value === undefined ? { type: "del", key: prefixed } : { type: "put", key: prefixed, value };
  }

  async #write(group: readonly (Operation | SharedRecord)[]): Promise<void> {
    const operations: Operation[] = [];
    const shared = new Map<string, SharedRecord>();
    for (const one of group) {
      if ("type" in one) operations.push(one);
      else {
        one.apply();
        shared.set(one.key, one);
      }
    }
    const own = operations.length;
    for (const { key, record } of shared.values()) operations.push(this.#operation(key, asRecord(record())));
    await this.#level.batch(operations, { sync: true });
    for (let i = 0; i < own; i++) {
      const operation = operations[i]!;
      if (this.#overlay.get(operation.key) === operation) this.#overlay.delete(operation.key);
    }
  }

  #commit(operations: readonly Operation[], shared?: SharedRecord): Promise<void> {
    if (this.#commits.failure !== undefined) return Promise.reject(this.#commits.failure);
    let bytes = 0;
    for (const operation of operations) {
      this.#overlay.set(operation.key, operation);
      bytes += operation.key.length + (operation.type === "put" ? operation.value.length : 0);
    }
    return this.#commits.commit(shared === undefined ? operations : [...operations, shared], bytes);
  }

  #readRaw(key: string): Buffer | undefined {
    const waiting = this.#overlay.get(key);
    if (waiting !== undefined) return waiting.type === "put" ? waiting.value : undefined;
    try {
      return this.#level.getSync(key);
    } catch (cause) {
      throw readError(this.#level.location, cause);
    }
  }
}

type KeyvEntryOf<Value> = { value: Value; expires?: number | undefined } | string | undefined;

/** Neither text nor with an expiry. */
function asRecord(record: Uint8Array): Buffer {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  bytes[0] = 0;
  return bytes;
}

/** LevelDB and overlay as they stood together, merged in key order. */
class LevelSnapshot implements RecordSnapshot {
  readonly #level: Level;
  readonly #snapshot: Snapshot;
  readonly #overlay: OrderedMap<Operation>;

  constructor(level: Level, snapshot: Snapshot, overlay: OrderedMap<Operation>) {
    this.#level = level;
    this.#snapshot = snapshot;
    this.#overlay = overlay;
  }

  async scan(range: RecordRange): Promise<(readonly [string, Uint8Array])[]> {
    return (await this.scanRaw(range)).map(([key, bytes]) => [key, bytes.subarray(1)] as const);
  }

  async scanRaw(range: RecordRange): Promise<(readonly [string, Buffer])[]> {
    const iterator = this.#level.iterator<string, Buffer>(this.#options(range));
    try {
      return await this.#merge<readonly [string, Buffer]>(
        range,
        (size) => iterator.nextv(size),
        ([key]) => key,
        (operation) => [operation.key, operation.value],
      );
    } finally {
      await iterator.close();
    }
  }

  async keys(range: RecordRange): Promise<string[]> {
    const iterator = this.#level.keys<string>(this.#options(range));
    try {
      return await this.#merge<string>(
        range,
        (size) => iterator.nextv(size),
        (key) => key,
        (operation) => operation.key,
      );
    } finally {
      await iterator.close();
    }
  }

  close(): Promise<void> {
    return this.#snapshot.close();
  }

  #options({ from, until }: RecordRange) {
    return { gte: from, ...(until !== undefined && { lt: until }), snapshot: this.#snapshot };
  }

  async #merge<T>(
    { from, until, limit }: RecordRange,
    next: (size: number) => Promise<T[]>,
    keyOf: (item: T) => string,
    itemOf: (operation: Operation & { type: "put" }) => T,
  ): Promise<T[]> {
    const waiting = this.#overlay.range(from, until);
    let over = waiting.next();
    const found: T[] = [];
    let page: T[] = [];
    let at = 0;
    let ended = false;
    while (found.length < limit) {
      if (at === page.length && !ended) {
        try {
          page = await next(Math.min(limit - found.length, 1_000));
        } catch (cause) {
          throw readError(this.#level.location, cause);
        }
        at = 0;
        ended = page.length === 0;
      }
      const stored = page[at];
      const key = stored === undefined ? undefined : keyOf(stored);
      if (!over.done && (key === undefined || over.value[0] <= key)) {
        const [waitingKey, operation] = over.value;
        if (waitingKey === key) at++;
        if (operation.type === "put") found.push(itemOf(operation));
        over = waiting.next();
      } else if (stored !== undefined) {
        found.push(stored);
        at++;
      } else {
        break;
      }
    }
    return found;
  }
}

function fold(value: unknown, expires: number | undefined): Buffer {
  const content = contentOf(value);
  const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
  const kind = (typeof content === "string" ? TEXT : 0) | (expires === undefined ? 0 : EXPIRES);
  const head = Buffer.alloc(expires === undefined ? 1 : 9, kind);
  if (expires !== undefined) head.writeDoubleBE(expires, 1);
  return Buffer.concat([head, bytes]);
}

/** Without serialization Keyv hands over `{ value, expires }`, else text. */
function contentOf(value: unknown): string | Uint8Array {
  const content = typeof value === "object" && value !== null && "value" in value ? value.value : value;
  if (typeof content === "string" || content instanceof Uint8Array) return content;
  throw new TypeError("only text and bytes can be stored; leave Keyv's serialization on for other values");
}

function unfold<Value>(stored: Buffer | undefined): KeyvEntryOf<Value> {
  if (stored === undefined) return undefined;
  const kind = stored[0]!;
  const expires = (kind & EXPIRES) === 0 ? undefined : stored.readDoubleBE(1);
  if (expires !== undefined && expires <= Date.now()) return undefined;
  const content = stored.subarray(expires === undefined ? 1 : 9);
  if ((kind & TEXT) !== 0) return content.toString("utf8");
  return { value: content as Value & Buffer, expires };
}

function readError(location: string, cause: unknown): Error {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "LEVEL_CORRUPTION") return new DamagedError(`${location} is damaged`, { cause });
  return new UnavailableError(`${location} can't be read; check the disk`, { cause });
}
