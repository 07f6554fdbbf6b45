/** How many steps of growth and hand-overs this server begins, over all its partitions: so many a second. */
const STEPS_PER_SECOND = { learn: 400, handOver: 100 } as const;

export class StepRates {
  readonly #left = { learn: 0, handOver: 0 };
  #refilledMs = 0;

  /** Whether one may begin now, and counts it. */
  take(kind: "learn" | "handOver", nowMs: number): boolean {
    const seconds = Math.min(1, (nowMs - this.#refilledMs) / 1000);
    this.#refilledMs = nowMs;
    for (const name of ["learn", "handOver"] as const) {
      const rate = STEPS_PER_SECOND[name];
      this.#left[name] = Math.min(rate / 4, this.#left[name] + rate * seconds);
    }
    if (this.#left[kind] < 1) return false;
    this.#left[kind]--;
    return true;
  }
}
