/**
 * Leads the hosts of one partition under one ballot: drives its frontier. One
 * batch is under way at a time, the next one forms meanwhile; what it allows
 * (hand-outs, answers) happens after its commit. Any failure of a batch ends this
 * leader, and what it had in memory with it.
 */
import { BusyError, NotLeaderError } from "../errors.ts";
import { canonicalUrl, sitemapKey } from "../frontier/canonical-url.ts";
import type { FrontierEffect, FrontierWants, TakeWant } from "../frontier/draft.ts";
import { Frontier } from "../frontier/frontier.ts";
import { type FrontierMemory, flightId, type HandoutRef, type Runner } from "../frontier/frontier-state.ts";
import type { JobView } from "../frontier/job-share.ts";
import type { OfferedPage } from "../frontier/page.ts";
import { REVIVED_AT_ONCE, revive } from "../frontier/revival.ts";
import { AS_IT_IS, type Judgement, type Outcome } from "../frontier/verdict.ts";
import type { Counts } from "../job/counts.ts";
import { pendingOf } from "../job/counts.ts";
import type { JobStatus, Waiting } from "../job/job-spec.ts";
import { isOver } from "../job/life-cycle.ts";
import type { Log } from "../log.ts";
import type { TaskEnd } from "../pool/task.ts";
import type { Ballot, Operation, Outcome as RegisterOutcome } from "../replication/register.ts";
import { type Clock, pause } from "./clock.ts";
import type { CrawlReply, CrawlRequest, RunMessage } from "./crawl-message.ts";
import { CreditRequests } from "./credit-requests.ts";
import { FrontierStore } from "./frontier-store.ts";
import type { Watcher } from "./job-watch.ts";
import type { KeyLayout } from "./key-layout.ts";
import { LinkPlacement } from "./link-placement.ts";
import type { OfferAnswer } from "./offer-outbox.ts";
import { pageTaskOf } from "./page-task.ts";

export interface HostLeaderPorts {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly layout: KeyLayout;
  readonly random: () => number;
  readonly robotsWaitMs: number;
  /** At the local replica. */
  operate(operation: Operation): Promise<RegisterOutcome>;
  readonly spreadAbove: number;
  readonly memory: FrontierMemory;
  offer(jobId: string, pages: readonly OfferedPage[]): Promise<OfferAnswer>;
  /** To the parts of large hosts that this partition paces. */
  offerParts(jobId: string, pages: readonly OfferedPage[]): Promise<OfferAnswer>;
  /** At the leader of such a part. */
  askPart(partition: number, request: CrawlRequest): Promise<CrawlReply>;
  /** At the job's leader. */
  askJob(
    jobId: string,
    question:
      | { kind: "credit"; participant: number; granted: number; want: number }
      | { kind: "widen"; host: string },
  ): Promise<CrawlReply>;
  wantConfirmation(jobId: string, watcher: Watcher): void;
  progressed(jobId: string, watcher: Watcher, isEmpty: boolean): void;
  /** The job is over. */
  over(jobId: string): void;
  nextRunner(): Runner | undefined;
  /** The newest time heard of its clock. */
  timeOf(runner: string): number | undefined;
  /** The place that `nextRunner` took is free again: the page is with the pool here, done with elsewhere, or will never leave. */
  released(runner: string): void;
  run(runner: string, message: RunMessage): void;
  fetchRobots(
    task: { origin: string; userAgent: string; delayMs: number; startBeforeMs: number },
    onStarted: () => void,
  ): Promise<TaskEnd>;
  /** This leader has ended by itself. */
  dropped(error: unknown): void;
}

/** Offers and reports waiting in one partition; beyond, `BUSY`. Reports have room of their own. */
const OFFERS_MAX = 64;
const REPORTS_MAX = 1024;
/** From owners of hosts that have pages here: apart from offers that may themselves wait for such. */
const PART_OFFERS_MAX = 64;
const QUESTIONS_MAX = 64;

