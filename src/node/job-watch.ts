/**
 * What the host leaders of this node know about the jobs they work for, and tell
 * about their progress: one question for each job covers all partitions here.
 *
 * The age of a confirmation counts from when its question was sent, by the clock
 * of the one who asks; so no clock of another is needed, and a slow link is
 * served by sending the next question before the answer to the last one is here.
 */
import type { JobView } from "../frontier/job-share.ts";
import type { Counts } from "../job/counts.ts";
import type { Waiting } from "../job/job-spec.ts";
import type { Log } from "../log.ts";
import type { Clock } from "./clock.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";

/** A host leader, as this sees it. */
export interface Watcher {
  readonly partition: number;
  progressOf(jobId: string): { readonly counts: Counts | null; readonly waiting: readonly Waiting[] };
  confirmed(jobId: string, view: JobView, askedAtMs: number, roundTripMs: number): void;
  gone(jobId: string): void;
}

/** Between two tellings of progress. */
const PROGRESS_MS = 250;
/** Between two questions that are both under way. */
const OVERLAP_MS = 100;
const QUESTIONS_MAX = 8;
const RETRY_MS = 100;
/** Jobs remembered though nobody asks about them just now. */
const JOBS_KEPT_MAX = 1024;

interface Watched {
  readonly jobId: string;
  readonly wanting: Set<Watcher>;
  readonly changed: Set<Watcher>;
  view: JobView | undefined;
  underWay: number;
  sentAtMs: number;
  toldAtMs: number;
  notBeforeMs: number;
  isUrgent: boolean;
  timer: (() => void) | undefined;
  timerAtMs: number;
  isScheduled: boolean;
}

export class JobWatch {
  readonly #ask: (jobId: string, request: (partition: number) => CrawlRequest) => Promise<CrawlReply>;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #jobs = new Map<string, Watched>();
  #isStopped = false;

  constructor(options: {
    ask(jobId: string, request: (partition: number) => CrawlRequest): Promise<CrawlReply>;
    clock: Clock;
    log: Log;
  }) {
    this.#ask = options.ask;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** The partition has something to do and needs to know that it may. */
  want(jobId: string, watcher: Watcher): void {
    const job = this.#watched(jobId);
    job.wanting.add(watcher);
    this.#schedule(job);
  }

  /** The partition's counts have changed; `urgent`: nothing is pending there any more. */
  progressed(jobId: string, watcher: Watcher, urgent: boolean): void {
    const job = this.#watched(jobId);
    job.changed.add(watcher);
    job.isUrgent ||= urgent;
    this.#schedule(job);
  }

  /** The watcher is no leader any more. */
  drop(watcher: Watcher): void {
    for (const job of this.#jobs.values()) {
      job.wanting.delete(watcher);
      job.changed.delete(watcher);
    }
  }

  /** The job is over. */
  forget(jobId: string): void {
    const job = this.#jobs.get(jobId);
    job?.timer?.();
    this.#jobs.delete(jobId);
  }

  stop(): void {
    this.#isStopped = true;
    for (const job of this.#jobs.values()) job.timer?.();
    this.#jobs.clear();
  }

  #watched(jobId: string): Watched {
    let job = this.#jobs.get(jobId);
    if (job === undefined) {
      if (this.#jobs.size >= JOBS_KEPT_MAX) this.#forgetQuiet();
      job = {
        jobId,
        wanting: new Set(),
        changed: new Set(),
        view: undefined,
        underWay: 0,
        sentAtMs: Number.NEGATIVE_INFINITY,
        toldAtMs: Number.NEGATIVE_INFINITY,
        notBeforeMs: Number.NEGATIVE_INFINITY,
        isUrgent: false,
        timer: undefined,
        timerAtMs: Number.POSITIVE_INFINITY,
        isScheduled: false,
      };
      this.#jobs.set(jobId, job);
    }
    return job;
  }

  /** Whoever leads elsewhere now is not told here that a job is over. */
  #forgetQuiet(): void {
    for (const [jobId, { wanting, changed, underWay, isScheduled }] of this.#jobs) {
      if (wanting.size + changed.size + underWay === 0 && !isScheduled) this.forget(jobId);
    }
  }

  /** Everything of this turn of the event loop goes into one question. */
  #schedule(job: Watched): void {
    if (job.isScheduled) return;
    job.isScheduled = true;
    queueMicrotask(() => {
      job.isScheduled = false;
      this.#consider(job);
    });
  }

