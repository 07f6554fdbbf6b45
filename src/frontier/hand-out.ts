/**
 * Decides which pages leave now: a host that may be asked, a job that is running
 * and has a credit, a robots.txt that allows it, and someone to run it.
 */
import {
  type FrontierState,
  flightId,
  LEADER,
  later,
  type Runner,
  robotsFlightId,
  type Turn,
  waiting,
} from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import type { JobShare } from "./job-share.ts";
import { originOf, type Page } from "./page.ts";
import type { PartHandOut } from "./part-hand-out.ts";
import type { RobotsAccess } from "./robots-access.ts";
import type { Settlement } from "./settlement.ts";
import type { SiteHost } from "./site-host.ts";

/** Before a host is ready to go on, its job's state is asked for. */
const ASK_AHEAD_MS = 60;
/** Pages of one job handed out and not settled. */
const FLIGHTS_MAX = 256;
const CREDITS_LOW = 8;
/** By one robots.txt. */
const SITEMAPS_NAMED_MAX = 1_000;
const HOST_IDLE_MS = 120_000;

export class HandOut {
  readonly #state: FrontierState;
  readonly #settlement: Settlement;
  readonly #parts: PartHandOut;

  constructor(state: FrontierState, settlement: Settlement, parts: PartHandOut) {
    this.#state = state;
    this.#settlement = settlement;
    this.#parts = parts;
  }

