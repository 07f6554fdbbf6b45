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
import { type Counts, noCounts } from "../job/counts.ts";
import { ROBOTS_UNAVAILABLE, type Waiting } from "../job/job-spec.ts";
import { isOver } from "../job/life-cycle.ts";
import { Admissions, admissionOf } from "./admission.ts";
import { Draft, type FrontierEffect, type TakeWant } from "./draft.ts";
import { Flights, type RobotsEnd } from "./flights.ts";
import {
  type Advance,
  answered,
  type FlightRecord,
  type FrontierOptions,
  FrontierState,
  flightId,
  type HandoutRef,
  type Moment,
  type Turn,
} from "./frontier-state.ts";
import { HandOut } from "./hand-out.ts";
import { HostQueue } from "./host-queue.ts";
import type { HandedPage, OutRecord } from "./host-spread.ts";
import { CONFIRMATION_MS, JobShare, type JobView } from "./job-share.ts";
import { type ContentChunk, ContentWindow } from "./known-contents.ts";
import { SETTLED } from "./known-pages.ts";
import { type OfferedPage, originOf, type Page, type Size } from "./page.ts";
import { PartHandOut } from "./part-hand-out.ts";
import type { PaceRecord } from "./politeness.ts";
import type { RobotsRecord } from "./robots-access.ts";
import { type Item, Settlement } from "./settlement.ts";
import { type TrapRecord, TrapScores } from "./trap.ts";
import { AS_IT_IS, canonicalOf, type Judgement, type Outcome } from "./verdict.ts";

const WAITING_SHOWN_MS = 1_000;
/** How long a part looks for a page that it may hand out. */
const NEXT_WAIT_MS = 300;

export class Frontier {
  readonly #state: FrontierState;
  readonly #admissions: Admissions;
  readonly #settlement: Settlement;
  readonly #parts: PartHandOut;
  readonly #handOut: HandOut;
  readonly #flights: Flights;
  // Jobs whose share is being read from the store.
  readonly #sharesAsked = new Set<string>();
  // In order of arrival.
  #items: Item[] = [];
  // Effects that need no commit: answers about jobs that are over.
  #loose: FrontierEffect[] = [];

  constructor(options: FrontierOptions) {
    this.#state = new FrontierState(options);
    this.#admissions = new Admissions(this.#state);
    this.#settlement = new Settlement(this.#state, this.#admissions);
    this.#parts = new PartHandOut(this.#state, this.#settlement);
    this.#handOut = new HandOut(this.#state, this.#settlement, this.#parts);
    this.#flights = new Flights(this.#state);
  }

  countsOf(jobId: string): Counts | undefined {
    return this.#state.jobs.get(jobId)?.counts;
  }

  /** Jobs that have something here. */
  get jobs(): number {
    return this.#state.jobs.size;
  }

  viewOf(jobId: string): JobView | undefined {
    return this.#state.jobs.get(jobId)?.view;
  }

  isParticipant(jobId: string): boolean {
    return this.#state.jobs.get(jobId)?.isParticipant ?? false;
  }

  /** A round trip to the leader of a job, as measured: confirmations live for three of them. */
  roundTrip(ms: number): void {
    this.#state.roundTripMs = this.#state.roundTripMs === 0 ? ms : this.#state.roundTripMs * 0.8 + ms * 0.2;
  }

  // --- what the store held ------------------------------------------------------------------