export class HostLeader implements Watcher {
  readonly partition: number;
  readonly ballot: Ballot;
  readonly #ports: HostLeaderPorts;
  readonly #frontier: Frontier;
  readonly #store: FrontierStore;
  readonly #placement: LinkPlacement;
  readonly #credits: CreditRequests;
  // By the id under which the frontier has it.
  readonly #waiting = new Map<
    number,
    { resolve(answer: "accepted" | "refused"): void; reject(error: unknown): void }
  >();
  // Owners of hosts that wait for pages, likewise.
  readonly #asking = new Map<number, { resolve(reply: CrawlReply): void; reject(error: unknown): void }>();
  readonly #committed = new Map<string, Counts>();
  // Runners of pages that this leader handed to other servers, by hand-out.
  readonly #elsewhere = new Map<string, string>();
  readonly #dropping = new Set<string>();
  readonly #reviving = new Map<string, Promise<void>>();
  // By job and host: what pages said, on its way from the store.
  readonly #contentsRead = new Map<string, Promise<void>>();
  #nextId = 1;
  #offers = 0;
  #partOffers = 0;
  #reports = 0;
  #isCommitting = false;
  #isScheduled = false;
  #isEnded = false;
  #wake: (() => void) | undefined;
  /** Pages could go but for a runner. */
  isSaturated = false;

