/** Calls about jobs and what they brought. */
import { z } from "zod";
import { ForbiddenError, InvalidInputError } from "../errors.ts";
import { seesAllTenants } from "../identity/permission.ts";
import { userNameSchema } from "../identity/user.ts";
import { checkJobSpec } from "../job/check-job-spec.ts";
import { type Job, jobSpecSchema, jobStatusSchema } from "../job/job-spec.ts";
import type { JobEvent } from "../node/jobs.ts";
import { type Permitted, protectedCall } from "./call.ts";

export const jobIdSchema = z.string().regex(/^[0-9a-f]{32}$/, "is no job id: 32 of 0-9 a-f");
const cursorSchema = z.string().min(1).max(8192);

export const pageSchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: cursorSchema.optional(),
});

export const listSchema = pageSchema.extend({
  status: jobStatusSchema.optional(),
  /** Another's jobs; for administrators. */
  owner: userNameSchema.optional(),
});

export const idempotencyKeySchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, "must be 1 to 255 printable ASCII characters without spaces");

/** Not checked to be a URL: that it is none is an answer. */
export const askedUrlSchema = z.string().min(1).max(16_384);

const ofJob = z.object({ jobId: jobIdSchema });
const pageOfJob = pageSchema.extend({ jobId: jobIdSchema });

export const eventsSchema = z.object({
  jobId: jobIdSchema,
  lastEventId: cursorSchema.optional(),
  /** Whether `page` events are wanted, each with a whole Result. */
  pages: z.boolean(),
});

export const submitJob = protectedCall({
  access: "jobs:write",
  input: z.object({ spec: jobSpecSchema, idempotencyKey: idempotencyKeySchema.optional() }),
  run: async ({ ground, principal }, { spec, idempotencyKey }) => {
    requireValid(spec);
    return publicJob(await ground.backend.jobs.submit(principal.username, spec, idempotencyKey));
  },
});

export const listJobs = protectedCall({
  access: "jobs:read",
  input: listSchema,
  run: async ({ ground, principal }, { owner = principal.username, limit, cursor, status }) => {
    if (owner !== principal.username && !seesAllTenants(principal.role)) {
      throw new ForbiddenError("only administrators list the jobs of others; leave out `owner`");
    }
    const page = await ground.backend.jobs.list({
      owner,
      limit,
      ...(cursor === undefined ? {} : { cursor }),
      ...(status === undefined ? {} : { status }),
    });
    return { items: page.items.map(publicJob), nextCursor: page.nextCursor };
  },
});

export const getJob = protectedCall({
  access: "jobs:read",
  input: ofJob,
  run: async ({ ground, principal }, { jobId }) => publicJob(await ground.owners.job(principal, jobId)),
});

export const pauseJob = protectedCall({
  access: "jobs:write",
  input: ofJob,
  run: (asker, { jobId }) => setStatus(asker, jobId, "paused"),
});

export const resumeJob = protectedCall({
  access: "jobs:write",
  input: ofJob,
  run: (asker, { jobId }) => setStatus(asker, jobId, "running"),
});

export const cancelJob = protectedCall({
  access: "jobs:write",
  input: ofJob,
  run: (asker, { jobId }) => setStatus(asker, jobId, "cancelled"),
});

export const retryJobFailures = protectedCall({
  access: "jobs:write",
  input: ofJob,
  run: async ({ ground, principal }, { jobId }) => {
    await ground.owners.require(principal, jobId);
    return publicJob(await ground.backend.jobs.retryFailures(jobId));
  },
});

export const removeJob = protectedCall({
  access: "jobs:write",
  input: ofJob,
  run: async ({ ground, principal }, { jobId }) => {
    await ground.owners.require(principal, jobId);
    await ground.backend.jobs.remove(jobId);
  },
});

export const jobResults = protectedCall({
  access: "results:read",
  input: pageOfJob,
  run: async ({ ground, principal }, { jobId, ...page }) => {
    await ground.owners.require(principal, jobId);
    return ground.backend.jobs.results(jobId, cursorPage(page));
  },
});

export const jobFailures = protectedCall({
  access: "results:read",
  input: pageOfJob,
  run: async ({ ground, principal }, { jobId, ...page }) => {
    await ground.owners.require(principal, jobId);
    return ground.backend.jobs.failures(jobId, cursorPage(page));
  },
});

export const explainUrl = protectedCall({
  access: "jobs:read",
  input: ofJob.extend({ url: askedUrlSchema }),
  run: async ({ ground, principal }, { jobId, url }) => {
    await ground.owners.require(principal, jobId);
    return ground.backend.jobs.explain(jobId, url);
  },
});

/** The events of a job, once it is sure that the asker may see them. They end when the asker is gone. */
export const jobEvents = protectedCall({
  access: "jobs:read",
  input: eventsSchema,
  run: async (
    { ground, principal, signal },
    { jobId, lastEventId, pages },
  ): Promise<AsyncIterable<JobEvent>> => {
    await ground.owners.require(principal, jobId);
    return ground.backend.jobs.events(jobId, {
      pages,
      signal,
      ...(lastEventId === undefined ? {} : { lastEventId }),
    });
  },
});

/** @throws {InvalidInputError} names every rule and pattern that could not be applied. */
export function requireValid(spec: z.output<typeof jobSpecSchema>): void {
  const issues = checkJobSpec(spec);
  const [first] = issues;
  if (first !== undefined) throw new InvalidInputError(`${first.path}: ${first.message}`, issues);
}

/** Headers that prove who asks a site are shown to nobody. */
const SECRET_HEADER = /auth|cookie|token|secret|password|session|key/i;

/** Without the secrets that its spec holds. */
export function publicJob(job: Job): Job {
  const headers = Object.fromEntries(
    Object.entries(job.spec.fetch.headers).map(([name, value]) => [
      name,
      SECRET_HEADER.test(name) ? "***" : value,
    ]),
  );
  return { ...job, spec: { ...job.spec, fetch: { ...job.spec.fetch, headers } } };
}

async function setStatus(
  { ground, principal }: Permitted,
  jobId: string,
  to: "paused" | "running" | "cancelled",
): Promise<Job> {
  await ground.owners.require(principal, jobId);
  return publicJob(await ground.backend.jobs.setStatus(jobId, to));
}

function cursorPage(page: { limit: number; cursor?: string | undefined }): {
  limit: number;
  cursor?: string;
} {
  return page.cursor === undefined ? { limit: page.limit } : { limit: page.limit, cursor: page.cursor };
}
