/**
 * What one replica holds, and the truth rule: `(accepted, seq)` names one state
 * of the partition, and a durable claim always matches the durable entries,
 * because each change of entries and meta is one atomic, synced batch.
 *
 * "Newest" is what was handed to the store; a claim may leave this replica only
 * once it is durable: `whenDurable` holds messages back until then.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import { BucketDigests, type Digest, type EntryDigester, isSameDigest, xorInto } from "./anti-entropy.ts";
import { type Claim, compareBallots, compareClaims, NO_BALLOT, type ReplicaId, versionOf } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import { type Carried, type Config, configSchema, type DecidedChange } from "./message.ts";
import { type Ballot, ballotSchema, type Key, type Version } from "./register.ts";

export interface HeldEntry {
  readonly version: Version;
  readonly value: Uint8Array;
  readonly expiresAtMs?: number | undefined;
}

export type EntryWrite =
  | { readonly kind: "put"; readonly key: Key; readonly entry: HeldEntry }
  | { readonly kind: "delete"; readonly key: Key };

/** The store, as one replica sees it. */
export interface EntryStore {
  /** Sees what `write` was given, durable or not. */
  get(generation: number, key: Key): HeldEntry | undefined;
  /**
   * Atomic. Writes become durable in order; `token` comes back through
   * `Replica.persisted` then.
   */
  write(write: {
    readonly token: number;
    readonly generation: number;
    readonly changes: readonly EntryWrite[];
    readonly meta: ReplicaMeta | undefined;
  }): void;
}

export const replicaMetaSchema = z.object({
  replicaId: z.string(),
  promised: ballotSchema,
  accepted: ballotSchema,
  seq: z.int().nonnegative(),
  generation: z.int().nonnegative(),
  /** Four words. */
  root: z.array(z.int().nonnegative()).length(4),
  /** Generations that are being built or that are to be deleted. */
  leftovers: z.array(z.int().nonnegative()).default([]),
});
export type ReplicaMeta = z.output<typeof replicaMetaSchema>;

/** Reserved keys begin with NUL: hidden from callers, digested like all others. */
export const RESERVED = "\x00";
export const CONFIG_KEY: Key = "\x00config";
export const OUTCOME_PREFIX = "\x00outcome/";

const FORMER_CLAIMS_MAX = 8;

interface Toggle {
  readonly key: Key;
  readonly digest: Digest;
  /** The entry comes in; else it goes out. */
  readonly isIn: boolean;
}

/** Entries whose digest is remembered: what was written lately is often written again. */
const RECENT_MAX = 128;

export class ReplicaState {
  readonly replicaId: ReplicaId;
  readonly #store: EntryStore;
  readonly #digester: EntryDigester;
  readonly #effects: ReplicaEffect[];
  promised: Ballot;
  accepted: Ballot;
  seq: number;
  generation: number;
  config: Config;
  /** Of that config; asked with each batch. */
  #isMember: boolean;
  /** Version of the config entry; empty when there is none. */
  epoch: Version;
  durable: { promised: Ballot; claim: Claim };
  readonly #root: Digest;
  // Undefined until they were gathered once after opening; kept up to date from then on.
  #buckets: BucketDigests | undefined;
  readonly #gathering = new Set<BucketDigests>();
  // Digests of present entries, written last at the end: saves reading what is replaced.
  readonly #recent = new Map<Key, Digest>();
  readonly #leftovers: Set<number>;

  #formerClaims: readonly Claim[] = [];
  #token = 0;
  #durableToken = 0;
  // In order of token; `then` runs once everything up to it is durable.
  #waiting: { token: number; then: () => void }[] = [];

