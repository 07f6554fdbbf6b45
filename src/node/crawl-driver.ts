/**
 * The crawl on one node: the leaders of hosts and jobs whose partitions this node
 * leads, and the runner that fetches pages for them and for others.
 *
 * An idle partition costs nothing here: a leader is made when the partition has
 * pages pending, or when the first offer for it arrives.
 */
import { NotLeaderError, UnavailableError } from "../errors.ts";
import { SPREAD_ABOVE } from "../frontier/host-spread.ts";
import type { Counts } from "../job/counts.ts";
import type { Log } from "../log.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import type { Ballot, Operation, Outcome } from "../replication/register.ts";
import type { NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import { type Clock, systemClock } from "./clock.ts";
import type { Answer, CrawlMessage, CrawlReply, CrawlRequest, RunMessage } from "./crawl-message.ts";
import { HostLeader } from "./host-leader.ts";
import { JobDriver } from "./job-driver.ts";
import { JobWatch } from "./job-watch.ts";
import { KeyLayout, type Names } from "./key-layout.ts";
import { OfferOutbox } from "./offer-outbox.ts";
import { participantCounts } from "./participant-counts.ts";
import type { Registers } from "./registers.ts";
import { type BlobsLike, type PoolLike, Runner } from "./runner.ts";
import { RunnerWatch } from "./runner-watch.ts";
import { type SharingRing, WorkSharing } from "./work-sharing.ts";

export interface CrawlReplicas {
  /** At the local replica. */
  operate(partition: number, operation: Operation): Promise<Outcome>;
  leads(partition: number): Ballot | undefined;
  leaderHint(partition: number): NodeId | undefined;
}

export interface CrawlRing extends SharingRing {
  member(nodeId: NodeId): Member | undefined;
}

export interface CrawlDriverOptions {
  readonly self: Member;
  readonly partitionCount: number;
  readonly naming: Names;
  readonly registers: Registers;
  readonly replicas: CrawlReplicas;
  readonly ring: CrawlRing;
  readonly pool: PoolLike;
  call(to: PeerRef, request: CrawlRequest, timeoutMs: number): Promise<CrawlReply>;
  send(to: PeerRef, message: CrawlMessage): void;
  readonly blobs?: BlobsLike | undefined;
  readonly allowAddresses: readonly string[];
  readonly log: Log;
  /** In [0, 1). */
  readonly random?: () => number;
  readonly clock?: Clock;
  /** How long a host may wait for its robots.txt: 10 minutes. */
  readonly robotsWaitMs?: number;
  /** Pages of one host in one job that its own partition takes; for simulations. */
  readonly spreadAbove?: number;
}

const CALL_MS = 2_000;
const TAKE_UP_MS = 200;
const ROBOTS_WAIT_MS = 600_000;
const ROBOTS_TIMEOUT_MS = 10_000;
/** Due pages, and pages known without a look into the store, in this server's memory: shared by what it leads. */
const PAGES_IN_MEMORY_MAX = 65_536;
const PAGES_KNOWN_MAX = 524_288;
const PAGES_KNOWN_MIN = 2_048;

interface Led {
  readonly ballot: Ballot;
  leader: HostLeader | undefined;
  loaded: Promise<void>;
}

export class CrawlDriver {
  readonly #options: CrawlDriverOptions;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Log;
  readonly #layout: KeyLayout;
  readonly #partitions = new Map<number, Led>();
  readonly #jobs: JobDriver;
  readonly #watch: JobWatch;
  readonly #outbox: OfferOutbox;
  readonly #partsOutbox: OfferOutbox;
  readonly #runner: Runner;
  readonly #runnerWatch: RunnerWatch;
  readonly #sharing: WorkSharing;
  readonly #timers = new Set<() => void>();
  #isStopped = false;
  #isRoomTold = false;
  // The partition that was told of room first, the last time.
  #roomTo: number | undefined;

  constructor(options: CrawlDriverOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#log = options.log;
    this.#layout = new KeyLayout(options.naming, options.partitionCount);
    const { registers, replicas } = options;
    const clock = this.#clock;
    const log = this.#log;
    const ask = (partition: number, request: CrawlRequest) => registers.crawlAtLeader(partition, request);
    this.#jobs = new JobDriver({
      clock,
      log,
      layout: this.#layout,
      operate: (partition, operation) => replicas.operate(partition, operation),
      askHost: ask,
      countAll: (jobId, partitions) => this.#countAll(jobId, partitions),
      operateAt: (partition, operation) => registers.operate(partition, operation, { repeatable: true }),
      dropBlobs: async (jobId) => options.blobs?.drop(jobId),
      dropped: (partition, error) => this.#dropped(partition, error),
    });
    this.#watch = new JobWatch({
      ask: (jobId, request) => {
        const partition = this.#layout.jobPartition(jobId);
        return ask(partition, request(partition));
      },
      clock,
      log,
    });
    this.#outbox = new OfferOutbox({
      partitionOf: ({ host }) => this.#layout.hostPartition(host),
      ask,
      clock,
      log,
    });
    this.#partsOutbox = new OfferOutbox({
      partitionOf: ({ host, key }) => this.#layout.hostPart(host, key),
      isForParts: true,
      ask,
      clock,
      log,
    });
    this.#runner = new Runner({
      nodeId: options.self.nodeId,
      pool: options.pool,
      blobs: options.blobs,
      allowAddresses: options.allowAddresses,
      ask,
      onRoom: () => this.#room(),
      clock,
      log,
    });
    this.#sharing = new WorkSharing({
      ring: options.ring,
      pool: options.pool,
      clock,
      askClock: async (member) => {
        const reply = await options.call(refOf(member), { kind: "clock" }, CALL_MS);
        if (reply.kind !== "clock") throw new UnavailableError("no clock in the answer");
        return reply.nowMs;
      },
      isRunning: () => this.#runner.flights > 0,
      onRoom: () => this.#room(),
    });
    this.#runnerWatch = new RunnerWatch({
      clock,
      leaders: () => this.#leaders(),
      ask: (runner, groups) => this.#askRunner(runner, groups),
      heardClock: (runner, nowMs) => this.#sharing.heardClock(runner, nowMs),
    });
  }

  start(): void {
    this.#jobs.start();
    this.#options.ring.setLoad(this.#sharing.load);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#jobs.stop();
    this.#watch.stop();
    this.#outbox.stop();
    this.#partsOutbox.stop();
    this.#runnerWatch.stop();
    this.#sharing.stop();
    this.#runner.stop();
    for (const partition of [...this.#partitions.keys()]) this.stopped(partition);
  }

  /** Jobs and pages under way here, for people. */
  status(): { hostLeaders: number; pagesUnderWay: number; load: number } {
    let hostLeaders = 0;
    for (const led of this.#partitions.values()) if (led.leader !== undefined) hostLeaders++;
    return { hostLeaders, pagesUnderWay: this.#runner.flights, load: this.#sharing.load };
  }

  /** The local replica of the partition serves under `ballot`. */
  leading(partition: number, ballot: Ballot): void {
    if (this.#isStopped) return;
    this.stopped(partition);
    const led: Led = { ballot, leader: undefined, loaded: Promise.resolve() };
    this.#partitions.set(partition, led);
    led.loaded = this.#takeUp(partition, led);
    led.loaded.catch((error: unknown) => {
      if (this.#partitions.get(partition) === led) this.#dropped(partition, error);
    });
  }

  stopped(partition: number): void {
    const led = this.#partitions.get(partition);
    this.#partitions.delete(partition);
    this.#jobs.stopped(partition);
    if (led?.leader !== undefined) {
      this.#watch.drop(led.leader);
      led.leader.end();
    }
  }

  /** The node is not heard of any more: what it had is due again. */
  suspected(nodeId: NodeId): void {
    this.#sharing.forget(nodeId);
    for (const { leader } of this.#partitions.values()) {
      for (const ref of leader?.flightsByRunner(0).get(nodeId) ?? []) leader?.lost(ref);
    }
  }

  /** @throws {NotLeaderError} this node does not lead the partition that was asked. */
  async request(from: PeerSender | "self", request: CrawlRequest): Promise<CrawlReply> {
    switch (request.kind) {
      case "clock":
        return { kind: "clock", nowMs: this.#clock.now() };
      case "running":
        return this.#runner.states(request.groups);
      case "counts":
        return { kind: "countedAll", counts: await this.#countsHere(request.jobId, request.partitions) };
      case "submit":
      case "job":
      case "setStatus":
      case "remove":
      case "retryFailures":
      case "credit":
      case "confirm":
      case "widen":
        await this.#led(request.partition).loaded;
        return this.#atJob(request);
      default:
        return this.#atHost(from, request);
    }
  }

  receive(from: PeerSender, message: CrawlMessage): void {
    if (this.#isStopped) return;
    switch (message.kind) {
      case "run":
        this.#sharing.tellLoad();
        this.#runner.accept(message, (agoMs) => {
          this.#options.send(from, {
            kind: "started",
            partition: message.partition,
            ref: message.ref,
            agoMs,
            nowMs: this.#clock.now(),
          });
        });
        return;
      case "started":
        this.#sharing.heardClock(from.nodeId, message.nowMs);
        this.#partitions.get(message.partition)?.leader?.started(message.ref, message.agoMs);
        return;
    }
  }

  #led(partition: number): Led {
    const led = this.#partitions.get(partition);
    if (led === undefined || this.#isStopped) {
      throw new NotLeaderError(partition, this.#options.replicas.leaderHint(partition));
    }
    return led;
  }

  async #atJob(request: Parameters<JobDriver["request"]>[0]): Promise<CrawlReply> {
    try {
      return await this.#jobs.request(request);
    } catch (error) {
      throw this.#hinted(request.partition, error);
    }
  }

  async #atHost(
    from: PeerSender | "self",
    request: Extract<
      CrawlRequest,
      { kind: "offer" | "report" | "next" | "count" | "recall" | "changed" | "drop" | "revive" }
    >,
  ): Promise<CrawlReply> {
    const { partition } = request;
    const led = this.#led(partition);
    await led.loaded;
    const leader = (led.leader ??= this.#newLeader(partition, led));
    try {
      switch (request.kind) {
        case "offer":
          return await leader.offer(request.jobId, request.pages, request.isPart);
        case "next":
          this.#runnerWatch.begin();
          return await leader.next(request.jobId, request.host, request.runners);
        case "report":
          if (from !== "self") this.#sharing.heardClock(from.nodeId, request.nowMs);
          return await leader.report(request.ref, request.agoMs, request.outcome, request.latencyMs);
        case "count":
          return { kind: "counted", counts: await leader.count(request.jobId) };
        case "recall":
          return await leader.recall(request.jobId, request.granted);
        case "changed":
          return await leader.changed(request.jobId, request.status, request.run);
        case "drop":
          return await leader.drop(request.jobId);
        case "revive":
          return await leader.revive(request.jobId, request.run);
      }
    } catch (error) {
      throw this.#hinted(partition, error);
    }
  }

  #countsHere(jobId: string, partitions: readonly number[]): Promise<(Counts | null | "no")[]> {
    return Promise.all(
      partitions.map(async (partition) => {
        try {
          const led = this.#led(partition);
          await led.loaded;
          return await (led.leader ??= this.#newLeader(partition, led)).count(jobId);
        } catch {
          return "no" as const;
        }
      }),
    );
  }

  #countAll(jobId: string, partitions: readonly number[]): Promise<Map<number, Counts | null>> {
    const { self, replicas, ring, registers } = this.#options;
    return participantCounts(partitions, {
      leaderOf: (partition) =>
        replicas.leads(partition) === undefined ? replicas.leaderHint(partition) : (self.nodeId as NodeId),
      askNode: async (nodeId, asked) => {
        if (nodeId === self.nodeId) return this.#countsHere(jobId, asked);
        const member = ring.member(nodeId);
        if (member === undefined) return undefined;
        try {
          const question = { kind: "counts", jobId, partitions: asked } as const;
          const reply = await this.#options.call(refOf(member), question, CALL_MS);
          return reply.kind === "countedAll" ? reply.counts : undefined;
        } catch (error) {
          this.#log.debug("counts not had", { job: jobId, error });
          return undefined;
        }
      },
      askLeader: async (partition) => {
        const reply = await registers.crawlAtLeader(partition, { kind: "count", partition, jobId });
        return reply.kind === "counted" ? reply.counts : undefined;
      },
    });
  }

  #hinted(partition: number, error: unknown): unknown {
    if (!(error instanceof NotLeaderError) || error.leader !== undefined) return error;
    const hint = this.#options.replicas.leaderHint(partition);
    return hint === this.#options.self.nodeId ? error : new NotLeaderError(partition, hint, { cause: error });
  }

  async #takeUp(partition: number, led: Led): Promise<void> {
    // One look tells whether there is anything at all: of most partitions there is not.
    const any = await this.#options.replicas.operate(partition, { kind: "scan", prefix: "", limit: 1 });
    if (this.#partitions.get(partition) !== led) return;
    const isEmpty = any.kind === "scanned" && any.entries.length === 0;
    this.#jobs.leading(partition, led.ballot, isEmpty);
    if (isEmpty) return;
    const leader = this.#newLeader(partition, led);
    const isBusy = await leader.load();
    if (this.#partitions.get(partition) !== led) {
      leader.end();
      return;
    }
    if (!isBusy) return;
    led.leader = leader;
    this.#runnerWatch.begin();
    // Only about what earlier leaders handed out.
    void this.#runnerWatch.askAbout([leader], Number.POSITIVE_INFINITY);
  }

  #newLeader(partition: number, led: Led): HostLeader {
    const { options, layout } = { options: this.#options, layout: this.#layout };
    const askJob: ConstructorParameters<typeof HostLeader>[2]["askJob"] = (jobId, question) => {
      const job = layout.jobPartition(jobId);
      return options.registers.crawlAtLeader(job, { ...question, partition: job, jobId });
    };
    return new HostLeader(partition, led.ballot, {
      nodeId: options.self.nodeId,
      clock: this.#clock,
      log: this.#log,
      layout,
      random: this.#random,
      robotsWaitMs: options.robotsWaitMs ?? ROBOTS_WAIT_MS,
      operate: (operation) => options.replicas.operate(partition, operation),
      memory: {
        pagesMax: () => PAGES_IN_MEMORY_MAX / Math.max(1, this.#leaders().length),
        knownMax: () => {
          const shares = this.#leaders().reduce((sum, leader) => sum + leader.jobs, 0);
          return Math.max(PAGES_KNOWN_MIN, PAGES_KNOWN_MAX / Math.max(1, shares));
        },
      },
      spreadAbove: options.spreadAbove ?? SPREAD_ABOVE,
      offer: (jobId, pages) => this.#outbox.offer(jobId, pages),
      offerParts: (jobId, pages) => this.#partsOutbox.offer(jobId, pages),
      askPart: (part, request) => options.registers.crawlAtLeader(part, request),
      askJob,
      wantConfirmation: (jobId, watcher) => this.#watch.want(jobId, watcher),
      progressed: (jobId, watcher, isEmpty) => this.#watch.progressed(jobId, watcher, isEmpty),
      over: (jobId) => {
        this.#watch.forget(jobId);
        this.#outbox.forget(jobId);
        this.#partsOutbox.forget(jobId);
      },
      nextRunner: () => this.#sharing.next(),
      timeOf: (runner) => this.#sharing.timeOf(runner),
      released: (runner) => this.#sharing.released(runner),
      run: (runner, message) => this.#run(runner, message),
      fetchRobots: (task, onStarted) => {
        this.#sharing.tellLoad();
        return options.pool.run(
          {
            kind: "robots",
            origin: task.origin,
            userAgent: task.userAgent,
            timeoutMs: ROBOTS_TIMEOUT_MS,
            delayMs: task.delayMs,
            allowAddresses: options.allowAddresses,
          },
          { startBefore: task.startBeforeMs, alone: false, onStarted },
        );
      },
      dropped: (error) => this.#dropped(partition, error),
    });
  }

  #leaders(): HostLeader[] {
    return [...this.#partitions.values()].flatMap(({ leader }) => leader ?? []);
  }

  #run(runner: string, message: RunMessage): void {
    const { self, ring } = this.#options;
    this.#runnerWatch.begin();
    if (runner === self.nodeId) {
      const { partition, ref } = message;
      this.#runner.accept(message, (agoMs) => {
        this.#partitions.get(partition)?.leader?.started(ref, agoMs);
      });
      return;
    }
    const member = ring.member(runner as NodeId);
    if (member !== undefined) this.#options.send(refOf(member), message);
  }

  /** A write failed. If the partition is still led here, all of it is read anew; else the next leader does. */
  #dropped(partition: number, error: unknown): void {
    this.#log.debug("partition dropped", { partition, error });
    this.stopped(partition);
    if (this.#isStopped) return;
    this.#after(TAKE_UP_MS, () => {
      const ballot = this.#options.replicas.leads(partition);
      if (ballot !== undefined && !this.#partitions.has(partition)) this.leading(partition, ballot);
    });
  }

  /** A page more can be handed out. */
  #room(): void {
    if (this.#isRoomTold) return;
    this.#isRoomTold = true;
    queueMicrotask(() => {
      this.#isRoomTold = false;
      const waiting = this.#leaders().filter((leader) => leader.isSaturated);
      // Whoever was asked first may have taken all the room: the next time it is asked last.
      const from = waiting.findIndex(({ partition }) => partition === this.#roomTo) + 1;
      for (const leader of [...waiting.slice(from), ...waiting.slice(0, from)]) leader.advance();
      this.#roomTo = waiting[from % waiting.length]?.partition;
    });
  }

  /** What the runner says about pages that leaders here gave it. */
  async #askRunner(
    runner: string,
    groups: Extract<CrawlRequest, { kind: "running" }>["groups"],
  ): Promise<Answer<"running"> | "gone" | undefined> {
    const { self, ring } = this.#options;
    if (runner === self.nodeId) return this.#runner.states(groups);
    const member = ring.member(runner as NodeId);
    if (member === undefined || ring.isSuspected(runner as NodeId)) return "gone";
    try {
      const reply = await this.#options.call(refOf(member), { kind: "running", groups }, CALL_MS);
      return reply.kind === "running" ? reply : undefined;
    } catch {
      return undefined;
    }
  }

  #after(ms: number, task: () => void): void {
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel);
      if (!this.#isStopped) task();
    });
    this.#timers.add(cancel);
  }
}

function refOf(member: Member): PeerRef {
  return { nodeId: member.nodeId, address: member.address };
}
