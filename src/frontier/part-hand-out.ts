/**
 * Hand-outs of a large host, whose pages lie in several partitions: a part gives
 * pages to the main, which paces the host and lets them go. If either dies in
 * between, the page is under way at its part and with no runner, which the runner
 * itself says when it is asked; then it is due again.
 */
import {
  answered,
  type FrontierState,
  flightId,
  type HandoutRef,
  later,
  type Turn,
} from "./frontier-state.ts";
import type { HostSpread, TakenPage } from "./host-spread.ts";
import type { JobShare } from "./job-share.ts";
import { originOf } from "./page.ts";
import type { Item, Settlement } from "./settlement.ts";
import type { SiteHost } from "./site-host.ts";

/** Asked for at once, however many places a host has. */
const PLACES_MAX = 16;
/** A runner that is asked about a page later than this says that it has none. */
const TAKEN_MS_MAX = 600;
/** Pages of one job that a part has handed out and not settled. */
const FLIGHTS_MAX = 256;

export class PartHandOut {
  readonly #state: FrontierState;
  readonly #settlement: Settlement;

  constructor(state: FrontierState, settlement: Settlement) {
    this.#state = state;
    this.#settlement = settlement;
  }

  // --- the part -----------------------------------------------------------------------------

  /** Pages for the host's owner. False: there is something, but not now; the question waits a while. */
  takeNext(share: JobShare, item: Item & { kind: "next" }, turn: Turn): boolean {
    const queue = share.queues.get(item.host);
    if (queue === undefined || queue.size.pending === 0) {
      // Nothing of the job is here: it is not kept in mind for that question.
      if (share.counts.discovered === 0) this.#state.jobs.delete(share.jobId);
      return this.#give(item, [], 0, turn);
    }
    this.#state.hostOf(item.host).askedAtMs = turn.nowMs;
    const pages: TakenPage[] = [];
    for (const runner of item.runners) {
      if (queue.wantsLoad && (turn.hasMemory || !queue.isLongEnough)) {
        queue.loading(turn.hasMemory);
        turn.wants.loads.push(queue);
      }
      let queued = queue.peek(turn.nowMs);
      if (queued === undefined || share.flights.size >= FLIGHTS_MAX) break;
      const open = share.pending - share.flights.size;
      if (share.free < Math.min(PLACES_MAX, open)) turn.wants.credit.set(share.jobId, open);
      // Without a credit it does not ask how the job is, or no round would ever hold.
      if (share.free <= 0) break;
      this.#state.renew(share, turn);
      if (!share.mayHandOut(turn.nowMs, turn.ageMsMax)) break;
      while (queued !== undefined && share.traps.get(item.host)?.isTrapped(queued.page.url) === true) {
        if (!turn.draft.hasRoom(8)) break;
        queue.remove(queued);
        this.#settlement.skipTrapped(share, queue, queued.page, turn);
        queued = queue.peek(turn.nowMs);
      }
      if (queued === undefined || !turn.draft.hasRoom(8)) break;
      const { page } = queued;
      const handout = this.#state.takeOut(share, queue, queued, runner, turn);
      // Nothing is paced here; it is noted when the request is known to have started.
      this.#state
        .hostOf(item.host)
        .pace.decide(
          flightId({ jobId: share.jobId, host: item.host, key: page.key, handout }),
          turn.nowMs,
          0,
          0,
        );
      const sitemapPart = page.sitemap?.part ?? null;
      const { url, key, depth, alone } = page;
      pages.push({
        ...{ url, key, depth, sitemapPart, alone, handout, runner },
        partition: 0,
        takenAtMs: turn.nowMs,
      });
    }
    const left = queue.size.pending - [...share.flights.values()].filter((f) => f.queue === queue).length;
    if (pages.length > 0 || left === 0 || turn.nowMs >= item.untilMs) {
      // What is under way may come back: it has to be asked for again.
      return this.#give(item, pages, Math.max(left, queue.size.pending - pages.length), turn);
    }
    const readyAtMs = queue.readyAtMs ?? 0;
    turn.wakeAtMs = Math.min(turn.wakeAtMs, readyAtMs > turn.nowMs ? readyAtMs : item.untilMs, item.untilMs);
    return false;
  }

