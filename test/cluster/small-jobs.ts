/**
 * Load that never stops: writers that each submit a job of one page, read it back,
 * read an older one, and go on. They remember what was acknowledged, and every
 * call that failed.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Client } from "../../src/sdk/client.ts";

/** Bounds what a slow test makes. */
const JOBS_MAX = 400;

export interface SmallJobsOptions {
  /** Of one writer, between a job and the next; 0 when left out. */
  readonly everyMs?: number;
  readonly jobsMax?: number;
}

export class SmallJobs {
  readonly #seed: string;
  readonly #everyMs: number;
  readonly #jobsMax: number;
  readonly #stopping = new AbortController();
  readonly #writers: Promise<void>[];
  readonly #acknowledged = new Map<string, string>();
  readonly #failed: string[] = [];
  #answers = 0;
  #longestMs = 0;

  /** @param clients one a writer. @param seed the page of each job. */
  constructor(clients: readonly Client[], seed: string, options: SmallJobsOptions = {}) {
    this.#seed = seed;
    this.#everyMs = options.everyMs ?? 0;
    this.#jobsMax = options.jobsMax ?? JOBS_MAX;
    this.#writers = clients.map((client, writer) => this.#write(client, writer));
  }

  /** Name by id of each job whose submission was acknowledged. */
  get acknowledged(): ReadonlyMap<string, string> {
    return this.#acknowledged;
  }

  /** Calls that failed, or answered something that was never written; in words. */
  get failed(): readonly string[] {
    return this.#failed;
  }

  /** Calls that were answered. */
  get answers(): number {
    return this.#answers;
  }

  /** Of the call that took longest. */
  get longestMs(): number {
    return this.#longestMs;
  }

  /** Resolves when the calls under way are answered. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#writers);
  }

  async #write(client: Client, writer: number): Promise<void> {
    const own: string[] = [];
    const { signal } = this.#stopping;
    for (let n = 0; !signal.aborted && this.#acknowledged.size < this.#jobsMax; n++) {
      if (n > 0 && this.#everyMs > 0) await pause(this.#everyMs, undefined, { signal }).catch(() => {});
      const name = `writer ${writer}, job ${n}`;
      const spec = {
        name,
        seeds: [this.#seed],
        scope: { maxDepth: 0 },
        politeness: { delayMs: 0, concurrencyPerHost: 4, robots: false },
      };
      const id = await this.#ask(`submit ${name}`, async () => (await client.jobs.submit(spec)).id);
      if (id === undefined) continue;
      this.#acknowledged.set(id, name);
      own.push(id);
      for (const jobId of new Set([id, own[Math.floor(own.length / 2)]!])) {
        const wanted = this.#acknowledged.get(jobId);
        const found = await this.#ask(`read ${wanted}`, async () => (await client.jobs.get(jobId)).name);
        if (found !== undefined && found !== wanted)
          this.#failed.push(`${jobId}: ${found} instead of ${wanted}`);
      }
    }
  }

  /** Undefined: it failed, and that was noted. */
  async #ask<T>(what: string, ask: () => Promise<T>): Promise<T | undefined> {
    const askedMs = performance.now();
    try {
      const answer = await ask();
      this.#answers++;
      return answer;
    } catch (error) {
      this.#failed.push(`${what}: ${error}`);
      return undefined;
    } finally {
      this.#longestMs = Math.max(this.#longestMs, performance.now() - askedMs);
    }
  }
}
