/** The crawl that faults happen to: its spec, and what must be right about it afterwards. */
import type { JobSpecInput, Result } from "../../src/job/job-spec.ts";
import { EXTRACT } from "../fixture/site/page.ts";
import type { Site } from "../fixture/site/site.ts";

export const HOSTS = 12;
export const PAGES = 300;
/** Longer than any crawl of `PAGES` pages may take. */
export const CRAWL_MS_MAX = 60_000;
/** Of an audit. */
export const RIGHT = {
  lost: [],
  duplicates: 0,
  unexpected: [],
  wrong: [],
  wrongFailures: [],
  isRight: true,
};

export function crawlOf(site: Site, delayMs: number): JobSpecInput {
  return {
    seeds: [site.portal],
    scope: { hosts: [...site.hosts], maxDepth: 50, maxPages: PAGES * 10 },
    politeness: { delayMs, concurrencyPerHost: 1 },
    extract: EXTRACT,
  };
}

/** Gathers results as they come. */
export async function follow(results: AsyncIterable<Result>, into: Result[]): Promise<void> {
  for await (const result of results) into.push(result);
}

/** URLs of results that are missing or others later. */
export function forgotten(before: readonly Result[], after: readonly Result[]): string[] {
  const known = new Map(after.map((result) => [result.url, result.sha256]));
  return before.filter((result) => known.get(result.url) !== result.sha256).map((result) => result.url);
}
