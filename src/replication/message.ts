/**
 * What replicas of one partition say to each other. `from` and `to` name
 * replicas, not nodes; the transport vouches for the node and its incarnation.
 */
import { z } from "zod";
import { claimSchema } from "./ballot.ts";
import { BATCH_CHANGES_MAX, ballotSchema, changeSchema, VALUE_BYTES_MAX } from "./register.ts";

const replicaId = z.string().min(3).max(64);
const seq = z.int().nonnegative();
const round = z.int().nonnegative();
const key = z.string().min(1).max(512);
const bytes = (max: number) =>
  z.custom<Uint8Array>((v) => v instanceof Uint8Array && v.byteLength <= max, "bytes");
const root = bytes(16);
const transfer = z.string().min(1).max(96);
/** Counts the questions of one transfer; an answer names its question, so that late and repeated ones are known. */
const question = z.int().positive();
const value = bytes(VALUE_BYTES_MAX);
const epoch = z.string().max(128);

export const configSchema = z.object({ members: z.array(replicaId).max(16) });
/** Who counts. Kept as an entry, so that it is synchronised and digested like all others. */
export type Config = z.output<typeof configSchema>;

/** A change of a batch; `step` tells apart the versions of operations that changed the same key. */
const decidedSchema = z.intersection(changeSchema, z.object({ step: z.int().positive().optional() }));
export type DecidedChange = z.output<typeof decidedSchema>;

/** An entry on its way to another replica. */
export const carriedSchema = z.object({
  key,
  version: z.string().max(128),
  value,
  expiresAtMs: z.number().optional(),
});
export type Carried = z.output<typeof carriedSchema>;

