/**
 * Takes offered pages in: new ones become due, known ones at most come nearer to
 * a seed. What memory can't tell is looked up in the store first.
 */
import { tellTrap } from "../job/counts.ts";
import { type FrontierState, later, type Turn, waiting } from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import type { JobShare } from "./job-share.ts";
import { SETTLED } from "./known-pages.ts";
import { newPage, type OfferedPage, type Page } from "./page.ts";

/** Of one host in one job, parts of long ones counted apart. */
const SITEMAPS_MAX = 10_000;

/** Pages on their way in, over as many batches as they need. */
export interface Admission {
  readonly pages: readonly OfferedPage[];
  next: number;
  lookup: "none" | "asked" | "had";
  /** What the store said, by key; null: no such page. */
  readonly found: Map<string, Page | null>;
  /** How many of those taken in continue a trail. */
  grown: number;
}

export function admissionOf(pages: readonly OfferedPage[]): Admission {
  return { pages, next: 0, lookup: "none", found: new Map(), grown: 0 };
}

export class Admissions {
  readonly #state: FrontierState;
  readonly #lookups = new Map<number, { share: JobShare; admission: Admission }>();
  #nextLookup = 1;

  constructor(state: FrontierState) {
    this.#state = state;
  }

  /** What the store has for the pages asked about; those missing are new. */
  lookedUp(id: number, found: ReadonlyMap<string, Page>): void {
    const lookup = this.#lookups.get(id);
    if (lookup === undefined) return;
    this.#lookups.delete(id);
    const { share, admission } = lookup;
    admission.lookup = "had";
    for (const offered of admission.pages) {
      const page = found.get(offered.key) ?? null;
      admission.found.set(offered.key, page);
      if (page !== null && share.known.depthOf(offered.key) === undefined) {
        share.known.set(offered.key, page.status === "pending" ? page.depth : SETTLED);
      }
    }
  }

  /** True when all of them are in; else what did fit is, and the rest waits. */
  admit(share: JobShare, admission: Admission, turn: Turn): boolean {
    if (admission.next === admission.pages.length) return true;
    if (admission.lookup === "asked") return false;
    const unknown: OfferedPage[] = [];
    for (let n = admission.next; n < admission.pages.length; n++) {
      const offered = admission.pages[n]!;
      if (this.#needsLookup(share, admission, offered)) unknown.push(offered);
    }
    if (unknown.length > 0) {
      if (admission.lookup === "none") share.lookups++;
      admission.lookup = "asked";
      for (const offered of unknown) share.touched.delete(offered.key);
      const id = this.#nextLookup++;
      this.#lookups.set(id, { share, admission });
      turn.wants.lookups.push({ jobId: share.jobId, id, pages: unknown });
      return false;
    }
    for (; admission.next < admission.pages.length; admission.next++) {
      if (!turn.draft.hasRoom(4)) {
        return later(turn);
      }
      this.#admitPage(share, admission, admission.pages[admission.next]!, turn);
    }
    if (admission.lookup === "had") share.lookedUp();
    return true;
  }

  #needsLookup(share: JobShare, admission: Admission, offered: OfferedPage): boolean {
    const depth = share.known.depthOf(offered.key);
    const isFound = admission.found.has(offered.key);
    if (depth === undefined) return !share.known.isComplete && !isFound;
    if (depth === SETTLED || (depth <= offered.depth && !offered.named)) return false;
    if (this.#state.pageInMemory(share, offered) !== undefined) return false;
    return !isFound || share.touched.has(offered.key) || admission.found.get(offered.key) === null;
  }

  #admitPage(share: JobShare, admission: Admission, offered: OfferedPage, turn: Turn): void {
    const { draft } = turn;
    const depth = share.known.depthOf(offered.key);
    if (depth === undefined) {
      const queue = this.#state.queueOf(share, offered.host);
      // What takes the place of another page adds nothing to a host.
      const isExtra = !offered.seed && !offered.named && offered.hops === 0;
      if (isExtra && this.#isRefused(share, queue, offered, turn)) return;
      if (offered.trail > 0) admission.grown++;
      const page = newPage(offered, ++share.counts.seq);
      share.counts.discovered++;
      queue.size.discovered++;
      if (page.sitemap !== null) queue.size.sitemaps++;
      queue.size.pending++;
      share.known.set(page.key, page.depth);
      share.touch(page.key);
      draft.page(share.jobId, offered.host, page);
      draft.due(share.jobId, offered.host, waiting(page), { key: page.key, flight: null });
      draft.counts(share);
      draft.size(queue);
      queue.push(page, Number.NEGATIVE_INFINITY, turn.hasMemory);
      return;
    }
    if (depth === SETTLED || (depth <= offered.depth && !offered.named)) return;
    const page = this.#state.pageInMemory(share, offered) ?? admission.found.get(offered.key);
    if (page === undefined || page === null || page.status !== "pending") return;
    if (offered.named) page.named = true;
    if (offered.depth < page.depth) {
      page.depth = offered.depth;
      page.parent = offered.parent;
    }
    share.known.set(page.key, page.depth);
    share.touch(page.key);
    draft.page(share.jobId, offered.host, page);
  }

  /** Its host has enough pages, or URLs like this bring nothing new: it does not become a page of the job. */
  #isRefused(share: JobShare, queue: HostQueue, offered: OfferedPage, turn: Turn): boolean {
    const { discovered, sitemaps } = queue.size;
    if (offered.sitemap !== null) return sitemaps >= SITEMAPS_MAX;
    if (share.traps.get(offered.host)?.isTrapped(offered.url) === true) return true;
    const pages = share.view?.spec.limits.pagesPerHost ?? Number.POSITIVE_INFINITY;
    if (discovered - sitemaps < pages) return false;
    tellTrap(share.counts, {
      host: offered.host,
      pattern: "*",
      reason: "pages per host",
      pages,
      skipped: 0,
      example: offered.url,
    });
    turn.draft.counts(share);
    return true;
  }
}
