/**
 * Leads one job under one ballot of its partition: starts it, offers its seeds,
 * grants credits, confirms its state to those who work for it, decides that it is
 * over, and clears it away. Its memory is a copy of entries that only it writes.
 */
import { NotLeaderError, WrongStateError } from "../errors.ts";
import { canonicalUrl } from "../frontier/canonical-url.ts";
import { OFFER_PAGES_MAX, type OfferedPage } from "../frontier/page.ts";
import { type Account, creditsLeft, grantedAfter } from "../job/budget.ts";
import { Completion, isQuiet } from "../job/completion.ts";
import type { Counts } from "../job/counts.ts";
import { isSettled, type JobRecord, jobRecordSchema } from "../job/job-record.ts";
import type { JobStats, JobStatus, Waiting } from "../job/job-spec.ts";
import { isOpen, isOver, mayBecome } from "../job/life-cycle.ts";
import { finalStats, noStats, Speed, statsOf } from "../job/stats.ts";
import type { Log } from "../log.ts";
import type { Ballot, Change, Operation, Outcome } from "../replication/register.ts";
import { type Clock, pause } from "./clock.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";
import { readSeeds } from "./job-seeds.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

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
const NEWS_MS = 100;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
const FIRST_ROUND_MS_MAX = 2_000;

export class JobLeader {
  readonly jobId: string;
  readonly #partition: number;
  readonly #ballot: Ballot;
  readonly #ports: JobLeaderPorts;
  readonly #record: JobRecord;
  readonly #accounts: Map<number, Account>;
  readonly #completion: Completion;
  readonly #progress = new Map<number, Counts>();
  readonly #waitingOn = new Map<number, readonly Waiting[]>();
  readonly #speed = new Speed();
  // What the next batch writes, and who waits for it.
  #isRecordDirty = false;
  readonly #dirtyAccounts = new Set<number>();
  #saving: Promise<void> | undefined;
  // The linearizable read that has not left yet: all who ask until then share it.
  #nextRead: Promise<{ version: string; record: JobRecord } | undefined> | undefined;
  #reading: Promise<unknown> = Promise.resolve();
  #decoded: { version: string; record: JobRecord } | undefined;
  #isRounding = false;
  #wantsRound = false;
  #roundTimer: (() => void) | undefined;
  #pushedTo = new Map<number, JobStatus>();
  #isPushing = false;
  #isSeeding = false;
  #recalledAtMs = Number.NEGATIVE_INFINITY;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  #firstRound: Promise<void>;
  #firstRoundDone: () => void = () => {};
  #news = 1;
  readonly #readers = new Set<() => void>();
  #newsTimer: (() => void) | undefined;
  #isEnded = false;

