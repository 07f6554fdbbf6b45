/**
 * The pages of a large host that lie in other partitions, as the one that paces
 * the host sees them. A host above so many pages of a job is full for good: the
 * main partition keeps what it has, and gives what comes to one of sixteen parts
 * by the page's key. A part stores, settles and counts its pages like any others,
 * and hands one out when the main asks; only the main knows when the host may be
 * asked, so what a part has handed out leaves only after the main's own commit.
 */
import { z } from "zod";

/** By the first four bits of a page's key. */
export const HOST_PARTS = 16;
/** Pages of one host in one job above which new ones go to the parts. */
export const SPREAD_ABOVE = 100_000;

/** Where the pages of hosts are. Partitions by number. */
export interface HostPlacement {
  readonly spreadAbove: number;
  /** Whether this partition paces the host. */
  isMain(host: string): boolean;
  /** Undefined: this partition is the page's part itself. */
  partOf(host: string, key: string): number | undefined;
  /** All parts of the host, but this partition. */
  partsOf(host: string): readonly number[];
}

/** For a partition that has all there is. */
export const UNDIVIDED: HostPlacement = {
  spreadAbove: Number.POSITIVE_INFINITY,
  isMain: () => true,
  partOf: () => undefined,
  partsOf: () => [],
};

/** A page that a part has handed out; its request leaves when the host's owner says so. */
export const handedPageSchema = z.object({
  url: z.string().max(2048),
  key: z.string().max(64),
  depth: z.int().nonnegative(),
  sitemapPart: z.int().nonnegative().nullable(),
  alone: z.boolean(),
  handout: z.int().positive(),
  runner: z.string().max(64),
});
export type HandedPage = z.output<typeof handedPageSchema>;

/** What the owner of a host keeps of a page under way that a part stores. */
export const outRecordSchema = z.object({
  host: z.string(),
  key: z.string(),
  handout: z.int().positive(),
  runner: z.string(),
});
export type OutRecord = z.output<typeof outRecordSchema>;

export interface TakenPage extends HandedPage {
  readonly partition: number;
  readonly takenAtMs: number;
}

interface Part {
  readonly partition: number;
  /** The last answer said that nothing is pending there. */
  isEmpty: boolean;
  isAsked: boolean;
  /** Pages went there since it was asked: that it had none says nothing. */
  isFilled: boolean;
  notBeforeMs: number;
}

const RETRY_MS = 250;

export class HostSpread {
  // The one that was asked longest ago comes first.
  #parts: Part[];
  /** Handed out by their parts, waiting for the host. */
  taken: TakenPage[] = [];
  /** Places for pages that parts were asked for. */
  asked = 0;

  /** @param mayHavePages false: the host has just become full. */
  constructor(partitions: readonly number[], mayHavePages: boolean) {
    this.#parts = partitions.map((partition) => ({
      partition,
      isEmpty: !mayHavePages,
      isAsked: false,
      isFilled: false,
      notBeforeMs: Number.NEGATIVE_INFINITY,
    }));
  }

  /** Pages may be pending in a part. */
  get isOpen(): boolean {
    return this.taken.length > 0 || this.#parts.some((part) => !part.isEmpty);
  }

  /** Places of the host that are spoken for. */
  get reserved(): number {
    return this.taken.length + this.asked;
  }

  /** The part to ask next; undefined: none, or not yet (`readyAtMs`). */
  next(nowMs: number): number | undefined {
    return this.#parts.find((part) => isAskable(part) && part.notBeforeMs <= nowMs)?.partition;
  }

  get readyAtMs(): number | undefined {
    const times = this.#parts.filter(isAskable).map((part) => part.notBeforeMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  ask(partition: number, places: number): void {
    this.asked += places;
    const part = this.#of(partition);
    part.isAsked = true;
    part.isFilled = false;
    this.#parts = [...this.#parts.filter((other) => other !== part), part];
  }

  /** @param answer what the part had, and how many more pages wait there; undefined: no answer. */
  answered(
    partition: number,
    places: number,
    answer: { readonly pages: readonly HandedPage[]; readonly left: number } | undefined,
    nowMs: number,
  ): void {
    this.asked -= places;
    const part = this.#of(partition);
    part.isAsked = false;
    if (answer === undefined || (answer.pages.length === 0 && answer.left > 0)) {
      part.notBeforeMs = nowMs + RETRY_MS;
    } else if (answer.pages.length === 0) {
      part.isEmpty = !part.isFilled;
    }
    for (const page of answer?.pages ?? []) this.taken.push({ ...page, partition, takenAtMs: nowMs });
  }

  /** New pages are on their way there, or have arrived. */
  filled(partition: number): void {
    const part = this.#of(partition);
    part.isEmpty = false;
    part.isFilled = true;
  }

  /** Nothing of this host can be fetched before then. */
  postpone(untilMs: number): void {
    for (const part of this.#parts) part.notBeforeMs = Math.max(part.notBeforeMs, untilMs);
  }

  #of(partition: number): Part {
    return this.#parts.find((part) => part.partition === partition)!;
  }
}

function isAskable(part: Part): boolean {
  return !part.isEmpty && !part.isAsked;
}
