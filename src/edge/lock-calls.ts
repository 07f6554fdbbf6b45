/** Calls about locks. A lock belongs to who took it: the same name of two users is two locks. */
import { z } from "zod";
import { LOCK_TTL_MS_MAX } from "../node/lock-message.ts";
import type { HeldLock } from "../node/locks.ts";
import { protectedCall } from "./call.ts";
import { idempotencyKeySchema } from "./job-calls.ts";
import { nameSchema } from "./value-calls.ts";

const WAIT_MS_MAX = 300_000;

export const lockNameSchema = z.object({ name: nameSchema(512) });

const ttlMs = z.int().min(1).max(LOCK_TTL_MS_MAX);
const fencingToken = z.int().positive();
const owner = z.string().regex(/^[0-9a-f]{32}$/, "is no owner: 32 of 0-9 a-f, as the acquisition answered");

export const acquireSchema = z.strictObject({
  ttlMs,
  /** 0, or left out: answers at once. */
  waitMs: z.int().min(0).max(WAIT_MS_MAX).default(0),
});
/** The token is compared too, when it is given. */
export const renewSchema = z.strictObject({ owner, ttlMs, fencingToken: fencingToken.optional() });
export const releaseSchema = z.strictObject({ owner, fencingToken: fencingToken.optional() });

export const lockSchema = z.object({
  /** Proves who holds it, for renewal and release. */
  owner: z.string(),
  fencingToken,
  /** ISO 8601, by the clock of the partition's leader. */
  expiresAt: z.string(),
});
type Lock = z.output<typeof lockSchema>;

export const acquireLock = protectedCall({
  access: "locks:write",
  input: acquireSchema
    .extend(lockNameSchema.shape)
    .extend({ idempotencyKey: idempotencyKeySchema.optional() }),
  run: async ({ ground, principal, signal }, { name, ttlMs, waitMs, idempotencyKey }) => {
    const held = await ground.backend.locks.acquire(
      { user: principal.username, name },
      { ttlMs, waitMs, repeatKey: idempotencyKey, signal },
    );
    return publicLock(held);
  },
});

export const renewLock = protectedCall({
  access: "locks:write",
  input: renewSchema.extend(lockNameSchema.shape),
  run: async ({ ground, principal }, { name, ...lease }) =>
    publicLock(await ground.backend.locks.renew({ user: principal.username, name }, lease)),
});

export const releaseLock = protectedCall({
  access: "locks:write",
  input: releaseSchema.extend(lockNameSchema.shape),
  run: ({ ground, principal }, { name, ...lease }) =>
    ground.backend.locks.release({ user: principal.username, name }, lease),
});

function publicLock({ owner, fencingToken, expiresAtMs }: HeldLock): Lock {
  return { owner, fencingToken, expiresAt: new Date(expiresAtMs).toISOString() };
}
