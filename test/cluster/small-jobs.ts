/**
 * Load that never stops: writers that each submit a job of one page, read it back,
 * read an older one, and go on. They remember what was acknowledged, and every
 * call that failed.
 */
import type { Client } from "../../src/sdk/client.ts";

/** Bounds what a slow test makes. */
const JOBS_MAX = 400;

export class SmallJobs {
  readonly #seed: string;
  readonly #stopping = new AbortController();
  readonly #writers: Promise<void>[];
  readonly #acknowledged = new Map<string, string>();
  readonly #failed: string[] = [];
  #answers = 0;
  #longestMs = 0;

  /** @param clients one a writer. @param seed the page of each job. */
  constructor(clients: readonly Client[], seed: string) {
    this.#seed = seed;
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
    for (let n = 0; !this.#stopping.signal.aborted && this.#acknowledged.size < JOBS_MAX; n++) {
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
