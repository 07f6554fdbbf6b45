/**
 * The side of a server that fetches pages for leaders, its own or others'. It
 * starts a request only within the time that the leader counted with, never twice
 * for one hand-out, never after it has said "no", and repeats a report until a
 * leader of the page's partition has it.
 */
import { flightId } from "../frontier/frontier-state.ts";
import type { Content } from "../frontier/page.ts";
import type { Outcome } from "../frontier/verdict.ts";
import type { Log } from "../log.ts";
import type { PageReport, Task, TaskEnd } from "../pool/task.ts";
import { compareBallots } from "../replication/ballot.ts";
import type { Ballot } from "../replication/register.ts";
import { type Clock, pause } from "./clock.ts";
import type { Answer, CrawlReply, CrawlRequest, RunMessage } from "./crawl-message.ts";
import { encodeRecord } from "./record.ts";

export interface PoolLike {
  readonly threads: number;
  readonly running: number;
  readonly waiting: number;
  run(
    task: Task,
    options: { startBefore: number; alone: boolean; onStarted?(agoMs: number): void; signal?: AbortSignal },
  ): Promise<TaskEnd>;
}

export interface BlobsLike {
  put(jobId: string, bytes: Uint8Array): Promise<string>;
  get(jobId: string, sha256: string): Promise<Uint8Array>;
  drop(jobId: string): Promise<void>;
}

/** Larger contents are blobs. */
export const CONTENT_BYTES_MAX = 64 * 1024;
/** Larger ones fit into no entry. */
const ENTRY_BYTES_MAX = 1024 * 1024 - 64 * 1024;
const REPORT_KEPT_MS = 5 * 60_000;
const REPORT_RETRY_MS_MIN = 100;
const REPORT_RETRY_MS_MAX = 3_000;
/** A hand-out refused is remembered for longer than it could still arrive. */
const REFUSED_KEPT_MS = 60_000;
/** Pages in all states on this server; beyond, a hand-out is answered `notStarted`. */
const FLIGHTS_PER_THREAD_MAX = 512;

interface Flight {
  /** Until the head of an answer had arrived; null: there was none. */
  latencyMs: number | null;
  /** By this server's clock; undefined: the request has not left yet. */
  startedAtMs: number | undefined;
}

export class Runner {
  readonly #nodeId: string;
  readonly #pool: PoolLike;
  readonly #blobs: BlobsLike | undefined;
  readonly #allowAddresses: readonly string[];
  readonly #ask: (partition: number, request: CrawlRequest) => Promise<CrawlReply>;
  readonly #onRoom: () => void;
  readonly #clock: Clock;
  readonly #log: Log;
  // By hand-out: waiting, under way, or reported and not yet answered.
  readonly #flights = new Map<string, Flight>();
  // Hand-outs that must not start any more, oldest first, with the time until which that matters.
  readonly #refused = new Map<string, number>();
  // The highest ballot heard of, by partition: a leader of a lower one has nothing to say.
  readonly #ballots = new Map<number, Ballot>();
  readonly #stopping = new AbortController();

  constructor(options: {
    nodeId: string;
    pool: PoolLike;
    blobs?: BlobsLike | undefined;
    allowAddresses: readonly string[];
    ask(partition: number, request: CrawlRequest): Promise<CrawlReply>;
    /** The pool has one task less. */
    onRoom(): void;
    clock: Clock;
    log: Log;
  }) {
    this.#nodeId = options.nodeId;
    this.#pool = options.pool;
    this.#blobs = options.blobs;
    this.#allowAddresses = options.allowAddresses;
    this.#ask = options.ask;
    this.#onRoom = options.onRoom;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  get flights(): number {
    return this.#flights.size;
  }

