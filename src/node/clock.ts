/** Time as the drivers use it: handed to them, so that a simulation can run them in its own. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): number;
  /** Milliseconds since the Unix epoch. */
  wall(): number;
  /** Calls back once, after `ms` or later; returns how to give that up. */
  after(ms: number, callBack: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after: (ms, callBack) => {
    const timer = setTimeout(callBack, Math.max(0, ms));
    return () => clearTimeout(timer);
  },
};

export function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(ms, resolve);
  });
}
