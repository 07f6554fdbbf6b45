/**
 * One page, answered in the response: a job of one page that is waited for and
 * removed. So it obeys everything that a crawl does: robots.txt, the pace of the
 * host, retries, the guard against private addresses.
 */
import { z } from "zod";
import { ClusterError, PageFailedError } from "../errors.ts";
import { type JobSpec, jobSpecSchema, type Result, ROBOTS_UNAVAILABLE } from "../job/job-spec.ts";
import { isOver } from "../job/life-cycle.ts";
import type { Jobs } from "../node/jobs.ts";
import { type Permitted, protectedCall } from "./call.ts";
import { requireValid } from "./job-calls.ts";

const { seeds, extract, formats, fetch, politeness } = jobSpecSchema.shape;

export const scrapeSchema = z
  .strictObject({ url: seeds.element, extract, formats, fetch, politeness })
  .transform(
    ({ url, ...wishes }): JobSpec =>
      jobSpecSchema.parse({ ...wishes, seeds: [url], scope: { maxPages: 1, maxDepth: 0 }, ttlDays: 1 }),
  );

/** However many retries were asked for. */
const WAIT_MS_MAX = 120_000;

export const scrapePage = protectedCall({
  access: "jobs:write",
  input: scrapeSchema,
  run: async (asker: Permitted, spec: JobSpec): Promise<Result> => {
    requireValid(spec);
    const { jobs } = asker.ground.backend;
    const { id } = await jobs.submit(asker.principal.username, spec);
    try {
      const deadline = AbortSignal.timeout(WAIT_MS_MAX);
      const signal = AbortSignal.any([asker.signal, deadline]);
      const held = await untilOver(jobs, id, signal, Date.now() + WAIT_MS_MAX);
      if (held !== undefined) throw new PageFailedError(held, null);
      if (deadline.aborted) {
        throw new PageFailedError(
          `it was not had within ${WAIT_MS_MAX / 1000} s; submit a job for it, which waits longer`,
          null,
        );
      }
      const { items } = await jobs.results(id, { limit: 1 });
      if (items[0] !== undefined) return items[0];
      throw await reasonOf(jobs, id);
    } finally {
      await remove(jobs, id);
    }
  },
});

/** Returns what holds it up when that is in vain: nobody waits for an answer that can't come in time. */
async function untilOver(
  jobs: Jobs,
  jobId: string,
  signal: AbortSignal,
  deadlineMs: number,
): Promise<string | undefined> {
  for await (const event of jobs.events(jobId, { pages: false, signal })) {
    if (event.kind === "status" && isOver(event.status)) return undefined;
    if (event.kind !== "progress") continue;
    const [held] = event.stats.waitingOn;
    if (held?.reason === ROBOTS_UNAVAILABLE) {
      return `${held.host} does not answer, or not with its robots.txt, without which no page of it is fetched`;
    }
    if (held !== undefined && held.until > deadlineMs) {
      return `${held.host} is to be left alone until ${new Date(held.until).toISOString()} (${held.reason})`;
    }
  }
  return undefined;
}

async function reasonOf(jobs: Jobs, jobId: string): Promise<PageFailedError> {
  const [failure] = (await jobs.failures(jobId, { limit: 1 })).items;
  if (failure === undefined) {
    const job = await jobs.get(jobId);
    const reason = job.error ?? "robots.txt, a redirect or a rule of the job kept it from being fetched";
    return new PageFailedError(reason, null);
  }
  const { reason, attempts, status } = failure;
  return new PageFailedError(attempts > 1 ? `${reason} (tried ${attempts} times)` : reason, status);
}

/** It is ended first when it still runs, because the asker left or waited too long. */
async function remove(jobs: Jobs, jobId: string): Promise<void> {
  try {
    const { status } = await jobs.get(jobId);
    if (["queued", "running", "paused"].includes(status)) await jobs.setStatus(jobId, "cancelled");
    await jobs.remove(jobId);
  } catch (error) {
    // What was had of the page is not lost over this: the job's own end of life removes it within a day.
    if (!(error instanceof ClusterError)) throw error;
  }
}
