/**
 * Users' values under a namespace and a key: linearizable from any member.
 *
 * A value is placed by user, namespace and key together, so that one busy namespace
 * spreads over the whole ring; listing a namespace therefore asks partition after
 * partition. What a condition compares is the version of the entry: each write has
 * another one, also when it writes what stood there before.
 */
import { z } from "zod";
import { BusyError, InvalidInputError } from "../errors.ts";
import type { Change, Condition, Entry, Version } from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import type { Registers } from "./registers.ts";

export const KEY_VALUE_BYTES_MAX = 1024 * 1024;

/** Rivals that may come between before a condition on several versions gives up. */
const ATTEMPTS_MAX = 16;
const CONTENDED_MS = 100;
/** Partitions that a list asks at once, when the ones before had little. */
const ASKED_AT_ONCE_MAX = 16;
/** A list that filters by prefix looks at no more entries than this before it answers with what it has. */
const LOOKED_AT_MAX = 4096;
const SCAN_ENTRIES_MAX = 256;
/** Partition and the name of the key after which it goes on. */
const CURSOR_PARTITION_BYTES = 2;
const NAME_BYTES = 16;

const recordSchema = z.object({
  key: z.string(),
  contentType: z.string(),
  bytes: z.custom<Uint8Array>((value) => value instanceof Uint8Array),
});

/** Which state an entry must be in for a write to happen. */
export type ValueCondition =
  | { readonly kind: "any" | "absent" | "present" }
  /** Its version is, or is not, among `versions`; an absent one has none. */
  | { readonly kind: "oneOf" | "noneOf"; readonly versions: readonly Version[] };

export interface ValueName {
  readonly user: string;
  readonly namespace: string;
  readonly key: string;
}

export interface KeyValue {
  readonly key: string;
  readonly contentType: string;
  readonly bytes: Uint8Array;
  readonly version: Version;
  /** Milliseconds since the epoch; undefined: never. */
  readonly expiresAtMs: number | undefined;
}

/** A value without its bytes. */
export interface KeyValueInfo extends Omit<KeyValue, "bytes"> {
  readonly size: number;
}

/** `found`: the version that stands there, undefined when there is none. */
export type WriteOutcome =
  | { readonly kind: "written"; readonly version: Version }
  | { readonly kind: "conflict"; readonly found: Version | undefined };

export interface WriteOptions {
  readonly condition: ValueCondition;
  /** A repeat under the same id gets the first outcome, for ten minutes. Without one, a lost answer is OutcomeUnknownError. */
  readonly requestId: string | undefined;
}

export class KeyValues {
  readonly #registers: Registers;
  readonly #layout: KeyLayout;

  constructor(options: { registers: Registers; layout: KeyLayout }) {
    this.#registers = options.registers;
    this.#layout = options.layout;
  }

  /**
   * @param options.isStale from the copy at hand, however old; `ageMs` tells since when it may be.
   * @throws {UnavailableError} no majority answered in time; when stale: nobody did.
   */
  async get(
    { user, namespace, key }: ValueName,
    options: { readonly isStale: boolean } = { isStale: false },
  ): Promise<{ value: KeyValue | undefined; ageMs: number | null | undefined }> {
    const partition = this.#layout.valuePartition(user, namespace, key);
    const keys = [this.#layout.value(user, namespace, key)];
    const stale = options.isStale ? { stale: true } : {};
    const outcome = await this.#registers.operate(partition, { kind: "get", keys, ...stale });
    if (outcome.kind !== "entries") return { value: undefined, ageMs: undefined };
    const [entry] = outcome.entries;
    return { value: entry === undefined ? undefined : keyValueOf(entry), ageMs: outcome.ageMs };
  }

  /**
   * @throws {OutcomeUnknownError} it may or may not have been written.
   * @throws {BusyError} a bound was reached before anything was written.
   */
  async put(
    { user, namespace, key }: ValueName,
    value: Pick<KeyValue, "bytes" | "contentType" | "expiresAtMs">,
    options: WriteOptions,
  ): Promise<WriteOutcome> {
    const { bytes, contentType, expiresAtMs } = value;
    const change: Change = {
      kind: "put",
      key: this.#layout.value(user, namespace, key),
      value: encodeRecord({ key, contentType, bytes }),
      ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
    };
    return this.#write(this.#layout.valuePartition(user, namespace, key), change, options);
  }

  /** Absent already is a conflict, whatever the condition. */
  async remove({ user, namespace, key }: ValueName, options: WriteOptions): Promise<WriteOutcome> {
    const { condition, requestId } = options;
    const change: Change = { kind: "delete", key: this.#layout.value(user, namespace, key) };
    return this.#write(this.#layout.valuePartition(user, namespace, key), change, {
      condition: condition.kind === "any" ? { kind: "present" } : condition,
      requestId,
    });
  }

  /** For `WriteOptions`: names a request of a user by all that makes it what it is. */
  requestId(user: string, parts: readonly string[]): string {
    return this.#layout.requestId(user, parts);
  }

