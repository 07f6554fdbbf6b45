/**
 * Leads one job under one ballot of its partition: starts it, offers its seeds,
 * grants credits, confirms its state to those who work for it, tells them when it
 * changes, decides that it is over, and has it cleared away.
 */
import { BusyError, WrongStateError } from "../errors.ts";
import { type Account, creditsLeft, grantedAfter } from "../job/budget.ts";
import { Completion } from "../job/completion.ts";
import type { Counts } from "../job/counts.ts";
import { JobProgress } from "../job/job-progress.ts";
import { isSettled, type JobRecord, runAgainRefusal } from "../job/job-record.ts";
import type { JobStatus, Waiting } from "../job/job-spec.ts";
import { isOpen, isOver, mayBecome } from "../job/life-cycle.ts";
import { finalStats, statsOf } from "../job/stats.ts";
import type { Log } from "../log.ts";
import type { Ballot, Operation, Outcome } from "../replication/register.ts";
import { type Clock, pause } from "./clock.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";
import { JobLedger } from "./job-ledger.ts";
import { JobNews } from "./job-news.ts";
import { removeJob } from "./job-removal.ts";
import { readSeeds, SEEDS_OFFERED_MAX, seedPages } from "./job-seeds.ts";
import type { KeyLayout } from "./key-layout.ts";

export interface JobLeaderPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly layout: KeyLayout;
  /** At the local replica. */
  operate(operation: Operation): Promise<Outcome>;
  /** At the leader of a host's partition, with retries for some seconds. */
  askHost(partition: number, request: CrawlRequest): Promise<CrawlReply>;
  /** What the leaders of these partitions have counted, null where they have nothing yet; rejects when one does not answer. */
  countAll(partitions: readonly number[]): Promise<Map<number, Counts | null>>;
  /** At another partition's leader. */
  operateAt(partition: number, operation: Operation): Promise<Outcome>;
  /** Deletes the job's blobs wherever they are. */
  dropBlobs(): Promise<void>;
  /** Nothing more to lead: the job is over and counted, or deleted. */
  finished(): void;
  /** A write failed: all of this partition must be read anew. */
  failed(error: unknown): void;
}

type ConfirmRequest = Extract<CrawlRequest, { kind: "confirm" }>;
type JobRequest = Extract<CrawlRequest, { kind: "job" }>;
type CreditRequest = Extract<CrawlRequest, { kind: "credit" }>;

const ROUND_MS = 2_000;
const RECALL_MS = 250;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
const FIRST_ROUND_MS_MAX = 2_000;
const NO_RESULT = "no page gave a result: see the job's failures, and whether robots.txt allows its seeds";

export class JobLeader {
  readonly jobId: string;
  readonly #ports: JobLeaderPorts;
  readonly #ledger: JobLedger;
  readonly #completion: Completion;
  readonly #progress = new JobProgress();
  readonly #news: JobNews;
  #isRounding = false;
  #wantsRound = false;
  #roundTimer: (() => void) | undefined;
  #pushedTo = new Map<number, JobStatus>();
  #isPushing = false;
  #isSeeding = false;
  #isReviving = false;
  #recalledAtMs = Number.NEGATIVE_INFINITY;
  #firstRound: Promise<void>;
  #firstRoundDone: () => void = () => {};
  #isEnded = false;

