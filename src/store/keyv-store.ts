/**
 * The partition store on Keyv. With our LevelDB adapter a batch is one LevelDB
 * write batch; any other Keyv adapter gets a journal in front.
 *
 * Keys of records: one byte for the kind, partition (uint16), and for entries
 * generation (uint32) and the entry's key, so that a partition's entries of one
 * generation are one range in key order.
 */
import assert from "node:assert/strict";
import type { Keyv } from "keyv";
import { BusyError, DamagedError, type UnavailableError } from "../errors.ts";
import { ClaimPages } from "./claim-pages.ts";
import { openBytes, openEntry, type StoreCipher, sealBytes, sealEntry } from "./encryption.ts";
import { JournaledKeyv } from "./journaled-keyv.ts";
import { LevelAdapter } from "./level-adapter.ts";
import { prefixEnd, type RecordChange, type RecordTable } from "./record-table.ts";
import type { Store, StoreBatch, StoredEntry, StoreKey, StoreSnapshot } from "./store.ts";

/** What says which store this is. */
const MARK = "\x00mark";
const META = "\x01";
const ENTRY = "\x02";
/** A partition whose entries are being deleted: finished when the store opens again. */
const DROPPED = "\x03";

const KEY_BYTES_MAX = 512;
/** Keys deleted by one commit while a generation is dropped. */
const DROP_STEP = 1_000;

export class KeyvStore implements Store {
  readonly #name: string;
  readonly #table: RecordTable;
  readonly #cipher: StoreCipher;
  readonly #claims = new ClaimPages((key, page) => this.#sealed(key, page));
  // All meta records, opened; one that could not be is its error.
  readonly #meta = new Map<number, Uint8Array | DamagedError>();
  readonly #dropping = new Set<number>();

  private constructor(name: string, table: RecordTable, cipher: StoreCipher) {
    this.#name = name;
    this.#table = table;
    this.#cipher = cipher;
  }

  /**
   * The store owns `keyv` from here on; it must be empty or have been a partition
   * store's before, and have no namespace or lifetime (ttl) of its own.
   *
   * @param name where the data is, for messages.
   * @throws {UsageError} the adapter lacks what a store needs.
   */
  static async open(name: string, keyv: Keyv<string>, cipher: StoreCipher): Promise<KeyvStore> {
    assert(keyv.ttl === undefined, "entries of a store don't expire by themselves");
    const table = keyv.store instanceof LevelAdapter ? keyv.store : await JournaledKeyv.open(keyv);
    const store = new KeyvStore(name, table, cipher);
    await store.#load();
    return store;
  }

  /** Keys of records about the store and its partitions are below this. */
  static readonly recordsEnd = ENTRY;

  /** Whose records may lie in a range of keys. */
  static partitionsOf(range: { readonly after: string | undefined; readonly last: string | undefined }): {
    readonly from: number;
    readonly to: number;
  } {
    const isEntry = (key: string | undefined) => key?.startsWith(ENTRY) === true && key.length >= 3;
    return {
      from: isEntry(range.after) ? partitionIn(range.after!) : 0,
      to: isEntry(range.last) ? partitionIn(range.last!) : 0xffff,
    };
  }