  #give(item: Item & { kind: "next" }, pages: readonly TakenPage[], left: number, turn: Turn): true {
    turn.draft.effects.push({
      kind: "handed",
      id: item.id,
      pages: pages.map(({ partition: _, takenAtMs: __, ...page }) => page),
      left,
    });
    return true;
  }

  // --- the main -----------------------------------------------------------------------------

  /** Asks a part for as many pages as there are places; true: it did. */
  ask(share: JobShare, host: SiteHost, spread: HostSpread, places: number, turn: Turn): boolean {
    const partition = spread.next(turn.nowMs);
    if (partition === undefined) {
      const atMs = spread.readyAtMs;
      if (atMs !== undefined && atMs > turn.nowMs) turn.wakeAtMs = Math.min(turn.wakeAtMs, atMs);
      return false;
    }
    // Known to be running once; whether it still is, the part finds out, and this again before anything leaves.
    if (share.view?.status !== "running") {
      if (share.view === undefined) turn.wants.confirm.add(share.jobId);
      return false;
    }
    const runners: string[] = [];
    while (runners.length < Math.min(places, PLACES_MAX)) {
      const runner = turn.nextRunner();
      if (runner === undefined) break;
      runners.push(runner.nodeId);
    }
    if (runners.length === 0) {
      turn.isSaturated = true;
      return false;
    }
    spread.ask(partition, runners.length);
    turn.wants.takes.push({ jobId: share.jobId, host: host.name, partition, runners });
    return true;
  }

  /** Lets go what parts have handed out, as far as the host may be asked. */
  departTaken(host: SiteHost, turn: Turn): void {
    for (const [jobId, spread] of host.spreads) {
      const share = this.#state.jobs.get(jobId)!;
      spread.taken = spread.taken.filter((page) => !this.#depart(share, host, spread, page, turn));
      const oldest = spread.taken[0];
      if (oldest !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, oldest.takenAtMs + TAKEN_MS_MAX);
    }
  }

  /** False: it has to wait. */
  #depart(share: JobShare, host: SiteHost, spread: HostSpread, page: TakenPage, turn: Turn): boolean {
    const { nowMs } = turn;
    const { jobId } = share;
    if (host.pace.isGivenUp(nowMs, this.#state.options.robotsWaitMs)) {
      return this.#end(jobId, host, page, { kind: "barred", reason: "host-unreachable" }, turn);
    }
    const isOld = nowMs - page.takenAtMs >= TAKEN_MS_MAX;
    if (isOld || share.view?.status !== "running") return this.#giveBack(jobId, host, page, turn);
    const { politeness } = share.view.spec;
    if (politeness.robots) {
      const access = host.accessOf(originOf(page.url), this.#state.options.robotsWaitMs);
      const answer = access.ask(page.url, politeness.userAgent, nowMs);
      if (answer.kind === "disallowed") {
        return this.#end(jobId, host, page, { kind: "barred", reason: "robots" }, turn);
      }
      if (answer.kind === "unreachable") {
        return this.#end(jobId, host, page, { kind: "barred", reason: "robots-unreachable" }, turn);
      }
      if (answer.kind === "wait") {
        if (answer.atMs !== undefined) spread.postpone(answer.atMs);
        return this.#giveBack(jobId, host, page, turn);
      }
      if (answer.kind === "fetch") {
        host.wantsRobots = { jobId, access };
        return this.#giveBack(jobId, host, page, turn);
      }
    }
    const { delayMs, concurrency } = this.#state.limitsOf(host);
    const readyAtMs = host.pace.readyAtMs(delayMs);
    if (readyAtMs > nowMs) {
      turn.wakeAtMs = Math.min(turn.wakeAtMs, readyAtMs);
      if (readyAtMs <= page.takenAtMs + TAKEN_MS_MAX) return false;
      spread.postpone(readyAtMs);
      return this.#giveBack(jobId, host, page, turn);
    }
    if (host.pace.underWay >= concurrency || host.pace.isTaken) return false;
    this.#state.renew(share, turn);
    if (!share.mayHandOut(nowMs, turn.ageMsMax)) return false;
    if (!turn.draft.hasRoom(2)) return later(turn);
    const runnerTimeMs = turn.timeOf(page.runner);
    if (runnerTimeMs === undefined) return this.#giveBack(jobId, host, page, turn);
    const { url, key, depth, sitemapPart, alone, handout, runner, partition } = page;
    const ref = { jobId, host: host.name, key, handout };
    const startWithinMs = this.#state.startWithinMs(share, nowMs);
    host.pace.decide(flightId(ref), nowMs, startWithinMs, delayMs);
    share.outs.set(key, { ref, runner, decidedAtMs: nowMs });
    turn.draft.out(jobId, { host: host.name, key, handout, runner }, true);
    turn.draft.effects.push({
      ...{ kind: "run", jobId, host: host.name, url, key, depth, sitemapPart, alone, handout, runner },
      ...{ runnerTimeMs, startWithinMs, store: partition },
    } as const);
    return true;
  }

  #giveBack(jobId: string, host: SiteHost, page: TakenPage, turn: Turn): true {
    const outcome = { kind: "notStarted", reason: "the host can't be asked now" } as const;
    return this.#end(jobId, host, page, outcome, turn);
  }

  #end(
    jobId: string,
    host: SiteHost,
    page: TakenPage,
    outcome: Extract<Turn["draft"]["effects"][number], { kind: "returned" }>["outcome"],
    turn: Turn,
  ): true {
    const { key, handout, runner, partition } = page;
    const ref: HandoutRef = { jobId, host: host.name, key, handout };
    turn.draft.effects.push({ kind: "returned", ref, partition, runner, outcome });
    return true;
  }

  /** The request is over, as far as the host is concerned: its place is free. */
  takeLanded(share: JobShare, item: Item & { kind: "landed" }, turn: Turn): boolean {
    const { ref } = item;
    const out = share.outs.get(ref.key);
    if (out !== undefined && out.ref.handout === ref.handout) {
      if (!turn.draft.hasRoom(1)) return later(turn);
      share.outs.delete(ref.key);
      turn.draft.out(
        share.jobId,
        { host: ref.host, key: ref.key, handout: ref.handout, runner: out.runner },
        false,
      );
    }
    return item.id === null ? true : answered(item.id, turn);
  }
}
