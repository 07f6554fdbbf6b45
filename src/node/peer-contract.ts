/** What members say to one another: the channels, the procedures, and their schemas. */
import { z } from "zod";
import type { PeerSchemas } from "../peer/router.ts";
import { claimSchema } from "../replication/ballot.ts";
import { type ReplicationMessage, replicationMessageSchema } from "../replication/message.ts";
import {
  BATCH_CHANGES_MAX,
  ballotSchema,
  KEY_BYTES_MAX,
  type Operation,
  type Outcome,
  operationSchema,
  VALUE_BYTES_MAX,
} from "../replication/register.ts";
import { nodeIdSchema } from "../ring/member.ts";
import { type RingMessage, ringMessageSchema } from "../ring/message.ts";
import { BLOB_BYTES_MAX, type BlobPiece, PIECE_BYTES } from "./blob-assembly.ts";
import {
  type CrawlMessage,
  type CrawlReply,
  type CrawlRequest,
  crawlMessageSchema,
  crawlReplySchema,
  crawlRequestSchema,
} from "./crawl-message.ts";
import { type LockReply, type LockRequest, lockReplySchema, lockRequestSchema } from "./lock-message.ts";

const PARTITIONS_MAX = 65_536;
const partition = z
  .int()
  .min(0)
  .max(PARTITIONS_MAX - 1);
const bytes = (max: number) =>
  z.custom<Uint8Array>((v) => v instanceof Uint8Array && v.byteLength <= max, "bytes");

/** `host:port` or `[v6]:port`. */
const hostPortSchema = z
  .string()
  .max(300)
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$/);

const version = z.string().max(128);
const entrySchema = z.object({
  key: z.string().min(1).max(KEY_BYTES_MAX),
  version,
  value: bytes(VALUE_BYTES_MAX),
  expiresAtMs: z.number().optional(),
});
const ageMs = z.number().nonnegative().nullable().optional();
const outcomeSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("entries"),
    entries: z.array(z.union([entrySchema, z.undefined()])).max(1024),
    ageMs,
  }),
  z.object({
    kind: z.literal("scanned"),
    entries: z.array(entrySchema).max(4096),
    more: z.boolean(),
    version: version.optional(),
    ageMs,
  }),
  z.object({
    kind: z.literal("changed"),
    // A batch comes whole, whatever its size.
    changes: z
      .array(
        z.discriminatedUnion("kind", [
          z.object({ kind: z.literal("put"), entry: entrySchema }),
          z.object({ kind: z.literal("delete"), key: z.string().min(1).max(KEY_BYTES_MAX), version }),
        ]),
      )
      .max(2 * BATCH_CHANGES_MAX + 1024),
    version,
  }),
  z.object({ kind: z.literal("compacted") }),
  z.object({ kind: z.literal("written"), version }),
  z.object({
    kind: z.literal("conflict"),
    failed: z.object({
      key: z.string().max(KEY_BYTES_MAX),
      found: z.union([version, z.undefined()]),
    }),
  }),
]);

const blobNameSchema = z.object({
  jobId: z.string().regex(/^[0-9a-f]{32}$/),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});
const blobPieceSchema = z.object({
  size: z.int().min(0).max(BLOB_BYTES_MAX),
  offset: z.int().min(0).max(BLOB_BYTES_MAX),
  bytes: bytes(PIECE_BYTES),
});

export const partitionStatusSchema = z.object({
  partition,
  role: z.enum(["leader", "follower", "learner", "none"]),
  ballot: ballotSchema.nullable(),
  seq: z.number(),
  members: z.array(nodeIdSchema).max(32),
  leader: nodeIdSchema.nullable(),
  /** On servers that are there. */
  copies: z.int().nonnegative().default(0),
  durability: z.enum(["full", "degraded"]),
});
/** A partition as one of its replicas sees it. */
export type PartitionStatus = z.output<typeof partitionStatusSchema>;

export const nodeStatusSchema = z.object({
  nodeId: nodeIdSchema,
  peer: hostPortSchema,
  edge: hostPortSchema,
  zone: z.string().max(64),
  incarnation: z.int().nonnegative(),
  version: z.string().max(32),
  state: z.enum(["starting", "ready", "draining"]),
  /** Tasks running and waiting per scrape thread. */
  load: z.number().nonnegative(),
  /** Partitions that it leads. */
  leads: z.int().nonnegative(),
  /** Partitions of which it keeps a copy. */
  replicas: z.int().nonnegative(),
  uptimeMs: z.number().nonnegative(),
  /** What its clock says, in milliseconds since the epoch. */
  epochMs: z.number().optional(),
  /** Its predecessor on the ring: the arc between the two is its own. */
  predecessor: nodeIdSchema.nullable(),
  /** As `RoutedRegisters.counts`. */
  calls: z.object({
    made: z.int().nonnegative(),
    redirects: z.int().nonnegative(),
    lookups: z.int().nonnegative(),
  }),
  /** Files of blobs, told by one that is to give them away. */
  blobs: z.int().nonnegative().nullable().default(null),
  /** When everything that it keeps was read last, ISO 8601; null: never yet. */
  scrubbedAt: z.string().max(32).nullable().default(null),
  /** Why it keeps nothing now, for people. */
  problem: z.string().max(2000).nullable().default(null),
  /** Only when asked for. */
  partitions: z.array(partitionStatusSchema).max(PARTITIONS_MAX).optional(),
});
/** What a member says of itself. */
export type NodeStatus = z.output<typeof nodeStatusSchema>;

