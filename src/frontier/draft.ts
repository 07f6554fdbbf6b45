/**
 * One batch of a partition while it is being made: what changes together, and
 * what may be said or sent once it is durable. Objects are noted, not copied:
 * each is written once, as it stands when the batch is closed.
 */
import type { Counts } from "../job/counts.ts";
import type { HandoutRef } from "./frontier-state.ts";
import type { HostQueue } from "./host-queue.ts";
import type { HandedPage, OutRecord } from "./host-spread.ts";
import type { JobShare } from "./job-share.ts";
import type { ContentChunk, ContentWindow } from "./known-contents.ts";
import type { Due, DuePlace, FailureRecord, OfferedPage, Page, ResultRecord, Size } from "./page.ts";
import type { PaceRecord } from "./politeness.ts";
import type { RobotsRecord } from "./robots-access.ts";
import type { TrapRecord } from "./trap.ts";
import type { Outcome } from "./verdict.ts";

export type FrontierWrite =
  | { readonly kind: "page"; readonly jobId: string; readonly host: string; readonly page: Page }
  | {
      readonly kind: "due";
      readonly jobId: string;
      readonly host: string;
      readonly place: DuePlace;
      /** Null: not due there any more. */
      readonly due: Due | null;
    }
  | { readonly kind: "result"; readonly jobId: string; readonly n: number; readonly result: ResultRecord }
  | {
      readonly kind: "failure";
      readonly jobId: string;
      readonly n: number;
      /** Null: the page is tried again. */
      readonly failure: FailureRecord | null;
    }
  | { readonly kind: "counts"; readonly counts: Counts }
  | { readonly kind: "size"; readonly size: Size }
  | { readonly kind: "contents"; readonly chunk: ContentChunk }
  | { readonly kind: "traps"; readonly record: TrapRecord }
  | {
      readonly kind: "out";
      readonly jobId: string;
      readonly out: OutRecord;
      /** False: not under way any more. */
      readonly isUnderWay: boolean;
    }
  | { readonly kind: "pace"; readonly record: PaceRecord }
  | { readonly kind: "robots"; readonly record: RobotsRecord };

export type FrontierEffect =
  /** What came in under this id is durable, or is of no more interest. */
  | { readonly kind: "answer"; readonly id: number; readonly answer: "accepted" | "refused" }
  | {
      readonly kind: "run";
      readonly jobId: string;
      readonly host: string;
      readonly url: string;
      readonly key: string;
      readonly depth: number;
      readonly sitemapPart: number | null;
      readonly alone: boolean;
      readonly handout: number;
      readonly runner: string;
      /** Of the runner's own clock. */
      readonly runnerTimeMs: number;
      readonly startWithinMs: number;
      /** The partition that stores the page and hears of its end after this one; left out: this one. */
      readonly store?: number;
    }
  /** What the owner of a host that is spread has asked for; under way from now on. */
  | {
      readonly kind: "handed";
      readonly id: number;
      readonly pages: readonly HandedPage[];
      /** How many more are pending here. */
      readonly left: number;
    }
  /** A page that a part has handed out, and that does not leave. */
  | {
      readonly kind: "returned";
      readonly ref: HandoutRef;
      readonly partition: number;
      readonly runner: string;
      readonly outcome: Extract<Outcome, { kind: "notStarted" | "barred" }>;
    }
  | {
      readonly kind: "fetchRobots";
      readonly delayMs: number;
      readonly host: string;
      readonly origin: string;
      readonly userAgent: string;
      /** On this node's clock. */
      readonly startBeforeMs: number;
    }
  /** A robots.txt that is here already names the sitemaps of its origin: to be reported like a page. */
  | {
      readonly kind: "readRobots";
      readonly jobId: string;
      readonly host: string;
      readonly key: string;
      readonly handout: number;
      readonly origin: string;
      /** As written. */
      readonly sitemaps: readonly string[];
    }
  /** Nothing of this job is pending here any more. */
  | { readonly kind: "emptied"; readonly jobId: string };

/** What the driver should find out, each asked for once until it is answered; `confirm` and `credit` until they are had. */
export interface FrontierWants {
  readonly confirm: Set<string>;
  readonly credit: Map<string, number>;
  readonly shares: Set<string>;
  readonly hosts: Set<string>;
  readonly lookups: { readonly jobId: string; readonly id: number; readonly pages: readonly OfferedPage[] }[];
  readonly loads: HostQueue[];
  /** Pages of large hosts for their parts. */
  readonly forwards: {
    readonly jobId: string;
    readonly id: number;
    readonly pages: readonly OfferedPage[];
  }[];
  readonly takes: TakeWant[];
}

