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
import {
  BusyError,
  type ClusterError,
  ForbiddenError,
  UnauthenticatedError,
  UnavailableError,
} from "../errors.ts";
import type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";
import { Connection, type Procedures } from "./connection.ts";
import { NoConnectionError, ofFailure, ofThrown } from "./edge-error.ts";
import { readEvents } from "./event-reader.ts";
import { ServerList } from "./server-list.ts";
import { type Credentials, SignIn } from "./sign-in.ts";

export type {
  ClusterStatus,
  JoinTokenGrant,
  LookupTrace,
  NodeStatus,
  PartitionStatus,
} from "../edge/backend.ts";
export { ClusterError } from "../errors.ts";
export type { Failure, Job, JobSpecInput, JobStats, JobStatus, Result } from "../job/job-spec.ts";

export interface ClientOptions extends Credentials {
  /** Edges, `https://host:port`; the first one is asked first. More are learned from the cluster. */
  readonly servers: readonly string[];
  /** PEM of the cluster's root certificate; the system's authorities when left out. */
  readonly ca?: string | undefined;
  /** False: asks only `servers`, for clients that can't reach the addresses that members tell; true when left out. */
  readonly learnServers?: boolean | undefined;
  /** For one call with all its repeats; 30 s when left out. */
  readonly timeoutMs?: number | undefined;
}

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

const CALL_MS_MAX = 30_000;
/** A server answers or gives up within its own 5 s; one that stays silent longer has stopped. */
const ATTEMPT_MS_MAX = 8_000;
/** Longer than the edge waits for a page. */
const SCRAPE_MS_MAX = 150_000;
const PAUSE_MS_MIN = 50;
const PAUSE_MS_MAX = 1_000;
/** When nothing listens anywhere, waiting longer helps seldom. */
const REFUSED_ROUNDS_MAX = 4;
/** Three heartbeats of the edge. */
const SILENT_MS_MAX = 30_000;
const POLL_MS_MIN = 100;
const POLL_MS_MAX = 1_000;
const RESULTS_PER_PAGE = 200;
const LEARN_EVERY_MS = 30_000;
const OVER: readonly JobStatus[] = ["completed", "failed", "cancelled"];

interface CallOptions {
  /** Asking twice does no harm; true when left out. */
  readonly repeatable?: boolean;
  readonly timeoutMs?: number;
  readonly attemptMs?: number;
  /** For signing in itself. */
  readonly withoutSignIn?: boolean;
}

export class Client {
  readonly #servers: ServerList;
  readonly #connection: Connection;
  readonly #signIn: SignIn;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();
  #learnAtMs = 0;
  #learning: Promise<void> = Promise.resolve();

  readonly jobs = {
    /**
     * @param options.idempotencyKey the same key and spec always mean the same job;
     *   a new one each time when left out, so that only lost answers are repeated.
     */
    submit: (spec: JobSpecInput, options: { idempotencyKey?: string } = {}): Promise<Job> => {
      const { idempotencyKey = randomUUID() } = options;
      return this.#call((to, rest) => to.jobs.submit.mutate({ spec, idempotencyKey }, rest));
    },
    list: (
      query: PageQuery & { status?: JobStatus | undefined; owner?: string | undefined } = {},
    ): Promise<Page<Job>> => this.#call((to, rest) => to.jobs.list.query(query, rest)),
    get: (jobId: string): Promise<Job> => this.#call((to, rest) => to.jobs.get.query({ jobId }, rest)),
    pause: (jobId: string): Promise<Job> => this.#call((to, rest) => to.jobs.pause.mutate({ jobId }, rest)),
    resume: (jobId: string): Promise<Job> => this.#call((to, rest) => to.jobs.resume.mutate({ jobId }, rest)),
    cancel: (jobId: string): Promise<Job> => this.#call((to, rest) => to.jobs.cancel.mutate({ jobId }, rest)),
    remove: async (jobId: string): Promise<void> => {
      await this.#call((to, rest) => to.jobs.remove.mutate({ jobId }, rest));
    },
    /** One page of them; `results` below gives all. */
    results: (jobId: string, page: PageQuery = {}): Promise<Page<Result>> =>
      this.#call((to, rest) => to.jobs.results.query({ jobId, ...page }, rest)),
    failures: (jobId: string, page: PageQuery = {}): Promise<Page<Failure>> =>
      this.#call((to, rest) => to.jobs.failures.query({ jobId, ...page }, rest)),
  };

