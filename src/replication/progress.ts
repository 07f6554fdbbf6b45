/** What a leader knows of one other replica, and what it has sent to it. */
import type { ReplicaId } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Body } from "./message.ts";

export class Progress {
  readonly replicaId: ReplicaId;
  isLearner: boolean;
  /** Durable there up to this batch; -1: not identical to the base state, as far as is known. */
  match = -1;
  /** Last batch sent. */
  sent = 0;
  /** Rounds of confirmation up to this one were answered. */
  confirmedRound = 0;
  /** When it last answered anything of this ballot. */
  answeredMs: number;
  /** When the oldest unanswered message left. */
  askedMs: number;
  /** Trips of append and its answer, smoothed. */
  tripMs = 20;
  /** Passes of becoming identical since it was last level. */
  offers = 0;

  constructor(replicaId: ReplicaId, isLearner: boolean, nowMs: number) {
    this.replicaId = replicaId;
    this.isLearner = isLearner;
    this.answeredMs = nowMs;
    this.askedMs = nowMs;
  }

  get isLevel(): boolean {
    return this.match >= 0;
  }

  answered(nowMs: number): void {
    this.tripMs += (Math.min(nowMs - this.askedMs, 1000) - this.tripMs) / 8;
    this.answeredMs = nowMs;
  }

  send(effects: ReplicaEffect[], body: Body): void {
    effects.push({ kind: "send", to: this.replicaId, body });
  }

  /** After how long a message counts as lost. */
  get resendAfterMs(): number {
    return Math.max(100, this.tripMs * 4);
  }
}
