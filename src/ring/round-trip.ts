/** Round-trip estimate after RFC 6298: smoothed mean and mean deviation, in milliseconds. */
const TIMEOUT_MS_MIN = 50;
const TIMEOUT_MS_MAX = 1000;
const BACKOFF_MAX = 16;
/** While nothing was measured. */
const TIMEOUT_MS_FIRST = 500;

export class RoundTrip {
  #meanMs = -1;
  #deviationMs = 0;
  #backoff = 1;

  measured(ms: number): void {
    this.#backoff = 1;
    if (this.#meanMs < 0) {
      this.#meanMs = ms;
      this.#deviationMs = ms / 2;
      return;
    }
    this.#deviationMs += (Math.abs(ms - this.#meanMs) - this.#deviationMs) / 4;
    this.#meanMs += (ms - this.#meanMs) / 8;
  }

  /**
   * No answer in time. Each doubles the time-out until one is measured again:
   * those that come too late measure nothing, and a network that has become slow
   * would never be noticed.
   */
  missed(): void {
    this.#backoff = Math.min(BACKOFF_MAX, this.#backoff * 2);
  }

  /** Whether it says anything yet. */
  get isKnown(): boolean {
    return this.#meanMs >= 0 || this.#backoff > 1;
  }

  get meanMs(): number | undefined {
    return this.#meanMs < 0 ? undefined : this.#meanMs;
  }

  /** When an answer counts as missing. */
  get timeoutMs(): number {
    const ms =
      this.#meanMs < 0
        ? TIMEOUT_MS_FIRST
        : Math.max(TIMEOUT_MS_MIN, this.#meanMs + 4 * this.#deviationMs) * this.#backoff;
    return Math.min(TIMEOUT_MS_MAX, ms);
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
