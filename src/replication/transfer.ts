/**
 * Becoming identical: the target asks for the differences between its buckets and
 * those of a source's snapshot, then for the entries that it lacks, and takes all
 * of it over in one atomic write: a batch when it is small, else a new generation
 * that is built beside the old state.
 *
 * Driven by the target, one question at a time, so that a lost message costs a
 * repeat and a slow target is never flooded.
 */
import { BucketDigests, type Digest, digestFromBytes, isMarked, isSameDigest } from "./anti-entropy.ts";
import { type Claim, compareClaims, isSameBallot, type ReplicaId } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Body, Carried } from "./message.ts";
import type { Ballot, Key } from "./register.ts";
import type { EntryWrite, HeldEntry, ReplicaState } from "./replica-state.ts";

const SCAN_LIMIT = 512;
const LIST_BYTES_MAX = 1024 * 1024;
const FETCH_BYTES_MAX = 1024 * 1024;
const FETCH_KEYS_MAX = 512;
/** A difference up to this size is one atomic batch. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024;
const REPEAT_MS = 300;
const SOURCE_IDLE_MS = 10_000;
const TARGET_IDLE_MS = 3_000;

type Listed = Extract<Body, { kind: "listed" }>;
type Fetched = Extract<Body, { kind: "fetched" }>;
type Scanned = readonly (HeldEntry & { readonly key: Key })[];

/** Serves one transfer from a snapshot. */
export class TransferSource {
  readonly transfer: string;
  readonly #to: ReplicaId;
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #snapshot: number;
  readonly #claim: Claim;
  readonly #root: Digest;
  readonly #target: BucketDigests;
  /** The asker holds nothing: it needs every value. */
  readonly #isWhole: boolean;
  #differing: Uint8Array | undefined;
  /** Buckets being gathered from the snapshot, when the state did not know them. */
  #gathering: { readonly into: BucketDigests; readonly scanned: BucketDigests } | undefined;
  #question: { kind: "list"; after: Key | undefined } | { kind: "fetch"; keys: readonly Key[] } | undefined;
  #items: Listed["items"] = [];
  #itemBytes = 0;
  #fetchIndex = 0;
  #fetchedEntries: Carried[] = [];
  #usedMs: number;

  constructor(options: {
    transfer: string;
    to: ReplicaId;
    digests: Uint8Array;
    state: ReplicaState;
    effects: ReplicaEffect[];
    snapshot: number;
    nowMs: number;
  }) {
    this.transfer = options.transfer;
    this.#to = options.to;
    this.#state = options.state;
    this.#effects = options.effects;
    this.#snapshot = options.snapshot;
    this.#claim = options.state.claim;
    this.#root = new Uint32Array(options.state.root);
    this.#isWhole = options.digests.byteLength === 0;
    this.#target = BucketDigests.fromBytes(options.digests);
    this.#usedMs = options.nowMs;
    this.#effects.push({ kind: "snapshot", snapshot: this.#snapshot });
    this.#question = { kind: "list", after: undefined };
    if (this.#isWhole) {
      this.#differing = new Uint8Array(128).fill(0xff);
      this.#scan(undefined);
    } else if (this.#state.buckets === undefined) {
      this.#gathering = { into: this.#state.gatherBuckets(), scanned: new BucketDigests() };
      this.#scan(undefined);
    } else {
      this.#differing = this.#state.buckets.differing(this.#target);
      this.#scan(undefined);
    }
  }

  get to(): ReplicaId {
    return this.#to;
  }

  get snapshot(): number {
    return this.#snapshot;
  }

  isIdle(nowMs: number): boolean {
    return nowMs - this.#usedMs > SOURCE_IDLE_MS;
  }

