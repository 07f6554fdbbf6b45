/**
 * The jobs whose partition this node leads. Those that are over and counted are
 * not kept in memory; they are answered from their entries.
 */
import { z } from "zod";
import { NotLeaderError, WrongStateError } from "../errors.ts";
import type { Account } from "../job/budget.ts";
import type { Counts } from "../job/counts.ts";
import { isSettled, type JobRecord, jobRecordSchema, runAgainRefusal } from "../job/job-record.ts";
import { mayBecome } from "../job/life-cycle.ts";
import { noStats } from "../job/stats.ts";
import type { Log } from "../log.ts";
import type { Ballot, Operation, Outcome } from "../replication/register.ts";
import type { Clock } from "./clock.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";
import { JobLeader } from "./job-leader.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

export const participantSchema = z.object({
  partition: z.int().nonnegative(),
  granted: z.int().nonnegative(),
  returned: z.int().nonnegative(),
});

export interface JobDriverPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly layout: KeyLayout;
  operate(partition: number, operation: Operation): Promise<Outcome>;
  askHost(partition: number, request: CrawlRequest): Promise<CrawlReply>;
  /** What the leaders of these partitions have counted; rejects when one does not answer. */
  countAll(jobId: string, partitions: readonly number[]): Promise<Map<number, Counts | null>>;
  dropBlobs(jobId: string): Promise<void>;
  operateAt(partition: number, operation: Operation): Promise<Outcome>;
  /** A leader ended by itself: the partition is to be taken up anew, if it is still led. */
  dropped(partition: number, error: unknown): void;
}

type JobRequest = Extract<
  CrawlRequest,
  { kind: "submit" | "job" | "setStatus" | "remove" | "retryFailures" | "credit" | "confirm" | "widen" }
>;

interface LedJobs {
  readonly ballot: Ballot;
  readonly jobs: Map<string, JobLeader>;
  loaded: Promise<void>;
}

const JOBS_READ = 256;
const PARTICIPANTS_READ = 1024;
const SWEEP_MS = 3_600_000;
const DAY_MS = 86_400_000;

export class JobDriver {
  readonly #ports: JobDriverPorts;
  readonly #partitions = new Map<number, LedJobs>();
  #sweep: (() => void) | undefined;

  constructor(ports: JobDriverPorts) {
    this.#ports = ports;
  }

