/**
 * Locks that last as long as their holder lives: a lease that is renewed by itself
 * until it is released or lost.
 *
 * A lease is no proof. A process that was paused may work on after its end, when
 * somebody else holds the lock already; `signal` tells as soon as this process can
 * know. Only the fencing token protects what the lock is for: send it along with
 * each change, and let the resource refuse a token lower than one it has seen.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { type ClusterError, LockHeldError, LockLostError } from "../errors.ts";
import type { Caller } from "./caller.ts";

export interface AcquireOptions {
  /** How long the lock outlives a holder that dies; 30 s when left out. */
  readonly ttlMs?: number | undefined;
  /** How long to wait while somebody else holds it; not at all, when left out. `Infinity`: as long as it takes. */
  readonly waitMs?: number | undefined;
  /** Gives up the wait. */
  readonly signal?: AbortSignal | undefined;
}

const TTL_MS = 30_000;
/** One call waits no longer than this; the next one takes up the place in the queue. */
const SLICE_MS = 20_000;
/** Beyond the slice, for the answer. */
const ANSWER_MS_MAX = 8_000;
/** Renewed when this part of the lease is over. */
const RENEW_AFTER = 1 / 3;
const RETRY_MS_MAX = 1_000;

interface Lease {
  readonly owner: string;
  readonly fencingToken: number;
  readonly expiresAt: string;
}

/** Held until `release`, or until `signal` is aborted. `await using` releases it. */
export class Lock implements AsyncDisposable {
  readonly name: string;
  /** Greater than that of every earlier holder. */
  readonly fencingToken: number;
  readonly #caller: Caller;
  readonly #owner: string;
  readonly #ttlMs: number;
  readonly #lost = new AbortController();
  readonly #released = new AbortController();
  /** By this process's own clock, counted from before the lease was asked for: never later than it ends. */
  #endsAtMs: number;
  #expiresAt: string;
  #endTimer: NodeJS.Timeout;
  readonly #renewing: Promise<void>;

  /** Made by `Locks.acquire`. @param askedAtMs performance.now() before the lease was asked for. */
  constructor(caller: Caller, name: string, lease: Lease, ttlMs: number, askedAtMs: number) {
    this.#caller = caller;
    this.name = name;
    this.fencingToken = lease.fencingToken;
    this.#owner = lease.owner;
    this.#ttlMs = ttlMs;
    this.#expiresAt = lease.expiresAt;
    this.#endsAtMs = askedAtMs + ttlMs;
    this.#endTimer = this.#watchEnd();
    this.#renewing = this.#renewUntilOver();
  }

  /** Aborted when the lease is lost, or may be: the reason is a LockLostError. Not by `release`. */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** ISO 8601, by the cluster's clock; it moves on with each renewal. */
  get expiresAt(): string {
    return this.#expiresAt;
  }

  /** One that was lost is released already. */
  async release(): Promise<void> {
    if (this.#released.signal.aborted) return;
    this.#released.abort();
    clearTimeout(this.#endTimer);
    await this.#renewing;
    const { name, fencingToken } = this;
    const input = { name, owner: this.#owner, fencingToken };
    try {
      await this.#caller.call((to, rest) => to.locks.release.mutate(input, rest));
    } catch (error) {
      if (!(error instanceof LockLostError)) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  async #renewUntilOver(): Promise<void> {
    const over = AbortSignal.any([this.#released.signal, this.#lost.signal]);
    const retryMs = Math.min(RETRY_MS_MAX, this.#ttlMs / 10);
    let waitMs = this.#ttlMs * RENEW_AFTER;
    for (;;) {
      // Nothing is kept alive for a lock's sake alone.
      await pause(waitMs, undefined, { signal: over, ref: false }).catch(() => {});
      if (over.aborted) return;
      const askedAtMs = performance.now();
      const { name, fencingToken } = this;
      const input = { name, owner: this.#owner, ttlMs: this.#ttlMs, fencingToken };
      const timeoutMs = Math.max(1, this.#endsAtMs - askedAtMs);
      try {
        const lease = await this.#caller.call((to, rest) => to.locks.renew.mutate(input, rest), {
          timeoutMs,
        });
        if (over.aborted) return;
        this.#expiresAt = lease.expiresAt;
        this.#endsAtMs = askedAtMs + this.#ttlMs;
        clearTimeout(this.#endTimer);
        this.#endTimer = this.#watchEnd();
        waitMs = this.#ttlMs * RENEW_AFTER;
      } catch (thrown) {
        const error = thrown as ClusterError;
        if (error.remedy === "reject") return this.#lose(error);
        waitMs = retryMs;
      }
    }
  }

  #watchEnd(): NodeJS.Timeout {
    const end = () => this.#lose(new LockLostError(this.name, undefined));
    return setTimeout(end, Math.max(0, this.#endsAtMs - performance.now())).unref();
  }

  #lose(cause: ClusterError): void {
    clearTimeout(this.#endTimer);
    if (this.#released.signal.aborted || this.#lost.signal.aborted) return;
    this.#lost.abort(
      cause instanceof LockLostError ? cause : new LockLostError(this.name, undefined, { cause }),
    );
  }
}

export class Locks {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Behind those who asked before.
   *
   * @throws {LockHeldError} somebody else holds it still: under which token, and until when.
   */
  async acquire(name: string, options: AcquireOptions = {}): Promise<Lock> {
    const { ttlMs = TTL_MS, waitMs = 0, signal } = options;
    // The same owner in every repeat and slice: what was granted and not heard of is granted again.
    const idempotencyKey = randomUUID();
    const deadlineMs = performance.now() + waitMs;
    for (;;) {
      signal?.throwIfAborted();
      const askedAtMs = performance.now();
      const leftMs = Math.max(0, deadlineMs - askedAtMs);
      const sliceMs = Math.ceil(Math.min(leftMs, SLICE_MS));
      const input = { name, ttlMs, waitMs: sliceMs, idempotencyKey };
      const limits = {
        attemptMs: sliceMs + ANSWER_MS_MAX,
        timeoutMs: sliceMs + this.#caller.timeoutMs,
        signal,
      };
      try {
        const lease = await this.#caller.call((to, rest) => to.locks.acquire.mutate(input, rest), limits);
        const lock = await this.#hold(name, lease, ttlMs, askedAtMs);
        if (signal?.aborted !== true) return lock;
        await lock.release();
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof LockHeldError) || leftMs <= sliceMs) throw error;
      }
    }
  }

  /** Runs `work` while the lock is held, and releases it. `lock.signal` tells when it is lost meanwhile. */
  async with<T>(name: string, work: (lock: Lock) => Promise<T>, options: AcquireOptions = {}): Promise<T> {
    const lock = await this.acquire(name, options);
    try {
      return await work(lock);
    } finally {
      await lock.release();
    }
  }

  /** When in a long wait the lease began is known to the cluster only: one that is renewed has a known beginning. */
  async #hold(name: string, lease: Lease, ttlMs: number, askedAtMs: number): Promise<Lock> {
    const nowMs = performance.now();
    if (nowMs - askedAtMs <= ttlMs * RENEW_AFTER)
      return new Lock(this.#caller, name, lease, ttlMs, askedAtMs);
    const { owner, fencingToken } = lease;
    const input = { name, owner, fencingToken, ttlMs };
    const renewed = await this.#caller.call((to, rest) => to.locks.renew.mutate(input, rest));
    return new Lock(this.#caller, name, renewed, ttlMs, nowMs);
  }
}
