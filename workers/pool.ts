/**
 * The scraping process. Its main thread only passes messages, and watches: it ends itself when
 * its memory grows too much (buffers are counted by no limit of V8) or when its server is gone,
 * and ends threads that a page keeps busy for too long.
 */
import { Piscina } from "piscina";
import {
  type FromScraping,
  type PackedEnd,
  type ScrapingLimits,
  TASKS_PER_THREAD,
  type ToScrapingBatch,
} from "../src/pool/scraping-message.ts";
import { type Report, type Task, taskMsMax } from "../src/pool/task.ts";
import { CANCEL_CHANNEL, type ScrapeJob, type ScrapeOutcome, type ThreadMessage } from "./scrape-job.ts";

const WATCH_EVERY_MS = 50;
/** While there is nothing to do. */
const WATCH_IDLE_MS = 1000;
/** What a task may take beyond its own time, before its thread is taken for stuck. */
const GRACE_MS = 20_000;
const HEAP_MB_MAX = 256;
const BATCH_MAX = 16;

const { threads, processingMsMax, memoryBytesMax } = JSON.parse(process.argv[2] ?? "") as ScrapingLimits;

interface Running {
  readonly endsBeforeMs: number;
  hasStarted: boolean;
  /** Why its thread had to be ended, when it was on account of this task. */
  verdict: string | undefined;
}

const running = new Map<number, Running>();
/** By thread: the task in hand (0: none) and since when, in nanoseconds. */
const inHand = new Map<number, BigInt64Array>();
/** When the server was last heard of, in nanoseconds; all threads see it. */
const heard = new BigInt64Array(new SharedArrayBuffer(8));
Atomics.store(heard, 0, process.hrtime.bigint());

const piscina = new Piscina({
  filename: new URL("./scrape.ts", import.meta.url).href,
  minThreads: threads,
  maxThreads: threads,
  concurrentTasksPerWorker: TASKS_PER_THREAD,
  // A thread that slept between tasks could not read from its sockets.
  atomics: "disabled",
  maxQueue: threads * TASKS_PER_THREAD,
  recordTiming: false,
  workerHistogram: false,
  resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX },
  workerData: { heard },
});
let isReady = false;
const cancels = new BroadcastChannel(CANCEL_CHANNEL);

piscina.on("message", (message: ThreadMessage) => {
  if (message.kind === "up") {
    inHand.set(message.threadId, message.inHand);
    if (inHand.size === threads && !isReady) {
      isReady = true;
      post({ kind: "ready" });
    }
  } else {
    tellStarted(message.id, message.atMs);
  }
});
// A thread that died without a task; Piscina has replaced it.
piscina.on("error", () => {});

process.on("message", (batch) => {
  const { sentAtMs, messages } = batch as ToScrapingBatch;
  Atomics.store(heard, 0, BigInt(Math.round(sentAtMs * 1e6)));
  for (const message of messages) {
    if (message.kind === "run") void run(message.id, message.task, message.startBefore);
    else if (message.kind === "cancel") cancels.postMessage(message.id);
  }
});
process.on("disconnect", () => process.exit(0));
// A terminal sends them to all; whether there is still something to do is for the server to say.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {});

let isWatchIdle = true;
let watchTimer = setTimeout(watch, WATCH_IDLE_MS);

function watch(): void {
  if (process.memoryUsage.rss() > memoryBytesMax) process.kill(process.pid, "SIGKILL");
  const now = process.hrtime.bigint();
  for (const [threadId, slot] of inHand) {
    const id = Number(Atomics.load(slot, 0));
    // Threads come and go; what a dead one left is of use only until its task has been told about.
    if (!running.has(id) && !piscina.threads.some((thread) => thread.threadId === threadId))
      inHand.delete(threadId);
    const since = Atomics.load(slot, 1);
    if (id !== 0 && now - since > BigInt(processingMsMax) * 1_000_000n) {
      endThread(threadId, id, `took longer than ${processingMsMax} ms to process`);
    }
  }
  // A task that neither ends nor is in hand: a thread is stuck where it never should be.
  for (const { endsBeforeMs } of running.values()) {
    if (performance.now() > endsBeforeMs) process.kill(process.pid, "SIGKILL");
  }
  isWatchIdle = running.size === 0;
  watchTimer = setTimeout(watch, isWatchIdle ? WATCH_IDLE_MS : WATCH_EVERY_MS);
}

async function run(id: number, task: Task, startBefore: number): Promise<void> {
  if (isWatchIdle) {
    isWatchIdle = false;
    clearTimeout(watchTimer);
    watchTimer = setTimeout(watch, WATCH_EVERY_MS);
  }
  running.set(id, {
    endsBeforeMs: performance.now() + taskMsMax(task) + GRACE_MS,
    hasStarted: false,
    verdict: undefined,
  });
  const job: ScrapeJob = { id, task, startBefore };
  let ended: PackedEnd;
  try {
    const outcome: ScrapeOutcome = await piscina.run(job);
    if (outcome.startedAtMs !== undefined) tellStarted(id, outcome.startedAtMs);
    ended = outcome.end;
  } catch (error) {
    ended = { kind: "report", report: reportOf(id, error) };
  }
  running.delete(id);
  post({ kind: "ended", id, end: ended });
}

/** The thread is gone, by this page's fault or another's. */
function reportOf(id: number, error: unknown): Extract<Report, { kind: "broken" }> {
  const verdict = running.get(id)?.verdict;
  if (verdict !== undefined) return { kind: "broken", reason: verdict, retryable: false };
  for (const [threadId, slot] of inHand) {
    if (Number(Atomics.load(slot, 0)) !== id) continue;
    inHand.delete(threadId);
    const isMemory = error instanceof Error && "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
    const reason = isMemory ? "needed too much memory to process" : "ended its scraping thread";
    return { kind: "broken", reason, retryable: false };
  }
  return { kind: "broken", reason: "another page ended its scraping thread", retryable: true };
}

/**
 * Ends the thread that has the task in hand; Piscina starts another. (Its own way, an AbortSignal
 * for the task, would make it give the thread one task at a time.)
 */
function endThread(threadId: number, id: number, verdict: string): void {
  const task = running.get(id);
  const thread = piscina.threads.find((other) => other.threadId === threadId);
  if (task === undefined || task.verdict !== undefined || thread === undefined) return;
  task.verdict = verdict;
  void thread.terminate();
}

function tellStarted(id: number, atMs: number): void {
  const task = running.get(id);
  if (task === undefined || task.hasStarted) return;
  task.hasStarted = true;
  post({ kind: "started", id, atMs });
}

const outbox: FromScraping[] = [];

function post(message: FromScraping): void {
  outbox.push(message);
  if (outbox.length === 1) setImmediate(flush);
  else if (outbox.length >= BATCH_MAX) flush();
}

function flush(): void {
  if (outbox.length > 0) process.send?.(outbox.splice(0), undefined, {}, () => {});
}
