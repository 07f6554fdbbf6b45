/**
 * When to look after the copies of blobs: once ring or groups have changed and then
 * come to rest, or a member has lost a copy. A change meanwhile ends the round under
 * way and begins the rest anew.
 */
import type { Log } from "../log.ts";
import type { RepairCounts } from "./blobs.ts";

const REST_MS = 5_000;
/** What could not be looked after is looked after again. */
const AGAIN_MS = 60_000;

export class BlobRepair {
  readonly #repair: (signal: AbortSignal) => Promise<RepairCounts>;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #dueMs = 0;
  #round = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(options: {
    /** Goes through all local copies once. */
    readonly repair: (signal: AbortSignal) => Promise<RepairCounts>;
    readonly log: Log;
  }) {
    this.#repair = options.repair;
    this.#log = options.log;
  }

  /** Where copies belong is another than before: what is under way began with the old. */
  ringChanged(): void {
    this.#round.abort();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.soon();
  }

  /** After the rest; several wishes until then are one. */
  soon(): void {
    this.#after(REST_MS);
  }

  #after(ms: number): void {
    const dueMs = performance.now() + ms;
    if (this.#isStopped || (this.#timer !== undefined && this.#dueMs <= dueMs)) return;
    clearTimeout(this.#timer);
    this.#dueMs = dueMs;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#running = this.#running.then(() => this.#run());
    }, ms);
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
      const counts = await this.#repair(this.#round.signal);
      const { given, dropped, damaged, failed } = counts;
      if (given + dropped + damaged + failed > 0) this.#log.info("blobs repaired", counts);
      if (failed > 0) this.#after(AGAIN_MS);
    } catch (error) {
      this.#log.warn("blobs not repaired", { error });
      this.#after(AGAIN_MS);
    }
  }
}
