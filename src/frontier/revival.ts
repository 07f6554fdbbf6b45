/**
 * Failed pages of a job become pending again, for its next run. The share of the
 * job must not be in memory meanwhile: the job is over for everybody until all
 * participants have done this. Each batch is whole by itself, so whoever is
 * interrupted goes on with the failures that are still listed.
 */
import type { Counts } from "../job/counts.ts";
import type { FrontierWrite } from "./draft.ts";
import type { FailureRecord, Page, Size } from "./page.ts";

/** Failures of one batch: three changes each, and perhaps a host's size. */
export const REVIVED_AT_ONCE = 200;

export interface ListedFailure {
  readonly n: number;
  readonly host: string;
  readonly record: FailureRecord;
}

/**
 * Tries begin anew, hand-outs are counted on: a report of an earlier run still finds nothing.
 *
 * @param counts, sizes changed in place. @param pages by key; those that did not fail stay as they are.
 */
export function revive(
  counts: Counts,
  sizes: ReadonlyMap<string, Size>,
  failures: readonly ListedFailure[],
  pages: ReadonlyMap<string, Page>,
): FrontierWrite[] {
  const { jobId } = counts;
  const writes: FrontierWrite[] = [];
  const touched = new Set<Size>();
  for (const { n, host, record } of failures) {
    writes.push({ kind: "failure", jobId, n, failure: null });
    const page = pages.get(record.key);
    const size = sizes.get(host);
    if (page === undefined || size === undefined || page.status !== "failed") continue;
    Object.assign(page, {
      status: "pending",
      seq: ++counts.seq,
      dueAtMs: 0,
      dueForMs: 0,
      attempts: 0,
      unreported: 0,
      alone: false,
      deaths: 0,
      reason: null,
    } satisfies Partial<Page>);
    counts.failed--;
    size.pending++;
    touched.add(size);
    writes.push({ kind: "page", jobId, host, page });
    const place = { band: "waiting", priority: page.priority, seq: page.seq } as const;
    writes.push({ kind: "due", jobId, host, place, due: { key: page.key, flight: null } });
  }
  for (const size of touched) writes.push({ kind: "size", size });
  writes.push({ kind: "counts", counts: structuredClone(counts) });
  return writes;
}
