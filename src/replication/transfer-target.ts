/**
 * Becoming identical: the target asks for the differences between its buckets and
 * those of a source's snapshot, then for the entries that it lacks, and takes all
 * of it over in one atomic write: a batch when it is small, else a new generation
 * that is built beside the old state.
 *
 * Driven by the target, one question at a time, so that a lost message costs a
 * repeat and a slow target is never flooded. The next question is asked when what
 * came before is durable.
 */
import { BucketDigests, type Digest, digestFromBytes, isMarked, isSameDigest } from "./anti-entropy.ts";
import { type Claim, compareBallots, compareClaims, isSameBallot, type ReplicaId } from "./ballot.ts";
import { BucketGathering } from "./bucket-gathering.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { Body, Carried } from "./message.ts";
import type { Ballot, Key } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import type { EntryWrite, ReplicaState } from "./replica-state.ts";
import { carried } from "./transfer-source.ts";

const FETCH_KEYS_MAX = 512;
/** Doubled with each repeat of a question: who has many to answer is slow, and repeats make it slower. */
const REPEAT_MS = 300;
const IDLE_MS = 5_000;
const ENTRY_BYTES = 64;

type Listed = Extract<Body, { kind: "listed" }>;
type Fetched = Extract<Body, { kind: "fetched" }>;
type Question = Extract<Body, { kind: "pull" | "more" | "fetch" }>;
type Open = Question extends infer Q
  ? Q extends Question
    ? Omit<Q, "transfer" | "question">
    : never
  : never;

/** How a transfer ended at its target. */
export type TransferEnd =
  | { readonly kind: "identical" }
  | { readonly kind: "failed"; readonly reason: string };

/** What the target does at the moment. */
type Phase =
  /** Its own buckets are not known yet. */
  | "gathering"
  | "listing"
  /** Its own entries in differing buckets are compared with the list. */
  | "comparing"
  /** Unchanged entries go over into the new generation. */
  | "copying"
  | "fetching";

interface Copy {
  readonly generation: number;
  readonly buckets: BucketDigests;
}

/** Makes this replica identical to a source. One at a time a replica. */
export class TransferTarget {
  readonly transfer: string;
  readonly source: ReplicaId;
  /** What is promised with the last step; also the ballot that the transfer belongs to. */
  readonly ballot: Ballot;
  readonly snapshot: number;
  readonly #wanted: Claim | null;
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  readonly #ownClaim: Claim;
  readonly #ownGeneration: number;
  #phase: Phase = "listing";
  #question: Question | undefined;
  #questions = 0;
  #repeatMs = REPEAT_MS;
  #askedMs: number;
  #heardMs: number;
  #gathering: BucketGathering | undefined;
  #claim: Claim | undefined;
  #root: Digest = new Uint32Array(4);
  #differing: Uint8Array = new Uint8Array(0);
  /** Of the differing buckets, at the source; later only what is to be fetched. */
  readonly #listed = new Map<Key, { readonly version: string; readonly size: number }>();
  /** What came with values, and is not written yet. */
  #values: Carried[] = [];
  #valueBytes = 0;
  readonly #missing: Key[] = [];
  readonly #deletes: Key[] = [];
  /** The new generation, when the difference is too large for one batch. */
  #copy: Copy | undefined;
  /** Keys that are not copied from the old generation. */
  #replaced: ReadonlySet<Key> = new Set();
  #isClosed = false;
  #end: TransferEnd | undefined;

  constructor(options: {
    transfer: string;
    source: ReplicaId;
    ballot: Ballot;
    /** The state that the source must be in; null: any of the ballot. */
    claim: Claim | null;
    state: ReplicaState;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
    snapshot: number;
    nowMs: number;
  }) {
    const { state, effects, limits, snapshot, nowMs } = options;
    this.transfer = options.transfer;
    this.source = options.source;
    this.ballot = options.ballot;
    this.snapshot = snapshot;
    this.#wanted = options.claim;
    this.#state = state;
    this.#effects = effects;
    this.#limits = limits;
    this.#ownClaim = state.claim;
    this.#ownGeneration = state.generation;
    this.#askedMs = nowMs;
    this.#heardMs = nowMs;
    effects.push({ kind: "snapshot", snapshot });
    if (state.isEmpty) this.#pull(new Uint8Array(0));
    else if (state.buckets !== undefined) this.#pull(state.buckets.toBytes());
    else {
      this.#phase = "gathering";
      this.#gathering = new BucketGathering({ snapshot, state, effects, limits });
    }
  }

