/**
 * A web in memory, and a scraping process that fetches from it in virtual time. It
 * notes every request, so that a test can count what a site would see.
 */
import { hash } from "node:crypto";
import { canonicalUrl, pageKey, sitemapKey } from "../../src/frontier/canonical-url.ts";
import { compileScope } from "../../src/job/scope.ts";
import type { Clock } from "../../src/node/clock.ts";
import type { PoolLike } from "../../src/node/runner.ts";
import type { FoundLink, Task, TaskEnd } from "../../src/pool/task.ts";
import type { VirtualTime } from "./virtual-clock.ts";

export interface SitePage {
  readonly links?: readonly string[];
  readonly status?: number;
  readonly retryAfterMs?: number;
  /** Where it redirects to. */
  readonly location?: string;
  /** How many requests fail before one succeeds. */
  readonly failures?: number;
  readonly kills?: boolean;
  readonly text?: string;
  /** Pages with the same body are duplicates; default: each its own. */
  readonly body?: string;
  readonly simhash?: string;
  readonly canonical?: string;
  /** As a sitemap. */
  readonly lists?: { readonly pages?: readonly string[]; readonly sitemaps?: readonly string[] };
}

export interface SiteRequest {
  readonly atMs: number;
  readonly url: string;
  readonly host: string;
  readonly node: string;
  readonly userAgent: string;
}

export class CrawlSite {
  readonly pages = new Map<string, SitePage>();
  /** By origin: text, or a status. */
  readonly robots = new Map<string, { status: number; text: string }>();
  /** Hosts that reset every connection. */
  readonly silent = new Set<string>();
  readonly requests: SiteRequest[] = [];
  /** Called with each request, and with the Retry-After of its answer. */
  onRequest: (request: SiteRequest, retryAfterMs: number | null) => void = () => {};
  /** When the last answer was had. */
  lastEndMs = 0;
  readonly #seen = new Map<string, number>();
  latencyMs: () => number = () => 5;
  /** Pages that nobody could list: what a site makes of a URL that `pages` does not have. */
  made: (url: string) => SitePage | undefined = () => undefined;

  page(url: string, page: SitePage = {}): void {
    this.pages.set(url, page);
  }

  requestsOf(host: string): SiteRequest[] {
    return this.requests.filter((request) => request.host === host);
  }

  answer(task: Task, node: string, nowMs: number): TaskEnd {
    const end = this.#answer(task, node, nowMs);
    const retryAfterMs =
      end.kind === "report" && end.report.kind === "refused" ? end.report.retryAfterMs : null;
    this.onRequest(this.requests.at(-1)!, retryAfterMs);
    return end;
  }

  #answer(task: Task, node: string, nowMs: number): TaskEnd {
    const url = task.kind === "robots" ? `${task.origin}/robots.txt` : task.url;
    const { hostname } = new URL(url);
    this.requests.push({ atMs: nowMs, url, host: hostname, node, userAgent: task.userAgent });
    if (this.silent.has(hostname)) {
      if (task.kind === "page")
        return { kind: "report", report: { kind: "broken", reason: "reset", retryable: true } };
      const nothing = { status: 0, text: "", retryAfterMs: null, latencyMs: 1 };
      return { kind: "report", report: { kind: "robots", ...nothing } };
    }
    if (task.kind === "robots") {
      const { status, text } = this.robots.get(task.origin) ?? { status: 404, text: "" };
      return {
        kind: "report",
        report: { kind: "robots", status, text, retryAfterMs: null, latencyMs: 1 },
      };
    }
    const page = this.pages.get(url) ?? this.made(url);
    const seen = (this.#seen.get(url) ?? 0) + 1;
    this.#seen.set(url, seen);
    if (page === undefined) {
      return {
        kind: "report",
        report: { kind: "refused", status: 404, reason: "HTTP 404", retryAfterMs: null, latencyMs: 1 },
      };
    }
    if (page.kills === true) return { kind: "died", alone: false };
    if (page.location !== undefined) {
      const to = canonicalUrl(page.location, url)!;
      const target = task.sitemapPart === null ? to : { ...to, key: sitemapKey(to.url, task.sitemapPart) };
      return { kind: "report", report: { kind: "redirect", status: 301, target, latencyMs: 1 } };
    }
    const isFailing = page.failures !== undefined && seen <= page.failures;
    const status = isFailing
      ? (page.status ?? 503)
      : page.failures === undefined
        ? (page.status ?? 200)
        : 200;
    if (status >= 400) {
      const retryAfterMs = page.retryAfterMs ?? null;
      return {
        kind: "report",
        report: { kind: "refused", status, reason: `HTTP ${status}`, retryAfterMs, latencyMs: 1 },
      };
    }
    if (task.sitemapPart !== null) {
      const of = (text: string) => canonicalUrl(text, url, task.links ?? undefined)!;
      const { pages = [], sitemaps = [] } = page.lists ?? {};
      const inScope = compileScope(task.links!);
      return {
        kind: "report",
        report: {
          kind: "sitemap",
          found: pages
            .map((text) => ({ ...of(text), priority: 0 }))
            .filter((link) => inScope(link.url, link.host)),
          sitemaps: sitemaps.map((text) => ({ ...of(text), key: sitemapKey(of(text).url, 0), part: 0 })),
          latencyMs: 1,
        },
      };
    }
    const found: FoundLink[] = [];
    if (task.links?.follow === true) {
      const inScope = compileScope(task.links);
      const keys = new Set<string>();
      for (const text of page.links ?? []) {
        const link = canonicalUrl(text, url, task.links);
        if (link === undefined || keys.has(link.key) || !inScope(link.url, link.host)) continue;
        keys.add(link.key);
        found.push(link);
      }
    }
    return {
      kind: "report",
      report: {
        kind: "page",
        status,
        finalUrl: url,
        contentType: "text/html",
        bytes: 100,
        sha256: hash("sha256", page.body ?? url),
        simhash: page.simhash ?? null,
        durationMs: 5,
        latencyMs: 1,
        data: { title: `Title of ${url}` },
        fieldErrors: [],
        ...(page.text === undefined ? {} : { text: page.text }),
        found,
        canonical:
          task.links?.canonicalLinks === true && page.canonical !== undefined
            ? (canonicalUrl(page.canonical, url, task.links) ?? null)
            : null,
      },
    };
  }

