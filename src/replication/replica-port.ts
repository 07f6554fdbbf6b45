/** What a replica asks of its surroundings; answers are inputs, none of them matters for safety. */
import type { Ballot } from "./register.ts";

/** Sizes. A simulation takes small ones, to meet their edges often. */
export interface ReplicaLimits {
  /** A leader's last batches, kept for replicas that missed some. */
  readonly windowBatches: number;
  readonly windowBytes: number;
  /** Entries read from a snapshot at a time. */
  readonly scanEntries: number;
  /** Of one message of a transfer, and of one read from a snapshot. */
  readonly messageBytes: number;
  /** A difference up to this size is one atomic batch; a larger one is built beside the old state. */
  readonly atomicBytes: number;
  /** Of one answer to a caller: it has to fit into a frame. */
  readonly answerBytes: number;
  /** Of a partition's changes that are not committed and its answers that are not given; past it, BUSY. */
  readonly pendingBytes: number;
}

const MiB = 1024 * 1024;

export const REPLICA_LIMITS: ReplicaLimits = {
  windowBatches: 1024,
  windowBytes: 8 * MiB,
  scanEntries: 512,
  messageBytes: MiB,
  atomicBytes: 4 * MiB,
  answerBytes: 4 * MiB,
  pendingBytes: 32 * MiB,
};

export interface ReplicaSettings {
  readonly replicationFactor: number;
  readonly leaderTimeoutMs: number;
  readonly replaceAfterMs: number;
  readonly limits: ReplicaLimits;
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
  /** Whether an operator wants that node to keep nothing any more: it is no part of the wish, and needs no substitute to go. */
  isDismissed(nodeId: string): boolean;
  /** Asked before each step of growth and each hand-over: bounds how many go on at once on this node. */
  mayStep(kind: "learn" | "handOver"): boolean;
  /** In [0, 1). */
  random(): number;
}
