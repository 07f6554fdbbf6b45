/**
 * Who leads each partition and who keeps it, as far as callers have found out.
 *
 * All of it is a hint. It is corrected by answers, redirects and what leaders
 * announce, so that nearly all calls go straight to the leader and none has to
 * ask the ring; a wrong hint costs a redirect.
 */
import type { NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";

interface Known {
  leader: NodeId | undefined;
  /** What was announced when the leader was learnt: of the two, the later one is believed. */
  announced: NodeId | undefined;
  members: readonly Member[];
}

export class PartitionCache {
  readonly #announcedLeader: (partition: number) => NodeId | undefined;
  // Bounded by the number of partitions: callers name no others.
  readonly #known = new Map<number, Known>();

  /** @param announcedLeader what the local replica knows, and what leaders told this server. */
  constructor(announcedLeader: (partition: number) => NodeId | undefined) {
    this.#announcedLeader = announcedLeader;
  }

  /** Who is believed to lead, most likely first. */
  leaders(partition: number): NodeId[] {
    const known = this.#known.get(partition);
    const announced = this.#announcedLeader(partition);
    const isNews = known === undefined || announced !== known.announced;
    const order = isNews ? [announced, known?.leader] : [known.leader, announced];
    return order.filter((nodeId) => nodeId !== undefined);
  }

  /** Those whom the ring named last, in the order in which to ask them; empty when it was not asked yet. */
  members(partition: number): readonly Member[] {
    return this.#known.get(partition)?.members ?? [];
  }

  /** It answered as the leader, or was named as such by one that is not. */
  led(partition: number, leader: NodeId): void {
    const known = this.#at(partition);
    known.leader = leader;
    known.announced = this.#announcedLeader(partition);
  }

  /** It does not lead, or does not answer: the next call asks all others first. */
  notLed(partition: number, nodeId: NodeId): void {
    const known = this.#known.get(partition);
    if (known === undefined) return;
    if (known.leader === nodeId) known.leader = undefined;
    const at = known.members.findIndex((member) => member.nodeId === nodeId);
    if (at >= 0) known.members = [...known.members.toSpliced(at, 1), known.members[at]!];
  }

  kept(partition: number, members: readonly Member[]): void {
    this.#at(partition).members = members;
  }

  #at(partition: number): Known {
    let known = this.#known.get(partition);
    if (known === undefined) {
      known = { leader: undefined, announced: undefined, members: [] };
      this.#known.set(partition, known);
    }
    return known;
  }
}