  constructor(
    partition: number,
    ballot: Ballot,
    record: JobRecord,
    accounts: Map<number, Account>,
    ports: JobLeaderPorts,
  ) {
    this.jobId = record.jobId;
    this.#ports = ports;
    this.#ledger = new JobLedger(partition, ballot, record, accounts, {
      layout: ports.layout,
      operate: (operation) => ports.operate(operation),
      failed: (error) => {
        this.end();
        ports.failed(error);
      },
    });
    this.#news = new JobNews(ports.clock);
    this.#completion = new Completion(record.spec.scope.maxPages);
    this.#firstRound = new Promise((resolve) => {
      this.#firstRoundDone = resolve;
    });
  }

  /** Goes on from wherever the job is. */
  start(): void {
    if (this.#record.deleted) {
      void this.#clear();
      return;
    }
    if (isSettled(this.#record)) {
      // Taken up for its deletion or another run: nobody works for it.
      this.#firstRoundDone();
      return;
    }
    if (this.#record.status === "queued" && this.#record.run > 1) {
      void this.#runAgain();
    } else if (this.#record.status === "queued") {
      this.#ledger.change({ status: "running", startedAtMs: this.#ports.clock.wall() });
      void this.#ledger.save().catch(() => {});
    }
    if (this.#accounts.size === 0) this.#firstRoundDone();
    void this.#seed();
    // An earlier leader may have died while it told the participants.
    void this.#push();
    if (this.#accounts.size > 0) this.#round();
    this.#armRound();
  }

  end(): void {
    this.#isEnded = true;
    this.#ledger.end();
    this.#roundTimer?.();
    this.#firstRoundDone();
    this.#news.end();
  }

  // --- questions ----------------------------------------------------------------------------

  /** The job as it is, or as soon as it differs from what the asker has. */
  async job({ newerThan, waitMs = 0, participants }: Partial<JobRequest> = {}): Promise<CrawlReply> {
    const { clock } = this.#ports;
    if (newerThan === this.#news.serial && waitMs > 0) await this.#news.next(waitMs);
    await Promise.race([this.#firstRound, pause(clock, FIRST_ROUND_MS_MAX)]);
    // Taken before the read: what comes in between is news to the asker.
    const news = this.#news.serial;
    const read = await this.#ledger.read();
    if (read === undefined || read.record.deleted) return { kind: "gone" };
    return {
      kind: "job",
      record: read.record,
      stats: this.#record.stats ?? this.#progress.stats(clock.now()),
      news,
      ...(participants === true
        ? {
            participants: [...this.#accounts.keys()].map((partition) => {
              const counts = this.#progress.countsOf(partition);
              return [partition, counts?.results ?? 0, counts?.failures ?? 0];
            }),
          }
        : {}),
    };
  }

  async setStatus(to: "paused" | "running" | "cancelled"): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted) return { kind: "gone" };
    if (record.status === "queued" && record.run > 1 && to !== "cancelled") {
      throw new BusyError(`job ${this.jobId}, which gets its failed pages back`, RETRY_MS_MIN);
    }
    if (!mayBecome(record.status, to)) {
      throw new WrongStateError(`the job is ${record.status}: it can't become ${to} any more`);
    }
    if (record.status !== to) {
      this.#ledger.change({ status: to });
      // Whoever was told something else must not be believed to know.
      this.#completion.disturb();
    }
    await this.#ledger.save();
    this.#news.publish(true);
    void this.#push();
    if (to === "running") this.#round();
    return this.job();
  }

  /** A new run of a job that is over, with its failed pages. A repeat while that begins changes nothing. */
  async retryFailures(): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted) return { kind: "gone" };
    if (record.status === "queued" && record.run > 1) return this.job();
    const refusal = runAgainRefusal(record);
    if (refusal !== undefined) throw new WrongStateError(refusal);
    this.#ledger.change({
      status: "queued",
      run: record.run + 1,
      stats: null,
      finishedAtMs: null,
      error: null,
    });
    this.#completion.disturb();
    await this.#ledger.save();
    this.#news.publish(true);
    void this.#runAgain();
    this.#armRound();
    return this.job();
  }

  async remove(): Promise<CrawlReply> {
    if (!this.#record.deleted) {
      const { status } = this.#record;
      this.#ledger.change({ deleted: true, status: isOver(status) ? status : "cancelled" });
      await this.#ledger.save();
      this.#news.publish(true);
      void this.#clear();
    } else {
      await this.#ledger.save();
    }
    return { kind: "accepted" };
  }

  async credit(request: CreditRequest): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted) return { kind: "gone" };
    if (!isOpen(record.status)) return { kind: "refused" };
    const { participant } = request;
    let account = this.#accounts.get(participant);
    if (account === undefined) {
      account = { granted: 0, returned: 0 };
      this.#ledger.setAccount(participant, account);
      this.#completion.disturb();
    }
    const left = creditsLeft(record.spec.scope.maxPages, this.#accounts.values());
    const granted = grantedAfter(account, request, left, this.#accounts.size);
    if (granted !== account.granted) {
      this.#ledger.setAccount(participant, { ...account, granted });
    } else if (request.want > 0 && request.granted >= account.granted) {
      this.#recall(participant);
    }
    await this.#ledger.save();
    return { kind: "credited", granted };
  }

  async confirm(request: ConfirmRequest): Promise<CrawlReply> {
    for (const { partition, confirm, counts, waiting } of request.participants) {
      // Counted when asked, not when answered: no answer can slip through a round.
      if (confirm) this.#completion.disturb();
      if (counts !== null) this.#heard(partition, counts, waiting);
    }
    const read = await this.#ledger.read();
    if (read === undefined || read.record.deleted) return { kind: "gone" };
    const { version, record } = read;
    return {
      kind: "confirmed",
      version,
      status: record.status,
      run: record.run,
      ...(request.known === version
        ? {}
        : { details: { spec: record.spec, scopeHosts: record.scopeHosts, owner: record.owner } }),
    };
  }

  /** A seed leads to this host: it belongs to the job. */
  async widen(host: string): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted || isOver(record.status)) return { kind: "gone" };
    if (record.scopeHosts !== null && !record.scopeHosts.includes(host)) {
      this.#ledger.change({ scopeHosts: [...record.scopeHosts, host] });
    }
    await this.#ledger.save();
    return { kind: "accepted" };
  }

  // --- state --------------------------------------------------------------------------------

  get #record(): Readonly<JobRecord> {
    return this.#ledger.record;
  }

  get #accounts(): ReadonlyMap<number, Account> {
    return this.#ledger.accounts;
  }

  get #maxPages(): number {
    return this.#record.spec.scope.maxPages;
  }

  #heard(partition: number, counts: Counts, waiting: readonly Waiting[] | undefined): void {
    if (!this.#progress.heard(partition, counts, waiting, this.#ports.clock.now())) return;
    this.#news.publish(false);
    if (this.#record.status === "running" && this.#progress.isQuiet(this.#maxPages)) this.#round();
  }

  // --- seeds --------------------------------------------------------------------------------

  async #seed(): Promise<void> {
    const record = this.#record;
    if (this.#isSeeding || record.seededTo >= record.seedCount) return;
    this.#isSeeding = true;
    try {
      await this.#ledger.save();
      const { layout } = this.#ports;
      const seeds = record.seeds ?? (await readSeeds(layout, this.jobId, (op) => this.#ports.operate(op)));
      while (!this.#isEnded && !isOver(record.status) && record.seededTo < record.seedCount) {
        const chunk = seeds.slice(record.seededTo, record.seededTo + SEEDS_OFFERED_MAX);
        await Promise.all(
          [...seedPages(layout, record.spec, chunk)].map(([partition, pages]) =>
            this.#askUntilAnswered(partition, { kind: "offer", partition, jobId: this.jobId, pages }),
          ),
        );
        this.#ledger.change({ seededTo: record.seededTo + chunk.length });
        await this.#ledger.save();
      }
      this.#round();
    } catch (error) {
      if (!this.#isEnded) this.#ports.log.warn("seeds not offered", { job: this.jobId, error });
    } finally {
      this.#isSeeding = false;
    }
  }

  /** The job runs when all of its participants have their failed pages back; until then nobody works for it. */
  async #runAgain(): Promise<void> {
    if (this.#isReviving) return;
    this.#isReviving = true;
    const record = this.#record;
    const { run } = record;
    const isStillWanted = () => record.status === "queued" && !record.deleted;
    try {
      const answers = await Promise.all(
        [...this.#accounts.keys()].map((partition) =>
          this.#askUntilAnswered(
            partition,
            { kind: "revive", partition, jobId: this.jobId, run },
            isStillWanted,
          ),
        ),
      );
      if (this.#isEnded || !isStillWanted() || answers.includes(undefined)) return;
      this.#ledger.change({ status: "running" });
      this.#completion.disturb();
      await this.#ledger.save();
      this.#news.publish(true);
      void this.#push();
      this.#round();
    } catch (error) {
      if (!this.#isEnded) this.#ports.log.warn("run not begun", { job: this.jobId, error });
    } finally {
      this.#isReviving = false;
    }
  }

  async #askUntilAnswered(
    partition: number,
    request: CrawlRequest,
    isStillWanted: () => boolean = () => true,
  ): Promise<CrawlReply | undefined> {
    let retryMs = RETRY_MS_MIN;
    while (!this.#isEnded && isStillWanted()) {
      try {
        return await this.#ports.askHost(partition, request);
      } catch (error) {
        this.#ports.log.debug("participant did not answer", { job: this.jobId, partition, error });
      }
      await pause(this.#ports.clock, retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    }
    return undefined;
  }

  // --- credits ------------------------------------------------------------------------------

  /** One participant is without a credit and none is left: the idle ones of the others come back. */
  #recall(needy: number): void {
    const nowMs = this.#ports.clock.now();
    if (nowMs < this.#recalledAtMs + RECALL_MS) return;
    this.#recalledAtMs = nowMs;
    for (const [partition, account] of this.#accounts) {
      if (partition === needy) continue;
      const spent = this.#progress.countsOf(partition)?.spent ?? 0;
      if (account.granted - account.returned <= spent) continue;
      this.#ports
        .askHost(partition, {
          kind: "recall",
          partition,
          jobId: this.jobId,
          granted: account.granted,
        })
        .then((reply) => {
          if (reply.kind === "counted" && reply.counts !== null) this.#account(partition, reply.counts);
          return this.#ledger.save();
        })
        .catch(() => {});
    }
  }

  /** Takes in what a participant has durably counted. */
  #account(partition: number, counts: Counts): void {
    this.#heard(partition, counts, undefined);
    const account = this.#accounts.get(partition);
    if (account === undefined || counts.returned <= account.returned) return;
    this.#ledger.setAccount(partition, { ...account, returned: counts.returned });
  }

  // --- rounds -------------------------------------------------------------------------------

  #armRound(): void {
    this.#roundTimer?.();
    this.#roundTimer = this.#ports.clock.after(ROUND_MS, () => {
      const isSilent = this.#ports.clock.now() - this.#progress.heardAtMs >= ROUND_MS;
      // Where a read failed, it goes on from where it was.
      void this.#seed();
      // While progress is heard and shows work to do, a round would only disturb.
      if (isSilent || this.#progress.isQuiet(this.#maxPages)) this.#round();
      this.#armRound();
    });
  }

  #round(): void {
    this.#wantsRound = true;
    if (this.#isRounding || this.#isEnded) return;
    this.#isRounding = true;
    void this.#rounds()
      .catch((error: unknown) => this.#ports.log.debug("round void", { job: this.jobId, error }))
      .finally(() => {
        this.#isRounding = false;
        if (this.#wantsRound && !this.#isEnded) this.#ports.clock.after(RETRY_MS_MIN, () => this.#round());
      });
  }

  async #rounds(): Promise<void> {
    while (this.#wantsRound && !this.#isEnded && !this.#record.deleted && !isOver(this.#record.status)) {
      this.#wantsRound = false;
      this.#completion.begin();
      const counts = await this.#readCounts();
      if (counts === undefined) {
        this.#wantsRound = true;
        return;
      }
      this.#firstRoundDone();
      await this.#ledger.save();
      const isSeeded = this.#record.seededTo >= this.#record.seedCount;
      const end = this.#completion.end(counts, isSeeded);
      if (end === "again") this.#wantsRound = true;
      if (end === "finished" && this.#record.status === "running") {
        // Nothing awaited between this look and the write: no confirmation can come in between.
        if (this.#completion.stillHolds) await this.#finish(counts);
        else this.#wantsRound = true;
      }
    }
  }

  /** Undefined: someone did not answer. */
  async #readCounts(): Promise<Map<number, Counts> | undefined> {
    const asked = [...this.#accounts.keys()];
    let answers: ReadonlyMap<number, Counts | null>;
    try {
      answers = await this.#ports.countAll(asked);
    } catch (error) {
      this.#ports.log.debug("round without an answer", { job: this.jobId, error });
      return undefined;
    }
    const counts = new Map<number, Counts>();
    for (const partition of asked) {
      const answer = answers.get(partition);
      if (answer === undefined) return undefined;
      // Null: it has become a participant, and its first page is still on the way.
      if (answer === null) continue;
      counts.set(partition, answer);
      this.#account(partition, answer);
    }
    return counts;
  }

  async #finish(counts: ReadonlyMap<number, Counts>): Promise<void> {
    const record = this.#record;
    const stats = statsOf(counts.values(), { pagesPerSecond: 0, waiting: [] });
    const isEmpty = stats.results === 0;
    this.#ledger.change({
      status: isEmpty ? "failed" : "completed",
      ...(isEmpty ? { error: NO_RESULT } : {}),
      stats: finalStats(stats),
      finishedAtMs: this.#ports.clock.wall(),
    });
    await this.#ledger.save();
    this.#ports.log.info("job over", { job: this.jobId, status: record.status, results: stats.results });
    this.#news.publish(true);
    await this.#push();
  }

  // --- telling the participants -------------------------------------------------------------

  /** Tells the present status to all participants until each has acknowledged it. */
  async #push(): Promise<void> {
    if (this.#isPushing) return;
    this.#isPushing = true;
    try {
      while (!this.#isEnded && !this.#record.deleted) {
        const { status, run } = this.#record;
        // Between two runs there is nobody to tell.
        if (status === "queued") break;
        const open = [...this.#accounts.keys()].filter((p) => this.#pushedTo.get(p) !== status);
        if (open.length === 0) break;
        await Promise.all(
          open.map(async (partition) => {
            const reply = await this.#askUntilAnswered(
              partition,
              { kind: "changed", partition, jobId: this.jobId, status, run },
              () => this.#record.status === status && !this.#record.deleted,
            );
            if (reply !== undefined) this.#pushedTo.set(partition, status);
          }),
        );
      }
      if (this.#isEnded || this.#record.deleted) return;
      if (this.#record.status === "cancelled" && this.#record.stats === null) await this.#closeCancelled();
      if (isSettled(this.#record)) {
        this.#news.publish(true);
        this.#ports.finished();
      }
    } catch (error) {
      if (!this.#isEnded) this.#ports.log.warn("status not told", { job: this.jobId, error });
    } finally {
      this.#isPushing = false;
    }
  }

  async #closeCancelled(): Promise<void> {
    let counts: Map<number, Counts> | undefined;
    while (counts === undefined) {
      if (this.#isEnded || this.#record.deleted) return;
      counts = await this.#readCounts();
      if (counts === undefined) await pause(this.#ports.clock, RETRY_MS_MIN);
    }
    this.#ledger.change({
      stats: finalStats(statsOf(counts.values(), { pagesPerSecond: 0, waiting: [] })),
      finishedAtMs: this.#ports.clock.wall(),
    });
    await this.#ledger.save();
  }

  // --- deletion -----------------------------------------------------------------------------

  async #clear(): Promise<void> {
    const { clock, layout, log } = this.#ports;
    try {
      const isCleared = await removeJob(this.#ledger, {
        clock,
        layout,
        operate: (operation) => this.#ports.operate(operation),
        operateAt: (partition, operation) => this.#ports.operateAt(partition, operation),
        drop: async (partition) => {
          const request = { kind: "drop", partition, jobId: this.jobId } as const;
          return (await this.#askUntilAnswered(partition, request)) !== undefined;
        },
        dropBlobs: () => this.#ports.dropBlobs(),
        isEnded: () => this.#isEnded,
      });
      if (!isCleared) return;
      log.info("job deleted", { job: this.jobId });
      this.#ports.finished();
    } catch (error) {
      if (!this.#isEnded) log.warn("job not deleted yet", { job: this.jobId, error });
    }
  }
}
