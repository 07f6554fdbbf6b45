/**
 * Ends hand-outs: a report, a loss, a recall of credits, each as part of the batch
 * that is being made. Whatever ends a hand-out takes the page off its runner, so
 * that a second report of it finds nothing.
 */
import assert from "node:assert/strict";
import { tellTrap } from "../job/counts.ts";
import type { Admission, Admissions } from "./admission.ts";
import {
  answered,
  type FrontierState,
  flying,
  type HandoutRef,
  LEADER,
  later,
  type Turn,
  waiting,
} from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import type { Flight, JobShare } from "./job-share.ts";
import { isRepetition, type Repetition } from "./known-contents.ts";
import { SETTLED } from "./known-pages.ts";
import type { Page } from "./page.ts";
import { urlPattern } from "./trap.ts";
import { type Judgement, type Outcome, type Verdict, verdictOf } from "./verdict.ts";

/** What waits for a batch. */
export type Item =
  | { readonly kind: "offer"; readonly id: number; readonly jobId: string; readonly admission: Admission }
  | {
      readonly kind: "report";
      readonly id: number;
      readonly ref: HandoutRef;
      readonly jobId: string;
      readonly outcome: Outcome;
      readonly judgement: Judgement;
      readonly admission: Admission;
    }
  | {
      readonly kind: "next";
      readonly id: number;
      readonly jobId: string;
      readonly host: string;
      /** One for each page that is wanted. */
      readonly runners: readonly string[];
      readonly untilMs: number;
    }
  | { readonly kind: "landed"; readonly id: number | null; readonly ref: HandoutRef; readonly jobId: string }
  | { readonly kind: "lost"; readonly ref: HandoutRef; readonly jobId: string; readonly wasStarted: boolean }
  | { readonly kind: "recall"; readonly id: number; readonly jobId: string; readonly granted: number };

/** A page that found no room at its runner is not pressed on the next one at once. */
const NOT_STARTED_MS = 50;
const UNREPORTED_MAX = 8;
const IDLE_CREDIT_MS = 5_000;

export class Settlement {
  readonly #state: FrontierState;
  readonly #admissions: Admissions;

  constructor(state: FrontierState, admissions: Admissions) {
    this.#state = state;
    this.#admissions = admissions;
  }

  takeLost(share: JobShare, item: Item & { kind: "lost" }, turn: Turn): boolean {
    const flight = this.#state.flightOf(item.ref);
    if (flight === undefined) return true;
    if (!turn.draft.hasRoom(6)) return later(turn);
    const { page } = flight;
    if (item.wasStarted) page.unreported++;
    if (page.unreported < UNREPORTED_MAX) {
      this.#dueAgain(share, flight, 0, turn);
      return true;
    }
    // The one verdict without a report; a settle like any other.
    this.#state.renew(share, turn);
    if (!share.mayAccept(turn.nowMs, turn.ageMsMax)) {
      page.unreported--;
      return false;
    }
    this.#conclude(share, flight, { kind: "failed", reason: "no report", status: null }, undefined, turn);
    return true;
  }

