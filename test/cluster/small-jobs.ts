/**
 * Load that never stops: writers that each submit a job of one page, read it back,
 * read an older one, and go on. They remember what was acknowledged, and every
 * call that failed.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Client } from "../../src/sdk/client.ts";
import { Load } from "./load.ts";

/** Bounds what a slow test makes. */
const JOBS_MAX = 400;

export interface SmallJobsOptions {
  /** Of one writer, between a job and the next; 0 when left out. */
  readonly everyMs?: number;
  readonly jobsMax?: number;
}

export class SmallJobs extends Load {
  readonly #seed: string;
  readonly #everyMs: number;
  readonly #jobsMax: number;
  readonly #acknowledged = new Map<string, string>();

  /** @param clients one a writer. @param seed the page of each job. */
  constructor(clients: readonly Client[], seed: string, options: SmallJobsOptions = {}) {
    super();
    this.#seed = seed;
    this.#everyMs = options.everyMs ?? 0;
    this.#jobsMax = options.jobsMax ?? JOBS_MAX;
    this.begin(clients.map((client, writer) => this.#write(client, writer)));
  }

  /** Name by id of each job whose submission was acknowledged. */
  get acknowledged(): ReadonlyMap<string, string> {
    return this.#acknowledged;
  }

  async #write(client: Client, writer: number): Promise<void> {
    const own: string[] = [];
    const signal = this.stopping;
    for (let n = 0; !signal.aborted && this.#acknowledged.size < this.#jobsMax; n++) {
      if (n > 0 && this.#everyMs > 0) await pause(this.#everyMs, undefined, { signal }).catch(() => {});
      const name = `writer ${writer}, job ${n}`;
      const spec = {
        name,
        seeds: [this.#seed],
        scope: { maxDepth: 0 },
        politeness: { delayMs: 0, concurrencyPerHost: 4, robots: false },
      };
      const id = await this.ask(`submit ${name}`, async () => (await client.jobs.submit(spec)).id);
      if (id === undefined) continue;
      this.#acknowledged.set(id, name);
      own.push(id);
      for (const jobId of new Set([id, own[Math.floor(own.length / 2)]!])) {
        const wanted = this.#acknowledged.get(jobId);
        const found = await this.ask(`read ${wanted}`, async () => (await client.jobs.get(jobId)).name);
        if (found !== undefined && found !== wanted)
          this.noteFailure(`${jobId}: ${found} instead of ${wanted}`);
      }
    }
  }
}
