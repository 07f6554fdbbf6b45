/**
 * What `KeyvStore` needs of a Keyv backend: sealed records under binary keys,
 * synchronous reads, and atomic durable commits in order. Two bodies: LevelDB,
 * which has all of it, and any other Keyv adapter with a journal in front.
 */

/** `record` undefined deletes the key. */
export interface RecordChange {
  readonly key: string;
  readonly record: Uint8Array | undefined;
}

export interface RecordRange {
  /** The first key, included. */
  readonly from: string;
  /** The end, excluded; none when left out. */
  readonly until: string | undefined;
  readonly limit: number;
}

export interface RecordSnapshot {
  scan(range: RecordRange): Promise<(readonly [key: string, record: Uint8Array])[]>;
  keys(range: RecordRange): Promise<string[]>;
  close(): Promise<void>;
}

export interface RecordTable {
  /** What was last committed under `key`, durable or not yet. */
  read(key: string): Uint8Array | undefined;

  /**
   * Visible to `read` and new snapshots at once; all of it durable when the
   * promise resolves, or, after a crash before that, all or nothing. Commits
   * become durable in the order of the calls.
   *
   * @throws {UnavailableError} this or an earlier commit failed; only a new table on the same data can go on.
   */
  commit(changes: readonly RecordChange[]): Promise<void>;

  snapshot(): RecordSnapshot;

  close(): Promise<void>;
}

/** The smallest key above all keys that start with `prefix`; undefined when there is none. */
export function prefixEnd(prefix: string): string | undefined {
  let length = prefix.length;
  while (length > 0 && prefix.charCodeAt(length - 1) === 0xff) length--;
  if (length === 0) return undefined;
  return prefix.slice(0, length - 1) + String.fromCharCode(prefix.charCodeAt(length - 1) + 1);
}
