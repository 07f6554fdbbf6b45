/**
 * Registers from any member: finds the leader of a partition, asks it, and
 * follows it when it moves.
 *
 * Who leads is only ever a hint (an earlier answer, an announcement, the
 * members of the group, the ring's wish); a wrong one costs a redirect. What an
 * operation may have done decides whether it is asked again: see
 * `RegisterOptions.repeatable`.
 */
import {
  BusyError,
  type ClusterError,
  NotLeaderError,
  OutcomeUnknownError,
  UnavailableError,
} from "../errors.ts";
import type { PeerRef } from "../peer/transport.ts";
import type { Operation, Outcome } from "../replication/register.ts";
import { type NodeId, positionOf } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";
import { PartitionCache } from "./partition-cache.ts";

export interface RegisterOptions {
  /** Milliseconds until UnavailableError; the server's request time-out when left out. */
  readonly timeoutMs?: number;
  /**
   * Doing the operation twice is harmless (a read, a batch with a request id, or
   * one whose conditions or contents make a repeat change nothing): an unknown
   * outcome is then asked again. Reads always are.
   */
  readonly repeatable?: boolean;
}

export interface Registers {
  /**
   * @throws {OutcomeUnknownError} a write that may or may not have happened.
   * @throws {UnavailableError} no leader answered in time.
   */
  operate(partition: number, operation: Operation, options?: RegisterOptions): Promise<Outcome>;
  /** A crawl request, at the leader of `partition`. All of them are repeatable by form. */
  crawlAtLeader(
    partition: number,
    request: CrawlRequest,
    options?: { readonly timeoutMs?: number },
  ): Promise<CrawlReply>;
}

/** Any question for the leader of a partition. */
export interface LeaderQuestion<T> {
  /** One silent member must not use up the whole deadline. */
  readonly attemptMsMax: number;
  /** Asked of this server itself. @throws {NotLeaderError} */
  here(): Promise<T>;
  there(to: PeerRef, timeoutMs: number): Promise<T>;
}

export interface LeaderAccess {
  /** @param options.repeatable as for `RegisterOptions`. @throws as `Registers.operate` does, and what the leader threw. */
  askLeader<T>(
    partition: number,
    question: LeaderQuestion<T>,
    options: { readonly timeoutMs: number; readonly repeatable: boolean },
  ): Promise<T>;
}

const RETRY_MS_MIN = 15;
const RETRY_MS_MAX = 250;
/** How often those who wait for a leader look whether one is known by now: they ask nobody. */
const LOOK_MS = 15;
/** One silent member must not use up the whole deadline. */
const OPERATION_ATTEMPT_MS_MAX = 1_500;
/** Offers and reports wait for others in their turn before they are answered. */
const CRAWL_ATTEMPT_MS_MAX = 4_000;

export interface LeaderRoutes {
  readonly self: Member;
  readonly partitionCount: number;
  readonly replicationFactor: number;
  readonly requestTimeoutMs: number;
  readonly random: () => number;
  readonly replicas: {
    operate(partition: number, operation: Operation): Promise<Outcome>;
    /** Now, or as soon as it leads. */
    takesOperations(partition: number): boolean;
    leaderHint(partition: number): NodeId | undefined;
    /** Undefined: no replica is held here. */
    members(partition: number): NodeId[] | undefined;
  };
  readonly ring: {
    member(nodeId: NodeId): Member | undefined;
    isSuspected(nodeId: NodeId): boolean;
    placement(point: ReturnType<typeof positionOf>, count: number): Promise<{ members: Member[] }>;
  };
  /** The same questions, to another server. */
  callOperate(
    to: PeerRef,
    input: { partition: number; operation: Operation },
    timeoutMs: number,
  ): Promise<Outcome>;
  callCrawl(to: PeerRef, request: CrawlRequest, timeoutMs: number): Promise<CrawlReply>;
  /** The same question, here. */
  crawlLocally(request: CrawlRequest): Promise<CrawlReply>;
}

export class RoutedRegisters implements Registers, LeaderAccess {
  readonly #routes: LeaderRoutes;
  readonly #cache: PartitionCache;
  // Of the ring, one per partition at a time.
  readonly #lookupsUnderWay = new Map<number, Promise<void>>();
  // Where one call asks around because nobody is believed to lead: the others wait for what it finds.
  readonly #searched = new Set<number>();
  readonly #news = new Map<number, Promise<void>>();
  // Of the calls under way: how to end them when this server stops.
  readonly #waiting = new Set<(error: Error) => void>();
  #made = 0;
  #redirects = 0;
  #lookups = 0;
  #isStopped = false;

  constructor(routes: LeaderRoutes) {
    this.#routes = routes;
    this.#cache = new PartitionCache((partition) => routes.replicas.leaderHint(partition));
  }

