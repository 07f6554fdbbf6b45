/** Time that passes only when everything that can happen at a moment has happened. */
import type { Clock } from "../../src/node/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  callBack: (() => void) | undefined;
}

export class VirtualTime {
  nowMs = 0;
  #order = 0;
  // A binary heap by time, then by order of arrival.
  readonly #heap: Timer[] = [];

  at(atMs: number, callBack: () => void): () => void {
    const timer: Timer = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, callBack };
    this.#push(timer);
    return () => {
      timer.callBack = undefined;
    };
  }

  /** Runs until `isDone` or until `untilMs`; false when time ran out. */
  async run(isDone: () => boolean, untilMs: number): Promise<boolean> {
    while (true) {
      await settle();
      if (isDone()) return true;
      const timer = this.#pop();
      if (timer === undefined || timer.atMs > untilMs) {
        if (timer !== undefined) this.#push(timer);
        this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.nowMs = timer.atMs;
      timer.callBack?.();
    }
  }

  /** A clock that started `offsetMs` before this time did, and stops for good when `isDead`. */
  clock(offsetMs: number, wallOffsetMs: number, isDead: () => boolean): Clock {
    return {
      now: () => this.nowMs + offsetMs,
      wall: () => 1_700_000_000_000 + wallOffsetMs + this.nowMs,
      after: (ms, callBack) =>
        this.at(this.nowMs + Math.max(0, ms), () => {
          if (!isDead()) callBack();
        }),
    };
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    heap.push(timer);
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(heap[at]!, heap[parent]!)) break;
      [heap[at], heap[parent]] = [heap[parent]!, heap[at]!];
      at = parent;
    }
  }

  #pop(): Timer | undefined {
    const heap = this.#heap;
    while (heap.length > 0) {
      const first = heap[0]!;
      const last = heap.pop()!;
      if (heap.length > 0) {
        heap[0] = last;
        let at = 0;
        while (true) {
          let next = at;
          for (const child of [2 * at + 1, 2 * at + 2]) {
            if (child < heap.length && isBefore(heap[child]!, heap[next]!)) next = child;
          }
          if (next === at) break;
          [heap[at], heap[next]] = [heap[next]!, heap[at]!];
          at = next;
        }
      }
      if (first.callBack !== undefined) return first;
    }
    return undefined;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.atMs !== b.atMs ? a.atMs < b.atMs : a.order < b.order;
}

/** All promises that can resolve without time passing have. */
function settle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** mulberry32: small, seeded, good enough to shuffle faults. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