  handOut(turn: Turn): void {
    for (const host of [...this.#state.hosts.values()]) {
      if (!host.isMain) continue;
      const before = host.pace.underWay;
      this.#handOutFrom(host, turn);
      if (host.pace.underWay > before && this.#state.hosts.size > 1) {
        // Those served go to the end: the next free runner is for someone else.
        this.#state.hosts.delete(host.name);
        this.#state.hosts.set(host.name, host);
      }
      this.#dropIdle(host, turn.nowMs);
    }
  }

  #handOutFrom(host: SiteHost, turn: Turn): void {
    const { nowMs } = turn;
    while (true) {
      const { delayMs, concurrency } = this.#state.limitsOf(host);
      if (host.queues.size === 0) return;
      if (host.pace.isGivenUp(nowMs, this.#state.options.robotsWaitMs)) this.#giveUp(host, turn);
      if (host.pace.isTaken) return;
      if (host.spreads.size > 0) this.#parts.departTaken(host, turn);
      if (host.pace.underWay + host.reserved >= concurrency) return;
      const readyAtMs = host.pace.readyAtMs(delayMs);
      if (nowMs < readyAtMs) {
        const askAtMs = readyAtMs - ASK_AHEAD_MS;
        const isNear = nowMs >= askAtMs;
        if (isNear) {
          for (const queue of host.queues.values()) {
            const share = this.#state.jobs.get(queue.jobId)!;
            if (queue.size.pending > 0 && share.view?.status === "running" && share.free > 0) {
              this.#state.renew(share, turn);
            }
          }
        }
        turn.wakeAtMs = Math.min(turn.wakeAtMs, isNear ? readyAtMs : askAtMs);
        return;
      }
      if (host.wantsRobots !== undefined && host.state === "ready") {
        if (this.#fetchWanted(host, delayMs, turn)) continue;
      }
      if (!this.#handOutOne(host, delayMs, concurrency, turn)) return;
    }
  }

  /** The host has been silent for too long: what waits for it fails, and one page in a minute or so still tries it. */
  #giveUp(host: SiteHost, turn: Turn): void {
    for (const queue of host.queues.values()) {
      const share = this.#state.jobs.get(queue.jobId)!;
      if (share.view?.status !== "running") continue;
      const spread = host.spreads.get(queue.jobId);
      if (spread !== undefined && spread.asked === 0) {
        this.#parts.ask(share, host, spread, Number.POSITIVE_INFINITY, turn);
      }
      if (queue.size.pending === 0) continue;
      this.#load(queue, turn);
      this.#state.renew(share, turn);
      if (!share.mayHandOut(turn.nowMs, turn.ageMsMax)) continue;
      for (let next = queue.first; next !== undefined; next = queue.first) {
        if (!turn.draft.hasRoom(8)) {
          later(turn);
          return;
        }
        queue.remove(next);
        turn.draft.due(share.jobId, host.name, waiting(next.page), null);
        this.#settlement.fail(share, queue, next.page, "host-unreachable", null, turn);
      }
      this.#load(queue, turn);
    }
  }

  #load(queue: HostQueue, turn: Turn): void {
    if (!queue.wantsLoad || (!turn.hasMemory && queue.isLongEnough)) return;
    queue.loading(turn.hasMemory);
    turn.wants.loads.push(queue);
  }

  /** True: something was handed out or settled, there may be more. */
  #handOutOne(host: SiteHost, delayMs: number, concurrency: number, turn: Turn): boolean {
    const { nowMs } = turn;
    for (const queue of host.inTurn((jobId) => this.#state.ownerOf(jobId))) {
      const share = this.#state.jobs.get(queue.jobId)!;
      const spread = host.spreads.get(queue.jobId);
      if (queue.size.pending === 0 && spread === undefined) continue;
      this.#load(queue, turn);
      const queued = queue.peek(nowMs);
      if (queued === undefined) {
        const atMs = queue.readyAtMs;
        if (atMs !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, atMs);
        if (spread === undefined) continue;
        if (!this.#isReady(host, turn)) return false;
        // One at a time where a delay says when the next one goes.
        const places = delayMs > 0 ? 1 - host.reserved : concurrency - host.pace.underWay - host.reserved;
        if (places > 0 && this.#parts.ask(share, host, spread, places, turn)) return true;
        continue;
      }
      if (share.view === undefined) {
        turn.wants.confirm.add(share.jobId);
        continue;
      }
      if (share.view.status !== "running" || share.flights.size >= FLIGHTS_MAX) continue;
      if (!this.#isReady(host, turn)) return false;
      const { page: first } = queued;
      if (
        !first.seed &&
        first.sitemap === null &&
        share.traps.get(host.name)?.isTrapped(first.url) === true
      ) {
        this.#state.renew(share, turn);
        if (!share.mayHandOut(nowMs, turn.ageMsMax)) continue;
        if (!turn.draft.hasRoom(8)) {
          later(turn);
          return false;
        }
        queue.remove(queued);
        this.#settlement.skipTrapped(share, queue, first, turn);
        return true;
      }
      this.#wantCredit(share, turn);
      if (share.free <= 0) continue;
      this.#state.renew(share, turn);
      if (!share.mayHandOut(nowMs, turn.ageMsMax)) continue;
      if (!turn.draft.hasRoom(8)) {
        later(turn);
        return false;
      }
      if (queued.page.sitemap?.level === 0) {
        if (this.#readRobots(share, host, queue, queued, delayMs, turn)) return true;
        continue;
      }
      if (share.view.spec.politeness.robots) {
        const { userAgent } = share.view.spec.politeness;
        const { page } = queued;
        const access = host.accessOf(originOf(page.url), this.#state.options.robotsWaitMs);
        const answer = access.ask(page.url, userAgent, nowMs);
        if (answer.kind === "fetch") {
          this.#fetchRobots(share, host, access, delayMs, turn);
          return true;
        }
        if (answer.kind === "wait") {
          if (answer.atMs !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, answer.atMs);
          continue;
        }
        if (answer.kind === "disallowed" || answer.kind === "unreachable") {
          queue.remove(queued);
          turn.draft.due(share.jobId, host.name, waiting(page), null);
          if (answer.kind === "disallowed")
            this.#settlement.end(share, queue, page, "skipped", "robots", turn);
          else this.#settlement.fail(share, queue, page, "robots-unreachable", null, turn);
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

  /** What the store knows of the host's pace is here. */
  #isReady(host: SiteHost, turn: Turn): boolean {
    if (host.state === "new") {
      host.state = "loading";
      turn.wants.hosts.add(host.name);
    }
    return host.state === "ready";
  }

  /** For a page of a part; false: it can't leave now. */
  #fetchWanted(host: SiteHost, delayMs: number, turn: Turn): boolean {
    const { jobId, access } = host.wantsRobots!;
    const share = this.#state.jobs.get(jobId);
    if (share?.view?.status === "running") {
      this.#state.renew(share, turn);
      if (!share.mayHandOut(turn.nowMs, turn.ageMsMax)) return false;
      if (access.ask(access.origin, "", turn.nowMs).kind === "fetch") {
        this.#fetchRobots(share, host, access, delayMs, turn);
      }
    }
    host.wantsRobots = undefined;
    return true;
  }

  #fetchRobots(share: JobShare, host: SiteHost, access: RobotsAccess, delayMs: number, turn: Turn): void {
    const startWithinMs = this.#state.startWithinMs(share, turn.nowMs);
    access.fetching();
    // It may lead on, and keeps the delay between its own requests.
    host.pace.decide(robotsFlightId(access.origin), turn.nowMs, startWithinMs, delayMs, delayMs > 0);
    turn.draft.effects.push({
      kind: "fetchRobots",
      delayMs,
      host: host.name,
      origin: access.origin,
      userAgent: share.view!.spec.politeness.userAgent,
      startBeforeMs: turn.nowMs + startWithinMs,
    });
  }

  /**
   * A robots.txt as the place where a site names its sitemaps: read from the copy that the host
   * has anyway. False: it is waited for.
   */
  #readRobots(
    share: JobShare,
    host: SiteHost,
    queue: HostQueue,
    queued: { readonly page: Page; readyAtMs: number },
    delayMs: number,
    turn: Turn,
  ): boolean {
    const { page } = queued;
    const { userAgent, robots } = share.view!.spec.politeness;
    const access = host.accessOf(originOf(page.url), this.#state.options.robotsWaitMs);
    const answer = access.ask(page.url, userAgent, turn.nowMs);
    if (answer.kind === "fetch") {
      this.#fetchRobots(share, host, access, delayMs, turn);
      return true;
    }
    // A job that does not obey robots.txt does not wait for one that can't be had.
    if (answer.kind === "wait" && (robots || answer.atMs === undefined)) {
      if (answer.atMs !== undefined) turn.wakeAtMs = Math.min(turn.wakeAtMs, answer.atMs);
      return false;
    }
    this.#state.takeOut(share, queue, queued, LEADER, turn);
    turn.draft.effects.push({
      kind: "readRobots",
      jobId: share.jobId,
      host: host.name,
      key: page.key,
      handout: page.handouts,
      origin: access.origin,
      sitemaps: access.sitemaps(userAgent).slice(0, SITEMAPS_NAMED_MAX),
    });
    return true;
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
    const handout = this.#state.takeOut(share, queue, queued, runner.nodeId, turn);
    const startWithinMs = this.#state.startWithinMs(share, turn.nowMs);
    host.pace.decide(
      flightId({ jobId, host: host.name, key: page.key, handout }),
      turn.nowMs,
      startWithinMs,
      delayMs,
    );
    turn.draft.effects.push({
      kind: "run",
      jobId,
      host: host.name,
      url: page.url,
      key: page.key,
      depth: page.depth,
      sitemapPart: page.sitemap?.part ?? null,
      alone: page.alone,
      handout,
      runner: runner.nodeId,
      runnerTimeMs: runner.timeMs,
      startWithinMs,
    });
  }

  #wantCredit(share: JobShare, turn: Turn): void {
    const open = share.pending - share.flights.size;
    if (share.free < Math.min(CREDITS_LOW, open)) turn.wants.credit.set(share.jobId, Math.min(64, open));
  }

  storePaces(turn: Turn): void {
    for (const host of this.#state.hosts.values()) {
      if (!host.isMain) continue;
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
    if (nowMs - host.idleSinceMs > HOST_IDLE_MS) this.#state.hosts.delete(host.name);
  }
}
