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
import { BucketDigests, type Digest, type EntryDigester, xorInto } from "./anti-entropy.ts";
import { type Claim, NO_BALLOT, type ReplicaId, versionOf } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import { type Carried, type Config, configSchema } from "./message.ts";
import { type Ballot, ballotSchema, type Change, type Key, type Version } from "./register.ts";

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
});
export type ReplicaMeta = z.output<typeof replicaMetaSchema>;

/** Reserved keys begin with NUL: hidden from callers, digested like all others. */
export const RESERVED = "\x00";
export const CONFIG_KEY: Key = "\x00config";
export const OUTCOME_PREFIX = "\x00outcome/";

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
  /** Version of the config entry; empty when there is none. */
  epoch: Version;
  durable: { promised: Ballot; claim: Claim };
  readonly #root: Digest;
  // Undefined until the first comparison after opening needs them; kept up to date from then on.
  #buckets: BucketDigests | undefined;
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
    this.durable = { promised: meta.promised, claim: this.claim };
    const entry = this.get(CONFIG_KEY);
    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);
    this.epoch = entry?.version ?? "";
    if (this.accepted.round === 0) this.#buckets = new BucketDigests();
  }

  static empty(replicaId: ReplicaId, generation: number): ReplicaMeta {
    return { replicaId, promised: NO_BALLOT, accepted: NO_BALLOT, seq: 0, generation, root: [0, 0, 0, 0] };
  }

  get claim(): Claim {
    return { accepted: this.accepted, seq: this.seq };
  }

  get root(): Digest {
    return this.#root;
  }

  get isMember(): boolean {
    return this.config.members.includes(this.replicaId);
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
    this.#durableToken = Math.max(this.#durableToken, token);
    while (this.#waiting.length > 0 && this.#waiting[0]!.token <= this.#durableToken) {
      this.#waiting.shift()!.then();
    }
  }

  /** @param ballot greater than what was promised before. */
  promise(ballot: Ballot): void {
    this.promised = ballot;
    this.#hand([]);
  }

  /** The entries as they are become the base state of `ballot`, or its state at `seq` when they are known to be identical. */
  accept(ballot: Ballot, seq: number): void {
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

  /** Batch `seq` of the leader of `accepted`. */
  append(seq: number, changes: readonly Change[]): void {
    assert(seq === this.seq + 1, `batch ${seq} after ${this.seq}`);
    const version = versionOf(this.accepted, seq);
    this.seq = seq;
    this.#hand(
      this.#digested(
        changes.map((change) =>
          change.kind === "put"
            ? {
                kind: "put",
                key: change.key,
                entry: { version, value: change.value, expiresAtMs: change.expiresAtMs },
              }
            : change,
        ),
      ),
    );
  }

  /** Becomes identical to a state of another by a difference that is one batch. */
  applyDifference(writes: readonly EntryWrite[], root: Digest, claim: Claim, promised: Ballot): boolean {
    const before = new Uint32Array(this.#root);
    const buckets = this.#buckets && new BucketDigests(new Uint32Array(this.#buckets.words));
    const digested = this.#digested(writes);
    if (!this.#root.every((word, i) => word === root[i])) {
      this.#root.set(before);
      this.#buckets = buckets;
      this.#readConfig();
      return false;
    }
    this.accepted = claim.accepted;
    this.seq = claim.seq;
    this.promised = promised;
    this.#hand(digested);
    return true;
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
    this.generation = generation;
    this.accepted = claim.accepted;
    this.seq = claim.seq;
    this.promised = promised;
    this.#buckets = buckets;
    this.#root.set(buckets.root());
    this.#hand([]);
    this.#readConfig();
    this.whenDurable(() => this.#effects.push({ kind: "dropGeneration", generation: old }));
  }

  /** Present buckets, if they are known. */
  get buckets(): BucketDigests | undefined {
    return this.#buckets;
  }

  /**
   * Starts to gather the buckets of the present state, to which changes from now
   * on are added; `BucketDigests.merge` the scan of a snapshot of this moment.
   */
  gatherBuckets(): BucketDigests {
    this.#buckets = new BucketDigests();
    return this.#buckets;
  }

  forgetBuckets(): void {
    this.#buckets = undefined;
  }

  #digested(writes: readonly EntryWrite[]): readonly EntryWrite[] {
    const seen = new Map<Key, HeldEntry | undefined>();
    for (const write of writes) {
      const old = seen.has(write.key) ? seen.get(write.key) : this.get(write.key);
      if (old !== undefined) this.#toggle(write.key, old);
      const entry = write.kind === "put" ? write.entry : undefined;
      if (entry !== undefined) this.#toggle(write.key, entry);
      seen.set(write.key, entry);
      if (write.key === CONFIG_KEY) {
        this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);
        this.epoch = entry?.version ?? "";
      }
    }
    return writes;
  }

  #toggle(key: Key, entry: HeldEntry): void {
    const digest = this.digestOf(key, entry);
    xorInto(this.#root, digest);
    this.#buckets?.toggle(key, digest);
  }

  #readConfig(): void {
    const entry = this.get(CONFIG_KEY);
    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);
    this.epoch = entry?.version ?? "";
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
