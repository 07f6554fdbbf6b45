/**
 * What this replica has answered to canvasses. Whoever asks first has its yes to
 * itself for a moment, or several would stand at once and hinder each other; who was
 * told no is told when it has become yes.
 *
 * Of use, never needed: a canvass changes nothing, and ballots decide.
 */
import type { ReplicaId } from "./ballot.ts";
import type { Ballot } from "./register.ts";

/** How long a candidate may wait for a no to become yes. */
const CANVASS_MS = 500;

interface Canvass {
  readonly from: ReplicaId;
  readonly ballot: Ballot;
  readonly untilMs: number;
}

export class CanvassBook {
  /** The last one that was told no. */
  #refused: Canvass | undefined;
  /** The last one that was told yes. */
  #favoured: Canvass | undefined;

  /** Whether `from` may be told yes, as far as the others are concerned that asked before. */
  isOpenTo(from: ReplicaId, nowMs: number): boolean {
    const favoured = this.#favoured;
    return favoured === undefined || favoured.from === from || nowMs > favoured.untilMs;
  }

  /** Nobody else is told yes until then. */
  favour(from: ReplicaId, ballot: Ballot, untilMs: number): void {
    this.#favoured = { from, ballot, untilMs };
  }

  refuse(from: ReplicaId, ballot: Ballot, nowMs: number): void {
    this.#refused = { from, ballot, untilMs: nowMs + CANVASS_MS };
  }

  /** It has given up. */
  release(from: ReplicaId): void {
    if (this.#favoured?.from === from) this.#favoured = undefined;
  }

  /** The last one that was told no and still waits, if it may be told yes by now: it is told once. */
  takeRefused(
    isYes: (from: ReplicaId, ballot: Ballot) => boolean,
    nowMs: number,
  ): { from: ReplicaId; ballot: Ballot } | undefined {
    const refused = this.#refused;
    if (refused === undefined) return undefined;
    if (nowMs > refused.untilMs) {
      this.#refused = undefined;
      return undefined;
    }
    if (!isYes(refused.from, refused.ballot)) return undefined;
    this.#refused = undefined;
    return refused;
  }
}