  #consider(job: Watched): void {
    if (this.#isStopped || this.#jobs.get(job.jobId) !== job) return;
    if (job.wanting.size === 0 && job.changed.size === 0) return;
    const nowMs = this.#clock.now();
    let dueAtMs = job.toldAtMs + PROGRESS_MS;
    if (job.isUrgent) dueAtMs = nowMs;
    if (job.wanting.size > 0) {
      const askAtMs = job.underWay === 0 ? nowMs : job.sentAtMs + OVERLAP_MS;
      dueAtMs = Math.min(dueAtMs, askAtMs);
    }
    // After a failure everything waits, however urgent.
    dueAtMs = Math.max(dueAtMs, job.notBeforeMs);
    if (job.underWay >= QUESTIONS_MAX) dueAtMs = Number.POSITIVE_INFINITY;
    if (dueAtMs <= nowMs) {
      void this.#send(job, nowMs);
    } else if (dueAtMs < Number.POSITIVE_INFINITY && dueAtMs < job.timerAtMs) {
      this.#wake(job, dueAtMs - nowMs);
    }
  }

  #wake(job: Watched, afterMs: number): void {
    job.timer?.();
    job.timerAtMs = this.#clock.now() + afterMs;
    job.timer = this.#clock.after(afterMs, () => {
      job.timer = undefined;
      job.timerAtMs = Number.POSITIVE_INFINITY;
      this.#consider(job);
    });
  }

  async #send(job: Watched, askedAtMs: number): Promise<void> {
    const asking = new Set(job.wanting);
    const told = new Set([...job.wanting, ...job.changed]);
    job.wanting.clear();
    job.changed.clear();
    job.isUrgent = false;
    job.sentAtMs = askedAtMs;
    job.toldAtMs = askedAtMs;
    job.underWay++;
    try {
      const reply = await this.#ask(job.jobId, (partition) => ({
        kind: "confirm",
        partition,
        jobId: job.jobId,
        known: job.view?.version ?? "",
        participants: [...told].map((watcher) => {
          const { counts, waiting } = watcher.progressOf(job.jobId);
          return {
            partition: watcher.partition,
            confirm: asking.has(watcher),
            counts,
            waiting: [...waiting].slice(0, 16),
          };
        }),
      }));
      this.#answered(job, reply, asking, told, askedAtMs);
    } catch (error) {
      this.#log.debug("job not confirmed", { job: job.jobId, error });
      // What was to be told is told again; who still wants to know asks again by itself.
      for (const watcher of told) job.changed.add(watcher);
      for (const watcher of asking) job.wanting.add(watcher);
      job.notBeforeMs = this.#clock.now() + RETRY_MS;
    } finally {
      job.underWay--;
    }
    this.#schedule(job);
  }

  #answered(
    job: Watched,
    reply: CrawlReply,
    asking: ReadonlySet<Watcher>,
    told: ReadonlySet<Watcher>,
    askedAtMs: number,
  ): void {
    if (reply.kind === "gone") {
      for (const watcher of told) watcher.gone(job.jobId);
      this.forget(job.jobId);
      return;
    }
    if (reply.kind !== "confirmed") return;
    const { version, status, run, details } = reply;
    if (details !== undefined) job.view = { version, status, run, ...details };
    else if (job.view?.version === version) job.view = { ...job.view, status, run };
    else return;
    const roundTripMs = this.#clock.now() - askedAtMs;
    for (const watcher of asking) watcher.confirmed(job.jobId, job.view, askedAtMs, roundTripMs);
  }
}
