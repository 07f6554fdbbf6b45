/**
 * The cluster as one member sees it, for people: asks all others at once, waits a
 * second at most, and merges what they say. Nothing is decided by it.
 */
import { canonicalUrl } from "../frontier/canonical-url.ts";
import type { PeerRef } from "../peer/transport.ts";
import { majorityOf } from "../replication/quorum.ts";
import {
  distance,
  identifierOf,
  isNodeId,
  type NodeId,
  nodeIdOf,
  partitionOf,
  pointOf,
  positionOf,
  RING_SIZE,
} from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { Admission } from "./admission.ts";
import type { Membership } from "./membership.ts";
import type { NodeStatus, PartitionStatus } from "./peer-contract.ts";
import type { RingDriver } from "./ring-driver.ts";
import type { Roster } from "./roster.ts";
import { readHostPort, writeHostPort } from "./server-addresses.ts";

const ASK_MS = 1_000;
const ASKED_AT_ONCE = 32;

export interface Readiness {
  readonly ready: boolean;
  /** What is missing, for people; empty when ready. */
  readonly reasons: readonly string[];
  /** Degraded: of something that this server keeps there are fewer than three copies, or it keeps nothing yet. */
  readonly durability: "full" | "degraded";
}

export interface ClusterNode {
  readonly nodeId: NodeId;
  /** `https://host:port`; null: not known yet. */
  readonly edge: string | null;
  /** `host:port` */
  readonly peer: string;
  readonly zone: string;
  /** `away`: a member that is not in the ring: it was stopped, or died long ago. */
  readonly state: "alive" | "suspected" | "unreachable" | "away";
  /** What operators want of it: `draining` gives away what it keeps; null: not known yet. */
  readonly membership: "joining" | "active" | "draining" | "removed" | null;
  readonly self: boolean;
  /** How often it was started; null: not heard. */
  readonly incarnation: number | null;
  /** Tasks running and waiting per scrape thread; null: not heard yet. */
  readonly load: number | null;
  /** How many partitions it leads, and keeps a copy of; null: it did not answer. */
  readonly leads: number | null;
  readonly replicas: number | null;
  /** Blobs that are left on one that drains; null: it does not drain, or did not answer. */
  readonly blobs: number | null;
  /** When all that it keeps was read and compared last, ISO 8601; null: never yet, or it did not answer. */
  readonly scrubbedAt: string | null;
  /** Why it keeps nothing now; null: all is well, or it did not answer. */
  readonly problem: string | null;
  readonly uptimeMs: number | null;
  readonly version: string | null;
  /** Of the circle, 0 to 1: the arc between its predecessor and itself. */
  readonly arcShare: number | null;
  /** As `RoutedRegisters.counts`, since its start; null: it did not answer. */
  readonly calls: { readonly made: number; readonly redirects: number; readonly lookups: number } | null;
}

export interface ClusterPartition {
  readonly partition: number;
  readonly leader: NodeId | null;
  readonly members: NodeId[];
  /** `round.replica` under which it is led; null: nobody leads it. */
  readonly ballot: string | null;
  /** Members on servers that are there. */
  readonly copies: number;
  readonly durability: "full" | "degraded" | "unserved";
}

export interface ClusterViewParts {
  readonly self: Member;
  readonly cluster: Pick<Membership, "clusterId" | "partitions" | "replicationFactor">;
  readonly ring: Pick<
    RingDriver,
    "members" | "member" | "isSuspected" | "isReachable" | "loadOf" | "view" | "placement"
  > & { on(event: "suspected", listener: (nodeId: NodeId) => void): unknown };
  readonly admission: Pick<Admission, "createJoinToken">;
  readonly roster: Pick<Roster, "stateOf" | "removed" | "members" | "staying">;
  readiness(): Readiness;
  /** What this server says of itself. */
  local(options: { readonly partitions: boolean }): NodeStatus;
  ask(to: PeerRef, options: { readonly partitions: boolean }, timeoutMs: number): Promise<NodeStatus>;
}

interface Seen {
  readonly member: Member;
  /** Undefined: no answer. */
  readonly status: NodeStatus | undefined;
  readonly isAway: boolean;
}

interface Known {
  readonly member: Member;
  /** Known from the members' entries alone. */
  readonly isAway: boolean;
}

export class ClusterView {
  readonly #parts: ClusterViewParts;
  // Those that are asked now, and what ends the waiting for each.
  readonly #asked = new Map<NodeId, Set<() => void>>();

