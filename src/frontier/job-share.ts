/**
 * One job's share of one partition: its counts, its credits, what it knows of the
 * job, and what is under way.
 */
import { creditsFree } from "../job/budget.ts";
import { type Counts, pendingOf } from "../job/counts.ts";
import type { SeedlessSpec } from "../job/job-record.ts";
import type { JobStatus } from "../job/job-spec.ts";
import { isOpen } from "../job/life-cycle.ts";
import type { HandoutRef } from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import { KnownPages } from "./known-pages.ts";
import type { Page } from "./page.ts";
import { TrapScores } from "./trap.ts";

/** What the job's leader says about a job, at one moment. */
export interface JobView {
  /** Of the job's record: the same version, the same view. */
  readonly version: string;
  readonly status: JobStatus;
  readonly run: number;
  readonly spec: SeedlessSpec;
  readonly scopeHosts: readonly string[] | null;
  /** Whose job it is: users share a host alike, and then each one's jobs. */
  readonly owner?: string | undefined;
}

/** How old a confirmation may be where three round trips are less. */
export const CONFIRMATION_MS = 500;

/** A page handed out and not settled. */
export interface Flight {
  readonly page: Page;
  readonly queue: HostQueue;
  readonly handout: number;
  readonly runner: string;
  /** Monotonic; -Infinity: by an earlier leader. */
  readonly decidedAtMs: number;
  /** The request is over; the report waits to be settled. */
  isReported: boolean;
}

/** A page under way that another partition stores. */
export interface Out {
  readonly ref: HandoutRef;
  readonly runner: string;
  /** Monotonic; -Infinity: by an earlier leader. */
  readonly decidedAtMs: number;
}

export class JobShare {
  readonly jobId: string;
  readonly counts: Counts;
  readonly known: KnownPages;
  /** By page key. */
  readonly flights = new Map<string, Flight>();
  /** By page key: pages of large hosts that are under way and lie in other partitions. */
  readonly outs = new Map<string, Out>();
  /** By host: those that have pending pages. */
  readonly queues = new Map<string, HostQueue>();
  /** By host: patterns of URLs that bring nothing new. */
  readonly traps = new Map<string, TrapScores>();
  view: JobView | undefined;
  /** The job's leader lists this partition among the participants. */
  isParticipant: boolean;
  /** Reads of the store under way for offers of this job; see `KnownPages.trim`. */
  lookups = 0;
  /** Pages written while there were such reads: what they say about these may be old. */
  readonly touched = new Set<string>();
  /** The last ask for credits brought none. */
  isDry = false;
  // When the question was sent that the latest answer belongs to.
  #confirmedAtMs = Number.NEGATIVE_INFINITY;
  // Answers to questions sent before this are void.
  #voidUntilMs = Number.NEGATIVE_INFINITY;

  constructor(counts: Counts, isNew: boolean) {
    this.jobId = counts.jobId;
    this.counts = counts;
    this.known = new KnownPages(isNew);
    this.isParticipant = !isNew;
  }

  get pending(): number {
    return pendingOf(this.counts);
  }

  get free(): number {
    return creditsFree(this.counts, this.flights.size);
  }

  /** The job is in this state, as of `askedAtMs` or later. */
  confirm(view: JobView, askedAtMs: number): void {
    if (this.view === undefined || askedAtMs > this.#voidUntilMs) this.view = view;
    if (askedAtMs > this.#voidUntilMs) this.#confirmedAtMs = Math.max(this.#confirmedAtMs, askedAtMs);
  }

  /** Nothing is taken on until a question sent after now is answered. */
  forgetConfirmation(nowMs: number): void {
    this.#confirmedAtMs = Number.NEGATIVE_INFINITY;
    this.#voidUntilMs = nowMs;
  }

  confirmationAgeMs(nowMs: number): number {
    return nowMs - this.#confirmedAtMs;
  }

  /** Offers may be accepted and reports settled. */
  mayAccept(nowMs: number, ageMsMax: number): boolean {
    return this.view !== undefined && isOpen(this.view.status) && this.confirmationAgeMs(nowMs) <= ageMsMax;
  }

  mayHandOut(nowMs: number, ageMsMax: number): boolean {
    return this.view?.status === "running" && this.confirmationAgeMs(nowMs) <= ageMsMax;
  }

  trapsOf(host: string): TrapScores {
    let scores = this.traps.get(host);
    if (scores === undefined) {
      scores = new TrapScores();
      this.traps.set(host, scores);
    }
    return scores;
  }

  touch(key: string): void {
    if (this.lookups > 0) this.touched.add(key);
  }

  lookedUp(): void {
    if (--this.lookups === 0) {
      this.touched.clear();
      this.known.trim();
    }
  }
}
