/**
 * What members say to one another about crawls. Questions go to the leader of a
 * partition (`partition`: of the host, or of the job) or to one server; all of
 * them are repeatable by form: totals, hand-out numbers, sets.
 */
import { z } from "zod";
import { handedPageSchema } from "../frontier/host-spread.ts";
import { OFFER_PAGES_MAX, offeredPageSchema } from "../frontier/page.ts";
import { outcomeSchema } from "../frontier/verdict.ts";
import { countsSchema } from "../job/counts.ts";
import { jobRecordSchema, jobStatsSchema, seedlessSpecSchema } from "../job/job-record.ts";
import { jobStatusSchema } from "../job/job-spec.ts";
import { ballotSchema } from "../replication/register.ts";

const jobId = z.string().regex(/^[0-9a-f]{32}$/);
const partition = z.int().nonnegative();
const total = z.int().nonnegative();
const nodeId = z.string().regex(/^[0-9a-f]{40}$/);

export const handoutRefSchema = z.object({
  jobId,
  host: z.string().max(255),
  key: z.string().max(64),
  handout: z.int().positive(),
});

const strings = z.array(z.string());

/** `ScrapeTask`, as it crosses from a leader to a runner. Which addresses it may reach is the runner's own setting. */
export const pageTaskSchema = z.object({
  url: z.string().max(2048),
  userAgent: z.string(),
  headers: z.record(z.string(), z.string()),
  timeoutMs: z.number(),
  maxBytes: z.number(),
  accept: strings,
  extract: z.record(z.string(), z.unknown()),
  formats: strings,
  sitemapPart: z.int().nonnegative().nullable(),
  links: z
    .object({
      hosts: strings.nullable(),
      include: strings,
      exclude: strings,
      follow: z.boolean(),
      followNofollow: z.boolean(),
      sortQuery: z.boolean(),
      dropTracking: z.boolean(),
      mergeSlashes: z.boolean(),
      canonicalLinks: z.boolean(),
    })
    .nullable(),
});
export type PageTask = z.output<typeof pageTaskSchema>;

export const crawlMessageSchema = z.discriminatedUnion("kind", [
  /** A leader hands a page out. */
  z.object({
    kind: z.literal("run"),
    partition,
    ballot: ballotSchema,
    ref: handoutRefSchema,
    task: pageTaskSchema,
    alone: z.boolean(),
    /** Of the runner's own clock; it starts the request within `startWithinMs` of that, or never. */
    runnerTimeMs: z.number(),
    startWithinMs: z.number(),
    /** The partition that stores the page, where that is not the one that paces its host: it hears of the end second. */
    store: partition.exactOptional(),
  }),
  /** The request has left, `agoMs` ago. */
  z.object({
    kind: z.literal("started"),
    partition,
    ref: handoutRefSchema,
    agoMs: z.number().nonnegative(),
    /** Of the runner's clock. */
    nowMs: z.number(),
  }),
]);
export type CrawlMessage = z.output<typeof crawlMessageSchema>;
export type RunMessage = Extract<CrawlMessage, { kind: "run" }>;

const waitingSchema = z.object({ host: z.string(), until: z.number(), reason: z.string() });

