/**
 * Operations on the registers of one partition, and their outcomes. Evaluated
 * by the partition's leader in order of arrival; linearizable.
 */
import { z } from "zod";

/** Binary string, each char code one byte: see the store port. 1..512 bytes. Those that begin with "\x00" are reserved. */
export type Key = string;

/**
 * `${round}.${replicaId}.${seq}`: which batch of which leader wrote an entry, with `.${step}`
 * when an earlier operation of the same batch had changed the same key. Compared with `===`.
 */
export type Version = string;

export const KEY_BYTES_MAX = 512;
export const VALUE_BYTES_MAX = 1024 * 1024 + 4096;
export const BATCH_CHANGES_MAX = 1024;
export const BATCH_BYTES_MAX = 4 * 1024 * 1024;
export const WATCH_MS_MAX = 60_000;

const key = z.string().min(1).max(KEY_BYTES_MAX);
const value = z.custom<Uint8Array>(
  (v) => v instanceof Uint8Array && v.byteLength <= VALUE_BYTES_MAX,
  "bytes",
);

export const changeSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("put"), key, value, expiresAtMs: z.number().optional() }),
  z.object({ kind: z.literal("delete"), key }),
]);
export type Change = z.output<typeof changeSchema>;

/** `is`: "absent", "present", or the version that the entry must have. */
export const conditionSchema = z.object({
  key,
  is: z.union([z.literal("absent"), z.literal("present"), z.string()]),
});
export type Condition = z.output<typeof conditionSchema>;

export const ballotSchema = z.object({ round: z.int().nonnegative(), replicaId: z.string() });
/** Ordered by round, then replica id. */
export type Ballot = z.output<typeof ballotSchema>;

/** From the own state of whichever replica is asked: it may be old, and may show a write that never happens. */
const stale = z.boolean().optional();

export const operationSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("get"), keys: z.array(key).min(1).max(1024), stale }),
  z.object({
    kind: z.literal("scan"),
    prefix: z.string().max(KEY_BYTES_MAX),
    after: key.optional(),
    limit: z.int().min(1).max(4096),
    stale,
  }),
  /**
   * Answered as soon as there are committed changes of keys that begin with `prefix`, at the
   * latest after `waitMs`; asked again with the version of the answer, it misses none.
   */
  z.object({
    kind: z.literal("watch"),
    prefix: z.string().max(KEY_BYTES_MAX),
    /** As a scan or a watch has given it: not an entry's. Left out: now; answered at once. */
    from: z.string().max(128).optional(),
    waitMs: z.int().min(0).max(WATCH_MS_MAX),
  }),
  z.object({
    kind: z.literal("batch"),
    changes: z.array(changeSchema).max(BATCH_CHANGES_MAX),
    conditions: z.array(conditionSchema).max(BATCH_CHANGES_MAX),
    /** Makes a retry safe: the first outcome is kept for 10 minutes and given again. */
    requestId: z.string().min(1).max(128).optional(),
    /** Refused with NOT_LEADER unless the leader serves under exactly this ballot. */
    onlyUnder: ballotSchema.optional(),
  }),
]);
/** `get` answers its keys from one state; `batch` changes all its keys or none. */
export type Operation = z.output<typeof operationSchema>;

/** Whether any replica may answer, from its own state. */
export function isStale(op: Operation): boolean {
  return (op.kind === "get" || op.kind === "scan") && op.stale === true;
}

export interface Entry {
  readonly key: Key;
  readonly version: Version;
  readonly value: Uint8Array;
  readonly expiresAtMs?: number | undefined;
}

/**
 * Of a stale answer: ms since that replica last knew that it was level with a
 * leader; null: not since it was opened. Left out: the answer is not stale.
 */
export type AgeMs = number | null | undefined;

/** The last one of its batch; what stood there in between is not told. */
export type WatchedChange =
  | { readonly kind: "put"; readonly entry: Entry }
  | { readonly kind: "delete"; readonly key: Key; readonly version: Version };

export type Outcome =
  /** In the order of the keys asked for. */
  | {
      readonly kind: "entries";
      readonly entries: readonly (Entry | undefined)[];
      readonly ageMs?: AgeMs;
    }
  /** `more`: there are entries after the last one of these. `version`: a watch from it misses nothing; left out when stale. */
  | {
      readonly kind: "scanned";
      readonly entries: readonly Entry[];
      readonly more: boolean;
      readonly version?: Version | undefined;
      readonly ageMs?: AgeMs;
    }
  /** In order, whole batches; none: nothing has changed until now. `version`: to watch on from. */
  | { readonly kind: "changed"; readonly changes: readonly WatchedChange[]; readonly version: Version }
  /** What came after the version asked for is not at hand any more: scan, then watch from the scan's version. */
  | { readonly kind: "compacted" }
  | { readonly kind: "written"; readonly version: Version }
  /** Nothing was changed. `failed` holds the first condition that did not hold and the entry that stood there. */
  | {
      readonly kind: "conflict";
      readonly failed: { readonly key: Key; readonly found: Version | undefined };
    };