  start(): void {
    this.#sweep = this.#ports.clock.after(SWEEP_MS, () => {
      for (const [partition, led] of this.#partitions) {
        this.#load(partition, led).catch((error: unknown) => {
          this.#ports.log.debug("jobs not swept", { partition, error });
        });
      }
      this.start();
    });
  }

  stop(): void {
    this.#sweep?.();
    for (const partition of [...this.#partitions.keys()]) this.stopped(partition);
  }

  /** @param isEmpty the partition is known to hold no job. */
  leading(partition: number, ballot: Ballot, isEmpty: boolean): void {
    this.stopped(partition);
    const led: LedJobs = { ballot, jobs: new Map(), loaded: Promise.resolve() };
    this.#partitions.set(partition, led);
    if (isEmpty) return;
    led.loaded = this.#load(partition, led);
    led.loaded.catch((error: unknown) => {
      if (this.#partitions.get(partition) !== led) return;
      this.stopped(partition);
      this.#ports.dropped(partition, error);
    });
  }

  stopped(partition: number): void {
    const led = this.#partitions.get(partition);
    this.#partitions.delete(partition);
    for (const job of led?.jobs.values() ?? []) job.end();
  }

  async request(request: JobRequest): Promise<CrawlReply> {
    const { partition } = request;
    const led = this.#partitions.get(partition);
    if (led === undefined) throw new NotLeaderError(partition);
    await led.loaded;
    if (request.kind === "submit") return this.#submit(partition, led, request.record);
    const leader = led.jobs.get(request.jobId);
    if (leader === undefined) return this.#fromEntry(partition, led, request);
    switch (request.kind) {
      case "job":
        return leader.job(request);
      case "setStatus":
        return leader.setStatus(request.to);
      case "remove":
        return leader.remove();
      case "retryFailures":
        return leader.retryFailures();
      case "credit":
        return leader.credit(request);
      case "confirm":
        return leader.confirm(request);
      case "widen":
        return leader.widen(request.host);
    }
  }

  async #load(partition: number, led: LedJobs): Promise<void> {
    const { layout, clock } = this.#ports;
    let after: string | undefined;
    while (this.#partitions.get(partition) === led) {
      const outcome = await this.#ports.operate(partition, {
        kind: "scan",
        prefix: layout.jobs(),
        limit: JOBS_READ,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") return;
      for (const entry of outcome.entries) {
        const record = decodeRecord(jobRecordSchema, entry.value);
        const isExpired =
          record.finishedAtMs !== null && record.finishedAtMs + record.spec.ttlDays * DAY_MS < clock.wall();
        if (isSettled(record) && !record.deleted && !isExpired) continue;
        const leader = await this.#take(partition, led, record);
        if (isExpired && leader !== undefined) await leader.remove();
      }
      after = outcome.entries.at(-1)?.key;
      if (!outcome.more) return;
    }
  }

  /** Begins to lead a job. */
  async #take(partition: number, led: LedJobs, record: JobRecord): Promise<JobLeader | undefined> {
    const known = led.jobs.get(record.jobId);
    if (known !== undefined) return known;
    const accounts = new Map<number, Account>();
    let after: string | undefined;
    while (true) {
      const outcome = await this.#ports.operate(partition, {
        kind: "scan",
        prefix: this.#ports.layout.participants(record.jobId),
        limit: PARTICIPANTS_READ,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") break;
      for (const entry of outcome.entries) {
        const { partition: participant, granted, returned } = decodeRecord(participantSchema, entry.value);
        accounts.set(participant, { granted, returned });
      }
      after = outcome.entries.at(-1)?.key;
      if (!outcome.more) break;
    }
    if (this.#partitions.get(partition) !== led) return undefined;
    return led.jobs.get(record.jobId) ?? this.#begin(partition, led, record, accounts);
  }

  #begin(partition: number, led: LedJobs, record: JobRecord, accounts: Map<number, Account>): JobLeader {
    const { clock, log, layout } = this.#ports;
    const leader: JobLeader = new JobLeader(partition, led.ballot, record, accounts, {
      clock,
      log,
      layout,
      operate: (operation) => this.#ports.operate(partition, operation),
      askHost: (host, request) => this.#ports.askHost(host, request),
      countAll: (partitions) => this.#ports.countAll(record.jobId, partitions),
      operateAt: (other, operation) => this.#ports.operateAt(other, operation),
      dropBlobs: () => this.#ports.dropBlobs(record.jobId),
      finished: () => {
        leader.end();
        if (led.jobs.get(record.jobId) === leader) led.jobs.delete(record.jobId);
      },
      failed: (error) => {
        if (this.#partitions.get(partition) !== led) return;
        this.stopped(partition);
        this.#ports.dropped(partition, error);
      },
    });
    led.jobs.set(record.jobId, leader);
    leader.start();
    return leader;
  }

  async #read(partition: number, jobId: string): Promise<{ version: string; record: JobRecord } | undefined> {
    const key = this.#ports.layout.job(jobId);
    const outcome = await this.#ports.operate(partition, { kind: "get", keys: [key] });
    const entry = outcome.kind === "entries" ? outcome.entries[0] : undefined;
    return entry && { version: entry.version, record: decodeRecord(jobRecordSchema, entry.value) };
  }

  async #submit(partition: number, led: LedJobs, record: JobRecord): Promise<CrawlReply> {
    const key = this.#ports.layout.job(record.jobId);
    const outcome = await this.#ports.operate(partition, {
      kind: "batch",
      changes: [{ kind: "put", key, value: encodeRecord(record) }],
      conditions: [{ key, is: "absent" }],
      onlyUnder: led.ballot,
    });
    if (outcome.kind === "written") {
      if (this.#partitions.get(partition) !== led) throw new NotLeaderError(partition);
      const leader = led.jobs.get(record.jobId) ?? this.#begin(partition, led, record, new Map());
      return leader.job();
    }
    const leader = led.jobs.get(record.jobId);
    if (leader !== undefined) return leader.job();
    const found = await this.#read(partition, record.jobId);
    if (found === undefined || found.record.deleted) return { kind: "gone" };
    if (!isSettled(found.record)) await this.#take(partition, led, found.record);
    return { kind: "job", record: found.record, stats: found.record.stats ?? noStats, news: 0 };
  }

  /** A job that is not led: it is over, or nobody has seen it yet. */
  async #fromEntry(
    partition: number,
    led: LedJobs,
    request: Exclude<JobRequest, { kind: "submit" }>,
  ): Promise<CrawlReply> {
    const found = await this.#read(partition, request.jobId);
    if (found === undefined || found.record.deleted) {
      // A repeated removal has nothing left to do.
      return request.kind === "remove" ? { kind: "accepted" } : { kind: "gone" };
    }
    const { record, version } = found;
    if (request.kind === "retryFailures" && isSettled(record)) {
      const refusal = runAgainRefusal(record);
      if (refusal !== undefined) throw new WrongStateError(refusal);
    }
    if (!isSettled(record) || request.kind === "remove" || request.kind === "retryFailures") {
      const leader = await this.#take(partition, led, record);
      if (leader === undefined) throw new NotLeaderError(partition);
      return this.request(request);
    }
    switch (request.kind) {
      case "job":
        return { kind: "job", record, stats: record.stats ?? noStats, news: 0 };
      case "setStatus":
        if (!mayBecome(record.status, request.to)) {
          throw new WrongStateError(`the job is ${record.status}: it can't become ${request.to} any more`);
        }
        return { kind: "job", record, stats: record.stats ?? noStats, news: 0 };
      case "credit":
      case "widen":
        return { kind: "refused" };
      case "confirm":
        return {
          kind: "confirmed",
          version,
          status: record.status,
          run: record.run,
          details: { spec: record.spec, scopeHosts: record.scopeHosts },
        };
    }
  }
}
