/**
 * What becomes of a page after one try, and what the try says about its host.
 * A table of HTTP statuses (RFC 9110, 6585, 8470) and a few rules around it.
 */
import { z } from "zod";
import type { Repetition } from "./known-contents.ts";
import { contentSchema, type Page } from "./page.ts";

const foundLinkSchema = z.object({
  url: z.string().max(2048),
  key: z.string().max(64),
  host: z.string().max(255),
});
export type FoundPage = z.output<typeof foundLinkSchema>;

/** How one hand-out ended, as the runner reports it. */
export const outcomeSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("page"),
    status: z.int(),
    finalUrl: z.string(),
    contentType: z.string().nullable(),
    fetchedAtMs: z.number(),
    durationMs: z.number(),
    bytes: z.number(),
    sha256: z.string(),
    simhash: z.string().nullable(),
    content: contentSchema,
    /** In scope, canonical, each once. Null: they were not asked for. */
    found: z.array(foundLinkSchema).nullable(),
    /** Another page of the job's scope that this one says it is a form of. */
    canonical: foundLinkSchema.nullable(),
  }),
  z.object({
    kind: z.literal("sitemap"),
    /** Pages in scope; `priority` against others of the job. */
    found: z.array(foundLinkSchema.extend({ priority: z.int() })),
    sitemaps: z.array(foundLinkSchema.extend({ part: z.int().nonnegative() })),
  }),
  z.object({ kind: z.literal("redirect"), status: z.int(), target: foundLinkSchema }),
  z.object({
    kind: z.literal("refused"),
    status: z.int(),
    reason: z.string(),
    retryAfterMs: z.number().nullable(),
  }),
  z.object({ kind: z.literal("broken"), reason: z.string(), retryable: z.boolean() }),
  /** The scraping process died. */
  z.object({ kind: z.literal("died"), alone: z.boolean() }),
  /** The request may not leave: what the host's owner says of a page that another partition stores. */
  z.object({
    kind: z.literal("barred"),
    reason: z.enum(["robots", "robots-unreachable", "host-unreachable"]),
  }),
  /** The request never left. */
  z.object({ kind: z.literal("notStarted"), reason: z.string() }),
]);
export type Outcome = z.output<typeof outcomeSchema>;

export type Verdict =
  | { readonly kind: "done" }
  /** The page is over without a result: what it leads to are pages of their own. */
  | { readonly kind: "skipped"; readonly reason: "redirect" | "canonical" | "sitemap" | "robots" }
  | {
      readonly kind: "again";
      readonly afterMs: number;
      /** Whether the try counts against `retries`. */
      readonly counts: boolean;
      readonly hops: number;
      readonly reason: string;
    }
  | { readonly kind: "failed"; readonly reason: string; readonly status: number | null };

export interface RetryLimits {
  /** Tries after the first. */
  readonly retries: number;
  readonly maxRedirects: number;
}

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 60_000;
const DEATHS_ALONE_MAX = 2;

/** Statuses below 500 that another try may cure. */
const PASSING = new Set([
  408, // Request Timeout
  425, // Too Early, RFC 8470
  429, // Too Many Requests, RFC 6585
]);

export function isPassing(status: number): boolean {
  return status >= 500 || PASSING.has(status);
}

/**
 * The page that takes this one's place. A page that another one names so gives a result
 * itself, whatever it names: of those that name each other in a circle, at least one stays.
 */
export function canonicalOf(outcome: Outcome, page: Pick<Page, "key" | "named">): FoundPage | null {
  if (outcome.kind !== "page" || page.named) return null;
  return outcome.canonical === null || outcome.canonical.key === page.key ? null : outcome.canonical;
}

/** What a page is to the rest of its site, as it was when its links were placed. */
export interface Judgement {
  /** What takes its place. */
  readonly canonical: FoundPage | null;
  readonly repetition: Repetition;
}

export const AS_IT_IS: Judgement = { canonical: null, repetition: {} };

/** Exponential, with half of it left to chance, so that pages that failed together don't come back together. */
export function retryDelayMs(attempts: number, random: number): number {
  const full = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(attempts, 16));
  return Math.round(full * (0.5 + random / 2));
}

/**
 * @param page as it was when it was handed out.
 * @param random in [0, 1).
 */
export function verdictOf(
  outcome: Outcome,
  page: Pick<Page, "key" | "attempts" | "deaths" | "hops" | "named">,
  limits: RetryLimits,
  random: number,
): Verdict {
  const again = (reason: string, status: number | null, counts = true): Verdict => {
    if (counts && page.attempts >= limits.retries) return { kind: "failed", reason, status };
    return {
      kind: "again",
      afterMs: counts ? retryDelayMs(page.attempts, random) : 0,
      counts,
      hops: page.hops,
      reason,
    };
  };

  switch (outcome.kind) {
    case "page":
      return canonicalOf(outcome, page) === null
        ? { kind: "done" }
        : { kind: "skipped", reason: "canonical" };
    case "sitemap":
      return { kind: "skipped", reason: "sitemap" };
    case "redirect":
      if (page.hops >= limits.maxRedirects) {
        return {
          kind: "failed",
          reason: `more than ${limits.maxRedirects} redirects`,
          status: outcome.status,
        };
      }
      if (outcome.target.key !== page.key) return { kind: "skipped", reason: "redirect" };
      return { kind: "again", afterMs: 0, counts: false, hops: page.hops + 1, reason: "redirect to itself" };
    case "refused":
      if (!isPassing(outcome.status)) {
        return { kind: "failed", reason: outcome.reason, status: outcome.status };
      }
      // A host that says when to come back is waited for; that is not the page's fault.
      return again(outcome.reason, outcome.status, outcome.retryAfterMs === null);
    case "broken":
      if (!outcome.retryable) return { kind: "failed", reason: outcome.reason, status: null };
      return again(outcome.reason, null);
    case "died":
      if (outcome.alone && page.deaths + 1 >= DEATHS_ALONE_MAX) {
        return { kind: "failed", reason: "killed its scraper", status: null };
      }
      return again("the scraping process died", null, false);
    case "barred":
      return outcome.reason === "robots"
        ? { kind: "skipped", reason: "robots" }
        : { kind: "failed", reason: outcome.reason, status: null };
    case "notStarted":
      return again(outcome.reason, null, false);
  }
}
