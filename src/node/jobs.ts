/**
 * Jobs, on any member: everything here goes to whoever leads what is asked for,
 * and nothing is kept but what spares the same question twice.
 */
import { hash, randomBytes } from "node:crypto";
import { z } from "zod";
import { InvalidInputError, NotFoundError, UnavailableError } from "../errors.ts";
import { canonicalUrl } from "../frontier/canonical-url.ts";
import type { Explanation } from "../job/explanation.ts";
import { isSettled, type JobRecord, jobOf } from "../job/job-record.ts";
import type { Failure, Job, JobSpec, JobStats, JobStatus, Result } from "../job/job-spec.ts";
import { scopeHosts, scopeIssues } from "../job/scope.ts";
import { type Clock, systemClock } from "./clock.ts";
import type { Answer, CrawlReply, CrawlRequest } from "./crawl-message.ts";
import { JobExplainer } from "./job-explainer.ts";
import { JobFeed } from "./job-feed.ts";
import { areInline, readSeeds, writeSeeds } from "./job-seeds.ts";
import { KeyLayout, type Names } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import type { Registers } from "./registers.ts";
import { type Participant, ResultReader } from "./result-reader.ts";
import type { BlobsLike } from "./runner.ts";

export type JobEvent =
  | { readonly kind: "progress"; readonly stats: JobStats }
  | { readonly kind: "status"; readonly status: JobStatus; readonly job: Job }
  /** `id`: resume behind this one. */
  | { readonly kind: "page"; readonly id: string; readonly result: Result };

export interface Jobs {
  /**
   * The job is durable when this resolves; a repeat with the same key gives the same job.
   *
   * @throws {InvalidInputError} a wrong scope, or another spec under the same key.
   */
  submit(owner: string, spec: JobSpec, idempotencyKey?: string): Promise<Job>;
  /** @throws {NotFoundError} */
  get(jobId: string): Promise<Job>;
  /** Newest first. */
  list(query: {
    readonly owner: string;
    readonly status?: JobStatus;
    readonly limit: number;
    readonly cursor?: string;
  }): Promise<{ items: Job[]; nextCursor: string | null }>;
  /** @throws {WrongStateError} a job that is over stays so. */
  setStatus(jobId: string, to: "paused" | "running" | "cancelled"): Promise<Job>;
  /**
   * Another run of a job that is over: all pages that failed are pending again, nothing else.
   *
   * @throws {WrongStateError} it is not over, or has nothing that could be tried again.
   */
  retryFailures(jobId: string): Promise<Job>;
  remove(jobId: string): Promise<void>;
  /** `nextCursor` is null once the job is over and all is read; while it runs, ask again later. */
  results(
    jobId: string,
    page: { readonly limit: number; readonly cursor?: string },
  ): Promise<{ items: Result[]; nextCursor: string | null }>;
  failures(
    jobId: string,
    page: { readonly limit: number; readonly cursor?: string },
  ): Promise<{ items: Failure[]; nextCursor: string | null }>;
  /** Why the URL was, or was not, fetched. */
  explain(jobId: string, url: string): Promise<Explanation>;
  /** Ends after the final status. A slow reader slows nobody else. */
  events(
    jobId: string,
    options: { readonly lastEventId?: string; readonly pages?: boolean; readonly signal: AbortSignal },
  ): AsyncIterable<JobEvent>;
}

export interface JobsOptions {
  readonly naming: Names;
  readonly partitionCount: number;
  readonly registers: Registers;
  readonly blobs?: BlobsLike | undefined;
  readonly clock?: Clock;
  /** 16 bytes that nobody can guess. */
  readonly newId?: () => Uint8Array;
}

const indexSchema = z.object({ jobId: z.string(), createdAtMs: z.number() });

const LIST_READ = 64;
const LIST_SCANNED_MAX = 4096;
const EVENT_PAGES = 100;
const SUBMIT_MS = 10_000;

