/**
 * Locks, at the leader of their partition.
 *
 * A lock is an entry that is there while it is held, changed by compare-and-set
 * only, so a leader that is none any more can grant nothing. Its fencing token is
 * the partition's counter, raised in the same batch: tokens grow over releases,
 * expiries, deletions and changes of leader.
 *
 * Who waits stands in a queue in memory, first come first served, and is asked for
 * by its server in slices: one that does not come back loses its place. A change of
 * leader sends all of them to the next one, in the order in which they get there.
 */
import { z } from "zod";
import { BusyError, NotLeaderError } from "../errors.ts";
import type { Condition, Operation, Outcome, Version } from "../replication/register.ts";
import type { Clock } from "./clock.ts";
import type { KeyLayout } from "./key-layout.ts";
import type { Lease, LockReply, LockRequest } from "./lock-message.ts";
import { LockQueue } from "./lock-queue.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

const WAITERS_MAX = 8_192;
const WAITERS_PER_LOCK_MAX = 1_024;
const BUSY_MS = 1_000;
/** Acquisitions of one partition come one after another; what gets between is other writers' work. */
const ATTEMPTS_MAX = 8;
/** A queue looks again this long after the expiry that it was told of. */
const EXPIRED_MS = 2;

const lockSchema = z.object({ name: z.string(), owner: z.string(), fencingToken: z.int().positive() });
const fenceSchema = z.object({ fencingToken: z.int().nonnegative() });

interface Held extends Lease {
  readonly owner: string;
  readonly version: Version;
}

interface Fence {
  readonly fencingToken: number;
  /** Undefined: no lock of the partition was ever taken. */
  readonly version: Version | undefined;
}

type Acquire = Extract<LockRequest, { kind: "acquire" }>;

export class LockKeeper {
  readonly #layout: KeyLayout;
  readonly #operate: (partition: number, operation: Operation) => Promise<Outcome>;
  readonly #clock: Clock;
  readonly #queues = new Map<string, LockQueue>();
  // Of partitions in which locks are being taken: when the last of those is through.
  readonly #turns = new Map<number, Promise<unknown>>();
  // The counters as they were written last; only ever a guess, checked by each batch.
  readonly #fences = new Map<number, Fence>();

  /** @param options.operate at the local replica, which must lead. */
  constructor(options: {
    layout: KeyLayout;
    operate: (partition: number, operation: Operation) => Promise<Outcome>;
    clock: Clock;
  }) {
    this.#layout = options.layout;
    this.#operate = options.operate;
    this.#clock = options.clock;
  }

  /** How many stand in queues. */
  get waiting(): number {
    let waiting = 0;
    for (const { length } of this.#queues.values()) waiting += length;
    return waiting;
  }

  /**
   * @throws {NotLeaderError} @throws {OutcomeUnknownError} both to be asked again.
   * @throws {BusyError} too many wait.
   */
  async request(request: LockRequest): Promise<LockReply> {
    const { user, name, owner } = request;
    const partition = this.#layout.lockPartition(user, name);
    const key = this.#layout.lock(user, name);
    switch (request.kind) {
      case "acquire":
        return this.#acquire(partition, key, request);
      case "renew":
        return this.#renew(partition, key, request);
      case "release":
        this.#queues.get(key)?.leave(owner, undefined);
        return this.#release(partition, key, owner, request.fencingToken);
      case "leave":
        this.#queues.get(key)?.leave(owner, request.ticket);
        return { kind: "done" };
    }
  }

  /** This server leads the partition no more. */
  stopped(partition: number): void {
    this.#fences.delete(partition);
    for (const [key, queue] of this.#queues) {
      if (queue.partition === partition) this.#close(key, queue, new NotLeaderError(partition));
    }
  }

  async #acquire(partition: number, key: string, request: Acquire): Promise<LockReply> {
    const queue = this.#queues.get(key);
    if (queue === undefined) {
      const reply = await this.#take(partition, key, request);
      if (reply.kind !== "held" || request.waitMs === 0) return reply;
    } else if (request.waitMs === 0 && !queue.has(request.owner)) {
      // Nobody overtakes those who wait.
      const { held } = await this.#read(partition, key);
      if (held?.owner === request.owner) return { kind: "granted", lease: leaseOf(held) };
      return { kind: "held", lease: held === undefined ? null : leaseOf(held) };
    }
    return this.#wait(partition, key, request);
  }

  #wait(partition: number, key: string, request: Acquire): Promise<LockReply> {
    let queue = this.#queues.get(key);
    if (queue?.has(request.owner) !== true) {
      if (this.waiting >= WAITERS_MAX || (queue?.length ?? 0) >= WAITERS_PER_LOCK_MAX) {
        throw new BusyError("the queue of this lock", BUSY_MS);
      }
    }
    if (queue === undefined) {
      queue = new LockQueue(partition, this.#clock, () => this.#serve(key));
      this.#queues.set(key, queue);
    }
    return queue.wait(request);
  }

  /** Gives the lock to the first of the queue, if it is free; else looks again when it may be. */
  #serve(key: string): void {
    const queue = this.#queues.get(key);
    if (queue === undefined) return;
    if (queue.length === 0) return this.#close(key, queue);
    const first = queue.serve();
    // One that is between two slices comes back, or loses its place.
    if (first === undefined) return;
    this.#take(queue.partition, key, first.request, () => queue.isWaiting(first))
      .then(
        (reply) => {
          if (reply.kind === "granted") queue.granted(first, reply);
          const lease = reply.kind === "granted" || reply.kind === "held" ? reply.lease : null;
          queue.told(lease);
          queue.lookAgainIn(lease === null ? 0 : lease.expiresAtMs - this.#clock.wall() + EXPIRED_MS);
        },
        (error: unknown) => {
          if (error instanceof BusyError) queue.lookAgainIn(error.retryAfterMs);
          else this.#close(key, queue, error);
        },
      )
      .finally(() => {
        queue.served(first);
        if (queue.length === 0) this.#close(key, queue);
      });
  }