  takeReport(share: JobShare, item: Item & { kind: "report" }, turn: Turn): boolean {
    const flight = this.#state.flightOf(item.ref);
    if (flight === undefined) {
      const { jobId, host, key } = item.ref;
      if (!share.flights.has(key)) this.#state.contents.windowOf(jobId, host)?.released(key);
      return answered(item.id, turn);
    }
    if (item.outcome.kind === "notStarted") {
      if (!turn.draft.hasRoom(6)) return later(turn);
      this.#dueAgain(share, flight, NOT_STARTED_MS, turn);
      return answered(item.id, turn);
    }
    if (!this.#state.mayAccept(share, turn)) return false;
    if (!this.#admissions.admit(share, item.admission, turn)) return false;
    if (!turn.draft.hasRoom(8)) return later(turn);
    const spec = share.view!.spec;
    const { page } = flight;
    page.unreported = 0;
    if (item.outcome.kind === "page" && item.outcome.found === null && page.depth < spec.scope.maxDepth) {
      // Found nearer to a seed while it was under way: its links count now.
      this.#dueAgain(share, flight, 0, turn);
      return answered(item.id, turn);
    }
    if (item.judgement.canonical !== null && page.named) {
      // Another page has named it meanwhile: it stays, so its own links count.
      this.#dueAgain(share, flight, 0, turn);
      return answered(item.id, turn);
    }
    const verdict = verdictOf(
      item.outcome,
      page,
      { retries: spec.fetch.retries, maxRedirects: spec.fetch.maxRedirects },
      this.#state.options.random(),
    );
    if (verdict.kind === "done") {
      const grown = item.admission.grown > 0;
      this.#score(share, flight.queue.size.host, page, item.judgement.repetition, grown, turn);
    }
    this.#conclude(share, flight, verdict, item.outcome, turn, item.judgement.repetition);
    return answered(item.id, turn);
  }

  #conclude(
    share: JobShare,
    flight: Flight,
    verdict: Verdict,
    outcome: Outcome | undefined,
    turn: Turn,
    repetition: Repetition = {},
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
    if (flight.runner !== LEADER) counts.servers[flight.runner] = (counts.servers[flight.runner] ?? 0) + 1;
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
            ...repetition,
            content: outcome.content,
          },
        });
        this.end(share, queue, page, "done", null, turn);
        return;
      }
      case "skipped":
        this.end(share, queue, page, "skipped", verdict.reason, turn);
        return;
      case "failed":
        this.fail(share, queue, page, verdict.reason, verdict.status, turn);
        return;
    }
  }

  /** What the page says of the pattern of its URL: that it leads on without anything new, or that it has something. */
  #score(
    share: JobShare,
    host: string,
    page: Page,
    repetition: Repetition,
    grown: boolean,
    turn: Turn,
  ): void {
    if (!isRepetition(repetition)) {
      if (share.traps.get(host)?.renewed(page.url) === true) turn.draft.traps(share, host);
      return;
    }
    if (!grown) return;
    const trap = share.trapsOf(host).repeated(page.url, page.trail, share.view!.spec.limits.trapScore);
    turn.draft.traps(share, host);
    if (trap === undefined) return;
    const { pattern, pages, example } = trap;
    tellTrap(share.counts, { host, pattern, reason: "near duplicates", pages, skipped: 0, example });
  }

  /** A due page whose URL has a pattern that brings nothing new ends unfetched. */
  skipTrapped(share: JobShare, queue: HostQueue, page: Page, turn: Turn): void {
    const { host } = queue.size;
    const pattern = urlPattern(page.url);
    turn.draft.due(share.jobId, host, waiting(page), null);
    const news = {
      host,
      pattern,
      reason: "near duplicates",
      pages: 0,
      skipped: 1,
      example: page.url,
    } as const;
    if (share.counts.traps.some((trap) => trap.host === host && trap.pattern === pattern)) {
      tellTrap(share.counts, news);
    }
    this.end(share, queue, page, "skipped", "trap", turn);
  }

  fail(
    share: JobShare,
    queue: HostQueue,
    page: Page,
    reason: string,
    status: number | null,
    turn: Turn,
  ): void {
    // What is listed there is not known, but no page that was asked for is missing.
    if (page.sitemap !== null) {
      this.end(share, queue, page, "skipped", `sitemap: ${reason}`, turn);
      return;
    }
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
    this.end(share, queue, page, "failed", reason, turn);
  }

  end(
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
    const window = this.#state.contents.windowOf(share.jobId, queue.size.host);
    if (status !== "done") window?.released(page.key);
    else if (window?.settled(page.key) === true) turn.draft.contents(window);
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

  takeRecall(share: JobShare, item: Item & { kind: "recall" }, turn: Turn): boolean {
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
      const host = this.#state.hosts.get(name);
      if (host === undefined) continue;
      if (!host.isMain) {
        // Whoever paces it has asked a moment ago, or will not soon.
        if (nowMs - host.askedAtMs <= IDLE_CREDIT_MS) soon = true;
        continue;
      }
      const atMs = Math.max(
        host.pace.readyAtMs(this.#state.limitsOf(host).delayMs),
        queue.readyAtMs ?? nowMs,
      );
      if (atMs <= nowMs + IDLE_CREDIT_MS) soon = true;
    }
    if (!soon) return free;
    return Math.max(0, free - (share.pending - share.flights.size));
  }
}
