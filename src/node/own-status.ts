/** What a server says of itself when others ask how it is. */
import type { Member } from "../ring/member.ts";
import { CLUSTER_VERSION } from "./cluster-entries.ts";
import type { CrawlDriver } from "./crawl-driver.ts";
import type { NodeStatus } from "./peer-contract.ts";
import type { RoutedRegisters } from "./registers.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import type { RingDriver } from "./ring-driver.ts";
import type { Scrub } from "./scrub.ts";
import { type ServerAddresses, writeHostPort } from "./server-addresses.ts";
import type { StoreCare } from "./store-care.ts";

export interface StatusParts {
  readonly self: Member;
  readonly addresses: ServerAddresses;
  readonly ring: Pick<RingDriver, "view">;
  readonly replicas: Pick<ReplicaDriver, "status">;
  readonly crawl: Pick<CrawlDriver, "status">;
  readonly care: Pick<StoreCare, "problem">;
  readonly scrub: Pick<Scrub, "finishedAt">;
  readonly registers: Pick<RoutedRegisters, "counts">;
}

/** What its parts know; the rest is known to whoever runs it. */
export function ownStatus(
  parts: StatusParts,
  { partitions }: { readonly partitions: boolean },
): Omit<NodeStatus, "state" | "uptimeMs" | "epochMs" | "blobs"> {
  const { self, addresses } = parts;
  const held = heldPartitions(parts.replicas);
  return {
    nodeId: self.nodeId,
    peer: writeHostPort(addresses.peer.advertise),
    edge: writeHostPort(addresses.edge.advertise),
    zone: self.zone,
    incarnation: self.incarnation,
    version: CLUSTER_VERSION,
    load: parts.crawl.status().load,
    leads: held.filter(({ role }) => role === "leader").length,
    replicas: held.filter(({ role }) => role === "leader" || role === "follower").length,
    predecessor: parts.ring.view().predecessor,
    problem: parts.care.problem ?? null,
    scrubbedAt: parts.scrub.finishedAt,
    calls: parts.registers.counts,
    ...(partitions ? { partitions: held } : {}),
  };
}

export type HeldPartition = NonNullable<NodeStatus["partitions"]>[number];

/** What this server keeps a copy of, or is getting one; not what it has given up. */
export function heldPartitions(replicas: Pick<ReplicaDriver, "status">): HeldPartition[] {
  return replicas
    .status()
    .filter(({ members }) => members.length > 0)
    .map(({ quarantine, leader, members, ...held }) => {
      return { ...held, members: [...members], leader: leader ?? null };
    });
}
