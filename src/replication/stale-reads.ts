/**
 * Reads of a replica's own newest state, whoever leads: what they show may be
 * old, and may be a write that never happens. Expired entries stay hidden.
 */
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { AgeMs, Entry, Key, Operation } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import { type HeldEntry, RESERVED, type ReplicaState } from "./replica-state.ts";

const SCANS_MAX = 64;
const BUSY_MS = 50;
const ENTRY_BYTES = 64;
const RESERVED_END = `${RESERVED}\xff`;

type Get = Extract<Operation, { kind: "get" }>;
type ScanOperation = Extract<Operation, { kind: "scan" }>;

interface Scan {
  readonly operation: number;
  readonly op: ScanOperation;
  readonly generation: number;
  readonly epochMs: number;
  readonly ageMs: AgeMs;
  readonly entries: Entry[];
  bytes: number;
}

export class StaleReads {
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  readonly #scans = new Map<number, Scan>();

  constructor(options: { state: ReplicaState; effects: ReplicaEffect[]; limits: ReplicaLimits }) {
    this.#state = options.state;
    this.#effects = options.effects;
    this.#limits = options.limits;
  }

  get(operation: number, { keys }: Get, epochMs: number, ageMs: AgeMs): void {
    let bytes = 0;
    const entries = keys.map((key) => {
      const entry = key.startsWith(RESERVED) ? undefined : this.#state.get(key);
      if (entry === undefined || isExpired(entry, epochMs)) return undefined;
      bytes += key.length + entry.value.byteLength + ENTRY_BYTES;
      return { key, ...entry };
    });
    const isTooLarge = keys.length > 1 && bytes > this.#limits.answerBytes;
    this.#effects.push({
      kind: "answer",
      operation,
      outcome: isTooLarge ? { code: "TOO_LARGE" } : { kind: "entries", entries, ageMs },
    });
  }

  /** @param snapshot a number of its own. */
  scan(operation: number, op: ScanOperation, snapshot: number, epochMs: number, ageMs: AgeMs): void {
    if (this.#scans.size >= SCANS_MAX) {
      this.#effects.push({ kind: "answer", operation, outcome: { code: "BUSY", retryAfterMs: BUSY_MS } });
      return;
    }
    const { generation } = this.#state;
    const scan: Scan = { operation, op, generation, epochMs, ageMs, entries: [], bytes: 0 };
    this.#scans.set(snapshot, scan);
    this.#effects.push({ kind: "snapshot", snapshot });
    this.#read(snapshot, scan, op.after);
  }

  /** Whether the snapshot is one of these. */
  scanned(snapshot: number, { entries: found, isLast }: Scanned): boolean {
    const scan = this.#scans.get(snapshot);
    if (scan === undefined) return false;
    let more = !isLast;
    for (const entry of found) {
      if (isExpired(entry, scan.epochMs)) continue;
      const bytes = entry.key.length + entry.value.byteLength + ENTRY_BYTES;
      const isFull =
        scan.entries.length === scan.op.limit ||
        (scan.bytes > 0 && scan.bytes + bytes > this.#limits.answerBytes);
      if (isFull) {
        more = true;
        this.#end(snapshot, scan, more);
        return true;
      }
      scan.entries.push(entry);
      scan.bytes += bytes;
    }
    // Pages of nothing but expired entries are read past: "more" needs an entry to go on from.
    if (more && found.length > 0) this.#read(snapshot, scan, found.at(-1)!.key);
    else this.#end(snapshot, scan, false);
    return true;
  }

  stop(): void {
    for (const [snapshot, { operation }] of this.#scans) {
      this.#effects.push({ kind: "release", snapshot });
      this.#effects.push({ kind: "answer", operation, outcome: { code: "NOT_LEADER" } });
    }
    this.#scans.clear();
  }

  #read(snapshot: number, { op, entries, generation }: Scan, after: Key | undefined): void {
    this.#effects.push({
      kind: "scan",
      snapshot,
      generation,
      prefix: op.prefix,
      after: after === undefined || after < RESERVED_END ? RESERVED_END : after,
      limit: op.limit - entries.length + 1,
      bytesMax: this.#limits.answerBytes,
      isTransfer: false,
    });
  }

  #end(snapshot: number, { operation, entries, ageMs }: Scan, more: boolean): void {
    this.#scans.delete(snapshot);
    this.#effects.push({ kind: "release", snapshot });
    this.#effects.push({ kind: "answer", operation, outcome: { kind: "scanned", entries, more, ageMs } });
  }
}

function isExpired({ expiresAtMs }: HeldEntry, epochMs: number): boolean {
  return expiresAtMs !== undefined && expiresAtMs <= epochMs;
}
