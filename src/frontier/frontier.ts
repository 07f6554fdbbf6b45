/**
 * The frontier of one partition under one ballot: which pages its hosts have,
 * which are due, which are under way. As all writes of these entries come from
 * this leader, what it holds in memory is the truth between two commits, and a
 * batch needs no conditions; when a batch fails, all of it is dropped and read
 * anew by whoever leads next.
 *
 * Nothing happens when something comes in; everything happens in `advance`, which
 * makes the next batch out of all that waits. So pages that finish together
 * share a commit, and every decision is taken with the confirmation of that
 * moment. Effects leave after the commit.
 */
import assert from "node:assert/strict";
import { type Counts, noCounts } from "../job/counts.ts";
import type { Waiting } from "../job/job-spec.ts";
import { isOver } from "../job/life-cycle.ts";
import { Draft, type FrontierBatch, type FrontierEffect, type FrontierWants } from "./draft.ts";
import { HostQueue } from "./host-queue.ts";
import { CONFIRMATION_MS, type Flight, JobShare, type JobView } from "./job-share.ts";
import { SETTLED } from "./known-pages.ts";
import { newPage, type OfferedPage, originOf, type Page, type Size } from "./page.ts";
import { type PaceRecord, START_WITHIN_MS_MAX } from "./politeness.ts";
import type { RobotsRecord } from "./robots-access.ts";
import { SiteHost } from "./site-host.ts";
import { type Outcome, type Verdict, verdictOf } from "./verdict.ts";

export interface FrontierOptions {
  /** How long a host may wait for its robots.txt. */
  readonly robotsWaitMs: number;
  /** In [0, 1). */
  readonly random: () => number;
}

/** Who may run one more task, and the newest time heard of its own clock. */
export interface Runner {
  readonly nodeId: string;
  readonly timeMs: number;
}

export interface Moment {
  /** Monotonic. */
  readonly nowMs: number;
  /** Unix time. */
  readonly wallMs: number;
  /** Whom to give the next task; undefined: everyone is busy. Each answer is used. */
  readonly nextRunner: () => Runner | undefined;
}

export interface Advance {
  readonly batch: FrontierBatch | undefined;
  readonly wants: FrontierWants;
  /** When to advance again, if nothing comes in before. */
  readonly wakeAtMs: number | undefined;
  /** Pages could go but for a runner. */
  readonly isSaturated: boolean;
}

/** What identifies one hand-out. */
export interface HandoutRef {
  readonly jobId: string;
  readonly host: string;
  readonly key: string;
  readonly handout: number;
}

/** A page under way, as the store of an earlier leader has it. */
export interface FlightRecord {
  readonly page: Page;
  readonly host: string;
  readonly handout: number;
  readonly runner: string;
}

interface Admission {
  readonly pages: readonly OfferedPage[];
  next: number;
  lookup: "none" | "asked" | "had";
  /** What the store said, by key; null: no such page. */
  readonly found: Map<string, Page | null>;
}

type Item =
  | { readonly kind: "offer"; readonly id: number; readonly jobId: string; readonly admission: Admission }
  | {
      readonly kind: "report";
      readonly id: number;
      readonly ref: HandoutRef;
      readonly jobId: string;
      readonly outcome: Outcome;
      readonly admission: Admission;
    }
  | { readonly kind: "lost"; readonly ref: HandoutRef; readonly jobId: string; readonly wasStarted: boolean }
  | { readonly kind: "recall"; readonly id: number; readonly jobId: string; readonly granted: number };

/** A confirmation is renewed when it is this old, so that it need not lapse under load. */
const RENEW_MS = 200;
/** Before a host is ready to go on, its job's state is asked for. */
const ASK_AHEAD_MS = 60;
/** A page that found no room at its runner is not pressed on the next one at once. */
const NOT_STARTED_MS = 50;
const UNREPORTED_MAX = 8;
/** Pages of one job handed out and not settled. */
const FLIGHTS_MAX = 256;
/** Due pages in memory, over all queues; beyond, queues keep a short head. */
const PAGES_IN_MEMORY_MAX = 16_384;
const CREDITS_LOW = 8;
const IDLE_CREDIT_MS = 5_000;
const HOST_IDLE_MS = 120_000;
const WAITING_SHOWN_MS = 1_000;

export class Frontier {
  readonly #options: FrontierOptions;
  readonly #jobs = new Map<string, JobShare>();
  readonly #hosts = new Map<string, SiteHost>();
  readonly #sharesAsked = new Set<string>();
  #items: Item[] = [];
  #nextLookup = 1;
  readonly #lookups = new Map<number, { share: JobShare; admission: Admission }>();
  #roundTripMs = 0;
  // Effects that need no commit: answers about jobs that are over.
  #loose: FrontierEffect[] = [];

  constructor(options: FrontierOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#items.length === 0 && this.#jobs.size === 0;
  }

