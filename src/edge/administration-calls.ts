/**
 * Calls of operators: servers leave, lost partitions go on, and what was done is
 * read. Recovery is for when the accounts may have no majority either, so it takes
 * name and password themselves, which any copy of the accounts can prove.
 */
import { z } from "zod";
import { requireScope } from "../identity/permission.ts";
import { credentialsSchema } from "./account-calls.ts";
import { type Asker, openCall, protectedCall } from "./call.ts";

const PARTITIONS_MAX = 65_536;

export const nodeIdParameterSchema = z.object({
  id: z
    .string()
    .regex(/^[0-9a-f]{40}$/, "is the id of a server: 40 hex digits, as GET /v1/cluster/nodes shows them"),
});

const partition = z
  .int()
  .min(0)
  .max(PARTITIONS_MAX - 1);

export const lossSchema = z.object({
  partition,
  /** Replicas: `nodeId/serial`. */
  members: z.array(z.string()),
  survivors: z.array(
    z.object({
      nodeId: z.string(),
      replica: z.string(),
      /** `round.replica`: the newest state is that with the greatest round, then the greatest `seq`. */
      accepted: z.string(),
      seq: z.int(),
      entries: z.int().nullable(),
      /** Milliseconds since it last knew that it was level; null: not since it was started. */
      ageMs: z.number().nullable(),
    }),
  ),
  lost: z.array(z.string()),
  /** The survivor from which it can go on; null: nobody holds anything. */
  best: z.string().nullable(),
  /** To be given to the recovery as it is. */
  seen: z.string(),
});
export type Loss = z.output<typeof lossSchema>;
export const lossesSchema = z.object({ items: z.array(lossSchema), nextCursor: z.null() });

export const recoverySchema = credentialsSchema.extend({
  partitions: z
    .array(
      z.object({
        partition,
        seen: z.string().max(64),
      }),
    )
    .min(1)
    .max(PARTITIONS_MAX),
});
export const recoveredSchema = z.object({ recovered: z.array(z.int()), failed: z.array(z.int()) });
export type Recovered = z.output<typeof recoveredSchema>;

export const auditEventSchema = z.object({
  n: z.int(),
  at: z.string(),
  actor: z.string(),
  action: z.string(),
  subject: z.string(),
  details: z.record(z.string(), z.json()),
  previous: z.string(),
});
export type AuditEvent = z.output<typeof auditEventSchema>;

export const auditPageSchema = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z
    .string()
    .regex(/^\d{1,15}$/)
    .optional(),
});

export const drainNode = protectedCall({
  access: "cluster:admin",
  input: nodeIdParameterSchema,
  run: async ({ ground, principal }, { id }) => {
    await ground.backend.administration.drain(principal.username, id);
    return { nodeId: id, membership: "draining" as const };
  },
});

export const keepNode = protectedCall({
  access: "cluster:admin",
  input: nodeIdParameterSchema,
  run: ({ ground, principal }, { id }) => ground.backend.administration.keep(principal.username, id),
});

export const removeNode = protectedCall({
  access: "cluster:admin",
  input: nodeIdParameterSchema,
  run: ({ ground, principal }, { id }) => ground.backend.administration.remove(principal.username, id),
});

export const listLosses = openCall({
  access: "open",
  input: credentialsSchema,
  run: async (asker, { username, password }) => {
    await requireOperator(asker, username, password);
    return { items: await asker.ground.backend.administration.losses(), nextCursor: null };
  },
});

export const recoverPartitions = openCall({
  access: "open",
  input: recoverySchema,
  run: async (asker, { username, password, partitions }) => {
    await requireOperator(asker, username, password);
    return asker.ground.backend.administration.recover(username, partitions);
  },
});

export const listAudit = protectedCall({
  access: "audit:read",
  input: auditPageSchema,
  run: async ({ ground }, { limit, cursor }) => {
    const items = await ground.backend.audit.list(Number(cursor ?? 0), limit);
    return { items, nextCursor: items.length < limit ? null : String(items.at(-1)!.n) };
  },
});

async function requireOperator(asker: Asker, username: string, password: string): Promise<void> {
  const { loginLimits, backend } = asker.ground;
  const grants = await loginLimits.attempt(asker.address, username, () =>
    backend.accounts.prove(username, password),
  );
  requireScope(grants, "cluster:admin");
}
