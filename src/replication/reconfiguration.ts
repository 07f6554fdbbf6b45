/**
 * Which single step brings a group nearer to the members that the ring wishes.
 *
 * One member at a time, so that majorities of consecutive configs overlap (Raft's
 * rule, Ongaro 2014, 4.1). A newcomer is level before it counts. A dead member
 * goes before its substitute comes (adding first would need one more live member
 * to agree), a live one goes last. A group never shrinks by itself.
 */
import { nodeOf, type ReplicaId } from "./ballot.ts";
import { majorityOf } from "./quorum.ts";

export type Step =
  /** Bring a replica on this node level, counted nowhere. */
  | { readonly kind: "learn"; readonly nodeId: string }
  | { readonly kind: "add"; readonly replicaId: ReplicaId }
  | { readonly kind: "remove"; readonly replicaId: ReplicaId }
  /** The leader is the one to go, or another is preferred: it must lead first. */
  | { readonly kind: "handOver"; readonly replicaId: ReplicaId };

export function nextStep(group: {
  readonly self: ReplicaId;
  readonly members: readonly ReplicaId[];
  /** Level with the leader, members and learners. */
  readonly level: readonly ReplicaId[];
  /** Being brought level. */
  readonly learning: readonly string[];
  /** In ring order: the first is the preferred leader. */
  readonly wish: readonly string[];
  readonly replicationFactor: number;
  /** Members whose memory is no more, or is in doubt: they never come back under that id. */
  readonly gone: ReadonlySet<ReplicaId>;
  /** Away for so long that a member is to be replaced. */
  isLost(nodeId: string): boolean;
  /** An operator wants nothing to be kept there any more. */
  isDismissed(nodeId: string): boolean;
}): Step | undefined {
  const { members, level, wish, self, gone } = group;
  const memberNodes = members.filter((member) => !gone.has(member)).map(nodeOf);
  const missing = wish.filter((nodeId) => !memberNodes.includes(nodeId));
  const unwished = members.filter((member) => !wish.includes(nodeOf(member)));
  const lost = [
    ...members.filter((member) => gone.has(member)),
    ...unwished.filter((member) => !gone.has(member) && group.isLost(nodeOf(member))),
  ];
  const substitutes = level.filter((id) => !members.includes(id) && missing.includes(nodeOf(id)));
  const room = group.replicationFactor - members.length;

  if (missing.length > 0) {
    const substitute = substitutes[0];
    if (substitute === undefined) {
      // A member that is away for a short time will be back: it keeps its place.
      const isNeeded = room > 0 || lost.length > 0 || unwished.some((m) => !isAway(m, group));
      const nodeId = missing.find((id) => !group.learning.includes(id));
      if (isNeeded && nodeId !== undefined) return { kind: "learn", nodeId };
    } else {
      const [first] = lost;
      // Of two that are away one substitute replaces one: the other keeps its place while that costs no majority.
      const isCostly = room <= 0 || majorityOf(members.length + 1) > majorityOf(members.length);
      if (first !== undefined && (gone.has(first) || isCostly)) return { kind: "remove", replicaId: first };
      if (room > 0) return { kind: "add", replicaId: substitute };
      // One above the factor for the time of the exchange.
      if (room === 0 && unwished.some((m) => !isAway(m, group)))
        return { kind: "add", replicaId: substitute };
    }
  }
  // Nobody is to come in its place, and it counts against every majority.
  if (missing.length === 0 && gone.size > 0) {
    const dead = members.find((member) => gone.has(member));
    if (dead !== undefined) return { kind: "remove", replicaId: dead };
  }
  // By itself a group never shrinks; by an operator's word it does, when nobody can come in the place of one.
  if (missing.length === 0) {
    const dismissed = unwished.find((member) => member !== self && group.isDismissed(nodeOf(member)));
    const left = members.filter((member) => member !== dismissed);
    // Not while others are away that count against the smaller majority too.
    const isSafe = left.filter((member) => level.includes(member)).length >= majorityOf(left.length);
    if (dismissed !== undefined && isSafe) return { kind: "remove", replicaId: dismissed };
  }
  if (members.length > group.replicationFactor) {
    const leaving = lost[0] ?? unwished.find((member) => member !== self) ?? unwished[0];
    if (leaving !== undefined && leaving !== self) return { kind: "remove", replicaId: leaving };
  }
  for (const nodeId of wish) {
    if (nodeId === nodeOf(self)) return undefined;
    const preferred = level.find((id) => nodeOf(id) === nodeId && members.includes(id) && !gone.has(id));
    if (preferred !== undefined) return { kind: "handOver", replicaId: preferred };
  }
  return undefined;
}

function isAway(member: ReplicaId, group: { readonly level: readonly ReplicaId[] }): boolean {
  return !group.level.includes(member);
}