  more(after: Key, nowMs: number): void {
    this.#usedMs = nowMs;
    if (this.#question !== undefined) return;
    this.#question = { kind: "list", after };
    this.#scan(after);
  }

  values(keys: readonly Key[], nowMs: number): void {
    this.#usedMs = nowMs;
    if (this.#question !== undefined || keys.length === 0) return;
    this.#question = { kind: "fetch", keys };
    this.#fetchIndex = 0;
    this.#fetchedEntries = [];
    this.#fetchNext();
  }

  scanned(entries: Scanned, nowMs: number): void {
    this.#usedMs = nowMs;
    if (this.#gathering !== undefined) {
      this.#gather(entries);
      return;
    }
    const question = this.#question;
    if (question === undefined) return;
    if (question.kind === "fetch") {
      const entry = entries[0];
      const key = question.keys[this.#fetchIndex - 1];
      if (entry !== undefined && entry.key === key) this.#fetchedEntries.push(carried(entry));
      this.#fetchNext();
      return;
    }
    for (const entry of entries) {
      if (!isMarked(this.#differing!, entry.key)) continue;
      const { key, version, value, expiresAtMs } = entry;
      this.#items.push({
        key,
        version,
        size: value.byteLength,
        ...(this.#isWhole ? { value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) } : {}),
      });
      this.#itemBytes += key.length + version.length + 32 + (this.#isWhole ? value.byteLength : 0);
      if (this.#itemBytes > LIST_BYTES_MAX) {
        this.#list(key);
        return;
      }
    }
    const last = entries.at(-1);
    if (entries.length < SCAN_LIMIT || last === undefined) this.#list(null);
    else this.#scan(last.key);
  }

  end(): void {
    this.#effects.push({ kind: "release", snapshot: this.#snapshot });
    // Half-gathered buckets would be wrong for good.
    if (this.#gathering !== undefined && this.#state.buckets === this.#gathering.into)
      this.#state.forgetBuckets();
  }

  #gather(entries: Scanned): void {
    const { into, scanned } = this.#gathering!;
    for (const entry of entries) scanned.toggle(entry.key, this.#state.digestOf(entry.key, entry));
    const last = entries.at(-1);
    if (entries.length === SCAN_LIMIT && last !== undefined) {
      this.#scan(last.key);
      return;
    }
    this.#gathering = undefined;
    if (!isSameDigest(scanned.root(), this.#root)) {
      this.#effects.push({ kind: "defect", what: "the entries do not match the root digest" });
      return;
    }
    this.#differing = scanned.differing(this.#target);
    if (this.#state.buckets === into) into.merge(scanned);
    this.#scan(undefined);
  }

  #scan(after: Key | undefined): void {
    this.#effects.push({ kind: "scan", snapshot: this.#snapshot, prefix: "", after, limit: SCAN_LIMIT });
  }

  #list(after: Key | null): void {
    this.#question = undefined;
    this.#effects.push({
      kind: "send",
      to: this.#to,
      body: {
        kind: "listed",
        transfer: this.transfer,
        claim: this.#claim,
        root: rootBytes(this.#root),
        differing: this.#differing!,
        items: this.#items,
        after,
      },
    });
    this.#items = [];
    this.#itemBytes = 0;
  }

  #fetchNext(): void {
    const question = this.#question;
    if (question?.kind !== "fetch") return;
    const bytes = this.#fetchedEntries.reduce((sum, entry) => sum + entry.value.byteLength, 0);
    if (this.#fetchIndex >= question.keys.length || bytes > FETCH_BYTES_MAX) {
      this.#question = undefined;
      this.#effects.push({
        kind: "send",
        to: this.#to,
        body: { kind: "fetched", transfer: this.transfer, entries: this.#fetchedEntries },
      });
      this.#fetchedEntries = [];
      return;
    }
    const key = question.keys[this.#fetchIndex++]!;
    this.#effects.push({ kind: "scan", snapshot: this.#snapshot, prefix: key, after: undefined, limit: 1 });
  }
}

function carried({ key, version, value, expiresAtMs }: HeldEntry & { readonly key: Key }): Carried {
  return { key, version, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) };
}

function rootBytes(root: Digest): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 4; i++) view.setUint32(i * 4, root[i]!);
  return bytes;
}

/** How a transfer ended at its target. */
export type TransferEnd =
  | { readonly kind: "identical"; readonly claim: Claim }
  | { readonly kind: "failed"; readonly reason: string };

/** Makes this replica identical to a source. One at a time a replica. */
export class TransferTarget {
  readonly transfer: string;
  readonly source: ReplicaId;
  /** What is promised with the last step; also the ballot that the transfer belongs to. */
  readonly ballot: Ballot;
  readonly #wanted: Claim | null;
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #snapshot: number;
  readonly #ownClaim: Claim;
  readonly #generation: number;
  #question: Body;
  #askedMs: number;
  #heardMs: number;
  /** Buckets are being gathered before the first question. */
  #gathering: { readonly into: BucketDigests; readonly scanned: BucketDigests } | undefined;
  #claim: Claim | undefined;
  #root: Digest = new Uint32Array(4);
  #differing: Uint8Array = new Uint8Array(0);
  /** Of the differing buckets, at the source. */
  readonly #listed = new Map<Key, { readonly version: string; readonly size: number }>();
  readonly #values: Carried[] = [];
  #missing: Key[] = [];
  #deletes: Key[] = [];
  /** What the target itself holds in differing buckets is being read. */
  #isReadingOwn = false;
  /** The new generation, when the difference is too large for one batch. `replaced`: keys that are not copied from the old one. */
  #copy:
    | { readonly buckets: BucketDigests; readonly replaced: ReadonlySet<Key>; phase: "own" | "values" }
    | undefined;
  #end: TransferEnd | undefined;