  constructor(parts: ClusterViewParts) {
    this.#parts = parts;
    parts.ring.on("suspected", (nodeId) => {
      for (const giveUp of this.#asked.get(nodeId) ?? []) giveUp();
    });
  }

  async status(): Promise<{
    clusterId: string;
    nodeId: NodeId;
    partitionCount: number;
    replicationFactor: number;
    ready: boolean;
    reasons: string[];
    durability: "full" | "degraded";
    partitions: { full: number; degraded: number; unserved: number; complete: number };
    ring: { predecessor: NodeId | null; successors: NodeId[]; fingers: NodeId[] };
    nodes: ClusterNode[];
  }> {
    const { cluster, self, ring, readiness, roster } = this.#parts;
    const seen = await this.#ask(this.#known(), true);
    const nodes = seen.map((node) => this.#node(node));
    const live = nodes.filter(
      ({ state, membership }) => state === "alive" && membership !== "draining",
    ).length;
    const wanted = Math.min(cluster.replicationFactor, Math.max(live, roster.staying ?? 0));
    const count = { full: 0, degraded: 0, unserved: 0, complete: 0 };
    for (const { durability, copies } of this.#merge(seen)) {
      count[durability]++;
      if (copies >= wanted) count.complete++;
    }
    const { predecessor, successors, fingers } = ring.view();
    const { ready, reasons } = readiness();
    return {
      clusterId: cluster.clusterId,
      nodeId: self.nodeId,
      partitionCount: cluster.partitions,
      replicationFactor: cluster.replicationFactor,
      ready,
      reasons: [...reasons],
      durability: count.full === cluster.partitions ? "full" : "degraded",
      partitions: count,
      ring: { predecessor, successors: [...successors], fingers: [...fingers] },
      nodes,
    };
  }

  /** In ring order, from this server on. */
  async nodes(): Promise<ClusterNode[]> {
    const seen = await this.#ask(this.#known(), false);
    return seen.map((node) => this.#node(node));
  }

  async partitions(): Promise<ClusterPartition[]> {
    return this.#merge(await this.#ask(this.#known(), true));
  }

  /**
   * How this server finds the partition of a key, any text that is placed on the ring. Hosts are meant as links
   * write them: the answer's `key` has the form by which they are placed.
   *
   * @throws {UnavailableError} no owner of that place answered.
   */
  async lookup(text: string): Promise<{
    key: string;
    point: NodeId;
    partition: number;
    leader: NodeId | null;
    members: NodeId[];
    path: NodeId[];
    hops: number;
  }> {
    const { partitions, replicationFactor } = this.#parts.cluster;
    const key = placedKey(text);
    const partition = partitionOf(key, partitions);
    const found = await this.#parts.ring.placement(positionOf(partition, partitions), replicationFactor);
    const seen = await this.#ask(
      found.members.map((member) => ({ member, isAway: false })),
      true,
    );
    const { leader, members } = mergePartition(partition, reportsOf(seen, partition));
    const { hops, path } = found;
    return { key, point: nodeIdOf(pointOf(key)), partition, leader, members, hops, path };
  }

  async createJoinToken(): Promise<{ token: string; expiresAt: string }> {
    const { token, expiresAtMs } = await this.#parts.admission.createJoinToken();
    return { token, expiresAt: new Date(expiresAtMs).toISOString() };
  }

  /** Those that live, those that are missed, and those that are away, in ring order from here. */
  #known(): Known[] {
    const { self, ring, roster } = this.#parts;
    const known = new Map<NodeId, Known>();
    for (const { nodeId, addresses, zone } of roster.members) {
      if (!isNodeId(nodeId)) continue;
      const address = readHostPort(addresses.peer);
      const member: Member = { nodeId, address, zone, incarnation: 0, instance: "" };
      known.set(nodeId, { member, isAway: true });
    }
    for (const member of ring.members()) known.set(member.nodeId, { member, isAway: false });
    for (const { nodeId } of ring.view().watched) {
      const member = ring.member(nodeId);
      if (member !== undefined) known.set(nodeId, { member, isAway: false });
    }
    known.set(self.nodeId, { member: self, isAway: false });
    for (const nodeId of roster.removed) known.delete(nodeId as NodeId);
    const from = identifierOf(self.nodeId);
    const reach = ({ member }: Known) => distance(from, identifierOf(member.nodeId));
    return [...known.values()].sort((a, b) => (reach(a) < reach(b) ? -1 : 1));
  }

  async #ask(known: readonly Known[], partitions: boolean): Promise<Seen[]> {
    const { self, ring, local } = this.#parts;
    const seen: Seen[] = [];
    const askOne = async ({ member, isAway }: Known): Promise<Seen> => {
      if (member.nodeId === self.nodeId) return { member, isAway, status: local({ partitions }) };
      // Whom all take for dead need not be waited for.
      if (isAway || ring.isSuspected(member.nodeId)) return { member, isAway, status: undefined };
      return { member, isAway, status: await this.#answerOf(member, partitions) };
    };
    for (let at = 0; at < known.length; at += ASKED_AT_ONCE) {
      seen.push(...(await Promise.all(known.slice(at, at + ASKED_AT_ONCE).map(askOne))));
    }
    return seen;
  }

  /** Silence is an answer too; when all take it for that, it is not waited for any longer. */
  #answerOf({ nodeId, address }: Member, partitions: boolean): Promise<NodeStatus | undefined> {
    const { promise, resolve } = Promise.withResolvers<NodeStatus | undefined>();
    const giveUp = () => resolve(undefined);
    const waiting = this.#asked.get(nodeId) ?? new Set();
    this.#asked.set(nodeId, waiting.add(giveUp));
    this.#parts.ask({ nodeId, address }, { partitions }, ASK_MS).then(resolve, giveUp);
    return promise.finally(() => {
      waiting.delete(giveUp);
      if (waiting.size === 0) this.#asked.delete(nodeId);
    });
  }

