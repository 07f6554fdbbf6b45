/**
 * One thread of the scraping process: whole tasks, many at a time, nothing kept between
 * them but connections, resolved names and compiled rules.
 */
import { parentPort, threadId, workerData } from "node:worker_threads";
import { Fetcher } from "../src/fetcher/fetcher.ts";
import { machineNowMs, PARENT_SILENCE_MS_MAX, pack, type ScrapingEnd } from "../src/pool/scraping-message.ts";
import type { Report } from "../src/pool/task.ts";
import { PageReader } from "./page-reader.ts";
import { fetchRobots } from "./robots.ts";
import {
  CANCEL_CHANNEL,
  type ScrapeJob,
  type ScrapeOutcome,
  type ThreadData,
  type ThreadMessage,
} from "./scrape-job.ts";

const { heard } = workerData as ThreadData;
const fetcher = new Fetcher();
const reader = new PageReader();
const cancellations = new Map<number, AbortController>();

const inHand = new BigInt64Array(new SharedArrayBuffer(16));
tell({ kind: "up", threadId, inHand });

const cancels = new BroadcastChannel(CANCEL_CHANNEL);
cancels.onmessage = (event: unknown) => cancellations.get((event as { data: number }).data)?.abort();
cancels.unref();

/** Never rejects, unless this thread is ended. */
export default async function scrape({ id, task, startBefore }: ScrapeJob): Promise<ScrapeOutcome> {
  let startedAtMs: number | undefined;
  const cancellation = new AbortController();
  cancellations.set(id, cancellation);
  const conditions = {
    signal: cancellation.signal,
    mayStart() {
      const silentMs = Number(process.hrtime.bigint() - Atomics.load(heard, 0)) / 1e6;
      if (silentMs > PARENT_SILENCE_MS_MAX) return "the server was too busy to watch over it";
      return machineNowMs() > startBefore ? "its time to start passed" : undefined;
    },
    onStart() {
      if (startedAtMs !== undefined) return;
      startedAtMs = machineNowMs();
      tell({ kind: "started", id, atMs: startedAtMs });
    },
  };
  try {
    const end: ScrapingEnd =
      task.kind === "robots"
        ? await fetchRobots(fetcher, task, conditions)
        : await reader.read(fetcher, task, conditions, (work) => holding(id, work));
    return { end: pack(end), startedAtMs };
  } catch (error) {
    // A page that our own code can't stand is that page's failure, not everyone's.
    const text = error instanceof Error ? error.message : String(error);
    const report: Report = {
      kind: "broken",
      reason: `can't be processed: ${text.slice(0, 200)}`,
      retryable: false,
    };
    return { end: { kind: "report", report }, startedAtMs };
  } finally {
    cancellations.delete(id);
  }
}

/** What runs here keeps the thread busy: the main thread sees which task it is, and for how long. */
function holding<T>(id: number, work: () => T): T {
  Atomics.store(inHand, 1, process.hrtime.bigint());
  Atomics.store(inHand, 0, BigInt(id));
  try {
    return work();
  } finally {
    Atomics.store(inHand, 0, 0n);
  }
}

function tell(message: ThreadMessage): void {
  parentPort!.postMessage(message);
}
