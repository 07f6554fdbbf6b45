/**
 * The due pages of one host in one job, best priority first, then first in first
 * out. Only the head is in memory; the rest lies in the store in the same order
 * and is read on when the head runs short.
 */
import type { Page, Size } from "./page.ts";

/** Pages of one queue in memory, at most. */
export const HEAD_LENGTH_MAX = 512;
/** How many are read at once. */
export const LOAD_LENGTH = 256;
const HEAD_LENGTH_LOW = 64;
/** Of each queue while memory is short, and how many are then read at once. */
const SHORT_HEAD_LENGTH = 8;
const SHORT_LOAD_LENGTH = 16;

export interface Place {
  readonly priority: number;
  readonly seq: number;
}

export interface QueuedPage {
  readonly page: Page;
  /** Monotonic; not to be handed out before. */
  readyAtMs: number;
}

function isBefore(a: Place, b: Place): boolean {
  return a.priority !== b.priority ? a.priority > b.priority : a.seq < b.seq;
}

export class HostQueue {
  readonly jobId: string;
  readonly size: Size;
  // In order. Every due page at or before #end is here, or under way.
  #head: QueuedPage[] = [];
  #end: Place | undefined;
  #more: boolean;
  #isLoading = false;
  #loadLength = LOAD_LENGTH;
  // The first place at which a page came while the store was being read: it may or may not be in what was read.
  #missedAt: Place | undefined;
  #shortenedWhileLoading = false;

  /** @param more the store holds due pages of it. */
  constructor(jobId: string, size: Size, more: boolean) {
    this.jobId = jobId;
    this.size = size;
    this.#more = more;
  }

  get length(): number {
    return this.#head.length;
  }

  /** Up to where pages have been read; the next load begins behind it. */
  get end(): Place | undefined {
    return this.#end;
  }

  get wantsLoad(): boolean {
    return this.#more && !this.#isLoading && this.#head.length < HEAD_LENGTH_LOW;
  }

  /** Enough in memory while that is short. */
  get isLongEnough(): boolean {
    return this.#head.length >= SHORT_HEAD_LENGTH;
  }

  /** How many pages the load that has begun is to read. */
  get loadLength(): number {
    return this.#loadLength;
  }

  /** A page became due. With `keep` false it may stay in the store alone, if the order allows. */
  push(page: Page, readyAtMs: number, keep = true): void {
    const isInside = this.#end !== undefined && isBefore(page, this.#end);
    if (!isInside && (this.#more || (!keep && this.isLongEnough))) {
      this.#more = true;
      const isFirst = this.#missedAt === undefined || isBefore(page, this.#missedAt);
      if (this.#isLoading && isFirst) this.#missedAt = { priority: page.priority, seq: page.seq };
      return;
    }
    this.#insert({ page, readyAtMs });
    if (!isInside) this.#end = { priority: page.priority, seq: page.seq };
    if (this.#head.length > HEAD_LENGTH_MAX) this.#shorten();
  }

  /** The first page that may go at `nowMs`, if any; it stays. */
  peek(nowMs: number): QueuedPage | undefined {
    return this.#head.find((queued) => queued.readyAtMs <= nowMs);
  }

  /** Whether or not it may go yet. */
  get first(): QueuedPage | undefined {
    return this.#head[0];
  }

  /** When the first of the pages in memory may go; undefined when there is none. */
  get readyAtMs(): number | undefined {
    let first: number | undefined;
    for (const { readyAtMs } of this.#head) {
      if (first === undefined || readyAtMs < first) first = readyAtMs;
    }
    return first;
  }

  remove(queued: QueuedPage): void {
    const at = this.#head.indexOf(queued);
    if (at === 0) this.#head.shift();
    else if (at > 0) this.#head.splice(at, 1);
  }

  /** The page, if it is in memory. */
  find(key: string): Page | undefined {
    return this.#head.find((queued) => queued.page.key === key)?.page;
  }

  loading(hasMemory = true): void {
    this.#loadLength = hasMemory ? LOAD_LENGTH : SHORT_LOAD_LENGTH;
    this.#isLoading = true;
    this.#missedAt = undefined;
    this.#shortenedWhileLoading = false;
  }

  /** What the store holds behind `end`, in order; `more`: there is more behind that. */
  loaded(pages: readonly QueuedPage[], more: boolean): void {
    this.#isLoading = false;
    // What was read begins behind an end that is not ours any more: there would be a gap.
    if (this.#shortenedWhileLoading) return;
    this.#more = more;
    for (const queued of pages) {
      if (this.#missedAt !== undefined && !isBefore(queued.page, this.#missedAt)) {
        // Read on from here next time, lest the end passes a page that is not in memory.
        this.#more = true;
        return;
      }
      if (this.#end !== undefined && !isBefore(this.#end, queued.page)) continue;
      this.#head.push(queued);
      this.#end = { priority: queued.page.priority, seq: queued.page.seq };
    }
    if (this.#missedAt !== undefined) this.#more = true;
  }

  #insert(queued: QueuedPage): void {
    let [low, high] = [0, this.#head.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(queued.page, this.#head[middle]!.page)) high = middle;
      else low = middle + 1;
    }
    if (low === this.#head.length) this.#head.push(queued);
    else this.#head.splice(low, 0, queued);
  }

  #shorten(): void {
    this.#head.length = HEAD_LENGTH_MAX / 2;
    const last = this.#head.at(-1)!.page;
    this.#end = { priority: last.priority, seq: last.seq };
    this.#more = true;
    if (this.#isLoading) this.#shortenedWhileLoading = true;
  }
}