  #node({ member, status, isAway }: Seen): ClusterNode {
    const { self, ring, roster } = this.#parts;
    const { nodeId } = member;
    const isSelf = nodeId === self.nodeId;
    const isSuspected = !isSelf && ring.isSuspected(nodeId);
    const isSilent = !isSelf && (status === undefined || !ring.isReachable(nodeId));
    const edge = status?.edge ?? roster.members.find((one) => one.nodeId === nodeId)?.addresses.edge;
    return {
      nodeId,
      edge: edge === undefined ? null : `https://${edge}`,
      peer: writeHostPort(member.address),
      zone: member.zone,
      state: isAway ? "away" : isSuspected ? "suspected" : isSilent ? "unreachable" : "alive",
      membership: roster.stateOf(nodeId) ?? null,
      self: isSelf,
      incarnation: status?.incarnation ?? (isAway ? null : member.incarnation),
      load: status?.load ?? ring.loadOf(nodeId) ?? null,
      leads: status?.leads ?? null,
      replicas: status?.replicas ?? null,
      blobs: status?.blobs ?? null,
      scrubbedAt: status?.scrubbedAt ?? null,
      problem: status?.problem ?? null,
      uptimeMs: status?.uptimeMs ?? null,
      version: status?.version ?? null,
      arcShare: status === undefined ? null : arcShare(nodeId, status.predecessor),
      calls: status?.calls ?? null,
    };
  }

  #merge(seen: readonly Seen[]): ClusterPartition[] {
    const reports = new Map<number, Report[]>();
    for (const { member, status } of seen) {
      for (const report of status?.partitions ?? []) {
        const list = reports.get(report.partition);
        const item = { nodeId: member.nodeId, report };
        if (list === undefined) reports.set(report.partition, [item]);
        else list.push(item);
      }
    }
    return Array.from({ length: this.#parts.cluster.partitions }, (_, partition) =>
      mergePartition(partition, reports.get(partition) ?? []),
    );
  }
}

/** `host/Exämple.org` is placed as `host/xn--exmple-cua.org`. */
function placedKey(text: string): string {
  const host = /^host\/([^/]+)$/.exec(text)?.[1];
  return host === undefined ? text : `host/${canonicalUrl(`http://${host}/`)?.host ?? host}`;
}

interface Report {
  readonly nodeId: NodeId;
  readonly report: PartitionStatus;
}

function reportsOf(seen: readonly Seen[], partition: number): Report[] {
  return seen.flatMap(({ member, status }) =>
    (status?.partitions ?? [])
      .filter((report) => report.partition === partition)
      .map((report) => ({ nodeId: member.nodeId, report })),
  );
}

/** The word of the leader with the greatest round counts; without one, that of the member that knows most. */
function mergePartition(partition: number, reports: readonly Report[]): ClusterPartition {
  const round = ({ report }: Report) => report.ballot?.round ?? -1;
  const newest = reports.toSorted((a, b) => round(b) - round(a) || b.report.seq - a.report.seq);
  const led = newest.find(({ report }) => report.role === "leader");
  const ballot = led?.report.ballot ?? null;
  return {
    partition,
    leader: led?.nodeId ?? null,
    members: [...((led ?? newest[0])?.report.members ?? [])],
    ballot: ballot === null ? null : `${ballot.round}.${ballot.replicaId}`,
    copies: led?.report.copies ?? 0,
    // A leader that has nothing to do has not noticed yet that it can't do anything.
    durability:
      led === undefined || led.report.copies < majorityOf(led.report.members.length)
        ? "unserved"
        : led.report.durability,
  };
}

function arcShare(nodeId: NodeId, predecessor: NodeId | null): number {
  if (predecessor === null || predecessor === nodeId) return 1;
  const arc = distance(identifierOf(predecessor), identifierOf(nodeId));
  // 160 bits don't fit into a number: the first 53 do.
  return Number((arc << 53n) / RING_SIZE) / 2 ** 53;
}