  constructor(
    partition: number,
    ballot: Ballot,
    record: JobRecord,
    accounts: Map<number, Account>,
    ports: JobLeaderPorts,
  ) {
    this.jobId = record.jobId;
    this.#partition = partition;
    this.#ballot = ballot;
    this.#record = record;
    this.#accounts = accounts;
    this.#ports = ports;
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
    if (this.#record.status === "queued") {
      this.#record.status = "running";
      this.#record.startedAtMs = this.#ports.clock.wall();
      this.#isRecordDirty = true;
      void this.#save().catch(() => {});
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
    this.#roundTimer?.();
    this.#newsTimer?.();
    this.#firstRoundDone();
    for (const reader of this.#readers) reader();
    this.#readers.clear();
  }

  // --- questions ----------------------------------------------------------------------------

  /** The job as it is, or as soon as it differs from what the asker has. */
  async job({ newerThan, waitMs = 0, participants }: Partial<JobRequest> = {}): Promise<CrawlReply> {
    const { clock } = this.#ports;
    if (newerThan === this.#news && waitMs > 0) {
      await new Promise<void>((resolve) => {
        const cancel = clock.after(waitMs, () => done());
        const done = () => {
          cancel();
          this.#readers.delete(done);
          resolve();
        };
        this.#readers.add(done);
      });
    }
    await Promise.race([this.#firstRound, pause(clock, FIRST_ROUND_MS_MAX)]);
    // Taken before the read: what comes in between is news to the asker.
    const news = this.#news;
    const read = await this.#readRecord();
    if (read === undefined || read.record.deleted) return { kind: "gone" };
    return {
      kind: "job",
      record: read.record,
      stats: this.#stats(),
      news,
      ...(participants === true
        ? {
            participants: [...this.#accounts.keys()].map((partition) => {
              const counts = this.#progress.get(partition);
              return [partition, counts?.results ?? 0, counts?.failures ?? 0];
            }),
          }
        : {}),
    };
  }

  async setStatus(to: "paused" | "running" | "cancelled"): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted) return { kind: "gone" };
    if (!mayBecome(record.status, to)) {
      throw new WrongStateError(`the job is ${record.status}: it can't become ${to} any more`);
    }
    if (record.status !== to) {
      record.status = to;
      this.#isRecordDirty = true;
      // Whoever was told something else must not be believed to know.
      this.#completion.disturb();
    }
    await this.#save();
    this.#publish(true);
    void this.#push();
    if (to === "running") this.#round();
    return this.job();
  }

  async remove(): Promise<CrawlReply> {
    if (!this.#record.deleted) {
      this.#record.deleted = true;
      if (!isOver(this.#record.status)) this.#record.status = "cancelled";
      this.#isRecordDirty = true;
      await this.#save();
      this.#publish(true);
      void this.#clear();
    } else {
      await this.#save();
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
      this.#accounts.set(participant, account);
      this.#dirtyAccounts.add(participant);
      this.#completion.disturb();
    }
    const left = creditsLeft(record.spec.scope.maxPages, this.#accounts.values());
    const granted = grantedAfter(account, request, left, this.#accounts.size);
    if (granted !== account.granted) {
      this.#accounts.set(participant, { ...account, granted });
      this.#dirtyAccounts.add(participant);
    } else if (request.want > 0 && request.granted >= account.granted) {
      this.#recall(participant);
    }
    await this.#save();
    return { kind: "credited", granted };
  }

  async confirm(request: ConfirmRequest): Promise<CrawlReply> {
    for (const { partition, confirm, counts, waiting } of request.participants) {
      // Counted when asked, not when answered: no answer can slip through a round.
      if (confirm) this.#completion.disturb();
      if (counts !== null) this.#heard(partition, counts, waiting);
    }
    const read = await this.#readRecord();
    if (read === undefined || read.record.deleted) return { kind: "gone" };
    const { version, record } = read;
    return {
      kind: "confirmed",
      version,
      status: record.status,
      run: record.run,
      ...(request.known === version ? {} : { details: { spec: record.spec, scopeHosts: record.scopeHosts } }),
    };
  }

  /** A seed leads to this host: it belongs to the job. */
  async widen(host: string): Promise<CrawlReply> {
    const record = this.#record;
    if (record.deleted || isOver(record.status)) return { kind: "gone" };
    if (record.scopeHosts !== null && !record.scopeHosts.includes(host)) {
      record.scopeHosts = [...record.scopeHosts, host];
      this.#isRecordDirty = true;
    }
    await this.#save();
    return { kind: "accepted" };
  }

  // --- state --------------------------------------------------------------------------------

  get #maxPages(): number {
    return this.#record.spec.scope.maxPages;
  }

  #stats(): JobStats {
    if (this.#record.stats !== null) return this.#record.stats;
    if (this.#progress.size === 0) return noStats;
    return statsOf(this.#progress.values(), {
      pagesPerSecond: this.#speed.at(this.#ports.clock.now()),
      waiting: [...this.#waitingOn.values()].flat(),
    });
  }

  #heard(partition: number, counts: Counts, waiting: readonly Waiting[] | undefined): void {
    const known = this.#progress.get(partition);
    if (waiting !== undefined) this.#waitingOn.set(partition, waiting);
    this.#heardAtMs = this.#ports.clock.now();
    // Messages overtake one another; totals tell which is the later state.
    if (known !== undefined && sizeOf(counts) <= sizeOf(known)) return;
    this.#progress.set(partition, counts);
    let settled = 0;
    for (const c of this.#progress.values()) settled += c.done + c.failed + c.skipped;
    this.#speed.sample(this.#ports.clock.now(), settled);
    this.#publish(false);
    if (this.#record.status === "running" && isQuiet(this.#progress.values(), this.#maxPages)) this.#round();
  }

  #publish(isUrgent: boolean): void {
    this.#news++;
    const tell = () => {
      this.#newsTimer = undefined;
      for (const reader of [...this.#readers]) reader();
    };
    if (isUrgent) {
      this.#newsTimer?.();
      tell();
    } else {
      this.#newsTimer ??= this.#ports.clock.after(NEWS_MS, tell);
    }
  }

  /** Resolves when everything changed so far is durable. */
  async #save(): Promise<void> {
    while (!this.#isEnded) {
      if (this.#saving !== undefined) {
        await this.#saving;
        continue;
      }
      if (!this.#isRecordDirty && this.#dirtyAccounts.size === 0) return;
      this.#saving = this.#write().finally(() => {
        this.#saving = undefined;
      });
      await this.#saving;
      return;
    }
    throw new NotLeaderError(this.#partition);
  }

  async #write(): Promise<void> {
    const { layout } = this.#ports;
    const changes: Change[] = [];
    if (this.#isRecordDirty) {
      changes.push({ kind: "put", key: layout.job(this.jobId), value: encodeRecord(this.#record) });
    }
    const taken = [...this.#dirtyAccounts].slice(0, 512);
    for (const partition of taken) {
      const account = this.#accounts.get(partition);
      const key = layout.participant(this.jobId, partition);
      changes.push(
        account === undefined
          ? { kind: "delete", key }
          : { kind: "put", key, value: encodeRecord({ partition, ...account }) },
      );
      this.#dirtyAccounts.delete(partition);
    }
    this.#isRecordDirty = false;
    try {
      await this.#ports.operate({ kind: "batch", changes, conditions: [], onlyUnder: this.#ballot });
    } catch (error) {
      if (!this.#isEnded) {
        this.end();
        this.#ports.failed(error);
      }
      throw error;
    }
  }

  /** The job's entry, read after the call: what was acknowledged before is in it, and we still lead. */
  #readRecord(): Promise<{ version: string; record: JobRecord } | undefined> {
    if (this.#nextRead !== undefined) return this.#nextRead;
    const begin = this.#reading;
    const read = (async () => {
      await begin;
      this.#nextRead = undefined;
      if (this.#isEnded) throw new NotLeaderError(this.#partition);
      const key = this.#ports.layout.job(this.jobId);
      const outcome = await this.#ports.operate({ kind: "get", keys: [key] });
      const entry = outcome.kind === "entries" ? outcome.entries[0] : undefined;
      if (entry === undefined) return undefined;
      if (this.#decoded?.version !== entry.version) {
        this.#decoded = { version: entry.version, record: decodeRecord(jobRecordSchema, entry.value) };
      }
      return this.#decoded;
    })();
    this.#nextRead = read;
    this.#reading = read.catch(() => {});
    return read;
  }

  // --- seeds --------------------------------------------------------------------------------

  async #seed(): Promise<void> {
    const record = this.#record;
    if (this.#isSeeding || record.seededTo >= record.seedCount) return;
    this.#isSeeding = true;
    try {
      await this.#save();
      const { layout } = this.#ports;
      const seeds = record.seeds ?? (await readSeeds(layout, this.jobId, (op) => this.#ports.operate(op)));
      while (!this.#isEnded && !isOver(record.status) && record.seededTo < record.seedCount) {
        const chunk = seeds.slice(record.seededTo, record.seededTo + OFFER_PAGES_MAX);
        const byPartition = new Map<number, OfferedPage[]>();
        for (const text of chunk) {
          const canonical = canonicalUrl(text, undefined, record.spec.scope);
          if (canonical === undefined) continue;
          const page = {
            ...canonical,
            depth: 0,
            parent: null,
            priority: record.spec.priority,
            hops: 0,
            seed: true,
          };
          const partition = layout.hostPartition(canonical.host);
          const pages = byPartition.get(partition);
          if (pages === undefined) byPartition.set(partition, [page]);
          else pages.push(page);
        }
        await Promise.all(
          [...byPartition].map(([partition, pages]) =>
            this.#askUntilAnswered(partition, { kind: "offer", partition, jobId: this.jobId, pages }),
          ),
        );
        record.seededTo += chunk.length;
        this.#isRecordDirty = true;
        await this.#save();
      }
      this.#round();
    } catch (error) {
      if (!this.#isEnded) this.#ports.log.warn("seeds not offered", { job: this.jobId, error });
    } finally {
      this.#isSeeding = false;
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
      const spent = this.#progress.get(partition)?.spent ?? 0;
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
          return this.#save();
        })
        .catch(() => {});
    }
  }

  /** Takes in what a participant has durably counted. */
  #account(partition: number, counts: Counts): void {
    this.#heard(partition, counts, undefined);
    const account = this.#accounts.get(partition);
    if (account === undefined || counts.returned <= account.returned) return;
    this.#accounts.set(partition, { ...account, returned: counts.returned });
    this.#dirtyAccounts.add(partition);
  }

  // --- rounds -------------------------------------------------------------------------------

  #armRound(): void {
    this.#roundTimer?.();
    this.#roundTimer = this.#ports.clock.after(ROUND_MS, () => {
      const isSilent = this.#ports.clock.now() - this.#heardAtMs >= ROUND_MS;
      // Where a read failed, it goes on from where it was.
      void this.#seed();
      // While progress is heard and shows work to do, a round would only disturb.
      if (isSilent || isQuiet(this.#progress.values(), this.#maxPages)) this.#round();
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
      await this.#save();
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
    record.status = stats.results > 0 ? "completed" : "failed";
    if (stats.results === 0) {
      record.error = "no page gave a result: see the job's failures, and whether robots.txt allows its seeds";
    }
    record.stats = finalStats(stats);
    record.finishedAtMs = this.#ports.clock.wall();
    this.#isRecordDirty = true;
    await this.#save();
    this.#ports.log.info("job over", { job: this.jobId, status: record.status, results: stats.results });
    this.#publish(true);
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
        this.#publish(true);
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
    this.#record.stats = finalStats(statsOf(counts.values(), { pagesPerSecond: 0, waiting: [] }));
    this.#record.finishedAtMs = this.#ports.clock.wall();
    this.#isRecordDirty = true;
    await this.#save();
  }

  // --- deletion -----------------------------------------------------------------------------

  async #clear(): Promise<void> {
    const { layout, clock, log } = this.#ports;
    const record = this.#record;
    try {
      await this.#save();
      for (const partition of [...this.#accounts.keys()]) {
        const reply = await this.#askUntilAnswered(partition, {
          kind: "drop",
          partition,
          jobId: this.jobId,
        });
        if (reply === undefined) return;
        this.#accounts.delete(partition);
        this.#dirtyAccounts.add(partition);
        await this.#save();
      }
      await this.#ports.dropBlobs();
      const own = await this.#ports.operate({ kind: "scan", prefix: layout.seeds(this.jobId), limit: 1024 });
      const changes: Change[] =
        own.kind === "scanned" ? own.entries.map(({ key }) => ({ kind: "delete", key })) : [];
      changes.push({ kind: "delete", key: layout.job(this.jobId) });
      while (!this.#isEnded) {
        try {
          const key = layout.jobIndex(record.owner, record.createdAtMs, this.jobId);
          await this.#ports.operateAt(layout.ownerPartition(record.owner), {
            kind: "batch",
            changes: [{ kind: "delete", key }],
            conditions: [],
          });
          break;
        } catch {
          await pause(clock, RETRY_MS_MAX);
        }
      }
      if (this.#isEnded) return;
      await this.#ports.operate({ kind: "batch", changes, conditions: [], onlyUnder: this.#ballot });
      log.info("job deleted", { job: this.jobId });
      this.#ports.finished();
    } catch (error) {
      if (!this.#isEnded) log.warn("job not deleted yet", { job: this.jobId, error });
    }
  }
}

/** Grows with every change of a participant's counts. */
function sizeOf(counts: Counts): number {
  return (
    counts.discovered +
    counts.done +
    counts.failed +
    counts.skipped +
    counts.granted +
    counts.returned +
    counts.seq +
    counts.run
  );
}
