/**
 * Registers from any member: finds the leader of a partition, asks it, and
 * follows it when it moves.
 *
 * Who leads is only ever a hint (an earlier answer, what the local replica
 * knows, the ring's wish); a wrong one costs a redirect. What an operation may
 * have done decides whether it is asked again: see `RegisterOptions.repeatable`.
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

const RETRY_MS_MIN = 15;
const RETRY_MS_MAX = 250;
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
    leads(partition: number): unknown;
    leaderHint(partition: number): NodeId | undefined;
  };
  readonly ring: {
    member(nodeId: NodeId): Member | undefined;
    isSuspected(nodeId: NodeId): boolean;
    successorsOf(point: ReturnType<typeof positionOf>, count: number): Promise<{ members: Member[] }>;
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

export class RoutedRegisters implements Registers {
  readonly #routes: LeaderRoutes;
  // Who answered as leader last; bounded by the number of partitions.
  readonly #leaders = new Map<number, NodeId>();
  // Of the calls under way: how to end them when this server stops.
  readonly #waiting = new Set<(error: Error) => void>();
  #calls = 0;
  #redirects = 0;
  #lookups = 0;
  #isStopped = false;

  constructor(routes: LeaderRoutes) {
    this.#routes = routes;
  }

  /**
   * How many calls were made, how many of their attempts hit a server that did
   * not lead, and how many had to ask the ring because no leader was known.
   */
  get counts(): { calls: number; redirects: number; lookups: number } {
    return { calls: this.#calls, redirects: this.#redirects, lookups: this.#lookups };
  }

  operate(partition: number, operation: Operation, options: RegisterOptions = {}): Promise<Outcome> {
    const repeatable =
      operation.kind !== "batch" || options.repeatable === true || operation.requestId !== undefined;
    return this.#atLeader(partition, options.timeoutMs, repeatable, {
      attemptMsMax: OPERATION_ATTEMPT_MS_MAX,
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

  /** Whoever waits hears now that this server stops; a write may or may not have happened. */
  stop(): void {
    this.#isStopped = true;
    for (const reject of this.#waiting) reject(stopping());
    this.#waiting.clear();
  }

  #atLeader<T>(
    partition: number,
    timeoutMs: number | undefined,
    repeatable: boolean,
    ask: {
      attemptMsMax: number;
      here: () => Promise<T>;
      there: (to: PeerRef, timeoutMs: number) => Promise<T>;
    },
  ): Promise<T> {
    if (this.#isStopped) return Promise.reject(stopping());
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      this.#find(partition, timeoutMs, repeatable, ask)
        .then(resolve, reject)
        .finally(() => this.#waiting.delete(reject));
    });
  }

  async #find<T>(
    partition: number,
    timeoutMs: number = this.#routes.requestTimeoutMs,
    repeatable: boolean,
    ask: {
      attemptMsMax: number;
      here: () => Promise<T>;
      there: (to: PeerRef, timeoutMs: number) => Promise<T>;
    },
  ): Promise<T> {
    const { self, replicas, ring } = this.#routes;
    const deadline = performance.now() + timeoutMs;
    const refused = new Set<NodeId>();
    let retryMs = RETRY_MS_MIN;
    let last: ClusterError | undefined;
    this.#calls++;

    for (;;) {
      if (this.#isStopped) throw stopping();
      const remainingMs = deadline - performance.now();
      if (remainingMs <= 0) {
        throw new UnavailableError(
          `partition ${partition} did not answer within ${timeoutMs} ms (${last?.message ?? "no leader is known"}); try again, and see \`orbweaver cluster status\``,
          { cause: last },
        );
      }
      const target = await this.#candidate(partition, refused);
      let pauseMs = 0;
      try {
        if (target === undefined) {
          refused.clear();
          pauseMs = retryMs;
        } else if (target === self.nodeId) {
          const answer = await within(ask.here(), remainingMs, partition);
          this.#leaders.set(partition, target);
          return answer;
        } else {
          const member = ring.member(target)!;
          const attemptMs = repeatable ? Math.min(remainingMs, ask.attemptMsMax) : remainingMs;
          const answer = await ask.there({ nodeId: member.nodeId, address: member.address }, attemptMs);
          this.#leaders.set(partition, target);
          return answer;
        }
      } catch (error) {
        const known = this.#leaders.get(partition);
        if (known === target) this.#leaders.delete(partition);
        if (error instanceof NotLeaderError) {
          this.#redirects++;
          last = error;
          refused.add(target!);
          const hint = error.leader as NodeId | undefined;
          if (hint !== undefined && !refused.has(hint) && !ring.isSuspected(hint)) {
            this.#leaders.set(partition, hint);
          } else if (refused.size > this.#routes.replicationFactor || hint === undefined) {
            pauseMs = refused.size >= this.#routes.replicationFactor ? retryMs : 0;
          }
        } else if (error instanceof BusyError) {
          last = error;
          pauseMs = error.retryAfterMs;
        } else if (error instanceof OutcomeUnknownError || error instanceof UnavailableError) {
          if (!repeatable) {
            throw error instanceof OutcomeUnknownError
              ? error
              : new OutcomeUnknownError(`partition ${partition}`, { cause: error });
          }
          last = error;
          if (target !== undefined) refused.add(target);
          pauseMs = RETRY_MS_MIN;
        } else {
          throw error;
        }
      }
      if (pauseMs > 0) {
        const jitter = 0.5 + this.#routes.random();
        await pause(Math.min(pauseMs * jitter, Math.max(1, deadline - performance.now())));
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
        refused.clear();
      }
      // The local replica may have learned better meanwhile.
      const hint = replicas.leaderHint(partition);
      if (
        hint !== undefined &&
        !refused.has(hint) &&
        !this.#leaders.has(partition) &&
        !ring.isSuspected(hint)
      ) {
        this.#leaders.set(partition, hint);
      }
    }
  }

  /** Whom to ask next: ourselves when we lead, the last known leader, else the wished members in order. */
  async #candidate(partition: number, refused: ReadonlySet<NodeId>): Promise<NodeId | undefined> {
    const { self, replicas, ring, partitionCount, replicationFactor } = this.#routes;
    if (replicas.leads(partition) !== undefined && !refused.has(self.nodeId)) return self.nodeId;
    for (const hint of [this.#leaders.get(partition), replicas.leaderHint(partition)]) {
      if (hint === undefined || refused.has(hint) || ring.isSuspected(hint)) continue;
      if (hint === self.nodeId || ring.member(hint) !== undefined) return hint;
    }
    this.#lookups++;
    const wished = await ring
      .successorsOf(positionOf(partition, partitionCount), replicationFactor)
      .then((found) => found.members)
      .catch(() => [] as Member[]);
    return wished.find((member) => !refused.has(member.nodeId) && !ring.isSuspected(member.nodeId))?.nodeId;
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
