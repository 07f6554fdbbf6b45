/** Who a node is to the others: its point, where it listens, and which start of it speaks. */
import { z } from "zod";
import { isNodeId, type NodeId } from "./identifier.ts";

export const nodeIdSchema = z.custom<NodeId>((v) => typeof v === "string" && isNodeId(v), "node id");

export const memberSchema = z.object({
  nodeId: nodeIdSchema,
  /** Where its peer port answers. */
  address: z.object({ host: z.string().min(1).max(255), port: z.int().min(0).max(65_535) }),
  /** Rack or host: a replica group avoids having two members of one zone. Empty: unknown. */
  zone: z.string().max(64),
  /** Counts the starts of this node; a greater one replaces what was believed of a smaller one. */
  incarnation: z.int().nonnegative(),
  /** Random per start; empty while only the address is known. */
  instance: z.string().max(64),
});
export type Member = z.output<typeof memberSchema>;

/** A member as its messages show it: the zone travels in some of them only. */
export type Sender = Omit<Member, "zone">;

export function isSameStart(a: Sender, b: Sender): boolean {
  return a.nodeId === b.nodeId && a.incarnation === b.incarnation && a.instance === b.instance;
}

/** A node ever heard of, for healing and restart. `seenMs` is of the owner's clock. */
export interface ContactRecord extends Member {
  readonly seenMs: number;
}