  write(batch: StoreBatch): Promise<void> {
    const { partition, generation, changes, meta, claim } = batch;
    if (this.#dropping.has(partition)) {
      return Promise.reject(new BusyError(`deleting the earlier replica of partition ${partition}`, 100));
    }
    const records: RecordChange[] = [];
    if (changes.length > 0) {
      const prefix = entryPrefix(partition, generation);
      for (const change of changes) {
        const key = prefix + checked(change.key);
        const record =
          change.kind === "put" ? sealEntry(this.#cipher, key, change.entry, this.#table.room) : undefined;
        records.push({ key, record });
      }
    }
    if (meta !== undefined) {
      const key = META + uint16(partition);
      records.push({ key, record: this.#sealed(key, meta) });
      this.#meta.set(partition, meta);
    }
    return this.#table.commit(
      records,
      claim === undefined ? undefined : this.#claims.change(partition, claim),
    );
  }

  /** Why nothing can be written any more; undefined while all is well. */
  get failure(): UnavailableError | undefined {
    return this.#table.failure;
  }

  get(partition: number, generation: number, key: StoreKey): StoredEntry | undefined {
    const place = entryPrefix(partition, generation) + key;
    const record = this.#table.read(place);
    return record && openEntry(this.#cipher, place, record, () => this.#what(place));
  }

  meta(partition: number): Uint8Array | undefined {
    const meta = this.#meta.get(partition);
    if (meta instanceof DamagedError) throw meta;
    return meta;
  }

  claim(partition: number): Uint8Array | undefined {
    return this.#claims.of(partition);
  }

  /** What `writeMark` wrote last; undefined in a store that never had one. @throws {DamagedError} */
  mark(): string | undefined {
    const record = this.#table.read(MARK);
    if (record === undefined) return undefined;
    const bytes = openBytes(this.#cipher, MARK, record, () => `the mark of ${this.#name}`);
    return Buffer.from(bytes).toString("latin1");
  }

  /** Durable when the promise resolves. */
  async writeMark(mark: string): Promise<void> {
    await this.#table.commit([{ key: MARK, record: this.#sealed(MARK, Buffer.from(mark, "latin1")) }]);
  }

  partitions(): number[] {
    return [...this.#meta.keys()].sort((a, b) => a - b);
  }

  snapshot(): StoreSnapshot {
    const snapshot = this.#table.snapshot();
    return {
      scan: async (partition, generation, { prefix, after, limit }) => {
        const start = entryPrefix(partition, generation);
        // The smallest key above `after` is `after` and a zero byte.
        const from = after !== undefined && after >= prefix ? `${start + after}\0` : start + prefix;
        const records = await snapshot.scan({ from, until: prefixEnd(start + prefix), limit });
        return records.map(([place, record]) => ({
          ...openEntry(this.#cipher, place, record, () => this.#what(place)),
          key: place.slice(start.length),
        }));
      },
      close: () => snapshot.close(),
    };
  }

  dropGeneration(partition: number, generation: number): Promise<void> {
    return this.#clear(entryPrefix(partition, generation));
  }

  async dropPartition(partition: number): Promise<void> {
    const marker = { key: DROPPED + uint16(partition), record: new Uint8Array(this.#table.room) };
    this.#dropping.add(partition);
    this.#meta.delete(partition);
    await this.#table.commit(
      [{ key: META + uint16(partition), record: undefined }, marker],
      this.#claims.change(partition, undefined),
    );
    await this.#finishDrop(partition);
  }

  close(): Promise<void> {
    return this.#table.close();
  }

  async #load(): Promise<void> {
    const snapshot = this.#table.snapshot();
    try {
      const limit = 0x10000;
      for (const [key, record] of await snapshot.scan({ from: META, until: prefixEnd(META), limit })) {
        const partition = partitionIn(key);
        try {
          this.#meta.set(
            partition,
            openBytes(this.#cipher, key, record, () => this.#what(key)),
          );
        } catch (error) {
          if (!(error instanceof DamagedError)) throw error;
          this.#meta.set(partition, error);
        }
      }
      const { prefix } = ClaimPages;
      for (const [key, record] of await snapshot.scan({ from: prefix, until: prefixEnd(prefix), limit })) {
        try {
          this.#claims.load(key, () => openBytes(this.#cipher, key, record, () => this.#what(key)));
        } catch (error) {
          if (!(error instanceof DamagedError)) throw error;
          this.#claims.damaged(key, error);
        }
      }
      for (const key of await snapshot.keys({ from: DROPPED, until: prefixEnd(DROPPED), limit })) {
        await this.#finishDrop(partitionIn(key));
      }
    } finally {
      await snapshot.close();
    }
  }

  async #finishDrop(partition: number): Promise<void> {
    await this.#clear(ENTRY + uint16(partition));
    await this.#table.commit([{ key: DROPPED + uint16(partition), record: undefined }]);
    this.#dropping.delete(partition);
  }

  async #clear(prefix: string): Promise<void> {
    const until = prefixEnd(prefix);
    for (let count = DROP_STEP; count === DROP_STEP; ) {
      // A new snapshot each time: LevelDB can't compact what an old one still shows.
      const snapshot = this.#table.snapshot();
      const keys = await snapshot
        .keys({ from: prefix, until, limit: DROP_STEP })
        .finally(() => snapshot.close());
      count = keys.length;
      if (count > 0) await this.#table.commit(keys.map((key) => ({ key, record: undefined })));
    }
  }

  #sealed(key: string, bytes: Uint8Array): Uint8Array {
    return sealBytes(this.#cipher, key, bytes, this.#table.room);
  }

  #what(place: string): string {
    if (place.startsWith(ClaimPages.prefix)) return `a record of several partitions in ${this.#name}`;
    const key = Buffer.from(place.slice(place.startsWith(ENTRY) ? 7 : 3), "latin1").toString("hex");
    const record = place.startsWith(ENTRY) ? `entry ${key}` : "the meta record";
    return `${record} of partition ${partitionIn(place)} in ${this.#name}`;
  }
}

function uint16(value: number): string {
  assert(Number.isInteger(value) && value >= 0 && value <= 0xffff, `not a partition: ${value}`);
  return String.fromCharCode(value >>> 8, value & 0xff);
}

function entryPrefix(partition: number, generation: number): string {
  assert(Number.isInteger(generation) && generation >= 0 && generation <= 0xffffffff);
  return (
    ENTRY +
    uint16(partition) +
    String.fromCharCode(
      generation >>> 24,
      (generation >>> 16) & 0xff,
      (generation >>> 8) & 0xff,
      generation & 0xff,
    )
  );
}

function partitionIn(place: string): number {
  return (place.charCodeAt(1) << 8) | place.charCodeAt(2);
}

function checked(key: StoreKey): StoreKey {
  assert(key.length >= 1 && key.length <= KEY_BYTES_MAX, `a key has 1 to ${KEY_BYTES_MAX} bytes`);
  // A wider char would be cut to a byte, and fall on another key.
  assert(!/[^\0-\xff]/.test(key), "a key is a binary string");
  return key;
}
