/**
 * Where the links of a fetched page go before the page is settled: those to hosts
 * of other partitions to their owners, which must have accepted them; those of
 * this partition into the batch that settles the page. A redirect is a link to
 * its target; that of a seed may take the job to another host.
 */
import { BusyError, NotLeaderError } from "../errors.ts";
import type { Frontier } from "../frontier/frontier.ts";
import type { HandoutRef } from "../frontier/frontier-state.ts";
import type { JobView } from "../frontier/job-share.ts";
import { isRepetition } from "../frontier/known-contents.ts";
import {
  type OfferedPage,
  offeredSitemap,
  originOf,
  type Page,
  SITEMAP_LEVEL_MAX,
} from "../frontier/page.ts";
import { urlPattern } from "../frontier/trap.ts";
import type { FoundPage, Judgement, Outcome } from "../frontier/verdict.ts";
import { isSameSite } from "../job/scope.ts";
import { type Clock, pause } from "./clock.ts";
import { asksForSitemaps, sitemapsOf } from "./job-seeds.ts";
import type { KeyLayout } from "./key-layout.ts";
import type { OfferAnswer } from "./offer-outbox.ts";
import { scopeTestsOf } from "./page-task.ts";

export interface LinkPlacementPorts {
  readonly clock: Clock;
  readonly layout: KeyLayout;
  /** To the owners of other partitions; answered when all of them have. */
  offer(jobId: string, pages: readonly OfferedPage[]): Promise<OfferAnswer>;
  /** A seed leads to this host; false: the job is over. Rejects when the job's leader does not answer. */
  widen(jobId: string, host: string): Promise<boolean>;
  /** The partition is not led here any more. */
  isEnded(): boolean;
}

const WIDEN_RETRY_MS = 100;
const VIEW_RETRY_MS = 50;

export class LinkPlacement {
  readonly #partition: number;
  readonly #frontier: Pick<Frontier, "pageOf" | "viewOf">;
  readonly #ports: LinkPlacementPorts;

  constructor(partition: number, frontier: Pick<Frontier, "pageOf" | "viewOf">, ports: LinkPlacementPorts) {
    this.#partition = partition;
    this.#frontier = frontier;
    this.#ports = ports;
  }

  /**
   * Gives links of other partitions to their owners; returns those of this one.
   * Undefined: the job is over.
   *
   * @throws {BusyError} it is not known yet where links may lead.
   * @throws {NotLeaderError} the partition is not led here any more.
   */
  async place(ref: HandoutRef, outcome: Outcome, judgement: Judgement): Promise<OfferedPage[] | undefined> {
    const page = this.#frontier.pageOf(ref);
    const view = this.#frontier.viewOf(ref.jobId);
    if (page === undefined) return [];
    // A leader that has just taken over does not know yet where links may lead.
    if (view === undefined) throw new BusyError("the job's state", VIEW_RETRY_MS);
    const offered = await this.#offered(ref, page, view, outcome, judgement);
    const own: OfferedPage[] = [];
    const foreign: OfferedPage[] = [];
    for (const link of offered) {
      const isOwn = this.#ports.layout.hostPartition(link.host) === this.#partition;
      (isOwn ? own : foreign).push(link);
    }
    if (foreign.length > 0 && (await this.#ports.offer(ref.jobId, foreign)) === "refused") return undefined;
    return own;
  }

  /** What the page leads to, as pages of the job. */
  async #offered(
    ref: HandoutRef,
    page: Readonly<Page>,
    view: JobView,
    outcome: Outcome,
    { canonical, repetition }: Judgement,
  ): Promise<OfferedPage[]> {
    const { spec } = view;
    const { url: parent, depth } = page;
    const linked = (link: FoundPage, more: Partial<OfferedPage> = {}): OfferedPage => ({
      url: link.url,
      key: link.key,
      host: link.host,
      depth: depth + 1,
      parent,
      priority: spec.priority,
      hops: 0,
      seed: false,
      trail: 0,
      named: false,
      sitemap: null,
      ...more,
    });
    switch (outcome.kind) {
      case "page": {
        if (canonical !== null) return [linked(canonical, { depth, named: true })];
        const found = depth < spec.scope.maxDepth ? (outcome.found ?? []) : [];
        if (!isRepetition(repetition)) return found.map((link) => linked(link));
        if (spec.scope.stopNearDuplicates) return [];
        // Where a page with nothing new leads to by the rule that made its own URL, a trail goes on.
        const pattern = urlPattern(page.url);
        return found.map((link) => {
          const goesOn = link.host === ref.host && urlPattern(link.url) === pattern;
          return linked(link, { trail: goesOn ? page.trail + 1 : 0 });
        });
      }
      case "redirect": {
        const { target } = outcome;
        if (target.key === ref.key || page.hops >= spec.fetch.maxRedirects) return [];
        const hops = page.hops + 1;
        if (page.sitemap !== null) {
          if (!this.#mayReadSitemap(ref, view, page.sitemap.level, target)) return [];
          return [offeredSitemap(target, page.sitemap, { parent, priority: spec.priority, hops })];
        }
        const { seed } = page;
        if (!(await this.#isTargetInScope(view, target, ref.jobId, seed))) return [];
        const link = linked(target, { depth, hops, seed });
        const isElsewhere = originOf(target.url) !== originOf(parent);
        return seed && isElsewhere && asksForSitemaps(spec) ? [link, sitemapsOf(spec, target)] : [link];
      }
      case "sitemap": {
        const level = page.sitemap?.level ?? 0;
        const of = { parent, priority: spec.priority, hops: 0 };
        const files = outcome.sitemaps
          // The next part of a file stands where the file does.
          .map((file) => ({ file, level: file.part > 0 ? level : level + 1 }))
          .filter(({ file, level: at }) => this.#mayReadSitemap(ref, view, at, file))
          .map(({ file, level: at }) => offeredSitemap(file, { level: at, part: file.part }, of));
        const pages = outcome.found.map((link) => linked(link, { priority: spec.priority + link.priority }));
        return [...files, ...pages];
      }
      default:
        return [];
    }
  }

  /** A robots.txt may name a file anywhere; what that leads to stays with its site, or with the job. */
  #mayReadSitemap(ref: HandoutRef, view: JobView, level: number, file: FoundPage): boolean {
    if (level > SITEMAP_LEVEL_MAX) return false;
    return level <= 1 || isSameSite(ref.host, file.host) || scopeTestsOf(view).byHost(file.url, file.host);
  }

  async #isTargetInScope(view: JobView, target: FoundPage, jobId: string, isSeed: boolean): Promise<boolean> {
    const { inScope, byPattern } = scopeTestsOf(view);
    if (inScope(target.url, target.host)) return true;
    const { hosts } = view.spec.scope;
    if (!isSeed || (hosts !== "same-host" && hosts !== "same-domain")) return false;
    if (!byPattern(target.url, target.host)) return false;
    // Where a seed leads is where the job begins: example.org -> www.example.org.
    while (!this.#ports.isEnded()) {
      try {
        return await this.#ports.widen(jobId, target.host);
      } catch {
        await pause(this.#ports.clock, WIDEN_RETRY_MS);
      }
    }
    throw new NotLeaderError(this.#partition);
  }
}