/** Pages of a large host that a part is asked for, one for each runner. */
export interface TakeWant {
  readonly jobId: string;
  readonly host: string;
  readonly partition: number;
  readonly runners: readonly string[];
}

export interface FrontierBatch {
  readonly writes: readonly FrontierWrite[];
  readonly effects: readonly FrontierEffect[];
}

/** Below the bounds of a batch, so that one more page, settled or admitted, still fits. */
const CHANGES_MAX = 960;
const BYTES_MAX = 3 * 1024 * 1024;
const SMALL_BYTES = 700;
const CHUNK_BYTES = 5_000;

export class Draft {
  readonly effects: FrontierEffect[] = [];
  // By what identifies the entry: one write each.
  readonly #pages = new Map<string, { jobId: string; host: string; page: Page }>();
  readonly #dues = new Map<string, FrontierWrite>();
  readonly #outs = new Map<string, FrontierWrite>();
  readonly #others: FrontierWrite[] = [];
  readonly #shares = new Set<JobShare>();
  readonly #queues = new Set<HostQueue>();
  readonly #contents = new Set<ContentWindow>();
  // Hosts whose scores changed.
  readonly #traps = new Map<string, { share: JobShare; host: string }>();
  #bytes = 0;

  /** Room for `changes` more. */
  hasRoom(changes: number): boolean {
    return this.#changes + changes <= CHANGES_MAX && this.#bytes < BYTES_MAX;
  }

  get isEmpty(): boolean {
    return this.#changes === 0;
  }

  get #changes(): number {
    let sum = this.#pages.size + this.#dues.size + this.#outs.size + this.#others.length + this.#shares.size;
    sum += this.#queues.size + this.#traps.size;
    for (const window of this.#contents) sum += window.changes;
    return sum;
  }

  page(jobId: string, host: string, page: Page): void {
    const id = `${jobId}/${page.key}`;
    if (!this.#pages.has(id)) this.#bytes += SMALL_BYTES;
    this.#pages.set(id, { jobId, host, page });
  }

  due(jobId: string, host: string, place: DuePlace, due: Due | null): void {
    const id = `${jobId}/${host}/${place.band}/${place.priority}/${place.seq}`;
    this.#dues.set(id, { kind: "due", jobId, host, place, due });
  }

  out(jobId: string, out: OutRecord, isUnderWay: boolean): void {
    this.#outs.set(`${jobId}/${out.key}`, { kind: "out", jobId, out, isUnderWay });
  }

  counts(share: JobShare): void {
    this.#shares.add(share);
  }

  size(queue: HostQueue): void {
    this.#queues.add(queue);
  }

  /** What the pages of a host say has grown. */
  contents(window: ContentWindow): void {
    if (!this.#contents.has(window)) this.#bytes += CHUNK_BYTES;
    this.#contents.add(window);
  }

  /** The scores of the host's patterns have changed. */
  traps(share: JobShare, host: string): void {
    this.#traps.set(`${share.jobId}/${host}`, { share, host });
  }

  write(write: FrontierWrite): void {
    this.#bytes += SMALL_BYTES;
    if (write.kind === "result" && write.result.content.kind === "bytes") {
      this.#bytes += write.result.content.bytes.byteLength;
    }
    if (write.kind === "robots") this.#bytes += write.record.text.length;
    this.#others.push(write);
  }

  close(): FrontierBatch {
    const writes: FrontierWrite[] = [];
    for (const { jobId, host, page } of this.#pages.values())
      writes.push({ kind: "page", jobId, host, page });
    writes.push(...this.#dues.values(), ...this.#outs.values(), ...this.#others);
    for (const { counts } of this.#shares) {
      // A copy: what is told about progress is what was committed.
      writes.push({
        kind: "counts",
        counts: { ...counts, servers: { ...counts.servers }, traps: [...counts.traps] },
      });
    }
    for (const queue of this.#queues) writes.push({ kind: "size", size: queue.size });
    for (const window of this.#contents) {
      for (const chunk of window.takeChanges()) writes.push({ kind: "contents", chunk });
    }
    for (const { share, host } of this.#traps.values()) {
      const patterns = share.trapsOf(host).entries();
      writes.push({ kind: "traps", record: { jobId: share.jobId, host, patterns } });
    }
    return { writes, effects: this.effects };
  }
}