  get waitingItems(): number {
    return this.#items.length;
  }

  jobIds(): string[] {
    return [...this.#jobs.keys()];
  }

  countsOf(jobId: string): Counts | undefined {
    return this.#jobs.get(jobId)?.counts;
  }

  viewOf(jobId: string): JobView | undefined {
    return this.#jobs.get(jobId)?.view;
  }

  isParticipant(jobId: string): boolean {
    return this.#jobs.get(jobId)?.isParticipant ?? false;
  }

  /** A round trip to the leader of a job, as measured: confirmations live for three of them. */
  roundTrip(ms: number): void {
    this.#roundTripMs = this.#roundTripMs === 0 ? ms : this.#roundTripMs * 0.8 + ms * 0.2;
  }

  // --- what the store held ------------------------------------------------------------------

  /** @param counts undefined: the partition has nothing of this job yet. */
  restoreShare(
    jobId: string,
    counts: Counts | undefined,
    sizes: readonly Size[],
    flights: readonly FlightRecord[],
    nowMs: number,
  ): void {
    this.#sharesAsked.delete(jobId);
    if (this.#jobs.has(jobId)) return;
    const share = new JobShare(counts ?? noCounts(jobId), counts === undefined);
    this.#jobs.set(jobId, share);
    for (const size of sizes) this.#addQueue(share, new HostQueue(jobId, { ...size }, size.pending > 0));
    for (const { page, host, handout, runner } of flights) {
      const queue = share.queues.get(host);
      if (queue === undefined) continue;
      page.handouts = Math.max(page.handouts, handout);
      const decidedAtMs = Number.NEGATIVE_INFINITY;
      share.flights.set(page.key, { page, queue, handout, runner, decidedAtMs, isReported: false });
      share.known.set(page.key, page.depth);
      this.#hostOf(host).pace.adopt(flightId({ jobId, host, key: page.key, handout }), nowMs);
    }
  }

  restoreHost(
    name: string,
    pace: PaceRecord | undefined,
    robots: readonly RobotsRecord[],
    nowMs: number,
    wallMs: number,
  ): void {
    const host = this.#hostOf(name);
    if (host.state === "ready") return;
    host.state = "ready";
    if (pace !== undefined) host.pace.restore(pace, nowMs, wallMs);
    for (const record of robots) {
      host.accessOf(record.origin, this.#options.robotsWaitMs).restore(record, nowMs, wallMs);
    }
  }

  /** Due pages behind the queue's end, in order, with nothing left out between. */
  loaded(
    jobId: string,
    host: string,
    pages: readonly Page[],
    more: boolean,
    nowMs: number,
    wallMs: number,
  ): void {
    const share = this.#jobs.get(jobId);
    const queue = share?.queues.get(host);
    if (share === undefined || queue === undefined) return;
    const due = pages
      .filter((page) => !share.flights.has(page.key))
      .map((page) => {
        const depth = share.known.depthOf(page.key);
        if (depth !== undefined && depth !== SETTLED) page.depth = Math.min(page.depth, depth);
        else share.known.set(page.key, page.depth);
        const waitMs = Math.max(0, Math.min(page.dueForMs, page.dueAtMs - wallMs));
        return { page, readyAtMs: nowMs + waitMs };
      });
    queue.loaded(due, more);
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

  // --- what comes in ------------------------------------------------------------------------

  /** Answered with `id`, after commit. Pages of hosts that belong to this partition. */
  offer(id: number, jobId: string, pages: readonly OfferedPage[]): void {
    this.#items.push({ kind: "offer", id, jobId, admission: admissionOf(pages) });
  }

  /**
   * A report has arrived: takes effect on the host's pace at once, whether or not
   * anyone still waits for it. False: nobody does.
   */
  heardReport(ref: HandoutRef, agoMs: number, outcome: Outcome, nowMs: number): boolean {
    const pace = this.#hostOf(ref.host).pace;
    const id = flightId(ref);
    if (outcome.kind === "notStarted") {
      pace.notStarted(id);
    } else {
      pace.started(id, nowMs - agoMs);
      pace.ended(id);
    }
    if (outcome.kind === "refused" && (outcome.status === 429 || outcome.status === 503)) {
      pace.refused(outcome.reason, outcome.retryAfterMs, nowMs, this.#options.random());
    } else if (outcome.kind === "broken") {
      if (outcome.retryable) pace.broke(outcome.reason, nowMs, this.#options.random());
    } else if (outcome.kind !== "notStarted" && outcome.kind !== "died") {
      pace.answered();
    }
    const flight = this.#flightOf(ref);
    if (flight === undefined || flight.isReported) return false;
    flight.isReported = true;
    return true;
  }

  /** The depth of a page under way, as it stands; undefined: it is not. */
  depthOf(ref: HandoutRef): { depth: number; hops: number; seed: boolean; url: string } | undefined {
    const page = this.#flightOf(ref)?.page;
    return page && { depth: page.depth, hops: page.hops, seed: page.seed, url: page.url };
  }

  /** A report whose foreign links are accepted: settle it with its own ones. Answered with `id`, after commit. */
  settle(id: number, ref: HandoutRef, outcome: Outcome, own: readonly OfferedPage[]): void {
    this.#items.push({ kind: "report", id, ref, jobId: ref.jobId, outcome, admission: admissionOf(own) });
  }

  /** The report can't be taken further now: it will come again. */
  unheard(ref: HandoutRef): void {
    const flight = this.#flightOf(ref);
    if (flight !== undefined) flight.isReported = false;
  }

  started(ref: HandoutRef, agoMs: number, nowMs: number): void {
    this.#hosts.get(ref.host)?.pace.started(flightId(ref), nowMs - agoMs);
  }

  /** The runner has no such page, will never start it, and has no report: it is due again. */
  lost(ref: HandoutRef): void {
    const flight = this.#flightOf(ref);
    if (flight === undefined || flight.isReported) return;
    const pace = this.#hostOf(ref.host).pace;
    const wasStarted = pace.isKnownStarted(flightId(ref));
    pace.ended(flightId(ref));
    flight.isReported = true;
    this.#items.push({ kind: "lost", ref, jobId: ref.jobId, wasStarted });
  }

  /** Pages under way without a report that were handed out before `beforeMs`, by runner. */
  flightsByRunner(beforeMs: number): Map<string, HandoutRef[]> {
    const byRunner = new Map<string, HandoutRef[]>();
    for (const share of this.#jobs.values()) {
      for (const flight of share.flights.values()) {
        if (flight.isReported || flight.decidedAtMs > beforeMs) continue;
        const ref = {
          jobId: share.jobId,
          host: flight.queue.size.host,
          key: flight.page.key,
          handout: flight.handout,
        };
        const list = byRunner.get(flight.runner);
        if (list === undefined) byRunner.set(flight.runner, [ref]);
        else list.push(ref);
      }
    }
    return byRunner;
  }

  robotsFetched(
    host: string,
    origin: string,
    end:
      | {
          readonly kind: "answered";
          status: number;
          text: string;
          retryAfterMs: number | null;
          agoMs: number;
        }
      | { readonly kind: "notStarted" },
    nowMs: number,
  ): void {
    const site = this.#hostOf(host);
    const access = site.accessOf(origin, this.#options.robotsWaitMs);
    const id = robotsFlightId(origin);
    if (end.kind === "notStarted") {
      site.pace.notStarted(id);
      access.notFetched(nowMs);
      return;
    }
    site.pace.started(id, nowMs - end.agoMs);
    site.pace.ended(id);
    if (end.status === 429 || end.status === 503) {
      site.pace.refused("robots.txt unavailable", end.retryAfterMs, nowMs, this.#options.random());
    }
    access.fetched(end.status, end.text, nowMs, this.#options.random());
  }

  robotsStarted(host: string, origin: string, nowMs: number): void {
    this.#hosts.get(host)?.pace.started(robotsFlightId(origin), nowMs);
  }

  /** The job's state, as the answer to a question sent at `askedAtMs`. */
  confirmed(jobId: string, view: JobView, askedAtMs: number): void {
    const share = this.#jobs.get(jobId);
    if (share === undefined) return;
    share.confirm(view, askedAtMs);
    if (share.view !== undefined && isOver(share.view.status)) this.forget(jobId);
  }

  /** The job's leader tells a new status: what was confirmed before is void. */
  changed(jobId: string, status: JobView["status"], nowMs: number): void {
    const share = this.#jobs.get(jobId);
    if (share === undefined) return;
    share.forgetConfirmation(nowMs);
    if (share.view !== undefined) share.view = { ...share.view, status };
    if (isOver(status)) this.forget(jobId);
  }

  forgetConfirmation(jobId: string, nowMs: number): void {
    this.#jobs.get(jobId)?.forgetConfirmation(nowMs);
  }

  /** The job lists this partition, with this total of credits. */
  credited(jobId: string, granted: number): void {
    const share = this.#jobs.get(jobId);
    if (share === undefined) return;
    share.isParticipant = true;
    share.isDry = granted <= share.counts.granted;
    share.counts.granted = Math.max(share.counts.granted, granted);
  }

  /** Credits are short elsewhere: gives back the idle ones. Answered with `id`, after commit. */
  recall(id: number, jobId: string, granted: number): void {
    this.#items.push({ kind: "recall", id, jobId, granted });
  }

  /** The job is over or gone: all that is in memory of it is dropped, and all that waits is refused. */
  forget(jobId: string): void {
    this.#sharesAsked.delete(jobId);
    const share = this.#jobs.get(jobId);
    if (share !== undefined) {
      for (const [name, queue] of share.queues) this.#hosts.get(name)?.queues.delete(queue.jobId);
      for (const flight of share.flights.values()) {
        const { host } = flight.queue.size;
        const id = flightId({ jobId, host, key: flight.page.key, handout: flight.handout });
        this.#hosts.get(host)?.pace.ended(id);
      }
      this.#jobs.delete(jobId);
    }
    this.#items = this.#items.filter((item) => {
      if (item.jobId !== jobId) return true;
      if (item.kind !== "lost") this.#loose.push({ kind: "answer", id: item.id, answer: "refused" });
      return false;
    });
  }

  /** Hosts of a job that hold it up by more than a second. */
  waitingOn(jobId: string, nowMs: number, wallMs: number): Waiting[] {
    const waiting: Waiting[] = [];
    for (const [name, queue] of this.#jobs.get(jobId)?.queues ?? []) {
      if (queue.size.pending === 0 || waiting.length >= 8) continue;
      const host = this.#hosts.get(name);
      if (host === undefined) continue;
      const { delayMs } = this.#limitsOf(host);
      const head = queue.peek(Number.POSITIVE_INFINITY);
      const robots =
        head === undefined
          ? undefined
          : host.robots.get(originOf(head.page.url))?.ask(head.page.url, "", nowMs);
      const robotsAtMs = robots?.kind === "wait" ? (robots.atMs ?? 0) : 0;
      const paceAtMs = host.pace.readyAtMs(delayMs);
      const atMs = Math.max(paceAtMs, robotsAtMs, queue.readyAtMs ?? 0);
      if (atMs < nowMs + WAITING_SHOWN_MS) continue;
      const reason =
        robotsAtMs === atMs
          ? "robots.txt unavailable"
          : paceAtMs === atMs
            ? host.pace.reason || "delay between requests"
            : "retry";
      waiting.push({ host: name, until: Math.round(wallMs + atMs - nowMs), reason });
    }
    return waiting;
  }

  // --- the next batch -----------------------------------------------------------------------

  /** Makes the next batch. Not while an earlier one is under way. */
  advance(moment: Moment): Advance {
    const turn: Turn = {
      ...moment,
      draft: new Draft(),
      wants: {
        confirm: new Set(),
        credit: new Map(),
        shares: new Set(),
        hosts: new Set(),
        lookups: [],
        loads: [],
      },
      wakeAtMs: Number.POSITIVE_INFINITY,
      isSaturated: false,
      hasMemory: this.#hasMemory(),
      ageMsMax: Math.max(CONFIRMATION_MS, 3 * this.#roundTripMs),
    };
    turn.draft.effects.push(...this.#loose);
    this.#loose = [];
    this.#takeItems(turn);
    this.#handOut(turn);
    this.#storePaces(turn);
    for (const share of this.#jobs.values()) {
      if (share.lookups === 0) share.known.trim();
      // The first thing to find out about a job after a takeover: whether it is still on.
      if (share.view === undefined && share.pending > 0) turn.wants.confirm.add(share.jobId);
    }
    turn.draft.effects.push(...this.#loose);
    this.#loose = [];
    const { draft } = turn;
    return {
      batch: draft.isEmpty && draft.effects.length === 0 ? undefined : draft.close(),
      wants: turn.wants,
      wakeAtMs: turn.wakeAtMs === Number.POSITIVE_INFINITY ? undefined : turn.wakeAtMs,
      isSaturated: turn.isSaturated,
    };
  }

  #takeItems(turn: Turn): void {
    const items = this.#items;
    this.#items = [];
    const left: Item[] = [];
    // Settles first: they free slots and credits, and hold more than an offer does.
    for (const kind of ["lost", "report", "recall", "offer"] as const) {
      for (const item of items) {
        if (item.kind === kind && !this.#take(item, turn)) left.push(item);
      }
    }
    this.#items = left;
  }

  /** False: it has to wait. */
  #take(item: Item, turn: Turn): boolean {
    const share = this.#jobs.get(item.jobId);
    if (share === undefined) {
      if (item.kind === "lost") return true;
      if (item.kind === "report") return answered(item.id, turn);
      if (!this.#sharesAsked.has(item.jobId)) {
        this.#sharesAsked.add(item.jobId);
        turn.wants.shares.add(item.jobId);
      }
      return false;
    }
    switch (item.kind) {
      case "lost":
        return this.#takeLost(share, item, turn);
      case "report":
        return this.#takeReport(share, item, turn);
      case "recall":
        return this.#takeRecall(share, item, turn);
      case "offer":
        if (!this.#mayAccept(share, turn)) return false;
        if (!this.#admit(share, item.admission, turn)) return false;
        return answered(item.id, turn);
    }
  }

  #mayAccept(share: JobShare, turn: Turn): boolean {
    if (!share.isParticipant) {
      turn.wants.credit.set(share.jobId, 1);
      return false;
    }
    this.#renew(share, turn);
    return share.mayAccept(turn.nowMs, turn.ageMsMax);
  }

  #renew(share: JobShare, turn: Turn): void {
    if (share.confirmationAgeMs(turn.nowMs) >= RENEW_MS) turn.wants.confirm.add(share.jobId);
  }

  /** True when all of them are in; else what did fit is, and the rest waits. */
  #admit(share: JobShare, admission: Admission, turn: Turn): boolean {
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
        turn.wakeAtMs = turn.nowMs;
        return false;
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
    if (depth === SETTLED || depth <= offered.depth) return false;
    if (this.#pageInMemory(share, offered) !== undefined) return false;
    return !isFound || share.touched.has(offered.key) || admission.found.get(offered.key) === null;
  }

  #pageInMemory(share: JobShare, ref: { host: string; key: string }): Page | undefined {
    return share.flights.get(ref.key)?.page ?? share.queues.get(ref.host)?.find(ref.key);
  }

  #admitPage(share: JobShare, admission: Admission, offered: OfferedPage, turn: Turn): void {
    const { draft } = turn;
    const depth = share.known.depthOf(offered.key);
    if (depth === undefined) {
      const queue = this.#queueOf(share, offered.host);
      const page = newPage(offered, ++share.counts.seq);
      share.counts.discovered++;
      queue.size.discovered++;
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
    if (depth === SETTLED || depth <= offered.depth) return;
    const page = this.#pageInMemory(share, offered) ?? admission.found.get(offered.key);
    if (page === undefined || page === null || page.status !== "pending") return;
    page.depth = offered.depth;
    page.parent = offered.parent;
    share.known.set(page.key, page.depth);
    share.touch(page.key);
    draft.page(share.jobId, offered.host, page);
  }

  #hasMemory(): boolean {
    let pages = 0;
    for (const share of this.#jobs.values()) for (const queue of share.queues.values()) pages += queue.length;
    return pages < PAGES_IN_MEMORY_MAX;
  }

  #takeLost(share: JobShare, item: Item & { kind: "lost" }, turn: Turn): boolean {
    const flight = this.#flightOf(item.ref);
    if (flight === undefined) return true;
    if (!turn.draft.hasRoom(6)) return this.#later(turn);
    const { page } = flight;
    if (item.wasStarted) page.unreported++;
    if (page.unreported < UNREPORTED_MAX) {
      this.#dueAgain(share, flight, 0, turn);
      return true;
    }
    // The one verdict without a report; a settle like any other.
    this.#renew(share, turn);
    if (!share.mayAccept(turn.nowMs, turn.ageMsMax)) {
      page.unreported--;
      return false;
    }
    this.#conclude(share, flight, { kind: "failed", reason: "no report", status: null }, undefined, turn);
    return true;
  }

  #takeReport(share: JobShare, item: Item & { kind: "report" }, turn: Turn): boolean {
    const flight = this.#flightOf(item.ref);
    if (flight === undefined) return answered(item.id, turn);
    if (item.outcome.kind === "notStarted") {
      if (!turn.draft.hasRoom(6)) return this.#later(turn);
      this.#dueAgain(share, flight, NOT_STARTED_MS, turn);
      return answered(item.id, turn);
    }
    if (!this.#mayAccept(share, turn)) return false;
    if (!this.#admit(share, item.admission, turn)) return false;
    if (!turn.draft.hasRoom(8)) return this.#later(turn);
    const spec = share.view!.spec;
    const { page } = flight;
    page.unreported = 0;
    if (item.outcome.kind === "page" && item.outcome.found === null && page.depth < spec.scope.maxDepth) {
      // Found nearer to a seed while it was under way: its links count now.
      this.#dueAgain(share, flight, 0, turn);
      return answered(item.id, turn);
    }
    const verdict = verdictOf(
      item.outcome,
      page,
      { retries: spec.fetch.retries, maxRedirects: spec.fetch.maxRedirects },
      this.#options.random(),
    );
    this.#conclude(share, flight, verdict, item.outcome, turn);
    return answered(item.id, turn);
  }

  #conclude(
    share: JobShare,
    flight: Flight,
    verdict: Verdict,
    outcome: Outcome | undefined,
    turn: Turn,
  ): void {
    const { page, queue } = flight;
    const { counts } = share;
    const { host } = queue.size;
    if (verdict.kind === "again") {
      if (verdict.counts) page.attempts++;
      page.hops = verdict.hops;
      page.reason = verdict.reason;
      if (outcome?.kind === "died") {
        if (outcome.alone) page.deaths++;
        page.alone = true;
      }
      this.#dueAgain(share, flight, verdict.afterMs, turn);
      return;
    }
    share.flights.delete(page.key);
    turn.draft.due(share.jobId, host, flying(page), null);
    counts.servers[flight.runner] = (counts.servers[flight.runner] ?? 0) + 1;
    switch (verdict.kind) {
      case "done": {
        assert(outcome?.kind === "page");
        // Holds by construction: the page held a credit since it was handed out.
        assert(counts.spent < counts.granted - counts.returned, "a result without a credit");
        counts.results++;
        counts.spent++;
        counts.bytes += outcome.bytes;
        page.result = counts.results;
        turn.draft.write({
          kind: "result",
          jobId: share.jobId,
          n: counts.results,
          result: {
            url: page.url,
            finalUrl: outcome.finalUrl,
            key: page.key,
            status: outcome.status,
            contentType: outcome.contentType,
            fetchedAtMs: outcome.fetchedAtMs,
            depth: page.depth,
            parent: page.parent,
            attempt: page.handouts,
            durationMs: outcome.durationMs,
            bytes: outcome.bytes,
            sha256: outcome.sha256,
            content: outcome.content,
          },
        });
        this.#end(share, queue, page, "done", null, turn);
        return;
      }
      case "redirected":
        this.#end(share, queue, page, "skipped", "redirect", turn);
        return;
      case "failed":
        this.#fail(share, queue, page, verdict.reason, verdict.status, turn);
        return;
    }
  }

  #fail(
    share: JobShare,
    queue: HostQueue,
    page: Page,
    reason: string,
    status: number | null,
    turn: Turn,
  ): void {
    share.counts.failures++;
    turn.draft.write({
      kind: "failure",
      jobId: share.jobId,
      n: share.counts.failures,
      failure: {
        url: page.url,
        key: page.key,
        reason,
        status,
        attempts: page.handouts,
        failedAtMs: turn.wallMs,
      },
    });
    this.#end(share, queue, page, "failed", reason, turn);
  }

  #end(
    share: JobShare,
    queue: HostQueue,
    page: Page,
    status: "done" | "failed" | "skipped",
    reason: string | null,
    turn: Turn,
  ): void {
    share.counts[status]++;
    queue.size.pending--;
    page.status = status;
    page.reason = reason;
    share.known.set(page.key, SETTLED);
    share.touch(page.key);
    turn.draft.page(share.jobId, queue.size.host, page);
    turn.draft.counts(share);
    turn.draft.size(queue);
    if (share.pending === 0) turn.draft.effects.push({ kind: "emptied", jobId: share.jobId });
  }

  #dueAgain(share: JobShare, flight: Flight, afterMs: number, turn: Turn): void {
    const { page, queue } = flight;
    share.flights.delete(page.key);
    turn.draft.due(share.jobId, queue.size.host, flying(page), null);
    page.seq = ++share.counts.seq;
    page.dueForMs = afterMs;
    page.dueAtMs = afterMs === 0 ? 0 : turn.wallMs + afterMs;
    share.touch(page.key);
    turn.draft.page(share.jobId, queue.size.host, page);
    turn.draft.due(share.jobId, queue.size.host, waiting(page), { key: page.key, flight: null });
    turn.draft.counts(share);
    queue.push(page, turn.nowMs + afterMs, turn.hasMemory);
  }

  #takeRecall(share: JobShare, item: Item & { kind: "recall" }, turn: Turn): boolean {
    share.counts.granted = Math.max(share.counts.granted, item.granted);
    const idle = this.#idleCredits(share, turn.nowMs);
    if (idle > 0) share.counts.returned += idle;
    turn.draft.counts(share);
    return answered(item.id, turn);
  }

  #idleCredits(share: JobShare, nowMs: number): number {
    const free = share.free;
    if (free <= 0) return 0;
    const isRunning = share.view?.status === "running";
    let soon = false;
    for (const [name, queue] of share.queues) {
      if (!isRunning || queue.size.pending === 0) continue;
      const host = this.#hosts.get(name);
      if (host === undefined) continue;
      const atMs = Math.max(host.pace.readyAtMs(this.#limitsOf(host).delayMs), queue.readyAtMs ?? nowMs);
      if (atMs <= nowMs + IDLE_CREDIT_MS) soon = true;
    }
    if (!soon) return free;
    return Math.max(0, free - (share.pending - share.flights.size));
  }

  // --- hand-out -----------------------------------------------------------------------------

  #handOut(turn: Turn): void {
    for (const host of [...this.#hosts.values()]) {
      const before = host.pace.underWay;
      this.#handOutFrom(host, turn);
      if (host.pace.underWay > before && this.#hosts.size > 1) {
        // Those served go to the end: the next free runner is for someone else.
        this.#hosts.delete(host.name);
        this.#hosts.set(host.name, host);
      }
      this.#dropIdle(host, turn.nowMs);
    }
  }

  #handOutFrom(host: SiteHost, turn: Turn): void {
    const { nowMs } = turn;
    while (true) {
      const { delayMs, concurrency } = this.#limitsOf(host);
      if (host.pace.underWay >= concurrency || host.queues.size === 0) return;
      const readyAtMs = host.pace.readyAtMs(delayMs);
      if (nowMs < readyAtMs) {
        const askAtMs = readyAtMs - ASK_AHEAD_MS;
        const isNear = nowMs >= askAtMs;
        if (isNear) {
          for (const queue of host.queues.values()) {
            const share = this.#jobs.get(queue.jobId)!;
            if (queue.size.pending > 0 && share.view?.status === "running" && share.free > 0) {
              this.#renew(share, turn);
            }
          }
        }
        turn.wakeAtMs = Math.min(turn.wakeAtMs, isNear ? readyAtMs : askAtMs);
        return;
      }
      if (!this.#handOutOne(host, delayMs, turn)) return;
    }
  }

  /** True: something was handed out or settled, there may be more. */
  #handOutOne(host: SiteHost, delayMs: number, turn: Turn): boolean {
    const { nowMs } = turn;
    for (const queue of [...host.queues.values()]) {
      const share = this.#jobs.get(queue.jobId)!;
      if (queue.size.pending === 0) continue;
      if (queue.wantsLoad) {
        queue.loading();
        turn.wants.loads.push(queue);
      }
      const queued = queue.peek(nowMs);
      if (queued === undefined) {
        const atMs = queue.readyAtMs;
        if (atMs !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, atMs);
        continue;
      }
      if (share.view === undefined) {
        turn.wants.confirm.add(share.jobId);
        continue;
      }
      if (share.view.status !== "running" || share.flights.size >= FLIGHTS_MAX) continue;
      if (host.state !== "ready") {
        if (host.state === "new") {
          host.state = "loading";
          turn.wants.hosts.add(host.name);
        }
        return false;
      }
      this.#wantCredit(share, turn);
      if (share.free <= 0) continue;
      this.#renew(share, turn);
      if (!share.mayHandOut(nowMs, turn.ageMsMax)) continue;
      if (!turn.draft.hasRoom(8)) {
        this.#later(turn);
        return false;
      }
      if (share.view.spec.politeness.robots) {
        const { userAgent } = share.view.spec.politeness;
        const { page } = queued;
        const access = host.accessOf(originOf(page.url), this.#options.robotsWaitMs);
        const answer = access.ask(page.url, userAgent, nowMs);
        if (answer.kind === "fetch") {
          const startWithinMs = this.#startWithinMs(share, nowMs);
          access.fetching();
          host.pace.decide(robotsFlightId(access.origin), nowMs, startWithinMs, delayMs);
          turn.draft.effects.push({
            kind: "fetchRobots",
            host: host.name,
            origin: access.origin,
            userAgent,
            startBeforeMs: nowMs + startWithinMs,
          });
          return true;
        }
        if (answer.kind === "wait") {
          if (answer.atMs !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, answer.atMs);
          continue;
        }
        if (answer.kind === "disallowed" || answer.kind === "unreachable") {
          queue.remove(queued);
          turn.draft.due(share.jobId, host.name, waiting(page), null);
          if (answer.kind === "disallowed") this.#end(share, queue, page, "skipped", "robots", turn);
          else this.#fail(share, queue, page, "robots-unreachable", null, turn);
          return true;
        }
        const crawlDelayMs = access.crawlDelayMs(userAgent);
        // Known only now that the file is here: the next look at the pace counts it.
        if (crawlDelayMs > delayMs && host.pace.readyAtMs(crawlDelayMs) > nowMs) return true;
      }
      const runner = turn.nextRunner();
      if (runner === undefined) {
        turn.isSaturated = true;
        return false;
      }
      this.#depart(share, host, queue, queued, runner, delayMs, turn);
      return true;
    }
    return false;
  }

  #depart(
    share: JobShare,
    host: SiteHost,
    queue: HostQueue,
    queued: { readonly page: Page; readyAtMs: number },
    runner: Runner,
    delayMs: number,
    turn: Turn,
  ): void {
    const { page } = queued;
    const { jobId } = share;
    queue.remove(queued);
    host.rotate(queue);
    page.handouts++;
    const handout = page.handouts;
    const startWithinMs = this.#startWithinMs(share, turn.nowMs);
    share.flights.set(page.key, {
      page,
      queue,
      handout,
      runner: runner.nodeId,
      decidedAtMs: turn.nowMs,
      isReported: false,
    });
    host.pace.decide(
      flightId({ jobId, host: host.name, key: page.key, handout }),
      turn.nowMs,
      startWithinMs,
      delayMs,
    );
    turn.draft.due(jobId, host.name, waiting(page), null);
    turn.draft.due(jobId, host.name, flying(page), {
      key: page.key,
      flight: { handout, runner: runner.nodeId },
    });
    turn.draft.counts(share);
    turn.draft.effects.push({
      kind: "run",
      jobId,
      host: host.name,
      url: page.url,
      key: page.key,
      depth: page.depth,
      alone: page.alone,
      handout,
      runner: runner.nodeId,
      runnerTimeMs: runner.timeMs,
      startWithinMs,
    });
  }

  #startWithinMs(share: JobShare, nowMs: number): number {
    const left = Math.min(START_WITHIN_MS_MAX, 2 * CONFIRMATION_MS - share.confirmationAgeMs(nowMs));
    return Math.max(left, this.#roundTripMs);
  }

  #wantCredit(share: JobShare, turn: Turn): void {
    const open = share.pending - share.flights.size;
    if (share.free < Math.min(CREDITS_LOW, open)) turn.wants.credit.set(share.jobId, Math.min(64, open));
  }

  /** The larger delay and the smaller concurrency of all jobs that want something of this host now. */
  #limitsOf(host: SiteHost): { delayMs: number; concurrency: number } {
    let [delayMs, concurrency] = [0, Number.POSITIVE_INFINITY];
    for (const queue of host.queues.values()) {
      const view = this.#jobs.get(queue.jobId)?.view;
      if (queue.size.pending === 0 || view?.status !== "running") continue;
      const { politeness } = view.spec;
      delayMs = Math.max(delayMs, politeness.delayMs);
      concurrency = Math.min(concurrency, politeness.concurrencyPerHost);
      if (politeness.robots) {
        for (const access of host.robots.values()) {
          delayMs = Math.max(delayMs, access.crawlDelayMs(politeness.userAgent));
        }
      }
    }
    return { delayMs, concurrency };
  }

  #storePaces(turn: Turn): void {
    for (const host of this.#hosts.values()) {
      if (host.state !== "ready") {
        // What the store knows comes first: it must not be written over.
        if (host.pace.isDirty && host.state === "new") {
          host.state = "loading";
          turn.wants.hosts.add(host.name);
        }
        continue;
      }
      if (host.pace.isDirty && turn.draft.hasRoom(1)) {
        host.pace.isDirty = false;
        turn.draft.write({ kind: "pace", record: host.pace.record(turn.nowMs, turn.wallMs) });
      }
      for (const access of host.robots.values()) {
        if (!access.isDirty || !turn.draft.hasRoom(1)) continue;
        access.isDirty = false;
        turn.draft.write({ kind: "robots", record: access.record(turn.nowMs, turn.wallMs) });
      }
    }
  }

