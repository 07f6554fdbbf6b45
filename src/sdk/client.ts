/**
 * A client of the cluster: any server will do, and when it dies in the middle of
 * something the next one goes on from there.
 *
 * What is repeated after a lost answer is only what may be: reads, changes of
 * status, and submissions, which carry a key under which the cluster knows them
 * again. Streams resume by the cursor of what was last received.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type {
  ClusterStatus,
  JoinTokenGrant,
  LookupTrace,
  NodeStatus,
  PartitionStatus,
} from "../edge/backend.ts";
import { type ClusterError, UnauthenticatedError, UnavailableError } from "../errors.ts";
import type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";
import { Caller, type CallerOptions } from "./caller.ts";
import { ofFailure, ofThrown } from "./edge-error.ts";
import { readEvents } from "./event-reader.ts";
import { Locks } from "./locks.ts";
import { Values } from "./values.ts";

export type {
  ClusterStatus,
  JoinTokenGrant,
  LookupTrace,
  NodeStatus,
  PartitionStatus,
} from "../edge/backend.ts";
export { ClusterError } from "../errors.ts";
export type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";
export type { AcquireOptions, Lock } from "./locks.ts";
export { StoredValue, type ValueInfo, type WriteResult, type WrittenValue } from "./values.ts";

export type ClientOptions = CallerOptions;

export interface Page<T> {
  readonly items: readonly T[];
  /** Null: there is no more, and never will be. */
  readonly nextCursor: string | null;
}

export interface PageQuery {
  /** 1..1000; 100 when left out. */
  readonly limit?: number | undefined;
  readonly cursor?: string | undefined;
}

export type ClientEvent =
  | { readonly kind: "progress"; readonly stats: JobStats }
  | { readonly kind: "status"; readonly status: JobStatus; readonly job: Job }
  | { readonly kind: "page"; readonly id: string; readonly result: Result };

export interface ScrapeRequest extends Pick<JobSpecInput, "extract" | "formats" | "fetch" | "politeness"> {
  readonly url: string;
}

/** Longer than the edge waits for a page. */
const SCRAPE_MS_MAX = 150_000;
const PAUSE_MS_MIN = 50;
/** Three heartbeats of the edge. */
const SILENT_MS_MAX = 30_000;
const POLL_MS_MIN = 100;
const POLL_MS_MAX = 1_000;
const RESULTS_PER_PAGE = 200;
const OVER: readonly JobStatus[] = ["completed", "failed", "cancelled"];

export class Client {
  readonly #caller: Caller;

  /** Values under a namespace and a key. */
  readonly kv: Values;
  readonly locks: Locks;

  readonly jobs = {
    /**
     * @param options.idempotencyKey the same key and spec always mean the same job;
     *   a new one each time when left out, so that only lost answers are repeated.
     */
    submit: (spec: JobSpecInput, options: { idempotencyKey?: string } = {}): Promise<Job> => {
      const { idempotencyKey = randomUUID() } = options;
      return this.#caller.call((to, rest) => to.jobs.submit.mutate({ spec, idempotencyKey }, rest));
    },
    list: (
      query: PageQuery & { status?: JobStatus | undefined; owner?: string | undefined } = {},
    ): Promise<Page<Job>> => this.#caller.call((to, rest) => to.jobs.list.query(query, rest)),
    get: (jobId: string): Promise<Job> => this.#caller.call((to, rest) => to.jobs.get.query({ jobId }, rest)),
    pause: (jobId: string): Promise<Job> =>
      this.#caller.call((to, rest) => to.jobs.pause.mutate({ jobId }, rest)),
    resume: (jobId: string): Promise<Job> =>
      this.#caller.call((to, rest) => to.jobs.resume.mutate({ jobId }, rest)),
    cancel: (jobId: string): Promise<Job> =>
      this.#caller.call((to, rest) => to.jobs.cancel.mutate({ jobId }, rest)),
    remove: async (jobId: string): Promise<void> => {
      await this.#caller.call((to, rest) => to.jobs.remove.mutate({ jobId }, rest));
    },
    /** One page of them; `results` below gives all. */
    results: (jobId: string, page: PageQuery = {}): Promise<Page<Result>> =>
      this.#caller.call((to, rest) => to.jobs.results.query({ jobId, ...page }, rest)),
    failures: (jobId: string, page: PageQuery = {}): Promise<Page<Failure>> =>
      this.#caller.call((to, rest) => to.jobs.failures.query({ jobId, ...page }, rest)),
  };

