/**
 * What a server and its scraping process tell each other, in batches: several of these
 * in one message of the process channel, since each has its price.
 */
import type { FoundLink, PageReport, Report, Task } from "./task.ts";

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
  | { readonly kind: "ended"; readonly id: number; readonly end: PackedEnd };

export type ScrapingEnd =
  | { readonly kind: "report"; readonly report: Report }
  | { readonly kind: "notStarted"; readonly reason: string };

/**
 * The links of a page are most of its report, and are copied from thread to thread and
 * from process to process: as one text they are copied as a whole.
 */
export type PackedEnd =
  | Extract<ScrapingEnd, { kind: "notStarted" }>
  | { readonly kind: "report"; readonly report: PackedReport };
export type PackedReport =
  | Exclude<Report, { kind: "page" }>
  | (Omit<PageReport, "found"> & { readonly found: string });

export function pack(end: ScrapingEnd): PackedEnd {
  if (end.kind !== "report") return end;
  const { report } = end;
  if (report.kind !== "page") return { kind: "report", report };
  return { kind: "report", report: { ...report, found: packLinks(report.found) } };
}

export function unpack(end: PackedEnd): ScrapingEnd {
  if (end.kind !== "report") return end;
  const { report } = end;
  if (report.kind !== "page") return { kind: "report", report };
  return { kind: "report", report: { ...report, found: unpackLinks(report.found) } };
}

/** No part of a canonical link has a blank or a line end. */
function packLinks(found: readonly FoundLink[]): string {
  return found.map(({ url, key, host }) => `${url} ${key} ${host}`).join("\n");
}

function unpackLinks(text: string): FoundLink[] {
  if (text === "") return [];
  return text.split("\n").map((line) => {
    const [url = "", key = "", host = ""] = line.split(" ");
    return { url, key, host };
  });
}

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
