/**
 * When to look after the copies of blobs: once the ring has changed and then come
 * to rest. A change meanwhile ends the round under way and begins the rest anew.
 */
import type { Log } from "../log.ts";

const REST_MS = 5_000;

export class BlobRepair {
  readonly #repair: (signal: AbortSignal) => Promise<{ given: number; dropped: number; damaged: number }>;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #round = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(options: {
    /** Goes through all local copies once. */
    readonly repair: (signal: AbortSignal) => Promise<{ given: number; dropped: number; damaged: number }>;
    readonly log: Log;
  }) {
    this.#repair = options.repair;
    this.#log = options.log;
  }

  ringChanged(): void {
    if (this.#isStopped) return;
    this.#round.abort();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#running = this.#running.then(() => this.#run());
    }, REST_MS);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#round.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    if (this.#isStopped) return;
    this.#round = new AbortController();
    try {
      const { given, dropped, damaged } = await this.#repair(this.#round.signal);
      if (given + dropped + damaged > 0) this.#log.info("blobs repaired", { given, dropped, damaged });
    } catch (error) {
      this.#log.warn("blobs not repaired", { error });
    }
  }
}
