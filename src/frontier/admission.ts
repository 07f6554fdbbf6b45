/**
 * Takes offered pages in: new ones become due, known ones at most come nearer to
 * a seed. What memory can't tell is looked up in the store first.
 */
import { tellTrap } from "../job/counts.ts";
import { type FrontierState, later, type Turn, waiting } from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import { HOST_PARTS } from "./host-spread.ts";
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
  /** Keys of those that their host's parts have taken in. */
  readonly forwarded: Set<string>;
  forward: "none" | "asked";
  /** How many of those taken in continue a trail. */
  grown: number;
}

export function admissionOf(pages: readonly OfferedPage[]): Admission {
  return {
    pages,
    next: 0,
    lookup: "none",
    found: new Map(),
    forwarded: new Set(),
    forward: "none",
    grown: 0,
  };
}

export class Admissions {
  readonly #state: FrontierState;
  readonly #lookups = new Map<number, { share: JobShare; admission: Admission }>();
  readonly #forwards = new Map<
    number,
    { readonly share: JobShare; readonly admission: Admission; readonly pages: readonly OfferedPage[] }
  >();
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
    if (admission.lookup === "asked" || admission.forward === "asked") return false;
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
      const offered = admission.pages[admission.next]!;
      if (this.#isForPart(share, admission, offered)) return this.#forward(share, admission, turn);
      if (!admission.forwarded.has(offered.key)) this.#admitPage(share, admission, offered, turn);
    }
    if (admission.lookup === "had") share.lookedUp();
    return true;
  }

  /** The parts have taken in what they were given. */
  forwarded(id: number): void {
    const forward = this.#forwards.get(id);
    if (forward === undefined) return;
    this.#forwards.delete(id);
    const { share, admission, pages } = forward;
    admission.forward = "none";
    for (const page of pages) {
      admission.forwarded.add(page.key);
      this.#filled(share, page);
    }
  }

  /** New, and its host is full: it belongs to one of the host's parts. */
  #isForPart(share: JobShare, admission: Admission, offered: OfferedPage): boolean {
    if (share.queues.get(offered.host)?.size.full !== true || offered.sitemap !== null) return false;
    if (share.known.depthOf(offered.key) !== undefined || admission.forwarded.has(offered.key)) return false;
    return this.#state.placement.partOf(offered.host, offered.key) !== undefined;
  }

  /** What is for parts goes there first: who offered it is answered when they have it. */
  #forward(share: JobShare, admission: Admission, turn: Turn): false {
    const pages: OfferedPage[] = [];
    for (let n = admission.next; n < admission.pages.length; n++) {
      const offered = admission.pages[n]!;
      if (!this.#isForPart(share, admission, offered)) continue;
      const queue = share.queues.get(offered.host)!;
      if (isExtra(offered) && this.#isRefused(share, queue, offered, turn)) {
        admission.forwarded.add(offered.key);
        continue;
      }
      this.#filled(share, offered);
      pages.push(offered);
    }
    if (pages.length === 0) return later(turn);
    const id = this.#nextLookup++;
    this.#forwards.set(id, { share, admission, pages });
    admission.forward = "asked";
    turn.wants.forwards.push({ jobId: share.jobId, id, pages });
    return false;
  }

  #filled(share: JobShare, { host, key }: OfferedPage): void {
    const spread = this.#state.hosts.get(host)?.spreads.get(share.jobId);
    spread?.filled(this.#state.placement.partOf(host, key)!);
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
      if (isExtra(offered) && this.#isRefused(share, queue, offered, turn)) return;
      if (offered.trail > 0) admission.grown++;
      const page = newPage(offered, ++share.counts.seq);
      share.counts.discovered++;
      queue.size.discovered++;
      if (page.sitemap !== null) queue.size.sitemaps++;
      queue.size.pending++;
      const { placement } = this.#state;
      if (
        !queue.size.full &&
        queue.size.discovered >= placement.spreadAbove &&
        placement.isMain(offered.host)
      ) {
        queue.size.full = true;
        share.counts.large++;
        this.#state.spread(share, offered.host, false);
      }
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
    let pages = share.view?.spec.limits.pagesPerHost ?? Number.POSITIVE_INFINITY;
    const { placement } = this.#state;
    // Each part of a large host has its share of what the main has not.
    if (!placement.isMain(offered.host)) pages = Math.ceil((pages - placement.spreadAbove) / HOST_PARTS);
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

/** What takes the place of another page adds nothing to a host. */
function isExtra(offered: OfferedPage): boolean {
  return !offered.seed && !offered.named && offered.hops === 0;
}
