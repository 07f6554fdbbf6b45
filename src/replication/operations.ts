/**
 * Operations at a serving leader: decided in order of arrival against the newest
 * state, answered when what they saw or did is committed and, for answers about
 * state, a majority has confirmed the leadership in a round sent after they came.
 */
import { versionOf } from "./ballot.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { DecidedChange } from "./message.ts";
import { failedCondition, OpenBatch } from "./open-batch.ts";
import type { Ballot, Change, Entry, Key, Operation, Outcome } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import { type HeldEntry, OUTCOME_PREFIX, RESERVED, type ReplicaState } from "./replica-state.ts";

/** How long the outcome of a request with an id is kept. */
export const OUTCOME_KEPT_MS = 10 * 60_000;
const WAITING_MAX = 8192;
const BUSY_MS = 25;
/** Greater than every reserved key. */
const RESERVED_END = `${RESERVED}\xff`;
/** Deletions of expired entries that one scan may bring about. */
const EXPIRED_MAX = 512;
const SWEEP_ENTRIES = 256;
const SWEEP_PAGE_MS = 200;
const SWEEP_MS = 60_000;
const ENTRY_BYTES = 64;

interface Waiting {
  readonly operation: number;
  readonly outcome: Outcome;
  /** Answered when this batch is committed … */
  readonly seq: number;
  /** … and this round of confirmation is through; 0: needs none. */
  readonly round: number;
}

interface Scan {
  readonly operation: number;
  readonly prefix: Key;
  readonly limit: number;
  readonly overlay: ReadonlyMap<Key, DecidedChange>;
  readonly seq: number;
  readonly round: number;
  readonly epochMs: number;
}

type Batch = Extract<Operation, { kind: "batch" }>;