  /** A host that nobody wants anything of is forgotten, but not before its pace is quiet. */
  #dropIdle(host: SiteHost, nowMs: number): void {
    if (host.queues.size > 0 || host.pace.underWay > 0 || host.pace.isDirty) {
      host.idleSinceMs = undefined;
      return;
    }
    host.idleSinceMs ??= nowMs;
    if (nowMs - host.idleSinceMs > HOST_IDLE_MS) this.#hosts.delete(host.name);
  }

  #later(turn: Turn): false {
    turn.wakeAtMs = turn.nowMs;
    return false;
  }

  #flightOf(ref: HandoutRef): Flight | undefined {
    const flight = this.#jobs.get(ref.jobId)?.flights.get(ref.key);
    return flight?.handout === ref.handout ? flight : undefined;
  }

  #hostOf(name: string): SiteHost {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      host = new SiteHost(name);
      this.#hosts.set(name, host);
    }
    return host;
  }

  #queueOf(share: JobShare, name: string): HostQueue {
    const queue = share.queues.get(name);
    if (queue !== undefined) return queue;
    const size = { jobId: share.jobId, host: name, discovered: 0, pending: 0 };
    return this.#addQueue(share, new HostQueue(share.jobId, size, false));
  }

  #addQueue(share: JobShare, queue: HostQueue): HostQueue {
    share.queues.set(queue.size.host, queue);
    this.#hostOf(queue.size.host).queues.set(share.jobId, queue);
    return queue;
  }
}

interface Turn extends Moment {
  readonly draft: Draft;
  readonly wants: FrontierWants;
  readonly ageMsMax: number;
  /** For more due pages than the heads of queues need. */
  readonly hasMemory: boolean;
  wakeAtMs: number;
  isSaturated: boolean;
}

function admissionOf(pages: readonly OfferedPage[]): Admission {
  return { pages, next: 0, lookup: "none", found: new Map() };
}

function answered(id: number, turn: Turn): true {
  turn.draft.effects.push({ kind: "answer", id, answer: "accepted" });
  return true;
}

function flightId(ref: HandoutRef): string {
  return `${ref.jobId}/${ref.key}/${ref.handout}`;
}

function robotsFlightId(origin: string): string {
  return `robots ${origin}`;
}

function waiting(page: Page) {
  return { band: "waiting", priority: page.priority, seq: page.seq } as const;
}

function flying(page: Page) {
  return { band: "flying", priority: page.priority, seq: page.seq } as const;
}
