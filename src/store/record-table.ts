/**
 * What `KeyvStore` needs of a Keyv backend: sealed records under binary keys,
 * synchronous reads, and atomic durable commits in order. Two bodies: LevelDB,
 * which has all of it, and any other Keyv adapter with a journal in front.
 */

import type { UnavailableError } from "../errors.ts";

/** `record` undefined deletes the key; else it begins with `RecordTable.room` bytes for the table. */
export interface RecordChange {
  readonly key: string;
  readonly record: Uint8Array | undefined;
}

/** A record of which each of several commits changes a part: written once for all that become durable together. */
export interface SharedRecord {
  readonly key: string;
  /** Called in the order of commits, when this one is about to be written. */
  apply(): void;
  /** With everything that was applied. */
  record(): Uint8Array;
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
   * @param shared part of the same commit; `read` and snapshots need not see it before it is durable.
   * @throws {UnavailableError} this or an earlier commit failed; only a new table on the same data can go on.
   */
  commit(changes: readonly RecordChange[], shared?: SharedRecord): Promise<void>;

  /** Why nothing can be committed any more; undefined while all is well. */
  readonly failure: UnavailableError | undefined;

  /** Bytes that a record has free before it, for the table. */
  readonly room: number;

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