  /** @param onStarted the request leaves now, or left `agoMs` ago. */
  accept(message: RunMessage, onStarted: (agoMs: number) => void): void {
    const { partition, ref } = message;
    const id = flightId(ref);
    this.#forgetRefused();
    if (!this.#heard(partition, message.ballot) || this.#refused.has(id) || this.#flights.has(id)) return;
    const flight: Flight = { startedAtMs: undefined, latencyMs: null };
    this.#flights.set(id, flight);
    void this.#fly(message, flight, onStarted).finally(() => {
      this.#flights.delete(id);
      // A second copy of the message must find it done.
      this.#refused.set(id, this.#clock.now() + REFUSED_KEPT_MS);
    });
  }

  /** What leaders ask once a second. What is not here is refused from now on. */
  states(groups: Extract<CrawlRequest, { kind: "running" }>["groups"]): Answer<"running"> {
    const nowMs = this.#clock.now();
    this.#forgetRefused();
    const states = groups.map(({ partition, ballot, refs }) => {
      this.#heard(partition, ballot);
      return refs.map((ref) => {
        const flight = this.#flights.get(flightId(ref));
        if (flight !== undefined) {
          return flight.startedAtMs === undefined ? null : Math.max(0, nowMs - flight.startedAtMs);
        }
        this.#refused.set(flightId(ref), nowMs + REFUSED_KEPT_MS);
        return "no" as const;
      });
    });
    return { kind: "running", nowMs, states };
  }

  stop(): void {
    this.#stopping.abort();
  }

  #forgetRefused(): void {
    const nowMs = this.#clock.now();
    for (const [id, untilMs] of this.#refused) {
      if (untilMs > nowMs) break;
      this.#refused.delete(id);
    }
  }

  /** False: the leader of this ballot has been succeeded. */
  #heard(partition: number, ballot: Ballot): boolean {
    const highest = this.#ballots.get(partition);
    if (highest !== undefined && compareBallots(ballot, highest) < 0) return false;
    this.#ballots.set(partition, ballot);
    return true;
  }

  async #fly(message: RunMessage, flight: Flight, onStarted: (agoMs: number) => void): Promise<void> {
    let outcome: Outcome;
    try {
      outcome = await this.#outcome(message, flight, onStarted);
    } catch (error) {
      // What a page made of itself must end that page, not the server.
      this.#log.warn("page could not be taken in", { job: message.ref.jobId, error });
      outcome = { kind: "broken", reason: "the extracted content could not be stored", retryable: false };
    }
    if (this.#stopping.signal.aborted) return;
    await this.#report(message, flight, outcome);
  }

  async #outcome(message: RunMessage, flight: Flight, onStarted: (agoMs: number) => void): Promise<Outcome> {
    const { task, ref } = message;
    if (this.#flights.size > this.#pool.threads * FLIGHTS_PER_THREAD_MAX) {
      return { kind: "notStarted", reason: "this server has too many pages under way" };
    }
    const end = await this.#pool.run(
      {
        kind: "page",
        ...task,
        key: ref.key,
        allowAddresses: this.#allowAddresses,
        keepBody: false,
      },
      {
        startBefore: message.runnerTimeMs + message.startWithinMs,
        alone: message.alone,
        onStarted: (agoMs) => {
          flight.startedAtMs = this.#clock.now() - agoMs;
          onStarted(agoMs);
        },
        signal: this.#stopping.signal,
      },
    );
    this.#onRoom();
    switch (end.kind) {
      case "notStarted":
        return { kind: "notStarted", reason: end.reason };
      case "died":
        return { kind: "died", alone: end.alone };
      case "report":
        break;
    }
    const { report } = end;
    if ("latencyMs" in report) flight.latencyMs = report.latencyMs;
    switch (report.kind) {
      case "page":
        return this.#pageOutcome(message, report);
      case "sitemap":
        return { kind: "sitemap", found: [...report.found], sitemaps: [...report.sitemaps] };
      case "redirect":
        return { kind: "redirect", status: report.status, target: report.target };
      case "refused":
        return {
          kind: "refused",
          status: report.status,
          reason: report.reason,
          retryAfterMs: report.retryAfterMs,
        };
      case "broken":
        return { kind: "broken", reason: report.reason, retryable: report.retryable };
      case "robots":
        return { kind: "broken", reason: "the scraping process answered another question", retryable: true };
    }
  }

  async #pageOutcome(message: RunMessage, report: PageReport): Promise<Outcome> {
    const {
      data,
      fieldErrors,
      metadata,
      text,
      content: main,
      markdown,
      links,
      tables,
      structured,
      html,
    } = report;
    const bytes = encodeRecord({
      data,
      ...(fieldErrors.length === 0 ? {} : { fieldErrors }),
      ...(metadata === undefined ? {} : { metadata }),
      ...(text === undefined ? {} : { text }),
      ...(main === undefined ? {} : { content: main }),
      ...(markdown === undefined ? {} : { markdown }),
      ...(links === undefined ? {} : { links }),
      ...(tables === undefined ? {} : { tables }),
      ...(structured === undefined ? {} : { structured }),
      ...(html === undefined ? {} : { html }),
    });
    let content: Content = { kind: "bytes", bytes };
    if (bytes.byteLength > CONTENT_BYTES_MAX && this.#blobs !== undefined) {
      try {
        content = { kind: "blob", sha256: await this.#blobs.put(message.ref.jobId, bytes) };
      } catch (error) {
        this.#log.warn("content not stored", { job: message.ref.jobId, error });
        return { kind: "broken", reason: "the content could not be stored", retryable: true };
      }
    } else if (bytes.byteLength > ENTRY_BYTES_MAX) {
      return { kind: "broken", reason: "the extracted content is too large", retryable: false };
    }
    return {
      kind: "page",
      status: report.status,
      finalUrl: report.finalUrl,
      contentType: report.contentType,
      fetchedAtMs: this.#clock.wall(),
      durationMs: report.durationMs,
      bytes: report.bytes,
      sha256: report.sha256,
      content,
      simhash: report.simhash,
      found: message.task.links?.follow === true ? [...report.found] : null,
      canonical: report.canonical,
    };
  }

  async #report(message: RunMessage, flight: Flight, outcome: Outcome): Promise<void> {
    const { partition, store } = message;
    if (store === undefined) return this.#reportTo(partition, message, flight, outcome);
    // Whoever paces the host first: it needs to know how it went, not what the page says.
    await this.#reportTo(partition, message, flight, bareOf(outcome));
    await this.#reportTo(store, message, flight, outcome);
  }

  async #reportTo(partition: number, { ref }: RunMessage, flight: Flight, outcome: Outcome): Promise<void> {
    const untilMs = this.#clock.now() + REPORT_KEPT_MS;
    let retryMs = REPORT_RETRY_MS_MIN;
    while (!this.#stopping.signal.aborted) {
      const nowMs = this.#clock.now();
      try {
        await this.#ask(partition, {
          kind: "report",
          partition,
          ref,
          runner: this.#nodeId,
          agoMs: flight.startedAtMs === undefined ? 0 : Math.max(0, nowMs - flight.startedAtMs),
          nowMs,
          latencyMs: flight.latencyMs,
          outcome,
        });
        return;
      } catch (error) {
        if (this.#clock.now() > untilMs) {
          this.#log.warn("report given up", { partition, job: ref.jobId, error });
          return;
        }
      }
      await pause(this.#clock, retryMs);
      retryMs = Math.min(retryMs * 2, REPORT_RETRY_MS_MAX);
    }
  }
}

/** How a request ended, without what it brought. */
function bareOf(outcome: Outcome): Outcome {
  switch (outcome.kind) {
    case "page":
      return { ...outcome, found: [], content: { kind: "bytes", bytes: new Uint8Array() } };
    case "sitemap":
      return { ...outcome, found: [], sitemaps: [] };
    default:
      return outcome;
  }
}
