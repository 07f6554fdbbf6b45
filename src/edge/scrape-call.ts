/**
 * One page, answered in the response: a job of one page that is waited for and
 * removed. So it obeys everything that a crawl does: robots.txt, the pace of the
 * host, retries, the guard against private addresses.
 */
import { z } from "zod";
import { ClusterError, InvalidInputError, UnavailableError } from "../errors.ts";
import { type JobSpec, jobSpecSchema, type Result } from "../job/job-spec.ts";
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
      await untilOver(jobs, id, AbortSignal.any([asker.signal, deadline]));
      if (deadline.aborted) {
        throw new UnavailableError(
          `the page was not had within ${WAIT_MS_MAX / 1000} s; submit a job for it`,
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

async function untilOver(jobs: Jobs, jobId: string, signal: AbortSignal): Promise<void> {
  for await (const event of jobs.events(jobId, { pages: false, signal })) {
    if (event.kind === "status" && ["completed", "failed", "cancelled"].includes(event.status)) return;
  }
}

async function reasonOf(jobs: Jobs, jobId: string): Promise<Error> {
  const [failure] = (await jobs.failures(jobId, { limit: 1 })).items;
  if (failure === undefined) {
    const job = await jobs.get(jobId);
    const reason = job.error ?? "robots.txt, a redirect or a rule of the job kept it from being fetched";
    return new InvalidInputError(`the page gave no result: ${reason}`, [{ path: "url", message: reason }]);
  }
  const isTheSite = failure.status === null || failure.status === 429 || failure.status >= 500;
  if (isTheSite) {
    return new UnavailableError(
      `the site did not give the page: ${failure.reason} (tried ${failure.attempts === 1 ? "once" : `${failure.attempts} times`})`,
    );
  }
  return new InvalidInputError(`the page gave no result: ${failure.reason}`, [
    { path: "url", message: failure.reason },
  ]);
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
