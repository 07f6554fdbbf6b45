/** Jobs in memory, behind the same interface: what is crawled and when is up to the test. */
import { createHash, randomBytes } from "node:crypto";
import { EventEmitter, on } from "node:events";
import { InvalidInputError, NotFoundError, WrongStateError } from "../../src/errors.ts";
import type { Explanation } from "../../src/job/explanation.ts";
import type { Failure, Job, JobSpec, JobStats, JobStatus, Result } from "../../src/job/job-spec.ts";
import type { JobEvent, Jobs } from "../../src/node/jobs.ts";

interface Entry {
  job: Job;
  readonly results: Result[];
  readonly failures: Failure[];
}

const isOver = (status: JobStatus) => ["completed", "failed", "cancelled"].includes(status);

export class MemoryJobs implements Jobs {
  readonly #entries = new Map<string, Entry>();
  readonly #named = new Map<string, { jobId: string; spec: string }>();
  readonly #news = new EventEmitter().setMaxListeners(0);
  /** Called for each new job: what a crawler would do. */
  onSubmit: (jobId: string, spec: JobSpec) => void = () => {};

  get ids(): string[] {
    return [...this.#entries.keys()];
  }

  async submit(owner: string, spec: JobSpec, idempotencyKey?: string): Promise<Job> {
    const name = `${owner} ${idempotencyKey}`;
    const known = idempotencyKey === undefined ? undefined : this.#named.get(name);
    if (known !== undefined) {
      if (known.spec !== JSON.stringify(spec))
        throw new InvalidInputError("the Idempotency-Key was used for another job");
      return this.#entry(known.jobId).job;
    }
    const id = randomBytes(16).toString("hex");
    const job: Job = {
      id,
      name: spec.name ?? null,
      owner,
      status: "running",
      spec,
      stats: noStats,
      createdAt: "2026-01-01T00:00:00.000Z",
      startedAt: "2026-01-01T00:00:00.000Z",
      finishedAt: null,
    };
    this.#entries.set(id, { job, results: [], failures: [] });
    if (idempotencyKey !== undefined) this.#named.set(name, { jobId: id, spec: JSON.stringify(spec) });
    this.onSubmit(id, spec);
    return job;
  }

  async get(jobId: string): Promise<Job> {
    return this.#entry(jobId).job;
  }

  async list(query: { owner: string; status?: JobStatus; limit: number; cursor?: string }) {
    const from = Number(query.cursor ?? 0);
    const own = [...this.#entries.values()]
      .map(({ job }) => job)
      .filter(({ owner, status }) => owner === query.owner && (query.status ?? status) === status)
      .reverse();
    const to = from + query.limit;
    return { items: own.slice(from, to), nextCursor: to < own.length ? String(to) : null };
  }

  async setStatus(jobId: string, to: "paused" | "running" | "cancelled"): Promise<Job> {
    const { job } = this.#entry(jobId);
    if (isOver(job.status)) throw new WrongStateError(`the job is ${job.status}`);
    this.#change(jobId, { status: to });
    return this.#entry(jobId).job;
  }

  async retryFailures(jobId: string): Promise<Job> {
    const { job, failures } = this.#entry(jobId);
    if (!isOver(job.status) || failures.length === 0) throw new WrongStateError("nothing to try again");
    failures.length = 0;
    this.#change(jobId, { status: "running", stats: { ...job.stats, failed: 0 }, finishedAt: null });
    return this.#entry(jobId).job;
  }

  async remove(jobId: string): Promise<void> {
    this.#entry(jobId);
    this.#entries.delete(jobId);
  }

  async results(jobId: string, page: { limit: number; cursor?: string }) {
    const { job, results } = this.#entry(jobId);
    const to = Number(page.cursor ?? 0) + page.limit;
    const items = results.slice(Number(page.cursor ?? 0), to);
    const isAllRead = isOver(job.status) && to >= results.length;
    return { items, nextCursor: isAllRead ? null : String(Math.min(to, results.length)) };
  }

  async failures(jobId: string, page: { limit: number; cursor?: string }) {
    const { failures } = this.#entry(jobId);
    return { items: failures.slice(0, page.limit), nextCursor: null };
  }

  async explain(jobId: string, url: string): Promise<Explanation> {
    const { results, job } = this.#entry(jobId);
    const result = results.find((one) => one.url === url);
    return {
      url,
      canonicalUrl: url,
      host: URL.parse(url)?.hostname ?? null,
      key: result?.key ?? null,
      state: result === undefined ? "unknown" : "done",
      inScope: result !== undefined,
      found: result === undefined ? null : { parent: null, depth: 0, isSeed: job.spec.seeds.includes(url) },
      attempts: result === undefined ? 0 : 1,
      result: result?.key ?? null,
      rule:
        result === undefined ? { name: "scope.exclude.0", text: "it matches *\u001b[2J", line: null } : null,
      notBefore: null,
      why:
        result === undefined ? "The job's scope does not take it: it matches *\u001b[2J." : "It was fetched.",
    };
  }

  async *events(
    jobId: string,
    {
      lastEventId = "0",
      pages = true,
      signal,
    }: { lastEventId?: string; pages?: boolean; signal: AbortSignal },
  ): AsyncGenerator<JobEvent> {
    const news = on(this.#news, jobId, { signal });
    try {
      for (let n = Number(lastEventId); ; ) {
        const { job, results } = this.#entry(jobId);
        for (; pages && n < results.length; n++)
          yield { kind: "page", id: String(n + 1), result: results[n]! };
        yield { kind: "progress", stats: job.stats };
        if (isOver(job.status)) {
          yield { kind: "status", status: job.status, job };
          return;
        }
        await news.next();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** A page was crawled. */
  add(jobId: string, url: string): void {
    const { results, job } = this.#entry(jobId);
    results.push(resultOf(url));
    this.#change(jobId, { stats: { ...job.stats, results: results.length, done: results.length } });
  }

  fail(jobId: string, failure: Failure): void {
    const { failures, job } = this.#entry(jobId);
    failures.push(failure);
    this.#change(jobId, { stats: { ...job.stats, failed: failures.length } });
  }

  /** Its host is not asked for that long. */
  wait(jobId: string, forMs: number, reason: string): void {
    const { job } = this.#entry(jobId);
    const waitingOn = [{ host: "a.example", until: Date.now() + forMs, reason }];
    this.#change(jobId, { stats: { ...job.stats, waitingOn } });
  }

  finish(jobId: string, status: "completed" | "failed"): void {
    this.#change(jobId, { status, finishedAt: "2026-01-01T00:01:00.000Z" });
  }

  #change(jobId: string, change: Partial<Job>): void {
    const entry = this.#entry(jobId);
    entry.job = { ...entry.job, ...change };
    this.#news.emit(jobId);
  }

  #entry(jobId: string): Entry {
    const entry = this.#entries.get(jobId);
    if (entry === undefined) throw new NotFoundError("there is no such job");
    return entry;
  }
}

const noStats: JobStats = {
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

export function resultOf(url: string): Result {
  return {
    url,
    finalUrl: url,
    key: createHash("sha256").update(url).digest("base64url").slice(0, 22),
    status: 200,
    contentType: "text/html",
    fetchedAt: "2026-01-01T00:00:00.000Z",
    depth: 0,
    parent: null,
    attempt: 1,
    durationMs: 12,
    bytes: 100,
    sha256: "0".repeat(64),
    data: {},
  };
}
