/**
 * One queue in front of one disk: everything that waits while a write is under
 * way goes into the next one and shares its fsync. An idle queue writes at once;
 * one that is crowded by then waits a moment more, for a write costs the same
 * whatever it holds, and who waits in a crowd waits for the processor.
 *
 * After a failed write nothing is known about what reached the disk (the kernel
 * may drop the dirty pages and report success the next time), so the queue
 * refuses everything from then on.
 */
import { setTimeout as pause } from "node:timers/promises";
import { UnavailableError } from "../errors.ts";

/** A group ends with the commit that reaches this. */
const GROUP_BYTES_MAX = 8 * 1024 * 1024;
/** Commits that came while a write was under way. */
const CROWD = 6;
const CROWD_MS = 4;

interface Waiting<C> {
  readonly changes: readonly C[];
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class GroupCommit<C> {
  readonly #write: (changes: readonly C[]) => Promise<void>;
  readonly #name: string;
  #waiting: Waiting<C>[] = [];
  #writing: Promise<void> | undefined;
  #failure: UnavailableError | undefined;

  /** @param name where the data is, for messages. @param write all or nothing, durable when it resolves. */
  constructor(name: string, write: (changes: readonly C[]) => Promise<void>) {
    this.#name = name;
    this.#write = write;
  }

  /** Undefined while commits are taken. */
  get failure(): UnavailableError | undefined {
    return this.#failure;
  }

  /** @param bytes size of the changes, roughly: bounds a group. */
  commit(changes: readonly C[], bytes: number): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ changes, bytes, resolve, reject });
      this.#writing ??= this.#drain();
    });
  }

  /** Resolves when nothing is under way or waiting; never rejects. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  /** Nothing is taken any more. */
  close(): void {
    this.#failure ??= new UnavailableError(`${this.#name} is closed`);
  }

  async #drain(): Promise<void> {
    // What is handed over in the same turn shares the first write already.
    await null;
    while (this.#waiting.length > 0) {
      const group = this.#take();
      try {
        await this.#write(group.length === 1 ? group[0]!.changes : group.flatMap((one) => one.changes));
      } catch (cause) {
        this.#failure = new UnavailableError(
          `${this.#name} can't be written any more (${reason(cause)}); check the disk, then start the server again`,
          { cause },
        );
        for (const one of [...group, ...this.#waiting]) one.reject(this.#failure);
        this.#waiting = [];
        break;
      }
      for (const one of group) one.resolve();
      if (this.#waiting.length >= CROWD) await pause(CROWD_MS);
    }
    this.#writing = undefined;
  }

  #take(): Waiting<C>[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#waiting.length && bytes < GROUP_BYTES_MAX) bytes += this.#waiting[count++]!.bytes;
    return this.#waiting.splice(0, count);
  }
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
