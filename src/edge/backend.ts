/**
 * What the edge needs of the member that it stands before: one object, so that
 * an edge can be tried against anything that has this form. Whose call it is,
 * and whether they may, is decided by the edge; the backend is asked only after.
 */
import { z } from "zod";
import type { Grant, Role } from "../identity/permission.ts";
import type { Administration } from "../node/administration.ts";
import type { AuditLog } from "../node/audit-log.ts";
import type { Jobs } from "../node/jobs.ts";
import type { KeyValues } from "../node/key-values.ts";
import type { Locks } from "../node/locks.ts";
import type { ValueWatch } from "../node/value-watch.ts";

const nodeIdSchema = z.string().regex(/^[0-9a-f]{40}$/);

export const nodeStatusSchema = z.object({
  nodeId: nodeIdSchema,
  /** `https://host:port`; null: not known yet. */
  edge: z.string().nullable(),
  /** `host:port` */
  peer: z.string(),
  zone: z.string(),
  /** `away`: a member that is not in the ring: it was stopped, or died long ago. */
  state: z.enum(["alive", "suspected", "unreachable", "away"]),
  /** What operators want of it; `draining`: it gives away what it keeps. Null: not known yet. */
  membership: z.enum(["joining", "active", "draining", "removed"]).nullable(),
  /** The member that answers. */
  self: z.boolean(),
  /** How often it was started; null: not heard. */
  incarnation: z.int().nullable(),
  /** Pages being scraped or waiting, per scraping thread; null: not heard yet. */
  load: z.number().nullable(),
  /** Partitions that it leads, and of which it keeps a copy; null: it did not say. */
  leads: z.number().nullable(),
  replicas: z.number().nullable(),
  /** Blobs that are left on one that drains; null: it does not drain, or did not say. */
  blobs: z.int().nullable(),
  /** When all that it keeps was read and compared last, ISO 8601; null: never yet, or it did not say. */
  scrubbedAt: z.string().nullable(),
  /** Why it keeps nothing now, e.g. a full disk; null: all is well, or it did not say. */
  problem: z.string().nullable(),
  uptimeMs: z.number().nullable(),
  version: z.string().nullable(),
  /** The part of the circle that falls to it, 0 to 1. */
  arcShare: z.number().nullable(),
  /**
   * Since its start: calls to leaders of partitions, those of their attempts that
   * hit a server that did not lead, and how often the ring had to be asked where
   * to go; null: it did not say.
   */
  calls: z.object({ made: z.int(), redirects: z.int(), lookups: z.int() }).nullable(),
});
export type NodeStatus = z.output<typeof nodeStatusSchema>;

export const clusterStatusSchema = z.object({
  clusterId: z.string(),
  /** The member that answers. */
  nodeId: nodeIdSchema,
  partitionCount: z.int(),
  replicationFactor: z.int(),
  ready: z.boolean(),
  /** What is missing, for people; empty when ready. */
  reasons: z.array(z.string()),
  /** Degraded: fewer than three copies of some partition, so that two lost servers may lose data. */
  durability: z.enum(["full", "degraded"]),
  /**
   * How many partitions have three copies or more, have fewer, have no leader; and how many have as many as
   * are wanted and the servers that are there can hold.
   */
  partitions: z.object({ full: z.int(), degraded: z.int(), unserved: z.int(), complete: z.int() }),
  /** The ring as the answering member sees it. */
  ring: z.object({
    predecessor: nodeIdSchema.nullable(),
    successors: z.array(nodeIdSchema),
    fingers: z.array(nodeIdSchema),
  }),
  /** In ring order, from the answering member on. */
  nodes: z.array(nodeStatusSchema),
});
export type ClusterStatus = z.output<typeof clusterStatusSchema>;

export const partitionStatusSchema = z.object({
  partition: z.int(),
  leader: nodeIdSchema.nullable(),
  members: z.array(nodeIdSchema),
  /** `round.replica` under which it is led; null: nobody leads it. */
  ballot: z.string().nullable(),
  /** Members on servers that are there. */
  copies: z.int(),
  durability: z.enum(["full", "degraded", "unserved"]),
});
export type PartitionStatus = z.output<typeof partitionStatusSchema>;

export const lookupTraceSchema = z.object({
  key: z.string(),
  /** Where the key falls on the circle: 40 hex digits. */
  point: nodeIdSchema,
  partition: z.int(),
  leader: nodeIdSchema.nullable(),
  members: z.array(nodeIdSchema),
  /** Members that were asked, in order; empty when the answering member knew. */
  path: z.array(nodeIdSchema),
  hops: z.int(),
});
export type LookupTrace = z.output<typeof lookupTraceSchema>;

export const joinTokenGrantSchema = z.object({
  token: z.string(),
  /** ISO 8601 */
  expiresAt: z.string(),
});
export type JoinTokenGrant = z.output<typeof joinTokenGrantSchema>;

export interface ClusterView {
  status(): Promise<ClusterStatus>;
  nodes(): Promise<NodeStatus[]>;
  partitions(): Promise<PartitionStatus[]>;
  /** @param key any text that is placed on the ring, e.g. `host/example.org`. */
  lookup(key: string): Promise<LookupTrace>;
  /** @param user who asked for it. */
  createJoinToken(user: string): Promise<JoinTokenGrant>;
}

/** Who asks. */
export interface Principal {
  readonly username: string;
  readonly role: Role;
  readonly scopes: readonly Grant[];
  /** Undefined for API keys. */
  readonly sessionId?: string;
}

export const signInSchema = z.object({
  accessToken: z.string(),
  refreshToken: z.string(),
  tokenType: z.literal("Bearer"),
  /** Seconds. */
  expiresIn: z.int(),
});
export type SignIn = z.output<typeof signInSchema>;

/** All of them throw UnauthenticatedError for a wrong secret, UnavailableError when nothing certain is known. */
export interface Accounts {
  login(username: string, password: string): Promise<SignIn>;
  /** Each refresh token is good for one exchange; one that comes back ends its session. */
  refresh(refreshToken: string): Promise<SignIn>;
  /** Ends the session on all servers. A token that is not good any more is no error. */
  revoke(refreshToken: string): Promise<void>;
  /** What the user may do, by any copy of the accounts when they have no majority now. */
  prove(username: string, password: string): Promise<readonly Grant[]>;
  authenticateToken(accessToken: string): Promise<Principal>;
  authenticateKey(apiKey: string): Promise<Principal>;
  /** Public keys that access tokens are signed with (RFC 7517). */
  jwks(): { readonly keys: readonly object[] };
}

export const readinessSchema = z.object({
  ready: z.boolean(),
  /** What is missing, for people; empty when ready. */
  reasons: z.array(z.string()).readonly(),
  durability: z.enum(["full", "degraded"]),
});
export type Readiness = Readonly<z.output<typeof readinessSchema>>;

export interface EdgeBackend {
  readonly clusterId: string;
  readonly jobs: Jobs;
  readonly accounts: Accounts;
  readonly cluster: ClusterView;
  readonly administration: Pick<Administration, "drain" | "keep" | "remove" | "losses" | "recover">;
  readonly audit: Pick<AuditLog, "list">;
  readonly values: KeyValues;
  readonly valueWatch: ValueWatch;
  readonly locks: Locks;
  /** In the ring, and all partitions served. */
  ready(): Readiness;
}