  /** @param counts undefined: the partition has nothing of this job yet. */
  restoreShare(
    jobId: string,
    counts: Counts | undefined,
    sizes: readonly Size[],
    flights: readonly FlightRecord[],
    nowMs: number,
    traps: readonly TrapRecord[] = [],
    outs: readonly OutRecord[] = [],
  ): void {
    this.#sharesAsked.delete(jobId);
    if (this.#state.jobs.has(jobId)) return;
    const share = new JobShare(counts ?? noCounts(jobId), counts === undefined);
    this.#state.jobs.set(jobId, share);
    for (const { host, patterns } of traps) share.traps.set(host, new TrapScores(patterns));
    for (const size of sizes)
      this.#state.addQueue(share, new HostQueue(jobId, { ...size }, size.pending > 0));
    for (const { host, full } of sizes) if (full) this.#state.spread(share, host, true);
    for (const { host, key, handout, runner } of outs) {
      const ref = { jobId, host, key, handout };
      share.outs.set(key, { ref, runner, decidedAtMs: Number.NEGATIVE_INFINITY });
      this.#state.hostOf(host).pace.adopt(flightId(ref), nowMs);
    }
    for (const { page, host, handout, runner } of flights) {
      const queue = share.queues.get(host);
      if (queue === undefined) continue;
      page.handouts = Math.max(page.handouts, handout);
      const decidedAtMs = Number.NEGATIVE_INFINITY;
      share.flights.set(page.key, { page, queue, handout, runner, decidedAtMs, isReported: false });
      share.known.set(page.key, page.depth);
      this.#state.hostOf(host).pace.adopt(flightId({ jobId, host, key: page.key, handout }), nowMs);
    }
  }

  restoreHost(
    name: string,
    pace: PaceRecord | undefined,
    robots: readonly RobotsRecord[],
    nowMs: number,
    wallMs: number,
  ): void {
    const host = this.#state.hostOf(name);
    if (host.state === "ready") return;
    host.state = "ready";
    if (pace !== undefined) host.pace.restore(pace, nowMs, wallMs);
    for (const record of robots) {
      host.accessOf(record.origin, this.#state.options.robotsWaitMs).restore(record, nowMs, wallMs);
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
    const share = this.#state.jobs.get(jobId);
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
    this.#admissions.lookedUp(id, found);
  }

  /** What the host said so far in this job. */
  restoreContents(jobId: string, host: string, chunks: readonly ContentChunk[]): void {
    if (!this.#state.jobs.has(jobId) || this.#state.contents.windowOf(jobId, host) !== undefined) return;
    this.#state.contents.put(new ContentWindow(jobId, host, chunks));
  }

  // --- what comes in ------------------------------------------------------------------------

  /** Answered with `id`, after commit. Pages of hosts that belong to this partition. */
  offer(id: number, jobId: string, pages: readonly OfferedPage[]): void {
    this.#items.push({ kind: "offer", id, jobId, admission: admissionOf(pages) });
  }

  /**
   * A report has arrived: takes effect on the host's pace at once, whether or not
   * anyone still waits for it. False: nobody does.
   *
   * @param latencyMs until the head of an answer had arrived; null: there was none.
   */
  heardReport(
    ref: HandoutRef,
    agoMs: number,
    outcome: Outcome,
    nowMs: number,
    latencyMs: number | null = null,
  ): boolean {
    return this.#flights.heardReport(ref, agoMs, outcome, nowMs, latencyMs);
  }

  /** A page under way, as it stands; undefined: it is not. */
  pageOf(ref: HandoutRef): Readonly<Page> | undefined {
    return this.#state.flightOf(ref)?.page;
  }

  /**
   * Whether the page makes room for another, or repeats what its host has said. "unread": that must be restored first
   * (`restoreContents`).
   */
  judge(ref: HandoutRef, outcome: Outcome): Judgement | "unread" {
    const page = this.pageOf(ref);
    if (outcome.kind !== "page" || page === undefined) return AS_IT_IS;
    const canonical = canonicalOf(outcome, page);
    if (canonical !== null) return { canonical, repetition: {} };
    const window = this.#state.contents.windowOf(ref.jobId, ref.host);
    if (window === undefined) return "unread";
    return { canonical, repetition: window.judge(ref.key, outcome.sha256, outcome.simhash) };
  }

  /** A report whose foreign links are accepted: settle it with its own ones. Answered with `id`, after commit. */
  settle(
    id: number,
    ref: HandoutRef,
    outcome: Outcome,
    own: readonly OfferedPage[],
    judgement: Judgement = AS_IT_IS,
  ): void {
    const admission = admissionOf(own);
    this.#items.push({ kind: "report", id, ref, jobId: ref.jobId, outcome, judgement, admission });
  }

  /** What a leader has read from its own copy: the report of it is on the way. */
  heardOwn(ref: HandoutRef): void {
    this.#flights.heardOwn(ref);
  }

  /** The report can't be taken further now: it will come again. */
  unheard(ref: HandoutRef): void {
    this.#flights.unheard(ref);
  }

  started(ref: HandoutRef, agoMs: number, nowMs: number): void {
    this.#flights.started(ref, agoMs, nowMs);
  }

  /** The runner has no such page, will never start it, and has no report: it is due again. */
  lost(ref: HandoutRef): void {
    if (this.#flights.isOut(ref)) {
      this.#state.hostOf(ref.host).pace.ended(flightId(ref));
      this.#items.push({ kind: "landed", id: null, ref, jobId: ref.jobId });
      return;
    }
    const lost = this.#flights.lost(ref);
    if (lost !== undefined) this.#items.push({ kind: "lost", ref, jobId: ref.jobId, ...lost });
  }

  /** It is of a host that is paced here and stored elsewhere. */
  isOut(ref: HandoutRef): boolean {
    return this.#flights.isOut(ref);
  }

  /** A request whose report goes to another partition is over. Answered with `id`, after commit. */
  landed(id: number, ref: HandoutRef): void {
    this.#items.push({ kind: "landed", id, ref, jobId: ref.jobId });
  }

  /** The owner of a host that is spread wants pages of it, one for each runner. Answered with `id`, after commit. */
  next(id: number, jobId: string, host: string, runners: readonly string[], nowMs: number): void {
    this.#items.push({ kind: "next", id, jobId, host, runners, untilMs: nowMs + NEXT_WAIT_MS });
  }

  /** The parts of large hosts have what they were given. */
  forwarded(id: number): void {
    this.#admissions.forwarded(id);
  }

  /** What a part had; undefined: no answer. Returns the runners whose places are not needed. */
  took(
    want: TakeWant,
    answer: { readonly pages: readonly HandedPage[]; readonly left: number } | undefined,
    nowMs: number,
  ): string[] {
    const { jobId, host, partition } = want;
    const spread = this.#state.hosts.get(host)?.spreads.get(jobId);
    if (spread === undefined) return [...want.runners];
    spread.answered(partition, want.runners.length, answer, nowMs);
    const unused = [...want.runners];
    for (const { runner } of answer?.pages ?? []) unused.splice(unused.indexOf(runner), 1);
    return unused;
  }

  /** Runners of pages that wait here for their host. */
  waitingRunners(): string[] {
    const runners: string[] = [];
    for (const host of this.#state.hosts.values()) {
      for (const spread of host.spreads.values()) runners.push(...spread.taken.map(({ runner }) => runner));
    }
    return runners;
  }

  /** Pages under way without a report that were handed out before `beforeMs`, by runner. */
  flightsByRunner(beforeMs: number): Map<string, HandoutRef[]> {
    return this.#flights.byRunner(beforeMs);
  }

  robotsFetched(host: string, origin: string, end: RobotsEnd, nowMs: number): void {
    this.#flights.robotsFetched(host, origin, end, nowMs);
  }

  robotsStarted(host: string, origin: string, nowMs: number): void {
    this.#flights.robotsStarted(host, origin, nowMs);
  }

  /** The job's state, as the answer to a question sent at `askedAtMs`. */
  confirmed(jobId: string, view: JobView, askedAtMs: number): void {
    const share = this.#state.jobs.get(jobId);
    if (share === undefined) return;
    share.confirm(view, askedAtMs);
    if (share.view !== undefined && isOver(share.view.status)) this.forget(jobId);
  }

  /** The job's leader tells a new status: what was confirmed before is void. */
  changed(jobId: string, status: JobView["status"], nowMs: number): void {
    const share = this.#state.jobs.get(jobId);
    if (share === undefined) return;
    share.forgetConfirmation(nowMs);
    if (share.view !== undefined) share.view = { ...share.view, status };
    if (isOver(status)) this.forget(jobId);
  }

  forgetConfirmation(jobId: string, nowMs: number): void {
    this.#state.jobs.get(jobId)?.forgetConfirmation(nowMs);
  }

  /** The job lists this partition, with this total of credits. */
  credited(jobId: string, granted: number): void {
    const share = this.#state.jobs.get(jobId);
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
    const share = this.#state.jobs.get(jobId);
    if (share !== undefined) {
      for (const [name, queue] of share.queues) this.#state.hosts.get(name)?.queues.delete(queue.jobId);
      for (const flight of share.flights.values()) {
        const { host } = flight.queue.size;
        const id = flightId({ jobId, host, key: flight.page.key, handout: flight.handout });
        this.#state.hosts.get(host)?.pace.ended(id);
      }
      for (const { ref } of share.outs.values()) this.#state.hosts.get(ref.host)?.pace.ended(flightId(ref));
      this.#forgetSpreads(jobId);
      this.#state.jobs.delete(jobId);
      this.#state.contents.forgetJob(jobId);
    }
    this.#items = this.#items.filter((item) => {
      if (item.jobId !== jobId) return true;
      if (item.kind === "next") this.#loose.push({ kind: "handed", id: item.id, pages: [], left: 0 });
      else if (item.kind !== "lost" && item.id !== null)
        this.#loose.push({ kind: "answer", id: item.id, answer: "refused" });
      return false;
    });
  }

  /** What parts have handed out for it goes nowhere; they hear that the job is over by themselves. */
  #forgetSpreads(jobId: string): void {
    for (const host of this.#state.hosts.values()) {
      for (const { key, handout, runner, partition } of host.spreads.get(jobId)?.taken ?? []) {
        const ref = { jobId, host: host.name, key, handout };
        const outcome = { kind: "notStarted", reason: "the job is over" } as const;
        this.#loose.push({ kind: "returned", ref, partition, runner, outcome });
      }
      host.spreads.delete(jobId);
    }
  }

  /** Hosts of a job that hold it up by more than a second. */
  waitingOn(jobId: string, nowMs: number, wallMs: number): Waiting[] {
    const waiting: Waiting[] = [];
    for (const [name, queue] of this.#state.jobs.get(jobId)?.queues ?? []) {
      const host = this.#state.hosts.get(name);
      if (host === undefined || !host.isMain || waiting.length >= 8) continue;
      if (queue.size.pending === 0 && host.spreads.get(jobId)?.isOpen !== true) continue;
      const { delayMs } = this.#state.limitsOf(host);
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
          ? ROBOTS_UNAVAILABLE
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
        forwards: [],
        takes: [],
      },
      wakeAtMs: Number.POSITIVE_INFINITY,
      isSaturated: false,
      hasMemory: this.#state.hasMemory(),
      ageMsMax: Math.max(CONFIRMATION_MS, 3 * this.#state.roundTripMs),
    };
    turn.draft.effects.push(...this.#loose);
    this.#loose = [];
    this.#takeItems(turn);
    this.#handOut.handOut(turn);
    this.#handOut.storePaces(turn);
    const knownMax = this.#state.options.memory?.knownMax();
    for (const share of this.#state.jobs.values()) {
      if (share.lookups === 0) share.known.trim(knownMax);
      // The first thing to find out about a job after a takeover: whether it is still on.
      if (share.view === undefined && (share.pending > 0 || share.counts.large > 0))
        turn.wants.confirm.add(share.jobId);
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
    for (const kind of ["landed", "lost", "report", "recall", "next", "offer"] as const) {
      for (const item of items) {
        if (item.kind === kind && !this.#take(item, turn)) left.push(item);
      }
    }
    this.#items = left;
  }

  /** False: it has to wait. */
  #take(item: Item, turn: Turn): boolean {
    const share = this.#state.jobs.get(item.jobId);
    if (share === undefined) {
      if (item.kind === "lost" || (item.kind === "landed" && item.id === null)) return true;
      if (item.kind === "report" || item.kind === "landed") return answered(item.id!, turn);
      if (!this.#sharesAsked.has(item.jobId)) {
        this.#sharesAsked.add(item.jobId);
        turn.wants.shares.add(item.jobId);
      }
      return false;
    }
    switch (item.kind) {
      case "lost":
        return this.#settlement.takeLost(share, item, turn);
      case "report":
        return this.#settlement.takeReport(share, item, turn);
      case "landed":
        return this.#parts.takeLanded(share, item, turn);
      case "next":
        return this.#parts.takeNext(share, item, turn);
      case "recall":
        return this.#settlement.takeRecall(share, item, turn);
      case "offer":
        if (!this.#state.mayAccept(share, turn)) return false;
        if (!this.#admissions.admit(share, item.admission, turn)) return false;
        return answered(item.id, turn);
    }
  }
}