  readonly cluster = {
    status: (): Promise<ClusterStatus> => this.#call((to, rest) => to.cluster.status.query({}, rest)),
    nodes: async (): Promise<readonly NodeStatus[]> =>
      (await this.#call((to, rest) => to.cluster.nodes.query({}, rest))).items,
    partitions: async (): Promise<readonly PartitionStatus[]> =>
      (await this.#call((to, rest) => to.cluster.partitions.query({}, rest))).items,
    /** @param key what is placed on the ring, e.g. `host/example.org`. */
    lookup: (key: string): Promise<LookupTrace> =>
      this.#call((to, rest) => to.cluster.lookup.query({ key }, rest)),
    createJoinToken: (): Promise<JoinTokenGrant> =>
      this.#call((to, rest) => to.cluster.createJoinToken.mutate({}, rest)),
  };

  /** @throws {UsageError} */
  constructor(options: ClientOptions) {
    this.#servers = new ServerList(options.servers);
    this.#timeoutMs = options.timeoutMs ?? CALL_MS_MAX;
    if (options.learnServers === false) this.#learnAtMs = Infinity;
    const open = { withoutSignIn: true } as const;
    this.#signIn = new SignIn(options, {
      token: (credentials) => this.#call((to, rest) => to.auth.token.mutate(credentials, rest), open),
      refresh: (refreshToken) =>
        this.#call((to, rest) => to.auth.refresh.mutate({ refreshToken }, rest), {
          ...open,
          repeatable: false,
        }),
      revoke: (refreshToken) => this.#call((to, rest) => to.auth.revoke.mutate({ refreshToken }, rest), open),
    });
    this.#connection = new Connection(options.ca, () => this.#signIn.headers());
  }

  /** Servers that this client knows of, the one it asks now included. */
  get servers(): readonly string[] {
    return this.#servers.all;
  }

  /** The server that it asks now. */
  get server(): string {
    return this.#servers.current;
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
      const server = this.#servers.current;
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
        const isHopeless = performance.now() - failedSinceMs > this.#timeoutMs;
        if (error instanceof UnauthenticatedError && this.#signIn.canRenew && !isHopeless)
          this.#signIn.forget();
        else if (error.remedy === "reject" || isHopeless) throw error;
        else this.#servers.moveOnFrom(server);
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
    return this.#call((to, rest) => to.scrape.mutate(request, rest), limits);
  }

  /** Ends the session and all connections. Calls under way fail. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#learning;
    // The session ends by itself anyway when no server can be told.
    await this.#signIn.end().catch(() => {});
    await this.#connection.close();
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
    const signal = AbortSignal.any([this.#closing.signal, ...(options.signal ? [options.signal] : [])]);
    const { statusCode, body } = await this.#connection.stream(url, headers, SILENT_MS_MAX, signal);
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

  async #call<T>(
    ask: (to: Procedures, rest: { signal: AbortSignal }) => Promise<T>,
    options: CallOptions = {},
  ): Promise<T> {
    const { repeatable = true, withoutSignIn = false, timeoutMs = this.#timeoutMs } = options;
    const deadlineMs = performance.now() + timeoutMs;
    const refused = new Map<string, number>();
    let pauseMs = PAUSE_MS_MIN;
    let mayRenew = !withoutSignIn;
    for (;;) {
      const server = this.#servers.current;
      const attemptMs = Math.min(options.attemptMs ?? ATTEMPT_MS_MAX, deadlineMs - performance.now());
      const signal = AbortSignal.any([
        AbortSignal.timeout(Math.max(1, Math.ceil(attemptMs))),
        ...(withoutSignIn ? [] : [this.#closing.signal]),
      ]);
      try {
        const answer = await ask(this.#connection.procedures(server), { signal });
        if (!withoutSignIn) this.#learnSoon();
        return answer;
      } catch (thrown) {
        const error = ofThrown(thrown, server);
        if (this.#closing.signal.aborted) throw error;
        const leftMs = deadlineMs - performance.now();
        if (error instanceof UnauthenticatedError && mayRenew && this.#signIn.canRenew) {
          mayRenew = false;
          this.#signIn.forget();
          continue;
        }
        if (!isWorthAnother(error, repeatable)) throw error;
        if (error instanceof NoConnectionError) {
          refused.set(server, (refused.get(server) ?? 0) + 1);
          if (this.#servers.all.every((known) => (refused.get(known) ?? 0) >= REFUSED_ROUNDS_MAX)) {
            throw nobodyAnswers(this.#servers.all, error);
          }
        }
        const waitMs = error instanceof BusyError ? error.retryAfterMs : pauseMs;
        if (waitMs >= leftMs) throw error;
        if (!(error instanceof BusyError)) this.#servers.moveOnFrom(server);
        // The next server is asked at once the first time; after a round, a little later.
        const isRoundOver =
          (refused.get(this.#servers.current) ?? 0) > 0 || !(error instanceof NoConnectionError);
        if (isRoundOver) {
          await pause(waitMs);
          pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
        }
      }
    }
  }

  /** Other members, so that the client outlives those that it was told of. Nothing waits for it. */
  #learnSoon(): void {
    if (performance.now() < this.#learnAtMs || this.#closing.signal.aborted) return;
    this.#learnAtMs = performance.now() + LEARN_EVERY_MS;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(ATTEMPT_MS_MAX)]);
    this.#learning = this.#connection
      .procedures(this.#servers.current)
      .cluster.nodes.query({}, { signal })
      .then(({ items }) => this.#servers.learn(items.flatMap(({ edge }) => edge ?? [])))
      .catch((thrown: unknown) => {
        // Who may not see the cluster goes on with the servers that were named.
        if (ofThrown(thrown, this.#servers.current) instanceof ForbiddenError) this.#learnAtMs = Infinity;
      });
  }
}

/** @throws {UsageError} no server, or nothing or too much to sign in with. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}

function isWorthAnother(error: ClusterError, repeatable: boolean): boolean {
  if (error instanceof NoConnectionError || error instanceof BusyError) return true;
  return repeatable && error.remedy === "retry";
}

function nobodyAnswers(servers: readonly string[], cause: ClusterError): UnavailableError {
  const named = servers.length > 5 ? `${servers.slice(0, 5).join(", ")}, …` : servers.join(", ");
  return new NoConnectionError(`no server answers at ${named}: are they running?`, { cause });
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