  constructor(options: {
    transfer: string;
    source: ReplicaId;
    ballot: Ballot;
    claim: Claim | null;
    state: ReplicaState;
    effects: ReplicaEffect[];
    snapshot: number;
    /** For a copy beside the old state; never used before, so that no leftover of a crash gets in. */
    generation: number;
    nowMs: number;
  }) {
    this.transfer = options.transfer;
    this.source = options.source;
    this.ballot = options.ballot;
    this.#wanted = options.claim;
    this.#state = options.state;
    this.#effects = options.effects;
    this.#snapshot = options.snapshot;
    this.#ownClaim = options.state.claim;
    this.#generation = options.generation;
    this.#askedMs = options.nowMs;
    this.#heardMs = options.nowMs;
    this.#effects.push({ kind: "snapshot", snapshot: this.#snapshot });
    this.#question = this.#pull(new Uint8Array(0));
    if (this.#state.isEmpty) this.#ask(this.#question, options.nowMs);
    else if (this.#state.buckets !== undefined) {
      this.#ask(this.#pull(this.#state.buckets.toBytes()), options.nowMs);
    } else {
      this.#gathering = { into: this.#state.gatherBuckets(), scanned: new BucketDigests() };
      this.#scan(undefined);
    }
  }

  get snapshot(): number {
    return this.#snapshot;
  }

  get nextTickMs(): number {
    return this.#askedMs + REPEAT_MS;
  }

  /** Set once it is over. */
  get result(): TransferEnd | undefined {
    return this.#end;
  }

  listed(body: Listed, nowMs: number): void {
    if (this.#question.kind !== "pull" && this.#question.kind !== "more") return;
    this.#heardMs = nowMs;
    if (!this.#isSameSource(body.claim)) return this.#fail("the source has moved on");
    this.#claim = body.claim;
    this.#root = digestFromBytes(body.root);
    this.#differing = body.differing;
    for (const { key, version, size, value, expiresAtMs } of body.items) {
      this.#listed.set(key, { version, size });
      if (value !== undefined) {
        this.#values.push({ key, version, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) });
      }
    }
    if (body.after !== null) {
      this.#ask({ kind: "more", transfer: this.transfer, after: body.after }, nowMs);
      return;
    }
    // From here on nothing is asked until the own entries have been compared.
    this.#question = { kind: "end", transfer: this.transfer };
    this.#isReadingOwn = true;
    for (const value of this.#values) this.#listed.delete(value.key);
    if (this.#state.isEmpty) this.#ownRead(nowMs);
    else this.#scan(undefined);
  }

  scanned(entries: Scanned, nowMs: number): void {
    if (this.#end !== undefined) return;
    this.#heardMs = nowMs;
    const last = entries.at(-1);
    const isLast = entries.length < SCAN_LIMIT || last === undefined;
    if (this.#gathering !== undefined) {
      const { into, scanned } = this.#gathering;
      for (const entry of entries) scanned.toggle(entry.key, this.#state.digestOf(entry.key, entry));
      if (!isLast) return this.#scan(last.key);
      this.#gathering = undefined;
      if (!isSameDigest(scanned.root(), this.#state.root)) {
        // Own damage: what is held can't be trusted for comparison, so all of it is fetched.
        this.#state.forgetBuckets();
        this.#effects.push({ kind: "defect", what: "the entries do not match the root digest" });
        return this.#fail("own entries are damaged");
      }
      if (this.#state.buckets === into) into.merge(scanned);
      return this.#ask(this.#pull(scanned.toBytes()), nowMs);
    }
    if (this.#isReadingOwn) {
      for (const entry of entries) {
        if (!isMarked(this.#differing, entry.key)) continue;
        const theirs = this.#listed.get(entry.key);
        if (theirs === undefined) this.#deletes.push(entry.key);
        else if (theirs.version === entry.version) this.#listed.delete(entry.key);
      }
      if (!isLast) return this.#scan(last.key);
      return this.#ownRead(nowMs);
    }
    if (this.#copy?.phase === "own") {
      const { replaced } = this.#copy;
      this.#writeBeside(entries.filter((entry) => !replaced.has(entry.key)).map(carried));
      if (!isLast) return this.#scan(last.key);
      this.#copy.phase = "values";
      this.#writeBeside(this.#values.splice(0));
      this.#fetchOrFinish(nowMs);
    }
  }

  fetched(body: Fetched, nowMs: number): void {
    if (this.#question.kind !== "fetch") return;
    this.#heardMs = nowMs;
    if (body.entries.length === 0) return this.#fail("the source does not have what it listed");
    const got = new Set(body.entries.map((entry) => entry.key));
    this.#missing = this.#missing.filter((key) => !got.has(key));
    if (this.#copy === undefined) this.#values.push(...body.entries);
    else this.#writeBeside(body.entries);
    this.#fetchOrFinish(nowMs);
  }

  tick(nowMs: number): void {
    if (this.#end !== undefined || nowMs - this.#askedMs < REPEAT_MS) return;
    if (nowMs - this.#heardMs > TARGET_IDLE_MS) return this.#fail("the source is silent");
    if (this.#gathering === undefined && this.#question.kind !== "end") this.#ask(this.#question, nowMs);
    else this.#askedMs = nowMs;
  }

  close(): void {
    this.#effects.push({ kind: "release", snapshot: this.#snapshot });
    if (this.#gathering !== undefined && this.#state.buckets === this.#gathering.into)
      this.#state.forgetBuckets();
    this.#send({ kind: "end", transfer: this.transfer });
    if (this.#end?.kind !== "identical" && this.#copy !== undefined) {
      const generation = this.#generation;
      this.#state.whenDurable(() => this.#effects.push({ kind: "dropGeneration", generation }));
    }
  }

  /** The own side is known: what is missing, and how much that is. */
  #ownRead(nowMs: number): void {
    this.#isReadingOwn = false;
    let bytes = this.#values.reduce((sum, value) => sum + value.value.byteLength + value.key.length, 0);
    for (const [key, { size }] of this.#listed) {
      this.#missing.push(key);
      bytes += size + key.length;
    }
    this.#listed.clear();
    if (bytes + this.#deletes.length * 64 > BATCH_BYTES_MAX) {
      const replaced = new Set([
        ...this.#deletes,
        ...this.#missing,
        ...this.#values.map((value) => value.key),
      ]);
      this.#copy = { buckets: new BucketDigests(), replaced, phase: "own" };
      if (!this.#state.isEmpty) return this.#scan(undefined);
      this.#copy.phase = "values";
      this.#writeBeside(this.#values.splice(0));
    }
    this.#fetchOrFinish(nowMs);
  }

  #fetchOrFinish(nowMs: number): void {
    if (this.#missing.length > 0) {
      this.#ask(
        { kind: "fetch", transfer: this.transfer, keys: this.#missing.slice(0, FETCH_KEYS_MAX) },
        nowMs,
      );
      return;
    }
    this.#finish();
  }

  #finish(): void {
    const claim = this.#claim!;
    // Nothing may have changed here meanwhile but what is promised, and that never goes down.
    if (compareClaims(this.#ownClaim, this.#state.claim) !== 0)
      return this.#fail("the own state has changed");
    if (!isSameBallot(this.#state.promised, this.ballot) && this.#wanted !== null)
      return this.#fail("promised to another");
    if (this.#copy !== undefined) {
      if (!isSameDigest(this.#copy.buckets.root(), this.#root))
        return this.#fail("the copy does not match the source");
      this.#state.switchTo(this.#generation, this.#copy.buckets, claim, this.ballot);
    } else {
      const writes: EntryWrite[] = this.#deletes.map((key) => ({ kind: "delete", key }));
      for (const { key, ...entry } of this.#values) writes.push({ kind: "put", key, entry });
      if (!this.#state.applyDifference(writes, this.#root, claim, this.ballot)) {
        this.#effects.push({ kind: "defect", what: "a transfer did not match its source" });
        return this.#fail("the difference does not match the source");
      }
    }
    this.#end = { kind: "identical", claim };
  }

  #writeBeside(entries: readonly Carried[]): void {
    if (entries.length === 0) return;
    for (const { key, ...entry } of entries)
      this.#copy!.buckets.toggle(key, this.#state.digestOf(key, entry));
    this.#state.writeBeside(this.#generation, entries);
  }

  #isSameSource(claim: Claim): boolean {
    if (this.#claim !== undefined) return compareClaims(claim, this.#claim) === 0;
    return this.#wanted === null
      ? isSameBallot(claim.accepted, this.ballot)
      : compareClaims(claim, this.#wanted) === 0;
  }

  #pull(digests: Uint8Array): Body {
    return { kind: "pull", transfer: this.transfer, ballot: this.ballot, claim: this.#wanted, digests };
  }

  #ask(question: Body, nowMs: number): void {
    this.#question = question;
    this.#askedMs = nowMs;
    this.#send(question);
  }

  #scan(after: Key | undefined): void {
    this.#effects.push({ kind: "scan", snapshot: this.#snapshot, prefix: "", after, limit: SCAN_LIMIT });
  }

  #send(body: Body): void {
    this.#effects.push({ kind: "send", to: this.source, body });
  }

  #fail(reason: string): void {
    this.#end = { kind: "failed", reason };
  }
}
