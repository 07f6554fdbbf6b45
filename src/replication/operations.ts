/**
 * Operations at a serving leader: decided in order of arrival against the newest
 * state, answered when what they saw or did is committed and, for answers about
 * state, a majority has confirmed the leadership in a round sent after they came.
 */
import { versionOf } from "./ballot.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { DecidedChange } from "./message.ts";
import { bytesOf, failedCondition, OpenBatch } from "./open-batch.ts";
import { OutcomeSweep } from "./outcome-sweep.ts";
import type { Ballot, Change, Entry, Key, Operation, Outcome, Version } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import { type HeldEntry, OUTCOME_PREFIX, RESERVED, type ReplicaState } from "./replica-state.ts";
import type { WatchList } from "./watch-list.ts";

/** How long the outcome of a request with an id is kept. */
export const OUTCOME_KEPT_MS = 10 * 60_000;
const WAITING_MAX = 8192;
const BUSY_MS = 25;
/** Greater than every reserved key. */
const RESERVED_END = `${RESERVED}\xff`;
/** Deletions of expired entries that one scan may bring about. */
const EXPIRED_MAX = 512;
const ENTRY_BYTES = 64;

/** An operation as it came. */
export interface Asked {
  readonly operation: number;
  readonly op: Operation;
  readonly nowMs: number;
  readonly epochMs: number;
}

/** What was pending when the leader was refused. */
export interface Unanswered {
  /** In a batch of the ballot that is over: done if that is in the base of the next one. */
  readonly handed: readonly { readonly asked: Asked; readonly outcome: Outcome; readonly seq: number }[];
  /** In order of arrival; nothing of these has left the leader. */
  readonly open: readonly Asked[];
}

interface Waiting {
  readonly asked: Asked;
  readonly outcome: Outcome;
  /** Answered when this batch is committed … */
  readonly seq: number;
  /** … and this round of confirmation is through; 0: needs none. */
  readonly round: number;
  /** That it keeps in memory. */
  readonly bytes: number;
}

interface Scan {
  readonly asked: Asked;
  readonly prefix: Key;
  readonly limit: number;
  readonly overlay: ReadonlyMap<Key, DecidedChange>;
  readonly seq: number;
  readonly round: number;
  readonly version: Version;
}

type Batch = Extract<Operation, { kind: "batch" }>;
type Watch = Extract<Operation, { kind: "watch" }>;

export class Operations {
  readonly #state: ReplicaState;
  readonly #ballot: Ballot;
  readonly #effects: ReplicaEffect[];
  readonly #nextSnapshot: () => number;
  readonly #limits: ReplicaLimits;
  readonly #watches: WatchList;
  readonly #sweep: OutcomeSweep;
  #open = new OpenBatch();
  // Keys of batches that are not committed, with the batch that touched them last.
  readonly #pending = new Map<Key, number>();
  readonly #batches: { readonly seq: number; readonly keys: readonly Key[]; readonly closedMs: number }[] =
    [];
  #writes: Waiting[] = [];
  #reads: Waiting[] = [];
  readonly #scans = new Map<number, Scan>();
  #committed = 0;
  #confirmedRound = 0;
  /** The round that answers about state have to wait for when they come now. */
  #round = 1;
  #isRoundWanted = false;
  /** Of everything that waits: changes not committed, answers not given. */
  #bytes = 0;
  /** When the newest committed batch was handed over. */
  #provenMs: number | undefined;

  constructor(options: {
    state: ReplicaState;
    ballot: Ballot;
    effects: ReplicaEffect[];
    nextSnapshot: () => number;
    limits: ReplicaLimits;
    watches: WatchList;
    nowMs: number;
  }) {
    this.#state = options.state;
    this.#ballot = options.ballot;
    this.#effects = options.effects;
    this.#nextSnapshot = options.nextSnapshot;
    this.#limits = options.limits;
    this.#watches = options.watches;
    this.#sweep = new OutcomeSweep(options);
  }

