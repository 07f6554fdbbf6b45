/**
 * What is asked of the leader of a lock's partition. All of it is repeatable: who
 * asks is named by `owner`, which nobody else has.
 */
import { z } from "zod";

/** Milliseconds. */
export const LOCK_TTL_MS_MAX = 86_400_000;
/** One question waits no longer than this at a leader; whoever wants to wait longer asks again and keeps the place. */
export const LOCK_SLICE_MS_MAX = 10_000;

const name = {
  user: z.string().min(1).max(64),
  name: z.string().min(1).max(512),
};
const owner = z.string().regex(/^[0-9a-f]{32}$/);
const ttlMs = z.int().min(1).max(LOCK_TTL_MS_MAX);
const fencingToken = z.int().positive();

export const lockRequestSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("acquire"),
    ...name,
    owner,
    /** Of this question: who waits under an owner may change, when a client asks at another server. */
    ticket: z.string().min(1).max(64),
    ttlMs,
    /** 0: answers at once. */
    waitMs: z.int().min(0).max(LOCK_SLICE_MS_MAX),
  }),
  z.object({ kind: z.literal("renew"), ...name, owner, ttlMs, fencingToken: fencingToken.optional() }),
  z.object({ kind: z.literal("release"), ...name, owner, fencingToken: fencingToken.optional() }),
  /** The question of that ticket waits no more. */
  z.object({ kind: z.literal("leave"), ...name, owner, ticket: z.string().min(1).max(64) }),
]);
export type LockRequest = z.output<typeof lockRequestSchema>;

const lease = z.object({ fencingToken, expiresAtMs: z.number() });
/** `expiresAtMs`: since the epoch, by the leader's clock. */
export type Lease = z.output<typeof lease>;

export const lockReplySchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("granted"), lease }),
  /** By whom; null: it was free a moment ago, and others wait for it. */
  z.object({ kind: z.literal("held"), lease: lease.nullable() }),
  /** The owner does not hold it; by whom it is held instead, if at all. */
  z.object({ kind: z.literal("lost"), lease: lease.nullable() }),
  z.object({ kind: z.literal("done") }),
]);
export type LockReply = z.output<typeof lockReplySchema>;
