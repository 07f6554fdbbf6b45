/**
 * A partition whose majority is lost for ever: which survivor goes on, and what
 * that costs. Nothing does this by itself: what only the lost ones held is lost,
 * and should they come back all the same, what they hold is thrown away.
 */
import { type Claim, compareClaims, type ReplicaId } from "./ballot.ts";
import { majorityOf } from "./quorum.ts";
import type { Ballot } from "./register.ts";

/** What a replica that can still be asked says of itself. */
export interface Survivor {
  readonly replicaId: ReplicaId;
  readonly promised: Ballot;
  readonly claim: Claim;
  /** Of its config; empty when it holds nothing. */
  readonly members: readonly ReplicaId[];
}

export type RecoveryPlan =
  /** Go on from `best`, which stands at `claim`, by `Replica.recover`. */
  | {
      readonly kind: "recover";
      readonly best: ReplicaId;
      readonly claim: Claim;
      readonly round: number;
      /** Members of the best survivor's config that are not among the survivors. */
      readonly lost: readonly ReplicaId[];
    }
  /** A majority of the best survivor's config is there: it elects a leader by itself. */
  | { readonly kind: "notNeeded" }
  /** No survivor holds anything. */
  | { readonly kind: "nothingLeft" };

/** Far above what anybody may have promised without being asked here. */
const ROUNDS_AHEAD = 1000;

export function planRecovery(survivors: readonly Survivor[]): RecoveryPlan {
  const holding = survivors.filter(({ claim }) => claim.accepted.round > 0);
  const [first, ...rest] = holding;
  if (first === undefined) return { kind: "nothingLeft" };
  const best = rest.reduce((a, b) => (compareClaims(b.claim, a.claim) > 0 ? b : a), first);
  const present = new Set(survivors.map(({ replicaId }) => replicaId));
  const lost = best.members.filter((id) => !present.has(id));
  if (best.members.length - lost.length >= majorityOf(best.members.length)) return { kind: "notNeeded" };
  const round = Math.max(...survivors.map(({ promised }) => promised.round)) + ROUNDS_AHEAD;
  return { kind: "recover", best: best.replicaId, claim: best.claim, round, lost };
}
