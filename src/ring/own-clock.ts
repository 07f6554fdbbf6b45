/**
 * The moments at which this node was called: whether it stood still itself, and
 * so could not have heard what it did not hear.
 */

/** What callers tick at, or faster, unless they were told that they may rest. */
const TICK_MS_MAX = 50;
/** A gap between two calls from which on the node itself stood still. */
const STOOD_STILL_MS = 400;
const LATE_MS = 100;

export interface Delay {
  /** What goes beyond the usual. Of a shorter delay only this is forgiven: a node that is always late must still suspect the dead. */
  readonly excessMs: number;
  readonly isStandstill: boolean;
}

export class OwnClock {
  #nowMs: number;
  /** Until when the caller was told that it may rest. */
  #restMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Nobody need call before `restMs`. */
  rest(restMs: number): number {
    this.#restMs = restMs;
    return restMs;
  }

  /** Notes the time of a call; undefined when it is about in time. */
  called(nowMs: number): Delay | undefined {
    // To have rested as long as it was told to does not make a caller late.
    const gapMs = nowMs - Math.max(this.#nowMs, this.#restMs - TICK_MS_MAX);
    this.#nowMs = nowMs;
    return gapMs <= LATE_MS ? undefined : { excessMs: gapMs - LATE_MS, isStandstill: gapMs > STOOD_STILL_MS };
  }
}