  /**
   * How many calls were made, how many of their attempts hit a server that did
   * not lead, and how often the ring was asked because nobody else was left to ask.
   */
  get counts(): { made: number; redirects: number; lookups: number } {
    return { made: this.#made, redirects: this.#redirects, lookups: this.#lookups };
  }

  operate(partition: number, operation: Operation, options: RegisterOptions = {}): Promise<Outcome> {
    if ("stale" in operation && operation.stale === true)
      return this.#anywhere(partition, operation, options);
    const repeatable =
      operation.kind !== "batch" || options.repeatable === true || operation.requestId !== undefined;
    // What waits for changes is answered when there are some.
    const waitMs = operation.kind === "watch" ? operation.waitMs : 0;
    const { timeoutMs = this.#routes.requestTimeoutMs } = options;
    return this.#atLeader(partition, timeoutMs + waitMs, repeatable, {
      attemptMsMax: OPERATION_ATTEMPT_MS_MAX + waitMs,
      here: () => this.#routes.replicas.operate(partition, operation),
      there: (to, timeoutMs) => this.#routes.callOperate(to, { partition, operation }, timeoutMs),
    });
  }

  crawlAtLeader(
    partition: number,
    request: CrawlRequest,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<CrawlReply> {
    return this.#atLeader(partition, options.timeoutMs, true, {
      attemptMsMax: CRAWL_ATTEMPT_MS_MAX,
      here: () => this.#routes.crawlLocally(request),
      there: (to, timeoutMs) => this.#routes.callCrawl(to, request, timeoutMs),
    });
  }

  askLeader<T>(
    partition: number,
    question: LeaderQuestion<T>,
    options: { readonly timeoutMs: number; readonly repeatable: boolean },
  ): Promise<T> {
    return this.#atLeader(partition, options.timeoutMs, options.repeatable, question);
  }

  /** Whoever waits hears now that this server stops; a write may or may not have happened. */
  stop(): void {
    this.#isStopped = true;
    for (const reject of this.#waiting) reject(stopping());
    this.#waiting.clear();
  }

  /** A stale read: here, if a replica is held here, else at those who hold one. */
  async #anywhere(partition: number, operation: Operation, options: RegisterOptions): Promise<Outcome> {
    if (this.#isStopped) throw stopping();
    const { replicas, callOperate, requestTimeoutMs } = this.#routes;
    const deadline = performance.now() + (options.timeoutMs ?? requestTimeoutMs);
    let last: unknown;
    try {
      return await replicas.operate(partition, operation);
    } catch (error) {
      if (!(error instanceof NotLeaderError)) throw error;
      last = error;
    }
    const refused = new Set<NodeId>();
    for (;;) {
      const leftMs = deadline - performance.now();
      const target = leftMs > 0 ? await this.#candidate(partition, refused) : undefined;
      if (target === undefined) {
        throw new UnavailableError(`nobody who holds partition ${partition} answered; try again`, {
          cause: last,
        });
      }
      refused.add(target.nodeId);
      try {
        return await callOperate(
          target,
          { partition, operation },
          Math.min(leftMs, OPERATION_ATTEMPT_MS_MAX),
        );
      } catch (error) {
        last = error;
      }
    }
  }

  #atLeader<T>(
    partition: number,
    timeoutMs: number | undefined,
    repeatable: boolean,
    ask: LeaderQuestion<T>,
  ): Promise<T> {
    if (this.#isStopped) return Promise.reject(stopping());
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      this.#find(partition, timeoutMs, repeatable, ask).then(
        (answer) => {
          this.#waiting.delete(reject);
          resolve(answer);
        },
        (error: unknown) => {
          this.#waiting.delete(reject);
          reject(error);
        },
      );
    });
  }

  async #find<T>(
    partition: number,
    timeoutMs: number = this.#routes.requestTimeoutMs,
    repeatable: boolean,
    ask: LeaderQuestion<T>,
  ): Promise<T> {
    const { self, ring } = this.#routes;
    const deadline = performance.now() + timeoutMs;
    const refused = new Set<NodeId>();
    let retryMs = RETRY_MS_MIN;
    let last: ClusterError | undefined;
    let isSearching = false;
    this.#made++;

    try {
      for (;;) {
        if (this.#isStopped) throw stopping();
        const remainingMs = deadline - performance.now();
        if (remainingMs <= 0) {
          throw new UnavailableError(
            `partition ${partition} did not answer within ${timeoutMs} ms (${last?.message ?? "no leader is known"}); try again, and see \`orbweaver cluster status\``,
            { cause: last },
          );
        }
        if (!isSearching && refused.size > 0 && !this.#isLeaderBelieved(partition, refused)) {
          if (this.#searched.has(partition)) {
            await Promise.race([this.#newsOf(partition), pause(remainingMs)]);
            refused.clear();
            continue;
          }
          this.#searched.add(partition);
          isSearching = true;
        }
        const target = await this.#candidate(partition, refused);
        let pauseMs = 0;
        try {
          if (target === undefined) {
            pauseMs = retryMs;
          } else {
            const answer =
              target.nodeId === self.nodeId
                ? await within(ask.here(), remainingMs, partition)
                : await ask.there(
                    { nodeId: target.nodeId, address: target.address },
                    repeatable ? Math.min(remainingMs, ask.attemptMsMax) : remainingMs,
                  );
            this.#cache.led(partition, target.nodeId);
            return answer;
          }
        } catch (error) {
          if (error instanceof NotLeaderError) {
            this.#redirects++;
            last = error;
            this.#isNotLeader(partition, target!.nodeId, refused);
            const hint = error.leader as NodeId | undefined;
            if (hint !== undefined && !refused.has(hint) && !ring.isSuspected(hint)) {
              this.#cache.led(partition, hint);
            }
          } else if (error instanceof BusyError) {
            // It leads, for all that.
            last = error;
            pauseMs = error.retryAfterMs;
          } else if (error instanceof OutcomeUnknownError || error instanceof UnavailableError) {
            this.#isNotLeader(partition, target!.nodeId, refused);
            if (!repeatable) {
              throw error instanceof OutcomeUnknownError
                ? error
                : new OutcomeUnknownError(`partition ${partition}`, { cause: error });
            }
            last = error;
          } else {
            throw error;
          }
        }
        if (pauseMs > 0) {
          const jitter = 0.5 + this.#routes.random();
          const paused = pause(Math.min(pauseMs * jitter, Math.max(1, deadline - performance.now())));
          await (target === undefined ? Promise.race([paused, this.#newsOf(partition)]) : paused);
          retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
          refused.clear();
        }
      }
    } finally {
      if (isSearching) this.#searched.delete(partition);
    }
  }

  #isLeaderBelieved(partition: number, refused: ReadonlySet<NodeId>): boolean {
    const { self, replicas, ring } = this.#routes;
    if (replicas.takesOperations(partition) && !refused.has(self.nodeId)) return true;
    return this.#cache.leaders(partition).some((nodeId) => !refused.has(nodeId) && !ring.isSuspected(nodeId));
  }

  /** Resolves as soon as others are believed to lead the partition than now, or after RETRY_MS_MAX. */
  #newsOf(partition: number): Promise<void> {
    const awaited = this.#news.get(partition);
    if (awaited !== undefined) return awaited;
    const view = () =>
      `${this.#routes.replicas.takesOperations(partition)} ${this.#cache.leaders(partition).join()}`;
    const before = view();
    const look = async () => {
      for (let waitedMs = 0; waitedMs < RETRY_MS_MAX && view() === before; waitedMs += LOOK_MS) {
        await pause(LOOK_MS);
      }
      this.#news.delete(partition);
    };
    const news = look();
    this.#news.set(partition, news);
    return news;
  }

  #isNotLeader(partition: number, nodeId: NodeId, refused: Set<NodeId>): void {
    refused.add(nodeId);
    this.#cache.notLed(partition, nodeId);
  }

  /**
   * Whom to ask next: ourselves when we lead, whoever is believed to lead, the
   * members of the group; only when all of them were asked, those whom the ring wishes.
   */
  async #candidate(partition: number, refused: ReadonlySet<NodeId>): Promise<Member | undefined> {
    const { self, replicas } = this.#routes;
    if (replicas.takesOperations(partition) && !refused.has(self.nodeId)) return self;
    const known = this.#known(partition, refused);
    if (known !== undefined) return known;
    await this.#lookUp(partition);
    return this.#known(partition, refused);
  }

  #known(partition: number, refused: ReadonlySet<NodeId>): Member | undefined {
    const { self, ring, replicas } = this.#routes;
    const kept = this.#cache.members(partition);
    const isOpen = (nodeId: NodeId) => !refused.has(nodeId) && !ring.isSuspected(nodeId);
    const memberOf = (nodeId: NodeId) =>
      ring.member(nodeId) ?? kept.find((member) => member.nodeId === nodeId);
    for (const nodeId of [...this.#cache.leaders(partition), ...(replicas.members(partition) ?? [])]) {
      // That it does not lead it knows best itself.
      const member = nodeId === self.nodeId || !isOpen(nodeId) ? undefined : memberOf(nodeId);
      if (member !== undefined) return member;
    }
    return kept.find(({ nodeId }) => nodeId !== self.nodeId && isOpen(nodeId));
  }

  /** Refreshes who is wished for the partition; without an answer all stays as it was. */
  #lookUp(partition: number): Promise<void> {
    const underWay = this.#lookupsUnderWay.get(partition);
    if (underWay !== undefined) return underWay;
    this.#lookups++;
    const { ring, partitionCount, replicationFactor } = this.#routes;
    const lookup = ring
      .placement(positionOf(partition, partitionCount), replicationFactor)
      .then(
        ({ members }) => this.#cache.kept(partition, members),
        () => {},
      )
      .finally(() => this.#lookupsUnderWay.delete(partition));
    this.#lookupsUnderWay.set(partition, lookup);
    return lookup;
  }
}

function stopping(): UnavailableError {
  return new UnavailableError("this server is stopping; ask another one");
}

async function within<T>(answer: Promise<T>, timeoutMs: number, partition: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new UnavailableError(`partition ${partition} has no majority that answers`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([answer, expired]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