const bodySchema = z.discriminatedUnion("kind", [
  /** Would you promise `ballot`? Changes nothing; keeps one wrongly suspecting member from unseating a leader. */
  z.object({ kind: z.literal("canvass"), ballot: ballotSchema }),
  z.object({ kind: z.literal("would"), ballot: ballotSchema, yes: z.boolean(), promised: ballotSchema }),
  /** `handOver`: the ballot whose leader asked the sender to take over. */
  z.object({ kind: z.literal("prepare"), ballot: ballotSchema, handOver: ballotSchema.nullable() }),
  z.object({ kind: z.literal("promise"), ballot: ballotSchema, claim: claimSchema, config: configSchema }),
  z.object({ kind: z.literal("refused"), ballot: ballotSchema, promised: ballotSchema }),
  /** The sender leads or stands at `ballot` no more. */
  z.object({ kind: z.literal("stopped"), ballot: ballotSchema }),
  /**
   * Take over: stand at `next` with `handOver = ballot`, if you are level at `seq`. With a `claim` it comes from
   * one that only stands: if that is where you are.
   */
  z.object({
    kind: z.literal("lead"),
    ballot: ballotSchema,
    seq,
    next: ballotSchema.optional(),
    claim: claimSchema.optional(),
  }),
  /** `ballot` is given up: promise `next` to its proposer, who was told to stand. */
  z.object({ kind: z.literal("yield"), ballot: ballotSchema, next: ballotSchema }),

  z.object({
    kind: z.literal("append"),
    ballot: ballotSchema,
    seq,
    // A batch of the greatest size, with an outcome, and deletions of what its conditions found expired.
    changes: z.array(decidedSchema).max(2 * BATCH_CHANGES_MAX + 1),
    committed: z.int(),
    round,
  }),
  /** Durable up to `seq`. `round`: of the newest append that this answers. */
  z.object({ kind: z.literal("appended"), ballot: ballotSchema, seq, round }),
  z.object({ kind: z.literal("behind"), ballot: ballotSchema, claim: claimSchema }),
  /** Is `ballot` still what you promised? `seq`: the sender's last batch. */
  z.object({ kind: z.literal("confirm"), ballot: ballotSchema, round, seq: seq.optional() }),
  z.object({ kind: z.literal("confirmed"), ballot: ballotSchema, round }),

  /** To a node that shall hold a replica: which one? */
  z.object({ kind: z.literal("invite"), ballot: ballotSchema }),
  z.object({ kind: z.literal("welcome"), ballot: ballotSchema }),
  /**
   * Become identical to the sender at `(ballot, seq)`; at once when your root is the same.
   * Who stands at batch `reach` of the ballot, or later, is sent the rest instead.
   */
  z.object({ kind: z.literal("offer"), ballot: ballotSchema, seq, reach: seq, root }),
  /** `claim`: the source must stand exactly there. `digests`: the asker's buckets, empty when it holds nothing. */
  z.object({
    kind: z.literal("pull"),
    transfer,
    question,
    ballot: ballotSchema,
    claim: claimSchema.nullable(),
    digests: bytes(16 * 1024),
  }),
  z.object({ kind: z.literal("more"), transfer, question, after: key }),
  /** Entries of differing buckets, in key order; with values when the asker holds nothing. */
  z.object({
    kind: z.literal("listed"),
    transfer,
    question,
    claim: claimSchema,
    root,
    differing: bytes(128),
    items: z.array(
      z.object({
        key,
        version: z.string().max(128),
        size: z.int().nonnegative(),
        value: value.optional(),
        expiresAtMs: z.number().optional(),
      }),
    ),
    after: key.nullable(),
  }),
  z.object({ kind: z.literal("fetch"), transfer, question, keys: z.array(key).max(1024) }),
  /** The first of the keys asked for, as many as fit; from the same state as the list, or it is of no use. */
  z.object({
    kind: z.literal("fetched"),
    transfer,
    question,
    claim: claimSchema,
    entries: z.array(carriedSchema),
  }),
  z.object({ kind: z.literal("end"), transfer }),

  /** What is your root? */
  z.object({ kind: z.literal("compare"), ballot: ballotSchema, comparison: z.int() }),
  z.object({
    kind: z.literal("compared"),
    ballot: ballotSchema,
    comparison: z.int(),
    claim: claimSchema,
    root,
  }),
  /** A majority holds other entries in that state than you do: your memory is in doubt. */
  z.object({ kind: z.literal("differs"), ballot: ballotSchema, claim: claimSchema }),

  /** You are no member any more, as of the config of `epoch`: drop what you hold. */
  z.object({ kind: z.literal("forget"), ballot: ballotSchema, epoch }),
  /** No leader is heard here, nor are canvasses answered with yes: am I still a member? */
  z.object({ kind: z.literal("outside"), ballot: ballotSchema, epoch }),
  /** What you call is not here any more: another memory of this node answers. `ballot`: the caller's. */
  z.object({ kind: z.literal("gone"), ballot: ballotSchema }),
  /** The sender's memory is in doubt: it takes no part any more. */
  z.object({ kind: z.literal("damaged"), ballot: ballotSchema }),
]);
export type Body = z.output<typeof bodySchema>;

/** Which partitions a node leads or stands for; of the whole node, not of a replica. */
const ledSchema = z.object({
  kind: z.literal("led"),
  /** Pairs of partition and round. */
  list: z.array(z.tuple([z.int().min(0).max(65_535), round])).max(65_536),
  /** The node stops: it is to be given nothing to lead any more. */
  isLeaving: z.boolean().optional(),
});
const ledAskSchema = z.object({ kind: z.literal("ledAsk") });

export const replicationMessageSchema = z.union([
  z.object({
    partition: z.int().min(0).max(65_535),
    from: replicaId,
    /** Empty in an invitation: the inviter doesn't know it yet. */
    to: z.string().max(64),
    body: bodySchema,
  }),
  z.object({ node: z.discriminatedUnion("kind", [ledSchema, ledAskSchema]) }),
]);
export type ReplicationMessage = z.output<typeof replicationMessageSchema>;
