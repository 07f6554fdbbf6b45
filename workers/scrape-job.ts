/**
 * What the scraping process and its threads tell each other.
 */
import type { PackedEnd } from "../src/pool/scraping-message.ts";
import type { Task } from "../src/pool/task.ts";

export interface ScrapeJob {
  readonly id: number;
  readonly task: Task;
  /** By `machineNowMs`. */
  readonly startBefore: number;
}

export interface ScrapeOutcome {
  readonly end: PackedEnd;
  /** By `machineNowMs`; undefined: no request left. */
  readonly startedAtMs: number | undefined;
}

export type ThreadMessage =
  /** `inHand`: the task that the thread is processing (0: none), and since when (ns); shared memory. */
  | { readonly kind: "up"; readonly threadId: number; readonly inHand: BigInt64Array }
  | { readonly kind: "started"; readonly id: number; readonly atMs: number };

export interface ThreadData {
  /** When the server was last heard of, in nanoseconds; shared memory. */
  readonly heard: BigInt64Array;
}

/** Carries the ids of tasks to give up. */
export const CANCEL_CHANNEL = "scrape-cancel";
