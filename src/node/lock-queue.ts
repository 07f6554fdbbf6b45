/**
 * Those who wait for one lock, in the order in which they came. Each is asked for
 * in slices of a few seconds; between two slices a place is kept for a moment, so
 * that one whose server died does not hold up the others.
 */
import type { Clock } from "./clock.ts";
import type { Lease, LockReply, LockRequest } from "./lock-message.ts";

/** Between the end of a slice and the next one. */
const PLACE_KEPT_MS = 1_500;

type Acquire = Extract<LockRequest, { kind: "acquire" }>;

interface Question {
  readonly ticket: string;
  resolve(reply: LockReply): void;
  reject(error: Error): void;
  /** Stops the slice's clock. */
  cancel(): void;
}

export interface Waiter {
  request: Acquire;
  /** Undefined: between two slices. */
  question: Question | undefined;
  /** Its slice ended while the lock was being taken for it. */
  isOverdue: boolean;
  /** Stops the wait for its next slice. */
  forget(): void;
}

export class LockQueue {
  readonly partition: number;
  /** The lock is being taken for this one, the first of all. */
  #served: Waiter | undefined;
  // The lock became free meanwhile: what that finds may be old.
  #isStale = false;
  readonly #clock: Clock;
  readonly #changed: () => void;
  // In order. One owner stands here once.
  #waiters: Waiter[] = [];
  #lease: Lease | null = null;
  #stopLooking: () => void = () => {};

  /** @param changed the first one may be another, or the lock may be free. */
  constructor(partition: number, clock: Clock, changed: () => void) {
    this.partition = partition;
    this.#clock = clock;
    this.#changed = changed;
  }

  get length(): number {
    return this.#waiters.length;
  }

  /**
   * The first one, for whom the lock is to be taken now. Undefined: there is none, it is
   * between two slices, or the lock is being taken already. `served` must follow.
   */
  serve(): Waiter | undefined {
    const [first] = this.#waiters;
    if (this.#served !== undefined || first?.question === undefined) return undefined;
    this.#served = first;
    return first;
  }

  /** It has the lock, or it has not. */
  served(waiter: Waiter): void {
    this.#served = undefined;
    if (waiter.isOverdue && waiter.question !== undefined) this.#sliceOver(waiter);
    if (this.#isStale) this.freed();
  }

  freed(): void {
    this.#isStale = this.#served !== undefined;
    if (!this.#isStale) this.#changed();
  }

  has(owner: string): boolean {
    return this.#find(owner) !== undefined;
  }

  /** Stands in the queue until the lock is its own, or its slice ends. Who asks again takes up the old place. */
  wait(request: Acquire): Promise<LockReply> {
    let waiter = this.#find(request.owner);
    if (waiter === undefined) {
      waiter = { request, question: undefined, isOverdue: false, forget: () => {} };
      this.#waiters.push(waiter);
    }
    this.#endSlice(waiter);
    waiter.forget();
    waiter.request = request;
    const { promise, resolve, reject } = Promise.withResolvers<LockReply>();
    const own = waiter;
    const cancel = this.#clock.after(request.waitMs, () => this.#sliceOver(own));
    waiter.question = { ticket: request.ticket, resolve, reject, cancel };
    this.#changed();
    return promise;
  }

  /** Who holds the lock now. */
  told(lease: Lease | null): void {
    this.#lease = lease;
  }

  granted(waiter: Waiter, reply: LockReply): void {
    this.#remove(waiter);
    waiter.question?.cancel();
    waiter.question?.resolve(reply);
    waiter.question = undefined;
  }

  /** @param ticket of the question that is given up; undefined: whatever the owner asks. */
  leave(owner: string, ticket: string | undefined): void {
    const waiter = this.#find(owner);
    if (waiter === undefined || (ticket !== undefined && waiter.question?.ticket !== ticket)) return;
    this.#remove(waiter);
    this.#endSlice(waiter);
    this.#changed();
  }

  isWaiting(waiter: Waiter): boolean {
    return this.#waiters.includes(waiter);
  }

  /** The last wish counts. @param ms from now. */
  lookAgainIn(ms: number): void {
    this.#stopLooking();
    this.#stopLooking = this.#clock.after(ms, () => this.#changed());
  }

  close(error: Error | undefined): void {
    this.#stopLooking();
    for (const waiter of this.#waiters) {
      waiter.forget();
      waiter.question?.cancel();
      if (error !== undefined) waiter.question?.reject(error);
    }
    this.#waiters = [];
  }

  #sliceOver(waiter: Waiter): void {
    // The lock may be its own in a moment.
    waiter.isOverdue = waiter === this.#served;
    if (waiter.isOverdue) return;
    this.#endSlice(waiter);
    waiter.forget = this.#clock.after(PLACE_KEPT_MS, () => {
      this.#remove(waiter);
      this.#changed();
    });
  }

  #endSlice(waiter: Waiter): void {
    waiter.isOverdue = false;
    waiter.question?.cancel();
    waiter.question?.resolve({ kind: "held", lease: this.#lease });
    waiter.question = undefined;
  }

  #find(owner: string): Waiter | undefined {
    return this.#waiters.find(({ request }) => request.owner === owner);
  }

  #remove(waiter: Waiter): void {
    waiter.forget();
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
  }
}
