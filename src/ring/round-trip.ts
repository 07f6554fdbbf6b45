/** Round-trip estimate after RFC 6298: smoothed mean and mean deviation, in milliseconds. */
const TIMEOUT_MS_MIN = 50;
const TIMEOUT_MS_MAX = 1000;
/** While nothing was measured. */
const TIMEOUT_MS_FIRST = 500;

export class RoundTrip {
  #meanMs = -1;
  #deviationMs = 0;

  measured(ms: number): void {
    if (this.#meanMs < 0) {
      this.#meanMs = ms;
      this.#deviationMs = ms / 2;
      return;
    }
    this.#deviationMs += (Math.abs(ms - this.#meanMs) - this.#deviationMs) / 4;
    this.#meanMs += (ms - this.#meanMs) / 8;
  }

  get meanMs(): number | undefined {
    return this.#meanMs < 0 ? undefined : this.#meanMs;
  }

  /** When an answer counts as missing. */
  get timeoutMs(): number {
    if (this.#meanMs < 0) return TIMEOUT_MS_FIRST;
    return Math.min(TIMEOUT_MS_MAX, Math.max(TIMEOUT_MS_MIN, this.#meanMs + 4 * this.#deviationMs));
  }

  /** The same for one that is waited for so many times as long; never more than a second. */
  timeoutMsOf(patience: number): number {
    return Math.min(TIMEOUT_MS_MAX, this.timeoutMs * patience);
  }

  /** When an answer is slow enough to ask somebody else as well. */
  get slowMs(): number {
    return this.timeoutMs / 2;
  }
}
