/**
 * What a replica needs of a disk: one atomic, durable batch at a time, point
 * reads, and ordered scans of one moment.
 *
 * Reads are synchronous: a condition and a digest need the entry that a change
 * replaces, and a protocol that had to wait for it could not be a pure state
 * machine. LevelDB answers in 1 to 2 microseconds; a backend without
 * synchronous reads keeps what it wrote in memory as well.
 */

/** Binary string: each char code is one byte (0..255), so `<` orders as bytes do. 1..512 bytes. */
export type StoreKey = string;

export interface StoredEntry {
  /** Opaque to the store; bound to the value by the cipher's associated data. */
  readonly version: string;
  readonly value: Uint8Array;
  /** Milliseconds since the Unix epoch. The store keeps it and does nothing about it. */
  readonly expiresAtMs?: number | undefined;
}

export type StoreChange =
  | { readonly kind: "put"; readonly key: StoreKey; readonly entry: StoredEntry }
  | { readonly kind: "delete"; readonly key: StoreKey };

export interface StoreBatch {
  readonly partition: number;
  /** Entries of another generation are invisible to reads of this one. */
  readonly generation: number;
  readonly changes: readonly StoreChange[];
  /** The partition's meta record, replaced in the same atomic write when given. */
  readonly meta?: Uint8Array;
  /** `CLAIM_BYTES`, replaced likewise: what changes with each batch costs less here than in the meta record. */
  readonly claim?: Uint8Array;
}

export interface StoreSnapshot {
  /**
   * Entries whose key starts with `prefix` and is greater than `after`, in key
   * order, at most `limit`, as they stood when the snapshot was taken, writes
   * handed over before but not yet durable included.
   *
   * @throws {DamagedError} an entry in the range can't be authenticated.
   */
  scan(
    partition: number,
    generation: number,
    range: { readonly prefix: StoreKey; readonly after?: StoreKey | undefined; readonly limit: number },
  ): Promise<(StoredEntry & { readonly key: StoreKey })[]>;
  close(): Promise<void>;
}

export interface Store {
  /**
   * Takes effect for `get`, `meta` and new snapshots at once; durable (fsynced)
   * when the promise resolves. Batches become durable in the order in which they
   * were handed over; all that wait share one fsync. After a rejection the store
   * refuses every further write until it is opened again: what a failed fsync
   * left behind is unknown.
   */
  write(batch: StoreBatch): Promise<void>;

  /** @throws {DamagedError} there is an entry, but it can't be authenticated. Undefined only ever means absent. */
  get(partition: number, generation: number, key: StoreKey): StoredEntry | undefined;

  meta(partition: number): Uint8Array | undefined;

  /** @throws {DamagedError} there may be one, but it can't be authenticated. */
  claim(partition: number): Uint8Array | undefined;

  /** Partitions that have a meta record. */
  partitions(): number[];

  snapshot(): StoreSnapshot;

  /** Deletes everything of one generation, in bounded steps. */
  dropGeneration(partition: number, generation: number): Promise<void>;

  /** Removes the partition's meta record and claim and, after that is durable, its entries of all generations. */
  dropPartition(partition: number): Promise<void>;

  close(): Promise<void>;
}
