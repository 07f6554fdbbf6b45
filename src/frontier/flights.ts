/**
 * Requests under way: what is heard of pages and robots.txt files that were handed
 * out, until it is settled. What it says about a host's pace takes effect at once,
 * whether or not anyone still waits for the page.
 */
import { ROBOTS_UNAVAILABLE } from "../job/job-spec.ts";
import { type FrontierState, flightId, type HandoutRef, robotsFlightId } from "./frontier-state.ts";
import type { Outcome } from "./verdict.ts";

/** How the fetching of a robots.txt ended. */
export type RobotsEnd =
  | {
      readonly kind: "answered";
      readonly status: number;
      readonly text: string;
      readonly retryAfterMs: number | null;
      readonly agoMs: number;
    }
  | { readonly kind: "notStarted" }
  | { readonly kind: "barred" };

export class Flights {
  readonly #state: FrontierState;

  constructor(state: FrontierState) {
    this.#state = state;
  }

  /** A report has arrived. False: nobody waits for it. */
  heardReport(
    ref: HandoutRef,
    agoMs: number,
    outcome: Outcome,
    nowMs: number,
    latencyMs: number | null,
  ): boolean {
    const pace = this.#state.hostOf(ref.host).pace;
    const id = flightId(ref);
    if (outcome.kind === "notStarted") {
      pace.notStarted(id);
    } else {
      pace.started(id, nowMs - agoMs);
      pace.ended(id);
    }
    if (latencyMs !== null) pace.answeredAfter(latencyMs);
    if (outcome.kind === "refused" && (outcome.status === 429 || outcome.status === 503)) {
      pace.refused(outcome.reason, outcome.retryAfterMs, nowMs, this.#state.options.random());
    } else if (outcome.kind === "broken") {
      if (outcome.retryable) pace.broke(outcome.reason, nowMs, this.#state.options.random());
    } else if (outcome.kind !== "notStarted" && outcome.kind !== "died") {
      pace.answered();
    }
    const flight = this.#state.flightOf(ref);
    if (flight === undefined || flight.isReported) return false;
    flight.isReported = true;
    return true;
  }

  /** What a leader has read from its own copy: no request, so nothing about a pace. */
  heardOwn(ref: HandoutRef): void {
    const flight = this.#state.flightOf(ref);
    if (flight !== undefined) flight.isReported = true;
  }

  /** The report can't be taken further now: it will come again. */
  unheard(ref: HandoutRef): void {
    const flight = this.#state.flightOf(ref);
    if (flight !== undefined) flight.isReported = false;
  }

  started(ref: HandoutRef, agoMs: number, nowMs: number): void {
    this.#state.hosts.get(ref.host)?.pace.started(flightId(ref), nowMs - agoMs);
  }

  /** A page of a host that is paced here, stored elsewhere and under way. */
  isOut(ref: HandoutRef): boolean {
    return this.#state.jobs.get(ref.jobId)?.outs.get(ref.key)?.ref.handout === ref.handout;
  }

  /** Nobody has the page any more, nor a report of it; undefined: there is one, or nobody waits for it. */
  lost(ref: HandoutRef): { readonly wasStarted: boolean } | undefined {
    const flight = this.#state.flightOf(ref);
    if (flight === undefined || flight.isReported) return undefined;
    const pace = this.#state.hostOf(ref.host).pace;
    const wasStarted = pace.isKnownStarted(flightId(ref));
    pace.ended(flightId(ref));
    flight.isReported = true;
    return { wasStarted };
  }

  /** Pages without a report that were handed out before `beforeMs`, by runner. */
  byRunner(beforeMs: number): Map<string, HandoutRef[]> {
    const byRunner = new Map<string, HandoutRef[]>();
    for (const share of this.#state.jobs.values()) {
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
      for (const { ref, runner, decidedAtMs } of share.outs.values()) {
        if (decidedAtMs > beforeMs) continue;
        const list = byRunner.get(runner);
        if (list === undefined) byRunner.set(runner, [ref]);
        else list.push(ref);
      }
    }
    return byRunner;
  }

  robotsStarted(host: string, origin: string, nowMs: number): void {
    this.#state.hosts.get(host)?.pace.started(robotsFlightId(origin), nowMs);
  }

  robotsFetched(host: string, origin: string, end: RobotsEnd, nowMs: number): void {
    const site = this.#state.hostOf(host);
    const access = site.accessOf(origin, this.#state.options.robotsWaitMs);
    const id = robotsFlightId(origin);
    if (end.kind === "notStarted") {
      site.pace.notStarted(id);
      access.notFetched(nowMs);
      return;
    }
    if (end.kind === "barred") {
      site.pace.notStarted(id);
      access.barred(nowMs);
      return;
    }
    site.pace.started(id, nowMs - end.agoMs);
    site.pace.ended(id);
    if (end.status === 429 || end.status === 503) {
      site.pace.refused(ROBOTS_UNAVAILABLE, end.retryAfterMs, nowMs, this.#state.options.random());
    }
    access.fetched(end.status, end.text, nowMs, this.#state.options.random());
  }
}