export const crawlRequestSchema = z.discriminatedUnion("kind", [
  // To the leader of a host's partition.
  z.object({
    kind: z.literal("offer"),
    partition,
    jobId,
    /** From the owner of a large host to where that one's further pages are. */
    isPart: z.boolean().exactOptional(),
    pages: z.array(offeredPageSchema).max(OFFER_PAGES_MAX),
  }),
  z.object({
    kind: z.literal("report"),
    partition,
    ref: handoutRefSchema,
    runner: nodeId,
    /** Since the request started; 0 when it never did. */
    agoMs: z.number().nonnegative(),
    /** Of the runner's clock. */
    nowMs: z.number(),
    /** Until the head of an answer had arrived; null: there was none. */
    latencyMs: z.number().nonnegative().nullable().default(null),
    outcome: outcomeSchema,
  }),
  /** From the owner of a large host: pages that are stored here, one for each runner. */
  z.object({
    kind: z.literal("next"),
    partition,
    jobId,
    host: z.string().max(255),
    runners: z.array(nodeId).max(64),
  }),
  /** A round: the counts, and nothing more on the strength of an earlier confirmation. */
  z.object({ kind: z.literal("count"), partition, jobId }),
  z.object({ kind: z.literal("recall"), partition, jobId, granted: total }),
  z.object({ kind: z.literal("changed"), partition, jobId, status: jobStatusSchema, run: total }),
  z.object({ kind: z.literal("drop"), partition, jobId }),
  /** The job is about to run once more: its failed pages are pending again when this is answered. */
  z.object({ kind: z.literal("revive"), partition, jobId, run: total }),
  // To the leader of a job's partition.
  z.object({ kind: z.literal("submit"), partition, record: jobRecordSchema }),
  z.object({
    kind: z.literal("job"),
    partition,
    jobId,
    /** Answer when there is something newer than this, or after `waitMs`. */
    newerThan: z.number().optional(),
    waitMs: z.number().max(10_000).optional(),
    /** Also tell how many results and failures each participant is known to have. */
    participants: z.boolean().optional(),
  }),
  z.object({
    kind: z.literal("setStatus"),
    partition,
    jobId,
    to: z.enum(["paused", "running", "cancelled"]),
  }),
  z.object({ kind: z.literal("remove"), partition, jobId }),
  z.object({ kind: z.literal("retryFailures"), partition, jobId }),
  /** Also makes the asker a participant. */
  z.object({
    kind: z.literal("credit"),
    partition,
    jobId,
    participant: partition,
    granted: total,
    want: total,
  }),
  z.object({
    kind: z.literal("confirm"),
    partition,
    jobId,
    /** The version of the job's record that the asker has. */
    known: z.string(),
    participants: z
      .array(
        z.object({
          partition,
          /** False: only tells its progress. */
          confirm: z.boolean(),
          counts: countsSchema.nullable(),
          waiting: z.array(waitingSchema).max(16),
        }),
      )
      .max(65_536),
  }),
  z.object({ kind: z.literal("widen"), partition, jobId, host: z.string().min(1).max(255) }),
  // To one server.
  /** `count` for all partitions that it leads. */
  z.object({ kind: z.literal("counts"), jobId, partitions: z.array(partition).max(65_536) }),
  z.object({
    kind: z.literal("running"),
    groups: z
      .array(z.object({ partition, ballot: ballotSchema, refs: z.array(handoutRefSchema).max(4096) }))
      .max(4096),
  }),
  z.object({ kind: z.literal("clock") }),
]);
export type CrawlRequest = z.output<typeof crawlRequestSchema>;

export const crawlReplySchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("accepted") }),
  /** The job is over or gone: nobody wants this any more. */
  z.object({ kind: z.literal("refused") }),
  z.object({
    kind: z.literal("handed"),
    pages: z.array(handedPageSchema).max(64),
    /** How many more are pending. */
    left: total,
  }),
  z.object({ kind: z.literal("counted"), counts: countsSchema.nullable() }),
  /** In the order asked for; "no" from a server that does not lead the partition. */
  z.object({
    kind: z.literal("countedAll"),
    counts: z.array(z.union([countsSchema, z.null(), z.literal("no")])),
  }),
  z.object({
    kind: z.literal("job"),
    record: jobRecordSchema,
    stats: jobStatsSchema,
    /** Raised with every change; only comparable at one leader. */
    news: z.number(),
    /** Partition, results, failures; may lag behind. Left out when not asked for, or not known. */
    participants: z.array(z.tuple([partition, total, total])).optional(),
  }),
  z.object({ kind: z.literal("credited"), granted: total }),
  z.object({
    kind: z.literal("confirmed"),
    version: z.string(),
    status: jobStatusSchema,
    run: total,
    /** Left out when the asker has this version. */
    details: z
      .object({
        spec: seedlessSpecSchema,
        scopeHosts: z.array(z.string()).nullable(),
        owner: z.string().optional(),
      })
      .optional(),
  }),
  /** No such job, or none any more. */
  z.object({ kind: z.literal("gone") }),
  z.object({
    kind: z.literal("running"),
    /** Of the runner's clock. */
    nowMs: z.number(),
    /** By group and ref: how long ago the request started, null when it has not yet, "no" when it never will. */
    states: z.array(z.array(z.union([z.number(), z.null(), z.literal("no")]))),
  }),
  z.object({ kind: z.literal("clock"), nowMs: z.number() }),
]);
export type CrawlReply = z.output<typeof crawlReplySchema>;

/** What this node needs of the others and of its own parts; structural, so that a simulation can stand in. */
export type Answer<K extends CrawlReply["kind"]> = Extract<CrawlReply, { kind: K }>;