  readonly cluster = {
    status: (): Promise<ClusterStatus> => this.#caller.call((to, rest) => to.cluster.status.query({}, rest)),
    nodes: async (): Promise<readonly NodeStatus[]> =>
      (await this.#caller.call((to, rest) => to.cluster.nodes.query({}, rest))).items,
    partitions: async (): Promise<readonly PartitionStatus[]> =>
      (await this.#caller.call((to, rest) => to.cluster.partitions.query({}, rest))).items,
    /** @param key what is placed on the ring, e.g. `host/example.org`. */
    lookup: (key: string): Promise<LookupTrace> =>
      this.#caller.call((to, rest) => to.cluster.lookup.query({ key }, rest)),
    createJoinToken: (): Promise<JoinTokenGrant> =>
      this.#caller.call((to, rest) => to.cluster.createJoinToken.mutate({}, rest)),
  };

  /** @throws {UsageError} */
  constructor(options: ClientOptions) {
    this.#caller = new Caller(options);
    this.kv = new Values(this.#caller);
    this.locks = new Locks(this.#caller);
  }

  /** Servers that this client knows of, the one it asks now included. */
  get servers(): readonly string[] {
    return this.#caller.servers.all;
  }

  /** The server that it asks now. */
  get server(): string {
    return this.#caller.servers.current;
  }

  /**
   * All results, each once, in the cluster's order; waits for more while the job runs.
   *
   * @param options.follow false: only those that are there.
   */
  async *results(
    jobId: string,
    options: { cursor?: string | undefined; follow?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<Result, void, void> {
    let { cursor } = options;
    let pollMs = POLL_MS_MIN;
    while (options.signal?.aborted !== true) {
      const page = await this.jobs.results(jobId, { limit: RESULTS_PER_PAGE, cursor });
      for (const result of page.items) yield result;
      if (page.nextCursor === null) return;
      cursor = page.nextCursor;
      if (page.items.length > 0) pollMs = POLL_MS_MIN;
      else if (options.follow === false) return;
      if (page.items.length < RESULTS_PER_PAGE) {
        await untilLater(pollMs, options.signal);
        if (page.items.length === 0) pollMs = Math.min(pollMs * 2, POLL_MS_MAX);
      }
    }
  }

  /**
   * What happens to a job, until it is over. Each `page` comes once, also when the
   * server changes in between; `progress` and `status` tell the present state.
   *
   * @param options.pages false: without `page`, which carries whole results.
   */
  async *events(
    jobId: string,
    options: { lastEventId?: string | undefined; pages?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<ClientEvent, void, void> {
    let lastEventId = options.lastEventId ?? "";
    let isOver = false;
    let failedSinceMs: number | undefined;
    while (!isOver) {
      const server = this.#caller.servers.current;
      try {
        for await (const { event, id } of this.#eventsOf(server, jobId, lastEventId, options)) {
          failedSinceMs = undefined;
          lastEventId = id;
          isOver = event.kind === "status" && OVER.includes(event.status);
          yield event;
        }
        if (options.signal?.aborted === true) return;
        if (!isOver) await untilLater(PAUSE_MS_MIN, options.signal);
      } catch (thrown) {
        if (options.signal?.aborted === true) return;
        const error = ofThrown(thrown, server);
        failedSinceMs ??= performance.now();
        const isHopeless = performance.now() - failedSinceMs > this.#caller.timeoutMs;
        if (error instanceof UnauthenticatedError && this.#caller.signIn.canRenew && !isHopeless)
          this.#caller.signIn.forget();
        else if (error.remedy === "reject" || isHopeless) throw error;
        else this.#caller.servers.moveOnFrom(server);
        await untilLater(PAUSE_MS_MIN, options.signal);
      }
    }
  }

  /** Submits, waits for the end, and collects: for crawls whose results fit into memory. */
  async crawl(spec: JobSpecInput): Promise<{ readonly job: Job; readonly results: readonly Result[] }> {
    const { id } = await this.jobs.submit(spec);
    const results: Result[] = [];
    for await (const result of this.results(id)) results.push(result);
    return { job: await this.jobs.get(id), results };
  }

  /** One page. Not repeated once a server has taken it: the page would be fetched twice. */
  scrape(request: ScrapeRequest): Promise<Result> {
    const limits = { repeatable: false, timeoutMs: SCRAPE_MS_MAX, attemptMs: SCRAPE_MS_MAX };
    return this.#caller.call((to, rest) => to.scrape.mutate(request, rest), limits);
  }

  /** Ends the session and all connections. Calls under way fail. */
  close(): Promise<void> {
    return this.#caller.close();
  }

  async *#eventsOf(
    server: string,
    jobId: string,
    lastEventId: string,
    options: { pages?: boolean; signal?: AbortSignal },
  ): AsyncGenerator<{ event: ClientEvent; id: string }> {
    const url = `${server}/v1/jobs/${encodeURIComponent(jobId)}/events?pages=${options.pages !== false}`;
    const headers = {
      accept: "text/event-stream",
      ...(lastEventId === "" ? {} : { "last-event-id": lastEventId }),
    };
    const signal = AbortSignal.any([this.#caller.closing, ...(options.signal ? [options.signal] : [])]);
    const { statusCode, body } = await this.#caller.connection.stream(url, headers, SILENT_MS_MAX, signal);
    if (statusCode !== 200) {
      // Each answer of an edge that is no stream is a problem; anything else came from something in between.
      throw problemError(await body.text(), `${server} answered ${statusCode}`);
    }
    for await (const { event, data, id } of readEvents(body)) {
      switch (event) {
        case "progress":
          yield { event: { kind: "progress", stats: JSON.parse(data) as JobStats }, id: id || lastEventId };
          break;
        case "status": {
          const { status, job } = JSON.parse(data) as { status: JobStatus; job: Job };
          yield { event: { kind: "status", status, job }, id: id || lastEventId };
          break;
        }
        case "page":
          yield { event: { kind: "page", id, result: JSON.parse(data) as Result }, id };
          break;
        case "problem":
          throw problemError(data, server);
      }
    }
  }
}

/** @throws {UsageError} no server, or nothing or too much to sign in with. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}

interface ProblemBody {
  readonly code?: string;
  readonly detail?: string;
  readonly retryAfterMs?: number;
}

function problemError(text: string, otherwise: string): ClusterError {
  try {
    const { code = "UNAVAILABLE", detail = otherwise, retryAfterMs } = JSON.parse(text) as ProblemBody;
    return ofFailure({ code, message: detail, retryAfterMs });
  } catch (cause) {
    return new UnavailableError(otherwise, { cause });
  }
}

/** Wakes early when `signal` is aborted; whoever waits looks at it. */
async function untilLater(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await pause(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {});
}
