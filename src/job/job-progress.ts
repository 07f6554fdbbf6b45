/**
 * How far a running job is, from what its participants tell. Their messages
 * overtake one another; as what they count are totals, the larger ones are the
 * later state.
 */
import { isQuiet } from "./completion.ts";
import type { Counts } from "./counts.ts";
import type { JobStats, Waiting } from "./job-spec.ts";
import { noStats, Speed, statsOf } from "./stats.ts";

export class JobProgress {
  // By participant.
  readonly #counts = new Map<number, Counts>();
  readonly #waiting = new Map<number, readonly Waiting[]>();
  readonly #speed = new Speed();
  #heardAtMs = Number.NEGATIVE_INFINITY;

  /** When a participant was last heard, with news or without. */
  get heardAtMs(): number {
    return this.#heardAtMs;
  }

  countsOf(partition: number): Counts | undefined {
    return this.#counts.get(partition);
  }

  /**
   * False: it is no news.
   *
   * @param waiting undefined: nothing is said about it.
   */
  heard(partition: number, counts: Counts, waiting: readonly Waiting[] | undefined, nowMs: number): boolean {
    const known = this.#counts.get(partition);
    if (waiting !== undefined) this.#waiting.set(partition, waiting);
    this.#heardAtMs = nowMs;
    if (known !== undefined && sizeOf(counts) <= sizeOf(known)) return false;
    this.#counts.set(partition, counts);
    let settled = 0;
    for (const c of this.#counts.values()) settled += c.done + c.failed + c.skipped;
    this.#speed.sample(nowMs, settled);
    return true;
  }

  /** As far as heard, there is nothing left to do. */
  isQuiet(maxPages: number): boolean {
    return isQuiet(this.#counts.values(), maxPages);
  }

  stats(nowMs: number): JobStats {
    if (this.#counts.size === 0) return noStats;
    return statsOf(this.#counts.values(), {
      pagesPerSecond: this.#speed.at(nowMs),
      waiting: [...this.#waiting.values()].flat(),
    });
  }
}

/** Grows with every change of a participant's counts. */
function sizeOf(counts: Counts): number {
  return (
    counts.discovered +
    counts.done +
    counts.failed +
    counts.skipped +
    counts.granted +
    counts.returned +
    counts.seq +
    counts.run
  );
}