  /** Pages that a crawl from `seeds` gives a result for, following every link on the same hosts. */
  expected(
    seeds: readonly string[],
    hosts: ReadonlySet<string>,
    maxDepth = Number.POSITIVE_INFINITY,
  ): Set<string> {
    const results = new Set<string>();
    const depths = new Map<string, number>();
    const open = seeds.map((url) => ({ url, depth: 0 }));
    for (let next = open.shift(); next !== undefined; next = open.shift()) {
      const canonical = canonicalUrl(next.url);
      if (canonical === undefined || !hosts.has(canonical.host)) continue;
      const known = depths.get(canonical.url);
      if (known !== undefined && known <= next.depth) continue;
      depths.set(canonical.url, next.depth);
      const page = this.pages.get(canonical.url);
      if (page === undefined) continue;
      if (page.location !== undefined) {
        open.push({ url: new URL(page.location, canonical.url).href, depth: next.depth });
        continue;
      }
      if ((page.status ?? 200) >= 400 && page.failures === undefined) continue;
      results.add(canonical.url);
      if (next.depth >= maxDepth) continue;
      for (const link of page.links ?? []) {
        open.push({ url: new URL(link, canonical.url).href, depth: next.depth + 1 });
      }
    }
    return results;
  }
}

export function keyOf(url: string): string {
  return pageKey("GET", url);
}

/** A scraping process: some threads, each with several requests under way. */
export class SitePool implements PoolLike {
  readonly threads: number;
  running = 0;
  readonly #site: CrawlSite;
  readonly #time: VirtualTime;
  readonly #clock: Clock;
  readonly #node: string;
  readonly #isDead: () => boolean;
  readonly #queue: (() => void)[] = [];
  readonly #perThread: number;

  constructor(options: {
    site: CrawlSite;
    time: VirtualTime;
    clock: Clock;
    node: string;
    threads: number;
    perThread: number;
    isDead(): boolean;
  }) {
    this.#site = options.site;
    this.#time = options.time;
    this.#clock = options.clock;
    this.#node = options.node;
    this.threads = options.threads;
    this.#perThread = options.perThread;
    this.#isDead = options.isDead;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  run(
    task: Task,
    options: { startBefore: number; alone: boolean; onStarted?(agoMs: number): void },
  ): Promise<TaskEnd> {
    return new Promise((resolve) => {
      const start = () => {
        if (this.#isDead()) return;
        if (this.#clock.now() > options.startBefore) {
          resolve({ kind: "notStarted", reason: "too late" });
          this.#next();
          return;
        }
        this.running++;
        const answer = this.#site.answer(task, this.#node, this.#time.nowMs);
        const end: TaskEnd = answer.kind === "died" ? { kind: "died", alone: options.alone } : answer;
        options.onStarted?.(0);
        this.#time.at(this.#time.nowMs + this.#site.latencyMs(), () => {
          if (this.#isDead()) return;
          this.running--;
          this.#site.lastEndMs = this.#time.nowMs;
          resolve(end);
          this.#next();
        });
      };
      if (this.running < this.threads * this.#perThread) start();
      else this.#queue.push(start);
    });
  }

  #next(): void {
    if (this.running < this.threads * this.#perThread) this.#queue.shift()?.();
  }
}
