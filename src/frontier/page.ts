/**
 * One URL of a job as its host's leader keeps it, and what others say about it.
 */
import { z } from "zod";

const count = z.int().nonnegative();

/** What a page is that only lists others: it gives no result, and ends as skipped. */
export const sitemapSchema = z.object({
  /** 0: the robots.txt that names the site's sitemaps; 1: those; then what they list, and so on. */
  level: count,
  /** A long file is read in parts. */
  part: count,
});

/** A URL that someone found, on its way to the leader of its host. */
export const offeredPageSchema = z.object({
  /** Canonical. */
  url: z.string().min(1).max(2048),
  key: z.string().min(1).max(64),
  host: z.string().min(1).max(255),
  depth: count,
  parent: z.string().max(2048).nullable(),
  priority: z.int(),
  /** Redirects that led here, one after the other. */
  hops: count,
  /** Named in the job, or what such a one redirects to. */
  seed: z.boolean(),
  /** How many pages of its pattern led here, each found on the one before and repeating others. */
  trail: count.default(0),
  /** A page says that this is its canonical form. */
  named: z.boolean().default(false),
  sitemap: sitemapSchema.nullable().default(null),
});
export type OfferedPage = z.output<typeof offeredPageSchema>;

/** How many pages one offer holds at most. */
export const OFFER_PAGES_MAX = 512;

export const pageStatusSchema = z.enum(["pending", "done", "failed", "skipped"]);
export type PageStatus = z.output<typeof pageStatusSchema>;

export const pageSchema = z.object({
  url: z.string(),
  key: z.string(),
  status: pageStatusSchema,
  /** Of the first discovery, lowered while the page is pending. */
  depth: count,
  parent: z.string().nullable(),
  priority: z.int(),
  /** Its place among the due pages of its priority. */
  seq: count,
  /** Not before: Unix time, and how long that was when it was set. 0: at once. */
  dueAtMs: z.number(),
  dueForMs: z.number(),
  /** Tries that went wrong and count against the job's `retries`. */
  attempts: count,
  /** How often it was handed to a runner. */
  handouts: count,
  /** Hand-outs in a row that started and ended without a report. */
  unreported: count,
  /** The scraping process died while this page was under way: it runs alone from now on. */
  alone: z.boolean(),
  /** How often the scraping process died while this page ran alone. */
  deaths: count,
  hops: count,
  seed: z.boolean(),
  trail: count.default(0),
  named: z.boolean().default(false),
  sitemap: sitemapSchema.nullable().default(null),
  reason: z.string().nullable(),
  /** The number of its result. */
  result: z.int().positive().nullable(),
});
/** Mutable: the leader's copy of an entry is the truth between two commits. */
export type Page = z.output<typeof pageSchema>;

export function newPage(offered: OfferedPage, seq: number): Page {
  return {
    url: offered.url,
    key: offered.key,
    status: "pending",
    depth: offered.depth,
    parent: offered.parent,
    priority: offered.priority,
    seq,
    dueAtMs: 0,
    dueForMs: 0,
    attempts: 0,
    handouts: 0,
    unreported: 0,
    alone: false,
    deaths: 0,
    hops: offered.hops,
    seed: offered.seed,
    trail: offered.trail,
    named: offered.named,
    sitemap: offered.sitemap,
    reason: null,
    result: null,
  };
}

/** Levels of a robots.txt, what it names, and two of indexes below. */
export const SITEMAP_LEVEL_MAX = 3;

/** What only lists pages. Those that a site names come before its pages, those that an index lists among them. */
export function offeredSitemap(
  file: { readonly url: string; readonly key: string; readonly host: string },
  sitemap: { readonly level: number; readonly part: number },
  of: { readonly parent: string | null; readonly priority: number; readonly hops: number },
): OfferedPage {
  const { url, key, host } = file;
  return {
    url,
    key,
    host,
    depth: 0,
    parent: of.parent,
    priority: of.priority + (sitemap.level <= 1 && sitemap.part === 0 ? 1 : 0),
    hops: of.hops,
    seed: false,
    trail: 0,
    named: false,
    sitemap,
  };
}

/** `scheme://host[:port]`: what a robots.txt speaks for. */
export function originOf(url: string): string {
  const end = url.indexOf("/", url.indexOf("://") + 3);
  return end === -1 ? url : url.slice(0, end);
}

/**
 * Where a page stands among its host's due pages. Those with a runner stand in
 * front of all others, so that a new leader finds them without reading the rest.
 */
export type DuePlace = {
  readonly band: "flying" | "waiting";
  readonly priority: number;
  readonly seq: number;
};

export const dueSchema = z.object({
  key: z.string(),
  /** Which hand-out is under way, and who runs it. */
  flight: z.object({ handout: z.int().positive(), runner: z.string() }).nullable(),
});
export type Due = z.output<typeof dueSchema>;

export const sizeSchema = z.object({
  jobId: z.string(),
  host: z.string(),
  discovered: count,
  /** Sitemaps and parts of them among those. */
  sitemaps: count.default(0),
  pending: count,
  /** As many as its partition takes: new pages go to the host's parts, for good. */
  full: z.boolean().default(false),
});
/** How many pages of one host a job has. */
export type Size = z.output<typeof sizeSchema>;

export const failureRecordSchema = z.object({
  url: z.string(),
  key: z.string(),
  reason: z.string(),
  status: z.number().nullable(),
  attempts: count,
  failedAtMs: z.number(),
});
export type FailureRecord = z.output<typeof failureRecordSchema>;

const bytesSchema = z.custom<Uint8Array>((v) => v instanceof Uint8Array, "bytes");

/** The part of a result that the runner made: fields, texts, links. Opaque here; over 64 KiB it is a blob. */
export const contentSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("bytes"), bytes: bytesSchema }),
  z.object({ kind: z.literal("blob"), sha256: z.string() }),
]);
export type Content = z.output<typeof contentSchema>;

export const resultRecordSchema = z.object({
  url: z.string(),
  finalUrl: z.string(),
  key: z.string(),
  status: z.number(),
  contentType: z.string().nullable(),
  fetchedAtMs: z.number(),
  depth: count,
  parent: z.string().nullable(),
  attempt: count,
  durationMs: z.number(),
  bytes: z.number(),
  sha256: z.string(),
  /** Keys of earlier pages of the host with the same bytes, or nearly the same text. */
  duplicateOf: z.string().exactOptional(),
  nearDuplicateOf: z.string().exactOptional(),
  content: contentSchema,
});
export type ResultRecord = z.output<typeof resultRecordSchema>;