const REPLICA_ID_MAX = 128;
export const holdingSchema = z.object({
  partition,
  replicaId: z.string().max(REPLICA_ID_MAX),
  promised: ballotSchema,
  claim: claimSchema,
  members: z.array(z.string().max(REPLICA_ID_MAX)).max(32),
  /** Null: not counted. */
  entries: z.int().nonnegative().nullable(),
  /** Since it was last known to be level with a leader; null: not since the start. */
  ageMs: z.number().nullable(),
});
/** What a replica can say of itself when nobody leads it. */
export type Holding = z.output<typeof holdingSchema>;

const PEM_CHARS_MAX = 16_384;
const pem = z.string().max(PEM_CHARS_MAX);

export const joinRequestSchema = z.object({
  /** PKCS #10: of the node's own key, and of the one that its edge shows to clients. */
  nodeRequest: pem,
  edgeRequest: pem,
  addresses: z.object({ peer: hostPortSchema, edge: hostPortSchema }),
  /** What the certificates are to name beside the addresses. */
  peerHosts: z.array(z.string().max(253)).max(32),
  edgeHosts: z.array(z.string().max(253)).max(32),
  zone: z.string().max(64),
});
export type JoinRequest = z.output<typeof joinRequestSchema>;

export const contactSchema = z.object({
  nodeId: nodeIdSchema,
  address: z.object({ host: z.string().max(255), port: z.int().min(1).max(65_535) }),
});

export const joinAnswerSchema = z.object({
  nodeId: nodeIdSchema,
  clusterId: z.string().max(64),
  partitions: z.int().min(1).max(PARTITIONS_MAX),
  replicationFactor: z.int().min(1).max(32),
  rootCertificate: pem,
  nodeCertificate: pem,
  edgeCertificate: pem,
  namingSecret: bytes(64),
  /** Members, to enter the ring by. */
  contacts: z.array(contactSchema).max(64),
});
export type JoinAnswer = z.output<typeof joinAnswerSchema>;

export type Messages = {
  ring: RingMessage;
  replication: ReplicationMessage;
  /** What is said all the time, in its short form. */
  brief: Uint8Array;
  crawl: CrawlMessage;
};

type BlobName = z.output<typeof blobNameSchema>;

export type Procedures = {
  /** At the local replica, which must lead. */
  operate: { input: { partition: number; operation: Operation }; output: Outcome };
  crawl: { input: CrawlRequest; output: CrawlReply };
  /** At a leader of the lock's partition. */
  lock: { input: LockRequest; output: LockReply };
  /** Pieces of one blob come in order. */
  putBlob: { input: BlobName & BlobPiece; output: null };
  getBlob: { input: BlobName & { offset: number }; output: BlobPiece | null };
  hasBlob: { input: BlobName; output: boolean };
  dropBlobs: { input: Pick<BlobName, "jobId">; output: null };
  /** The asker has lost a copy: look after all of yours soon. */
  repairBlobs: { input: null; output: null };
  status: { input: { partitions: boolean }; output: NodeStatus };
  /** Of replicas that are held there. */
  holdings: { input: { partitions: readonly number[]; counted: boolean }; output: Holding[] };
  /** An operator's word: goes on alone from what is held there. False: it holds something else by now. */
  recover: { input: { partition: number; claim: Holding["claim"]; round: number }; output: boolean };
  /** The members' entries were changed: read them now. */
  rosterChanged: { input: null; output: null };
  /** By a certificate of role `join` only: the sender's name is the token's id. */
  join: { input: JoinRequest; output: JoinAnswer };
};

export const peerSchemas: PeerSchemas<Messages, Procedures> = {
  messages: {
    ring: ringMessageSchema,
    replication: replicationMessageSchema,
    brief: z.instanceof(Uint8Array),
    crawl: crawlMessageSchema,
  },
  procedures: {
    operate: { input: z.object({ partition, operation: operationSchema }), output: outcomeSchema },
    crawl: { input: crawlRequestSchema, output: crawlReplySchema },
    lock: { input: lockRequestSchema, output: lockReplySchema },
    putBlob: { input: blobNameSchema.extend(blobPieceSchema.shape), output: z.null() },
    getBlob: {
      input: blobNameSchema.extend({ offset: z.int().min(0).max(BLOB_BYTES_MAX) }),
      output: blobPieceSchema.nullable(),
    },
    hasBlob: { input: blobNameSchema, output: z.boolean() },
    dropBlobs: { input: blobNameSchema.pick({ jobId: true }), output: z.null() },
    repairBlobs: { input: z.null(), output: z.null() },
    status: { input: z.object({ partitions: z.boolean() }), output: nodeStatusSchema },
    holdings: {
      input: z.object({ partitions: z.array(partition).max(1024), counted: z.boolean() }),
      output: z.array(holdingSchema).max(1024),
    },
    recover: {
      input: z.object({ partition, claim: claimSchema, round: z.int().min(1) }),
      output: z.boolean(),
    },
    rosterChanged: { input: z.null(), output: z.null() },
    join: { input: joinRequestSchema, output: joinAnswerSchema },
  },
};
