/**
 * The scraping of one server: a queue, and a supervised process that works on it.
 *
 * A hostile page can end the process that reads it whatever limits are set, so scraping has
 * a process of its own, which is forked anew when it dies. Pages that were in flight at a
 * death are then tried alone: not by stopping everybody else's work, but in a second process
 * (quarantine) that takes one task at a time and lives only while there is use for it.
 */
import type { Log } from "../log.ts";
import { machineNowMs, type ScrapingLimits, TASKS_PER_THREAD } from "./scraping-message.ts";
import { ScrapingProcess } from "./scraping-process.ts";
import type { Task, TaskEnd } from "./task.ts";

export interface RunOptions {
  /** By `performance.now()` of this process: past it the task ends as `notStarted`. Checked right before connecting. */
  startBefore: number;
  /** Nothing else runs in its process: if that dies, this task killed it. */
  alone: boolean;
  /** The request leaves, `agoMs` ago. At most once; always before the task ends, if it started. */
  onStarted?(agoMs: number): void;
  /** A task that has started ends as a `broken` report, another one as `notStarted`. */
  signal?: AbortSignal;
}

const MiB = 1024 * 1024;
const PROCESSING_MS_MAX = 10_000;
/** Waiting tasks per thread: some seconds of work; more would pass their limit anyway. */
const WAITING_PER_THREAD_MAX = 256;
const QUARANTINE_IDLE_MS = 30_000;
const RESTART_MS_MAX = 5_000;
/** A process that lived this long did not die of its start. */
const SETTLED_MS = 10_000;

export class Pool {
  readonly threads: number;
  readonly #log: Log;
  readonly #main: Lane;
  readonly #quarantine: Lane;