  /** The state that the source must be in; null: any of the ballot. */
  get wanted(): Claim | null {
    return this.#wanted;
  }

  get nextTickMs(): number {
    return this.#askedMs + this.#repeatMs;
  }

  /** When it last got on. */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** Set once it is over. */
  get result(): TransferEnd | undefined {
    return this.#end;
  }

  listed(body: Listed, nowMs: number): void {
    if (!this.#isAnswer(body.question, nowMs)) return;
    if (!this.#isSameSource(body.claim)) return this.#fail("the source has moved on");
    this.#claim = body.claim;
    this.#root = digestFromBytes(body.root);
    this.#differing = body.differing;
    for (const { key, version, size, value, expiresAtMs } of body.items) {
      if (value === undefined) this.#listed.set(key, { version, size });
      else this.#keep({ key, version, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) });
    }
    const { after } = body;
    // Nothing is held, so all that comes is new: it need not be kept until the end.
    if (this.#state.isEmpty && this.#valueBytes > this.#limits.atomicBytes) this.#copy ??= this.#newCopy();
    if (this.#copy !== undefined) this.#writeBeside(this.#takeValues());
    this.#whenDurable(() => {
      if (after !== null) this.#ask({ kind: "more", after });
      else if (this.#state.isEmpty) this.#fetchOrFinish();
      else {
        this.#phase = "comparing";
        this.#scan(undefined);
      }
    });
  }

  scanned(scanned: Scanned, nowMs: number): void {
    if (this.#end !== undefined) return;
    this.#heardMs = nowMs;
    this.#askedMs = nowMs;
    const last = scanned.entries.at(-1)?.key;
    switch (this.#phase) {
      case "gathering": {
        const buckets = this.#gathering!.scanned(scanned);
        if (buckets === undefined) return;
        this.#gathering = undefined;
        this.#phase = "listing";
        if (buckets === "damaged") this.#fail("the own entries are damaged");
        else this.#pull(buckets.toBytes());
        return;
      }
      case "comparing":
        for (const { key, version } of scanned.entries) {
          if (!isMarked(this.#differing, key)) continue;
          const theirs = this.#listed.get(key);
          if (theirs === undefined) this.#deletes.push(key);
          else if (theirs.version === version) this.#listed.delete(key);
        }
        if (scanned.isLast || last === undefined) this.#compared();
        else this.#scan(last);
        return;
      case "copying":
        this.#writeBeside(scanned.entries.filter(({ key }) => !this.#replaced.has(key)).map(carried));
        this.#whenDurable(() => {
          if (scanned.isLast || last === undefined) this.#fetchOrFinish();
          else this.#scan(last);
        });
    }
  }

  fetched(body: Fetched, nowMs: number): void {
    if (!this.#isAnswer(body.question, nowMs)) return;
    // A source that was begun anew, by a question that came once more, stands elsewhere.
    if (!this.#isSameSource(body.claim)) return this.#fail("the source has moved on");
    const keys = new Set(body.entries.map(({ key }) => key));
    // The first of those asked for, without gaps.
    if (keys.size === 0 || !this.#missing.slice(0, keys.size).every((key) => keys.has(key)))
      return this.#fail("the source does not have what it listed");
    this.#missing.splice(0, keys.size);
    if (this.#copy === undefined) for (const entry of body.entries) this.#keep(entry);
    else this.#writeBeside(body.entries);
    this.#whenDurable(() => this.#fetchOrFinish());
  }

  tick(nowMs: number): void {
    if (this.#end !== undefined || nowMs - this.#askedMs < this.#repeatMs) return;
    this.#askedMs = nowMs;
    // The own disk may take its time; a source may not.
    if (this.#question === undefined) this.#heardMs = nowMs;
    else if (nowMs - this.#heardMs > IDLE_MS) this.#fail("the source is silent");
    else {
      this.#repeatMs *= 2;
      this.#send(this.#question);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#gathering?.end();
    this.#effects.push({ kind: "release", snapshot: this.snapshot });
    this.#send({ kind: "end", transfer: this.transfer });
    if (this.#copy !== undefined && this.#end?.kind !== "identical") {
      this.#state.dropGeneration(this.#copy.generation);
    }
  }

  /** The own side is known: what is missing, and how much that is. */
  #compared(): void {
    let bytes = this.#deletes.reduce((sum, key) => sum + key.length + ENTRY_BYTES, 0);
    for (const [key, { size }] of this.#listed) {
      this.#missing.push(key);
      bytes += key.length + size + ENTRY_BYTES;
    }
    this.#listed.clear();
    if (bytes <= this.#limits.atomicBytes) return this.#fetchOrFinish();
    this.#copy = this.#newCopy();
    this.#replaced = new Set([...this.#deletes, ...this.#missing]);
    this.#phase = "copying";
    this.#scan(undefined);
  }

  #fetchOrFinish(): void {
    this.#phase = "fetching";
    if (this.#missing.length === 0) this.#finish();
    else this.#ask({ kind: "fetch", keys: this.#missing.slice(0, FETCH_KEYS_MAX) });
  }

  #finish(): void {
    const claim = this.#claim!;
    // Nothing may have changed here meanwhile but what is promised, and that never goes down.
    if (compareClaims(this.#ownClaim, this.#state.claim) !== 0)
      return this.#fail("the own state has changed");
    const order = compareBallots(this.#state.promised, this.ballot);
    if (order > 0 || (this.#wanted !== null && order !== 0)) return this.#fail("promised to another");
    if (this.#copy !== undefined) {
      const { generation, buckets } = this.#copy;
      if (!isSameDigest(buckets.root(), this.#root)) return this.#mismatch();
      this.#state.switchTo(generation, buckets, claim, this.ballot);
    } else {
      const writes: EntryWrite[] = this.#deletes.map((key) => ({ kind: "delete", key }));
      for (const { key, ...entry } of this.#takeValues()) writes.push({ kind: "put", key, entry });
      if (!this.#state.applyDifference(writes, this.#root, claim, this.ballot)) return this.#mismatch();
    }
    this.#end = { kind: "identical" };
  }

  /** All that binds the two sides was right, and the result is not: one of them is wrong. */
  #mismatch(): void {
    this.#effects.push({ kind: "defect", what: `a transfer from ${this.source} did not match its source` });
    this.#fail("the result does not match the source");
  }

  #newCopy(): Copy {
    return { generation: this.#state.newGeneration(), buckets: new BucketDigests() };
  }

  #keep(entry: Carried): void {
    this.#values.push(entry);
    this.#valueBytes += entry.key.length + entry.value.byteLength + ENTRY_BYTES;
  }

  #takeValues(): Carried[] {
    const values = this.#values;
    this.#values = [];
    this.#valueBytes = 0;
    return values;
  }

  #writeBeside(entries: readonly Carried[]): void {
    if (entries.length === 0) return;
    const { generation, buckets } = this.#copy!;
    for (const { key, ...entry } of entries) buckets.toggle(key, this.#state.digestOf(key, entry));
    this.#state.writeBeside(generation, entries);
  }

  #whenDurable(then: () => void): void {
    this.#state.whenDurable(() => {
      if (!this.#isClosed && this.#end === undefined) then();
    });
  }

  #isAnswer(question: number, nowMs: number): boolean {
    if (this.#end !== undefined || this.#question?.question !== question) return false;
    this.#question = undefined;
    this.#heardMs = nowMs;
    this.#askedMs = nowMs;
    return true;
  }

  #isSameSource(claim: Claim): boolean {
    if (this.#claim !== undefined) return compareClaims(claim, this.#claim) === 0;
    return this.#wanted === null
      ? isSameBallot(claim.accepted, this.ballot)
      : compareClaims(claim, this.#wanted) === 0;
  }

  #pull(digests: Uint8Array): void {
    this.#ask({ kind: "pull", ballot: this.ballot, claim: this.#wanted, digests });
  }

  #ask(open: Open): void {
    const question: Question = { ...open, transfer: this.transfer, question: ++this.#questions };
    this.#question = question;
    this.#repeatMs = REPEAT_MS;
    this.#send(question);
  }

  #scan(after: Key | undefined): void {
    this.#effects.push({
      kind: "scan",
      snapshot: this.snapshot,
      generation: this.#ownGeneration,
      prefix: "",
      after,
      limit: this.#limits.scanEntries,
      bytesMax: this.#limits.messageBytes,
      isTransfer: true,
    });
  }

  #send(body: Body): void {
    this.#effects.push({ kind: "send", to: this.source, body });
  }

  #fail(reason: string): void {
    this.#end = { kind: "failed", reason };
  }
}
