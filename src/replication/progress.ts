/** What a leader knows of one other replica, and what it has sent to it. */
import type { ReplicaId } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Body } from "./message.ts";

/** Late answers to earlier messages make a trip look shorter than any is. */
const RESEND_MS_MIN = 20;
const REPEAT_MS_MIN = 100;
const REPEAT_MS_MAX = 2_000;

export class Progress {
  readonly replicaId: ReplicaId;
  isLearner: boolean;
  /** Durable there up to this batch; -1: not identical to the base state, as far as is known. */
  match = -1;
  /** Promised in the base state: that it is level is to be expected, and batches are sent behind the offer. */
  isExpected: boolean;
  /** Last batch sent. */
  sent = 0;
  /** Rounds of confirmation up to this one were answered. */
  confirmedRound = 0;
  /** When it last answered anything of this ballot. */
  answeredMs: number;
  /** When something was last sent that wants an answer. */
  askedMs: number;
  /** When the oldest message without an answer left. */
  #waitingSinceMs: number | undefined;
  /** Trips of a message and its answer, smoothed. */
  tripMs = 20;
  /** After which batch it was last sent all again, and when. */
  #resent = { after: -1, atMs: Number.NEGATIVE_INFINITY };
  /** How often what it was sent was sent once more, without a word from it. */
  #repeats = 0;
  /** How often the window ran over while it was becoming identical. */
  passes = 0;
  /** What was the last batch when it was last offered the state. */
  offeredSeq = 0;

  constructor(replicaId: ReplicaId, options: { isLearner: boolean; isExpected: boolean; nowMs: number }) {
    const { nowMs } = options;
    this.replicaId = replicaId;
    this.isLearner = options.isLearner;
    this.isExpected = options.isExpected;
    this.answeredMs = nowMs;
    this.askedMs = nowMs;
  }

  get isLevel(): boolean {
    return this.match >= 0;
  }

  asked(nowMs: number): void {
    this.askedMs = nowMs;
    this.#waitingSinceMs ??= nowMs;
  }

  answered(nowMs: number): void {
    if (this.#waitingSinceMs !== undefined) {
      this.tripMs += (Math.min(nowMs - this.#waitingSinceMs, 1000) - this.tripMs) / 8;
      this.#waitingSinceMs = undefined;
    }
    this.answeredMs = nowMs;
    this.#repeats = 0;
  }

  /** What it was sent is sent once more: it is given twice the time. */
  repeated(): void {
    this.#repeats++;
  }

  send(effects: ReplicaEffect[], body: Body): void {
    effects.push({ kind: "send", to: this.replicaId, body });
  }

  /**
   * Whether it is to be sent all batches after `after` once more. Each of those that
   * come before the missing one is answered with the same: one answer in a trip counts,
   * or resending would breed answers that breed resending.
   */
  mayResend(after: number, nowMs: number): boolean {
    if (after === this.#resent.after && nowMs - this.#resent.atMs < Math.max(RESEND_MS_MIN, this.tripMs * 2))
      return false;
    this.#resent = { after, atMs: nowMs };
    return true;
  }

  /**
   * When what it was sent counts as lost, if it has not said that it has it by then. One that has much
   * to catch up with in many groups is slow: repeating all of it again and again would make it slower.
   */
  get repeatAtMs(): number {
    const waitMs = Math.max(REPEAT_MS_MIN, this.tripMs * 4) * 2 ** this.#repeats;
    return Math.max(this.askedMs, this.answeredMs) + Math.min(waitMs, REPEAT_MS_MAX);
  }
}
