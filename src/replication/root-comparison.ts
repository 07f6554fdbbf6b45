/**
 * Whether the replicas of a group hold the same entries: by their roots, each
 * compared with what the leader's was in the same state. Reads nothing and
 * changes nothing; goes on beside normal work.
 */
import { type Digest, isSameDigest } from "./anti-entropy.ts";
import type { ReplicaId } from "./ballot.ts";

const COMPARED_MS = 5_000;
const ASK_MS = 400;
/** Batches whose roots are remembered: who answers from a later state is asked once more. */
const ROOTS_MAX = 8192;

export class RootComparison {
  readonly comparison: number;
  readonly #untilMs: number;
  #askedMs = Number.NEGATIVE_INFINITY;
  readonly #roots = new Map<number, Digest>();
  readonly same = new Set<ReplicaId>();
  readonly different = new Set<ReplicaId>();

  constructor(options: { comparison: number; seq: number; root: Digest; nowMs: number }) {
    this.comparison = options.comparison;
    this.#untilMs = options.nowMs + COMPARED_MS;
    this.note(options.seq, options.root);
  }

  /** The root after batch `seq`. */
  note(seq: number, root: Digest): void {
    if (this.#roots.size === ROOTS_MAX) this.#roots.delete(this.#roots.keys().next().value!);
    this.#roots.set(seq, new Uint32Array(root));
  }

  /** Those that are to be asked now. */
  ask(replicaIds: readonly ReplicaId[], nowMs: number): readonly ReplicaId[] {
    if (nowMs - this.#askedMs < ASK_MS) return [];
    this.#askedMs = nowMs;
    return replicaIds.filter((id) => !this.isJudged(id));
  }

  isJudged(replicaId: ReplicaId): boolean {
    return this.same.has(replicaId) || this.different.has(replicaId);
  }

  /** What a replica holds at batch `seq`; of no avail when it has not come to where the comparison began. */
  answered(from: ReplicaId, seq: number, root: Digest): "same" | "different" | undefined {
    const own = this.#roots.get(seq);
    if (own === undefined || this.isJudged(from)) return undefined;
    const verdict = isSameDigest(own, root) ? "same" : "different";
    this[verdict].add(from);
    return verdict;
  }

  isOver(replicaIds: readonly ReplicaId[], nowMs: number): boolean {
    return nowMs >= this.#untilMs || replicaIds.every((id) => this.isJudged(id));
  }
}
