/**
 * What one partition has counted for one job, over all of the job's hosts that
 * live there. Written in the same batch as the pages it counts, so it is never
 * off by one, whatever dies.
 *
 * Totals only ever grow within a run, so a total heard twice, late or out of
 * order does no harm.
 */
import { z } from "zod";
import { type TrapReport, trapReportSchema } from "./trap-report.ts";

const total = z.int().nonnegative();

export const countsSchema = z.object({
  jobId: z.string(),
  /** Raised when failed pages are tried again. */
  run: total,
  discovered: total,
  /** Pages with a result. */
  done: total,
  failed: total,
  skipped: total,
  /** Numbers given to results and failures so far: 1 to n, without gaps. */
  results: total,
  failures: total,
  /** Credits had from the job, given back, and used for results. */
  granted: total,
  returned: total,
  spent: total,
  /** Of bodies, inflated. */
  bytes: total,
  /** The last number given to a due page. */
  seq: total,
  /** Pages settled, by the node that ran them. */
  servers: z.record(z.string(), total),
  /** Hosts whose further pages lie in other partitions. */
  large: total.default(0),
  /** What was stopped here; entries are replaced, never changed. */
  traps: z.array(trapReportSchema).default([]),
});

/** By one partition. */
const TRAPS_TOLD_MAX = 16;

export type Counts = z.output<typeof countsSchema>;

export function noCounts(jobId: string): Counts {
  return {
    jobId,
    run: 1,
    discovered: 0,
    done: 0,
    failed: 0,
    skipped: 0,
    results: 0,
    failures: 0,
    granted: 0,
    returned: 0,
    spent: 0,
    bytes: 0,
    seq: 0,
    servers: {},
    large: 0,
    traps: [],
  };
}

/** Adds to the report about a pattern, or begins it; past the bound it goes untold. */
export function tellTrap(counts: Counts, news: TrapReport): void {
  const at = counts.traps.findIndex(({ host, pattern }) => host === news.host && pattern === news.pattern);
  const known = counts.traps[at];
  if (known !== undefined) {
    counts.traps[at] = { ...known, skipped: known.skipped + news.skipped };
  } else if (counts.traps.length < TRAPS_TOLD_MAX) {
    counts.traps.push(news);
  } else if (news.reason === "near duplicates") {
    const least = counts.traps.findIndex(({ reason }) => reason === "pages per host");
    if (least !== -1) counts.traps[least] = news;
  }
}

export function pendingOf(counts: Pick<Counts, "discovered" | "done" | "failed" | "skipped">): number {
  return counts.discovered - counts.done - counts.failed - counts.skipped;
}

/** Whether two readings show the same state of a partition. */
export function sameCounts(a: Counts, b: Counts): boolean {
  return (
    a.run === b.run &&
    a.discovered === b.discovered &&
    a.done === b.done &&
    a.failed === b.failed &&
    a.skipped === b.skipped &&
    a.spent === b.spent
  );
}
