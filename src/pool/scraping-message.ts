/**
 * What a server and its scraping process tell each other, in batches: several of these
 * in one message of the process channel, since each has its price.
 */
import type { Report, Task } from "./task.ts";

export interface ToScrapingBatch {
  /** By `machineNowMs`: the server's main thread was alive then, whenever this is read. */
  readonly sentAtMs: number;
  readonly messages: readonly ToScraping[];
}

export type ToScraping =
  | {
      readonly kind: "run";
      /** Unique within the life of one scraping process; positive, below 2^31. */
      readonly id: number;
      readonly task: Task;
      /** By `machineNowMs`: the request must not leave later. */
      readonly startBefore: number;
    }
  | { readonly kind: "cancel"; readonly id: number }
  /** Nothing else; the batch's time is the message. */
  | { readonly kind: "alive" };

export type FromScraping =
  | { readonly kind: "ready" }
  /** The request left at `atMs` by `machineNowMs`. Always before the same task's end. */
  | { readonly kind: "started"; readonly id: number; readonly atMs: number }
  | { readonly kind: "ended"; readonly id: number; readonly end: ScrapingEnd };

export type ScrapingEnd =
  | { readonly kind: "report"; readonly report: Report }
  | { readonly kind: "notStarted"; readonly reason: string };

/** Tasks that one thread works on at a time: nearly all of them wait for the network. */
export const TASKS_PER_THREAD = 16;

/** What a scraping process is started with, as its one argument (JSON). */
export interface ScrapingLimits {
  readonly threads: number;
  /** Reading one page, once its body is there: decoding, parsing, extraction. */
  readonly processingMsMax: number;
  /** Of the whole process. */
  readonly memoryBytesMax: number;
}

/** A scraping process starts no request when it last heard of its server longer ago. */
export const PARENT_SILENCE_MS_MAX = 500;

/**
 * Milliseconds of the machine's monotonic clock, which its processes and threads share
 * (unlike `performance.now()`, whose zero is each one's own start): a limit needs no
 * translation, and the time that a message waits does not extend it.
 */
export function machineNowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
