/**
 * Tells those who wait for it that something about a job has changed. Progress is
 * told a few times a second at most, a new status at once.
 */
import type { Clock } from "./clock.ts";

const NEWS_MS = 100;

export class JobNews {
  readonly #clock: Clock;
  readonly #readers = new Set<() => void>();
  #serial = 1;
  #timer: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Changes with each piece of news. */
  get serial(): number {
    return this.#serial;
  }

  publish(isUrgent: boolean): void {
    this.#serial++;
    const tell = () => {
      this.#timer = undefined;
      for (const reader of [...this.#readers]) reader();
    };
    if (isUrgent) {
      this.#timer?.();
      tell();
    } else {
      this.#timer ??= this.#clock.after(NEWS_MS, tell);
    }
  }

  /** Resolves when there is news, nobody to tell it any more, or `waitMs` have passed. */
  next(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.after(waitMs, () => done());
      const done = () => {
        cancel();
        this.#readers.delete(done);
        resolve();
      };
      this.#readers.add(done);
    });
  }

  end(): void {
    this.#timer?.();
    for (const reader of this.#readers) reader();
    this.#readers.clear();
  }
}