  constructor(partition: number, ballot: Ballot, ports: HostLeaderPorts) {
    this.partition = partition;
    this.ballot = ballot;
    this.#ports = ports;
    const { layout } = ports;
    this.#frontier = new Frontier({
      robotsWaitMs: ports.robotsWaitMs,
      random: ports.random,
      memory: ports.memory,
      placement: {
        spreadAbove: ports.spreadAbove,
        isMain: (host) => layout.hostPartition(host) === partition,
        partOf: (host, key) => {
          const part = layout.hostPart(host, key);
          return part === partition ? undefined : part;
        },
        partsOf: (host) => layout.hostParts(host).filter((part) => part !== partition),
      },
    });
    this.#store = new FrontierStore(ports.layout, ballot, (operation) => this.#operate(operation));
    this.#placement = new LinkPlacement(partition, this.#frontier, {
      clock: ports.clock,
      layout: ports.layout,
      offer: (jobId, pages) => ports.offer(jobId, pages),
      widen: async (jobId, host) => (await ports.askJob(jobId, { kind: "widen", host })).kind === "accepted",
      isEnded: () => this.#isEnded,
    });
    this.#credits = new CreditRequests({
      clock: ports.clock,
      ask: (jobId, want) => this.#askCredit(jobId, want),
      onChange: () => this.advance(),
    });
  }

  /** Jobs that have something here. */
  get jobs(): number {
    return this.#frontier.jobs;
  }

  /** Takes up the jobs that have pages pending here. False: there is nothing to lead. */
  async load(): Promise<boolean> {
    const open = (await this.#store.allCounts()).filter(
      (counts) => pendingOf(counts) > 0 || counts.large > 0,
    );
    await Promise.all(open.map((counts) => this.#loadShare(counts.jobId, counts)));
    this.advance();
    return open.length > 0;
  }

  /** No commit, no effect after this. */
  end(reason: unknown = new NotLeaderError(this.partition)): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#wake?.();
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
    for (const { reject } of this.#asking.values()) reject(reason);
    this.#asking.clear();
    for (const runner of this.#elsewhere.values()) this.#ports.released(runner);
    this.#elsewhere.clear();
    for (const runner of this.#frontier.waitingRunners()) this.#ports.released(runner);
  }

  /** Something may have become possible. */
  advance(): void {
    if (this.#isScheduled || this.#isEnded) return;
    this.#isScheduled = true;
    // Everything that comes in during this turn shares a batch.
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#advance();
    });
  }

  // --- questions ----------------------------------------------------------------------------

  /** @param isPart pages of hosts that another partition paces. */
  async offer(jobId: string, pages: readonly OfferedPage[], isPart = false): Promise<CrawlReply> {
    if (this.#dropping.has(jobId)) return { kind: "refused" };
    if (isPart) return this.#offerPart(jobId, pages);
    if (this.#offers >= OFFERS_MAX) throw new BusyError(`partition ${this.partition}`, 50);
    this.#offers++;
    try {
      return { kind: await this.#answerTo((id) => this.#frontier.offer(id, jobId, pages)) };
    } finally {
      this.#offers--;
    }
  }

  async #offerPart(jobId: string, pages: readonly OfferedPage[]): Promise<CrawlReply> {
    if (this.#partOffers >= PART_OFFERS_MAX) throw new BusyError(`partition ${this.partition}`, 50);
    this.#partOffers++;
    try {
      return { kind: await this.#answerTo((id) => this.#frontier.offer(id, jobId, pages)) };
    } finally {
      this.#partOffers--;
    }
  }

  /** Hands out pages of a host that another partition paces. */
  async next(jobId: string, host: string, runners: readonly string[]): Promise<CrawlReply> {
    if (this.#dropping.has(jobId)) return { kind: "handed", pages: [], left: 0 };
    if (this.#isEnded) throw new NotLeaderError(this.partition);
    if (this.#asking.size >= QUESTIONS_MAX) throw new BusyError(`partition ${this.partition}`, 50);
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#asking.set(id, { resolve, reject });
      this.#frontier.next(id, jobId, host, runners, this.#ports.clock.now());
      this.advance();
    });
  }

  /** @param latencyMs until the head of an answer had arrived; null: there was none. */
  async report(
    ref: HandoutRef,
    agoMs: number,
    outcome: Outcome,
    latencyMs: number | null,
  ): Promise<CrawlReply> {
    if (this.#reports >= REPORTS_MAX) throw new BusyError(`partition ${this.partition}`, 100);
    const isOpen = this.#frontier.pageOf(ref) !== undefined;
    const isNews = this.#frontier.heardReport(ref, agoMs, outcome, this.#ports.clock.now(), latencyMs);
    const isOut = this.#frontier.isOut(ref);
    this.#landed(ref);
    this.advance();
    if (isOut) return { kind: await this.#answerTo((id) => this.#frontier.landed(id, ref)) };
    if (!isNews) {
      // The first copy of it is still being settled: ask again later.
      if (isOpen) throw new BusyError("the report", 250);
      return { kind: "accepted" };
    }
    this.#reports++;
    try {
      const judgement = await this.#judged(ref, outcome);
      const own = await this.#placement.place(ref, outcome, judgement);
      if (own === undefined) {
        this.#frontier.forget(ref.jobId);
        this.advance();
        return { kind: "refused" };
      }
      return { kind: await this.#answerTo((id) => this.#frontier.settle(id, ref, outcome, own, judgement)) };
    } catch (error) {
      this.#frontier.unheard(ref);
      throw error;
    } finally {
      this.#reports--;
    }
  }

  /** Null: it has nothing of this job yet. */
  async count(jobId: string): Promise<Counts | null> {
    // First forget, then read: what is accepted after the reading needs a new confirmation.
    this.#frontier.forgetConfirmation(jobId, this.#ports.clock.now());
    const counts = await this.#store.counts(jobId);
    this.advance();
    return counts ?? null;
  }

  async recall(jobId: string, granted: number): Promise<CrawlReply> {
    const answer = await this.#answerTo((id) => this.#frontier.recall(id, jobId, granted));
    if (answer === "refused") return { kind: "refused" };
    return { kind: "counted", counts: this.#committed.get(jobId) ?? null };
  }

  async changed(jobId: string, status: JobStatus, run: number): Promise<CrawlReply> {
    if (this.#isEarlier(jobId, run)) return { kind: "accepted" };
    this.#frontier.changed(jobId, status, this.#ports.clock.now());
    if (isOver(status)) this.#over(jobId);
    this.advance();
    // The answer says that nothing of before is still on its way: whoever reads the counts now reads them whole.
    await this.#store.counts(jobId);
    return { kind: "accepted" };
  }

  async drop(jobId: string): Promise<CrawlReply> {
    this.#dropping.add(jobId);
    try {
      this.#frontier.forget(jobId);
      this.#over(jobId);
      this.advance();
      await this.#store.drop(jobId);
      return { kind: "accepted" };
    } finally {
      this.#dropping.delete(jobId);
    }
  }

  /** Makes all failed pages pending again; once for each run, however often it is asked. */
  async revive(jobId: string, run: number): Promise<CrawlReply> {
    const earlier = this.#reviving.get(jobId);
    if (earlier !== undefined) {
      await earlier;
      return { kind: "accepted" };
    }
    const reviving = this.#revive(jobId, run)
      .catch((error: unknown) => {
        this.#fail(error);
        throw error;
      })
      .finally(() => this.#reviving.delete(jobId));
    this.#reviving.set(jobId, reviving);
    await reviving;
    return { kind: "accepted" };
  }

  async #revive(jobId: string, run: number): Promise<void> {
    const known = await this.#store.counts(jobId);
    if (known === undefined || known.run >= run) return;
    // Over for everybody: what is left in memory is of the run before, and what is read from here on is whole.
    this.#frontier.forget(jobId);
    this.#over(jobId);
    this.advance();
    const counts = (await this.#store.counts(jobId)) ?? known;
    const sizes = new Map((await this.#store.sizes(jobId)).map((size) => [size.host, size]));
    while (true) {
      const failures = await this.#store.failures(jobId, REVIVED_AT_ONCE);
      const refs = failures.map(({ host, record }) => ({ host, key: record.key }));
      const pages = await this.#store.pages(jobId, refs);
      if (failures.length < REVIVED_AT_ONCE) counts.run = run;
      await this.#store.write(revive(counts, sizes, failures, pages));
      if (counts.run === run) break;
    }
    this.#frontier.forget(jobId);
    await this.#loadShare(jobId, counts);
    this.advance();
  }

  started(ref: HandoutRef, agoMs: number): void {
    this.#frontier.started(ref, agoMs, this.#ports.clock.now());
    this.advance();
  }

  lost(ref: HandoutRef): void {
    this.#landed(ref);
    this.#frontier.lost(ref);
    this.advance();
  }

  /** Pages under way for at least `ageMs`, by runner. */
  flightsByRunner(ageMs: number): Map<string, HandoutRef[]> {
    return this.#frontier.flightsByRunner(this.#ports.clock.now() - ageMs);
  }

  // --- Watcher ------------------------------------------------------------------------------

  progressOf(jobId: string): { counts: Counts | null; waiting: readonly Waiting[] } {
    const { clock } = this.#ports;
    return {
      counts: this.#committed.get(jobId) ?? null,
      waiting: this.#frontier.waitingOn(jobId, clock.now(), clock.wall()),
    };
  }

  confirmed(jobId: string, view: JobView, askedAtMs: number, roundTripMs: number): void {
    this.#frontier.roundTrip(roundTripMs);
    if (this.#isEarlier(jobId, view.run)) return;
    this.#frontier.confirmed(jobId, view, askedAtMs);
    if (isOver(view.status)) this.#over(jobId);
    this.advance();
  }

  gone(jobId: string): void {
    this.#frontier.forget(jobId);
    this.#over(jobId);
    this.advance();
  }

  // --- inside -------------------------------------------------------------------------------

  /** A word about the job that was on its way when its present run began. */
  #isEarlier(jobId: string, run: number): boolean {
    return run < (this.#frontier.countsOf(jobId)?.run ?? 0);
  }

  #over(jobId: string): void {
    this.#committed.delete(jobId);
    this.#credits.forget(jobId);
    this.#ports.over(jobId);
  }

  /** What the page is to its host, once it is known here what that has said. */
  async #judged(ref: HandoutRef, outcome: Outcome): Promise<Judgement> {
    while (true) {
      const judgement = this.#frontier.judge(ref, outcome);
      if (judgement !== "unread") return judgement;
      const { jobId, host } = ref;
      const id = `${jobId}/${host}`;
      let reading = this.#contentsRead.get(id);
      if (reading === undefined) {
        reading = this.#store
          .contents(jobId, host)
          .then((chunks) => this.#frontier.restoreContents(jobId, host, chunks))
          .finally(() => this.#contentsRead.delete(id));
        this.#contentsRead.set(id, reading);
      }
      await reading;
    }
  }

  #answerTo(give: (id: number) => void): Promise<"accepted" | "refused"> {
    if (this.#isEnded) return Promise.reject(new NotLeaderError(this.partition));
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve, reject });
      give(id);
      this.advance();
    });
  }

  async #operate(operation: Operation): Promise<RegisterOutcome> {
    while (true) {
      if (this.#isEnded) throw new NotLeaderError(this.partition);
      try {
        return await this.#ports.operate(operation);
      } catch (error) {
        if (!(error instanceof BusyError)) throw error;
        // Nothing was written.
        await pause(this.#ports.clock, error.retryAfterMs);
      }
    }
  }

  #advance(): void {
    if (this.#isEnded || this.#isCommitting) return;
    this.#wake?.();
    this.#wake = undefined;
    const { clock } = this.#ports;
    const nowMs = clock.now();
    const { batch, wants, wakeAtMs, isSaturated } = this.#frontier.advance({
      nowMs,
      wallMs: clock.wall(),
      nextRunner: () => this.#ports.nextRunner(),
      timeOf: (runner) => this.#ports.timeOf(runner),
    });
    this.isSaturated = isSaturated;
    for (const jobId of wants.confirm) this.#ports.wantConfirmation(jobId, this);
    for (const [jobId, want] of wants.credit) this.#credits.want(jobId, want);
    if (batch === undefined) {
      this.#read(wants);
      if (wakeAtMs !== undefined) this.#wakeIn(wakeAtMs - nowMs);
      return;
    }
    this.#isCommitting = true;
    this.#commit(batch.writes, batch.effects).then(
      () => {
        this.#isCommitting = false;
        this.#read(wants);
        this.advance();
      },
      (error: unknown) => {
        this.#isCommitting = false;
        for (const effect of batch.effects) {
          if (effect.kind === "run" || effect.kind === "returned") this.#ports.released(effect.runner);
        }
        // What was to be asked for after the commit never is.
        for (const runner of wants.takes.flatMap(({ runners }) => runners)) this.#ports.released(runner);
        this.#fail(error);
      },
    );
  }

  async #commit(
    writes: Parameters<FrontierStore["write"]>[0],
    effects: readonly FrontierEffect[],
  ): Promise<void> {
    if (writes.length > 0) await this.#store.write(writes);
    if (this.#isEnded) throw new NotLeaderError(this.partition);
    for (const write of writes) {
      if (write.kind !== "counts") continue;
      const { jobId } = write.counts;
      this.#committed.set(jobId, write.counts);
      this.#ports.progressed(jobId, this, false);
    }
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: FrontierEffect): void {
    switch (effect.kind) {
      case "answer": {
        const waiting = this.#waiting.get(effect.id);
        this.#waiting.delete(effect.id);
        waiting?.resolve(effect.answer);
        return;
      }
      case "run": {
        const { jobId, host, key, handout, runner } = effect;
        const view = this.#frontier.viewOf(jobId);
        const ref = { jobId, host, key, handout };
        if (view === undefined || runner === this.#ports.nodeId) this.#ports.released(runner);
        else this.#elsewhere.set(flightId(ref), runner);
        if (view === undefined) return;
        this.#ports.run(runner, {
          kind: "run",
          partition: this.partition,
          ballot: this.ballot,
          ref,
          task: pageTaskOf(view, effect),
          alone: effect.alone,
          runnerTimeMs: effect.runnerTimeMs,
          startWithinMs: effect.startWithinMs,
          ...(effect.store === undefined ? {} : { store: effect.store }),
        });
        return;
      }
      case "handed": {
        const asking = this.#asking.get(effect.id);
        this.#asking.delete(effect.id);
        asking?.resolve({ kind: "handed", pages: [...effect.pages], left: effect.left });
        return;
      }
      case "returned":
        this.#ports.released(effect.runner);
        void this.#giveBack(effect);
        return;
      case "fetchRobots":
        void this.#fetchRobots(effect);
        return;
      case "readRobots":
        void this.#readRobots(effect);
        return;
      case "emptied":
        this.#ports.progressed(effect.jobId, this, true);
        return;
    }
  }

  /** It is with its runner no more. */
  #landed(ref: HandoutRef): void {
    const id = flightId(ref);
    const runner = this.#elsewhere.get(id);
    if (runner === undefined) return;
    this.#elsewhere.delete(id);
    this.#ports.released(runner);
  }

  #wakeIn(ms: number): void {
    this.#wake?.();
    this.#wake = this.#ports.clock.after(Math.max(0, ms), () => {
      this.#wake = undefined;
      this.#advance();
    });
  }

  /** What the frontier needs from the store; after the commit of what it has just written. */
  #read({ shares, hosts, lookups, loads, forwards, takes }: FrontierWants): void {
    const { clock } = this.#ports;
    const read = (what: () => Promise<void>) => {
      what().then(
        () => this.advance(),
        (error: unknown) => this.#fail(error),
      );
    };
    for (const { jobId, id, pages } of forwards) {
      read(async () => {
        if ((await this.#ports.offerParts(jobId, pages)) === "accepted") this.#frontier.forwarded(id);
        else this.gone(jobId);
      });
    }
    for (const want of takes) void this.#take(want);
    for (const jobId of shares) read(() => this.#loadShare(jobId));
    for (const name of hosts) {
      read(async () => {
        const { pace, robots } = await this.#store.host(name);
        this.#frontier.restoreHost(name, pace, robots, clock.now(), clock.wall());
      });
    }
    for (const { jobId, id, pages } of lookups) {
      read(async () => this.#frontier.lookedUp(id, await this.#store.pages(jobId, pages)));
    }
    for (const { jobId, size, end, loadLength } of loads) {
      read(async () => {
        const { pages, more } = await this.#store.due(jobId, size.host, end, loadLength);
        this.#frontier.loaded(jobId, size.host, pages, more, clock.now(), clock.wall());
      });
    }
  }

  async #loadShare(jobId: string, known?: Counts): Promise<void> {
    const counts = known ?? (await this.#store.counts(jobId));
    const sizes = counts === undefined ? [] : await this.#store.sizes(jobId);
    const open = sizes.filter((size) => size.pending > 0);
    const flights = (await Promise.all(open.map((size) => this.#store.flights(jobId, size.host)))).flat();
    const traps = counts === undefined ? [] : await this.#store.traps(jobId);
    const outs = counts === undefined || counts.large === 0 ? [] : await this.#store.outs(jobId);
    if (counts !== undefined) this.#committed.set(jobId, structuredClone(counts));
    this.#frontier.restoreShare(jobId, counts, sizes, flights, this.#ports.clock.now(), traps, outs);
  }

  /** Asks a part of a large host for pages. */
  async #take(want: TakeWant): Promise<void> {
    const { jobId, host, partition, runners } = want;
    const answer = await this.#ports
      .askPart(partition, { kind: "next", partition, jobId, host, runners: [...runners] })
      .catch((error: unknown) => {
        this.#ports.log.debug("part did not answer", { partition, job: jobId, error });
      });
    if (this.#isEnded) {
      for (const runner of runners) this.#ports.released(runner);
      return;
    }
    const handed = answer?.kind === "handed" ? answer : undefined;
    for (const runner of this.#frontier.took(want, handed, this.#ports.clock.now())) {
      this.#ports.released(runner);
    }
    this.advance();
  }

  /** Where this is not heard, the part finds out by itself that nobody has the page. */
  async #giveBack(effect: FrontierEffect & { kind: "returned" }): Promise<void> {
    const { partition, ref, outcome } = effect;
    await this.#ports
      .askPart(partition, {
        ...{ kind: "report", partition, ref, outcome, runner: this.#ports.nodeId },
        ...{ agoMs: 0, nowMs: this.#ports.clock.now(), latencyMs: null },
      })
      .catch((error: unknown) => {
        this.#ports.log.debug("page not given back", { partition, job: ref.jobId, error });
      });
  }

  #fail(error: unknown): void {
    if (this.#isEnded) return;
    this.#ports.log.info("host leader ends", { partition: this.partition, error });
    this.end();
    this.#ports.dropped(error);
  }

  async #askCredit(jobId: string, want: number): Promise<"more" | "none" | "over"> {
    const granted = this.#frontier.countsOf(jobId)?.granted ?? 0;
    const question = { kind: "credit", participant: this.partition, granted, want } as const;
    const reply = await this.#ports.askJob(jobId, question);
    if (this.#isEnded) return "over";
    if (reply.kind !== "credited") {
      this.gone(jobId);
      return "over";
    }
    this.#frontier.credited(jobId, reply.granted);
    return reply.granted > granted ? "more" : "none";
  }

  /** What a robots.txt names, and the place where a sitemap is that nobody names. */
  async #readRobots(effect: FrontierEffect & { kind: "readRobots" }): Promise<void> {
    const { jobId, host, key, handout, origin } = effect;
    const ref = { jobId, host, key, handout };
    const sitemaps = [...effect.sitemaps, "/sitemap.xml"].flatMap((text) => {
      const url = canonicalUrl(text, origin);
      return url === undefined ? [] : [{ ...url, key: sitemapKey(url.url, 0), part: 0 }];
    });
    const outcome: Outcome = { kind: "sitemap", found: [], sitemaps };
    this.#frontier.heardOwn(ref);
    try {
      const own = await this.#placement.place(ref, outcome, AS_IT_IS);
      if (own !== undefined) await this.#answerTo((id) => this.#frontier.settle(id, ref, outcome, own));
    } catch (error) {
      if (this.#isEnded) return;
      this.#ports.log.debug("sitemaps not placed", { job: jobId, error });
      this.#frontier.unheard(ref);
      this.lost(ref);
    }
  }

  async #fetchRobots(effect: FrontierEffect & { kind: "fetchRobots" }): Promise<void> {
    const { host, origin } = effect;
    const { clock } = this.#ports;
    let startedAtMs: number | undefined;
    const end = await this.#ports.fetchRobots(effect, () => {
      startedAtMs = clock.now();
      this.#frontier.robotsStarted(host, origin, startedAtMs);
    });
    if (this.#isEnded) return;
    const agoMs = startedAtMs === undefined ? 0 : clock.now() - startedAtMs;
    if (end.kind === "notStarted") {
      this.#frontier.robotsFetched(host, origin, { kind: "notStarted" }, clock.now());
    } else if (end.kind === "report" && end.report.kind === "broken") {
      this.#frontier.robotsFetched(host, origin, { kind: "barred" }, clock.now());
    } else {
      const answer =
        end.kind === "report" && end.report.kind === "robots"
          ? end.report
          : { status: 0, text: "", retryAfterMs: null };
      const { status, text, retryAfterMs } = answer;
      this.#frontier.robotsFetched(
        host,
        origin,
        { kind: "answered", status, text, retryAfterMs, agoMs },
        clock.now(),
      );
    }
    this.advance();
  }
}
