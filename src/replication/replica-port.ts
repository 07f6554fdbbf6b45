/** What a replica asks of its surroundings; answers are inputs, none of them matters for safety. */
import type { Ballot } from "./register.ts";

export interface ReplicaSettings {
  readonly replicationFactor: number;
  readonly leaderTimeoutMs: number;
  readonly replaceAfterMs: number;
}

export interface ReplicaPorts {
  /** Whether the proposer of `ballot` lives and says that it leads at it or stands at a later one. */
  hears(ballot: Ballot): boolean;
  isLive(nodeId: string): boolean;
  /** How many live members of `nodeIds` stand before this node, in ring order from the partition's position. */
  rank(nodeIds: readonly string[]): number;
  /** The first R live nodes at or after the partition's position, once that has been so for a while. */
  wish(): readonly string[] | undefined;
  /** Since when a node has not been live, in ms of the caller's clock; undefined while it lives. */
  deadSince(nodeId: string): number | undefined;
  /** Asked before each step of growth and each hand-over: bounds how many go on at once on this node. */
  mayStep(kind: "learn" | "handOver"): boolean;
  /** In [0, 1). */
  random(): number;
}
