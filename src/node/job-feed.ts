/**
 * What is new about one job, for all on this server who watch it: one line of
 * questions to the job's leader, however many wait for the answers. The leader
 * holds a question until there is news, so a quiet job costs little and a change
 * is told at once.
 */
import { ClusterError, NotFoundError } from "../errors.ts";
import { type Clock, pause } from "./clock.ts";
import type { Answer } from "./crawl-message.ts";

/** A leader holds a question about news for this long; less than a call may take. */
const NEWS_WAIT_MS = 1_000;
const NEWS_MS_MIN = 250;
const RETRY_MS = 500;

/** What the job's leader says; with `newerThan`, once it has something newer or `waitMs` have passed. */
type AskJob = (known: { newerThan?: number; waitMs?: number }) => Promise<Answer<"job">>;

export class JobFeed {
  readonly #ask: AskJob;
  readonly #clock: Clock;
  #serial = 0;
  #latest: Answer<"job"> | undefined;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;
  /** Who watches the job; kept by whoever shares the feed out. */
  readers = 0;

  constructor(ask: AskJob, clock: Clock) {
    this.#ask = ask;
    this.#clock = clock;
  }

  /** Of the newest word: a reader that knows it waits for the next one. */
  get serial(): number {
    return this.#serial;
  }

  /**
   * The newest word of the job behind `serial`, 0 for any; undefined when the job
   * is gone or nobody waits any more.
   *
   * @throws {NotFoundError} there was no such job from the beginning.
   */
  async next(serial: number, signal: AbortSignal): Promise<Answer<"job"> | undefined> {
    const isFirst = this.#latest === undefined;
    while (!signal.aborted) {
      if (this.#latest !== undefined && this.#serial > serial) return this.#latest;
      this.#asking ??= this.#refresh().finally(() => {
        this.#asking = undefined;
      });
      try {
        await this.#asking;
      } catch (error) {
        if (error instanceof NotFoundError) {
          if (isFirst && serial === 0) throw error;
          return undefined;
        }
        if (!(error instanceof ClusterError) || error.remedy === "reject") throw error;
        // The job's partition has no leader just now; the stream outlives that.
        await pause(this.#clock, RETRY_MS);
      }
    }
    return undefined;
  }

  async #refresh(): Promise<void> {
    const waitMs = this.#askedAtMs + NEWS_MS_MIN - this.#clock.now();
    if (waitMs > 0) await pause(this.#clock, waitMs);
    this.#askedAtMs = this.#clock.now();
    const newerThan = this.#latest?.news;
    this.#latest = await this.#ask(newerThan === undefined ? {} : { newerThan, waitMs: NEWS_WAIT_MS });
    this.#serial++;
  }
}
