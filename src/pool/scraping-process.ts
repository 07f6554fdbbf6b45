/**
 * One life of the scraping process: forked, given tasks, and dead at last.
 *
 * It holds nothing of the cluster: no key, no credential, an empty environment, no right to
 * write files or to start programs. Whatever a page does to it, the server loses no more than
 * the pages in flight.
 */
import { type ChildProcess, fork } from "node:child_process";
import { sep } from "node:path";
import { fileURLToPath } from "node:url";
import { UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import {
  type FromScraping,
  machineNowMs,
  PARENT_SILENCE_MS_MAX,
  type ScrapingLimits,
  type ToScraping,
  type ToScrapingBatch,
  unpack,
} from "./scraping-message.ts";
import type { Task, TaskEnd } from "./task.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const ENTRY = fileURLToPath(new URL("../../workers/pool.ts", import.meta.url));

const START_MS_MAX = 20_000;
const STOP_MS_MAX = 2_000;
const ALIVE_EVERY_MS = PARENT_SILENCE_MS_MAX / 5;
/** Tasks of one message; more would delay the first of them. */
const BATCH_MAX = 16;
const STDERR_KEPT = 2_000;

interface InFlight {
  readonly onStarted: ((agoMs: number) => void) | undefined;
  readonly settle: (end: TaskEnd) => void;
}

export class ScrapingProcess {
  /** Tasks that may run at a time. */
  readonly capacity: number;
  readonly #child: ChildProcess;
  readonly #inFlight = new Map<number, InFlight>();
  readonly #outbox: ToScraping[] = [];
  /** While tasks are in flight. */
  #alive: NodeJS.Timeout | undefined;
  #lastId = 0;
  #stderr = "";
  /** Settled once, in either way. */
  readonly ready: Promise<void>;
  /** Resolves when the process is gone and all its tasks have ended. */
  readonly exited: Promise<void>;

  /** @param capacity at most the tasks that its threads can hold. */
  constructor(options: { limits: ScrapingLimits; capacity: number; log: Log }) {
    this.capacity = options.capacity;
    this.#child = fork(ENTRY, [JSON.stringify(options.limits)], {
      serialization: "advanced",
      env: { TZ: "UTC" },
      execArgv: execArguments(),
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });

    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.ready = promise;
    this.ready.catch(() => {});
    const startTimer = setTimeout(() => this.#child.kill("SIGKILL"), START_MS_MAX);
    this.#child.on("message", (batch) => {
      for (const message of batch as FromScraping[]) {
        if (message.kind === "ready") {
          clearTimeout(startTimer);
          resolve();
        } else this.#receive(message);
      }
    });

    const { promise: exited, resolve: resolveExited } = Promise.withResolvers<void>();
    this.exited = exited;
    const onGone = (event: string, fields: object) => {
      clearTimeout(startTimer);
      clearInterval(this.#alive);
      reject(
        new UnavailableError(
          `the scraping process ended before it was ready: ${headline(this.#stderr) ?? event}; check that the installation is complete (npm ci)`,
        ),
      );
      options.log.debug(event, { ...fields, inFlight: this.#inFlight.size, stderr: this.#stderr.trim() });
      const alone = this.#inFlight.size === 1;
      for (const { settle } of this.#inFlight.values()) settle({ kind: "died", alone });
      this.#inFlight.clear();
      resolveExited();
    };
    this.#child.on("exit", (exitCode, signal) => onGone("scraping process ended", { exitCode, signal }));
    this.#child.on("error", (error) => {
      // No process at all when it could not be forked; else `exit` follows.
      if (this.#child.pid === undefined) onGone("scraping process not started", { error });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get running(): number {
    return this.#inFlight.size;
  }

  get hasRoom(): boolean {
    return this.#inFlight.size < this.capacity;
  }

  /**
   * Only when `ready` and `hasRoom`. Never rejects.
   *
   * @param startBefore by `machineNowMs`
   */
  run(
    task: Task,
    options: {
      startBefore: number;
      onStarted?: ((agoMs: number) => void) | undefined;
      signal?: AbortSignal | undefined;
    },
  ): Promise<TaskEnd> {
    const id = ++this.#lastId;
    return new Promise<TaskEnd>((resolve) => {
      const cancel = () => this.#post({ kind: "cancel", id });
      const settle = (end: TaskEnd) => {
        options.signal?.removeEventListener("abort", cancel);
        resolve(end);
      };
      this.#alive ??= setInterval(() => this.#sayAlive(), ALIVE_EVERY_MS).unref();
      this.#inFlight.set(id, { onStarted: options.onStarted, settle });
      this.#post({ kind: "run", id, task, startBefore: options.startBefore });
      options.signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /** Ends the process; tasks in flight end as after a death. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_MS_MAX);
    if (this.#child.connected) this.#child.disconnect();
    await this.exited;
    clearTimeout(timer);
  }

  #receive(message: Exclude<FromScraping, { kind: "ready" }>): void {
    const task = this.#inFlight.get(message.id);
    if (task === undefined) return;
    if (message.kind === "started") {
      task.onStarted?.(Math.max(0, machineNowMs() - message.atMs));
    } else {
      this.#inFlight.delete(message.id);
      task.settle(unpack(message.end));
    }
  }

  #sayAlive(): void {
    if (this.#inFlight.size === 0) {
      clearInterval(this.#alive);
      this.#alive = undefined;
    } else if (this.#outbox.length === 0) this.#post({ kind: "alive" });
  }

  #post(message: ToScraping): void {
    this.#outbox.push(message);
    if (this.#outbox.length === 1) setImmediate(() => this.#flush());
    else if (this.#outbox.length >= BATCH_MAX) this.#flush();
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    const batch: ToScrapingBatch = { sentAtMs: machineNowMs(), messages: this.#outbox.splice(0) };
    // A failure to send is a death, which `exit` tells.
    if (this.#child.connected) this.#child.send(batch, () => {});
  }
}

function execArguments(): string[] {
  const flags = [
    // Native expressions of ours that backtrack too much go on in linear time.
    "--enable-experimental-regexp-engine-on-excessive-backtracks",
    // Known and meant so; anything else on standard error is worth reading.
    "--disable-warning=PERM0006",
    "--disable-warning=ExperimentalWarning",
    "--permission",
    "--allow-worker",
    ...[`${ROOT}src`, `${ROOT}workers`, `${ROOT}node_modules`, packagesFolder()].map(
      (folder) => `--allow-fs-read=${folder}/*`,
    ),
    `--allow-fs-read=${ROOT}package.json`,
  ];
  // Runtimes before 25 leave the network out of the permission model, and don't know the flag.
  if (process.allowedNodeEnvironmentFlags.has("--allow-net")) flags.push("--allow-net");
  return flags;
}

/** Where packages really stand: beside this one when it is installed as one of them, or behind a link. */
function packagesFolder(): string {
  const piscina = fileURLToPath(import.meta.resolve("piscina"));
  const folder = `${sep}node_modules`;
  return piscina.slice(0, piscina.lastIndexOf(folder + sep) + folder.length);
}

/** The line of what a dying process wrote that names the error; its stack is for the log. */
function headline(text: string): string | undefined {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.find((line) => line !== "");
}
