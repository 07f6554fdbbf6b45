/**
 * What a person asks for: one crawl. Parsed where it enters (edge, CLI, SDK), once.
 * An unknown field, or one that this version can't honour, is refused with its
 * path: a crawl that silently ignored a wish would be worse than none.
 */
import { z } from "zod";
import type { Rule } from "../extraction/rule.ts";
import type { FieldValue } from "../extraction/value.ts";
import { extractSchema } from "./rule-schema.ts";
import type { TrapReport } from "./trap-report.ts";

const httpUrl = z
  .string()
  .max(2048, "a URL has at most 2,048 characters")
  .refine((text) => {
    try {
      return ["http:", "https:"].includes(new URL(text).protocol);
    } catch {
      return false;
    }
  }, "must be an absolute http or https URL, e.g. https://example.org/");

const ms = z.int().min(0);

/** `/…/` is a regular expression for the linear-time engine, anything else a glob in which `*` matches any run of characters. */
const pattern = z.string().min(1).max(1024);

const scopeSchema = z.strictObject({
  hosts: z
    .union(
      [z.enum(["same-host", "same-domain", "any"]), z.array(z.string().min(1).max(255)).min(1).max(1000)],
      'must be "same-host", "same-domain", "any", or a list of 1 to 1000 hosts, e.g. ["a.example", "*.b.example"]',
    )
    .default("same-host"),
  include: z.array(pattern).max(100).default([]),
  exclude: z.array(pattern).max(100).default([]),
  maxDepth: z.int().min(0).max(1_000_000).default(5),
  /** Counts results (status below 400); exact, cluster-wide. */
  maxPages: z.int().min(1).max(1_000_000_000).default(1000),
  /** Also take the URLs that the sitemaps of the seeds' sites list. */
  sitemaps: z.boolean().default(false),
  /** Also follow links with `rel=nofollow`, and those of pages whose meta robots or X-Robots-Tag says so. */
  followNofollow: z.boolean().default(false),
  /** URLs that differ in the order of their parameters are one page. */
  sortQuery: z.boolean().default(false),
  /** URLs that differ in parameters such as `utm_source` are one page. */
  dropTracking: z.boolean().default(false),
  /** URLs that differ in doubled slashes of their path are one page. */
  mergeSlashes: z.boolean().default(false),
  /** A page that names another one as its canonical form makes room for that one. */
  canonicalLinks: z.boolean().default(false),
  /** Links of pages that repeat another, byte for byte or nearly, are not followed. */
  stopNearDuplicates: z.boolean().default(false),
});

const limitsSchema = z.strictObject({
  /** Pages of one host that the job takes in; links to more of them are passed over. */
  pagesPerHost: z.int().min(1).max(1_000_000_000).default(100_000),
  /** From this score on a pattern of URLs that brings nothing new is a trap; 0: none ever is. */
  trapScore: z.int().min(0).max(1_000_000).default(20),
});

const politenessSchema = z.strictObject({
  robots: z.boolean().default(true),
  delayMs: ms.max(3_600_000).default(1000),
  concurrencyPerHost: z.int().min(1).max(64).default(1),
  /** A host that answers slowly is asked more seldom than `delayMs`, never more often; without a delay it has no effect. */
  autoThrottle: z.boolean().default(true),
  userAgent: z
    .string()
    .min(1)
    .max(256)
    .regex(/^[\x20-\x7e]+$/, "printable ASCII only")
    .default("orbweaver/1.0 (+https://github.com/orbweaver)"),
});

const fetchSchema = z.strictObject({
  headers: z.record(z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/), z.string().max(8192)).default({}),
  timeoutMs: ms.min(100).max(300_000).default(30_000),
  maxBytes: z.int().min(1024).max(104_857_600).default(10_485_760),
  maxRedirects: z.int().min(0).max(50).default(10),
  retries: z.int().min(0).max(20).default(3),
  accept: z
    .array(z.string().min(3).max(128))
    .min(1)
    .max(32)
    .default(["text/html", "application/xhtml+xml", "application/json"]),
});

/** What to keep of a page beside its fields. */
export const FORMATS = [
  "metadata",
  /** All of the page. */
  "text",
  /** What readers came for, as text and as Markdown. */
  "content",
  "markdown",
  "links",
  "tables",
  /** JSON-LD, microdata, RDFa and Open Graph. */
  "structured",
  "html",
] as const;
export const formatSchema = z.enum(FORMATS);
export type Format = z.output<typeof formatSchema>;

export type RuleSet = Readonly<Record<string, Rule>>;

export const SEEDS_MAX = 10_000;

