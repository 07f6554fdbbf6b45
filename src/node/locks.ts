/**
 * Locks of users, from any member: a lease on a name, with a fencing token that
 * only grows. Who holds one is known by `owner`, a secret that nobody can guess.
 *
 * A lease ends by the clock of the partition's leader, whatever its holder believes:
 * a resource is protected by the token alone, when it refuses lower ones.
 */
import { randomBytes } from "node:crypto";
import { LockHeldError, LockLostError, UnavailableError } from "../errors.ts";
import type { PeerRef } from "../peer/transport.ts";
import type { KeyLayout } from "./key-layout.ts";
import type { Lease, LockReply, LockRequest } from "./lock-message.ts";
import type { LeaderAccess } from "./registers.ts";

/** How long one question waits at a leader: a leader that fell silent keeps nobody longer than this. */
const SLICE_MS = 2_500;
const ANSWER_MS_MAX = 1_500;

export interface HeldLock extends Lease {
  readonly owner: string;
}

export interface LockName {
  readonly user: string;
  readonly name: string;
}

export class Locks {
  readonly #layout: KeyLayout;
  readonly #leaders: LeaderAccess;
  readonly #here: (request: LockRequest) => Promise<LockReply>;
  readonly #there: (to: PeerRef, request: LockRequest, timeoutMs: number) => Promise<LockReply>;
  readonly #timeoutMs: number;

  /** @param options.here at this server, which may lead. @param options.timeoutMs until UnavailableError, waits not counted. */
  constructor(options: {
    layout: KeyLayout;
    leaders: LeaderAccess;
    here: (request: LockRequest) => Promise<LockReply>;
    there: (to: PeerRef, request: LockRequest, timeoutMs: number) => Promise<LockReply>;
    timeoutMs: number;
  }) {
    this.#layout = options.layout;
    this.#leaders = options.leaders;
    this.#here = options.here;
    this.#there = options.there;
    this.#timeoutMs = options.timeoutMs;
  }

  /**
   * Waits for at most `waitMs`, behind those who came before.
   *
   * @param options.repeatKey the same one names the same owner again: a repeat finds the lock its own.
   * @param options.signal the asker is gone: gives up the wait, and what it got too late.
   * @throws {LockHeldError} somebody else holds it still.
   * @throws {BusyError} too many wait for it.
   */
  async acquire(
    { user, name }: LockName,
    options: { ttlMs: number; waitMs: number; repeatKey?: string | undefined; signal: AbortSignal },
  ): Promise<HeldLock> {
    const { ttlMs, waitMs, repeatKey, signal } = options;
    const owner =
      repeatKey === undefined
        ? randomBytes(16).toString("hex")
        : this.#layout.requestId(user, ["lock", name, repeatKey]);
    const ticket = randomBytes(9).toString("base64url");
    const deadlineMs = performance.now() + waitMs;
    // Taken at once, most often; only who has to wait goes to where one waits.
    let sliceMsMax = 0;
    const leave = (): void => {
      // A repeat elsewhere may be waiting, or hold it, under the same owner.
      const kind = repeatKey === undefined ? "release" : "leave";
      const request: LockRequest =
        kind === "leave" ? { kind, user, name, owner, ticket } : { kind, user, name, owner };
      this.#ask(request, 0).catch(() => {}); // Its slice, or its lease, ends by itself.
    };
    signal.addEventListener("abort", leave, { once: true });
    try {
      for (;;) {
        if (signal.aborted) throw gone();
        const leftMs = Math.max(0, Math.ceil(deadlineMs - performance.now()));
        const sliceMs = Math.min(leftMs, sliceMsMax);
        const reply = await this.#ask(
          { kind: "acquire", user, name, owner, ticket, ttlMs, waitMs: sliceMs },
          sliceMs,
        );
        if (reply.kind === "granted") {
          if (!signal.aborted) return { owner, ...reply.lease };
          leave();
          throw gone();
        }
        if (leftMs <= sliceMs) throw new LockHeldError(name, publicLease(reply));
        sliceMsMax = SLICE_MS;
      }
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /**
   * The lease lasts `ttlMs` from now on, under the same token.
   *
   * @throws {LockLostError} it has ended, or was never the owner's.
   */
  async renew(
    { user, name }: LockName,
    options: { owner: string; ttlMs: number; fencingToken?: number | undefined },
  ): Promise<HeldLock> {
    const reply = await this.#ask({ kind: "renew", user, name, ...options }, 0);
    if (reply.kind !== "granted") throw new LockLostError(name, publicLease(reply));
    return { owner: options.owner, ...reply.lease };
  }

  /** One that nobody holds is released already. @throws {LockLostError} somebody else holds it. */
  async release(
    { user, name }: LockName,
    options: { owner: string; fencingToken?: number | undefined },
  ): Promise<void> {
    const reply = await this.#ask({ kind: "release", user, name, ...options }, 0);
    if (reply.kind === "lost") throw new LockLostError(name, publicLease(reply));
  }

  #ask(request: LockRequest, waitMs: number): Promise<LockReply> {
    return this.#leaders.askLeader(
      this.#layout.lockPartition(request.user, request.name),
      {
        attemptMsMax: waitMs + ANSWER_MS_MAX,
        here: () => this.#here(request),
        there: (to, timeoutMs) => this.#there(to, request, timeoutMs),
      },
      { timeoutMs: waitMs + this.#timeoutMs, repeatable: true },
    );
  }
}

function gone(): UnavailableError {
  return new UnavailableError("the wait for the lock was given up; ask again, here or at another server");
}

function publicLease(reply: LockReply): { fencingToken: number; expiresAt: string } | undefined {
  const lease = "lease" in reply ? reply.lease : null;
  if (lease === null) return undefined;
  return { fencingToken: lease.fencingToken, expiresAt: new Date(lease.expiresAtMs).toISOString() };
}
