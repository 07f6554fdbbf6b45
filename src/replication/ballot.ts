/**
 * Ballots order leaders, versions name batches, claims name states.
 *
 * A ballot carries the replica that proposes it, so two replicas never share one.
 */
import { z } from "zod";
import { type Ballot, ballotSchema, type Version } from "./register.ts";

/** `nodeId + "/" + serial`: a memory, not a machine. A lost memory never comes back under its old id. */
export type ReplicaId = string;

export const NO_BALLOT: Ballot = { round: 0, replicaId: "" };

export function compareBallots(a: Ballot, b: Ballot): number {
  if (a.round !== b.round) return a.round - b.round;
  return a.replicaId < b.replicaId ? -1 : a.replicaId > b.replicaId ? 1 : 0;
}

export function isSameBallot(a: Ballot, b: Ballot): boolean {
  return a.round === b.round && a.replicaId === b.replicaId;
}

/** `(accepted, seq)`: exactly what the leader of `accepted` held after its batch `seq`. */
export const claimSchema = z.object({ accepted: ballotSchema, seq: z.int().nonnegative() });
export type Claim = z.output<typeof claimSchema>;

export function compareClaims(a: Claim, b: Claim): number {
  return compareBallots(a.accepted, b.accepted) || a.seq - b.seq;
}

/** @param step which of the operations of the batch that changed the same key; 0: the first. */
export function versionOf(ballot: Ballot, seq: number, step = 0): Version {
  const version = `${ballot.round}.${ballot.replicaId}.${seq}`;
  return step === 0 ? version : `${version}.${step}`;
}

/** Ordered by ballot, then batch. "" is before all. */
export function compareVersions(a: Version, b: Version): number {
  if (a === "" || b === "") return a.length - b.length;
  return compareClaims(claimOf(a), claimOf(b));
}

/** The state in which the batch of that version was the last. */
export function claimOf(version: Version): Claim {
  const [round = "0", replicaId = "", seq = "0"] = version.split(".");
  return { accepted: { round: Number(round), replicaId }, seq: Number(seq) };
}

export function replicaIdOf(nodeId: string, serial: number): ReplicaId {
  return `${nodeId}/${serial}`;
}

export function nodeOf(replicaId: ReplicaId): string {
  return replicaId.slice(0, replicaId.indexOf("/"));
}

export function serialOf(replicaId: ReplicaId): number {
  return Number(replicaId.slice(replicaId.indexOf("/") + 1));
}