export const jobSpecSchema = z.strictObject({
  name: z.string().min(1).max(200).optional(),
  seeds: z.array(httpUrl).min(1, "name at least one URL to start from").max(SEEDS_MAX),
  scope: scopeSchema.prefault({}),
  politeness: politenessSchema.prefault({}),
  fetch: fetchSchema.prefault({}),
  extract: extractSchema.default({}),
  formats: z.array(formatSchema).default(["metadata"]),
  limits: limitsSchema.prefault({}),
  priority: z.int().min(-1_000_000).max(1_000_000).default(0),
  ttlDays: z.int().min(1).max(3650).default(30),
});

/** As people write it: everything but `seeds` may be left out. */
export type JobSpecInput = z.input<typeof jobSpecSchema>;
/** As the cluster keeps it: every setting filled in. */
export type JobSpec = z.output<typeof jobSpecSchema>;
export type Scope = JobSpec["scope"];

export const jobStatusSchema = z.enum(["queued", "running", "paused", "completed", "failed", "cancelled"]);
export type JobStatus = z.output<typeof jobStatusSchema>;

/** A reason of `Waiting`: no page of the host is fetched without its robots.txt. */
export const ROBOTS_UNAVAILABLE = "robots.txt unavailable";

export interface Waiting {
  readonly host: string;
  /** Milliseconds since the Unix epoch. */
  readonly until: number;
  readonly reason: string;
}

/** Always `discovered = done + failed + skipped + pending`. */
export interface JobStats {
  readonly discovered: number;
  readonly done: number;
  readonly failed: number;
  readonly skipped: number;
  readonly pending: number;
  readonly results: number;
  /** Bytes of bodies received, after decompression. */
  readonly bytes: number;
  readonly pagesPerSecond: number;
  readonly waitingOn: readonly Waiting[];
  /** Pages settled by each server's runners, by node id: who does the work. */
  readonly servers: Readonly<Record<string, number>>;
  /** What was stopped because it would not end: the largest 64. */
  readonly traps: readonly TrapReport[];
}

/** Times are ISO 8601 in UTC. */
export interface Job {
  readonly id: string;
  readonly name: string | null;
  readonly owner: string;
  readonly status: JobStatus;
  readonly spec: JobSpec;
  readonly stats: JobStats;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  readonly error?: string;
}

export interface Link {
  readonly url: string;
  readonly text: string;
  readonly rel: string;
}

export interface Metadata {
  readonly title: string | null;
  readonly description: string | null;
  readonly language: string | null;
  readonly canonical: string | null;
  readonly author: string | null;
  /** ISO 8601, as exact as the page has it. */
  readonly publishedAt: string | null;
  readonly modifiedAt: string | null;
  readonly siteName: string | null;
  readonly image: string | null;
}

/** Cells that span several places are in each of them. */
export interface Table {
  readonly caption: string | null;
  readonly header: readonly string[] | null;
  readonly rows: readonly (readonly string[])[];
}

/** What a page says for machines, in the words of each vocabulary; addresses are absolute. */
export interface Structured {
  readonly jsonLd: readonly FieldValue[];
  /** Items with `type`, perhaps `id`, and `properties`: a list of values for each name. */
  readonly microdata: readonly FieldValue[];
  readonly rdfa: readonly FieldValue[];
  readonly openGraph: Readonly<Record<string, string | readonly string[]>>;
}

export interface Result {
  /** Canonical. */
  readonly url: string;
  readonly finalUrl: string;
  readonly key: string;
  readonly status: number;
  readonly contentType: string | null;
  readonly fetchedAt: string;
  readonly depth: number;
  readonly parent: string | null;
  /** How many times the page was handed out until this result, from 1. */
  readonly attempt: number;
  readonly durationMs: number;
  readonly bytes: number;
  readonly sha256: string;
  /** The key of a page of the same host whose body has the same bytes, and which came first. */
  readonly duplicateOf?: string;
  /** The key of a page of the same host that says nearly the same, and which came first. */
  readonly nearDuplicateOf?: string;
  readonly data: Readonly<Record<string, FieldValue>>;
  /** Rules that could not be applied to this page. */
  readonly fieldErrors?: readonly { readonly field: string; readonly message: string }[];
  readonly metadata?: Metadata;
  readonly text?: string;
  readonly content?: string;
  readonly markdown?: string;
  readonly links?: readonly Link[];
  readonly tables?: readonly Table[];
  readonly structured?: Structured;
  readonly html?: string;
}

export interface Failure {
  readonly url: string;
  readonly key: string;
  readonly reason: string;
  readonly status: number | null;
  readonly attempts: number;
  readonly failedAt: string;
}