  constructor(options: {
    meta: ReplicaMeta;
    store: EntryStore;
    digester: EntryDigester;
    effects: ReplicaEffect[];
  }) {
    const { meta } = options;
    this.replicaId = meta.replicaId;
    this.promised = meta.promised;
    this.accepted = meta.accepted;
    this.seq = meta.seq;
    this.generation = meta.generation;
    this.#root = new Uint32Array(meta.root);
    this.#store = options.store;
    this.#digester = options.digester;
    this.#effects = options.effects;
    this.#leftovers = new Set(meta.leftovers);
    this.durable = { promised: meta.promised, claim: this.claim };
    const entry = this.get(CONFIG_KEY);
    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);
    this.#isMember = this.config.members.includes(this.replicaId);
    this.epoch = entry?.version ?? "";
    if (this.accepted.round === 0) this.#buckets = new BucketDigests();
  }

  /** The meta record of a memory that holds nothing. */
  static empty(replicaId: ReplicaId, generation: number, leftovers: readonly number[] = []): ReplicaMeta {
    return {
      replicaId,
      promised: NO_BALLOT,
      accepted: NO_BALLOT,
      seq: 0,
      generation,
      root: [0, 0, 0, 0],
      leftovers: [...leftovers],
    };
  }

  get claim(): Claim {
    return { accepted: this.accepted, seq: this.seq };
  }

  /** Claims that named, when they were made, what stands here now; as far as is known, newest first. */
  get formerClaims(): readonly Claim[] {
    return this.#formerClaims;
  }

  get root(): Digest {
    return this.#root;
  }

  get isMember(): boolean {
    return this.#isMember;
  }

  /** Whether nothing is held at all. */
  get isEmpty(): boolean {
    return this.accepted.round === 0;
  }

  get(key: Key): HeldEntry | undefined {
    return this.#store.get(this.generation, key);
  }

  digestOf(key: Key, entry: HeldEntry): Digest {
    return this.#digester.of(key, entry);
  }

  /** Runs `then` once all that was handed to the store so far is durable; at once when it is. */
  whenDurable(then: () => void): void {
    if (this.#durableToken === this.#token) then();
    else this.#waiting.push({ token: this.#token, then });
  }

  /** For a message whose claim must be durable before it leaves. */
  sendWhenDurable(to: ReplicaId, body: Extract<ReplicaEffect, { kind: "send" }>["body"]): void {
    this.whenDurable(() => this.#effects.push({ kind: "send", to, body }));
  }

  persisted(token: number): void {
    assert(token <= this.#token, "only what was handed over becomes durable");
    this.#durableToken = Math.max(this.#durableToken, token);
    while (this.#waiting.length > 0 && this.#waiting[0]!.token <= this.#durableToken) {
      this.#waiting.shift()!.then();
    }
  }

  /** @param ballot greater than what was promised before. */
  promise(ballot: Ballot): void {
    assert(compareBallots(ballot, this.promised) > 0, "a promise is never taken back");
    this.promised = ballot;
    this.#hand([]);
  }

  /** The entries as they are become the base state of `ballot`, or its state at `seq` when they are known to be identical. */
  accept(ballot: Ballot, seq: number): void {
    assert(compareBallots(ballot, this.promised) >= 0, "a promise is never taken back");
    assert(compareBallots(ballot, this.accepted) > 0, "a base is fixed once");
    this.#formerClaims = [this.claim, ...this.#formerClaims].slice(0, FORMER_CLAIMS_MAX);
    this.promised = ballot;
    this.accepted = ballot;
    this.seq = seq;
    this.#hand([]);
  }

  /** The first state of a new partition. */
  found(ballot: Ballot, config: Config): void {
    assert(this.isEmpty, "founded twice");
    this.promised = ballot;
    this.accepted = ballot;
    const entry = { version: versionOf(ballot, 0), value: encodeConfig(config) };
    this.#hand(this.#digested([{ kind: "put", key: CONFIG_KEY, entry }]));
  }

  /** The entries as they are, with this replica as the one member, become the base state of `ballot`. */
  recover(ballot: Ballot): void {
    assert(compareBallots(ballot, this.promised) > 0, "a promise is never taken back");
    this.promised = ballot;
    this.accepted = ballot;
    this.seq = 0;
    this.#formerClaims = [];
    const value = encodeConfig({ members: [this.replicaId] });
    const entry = { version: versionOf(ballot, 0), value };
    this.#hand(this.#digested([{ kind: "put", key: CONFIG_KEY, entry }]));
  }

  /** Batch `seq` of the leader of `accepted`. */
  append(seq: number, changes: readonly DecidedChange[]): void {
    assert(seq === this.seq + 1, `batch ${seq} after ${this.seq}`);
    this.#formerClaims = [];
    this.seq = seq;
    this.#hand(
      this.#digested(
        changes.map((change) =>
          change.kind === "put"
            ? {
                kind: "put",
                key: change.key,
                entry: {
                  version: versionOf(this.accepted, seq, change.step),
                  value: change.value,
                  expiresAtMs: change.expiresAtMs,
                },
              }
            : change,
        ),
      ),
    );
  }

  /**
   * Becomes identical to a state of another by a difference that is one batch.
   *
   * @returns false, with nothing changed, when the result would not have the root `root`.
   */
  applyDifference(writes: readonly EntryWrite[], root: Digest, claim: Claim, promised: Ballot): boolean {
    const toggles = this.#togglesOf(writes);
    const next = new Uint32Array(this.#root);
    for (const { digest } of toggles) xorInto(next, digest);
    if (!isSameDigest(next, root)) return false;
    this.#take(claim, promised);
    this.#toggle(toggles);
    this.#adoptConfig(writes);
    this.#hand(writes);
    return true;
  }

  /** A generation for a copy beside the present state; on record, so that a crash leaves nothing behind. */
  newGeneration(): number {
    const generation = Math.max(this.generation, ...this.#leftovers) + 1;
    this.#leftovers.add(generation);
    this.#hand([]);
    return generation;
  }

  /** Writes beside the present state, invisible until `switchTo`. */
  writeBeside(generation: number, carried: readonly Carried[]): void {
    this.#token++;
    this.#store.write({
      token: this.#token,
      generation,
      changes: carried.map(({ key, ...entry }) => ({ kind: "put", key, entry })),
      meta: undefined,
    });
  }

  /** One write makes the state built beside the old one the present one. */
  switchTo(generation: number, buckets: BucketDigests, claim: Claim, promised: Ballot): void {
    const old = this.generation;
    this.#leftovers.delete(generation);
    this.#leftovers.add(old);
    this.generation = generation;
    this.#take(claim, promised);
    this.#buckets = buckets;
    // What is being gathered is of the old entries.
    this.#gathering.clear();
    this.#recent.clear();
    this.#root.set(buckets.root());
    this.#hand([]);
    this.#readConfig();
    this.dropGeneration(old);
  }

  dropGeneration(generation: number): void {
    this.whenDurable(() => this.#effects.push({ kind: "dropGeneration", generation }));
  }

  /** Its entries are deleted; the next meta record says so. */
  dropped(generation: number): void {
    this.#leftovers.delete(generation);
  }

  /** Generations that hold what is not needed any more. */
  get leftovers(): ReadonlySet<number> {
    return this.#leftovers;
  }

  /** Present buckets, if they are known: after opening, not before they were gathered once. */
  get buckets(): BucketDigests | undefined {
    return this.#buckets;
  }

  /** Begins to note what changes from this moment on, until `gathered` or `abandon`. */
  gather(): BucketDigests {
    const changes = new BucketDigests();
    this.#gathering.add(changes);
    return changes;
  }

  /** @param scanned the buckets as they were when `changes` began. */
  gathered(changes: BucketDigests, scanned: BucketDigests): void {
    if (!this.#gathering.delete(changes)) return;
    changes.merge(scanned);
    this.#buckets = changes;
  }

  abandon(changes: BucketDigests): void {
    this.#gathering.delete(changes);
  }

  #take(claim: Claim, promised: Ballot): void {
    assert(compareBallots(promised, this.promised) >= 0, "a promise is never taken back");
    assert(compareClaims(claim, this.claim) >= 0, "no acknowledged batch is ever taken back");
    this.#formerClaims = [];
    this.accepted = claim.accepted;
    this.seq = claim.seq;
    this.promised = promised;
  }

  /** What goes out of the digests and what comes in. */
  #togglesOf(writes: readonly EntryWrite[]): Toggle[] {
    const toggles: Toggle[] = [];
    const seen = new Map<Key, Digest | undefined>();
    for (const write of writes) {
      const { key } = write;
      const old = seen.has(key) ? seen.get(key) : this.#digestAt(key);
      if (old !== undefined) toggles.push({ key, digest: old, isIn: false });
      const next = write.kind === "put" ? this.digestOf(key, write.entry) : undefined;
      if (next !== undefined) toggles.push({ key, digest: next, isIn: true });
      if (writes.length > 1) seen.set(key, next);
    }
    return toggles;
  }

  #digestAt(key: Key): Digest | undefined {
    const recent = this.#recent.get(key);
    if (recent !== undefined) return recent;
    const entry = this.get(key);
    return entry === undefined ? undefined : this.digestOf(key, entry);
  }

  #toggle(toggles: readonly Toggle[]): void {
    for (const { key, digest, isIn } of toggles) {
      xorInto(this.#root, digest);
      this.#buckets?.toggle(key, digest);
      for (const changes of this.#gathering) changes.toggle(key, digest);
      this.#recent.delete(key);
      if (isIn) this.#recent.set(key, digest);
    }
    if (this.#recent.size <= RECENT_MAX) return;
    for (const key of this.#recent.keys()) {
      this.#recent.delete(key);
      if (this.#recent.size <= RECENT_MAX) break;
    }
  }

  #adoptConfig(writes: readonly EntryWrite[]): void {
    for (let i = writes.length - 1; i >= 0; i--) {
      const write = writes[i]!;
      if (write.key !== CONFIG_KEY) continue;
      this.#useConfig(write.kind === "put" ? write.entry : undefined);
      return;
    }
  }

  #readConfig(): void {
    this.#useConfig(this.get(CONFIG_KEY));
  }

  #useConfig(entry: HeldEntry | undefined): void {
    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);
    this.#isMember = this.config.members.includes(this.replicaId);
    this.epoch = entry?.version ?? "";
  }

  #digested(writes: readonly EntryWrite[]): readonly EntryWrite[] {
    this.#toggle(this.#togglesOf(writes));
    this.#adoptConfig(writes);
    return writes;
  }

  #hand(changes: readonly EntryWrite[]): void {
    const token = ++this.#token;
    const { promised } = this;
    const claim = this.claim;
    this.#store.write({
      token,
      generation: this.generation,
      changes,
      meta: {
        replicaId: this.replicaId,
        promised,
        accepted: claim.accepted,
        seq: claim.seq,
        generation: this.generation,
        root: [...this.#root],
        leftovers: [...this.#leftovers],
      },
    });
    this.whenDurable(() => {
      this.durable = { promised, claim };
    });
  }
}

export function encodeConfig(config: Config): Uint8Array {
  return Buffer.from(JSON.stringify(config));
}

export function decodeConfig(value: Uint8Array): Config {
  return configSchema.parse(JSON.parse(Buffer.from(value).toString("utf8")));
}
