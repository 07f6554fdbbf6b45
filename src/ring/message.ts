/**
 * What nodes of a ring say to one another. Sender, incarnation, instance,
 * cluster and protocol version stand in the frame's head. A question has an id
 * that its answer repeats; all are idempotent, stale or repeated ones harmless.
 */
import { z } from "zod";
import { type Member, memberSchema, nodeIdSchema } from "./member.ts";

export const SUCCESSORS_MAX = 32;
export const AVOID_MAX = 64;
export const LED_BYTES_MAX = 1024 * 1024;

const id = z.int().nonnegative();
const members = z.array(memberSchema).max(SUCCESSORS_MAX);
const vitals = {
  /** Tasks running and waiting per scrape thread. */
  load: z.number().nonnegative(),
  /** Digest of what the sender leads among the partitions shared with the receiver: opaque here. */
  led: z.custom<Uint8Array>((v) => v instanceof Uint8Array && v.byteLength <= LED_BYTES_MAX, "bytes"),
  zone: z.string().max(64),
  /** Which of its pictures of its neighbours holds: a `neighbourhood` with the same number is still right. */
  around: id,
};

export const ringMessageSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("ping"), id, ...vitals }),
  z.object({ kind: z.literal("pong"), id, ...vitals }),
  /** A second opinion on `target`, from a fresh ping, never from memory. */
  z.object({ kind: z.literal("probe"), id, target: memberSchema }),
  z.object({ kind: z.literal("opinion"), id, alive: z.boolean() }),
  /** Stabilisation: one atomic picture of the receiver's neighbours. */
  z.object({ kind: z.literal("neighbours"), id }),
  z.object({
    kind: z.literal("neighbourhood"),
    id,
    around: id,
    predecessor: memberSchema.nullable(),
    successors: members,
  }),
  /** "I believe that I am your predecessor": `node` is the sender itself. */
  z.object({ kind: z.literal("notify"), node: memberSchema }),
  /** "`node` may be your successor": it counts only once it has answered. From `node` itself: "my list has changed". */
  z.object({ kind: z.literal("hint"), node: memberSchema }),
  /** Holds `point` for a node to come. `known`: reserved points of this arc that the asker has already counted as nodes. */
  z.object({ kind: z.literal("reserve"), id, point: nodeIdSchema, known: z.array(nodeIdSchema).max(64) }),
  /** Not ok: choose again, counting `taken` as nodes. */
  z.object({ kind: z.literal("reserved"), id, ok: z.boolean(), taken: z.array(nodeIdSchema).max(66) }),
  /** One step of a lookup. `claimed`: somebody named the receiver as the owner of `point`. */
  z.object({
    kind: z.literal("closest"),
    id,
    point: nodeIdSchema,
    avoid: z.array(nodeIdSchema).max(AVOID_MAX),
    claimed: z.boolean(),
  }),
  z.object({
    kind: z.literal("closer"),
    id,
    /** The answerer itself: confirmed, and `successors` follow it. Another: to be asked. */
    owner: memberSchema.nullable(),
    successors: members,
    /** Of the answerer, when it is the owner or `unsettled`. */
    predecessor: memberSchema.nullable(),
    /** Up to three nodes nearer to the point, best first. */
    next: z.array(memberSchema).max(3),
    /** The answerer was claimed as the owner, but its live predecessor stands in front. */
    unsettled: z.boolean(),
  }),
  z.object({ kind: z.literal("leaving"), predecessor: memberSchema.nullable(), successors: members }),
  /** Not a member yet, or without a live successor: ask another. */
  z.object({ kind: z.literal("refusal"), id }),
]);

export type RingMessage = z.output<typeof ringMessageSchema>;
export type Closer = Extract<RingMessage, { kind: "closer" }>;
export type Neighbourhood = Extract<RingMessage, { kind: "neighbourhood" }>;

type WithId = Extract<RingMessage, { id: number }>;
export type Answer = Extract<
  WithId,
  { kind: "pong" | "opinion" | "neighbourhood" | "reserved" | "closer" | "refusal" }
>;
type Asking = Exclude<WithId, Answer>;
type Unnumbered<M> = M extends unknown ? Omit<M, "id"> : never;
/** A question whose id is still to be given. */
export type Question = Unnumbered<Asking>;

const NOTHING = new Uint8Array(0);

/** `led` is the driver's to fill in. */
export function pingOf(self: Member, load: number, around: number): Question & { readonly kind: "ping" } {
  return { kind: "ping", load, led: NOTHING, zone: self.zone, around };
}

export function pongOf(self: Member, load: number, around: number, id: number): RingMessage {
  return { kind: "pong", id, load, led: NOTHING, zone: self.zone, around };
}
