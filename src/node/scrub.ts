/**
 * Reads everything that this server keeps, once in a long while, so that damage is
 * found while there are other copies: tables against their checksums, entries
 * against the root on record, replicas against one another, blobs against their
 * hashes. What is found is set aside and comes back from the others.
 *
 * It takes a quarter of the time of whatever it reads with, and leaves the rest.
 */
import { setTimeout as pause } from "node:timers/promises";
import { z } from "zod";
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { LevelStore } from "../store/level-store.ts";
import type { ReplicatedBlobs } from "./blobs.ts";
import type { ReplicaDriver } from "./replica-driver.ts";

/** Timers reach no farther than 24 days, and clocks are put right meanwhile. */
const LOOK_MS_MAX = 3_600_000;
/** Of the interval: servers that began together don't scrub together for ever. */
const JITTER_RATIO = 0.1;
/** Of blobs and tables. */
const BYTES_PER_MS = (16 * 1024 * 1024) / 1000;
/** Pauses after work, as a multiple of how long that took. */
const REST_RATIO = 3;

const keptSchema = z.object({ finishedAtMs: z.number(), damaged: z.int() });

export interface ScrubCounts {
  /** Of LevelDB. */
  tables: number;
  /** Partitions of which the copy here was damaged, or differs from the others'. */
  replicas: number;
  blobs: number;
}

type ScrubbedReplicas = Pick<ReplicaDriver, "distrust" | "recheck" | "compare" | "status" | "on" | "off">;

export class Scrub {
  readonly #store: Pick<LevelStore, "scrub" | "failure">;
  readonly #replicas: ScrubbedReplicas;
  readonly #blobs: Pick<ReplicatedBlobs, "repair">;
  readonly #directory: DataDirectory;
  readonly #intervalMs: number;
  readonly #log: Log;
  readonly #stopping = new AbortController();
  #last: z.output<typeof keptSchema> | undefined;
  #running: Promise<void> = Promise.resolve();
  /** Damaged tables of which everything was brought back: LevelDB keeps them until it merges them. */
  readonly #dealtWith = new Set<string>();

  constructor(options: {
    readonly store: Pick<LevelStore, "scrub" | "failure">;
    readonly replicas: ScrubbedReplicas;
    readonly blobs: Pick<ReplicatedBlobs, "repair">;
    readonly directory: DataDirectory;
    readonly intervalMs: number;
    readonly log: Log;
  }) {
    this.#store = options.store;
    this.#replicas = options.replicas;
    this.#blobs = options.blobs;
    this.#directory = options.directory;
    this.#intervalMs = options.intervalMs;
    this.#log = options.log;
  }

  /** When everything here was read last, ISO 8601; null: never. */
  get finishedAt(): string | null {
    return this.#last === undefined || this.#last.damaged < 0
      ? null
      : new Date(this.#last.finishedAtMs).toISOString();
  }

  /** Runs from now on, when the time for it has come. @param random in [0, 1). */
  start(random: () => number): void {
    this.#running = this.#loop(random).catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#log.error("no scrub any more", { error });
    });
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  /** All of it, once. */
  async run(): Promise<ScrubCounts> {
    const counts = { tables: 0, replicas: 0, blobs: 0 };
    const { signal } = this.#stopping;
    const paced = async (bytes: number) => {
      await pause(bytes / BYTES_PER_MS, undefined, { signal });
    };
    const onDamaged = () => void counts.replicas++;
    this.#replicas.on("damaged", onDamaged);
    try {
      counts.tables = await this.#scrubTables(paced);
      for (const partition of this.#held()) {
        signal.throwIfAborted();
        const startedMs = performance.now();
        await this.#replicas.recheck(partition);
        await pause((performance.now() - startedMs) * REST_RATIO, undefined, { signal });
        // Led here: whoever of the group has another state at the same batch is wrong.
        const compared = await this.#replicas.compare(partition);
        if (compared !== undefined && compared.different.length > 0) {
          this.#log.error("replicas of a partition differ", { partition, different: compared.different });
        }
      }
    } finally {
      this.#replicas.off("damaged", onDamaged);
    }
    counts.blobs = (await this.#blobs.repair(signal, paced)).damaged;
    return counts;
  }

  /** How many are damaged. Whatever may have an entry in them is not trusted any more. */
  async #scrubTables(paced: (bytes: number) => Promise<unknown>): Promise<number> {
    const found = await this.#store.scrub(this.#directory.quarantinePath, paced);
    const damaged = found.filter(({ file }) => !this.#dealtWith.has(file));
    for (const { file, partitions } of damaged) {
      this.#log.error("a table of the store is damaged", { file, partitions });
      const error = new DamagedError(`${file} is damaged: its checksums don't match what it holds`);
      for (const partition of this.#held()) {
        if (partition >= partitions.from && partition <= partitions.to) {
          this.#replicas.distrust(partition, error);
        }
      }
    }
    const files = new Set(damaged.map(({ file }) => file));
    for (const file of files) this.#dealtWith.add(file);
    return files.size;
  }

  #held(): number[] {
    return this.#replicas
      .status()
      .filter(({ members }) => members.length > 0)
      .map(({ partition }) => partition);
  }

  async #loop(random: () => number): Promise<void> {
    const { signal } = this.#stopping;
    this.#last = await this.#readLast();
    for (;;) {
      const intervalMs = this.#intervalMs * (1 - JITTER_RATIO * random());
      for (;;) {
        const leftMs = this.#last.finishedAtMs + intervalMs - Date.now();
        if (leftMs <= 0) break;
        await pause(Math.min(leftMs, LOOK_MS_MAX), undefined, { signal, ref: false });
      }
      const startedMs = performance.now();
      try {
        const counts = await this.run();
        const seconds = Math.round((performance.now() - startedMs) / 1000);
        this.#log.info("scrub finished", { ...counts, seconds });
        await this.#keep({
          finishedAtMs: Date.now(),
          damaged: counts.tables + counts.replicas + counts.blobs,
        });
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn("scrub not finished", { error });
        // As if it were done: what stands in its way is told elsewhere, and it comes again.
        this.#last = { finishedAtMs: Date.now(), damaged: this.#last.damaged };
      }
    }
  }

  /** A server that never did begins to count with its first start; one whose record is damaged begins anew. */
  async #readLast(): Promise<z.output<typeof keptSchema>> {
    const first = { finishedAtMs: Date.now(), damaged: -1 };
    try {
      const kept = await this.#directory.read("scrub.json");
      if (kept !== undefined) return keptSchema.parse(JSON.parse(kept.toString("utf8")));
    } catch (error) {
      this.#log.warn("when everything was read last is not known", { error });
    }
    // A full disk is no reason never to scrub: then it counts from the next start.
    await this.#keep(first).catch((error: unknown) => this.#log.warn("scrub.json not written", { error }));
    return first;
  }

  async #keep(last: z.output<typeof keptSchema>): Promise<void> {
    this.#last = last;
    await this.#directory.write("scrub.json", `${JSON.stringify(last)}\n`);
  }
}
