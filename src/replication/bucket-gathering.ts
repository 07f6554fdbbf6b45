/**
 * Rebuilds the bucket digests of a replica from a snapshot, while writes go on,
 * and checks all entries against the root on the way: one that has vanished or
 * was rolled back shows as a wrong root.
 */
import { BucketDigests, type Digest, isSameDigest } from "./anti-entropy.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import type { ReplicaState } from "./replica-state.ts";

export class BucketGathering {
  readonly snapshot: number;
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  readonly #generation: number;
  readonly #root: Digest;
  readonly #changes: BucketDigests;
  readonly #scanned = new BucketDigests();

  /** @param options.snapshot of this very moment. */
  constructor(options: {
    snapshot: number;
    state: ReplicaState;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
  }) {
    this.snapshot = options.snapshot;
    this.#state = options.state;
    this.#effects = options.effects;
    this.#limits = options.limits;
    this.#generation = options.state.generation;
    this.#root = new Uint32Array(options.state.root);
    this.#changes = options.state.gather();
    this.#scan(undefined);
  }

  /** The buckets at the snapshot's moment once all is read; `damaged` when they don't have the root that they should. */
  scanned({ entries, isLast }: Scanned): BucketDigests | "damaged" | undefined {
    for (const entry of entries) this.#scanned.toggle(entry.key, this.#state.digestOf(entry.key, entry));
    if (!isLast) {
      this.#scan(entries.at(-1)!.key);
      return undefined;
    }
    if (!isSameDigest(this.#scanned.root(), this.#root)) {
      this.#state.abandon(this.#changes);
      this.#effects.push({ kind: "damaged", what: "the entries do not have the root that is on record" });
      return "damaged";
    }
    this.#state.gathered(this.#changes, this.#scanned);
    return this.#scanned;
  }

  /** Not needed to its end. */
  end(): void {
    this.#state.abandon(this.#changes);
  }

  #scan(after: string | undefined): void {
    this.#effects.push({
      kind: "scan",
      snapshot: this.snapshot,
      generation: this.#generation,
      prefix: "",
      after,
      limit: this.#limits.scanEntries,
      bytesMax: this.#limits.messageBytes,
      isTransfer: true,
    });
  }
}
