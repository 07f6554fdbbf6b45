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
import type { OfferedPage } from "../frontier/page.ts";
import { urlPattern } from "../frontier/trap.ts";
import type { FoundPage, Judgement, Outcome } from "../frontier/verdict.ts";
import { type Clock, pause } from "./clock.ts";
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
    const { spec } = view;
    let links: FoundPage[] = [];
    let { depth } = page;
    let [hops, seed] = [0, false];
    // Of a page with nothing new: what it leads to by the same rule continues a trail.
    let pattern: string | undefined;
    const { canonical, repetition } = judgement;
    if (canonical !== null) {
      links = [canonical];
    } else if (outcome.kind === "page") {
      depth++;
      if (depth <= spec.scope.maxDepth) links = outcome.found ?? [];
      if (isRepetition(repetition)) {
        if (spec.scope.stopNearDuplicates) links = [];
        else pattern = urlPattern(page.url);
      }
    } else if (outcome.kind === "redirect" && page.hops < spec.fetch.maxRedirects) {
      const { target } = outcome;
      if (target.key === ref.key) return [];
      const isIn = await this.#isTargetInScope(view, target, ref.jobId, page.seed);
      if (isIn) links = [target];
      hops = page.hops + 1;
      seed = page.seed;
    }
    const [own, foreign]: [OfferedPage[], OfferedPage[]] = [[], []];
    for (const { url, key, host } of links) {
      const isOwn = this.#ports.layout.hostPartition(host) === this.#partition;
      (isOwn ? own : foreign).push({
        url,
        key,
        host,
        depth,
        parent: page.url,
        priority: spec.priority,
        hops,
        seed,
        trail: pattern !== undefined && host === ref.host && pattern === urlPattern(url) ? page.trail + 1 : 0,
        named: canonical !== null,
      });
    }
    if (foreign.length > 0 && (await this.#ports.offer(ref.jobId, foreign)) === "refused") return undefined;
    return own;
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
