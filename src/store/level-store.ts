/**
 * The embedded default: a partition store on LevelDB, in one directory that one
 * process holds. After a failed write nothing is known about what reached the
 * disk, so it takes no more until it is opened again: then LevelDB writes what its
 * log holds into new files and trusts none of the old ones' unfinished ends.
 */
import { link, mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { ClassicLevel } from "classic-level";
import { Keyv } from "keyv";
import { DamagedError, UnavailableError, UsageError } from "../errors.ts";
import { isSystemError, makeDirectory } from "./durable-file.ts";
import type { StoreCipher } from "./encryption.ts";
import { KeyvStore } from "./keyv-store.ts";
import { binaryKeys, type Level, LevelAdapter } from "./level-adapter.ts";
import { checkLevelLogs } from "./level-log.ts";
import { damagedRanges } from "./level-table.ts";
import type { Store, StoreBatch, StoredEntry, StoreKey, StoreSnapshot } from "./store.ts";

export class LevelStore implements Store {
  readonly directory: string;
  readonly #cipher: StoreCipher;
  #level: Level;
  #store: KeyvStore;
  #failure: UnavailableError | undefined;
  #isClosed = false;

  private constructor(directory: string, cipher: StoreCipher, opened: Opened) {
    this.directory = directory;
    this.#cipher = cipher;
    this.#level = opened.level;
    this.#store = opened.store;
  }

  /**
   * Made when it is not there yet.
   *
   * @throws {UsageError} the directory is in use or can't be used.
   * @throws {DamagedError} names the file that can't be read.
   */
  static async open(directory: string, cipher: StoreCipher): Promise<LevelStore> {
    await makeDirectory(directory).catch((error) => {
      throw openError(directory, error);
    });
    return new LevelStore(directory, cipher, await openStore(directory, cipher));
  }

  /** Why nothing can be written; undefined while all is well. */
  get failure(): UnavailableError | undefined {
    return this.#failure ?? this.#store.failure;
  }

  /** Whether what failed was no refusal of the disk, but LevelDB's own files. */
  get isDamaged(): boolean {
    const cause = this.failure?.cause;
    return cause instanceof Error && "code" in cause && cause.code === "LEVEL_CORRUPTION";
  }

  /**
   * After a failure; snapshots of before are void.
   *
   * @throws {UsageError} it still can't be written. @throws {DamagedError} it can't be read.
   */
  async reopen(): Promise<void> {
    if (this.#isClosed) throw new UnavailableError(`${this.directory} is closed`);
    await this.shut();
    const { level, store } = await openStore(this.directory, this.#cipher);
    this.#level = level;
    this.#store = store;
    this.#failure = undefined;
  }

  write(batch: StoreBatch): Promise<void> {
    try {
      return this.#store.write(batch);
    } catch (error) {
      if (error instanceof UnavailableError) this.#failure ??= error;
      return Promise.reject(error);
    }
  }

  get(partition: number, generation: number, key: StoreKey): StoredEntry | undefined {
    return this.#store.get(partition, generation, key);
  }

  meta(partition: number): Uint8Array | undefined {
    return this.#store.meta(partition);
  }

  partitions(): number[] {
    return this.#store.partitions();
  }

  claim(partition: number): Uint8Array | undefined {
    return this.#store.claim(partition);
  }

  mark(): string | undefined {
    return this.#store.mark();
  }

  writeMark(mark: string): Promise<void> {
    return this.#store.writeMark(mark);
  }

  snapshot(): StoreSnapshot {
    return this.#store.snapshot();
  }

  dropGeneration(partition: number, generation: number): Promise<void> {
    return this.#store.dropGeneration(partition, generation);
  }

  dropPartition(partition: number): Promise<void> {
    return this.#store.dropPartition(partition);
  }

  /**
   * Reads all tables, and keeps those that are damaged for inspection too.
   *
   * @param quarantine a folder on the same file system; made when there is need for it.
   * @param paced as of `damagedRanges`.
   * @returns the damaged files, each with the partitions of which it may hold entries.
   */
  async scrub(
    quarantine: string,
    paced: (bytes: number) => Promise<unknown>,
  ): Promise<
    { readonly file: string; readonly partitions: { readonly from: number; readonly to: number } }[]
  > {
    const damaged = [];
    for (const file of tablesOf(this.#level)) {
      const ranges = await damagedRanges(file, undefined, paced);
      if (ranges.length === 0) continue;
      await keepCopy(file, quarantine);
      for (const range of ranges) damaged.push({ file, partitions: KeyvStore.partitionsOf(range) });
    }
    return damaged;
  }

  /** Closed for now: `reopen` opens it again. */
  async shut(): Promise<void> {
    this.#failure ??= this.#store.failure ?? new UnavailableError(`${this.directory} is closed`);
    await this.#store.close();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#store.close();
  }
}

interface Opened {
  readonly level: Level;
  readonly store: KeyvStore;
}

async function openStore(directory: string, cipher: StoreCipher): Promise<Opened> {
  await checkLevelLogs(directory);
  const level = new ClassicLevel<string, Buffer>(directory, {
    keyEncoding: binaryKeys,
    valueEncoding: "buffer",
    // Sealed records don't get any smaller.
    compression: false,
  });
  try {
    await level.open();
  } catch (error) {
    throw openError(directory, error);
  }
  try {
    // What says which partitions there are must be whole: one that is absent would count as one never held.
    for (const file of tablesOf(level)) {
      if ((await damagedRanges(file, KeyvStore.recordsEnd)).length > 0) {
        throw new DamagedError(`${file} is damaged: its checksums don't match what it holds`);
      }
    }
    return {
      level,
      store: await KeyvStore.open(directory, new Keyv<string>({ store: new LevelAdapter(level) }), cipher),
    };
  } catch (error) {
    await level.close();
    throw error;
  }
}

/** Those in use: others are being written, or about to be deleted. */
function tablesOf(level: Level): string[] {
  const numbers = level.getProperty("leveldb.sstables").matchAll(/^ (\d+):\d+\[/gm);
  return [...numbers].map(([, number]) => join(level.location, `${number!.padStart(6, "0")}.ldb`));
}

/** A second name for the file: LevelDB may delete its own. */
async function keepCopy(file: string, quarantine: string): Promise<void> {
  await mkdir(quarantine, { recursive: true, mode: 0o700 });
  await link(file, join(quarantine, basename(file))).catch((error: unknown) => {
    // Kept before, or merged meanwhile.
    if (!isSystemError(error, "EEXIST", "ENOENT")) throw error;
  });
}

function openError(directory: string, error: unknown): Error {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "LEVEL_LOCKED") {
    return new UsageError(`${directory} is in use by another process; stop that one first`, { cause });
  }
  const message = cause instanceof Error ? cause.message : String(cause);
  if (code === "LEVEL_CORRUPTION") return new DamagedError(`${directory} is damaged: ${message}`, { cause });
  return new UsageError(`${directory} can't be opened (${message}); check permissions and free space`, {
    cause,
  });
}