  /** @param error told to all who wait. */
  #close(key: string, queue: LockQueue, error?: unknown): void {
    queue.close(error instanceof Error ? error : undefined);
    if (this.#queues.get(key) === queue) this.#queues.delete(key);
  }

  /** Takes the lock, if it is free. One at a time in a partition, since all raise one counter. */
  #take(
    partition: number,
    key: string,
    request: Acquire,
    isWanted = (): boolean => true,
  ): Promise<LockReply> {
    const before = this.#turns.get(partition) ?? Promise.resolve();
    const taken = before.then((): LockReply | Promise<LockReply> =>
      isWanted() ? this.#takeNow(partition, key, request) : { kind: "held", lease: null },
    );
    const turn = taken
      .catch(() => {})
      .then(() => {
        if (this.#turns.get(partition) === turn) this.#turns.delete(partition);
      });
    this.#turns.set(partition, turn);
    return taken;
  }

  async #takeNow(partition: number, key: string, { name, owner, ttlMs }: Acquire): Promise<LockReply> {
    let fence = this.#fences.get(partition);
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      if (fence === undefined) {
        const found = await this.#read(partition, key);
        if (found.held?.owner === owner) return { kind: "granted", lease: leaseOf(found.held) };
        if (found.held !== undefined) return { kind: "held", lease: leaseOf(found.held) };
        fence = found.fence;
      }
      const fencingToken = fence.fencingToken + 1;
      const expiresAtMs = this.#clock.wall() + ttlMs;
      const fenceKey = this.#layout.fence();
      const outcome = await this.#operate(partition, {
        kind: "batch",
        conditions: [
          { key, is: "absent" },
          { key: fenceKey, is: fence.version ?? "absent" },
        ],
        changes: [
          { kind: "put", key, value: encodeRecord({ name, owner, fencingToken }), expiresAtMs },
          { kind: "put", key: fenceKey, value: encodeRecord({ fencingToken }) },
        ],
      });
      if (outcome.kind === "written") {
        this.#fences.set(partition, { fencingToken, version: outcome.version });
        return { kind: "granted", lease: { fencingToken, expiresAtMs } };
      }
      // What was believed of the counter or of the lock was wrong: look.
      this.#fences.delete(partition);
      fence = undefined;
    }
    throw new BusyError("the locks of this partition", BUSY_MS);
  }

  async #renew(
    partition: number,
    key: string,
    { name, owner, ttlMs, fencingToken }: Extract<LockRequest, { kind: "renew" }>,
  ): Promise<LockReply> {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const { held } = await this.#read(partition, key);
      if (!isHeldBy(held, owner, fencingToken)) return lostTo(held);
      const expiresAtMs = this.#clock.wall() + ttlMs;
      const value = encodeRecord({ name, owner, fencingToken: held.fencingToken });
      const isWritten = await this.#change(partition, { kind: "put", key, value, expiresAtMs }, held.version);
      if (isWritten) return { kind: "granted", lease: { fencingToken: held.fencingToken, expiresAtMs } };
    }
    throw new BusyError("this lock", BUSY_MS);
  }

  async #release(
    partition: number,
    key: string,
    owner: string,
    fencingToken: number | undefined,
  ): Promise<LockReply> {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const { held } = await this.#read(partition, key);
      // A release that comes twice, or after the expiry, finds nothing to do.
      if (held === undefined) return { kind: "done" };
      if (!isHeldBy(held, owner, fencingToken)) return lostTo(held);
      if (await this.#change(partition, { kind: "delete", key }, held.version)) {
        this.#queues.get(key)?.freed();
        return { kind: "done" };
      }
    }
    throw new BusyError("this lock", BUSY_MS);
  }

  async #change(
    partition: number,
    change: Extract<Operation, { kind: "batch" }>["changes"][number],
    is: Condition["is"],
  ): Promise<boolean> {
    const outcome = await this.#operate(partition, {
      kind: "batch",
      changes: [change],
      conditions: [{ key: change.key, is }],
    });
    return outcome.kind === "written";
  }

  async #read(partition: number, key: string): Promise<{ held: Held | undefined; fence: Fence }> {
    const outcome = await this.#operate(partition, { kind: "get", keys: [key, this.#layout.fence()] });
    const [lock, fence] = outcome.kind === "entries" ? outcome.entries : [];
    return {
      held:
        lock === undefined
          ? undefined
          : {
              ...decodeRecord(lockSchema, lock.value),
              version: lock.version,
              expiresAtMs: lock.expiresAtMs ?? Number.POSITIVE_INFINITY,
            },
      fence: {
        fencingToken: fence === undefined ? 0 : decodeRecord(fenceSchema, fence.value).fencingToken,
        version: fence?.version,
      },
    };
  }
}

function isHeldBy(held: Held | undefined, owner: string, fencingToken: number | undefined): held is Held {
  return held?.owner === owner && (fencingToken === undefined || held.fencingToken === fencingToken);
}

function lostTo(held: Held | undefined): LockReply {
  return { kind: "lost", lease: held === undefined ? null : leaseOf(held) };
}

function leaseOf({ fencingToken, expiresAtMs }: Held): Lease {
  return { fencingToken, expiresAtMs };
}
