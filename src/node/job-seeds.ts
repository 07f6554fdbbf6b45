/** The seeds of a job: in its record while they are short, in entries of their own otherwise. */
import { z } from "zod";
import { canonicalUrl, sitemapKey } from "../frontier/canonical-url.ts";
import { OFFER_PAGES_MAX, type OfferedPage, offeredSitemap, originOf } from "../frontier/page.ts";
import type { SeedlessSpec } from "../job/job-record.ts";
import type { Operation, Outcome } from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

/** Characters of all seeds up to which they stand in the record. */
const INLINE_LENGTH_MAX = 16 * 1024;
const CHUNK_LENGTH_MAX = 256 * 1024;
/** No job has more entries of seeds. */
export const SEED_ENTRIES_MAX = 1024;

/** Seeds offered at once: with each may come the sitemaps of its site. */
export const SEEDS_OFFERED_MAX = OFFER_PAGES_MAX / 2;

const seedsSchema = z.array(z.string());

export function areInline(seeds: readonly string[]): boolean {
  return seeds.reduce((sum, seed) => sum + seed.length, 0) <= INLINE_LENGTH_MAX;
}

/** One operation for each entry. */
export function writeSeeds(layout: KeyLayout, jobId: string, seeds: readonly string[]): Operation[] {
  const chunks: string[][] = [];
  let length = Number.POSITIVE_INFINITY;
  for (const seed of seeds) {
    if (length + seed.length > CHUNK_LENGTH_MAX) {
      chunks.push([]);
      length = 0;
    }
    chunks.at(-1)!.push(seed);
    length += seed.length;
  }
  return chunks.map((chunk, n) => ({
    kind: "batch",
    changes: [{ kind: "put", key: layout.seed(jobId, n), value: encodeRecord(chunk) }],
    conditions: [],
  }));
}

export async function readSeeds(
  layout: KeyLayout,
  jobId: string,
  operate: (operation: Operation) => Promise<Outcome>,
): Promise<string[]> {
  const outcome = await operate({ kind: "scan", prefix: layout.seeds(jobId), limit: SEED_ENTRIES_MAX });
  if (outcome.kind !== "scanned") return [];
  return outcome.entries.flatMap((entry) => decodeRecord(seedsSchema, entry.value));
}

/** What begins the reading of the sitemaps of a page's site. */
export function sitemapsOf(spec: SeedlessSpec, page: { url: string; host: string }): OfferedPage {
  const url = `${originOf(page.url)}/robots.txt`;
  const file = { url, key: sitemapKey(url, 0), host: page.host };
  return offeredSitemap(file, { level: 0, part: 0 }, { parent: null, priority: spec.priority, hops: 0 });
}

export function asksForSitemaps({ scope }: SeedlessSpec): boolean {
  return scope.sitemaps && scope.maxDepth > 0;
}

/** The pages that these seeds are, by the partition of their host; with each host's first its sitemaps. */
export function seedPages(
  layout: KeyLayout,
  spec: SeedlessSpec,
  seeds: readonly string[],
): Map<number, OfferedPage[]> {
  const byPartition = new Map<number, OfferedPage[]>();
  const add = (page: OfferedPage) => {
    const partition = layout.hostPartition(page.host);
    const pages = byPartition.get(partition);
    if (pages === undefined) byPartition.set(partition, [page]);
    else pages.push(page);
  };
  const origins = new Set<string>();
  for (const text of seeds) {
    const canonical = canonicalUrl(text, undefined, spec.scope);
    if (canonical === undefined) continue;
    add({
      ...canonical,
      depth: 0,
      parent: null,
      priority: spec.priority,
      hops: 0,
      seed: true,
      trail: 0,
      named: false,
      sitemap: null,
    });
    const origin = originOf(canonical.url);
    if (!asksForSitemaps(spec) || origins.has(origin)) continue;
    origins.add(origin);
    add(sitemapsOf(spec, canonical));
  }
  return byPartition;
}