  /**
   * @param options.processingMsMax reading one page, once its body is there; then its thread is ended.
   * @param options.memoryBytesMax of the process; beyond, it ends itself.
   */
  constructor(options: { threads: number; log: Log; processingMsMax?: number; memoryBytesMax?: number }) {
    const limitsOf = (threads: number): ScrapingLimits => ({
      threads,
      processingMsMax: options.processingMsMax ?? PROCESSING_MS_MAX,
      memoryBytesMax: options.memoryBytesMax ?? (500 + 200 * threads) * MiB,
    });
    this.threads = options.threads;
    this.#log = options.log;
    this.#main = new Lane({
      limits: limitsOf(options.threads),
      capacity: options.threads * TASKS_PER_THREAD,
      waitingMax: options.threads * WAITING_PER_THREAD_MAX,
      idleMs: undefined,
      log: options.log,
    });
    this.#quarantine = new Lane({
      limits: limitsOf(1),
      capacity: 1,
      waitingMax: WAITING_PER_THREAD_MAX,
      idleMs: QUARANTINE_IDLE_MS,
      log: options.log.child({ quarantine: true }),
    });
  }

  /** @throws {UnavailableError} the process does not come up. */
  async start(): Promise<void> {
    await this.#main.start();
    this.#log.debug("scraping process ready", { pid: this.#main.pid, threads: this.threads });
  }

  /** Runs one task. Never rejects; a full queue ends it as `notStarted`. */
  run(task: Task, options: RunOptions): Promise<TaskEnd> {
    return (options.alone ? this.#quarantine : this.#main).run(task, options);
  }

  get running(): number {
    return this.#main.running + this.#quarantine.running;
  }

  get waiting(): number {
    return this.#main.waiting + this.#quarantine.waiting;
  }

  /** Of the process that runs now, for those who watch it; undefined while there is none. */
  get pid(): number | undefined {
    return this.#main.pid;
  }

  /** What waits ends as `notStarted`, what runs as `died`, not alone. */
  async stop(): Promise<void> {
    await Promise.all([this.#main.stop(), this.#quarantine.stop()]);
  }
}

interface Waiting {
  readonly task: Task;
  /** By `machineNowMs`. */
  readonly startBefore: number;
  readonly options: RunOptions;
  readonly settle: (end: TaskEnd) => void;
}

/** A queue before one process, and the process's successors. */
class Lane {
  readonly #limits: ScrapingLimits;
  readonly #capacity: number;
  readonly #waitingMax: number;
  /** Undefined: the process is kept up; else it ends when idle for so long, and comes with the next task. */
  readonly #idleMs: number | undefined;
  readonly #log: Log;
  /** First in, first out. */
  readonly #waiting: Waiting[] = [];
  #process: ScrapingProcess | undefined;
  #isReady = false;
  #isStopped = false;
  #deaths = 0;
  #restartTimer: NodeJS.Timeout | undefined;
  #expiryTimer: NodeJS.Timeout | undefined;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(options: {
    limits: ScrapingLimits;
    capacity: number;
    waitingMax: number;
    idleMs: number | undefined;
    log: Log;
  }) {
    this.#limits = options.limits;
    this.#capacity = options.capacity;
    this.#waitingMax = options.waitingMax;
    this.#idleMs = options.idleMs;
    this.#log = options.log;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  get running(): number {
    return this.#process?.running ?? 0;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  async start(): Promise<void> {
    await this.#fork().ready;
  }

  run(task: Task, options: RunOptions): Promise<TaskEnd> {
    if (options.signal?.aborted) return Promise.resolve({ kind: "notStarted", reason: "cancelled" });
    if (this.#isStopped) return Promise.resolve({ kind: "notStarted", reason: "the server is stopping" });
    if (this.#waiting.length >= this.#waitingMax) {
      return Promise.resolve({ kind: "notStarted", reason: "too many tasks wait already" });
    }
    return new Promise((resolve) => {
      const startBefore = options.startBefore - performance.now() + machineNowMs();
      const entry: Waiting = {
        task,
        startBefore,
        options,
        settle: (end) => {
          options.signal?.removeEventListener("abort", withdraw);
          resolve(end);
        },
      };
      const withdraw = () => {
        const at = this.#waiting.indexOf(entry);
        if (at === -1) return;
        this.#waiting.splice(at, 1);
        entry.settle({ kind: "notStarted", reason: "cancelled" });
      };
      options.signal?.addEventListener("abort", withdraw, { once: true });
      this.#waiting.push(entry);
      this.#pump();
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#restartTimer);
    clearTimeout(this.#expiryTimer);
    clearTimeout(this.#idleTimer);
    for (const { settle } of this.#waiting.splice(0)) {
      settle({ kind: "notStarted", reason: "the server is stopping" });
    }
    await this.#process?.stop();
  }

  #fork(): ScrapingProcess {
    const forkedMs = performance.now();
    const scraping = new ScrapingProcess({
      limits: this.#limits,
      capacity: this.#capacity,
      log: this.#log,
    });
    this.#process = scraping;
    this.#isReady = false;
    scraping.ready.then(
      () => {
        this.#isReady = true;
        this.#pump();
      },
      () => {}, // Told by `exited` as well.
    );
    void scraping.exited.then(() => {
      if (this.#process !== scraping) return;
      this.#process = undefined;
      this.#isReady = false;
      if (performance.now() - forkedMs > SETTLED_MS) this.#deaths = 0;
      if (!this.#isStopped) this.#replace();
    });
    return scraping;
  }

  /** At once after a first death, later and later while deaths follow each other. */
  #replace(): void {
    this.#deaths++;
    const waitMs = this.#deaths === 1 ? 0 : Math.min(RESTART_MS_MAX, 50 * 2 ** (this.#deaths - 2));
    this.#log.warn("scraping process died", { deaths: this.#deaths, restartMs: waitMs });
    const isWanted = this.#idleMs === undefined || this.#waiting.length > 0;
    this.#restartTimer = setTimeout(() => {
      this.#restartTimer = undefined;
      if (isWanted) this.#fork();
      else this.#pump();
    }, waitMs);
    this.#watchExpiry();
  }

  #pump(): void {
    if (this.#isStopped) return;
    if (this.#process === undefined && this.#restartTimer === undefined && this.#waiting.length > 0) {
      this.#fork();
    }
    clearTimeout(this.#idleTimer);
    const scraping = this.#process;
    while (scraping !== undefined && this.#isReady && scraping.hasRoom) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      if (next.startBefore < machineNowMs()) next.settle(TOO_LATE);
      else this.#hand(scraping, next);
    }
    this.#watchExpiry();
    this.#watchIdle();
  }

  #hand(scraping: ScrapingProcess, { task, startBefore, options, settle }: Waiting): void {
    const { signal } = options;
    const onStarted = options.onStarted?.bind(options);
    void scraping.run(task, { startBefore, onStarted, signal }).then((end) => {
      settle(end.kind === "died" && this.#isStopped ? { kind: "died", alone: false } : end);
      this.#pump();
    });
  }

  /** Tasks whose limit passes while they wait are told soon, not when their turn comes. */
  #watchExpiry(): void {
    if (this.#expiryTimer !== undefined || this.#waiting.length === 0 || this.#isStopped) return;
    const firstMs = Math.min(...this.#waiting.map(({ startBefore }) => startBefore));
    this.#expiryTimer = setTimeout(
      () => {
        this.#expiryTimer = undefined;
        const nowMs = machineNowMs();
        for (const entry of this.#waiting.filter(({ startBefore }) => startBefore < nowMs)) {
          this.#waiting.splice(this.#waiting.indexOf(entry), 1);
          entry.settle(TOO_LATE);
        }
        this.#watchExpiry();
      },
      Math.min(Math.max(firstMs - machineNowMs() + 1, 10), 60_000),
    );
  }

  #watchIdle(): void {
    if (this.#idleMs === undefined || this.#process === undefined || this.running > 0) return;
    if (this.#waiting.length > 0) return;
    this.#idleTimer = setTimeout(() => {
      const idle = this.#process;
      this.#process = undefined;
      this.#isReady = false;
      void idle?.stop();
    }, this.#idleMs);
    this.#idleTimer.unref();
  }
}

const TOO_LATE: TaskEnd = { kind: "notStarted", reason: "its time to start passed while it waited" };
