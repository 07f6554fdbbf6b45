/**
 * Looks on at a simulated crawl: at each batch that becomes durable and at each
 * request that a site gets, whether what a user may rely on still holds.
 */
import { resultRecordSchema } from "../../src/frontier/page.ts";
import { type Counts, countsSchema, pendingOf } from "../../src/job/counts.ts";
import { jobRecordSchema } from "../../src/job/job-record.ts";
import { participantSchema } from "../../src/node/job-driver.ts";
import { decodeRecord } from "../../src/node/record.ts";
import type { Change } from "../../src/replication/register.ts";
import type { CrawlCluster } from "./crawl-cluster.ts";
import type { SiteRequest } from "./crawl-site.ts";

/** How long after it was asked for a report may still be on its way. */
const REPORT_MS = 10_000;

export interface WitnessedCrawl {
  readonly cluster: CrawlCluster;
  readonly jobId: string;
  readonly delayMs: number;
  readonly concurrency: number;
  readonly maxPages: number;
  /** When servers died, or were taken for dead. */
  readonly deathsMs: readonly number[];
}

export class CrawlWitness {
  readonly violations: string[] = [];
  readonly #crawl: WitnessedCrawl;
  readonly #counts = new Map<number, Counts>();
  readonly #rights = new Map<string, number>();
  // By URL: the entry of its result.
  readonly #results = new Map<string, string>();
  readonly #lastMs = new Map<string, number>();
  readonly #breaks: { readonly host: string; readonly fromMs: number; readonly untilMs: number }[] = [];
  #requests = 0;
  #isOver = false;

  constructor(crawl: WitnessedCrawl) {
    this.#crawl = crawl;
    crawl.cluster.onBatch = (partition, changes) => this.#written(partition, changes);
    crawl.cluster.site.onRequest = (request, retryAfterMs) => this.#asked(request, retryAfterMs);
    // What has happened since the job was submitted.
    for (const { partition, entry } of crawl.cluster.entries("")) {
      this.#written(partition, [{ kind: "put", key: entry.key, value: entry.value }]);
    }
    for (const request of crawl.cluster.site.requests) this.#asked(request, null);
  }

  /** Requests seen: none may be missed. */
  get requests(): number {
    return this.#requests;
  }

  #tell(violation: string): void {
    if (this.violations.length < 20) this.violations.push(violation);
  }

  #written(partition: number, changes: readonly Change[]): void {
    const { layout } = this.#crawl.cluster;
    const { jobId } = this.#crawl;
    const isOf = (key: string, prefix: string) => key.startsWith(prefix);
    for (const change of changes) {
      if (change.kind !== "put") continue;
      const { key, value } = change;
      if (key === layout.count(jobId)) this.#counted(partition, decodeRecord(countsSchema, value));
      else if (isOf(key, layout.results(jobId))) this.#resulted(partition, key, value);
      else if (isOf(key, layout.participants(jobId))) {
        const { granted, returned } = decodeRecord(participantSchema, value);
        this.#rights.set(key, granted - returned);
        const held = [...this.#rights.values()].reduce((sum, right) => sum + right, 0);
        const { maxPages } = this.#crawl;
        if (held > maxPages) this.#tell(`rights to ${held} of ${maxPages} pages`);
      } else if (key === layout.job(jobId)) {
        this.#changed(decodeRecord(jobRecordSchema, value).status);
      }
    }
  }

  #counted(partition: number, counts: Counts): void {
    const { spent, granted, returned, done, results } = counts;
    const before = this.#counts.get(partition);
    this.#counts.set(partition, counts);
    if (spent > granted - returned)
      this.#tell(`partition ${partition} spent ${spent} of ${granted - returned}`);
    if (pendingOf(counts) < 0) this.#tell(`partition ${partition} has ${pendingOf(counts)} pages pending`);
    if (done !== results || done !== spent) {
      this.#tell(`partition ${partition}: ${done} pages done, ${results} results, ${spent} credits spent`);
    }
    if (before === undefined) return;
    for (const total of ["discovered", "done", "failed", "skipped", "returned", "seq"] as const) {
      if (counts[total] < before[total]) {
        this.#tell(`partition ${partition}: ${total} went from ${before[total]} to ${counts[total]}`);
      }
    }
    if (this.#isOver && counts.done > before.done) this.#tell("a page was settled after the end");
  }

  #resulted(partition: number, key: string, value: Uint8Array): void {
    const { url } = decodeRecord(resultRecordSchema, value);
    const id = `${partition}/${key}`;
    const known = this.#results.get(url);
    if (known !== undefined && known !== id) this.#tell(`${url} has two results`);
    this.#results.set(url, id);
  }

  #changed(status: string): void {
    if (status !== "completed" && status !== "failed") return;
    if (this.#isOver) return;
    this.#isOver = true;
    let [pending, spent] = [0, 0];
    for (const counts of this.#counts.values()) {
      pending += pendingOf(counts);
      spent += counts.spent;
    }
    if (pending > 0 && spent < this.#crawl.maxPages) this.#tell(`over with ${pending} pages pending`);
  }

  #asked({ host, atMs, url }: SiteRequest, retryAfterMs: number | null): void {
    const { delayMs, concurrency, deathsMs } = this.#crawl;
    this.#requests++;
    const before = this.#lastMs.get(host);
    this.#lastMs.set(host, atMs);
    if (before !== undefined && atMs - before < delayMs - 1e-6) {
      this.#tell(`${url}: ${Math.round(atMs - before)} ms after the one before, not ${delayMs}`);
    }
    if (this.#isOver) this.#tell(`${url} was asked for after the end`);
    // Where several requests may be under way, some were sent before the site said so.
    if (concurrency > 1) return;
    for (const { host: waiting, fromMs, untilMs } of this.#breaks) {
      if (waiting !== host || atMs >= untilMs) continue;
      // A runner that dies takes what it has read with it, and one that is taken for dead is not waited for.
      if (deathsMs.some((ms) => ms >= fromMs - REPORT_MS && ms <= atMs)) continue;
      this.#tell(`${url}: ${Math.round(untilMs - atMs)} ms before the end of a Retry-After`);
    }
    if (retryAfterMs !== null) this.#breaks.push({ host, fromMs: atMs, untilMs: atMs + retryAfterMs });
  }
}
