/**
 * The statistics of a job: the sum of what its participants counted. Each
 * participant's counts are one state of it, so the sum keeps
 * `discovered = done + failed + skipped + pending` even while they change.
 */
import { type Counts, pendingOf } from "./counts.ts";
import type { JobStats, Waiting } from "./job-spec.ts";
import type { TrapReport } from "./trap-report.ts";

export const WAITING_SHOWN_MAX = 16;
/** They stand in every progress event. */
const TRAPS_SHOWN_MAX = 64;

export const noStats: JobStats = {
  discovered: 0,
  done: 0,
  failed: 0,
  skipped: 0,
  pending: 0,
  results: 0,
  bytes: 0,
  pagesPerSecond: 0,
  waitingOn: [],
  servers: {},
  traps: [],
};

/** The sum of `counts`, with the longest waits and the largest traps first. */
export function statsOf(
  counts: Iterable<Counts>,
  extra: { readonly pagesPerSecond: number; readonly waiting: readonly Waiting[] },
): JobStats {
  let [discovered, done, failed, skipped, results, bytes, pending] = [0, 0, 0, 0, 0, 0, 0];
  const servers: Record<string, number> = {};
  const traps: TrapReport[] = [];
  for (const c of counts) {
    discovered += c.discovered;
    done += c.done;
    failed += c.failed;
    skipped += c.skipped;
    results += c.results;
    bytes += c.bytes;
    pending += pendingOf(c);
    traps.push(...c.traps);
    for (const [nodeId, n] of Object.entries(c.servers)) servers[nodeId] = (servers[nodeId] ?? 0) + n;
  }
  // A host that has many pages is no wonder; one that goes in circles should be looked at.
  const weight = ({ reason, pages, skipped }: TrapReport) =>
    pages + skipped + (reason === "near duplicates" ? 2 ** 40 : 0);
  traps.sort((a, b) => weight(b) - weight(a));
  const waitingOn = [...extra.waiting].sort((a, b) => b.until - a.until).slice(0, WAITING_SHOWN_MAX);
  return {
    discovered,
    done,
    failed,
    skipped,
    pending,
    results,
    bytes,
    pagesPerSecond: extra.pagesPerSecond,
    waitingOn,
    servers,
    traps: traps.slice(0, TRAPS_SHOWN_MAX),
  };
}

/** The statistics of a job that is over: what was still pending counts as skipped. */
export function finalStats(stats: JobStats): JobStats {
  return {
    ...stats,
    skipped: stats.skipped + stats.pending,
    pending: 0,
    pagesPerSecond: 0,
    waitingOn: [],
  };
}

const SPEED_WINDOW_MS = 5000;
const SPEED_SAMPLES_MAX = 64;

/** Pages settled a second, over the last five seconds. */
export class Speed {
  // Oldest first; all but the first lie within the window.
  #samples: { readonly atMs: number; readonly settled: number }[] = [];

  /** `settled` is a total. */
  sample(nowMs: number, settled: number): void {
    // Another run: what failed is pending again.
    if (settled < (this.#samples.at(-1)?.settled ?? 0)) this.#samples = [];
    const last = this.#samples.at(-1);
    if (last !== undefined && (last.settled === settled || nowMs - last.atMs < 100)) return;
    this.#samples.push({ atMs: nowMs, settled });
    while (
      this.#samples.length > SPEED_SAMPLES_MAX ||
      (this.#samples.length > 1 && this.#samples[1]!.atMs < nowMs - SPEED_WINDOW_MS)
    ) {
      this.#samples.shift();
    }
  }

  at(nowMs: number): number {
    const first = this.#samples.find((sample) => sample.atMs >= nowMs - SPEED_WINDOW_MS);
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.settled === first.settled) return 0;
    const seconds = Math.max(nowMs - first.atMs, 250) / 1000;
    return Math.round(((last.settled - first.settled) / seconds) * 10) / 10;
  }
}
