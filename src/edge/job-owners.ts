/**
 * Whose job it is. A job never changes hands and its id is never given twice, so
 * what was once read holds; paging through results doesn't read the job each time.
 */
import { NotFoundError } from "../errors.ts";
import { seesAllTenants } from "../identity/permission.ts";
import type { Job } from "../job/job-spec.ts";
import type { Jobs } from "../node/jobs.ts";
import type { Principal } from "./backend.ts";

const KNOWN_MAX = 4096;

export class JobOwners {
  readonly #jobs: Jobs;
  /** By job id; the oldest is dropped at KNOWN_MAX. */
  readonly #known = new Map<string, string>();

  constructor(jobs: Jobs) {
    this.#jobs = jobs;
  }

  /** @throws {NotFoundError} unknown, or another's: the two are not told apart. */
  async require(principal: Principal, jobId: string): Promise<void> {
    const owner = this.#known.get(jobId) ?? this.#learn(await this.#jobs.get(jobId));
    requireOwner(principal, owner);
  }

  /** The job as it is now. @throws {NotFoundError} as `require`. */
  async job(principal: Principal, jobId: string): Promise<Job> {
    const job = await this.#jobs.get(jobId);
    requireOwner(principal, this.#learn(job));
    return job;
  }

  #learn(job: Job): string {
    if (this.#known.size >= KNOWN_MAX) {
      const [oldest] = this.#known.keys();
      if (oldest !== undefined) this.#known.delete(oldest);
    }
    this.#known.set(job.id, job.owner);
    return job.owner;
  }
}

function requireOwner(principal: Principal, owner: string): void {
  if (owner !== principal.username && !seesAllTenants(principal.role)) {
    throw new NotFoundError("there is no such job, or it is not yours; list yours with GET /v1/jobs");
  }
}
