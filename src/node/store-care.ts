/**
 * Brings the store back after the disk has refused a write. Until then this
 * server keeps and answers nothing, and health says why. What failed is never
 * tried again on the same open files: the store is opened anew, once the disk
 * takes a durable write and has room for what LevelDB rewrites then.
 */
import { randomBytes } from "node:crypto";
import { rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import { writeDurably } from "../store/durable-file.ts";
import type { LevelStore } from "../store/level-store.ts";
import { requireOwn, setStoreAside } from "../store/server-store.ts";
import type { ReplicaDriver } from "./replica-driver.ts";

const LOOK_MS_MIN = 1_000;
const LOOK_MS_MAX = 10_000;
/** LevelDB writes what is in its log into tables when it opens; the log holds up to 4 MiB. */
const FREE_BYTES_MIN = 12 * 1024 * 1024;
const PROBE_BYTES = 64 * 1024;

interface CaredReplicas extends Pick<ReplicaDriver, "resume" | "storeFailure"> {
  on(event: "storeFailed", listener: () => void): unknown;
}

export class StoreCare {
  readonly #directory: DataDirectory;
  readonly #store: LevelStore;
  readonly #replicas: CaredReplicas;
  readonly #mayLose: () => boolean;
  readonly #log: Log;
  readonly #stopping = new AbortController();
  #caring: Promise<void> | undefined;
  /** What the last look found. */
  #obstacle: string | undefined;

  /** @param options.mayLose whether others can bring back what the store held. */
  constructor(options: {
    readonly directory: DataDirectory;
    readonly store: LevelStore;
    readonly replicas: CaredReplicas;
    readonly mayLose: () => boolean;
    readonly log: Log;
  }) {
    this.#directory = options.directory;
    this.#store = options.store;
    this.#replicas = options.replicas;
    this.#mayLose = options.mayLose;
    this.#log = options.log;
    this.#replicas.on("storeFailed", () => {
      this.#caring ??= this.#care().finally(() => {
        this.#caring = undefined;
      });
    });
  }

  /** Why this server keeps nothing now, for people; undefined while all is well. */
  get problem(): string | undefined {
    const failure = this.#replicas.storeFailure;
    if (failure === undefined) return undefined;
    const more = this.#obstacle === undefined ? "" : ` (now: ${this.#obstacle})`;
    return `the disk refuses writes: ${failure}${more}; it goes on by itself once there is room and writes work`;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#caring;
  }

  async #care(): Promise<void> {
    const { signal } = this.#stopping;
    for (let lookMs = LOOK_MS_MIN; !signal.aborted; lookMs = Math.min(lookMs * 1.5, LOOK_MS_MAX)) {
      await pause(lookMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        await this.#probe();
        const firstSerial = await this.#reopen();
        if (signal.aborted) return;
        await this.#replicas.resume(firstSerial);
        this.#obstacle = undefined;
        this.#log.info("the store takes writes again", {});
        return;
      } catch (error) {
        const obstacle = error instanceof Error ? error.message : String(error);
        if (obstacle !== this.#obstacle) this.#log.warn("the store is not back yet", { error });
        this.#obstacle = obstacle;
      }
    }
  }

  /** @throws the disk is too full, or refuses. */
  async #probe(): Promise<void> {
    const { temporaryPath, path } = this.#directory;
    const { bavail, bsize } = await statfs(path);
    const free = bavail * bsize;
    if (free < FREE_BYTES_MIN) {
      throw new Error(`${Math.floor(free / 1024)} KiB are free, ${FREE_BYTES_MIN / 1024} KiB are needed`);
    }
    const probe = join(temporaryPath, "probe");
    await writeDurably(probe, randomBytes(PROBE_BYTES), temporaryPath);
    await rm(probe);
  }

  /** Returns the first serial from now on, when the store had to be given up. */
  async #reopen(): Promise<number | undefined> {
    if (!this.#store.isDamaged) {
      try {
        await this.#store.reopen();
        // An empty one, when the disk refused just after the store before had been set aside.
        requireOwn(this.#store, this.#directory.identity?.store);
        return undefined;
      } catch (error) {
        if (!(error instanceof DamagedError)) throw error;
        this.#log.error("the store is damaged", { error });
      }
    }
    if (!this.#mayLose()) {
      throw new DamagedError(
        `${this.#store.directory} is damaged and no other server holds the same: restore the data directory from a copy`,
      );
    }
    await this.#store.shut();
    const { mark, firstSerial } = await setStoreAside(this.#directory);
    await this.#store.reopen();
    await this.#store.writeMark(mark);
    this.#log.warn("the store was set aside and is fetched again", {
      quarantine: this.#directory.quarantinePath,
    });
    return firstSerial;
  }
}