  /** When `tick` has something to do; Infinity: nothing is waited for. */
  get nextTickMs(): number {
    return Math.min(this.#sweep.nextTickMs, this.#watches.nextTickMs);
  }

  /** When the newest batch that a majority has made durable was handed over. */
  get provenMs(): number | undefined {
    return this.#provenMs;
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
  start(asked: Asked): boolean {
    const { op } = asked;
    const count = this.#writes.length + this.#reads.length + this.#scans.size;
    if (count >= WAITING_MAX || this.#bytes >= this.#limits.pendingBytes) {
      this.refuseBusy(asked);
      return true;
    }
    switch (op.kind) {
      case "get":
        return this.#get(asked, op.keys);
      case "scan":
        this.#scan(asked, op);
        return true;
      case "watch":
        this.#watch(asked, op);
        return true;
      case "batch":
        return this.#batch(asked, op);
    }
  }

  refuseBusy({ operation }: Asked): void {
    this.#effects.push({ kind: "answer", operation, outcome: { code: "BUSY", retryAfterMs: BUSY_MS } });
  }

  tick(nowMs: number): void {
    if (nowMs >= this.#sweep.nextTickMs && this.#sweep.snapshot === undefined)
      this.#sweep.begin(this.#nextSnapshot());
    // That nothing has changed is an answer about state.
    for (const { asked, version } of this.#watches.takeExpired(nowMs)) {
      this.#wait(asked, this.#committed, { kind: "changed", changes: [], version });
    }
  }

  /** Of the open batch. */
  get openBytes(): number {
    return this.#open.bytes;
  }

  /** A change of the leader's own, in the open batch; false when it does not fit. */
  add(change: Change): boolean {
    return this.#take([change]);
  }

  /** Takes the open batch, to be handed to the store as batch `seq`. */
  close(seq: number, nowMs: number): { changes: readonly DecidedChange[]; bytes: number } {
    const { changes, bytes } = this.#open;
    this.#open = new OpenBatch();
    const keys = changes.map(({ key }) => key);
    for (const key of keys) this.#pending.set(key, seq);
    if (keys.length > 0) this.#batches.push({ seq, keys, closedMs: nowMs });
    return { changes, bytes };
  }

  committed(seq: number): void {
    if (seq <= this.#committed) return;
    this.#committed = seq;
    while (this.#batches.length > 0 && this.#batches[0]!.seq <= seq) {
      const batch = this.#batches.shift()!;
      this.#provenMs = batch.closedMs;
      for (const key of batch.keys) if (this.#pending.get(key) === batch.seq) this.#pending.delete(key);
    }
    this.#settle();
    this.#watches.committed(seq);
  }

  confirmed(round: number): void {
    if (round <= this.#confirmedRound) return;
    this.#confirmedRound = round;
    this.#settle();
  }

  scanned(snapshot: number, { entries: found, isLast }: Scanned, nowMs: number, epochMs: number): void {
    if (snapshot === this.#sweep.snapshot) {
      const batch = { read: (key: Key) => this.#read(key), take: (changes: Change[]) => this.#take(changes) };
      return this.#sweep.scanned({ entries: found, isLast }, batch, nowMs, epochMs);
    }
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
      if (!isExpired(entry, scan.asked.epochMs)) {
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
    if (!this.#take(deletes)) return this.refuseBusy(scan.asked);
    const seq = deletes.length > 0 ? this.#openSeq : seen;
    const { asked, round, version } = scan;
    const outcome: Outcome = { kind: "scanned", entries, more, version };
    this.#bytes += bytes;
    this.#reads.push({ asked, outcome, seq, round, bytes });
    this.#settle();
  }

  /** Leadership is over. What reached the store may have happened; nothing else has. */
  stop(): void {
    const { handed, open } = this.suspend();
    for (const { asked } of handed) this.#deny(asked, "OUTCOME_UNKNOWN");
    for (const asked of open) this.#deny(asked, "NOT_LEADER");
  }

  /** Leadership is over, and may come again under another ballot: who answers is left to the caller. */
  suspend(): Unanswered {
    const seqMax = this.#state.seq;
    const handed = this.#writes.filter(({ seq }) => seq <= seqMax);
    const open = this.#writes.filter(({ seq }) => seq > seqMax);
    this.#watches.stop();
    this.#sweep.stop();
    for (const snapshot of this.#scans.keys()) this.#effects.push({ kind: "release", snapshot });
    const waiting = [...open, ...this.#reads, ...this.#scans.values()];
    this.#writes = [];
    this.#reads = [];
    this.#scans.clear();
    return {
      handed,
      open: waiting.map(({ asked }) => asked).sort((a, b) => a.operation - b.operation),
    };
  }

  #get(asked: Asked, keys: readonly Key[]): boolean {
    const { operation, epochMs } = asked;
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
    if (!this.#take(deletes)) return false;
    const seq = Math.max(...keys.map((key) => this.#seqOf(key)));
    const entries = found.map(({ key, entry }) =>
      entry === undefined || isExpired(entry, epochMs) ? undefined : { key, ...entry },
    );
    this.#wait(asked, seq, { kind: "entries", entries }, bytes);
    return true;
  }

  #scan(asked: Asked, op: Extract<Operation, { kind: "scan" }>): void {
    const after = op.after === undefined || op.after < RESERVED_END ? RESERVED_END : op.after;
    const overlay = new Map<Key, DecidedChange>();
    for (const change of this.#open.changes) {
      if (change.key.startsWith(op.prefix) && change.key > after) overlay.set(change.key, change);
    }
    const snapshot = this.#nextSnapshot();
    this.#scans.set(snapshot, {
      asked,
      prefix: op.prefix,
      limit: op.limit,
      overlay,
      seq: overlay.size > 0 ? this.#openSeq : this.#pendingSeq,
      round: this.#wantRound(),
      // The open batch may go on to change: a watch gives all of it, also what is shown here already.
      version: versionOf(this.#ballot, this.#state.seq),
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

  #watch(asked: Asked, op: Watch): void {
    const { from } = op;
    if (from !== undefined) return this.#watches.start(asked, op.prefix, from, op.waitMs);
    const version = versionOf(this.#ballot, this.#state.seq);
    this.#wait(asked, this.#pendingSeq, { kind: "changed", changes: [], version });
  }

  #batch(asked: Asked, op: Batch): boolean {
    const { nowMs, epochMs } = asked;
    const recordKey = op.requestId === undefined ? undefined : OUTCOME_PREFIX + op.requestId;
    if (recordKey !== undefined) {
      const record = this.#read(recordKey);
      if (record !== undefined && !isExpired(record, epochMs)) {
        // A repeat gets the first outcome, once that is committed.
        this.#wait(asked, this.#seqOf(recordKey), decodeOutcome(record.value));
        return true;
      }
    }
    const expired: Key[] = [];
    const live = (key: Key) => {
      const entry = this.#read(key);
      if (entry === undefined || !isExpired(entry, epochMs)) return entry;
      expired.push(key);
      return undefined;
    };
    const failed = op.conditions.length === 0 ? undefined : failedCondition(op.conditions, live);
    const seq = this.#openSeq;
    const step = this.#open.stepOf(op.changes);
    const outcome: Outcome =
      failed === undefined
        ? { kind: "written", version: versionOf(this.#ballot, seq, step) }
        : { kind: "conflict", failed };
    const changes: Change[] = failed === undefined ? [...op.changes] : [];
    // That an entry has expired is told, also by a condition, only once its deletion is committed.
    if (expired.length > 0) {
      const changed = new Set(changes.map(({ key }) => key));
      for (const key of new Set(expired)) if (!changed.has(key)) changes.push({ kind: "delete", key });
    }
    if (recordKey !== undefined) {
      changes.push({
        kind: "put",
        key: recordKey,
        value: encodeOutcome(outcome),
        expiresAtMs: epochMs + OUTCOME_KEPT_MS,
      });
      this.#sweep.recorded(nowMs);
    }
    if (changes.length === 0) {
      const seen = op.conditions.map(({ key }) => this.#seqOf(key));
      this.#wait(asked, Math.max(this.#committed, ...seen), outcome);
      return true;
    }
    if (!this.#take(changes, step)) return false;
    const bytes = bytesOf(changes);
    this.#bytes += bytes;
    // A failed condition is an answer about state, even when its outcome is recorded.
    const round = failed === undefined ? 0 : this.#wantRound();
    this.#writes.push({ asked, outcome, seq, round, bytes });
    return true;
  }

  /** Into the open batch, if it has room. */
  #take(changes: readonly Change[], step = 0): boolean {
    if (changes.length > 0 && !this.#open.fits(changes)) return false;
    this.#open.add(changes, step);
    return true;
  }

  #wait(asked: Asked, seq: number, outcome: Outcome, bytes = ENTRY_BYTES): void {
    this.#bytes += bytes;
    this.#reads.push({ asked, outcome, seq, round: this.#wantRound(), bytes });
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

  #answer({ asked, outcome, bytes }: Waiting): void {
    this.#bytes -= bytes;
    this.#effects.push({ kind: "answer", operation: asked.operation, outcome });
  }

  #deny({ operation }: Asked, code: "OUTCOME_UNKNOWN" | "NOT_LEADER"): void {
    this.#effects.push({ kind: "answer", operation, outcome: { code } });
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