export class ClusterJobs implements Jobs {
  readonly #layout: KeyLayout;
  readonly #registers: Registers;
  readonly #clock: Clock;
  readonly #newId: () => Uint8Array;
  readonly #reader: ResultReader;
  readonly #explainer: JobExplainer;
  // Of the jobs that are watched here.
  readonly #feeds = new Map<string, JobFeed>();

  constructor(options: JobsOptions) {
    this.#layout = new KeyLayout(options.naming, options.partitionCount);
    this.#registers = options.registers;
    this.#clock = options.clock ?? systemClock;
    this.#newId = options.newId ?? (() => randomBytes(16));
    this.#explainer = new JobExplainer({
      layout: this.#layout,
      operate: (partition, operation) => options.registers.operate(partition, operation),
      now: () => this.#clock.wall(),
    });
    this.#reader = new ResultReader({
      layout: this.#layout,
      operate: (partition, operation) =>
        options.registers.operate(partition, operation, { repeatable: true }),
      blobs: options.blobs,
      now: () => this.#clock.wall(),
    });
  }

  async submit(owner: string, spec: JobSpec, idempotencyKey?: string): Promise<Job> {
    const hosts = this.#checked(spec);
    const specHash = hash("sha256", JSON.stringify(spec), "hex");
    const isNamed = idempotencyKey !== undefined;
    const jobId = isNamed
      ? this.#layout.jobIdFor(owner, idempotencyKey)
      : Buffer.from(this.#newId()).toString("hex");
    if (isNamed) {
      const known = await this.#ask(jobId, { kind: "job" });
      if (known.kind === "job") return this.#sameJob(known, specHash);
    }
    const { seeds, ...rest } = spec;
    const isInline = areInline(seeds);
    const createdAtMs = this.#clock.wall();
    const record: JobRecord = {
      jobId,
      owner,
      status: "queued",
      run: 1,
      spec: rest,
      seeds: isInline ? seeds : null,
      seedCount: seeds.length,
      seededTo: 0,
      scopeHosts: scopeHosts(spec.scope.hosts, hosts),
      specHash,
      createdAtMs,
      startedAtMs: null,
      finishedAtMs: null,
      error: null,
      stats: null,
      deleted: false,
    };
    // The index comes first: an entry without a job is skipped, a job without one would be lost to its owner.
    await this.#registers.operate(
      this.#layout.ownerPartition(owner),
      {
        kind: "batch",
        changes: [
          {
            kind: "put",
            key: this.#layout.jobIndex(owner, createdAtMs, jobId),
            value: encodeRecord({ jobId, createdAtMs }),
          },
        ],
        conditions: [],
      },
      { repeatable: true },
    );
    const partition = this.#layout.jobPartition(jobId);
    if (!isInline) {
      for (const operation of writeSeeds(this.#layout, jobId, seeds)) {
        await this.#registers.operate(partition, operation, { repeatable: true });
      }
    }
    const reply = await this.#registers.crawlAtLeader(
      partition,
      { kind: "submit", partition, record },
      { timeoutMs: SUBMIT_MS },
    );
    return this.#sameJob(jobReply(reply), specHash);
  }

  async get(jobId: string): Promise<Job> {
    return this.#jobOf(jobReply(await this.#ask(jobId, { kind: "job" })));
  }

  async list(query: {
    readonly owner: string;
    readonly status?: JobStatus;
    readonly limit: number;
    readonly cursor?: string;
  }): Promise<{ items: Job[]; nextCursor: string | null }> {
    const prefix = this.#layout.jobIndexPrefix(query.owner);
    let after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, prefix);
    const items: Job[] = [];
    let scanned = 0;
    while (scanned < LIST_SCANNED_MAX) {
      const outcome = await this.#registers.operate(this.#layout.ownerPartition(query.owner), {
        kind: "scan",
        prefix,
        limit: Math.min(LIST_READ, query.limit - items.length),
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") break;
      const { entries, more } = outcome;
      scanned += entries.length;
      const jobs = await Promise.all(
        entries.map(async (entry) => {
          const { jobId, createdAtMs } = decodeRecord(indexSchema, entry.value);
          const reply = await this.#ask(jobId, { kind: "job" });
          // A submission that was not finished, or repeated under its key, leaves an entry behind.
          if (reply.kind !== "job" || reply.record.createdAtMs !== createdAtMs) return undefined;
          if (query.status !== undefined && reply.record.status !== query.status) return undefined;
          return this.#jobOf(reply);
        }),
      );
      items.push(...jobs.filter((job) => job !== undefined));
      after = entries.at(-1)?.key;
      if (!more || after === undefined) return { items, nextCursor: null };
      if (items.length >= query.limit) break;
    }
    return {
      items,
      nextCursor: after === undefined ? null : Buffer.from(after, "latin1").toString("base64url"),
    };
  }

  async setStatus(jobId: string, to: "paused" | "running" | "cancelled"): Promise<Job> {
    return this.#jobOf(jobReply(await this.#ask(jobId, { kind: "setStatus", to })));
  }

  async retryFailures(jobId: string): Promise<Job> {
    return this.#jobOf(jobReply(await this.#ask(jobId, { kind: "retryFailures" })));
  }

  async remove(jobId: string): Promise<void> {
    await this.get(jobId);
    await this.#ask(jobId, { kind: "remove" });
  }

  async results(
    jobId: string,
    page: { readonly limit: number; readonly cursor?: string },
  ): Promise<{ items: Result[]; nextCursor: string | null }> {
    const from = await this.#reader.resultProgress(jobId, page.cursor);
    const { participants, isFinal } = await this.#participants(jobId);
    const read = await this.#reader.results(jobId, participants, from, page.limit, isFinal);
    return {
      items: read.items.map(({ result }) => result),
      nextCursor: read.isOver ? null : await this.#reader.resultCursor(jobId, read.progress),
    };
  }

  async failures(
    jobId: string,
    page: { readonly limit: number; readonly cursor?: string },
  ): Promise<{ items: Failure[]; nextCursor: string | null }> {
    const from = await this.#reader.failureProgress(jobId, page.cursor);
    const { participants, isFinal } = await this.#participants(jobId);
    const read = await this.#reader.failures(jobId, participants, from, page.limit, isFinal);
    return {
      items: read.items,
      nextCursor: read.isOver ? null : await this.#reader.failureCursor(jobId, read.progress),
    };
  }

  async explain(jobId: string, url: string): Promise<Explanation> {
    const { record } = jobReply(await this.#ask(jobId, { kind: "job" }));
    return this.#explainer.explain(record, url);
  }

  async *events(
    jobId: string,
    options: { readonly lastEventId?: string; readonly pages?: boolean; readonly signal: AbortSignal },
  ): AsyncGenerator<JobEvent> {
    const { signal } = options;
    let progress = await this.#reader.resultProgress(jobId, options.lastEventId);
    const feed = this.#feedOf(jobId);
    feed.readers++;
    try {
      let serial = 0;
      let status: JobStatus | undefined;
      let stats = "";
      while (!signal.aborted) {
        const reply = await feed.next(serial, signal);
        if (reply === undefined) return;
        serial = feed.serial;
        const isFinal = isSettled(reply.record);
        if (status === undefined && !isFinal) {
          status = reply.record.status;
          yield { kind: "status", status, job: await this.#jobOf(reply) };
        }
        if (options.pages === true) {
          const { participants } = await this.#participants(jobId, reply);
          while (!signal.aborted) {
            const page = await this.#reader.results(jobId, participants, progress, EVENT_PAGES, isFinal);
            for (const { result, partition, n } of page.items) {
              progress.set(partition, { n, isOver: false });
              yield { kind: "page", id: await this.#reader.resultCursor(jobId, progress), result };
              if (signal.aborted) return;
            }
            progress = page.progress;
            if (page.items.length < EVENT_PAGES && (!isFinal || page.isOver)) break;
          }
        }
        const present = reply.record.stats ?? reply.stats;
        const text = JSON.stringify(present);
        if (text !== stats) {
          stats = text;
          yield { kind: "progress", stats: present };
        }
        if (reply.record.status !== status || isFinal) {
          // A job that was cancelled is told so at once, and again when it is counted.
          status = reply.record.status;
          yield { kind: "status", status, job: await this.#jobOf(reply) };
        }
        if (isFinal) return;
      }
    } finally {
      if (--feed.readers === 0) this.#feeds.delete(jobId);
    }
  }

  // --- inside -------------------------------------------------------------------------------

  /** The hosts of its seeds. @throws {InvalidInputError} */
  #checked(spec: JobSpec): string[] {
    const issues = scopeIssues(spec.scope);
    const hosts: string[] = [];
    for (const [n, seed] of spec.seeds.entries()) {
      const canonical = canonicalUrl(seed, undefined, spec.scope);
      if (canonical === undefined) {
        issues.push({ path: `seeds.${n}`, message: `"${seed}" has no canonical form: check its host` });
      } else {
        hosts.push(canonical.host);
      }
    }
    if (issues.length > 0) throw new InvalidInputError("the job's spec is not valid", issues);
    return hosts;
  }

  #ask(
    jobId: string,
    question:
      | { kind: "job"; newerThan?: number; waitMs?: number; participants?: boolean }
      | { kind: "setStatus"; to: "paused" | "running" | "cancelled" }
      | { kind: "remove" }
      | { kind: "retryFailures" },
  ): Promise<CrawlReply> {
    if (!/^[0-9a-f]{32}$/.test(jobId)) return Promise.resolve({ kind: "gone" });
    const partition = this.#layout.jobPartition(jobId);
    const request: CrawlRequest = { ...question, partition, jobId };
    return this.#registers.crawlAtLeader(partition, request);
  }

  #sameJob(reply: Answer<"job">, specHash: string): Promise<Job> {
    if (reply.record.specHash !== specHash) {
      throw new InvalidInputError("another job was submitted under this Idempotency-Key: choose a new key", [
        { path: "Idempotency-Key", message: "was used for another body" },
      ]);
    }
    return this.#jobOf(reply);
  }

  async #jobOf({ record, stats }: Answer<"job">): Promise<Job> {
    const partition = this.#layout.jobPartition(record.jobId);
    const seeds =
      record.seeds ??
      (await readSeeds(this.#layout, record.jobId, (operation) =>
        this.#registers.operate(partition, operation),
      ));
    return jobOf(record, seeds, stats);
  }

  /** Whoever may have results; and whether the job was over before they were looked up. */
  async #participants(
    jobId: string,
    reply?: Answer<"job">,
  ): Promise<{ participants: Participant[]; isFinal: boolean }> {
    const job = reply ?? jobReply(await this.#ask(jobId, { kind: "job", participants: true }));
    const isFinal = isSettled(job.record);
    if (isFinal || job.participants === undefined) {
      return { participants: await this.#reader.participants(jobId), isFinal };
    }
    const participants = job.participants.map(([partition, results, failures]) => ({
      partition,
      results,
      failures,
    }));
    return { participants, isFinal };
  }

  #feedOf(jobId: string): JobFeed {
    let feed = this.#feeds.get(jobId);
    if (feed === undefined) {
      feed = new JobFeed(
        async (known) => jobReply(await this.#ask(jobId, { kind: "job", participants: true, ...known })),
        this.#clock,
      );
      this.#feeds.set(jobId, feed);
    }
    return feed;
  }
}

function jobReply(reply: CrawlReply): Answer<"job"> {
  if (reply.kind === "job") return reply;
  if (reply.kind === "gone") throw new NotFoundError("there is no such job");
  throw new UnavailableError(`the job's leader answered "${reply.kind}"; try again`);
}

function keyOfCursor(cursor: string, prefix: string): string {
  const key = Buffer.from(cursor, "base64url").toString("latin1");
  if (!key.startsWith(prefix)) {
    throw new InvalidInputError("the cursor does not belong to this list: begin without one", [
      { path: "cursor", message: "take it from nextCursor" },
    ]);
  }
  return key;
}