  /**
   * One page, in the cluster's order, which is no order of the alphabet. Each partition
   * is read from one state; `items` may be fewer than `limit`, or none, before the end.
   *
   * @param options.prefix of the keys.
   * @throws {InvalidInputError} the cursor is none of ours.
   */
  async list(
    { user, namespace }: Omit<ValueName, "key">,
    options: { readonly prefix: string; readonly limit: number; readonly cursor: string | undefined },
  ): Promise<{ items: KeyValueInfo[]; nextCursor: string | null }> {
    const { prefix, limit } = options;
    const { partitionCount } = this.#layout;
    const within = this.#layout.values(user, namespace);
    let { partition, after } = readCursor(options.cursor, partitionCount);
    const items: KeyValueInfo[] = [];
    let lookedAt = 0;
    let atOnce = 1;
    while (partition < partitionCount) {
      const asked = Array.from({ length: Math.min(atOnce, partitionCount - partition) }, (_, i) =>
        this.#scan(partition + i, within, i === 0 ? after : undefined, limit),
      );
      for (const { entries, more } of await Promise.all(asked)) {
        for (const entry of entries) {
          const { bytes, ...value } = keyValueOf(entry);
          if (value.key.startsWith(prefix)) items.push({ ...value, size: bytes.byteLength });
          if (items.length === limit || ++lookedAt === LOOKED_AT_MAX) {
            return { items, nextCursor: writeCursor(partition, entry.key.slice(within.length)) };
          }
        }
        if (more) {
          after = entries.at(-1)?.key.slice(within.length);
          break;
        }
        after = undefined;
        partition++;
      }
      // Partitions that had much are read one by one: what is asked ahead may be for nothing.
      atOnce = items.length > limit / 2 ? 1 : Math.min(atOnce * 2, ASKED_AT_ONCE_MAX);
    }
    return { items, nextCursor: null };
  }

  async #scan(
    partition: number,
    within: string,
    after: string | undefined,
    limit: number,
  ): Promise<{ entries: readonly Entry[]; more: boolean }> {
    const outcome = await this.#registers.operate(partition, {
      kind: "scan",
      prefix: within,
      limit: Math.min(limit, SCAN_ENTRIES_MAX),
      ...(after === undefined ? {} : { after: within + after }),
    });
    return outcome.kind === "scanned" ? outcome : { entries: [], more: false };
  }

  /**
   * A register compares with one version. A condition on several begins with a guess,
   * and a wrong guess tells which version stands there: no read comes before. Each
   * attempt has a request id of its own, so that a repeat goes the same way again.
   */
  async #write(
    partition: number,
    change: Change,
    { condition, requestId }: WriteOptions,
  ): Promise<WriteOutcome> {
    let is = firstGuess(condition);
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const outcome = await this.#registers.operate(partition, {
        kind: "batch",
        changes: [change],
        conditions: is === undefined ? [] : [{ key: change.key, is }],
        ...(requestId === undefined ? {} : { requestId: `${requestId}/${attempt}` }),
      });
      if (outcome.kind === "written") return { kind: "written", version: outcome.version };
      if (outcome.kind !== "conflict") break;
      const { found } = outcome.failed;
      is = nextGuess(condition, found);
      if (is === undefined) return { kind: "conflict", found };
    }
    throw new BusyError("this key is being written by many at once and", CONTENDED_MS);
  }
}

function firstGuess(condition: ValueCondition): Condition["is"] | undefined {
  switch (condition.kind) {
    case "any":
      return undefined;
    case "absent":
    case "present":
      return condition.kind;
    case "oneOf":
      return condition.versions[0];
    case "noneOf":
      return "absent";
  }
}

/** Undefined: the condition does not hold with `found` there. */
function nextGuess(condition: ValueCondition, found: Version | undefined): Condition["is"] | undefined {
  switch (condition.kind) {
    case "any":
    case "absent":
    case "present":
      return undefined;
    case "oneOf":
      return found !== undefined && condition.versions.includes(found) ? found : undefined;
    case "noneOf":
      if (found === undefined) return "absent";
      return condition.versions.includes(found) ? undefined : found;
  }
}

/** @throws {DamagedError} */
export function keyValueOf(entry: Entry): KeyValue {
  const { key, contentType, bytes } = decodeRecord(recordSchema, entry.value);
  return { key, contentType, bytes, version: entry.version, expiresAtMs: entry.expiresAtMs };
}

function writeCursor(partition: number, after: string): string {
  const head = Buffer.alloc(CURSOR_PARTITION_BYTES);
  head.writeUInt16BE(partition);
  return Buffer.concat([head, Buffer.from(after, "latin1")]).toString("base64url");
}

function readCursor(
  cursor: string | undefined,
  partitionCount: number,
): { partition: number; after: string | undefined } {
  if (cursor === undefined) return { partition: 0, after: undefined };
  const bytes = Buffer.from(cursor, "base64url");
  const partition = bytes.byteLength >= CURSOR_PARTITION_BYTES ? bytes.readUInt16BE() : partitionCount;
  if (bytes.byteLength !== CURSOR_PARTITION_BYTES + NAME_BYTES || partition >= partitionCount) {
    const message = "is no cursor of this list: begin again without one";
    throw new InvalidInputError(`cursor: ${message}`, [{ path: "cursor", message }]);
  }
  return { partition, after: bytes.subarray(CURSOR_PARTITION_BYTES).toString("latin1") };
}