export class Operations {
  readonly #state: ReplicaState;
  readonly #ballot: Ballot;
  readonly #effects: ReplicaEffect[];
  readonly #nextSnapshot: () => number;
  readonly #limits: ReplicaLimits;
  #open = new OpenBatch();
  // Keys of batches that are not committed, with the batch that touched them last.
  readonly #pending = new Map<Key, number>();
  readonly #batches: { readonly seq: number; readonly keys: readonly Key[] }[] = [];
  #writes: Waiting[] = [];
  #reads: Waiting[] = [];
  readonly #scans = new Map<number, Scan>();
  #committed = 0;
  #confirmedRound = 0;
  /** The round that answers about state have to wait for when they come now. */
  #round = 1;
  #isRoundWanted = false;
  /** When expired outcomes are looked for; Infinity: there are none. */
  #sweepAtMs = 0;
  /** The sweep that is under way, or where the next page begins. */
  #sweep: { snapshot: number | undefined; after: Key | undefined; found: number } = {
    snapshot: undefined,
    after: undefined,
    found: 0,
  };

  constructor(options: {
    state: ReplicaState;
    ballot: Ballot;
    effects: ReplicaEffect[];
    nextSnapshot: () => number;
    limits: ReplicaLimits;
    nowMs: number;
  }) {
    this.#state = options.state;
    this.#ballot = options.ballot;
    this.#effects = options.effects;
    this.#nextSnapshot = options.nextSnapshot;
    this.#limits = options.limits;
    this.#sweepAtMs = options.nowMs + SWEEP_MS;
  }

  get sweepAtMs(): number {
    return this.#sweepAtMs;
  }

  get isIdle(): boolean {
    return this.#writes.length + this.#reads.length + this.#scans.size === 0 && this.#open.isEmpty;
  }

  get hasOpenBatch(): boolean {
    return !this.#open.isEmpty;
  }

  /** Whether somebody waits for a round that was not sent. */
  get isRoundWanted(): boolean {
    return this.#isRoundWanted;
  }

  /** The number of the round that is to be sent now; later arrivals wait for the next one. */
  takeRound(): number {
    this.#isRoundWanted = false;
    return this.#round++;
  }

  /** @returns false when the operation was refused as BUSY because the open batch is full: close it and come again. */
  start(operation: number, op: Operation, nowMs: number, epochMs: number): boolean {
    if (this.#writes.length + this.#reads.length + this.#scans.size >= WAITING_MAX) {
      this.#refuse(operation);
      return true;
    }
    switch (op.kind) {
      case "get":
        return this.#get(operation, op.keys, epochMs);
      case "scan":
        this.#scan(operation, op, epochMs);
        return true;
      case "batch":
        return this.#batch(operation, op, nowMs, epochMs);
    }
  }

  refuseBusy(operation: number): void {
    this.#refuse(operation);
  }

  /** A change of the leader's own, in the open batch; false when it does not fit. */
  add(change: Change): boolean {
    if (!this.#open.fits([change])) return false;
    this.#open.add([change]);
    return true;
  }

  /** Takes the open batch, to be handed to the store as batch `seq`. */
  close(seq: number): { changes: readonly DecidedChange[]; bytes: number } {
    const { changes, bytes } = this.#open;
    this.#open = new OpenBatch();
    const keys = changes.map(({ key }) => key);
    for (const key of keys) this.#pending.set(key, seq);
    if (keys.length > 0) this.#batches.push({ seq, keys });
    return { changes, bytes };
  }

  committed(seq: number): void {
    if (seq <= this.#committed) return;
    this.#committed = seq;
    while (this.#batches.length > 0 && this.#batches[0]!.seq <= seq) {
      const batch = this.#batches.shift()!;
      for (const key of batch.keys) if (this.#pending.get(key) === batch.seq) this.#pending.delete(key);
    }
    this.#settle();
  }

  confirmed(round: number): void {
    if (round <= this.#confirmedRound) return;
    this.#confirmedRound = round;
    this.#settle();
  }

  scanned(snapshot: number, { entries: found, isLast }: Scanned, nowMs: number, epochMs: number): void {
    if (snapshot === this.#sweep.snapshot) return this.#swept(found, isLast, nowMs, epochMs);
    const scan = this.#scans.get(snapshot);
    if (scan === undefined) return;
    this.#scans.delete(snapshot);
    this.#effects.push({ kind: "release", snapshot });
    const last = found.at(-1)?.key;
    const merged = new Map<Key, Entry>();
    for (const entry of found) merged.set(entry.key, entry);
    for (const [key, change] of scan.overlay) {
      // What lies past the part that was read belongs to the next page.
      if (!isLast && (last === undefined || key > last)) continue;
      if (change.kind === "delete") merged.delete(key);
      else {
        const version = versionOf(this.#ballot, scan.seq, change.step);
        merged.set(key, { key, version, value: change.value, expiresAtMs: change.expiresAtMs });
      }
    }
    const entries: Entry[] = [];
    const deletes: Change[] = [];
    let bytes = 0;
    let more = !isLast;
    let seen = scan.seq;
    for (const entry of [...merged.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
      if (
        entries.length === scan.limit ||
        deletes.length === EXPIRED_MAX ||
        (bytes > 0 && bytes + bytesOfEntry(entry) > this.#limits.answerBytes)
      ) {
        more = true;
        break;
      }
      if (!isExpired(entry, scan.epochMs)) {
        entries.push(entry);
        bytes += bytesOfEntry(entry);
      } else if (this.#read(entry.key)?.version === entry.version) {
        deletes.push({ kind: "delete", key: entry.key });
      } else {
        // Replaced since; until that is committed it may still come back.
        seen = Math.max(seen, this.#seqOf(entry.key));
      }
    }
    // Absence may be told only once it is committed.
    if (deletes.length > 0 && !this.#open.fits(deletes)) return this.#refuse(scan.operation);
    this.#open.add(deletes);
    const seq = deletes.length > 0 ? this.#openSeq : seen;
    const outcome: Outcome = { kind: "scanned", entries, more };
    this.#reads.push({ operation: scan.operation, outcome, seq, round: scan.round });
    this.#settle();
  }

  /** Looks for expired outcomes, a page at a time, while there are any outcomes at all. */
  sweep(): void {
    if (this.#sweep.snapshot !== undefined) return;
    this.#sweepAtMs = Number.POSITIVE_INFINITY;
    const snapshot = this.#nextSnapshot();
    this.#sweep.snapshot = snapshot;
    this.#effects.push({ kind: "snapshot", snapshot });
    this.#effects.push({
      kind: "scan",
      snapshot,
      generation: this.#state.generation,
      prefix: OUTCOME_PREFIX,
      after: this.#sweep.after,
      limit: SWEEP_ENTRIES,
      bytesMax: this.#limits.messageBytes,
      isTransfer: true,
    });
  }

  /** Leadership is over. What reached the store may have happened; nothing else has. */
  stop(): void {
    const handed = this.#state.seq;
    for (const { operation, seq } of this.#writes) {
      const code = seq <= handed ? "OUTCOME_UNKNOWN" : "NOT_LEADER";
      this.#effects.push({ kind: "answer", operation, outcome: { code } });
    }
    for (const { operation } of this.#reads) {
      this.#effects.push({ kind: "answer", operation, outcome: { code: "NOT_LEADER" } });
    }
    if (this.#sweep.snapshot !== undefined) {
      this.#effects.push({ kind: "release", snapshot: this.#sweep.snapshot });
    }
    for (const [snapshot, { operation }] of this.#scans) {
      this.#effects.push({ kind: "release", snapshot });
      this.#effects.push({ kind: "answer", operation, outcome: { code: "NOT_LEADER" } });
    }
    this.#writes = [];
    this.#reads = [];
    this.#scans.clear();
  }

  #get(operation: number, keys: readonly Key[], epochMs: number): boolean {
    const found = keys.map((key) => ({ key, entry: this.#read(key) }));
    const expired = found.filter(({ entry }) => entry !== undefined && isExpired(entry, epochMs));
    const bytes = found.reduce(
      (sum, { key, entry }) => sum + (entry ? bytesOfEntry({ key, ...entry }) : 0),
      0,
    );
    if (found.length > 1 && bytes > this.#limits.answerBytes) {
      this.#effects.push({ kind: "answer", operation, outcome: { code: "TOO_LARGE" } });
      return true;
    }
    const deletes = expired.map(({ key }): Change => ({ kind: "delete", key }));
    if (deletes.length > 0 && !this.#open.fits(deletes)) return false;
    this.#open.add(deletes);
    const seq = Math.max(...keys.map((key) => this.#seqOf(key)));
    this.#wait(operation, seq, {
      kind: "entries",
      entries: found.map(({ key, entry }) =>
        entry === undefined || isExpired(entry, epochMs) ? undefined : { key, ...entry },
      ),
    });
    return true;
  }

  #scan(operation: number, op: Extract<Operation, { kind: "scan" }>, epochMs: number): void {
    const after = op.after === undefined || op.after < RESERVED_END ? RESERVED_END : op.after;
    const overlay = new Map<Key, DecidedChange>();
    for (const change of this.#open.changes) {
      if (change.key.startsWith(op.prefix) && change.key > after) overlay.set(change.key, change);
    }
    const snapshot = this.#nextSnapshot();
    this.#scans.set(snapshot, {
      operation,
      prefix: op.prefix,
      limit: op.limit,
      overlay,
      seq: overlay.size > 0 ? this.#openSeq : this.#pendingSeq,
      round: this.#wantRound(),
      epochMs,
    });
    this.#effects.push({ kind: "snapshot", snapshot });
    this.#effects.push({
      kind: "scan",
      snapshot,
      generation: this.#state.generation,
      prefix: op.prefix,
      after,
      // The overlay may delete some of what is read.
      limit: op.limit + 1 + overlay.size,
      bytesMax: this.#limits.answerBytes,
      isTransfer: false,
    });
  }

  #batch(operation: number, op: Batch, nowMs: number, epochMs: number): boolean {
    const recordKey = op.requestId === undefined ? undefined : OUTCOME_PREFIX + op.requestId;
    if (recordKey !== undefined) {
      const record = this.#read(recordKey);
      if (record !== undefined && !isExpired(record, epochMs)) {
        // A repeat gets the first outcome, once that is committed.
        this.#wait(operation, this.#seqOf(recordKey), decodeOutcome(record.value));
        return true;
      }
    }
    const changed = new Set(op.changes.map(({ key }) => key));
    const expired = new Set<Key>();
    const live = (key: Key) => {
      const entry = this.#read(key);
      if (entry === undefined || !isExpired(entry, epochMs)) return entry;
      expired.add(key);
      return undefined;
    };
    const failed = failedCondition(op.conditions, live);
    const seq = this.#openSeq;
    const step = this.#open.stepOf(op.changes.map(({ key }) => key));
    const outcome: Outcome =
      failed === undefined
        ? { kind: "written", version: versionOf(this.#ballot, seq, step) }
        : { kind: "conflict", failed };
    // That an entry has expired is told, also by a condition, only once its deletion is committed.
    const changes: Change[] = [...expired]
      .filter((key) => failed !== undefined || !changed.has(key))
      .map((key) => ({ kind: "delete", key }));
    if (failed === undefined) changes.push(...op.changes);
    if (recordKey !== undefined) {
      changes.push({
        kind: "put",
        key: recordKey,
        value: encodeOutcome(outcome),
        expiresAtMs: epochMs + OUTCOME_KEPT_MS,
      });
      if (this.#sweepAtMs === Number.POSITIVE_INFINITY && this.#sweep.snapshot === undefined)
        this.#sweepAtMs = nowMs + SWEEP_MS;
    }
    if (changes.length === 0) {
      const seen = op.conditions.map(({ key }) => this.#seqOf(key));
      this.#wait(operation, Math.max(this.#committed, ...seen), outcome);
      return true;
    }
    if (!this.#open.fits(changes)) return false;
    this.#open.add(changes, step);
    // A failed condition is an answer about state, even when its outcome is recorded.
    this.#writes.push({ operation, outcome, seq, round: failed === undefined ? 0 : this.#wantRound() });
    return true;
  }

  #swept(found: Scanned["entries"], isLast: boolean, nowMs: number, epochMs: number): void {
    this.#effects.push({ kind: "release", snapshot: this.#sweep.snapshot! });
    const deletes = found
      .filter((entry) => isExpired(entry, epochMs) && this.#read(entry.key)?.version === entry.version)
      .map(({ key }): Change => ({ kind: "delete", key }));
    const isTaken = deletes.length === 0 || this.#open.fits(deletes);
    if (isTaken) this.#open.add(deletes);
    // A page for which there is no room now is read again.
    const after = isTaken ? found.at(-1)?.key : this.#sweep.after;
    const count = this.#sweep.found + found.length;
    const isOver = isLast && isTaken;
    this.#sweep = { snapshot: undefined, after: isOver ? undefined : after, found: isOver ? 0 : count };
    if (!isOver) this.#sweepAtMs = nowMs + SWEEP_PAGE_MS;
    else if (count > 0) this.#sweepAtMs = nowMs + SWEEP_MS;
  }

  #wait(operation: number, seq: number, outcome: Outcome): void {
    this.#reads.push({ operation, outcome, seq, round: this.#wantRound() });
  }

  #wantRound(): number {
    this.#isRoundWanted = true;
    return this.#round;
  }

  #settle(): void {
    const isReady = ({ seq, round }: Waiting) => seq <= this.#committed && round <= this.#confirmedRound;
    let answered = 0;
    while (answered < this.#writes.length && isReady(this.#writes[answered]!)) {
      this.#answer(this.#writes[answered++]!);
    }
    if (answered > 0) this.#writes = this.#writes.slice(answered);
    if (this.#reads.some(isReady)) {
      for (const waiting of this.#reads) if (isReady(waiting)) this.#answer(waiting);
      this.#reads = this.#reads.filter((waiting) => !isReady(waiting));
    }
  }

  #answer({ operation, outcome }: Waiting): void {
    this.#effects.push({ kind: "answer", operation, outcome });
  }

  #refuse(operation: number): void {
    this.#effects.push({ kind: "answer", operation, outcome: { code: "BUSY", retryAfterMs: BUSY_MS } });
  }

  #read(key: Key): HeldEntry | undefined {
    return this.#open.read(key, this.#ballot, this.#openSeq, this.#state.get(key));
  }

  get #openSeq(): number {
    return this.#state.seq + 1;
  }

  /** Greatest batch that was handed over and is not committed. */
  get #pendingSeq(): number {
    return this.#pending.size === 0 ? this.#committed : this.#state.seq;
  }

  #seqOf(key: Key): number {
    return this.#open.touches(key) ? this.#openSeq : (this.#pending.get(key) ?? this.#committed);
  }
}

function isExpired(entry: { readonly expiresAtMs?: number | undefined }, epochMs: number): boolean {
  return entry.expiresAtMs !== undefined && entry.expiresAtMs <= epochMs;
}

function bytesOfEntry({ key, value }: Entry): number {
  return key.length + value.byteLength + ENTRY_BYTES;
}

function encodeOutcome(outcome: Outcome): Uint8Array {
  return Buffer.from(JSON.stringify(outcome));
}

function decodeOutcome(value: Uint8Array): Outcome {
  return JSON.parse(Buffer.from(value).toString("utf8")) as Outcome;
}
