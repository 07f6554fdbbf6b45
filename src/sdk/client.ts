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
import type { AuditEvent, Loss, Recovered } from "../edge/administration-calls.ts";
import {
  type ClusterStatus,
  type JoinTokenGrant,
  type LookupTrace,
  type NodeStatus,
  type PartitionStatus,
  type Readiness,
  readinessSchema,
} from "../edge/backend.ts";
import type { Explanation } from "../job/explanation.ts";
import type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";
import { isOver } from "../job/life-cycle.ts";
import { Caller, type CallerOptions } from "./caller.ts";
import type { SentEvent } from "./event-reader.ts";
import { followEvents } from "./event-source.ts";
import { Locks } from "./locks.ts";
import { Values } from "./values.ts";

const READINESS_MS_MAX = 3_000;

export interface ServerReadiness {
  /** `https://host:port` */
  readonly server: string;
  /** Null: it does not answer. */
  readonly readiness: Readiness | null;
}

export type { AuditEvent, Loss, Recovered } from "../edge/administration-calls.ts";
export type {
  ClusterStatus,
  JoinTokenGrant,
  LookupTrace,
  NodeStatus,
  PartitionStatus,
} from "../edge/backend.ts";
export { ClusterError } from "../errors.ts";
export type { Explanation } from "../job/explanation.ts";
export type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";
export type { AcquireOptions, Lock } from "./locks.ts";
export {
  StoredValue,
  type Value,
  type ValueChange,
  type ValueInfo,
  type WriteResult,
  type WrittenValue,
} from "./values.ts";

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
/** Entries are counted, and each partition is waited for. */
const RECOVERY_MS_MAX = 120_000;
/** Whoever has not signed in may send 16 KiB. */
const RECOVERED_AT_ONCE = 200;
const POLL_MS_MIN = 100;
const POLL_MS_MAX = 1_000;
const RESULTS_PER_PAGE = 200;

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
    /** Another run of a job that is over, with the pages that failed; repeats while that begins mean the same run. */
    retryFailures: (jobId: string): Promise<Job> =>
      this.#caller.call((to, rest) => to.jobs.retryFailures.mutate({ jobId }, rest)),
    remove: async (jobId: string): Promise<void> => {
      await this.#caller.call((to, rest) => to.jobs.remove.mutate({ jobId }, rest));
    },
    /** Why the URL was, or was not, fetched. */
    explain: (jobId: string, url: string): Promise<Explanation> =>
      this.#caller.call((to, rest) => to.jobs.explain.query({ jobId, url }, rest)),
    /** One page of them; `results` below gives all. */
    results: (jobId: string, page: PageQuery = {}): Promise<Page<Result>> =>
      this.#caller.call((to, rest) => to.jobs.results.query({ jobId, ...page }, rest)),
    failures: (jobId: string, page: PageQuery = {}): Promise<Page<Failure>> =>
      this.#caller.call((to, rest) => to.jobs.failures.query({ jobId, ...page }, rest)),
  };

  readonly cluster = {
    status: (): Promise<ClusterStatus> => this.#caller.call((to, rest) => to.cluster.status.query({}, rest)),
    /** What each known server says of itself to anybody; null: it does not answer. Needs no majority of anything. */
    readiness: (): Promise<ServerReadiness[]> =>
      Promise.all(
        this.#caller.servers.all.map(async (server) => {
          const answer = await this.#caller.connection
            .open(`${server}/readyz`, AbortSignal.timeout(READINESS_MS_MAX))
            .catch(() => undefined);
          return { server, readiness: readinessSchema.safeParse(answer).data ?? null };
        }),
      ),
    nodes: async (): Promise<readonly NodeStatus[]> =>
      (await this.#caller.call((to, rest) => to.cluster.nodes.query({}, rest))).items,
    partitions: async (): Promise<readonly PartitionStatus[]> =>
      (await this.#caller.call((to, rest) => to.cluster.partitions.query({}, rest))).items,
    /** @param key what is placed on the ring, e.g. `host/example.org`. */
    lookup: (key: string): Promise<LookupTrace> =>
      this.#caller.call((to, rest) => to.cluster.lookup.query({ key }, rest)),
    /** Leaderships and copies move away from it; `nodes` shows what is left. */
    drain: async (nodeId: string): Promise<void> => {
      await this.#caller.call((to, rest) => to.administration.drain.mutate({ id: nodeId }, rest));
    },
    /** Ends its draining: it keeps its share again. */
    keep: async (nodeId: string): Promise<void> => {
      await this.#caller.call((to, rest) => to.administration.keep.mutate({ id: nodeId }, rest));
    },
    /** For good: its certificate is refused from now on. */
    remove: async (nodeId: string): Promise<void> => {
      await this.#caller.call((to, rest) => to.administration.remove.mutate({ id: nodeId }, rest));
    },
    /** Partitions that lost their majority. Works without a majority of the accounts too, so it takes the password. */
    losses: async (credentials: { username: string; password: string }): Promise<readonly Loss[]> =>
      (
        await this.#caller.call((to, rest) => to.recovery.losses.mutate(credentials, rest), {
          withoutSignIn: true,
          attemptMs: RECOVERY_MS_MAX,
          timeoutMs: RECOVERY_MS_MAX,
        })
      ).items,
    /** Lets them go on from their best survivors: what only the lost ones held is gone. */
    recover: async (
      credentials: { username: string; password: string },
      losses: readonly Loss[],
    ): Promise<Recovered> => {
      const chosen = losses.filter(({ best }) => best !== null);
      const recovered: number[] = [];
      const failed: number[] = [];
      for (let at = 0; at < chosen.length; at += RECOVERED_AT_ONCE) {
        const partitions = chosen
          .slice(at, at + RECOVERED_AT_ONCE)
          .map(({ partition, seen }) => ({ partition, seen }));
        const some = await this.#caller.call(
          (to, rest) => to.recovery.recover.mutate({ ...credentials, partitions }, rest),
          { withoutSignIn: true, repeatable: false, attemptMs: RECOVERY_MS_MAX, timeoutMs: RECOVERY_MS_MAX },
        );
        recovered.push(...some.recovered);
        failed.push(...some.failed);
      }
      return { recovered, failed };
    },
    /** What was done to the cluster, in order. */
    audit: (page: PageQuery = {}): Promise<Page<AuditEvent>> =>
      this.#caller.call((to, rest) => to.administration.audit.query(page, rest)),
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
    const path = `/v1/jobs/${encodeURIComponent(jobId)}/events?pages=${options.pages !== false}`;
    for await (const sent of followEvents(this.#caller, path, options)) {
      const event = jobEventOf(sent);
      if (event === undefined) continue;
      yield event;
      if (event.kind === "status" && isOver(event.status)) return;
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
}

/** @throws {UsageError} no server, or nothing or too much to sign in with. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}

function jobEventOf({ event, data, id }: SentEvent): ClientEvent | undefined {
  switch (event) {
    case "progress":
      return { kind: "progress", stats: JSON.parse(data) as JobStats };
    case "status": {
      const { status, job } = JSON.parse(data) as { status: JobStatus; job: Job };
      return { kind: "status", status, job };
    }
    case "page":
      return { kind: "page", id, result: JSON.parse(data) as Result };
    default: // One of a later version.
      return undefined;
  }
}

/** Wakes early when `signal` is aborted; whoever waits looks at it. */
async function untilLater(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await pause(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {});
}
