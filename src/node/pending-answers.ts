/** Operations that were handed to replicas of this server and wait for their answers: how many, and how large. */
import { BusyError, NotLeaderError, OutcomeUnknownError, TooLargeError } from "../errors.ts";
import type { Refusal } from "../replication/effect.ts";
import type { Outcome } from "../replication/register.ts";

const OPERATIONS_MAX = 65_536;
/** Of changes that wait for their outcome, over all partitions. */
const BYTES_MAX = 256 * 1024 * 1024;
const BUSY_MS = 50;

interface Waiting {
  readonly partition: number;
  readonly bytes: number;
  resolve(outcome: Outcome): void;
  reject(error: Error): void;
}

export class PendingAnswers {
  readonly #leaderHint: (partition: number) => string | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #bytes = 0;

  constructor(leaderHint: (partition: number) => string | undefined) {
    this.#leaderHint = leaderHint;
  }

  /** Why one more is not taken now, if so. @param bytes of its changes. */
  refusal(bytes: number): BusyError | undefined {
    if (this.#waiting.size < OPERATIONS_MAX && this.#bytes + bytes <= BYTES_MAX) return undefined;
    return new BusyError("this server's queue of operations", BUSY_MS);
  }

  /** @param number of the operation: no other one has it. */
  add(number: number, waiting: Waiting): void {
    this.#waiting.set(number, waiting);
    this.#bytes += waiting.bytes;
  }

  answer(number: number, outcome: Outcome | Refusal): void {
    const waiting = this.#waiting.get(number);
    if (waiting === undefined) return;
    this.#remove(number, waiting);
    if ("kind" in outcome) waiting.resolve(outcome);
    else waiting.reject(this.#errorOf(outcome, waiting.partition));
  }

  /** Those of one partition, or all of them, hear that there will be no answer. */
  reject(error: (partition: number) => Error, partition?: number): void {
    for (const [number, waiting] of this.#waiting) {
      if (partition !== undefined && waiting.partition !== partition) continue;
      this.#remove(number, waiting);
      waiting.reject(error(waiting.partition));
    }
  }

  #remove(number: number, { bytes }: Waiting): void {
    this.#waiting.delete(number);
    this.#bytes -= bytes;
  }

  #errorOf(refusal: Refusal, partition: number): Error {
    switch (refusal.code) {
      case "BUSY":
        return new BusyError(`partition ${partition}`, refusal.retryAfterMs);
      case "TOO_LARGE":
        return new TooLargeError("the entries asked for are too large for one answer; ask for fewer keys");
      case "NOT_LEADER":
        return new NotLeaderError(partition, this.#leaderHint(partition));
      case "OUTCOME_UNKNOWN":
        return new OutcomeUnknownError(`partition ${partition}`);
    }
  }
}
