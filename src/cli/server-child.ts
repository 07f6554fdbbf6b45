/** A server in a process of its own, started again when it dies without having been told to. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { UnavailableError, UsageError } from "../errors.ts";
import { SERVER_NODE_FLAGS } from "./node-flags.ts";
import { ServerLog } from "./server-log.ts";

const PROGRAM = fileURLToPath(new URL("./orbweaver.js", import.meta.url));
const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 25_000;
const RESTART_MS_MIN = 500;
const RESTART_MS_MAX = 30_000;
/** Having lived this long, it is taken to be well again. */
const WELL_MS = 60_000;

const readySchema = z.object({
  event: z.enum(["ready", "waiting"]),
  edge: z.string(),
  peer: z.string(),
  nodeId: z.string(),
  /** What it waits for. */
  reasons: z.array(z.string()).default([]),
});
/** `waiting`: it is up, and goes on trying. */
export type ServerReady = z.output<typeof readySchema>;

export class ServerChild {
  readonly name: string;
  readonly #flags: readonly string[];
  readonly #print: (line: string) => void;
  readonly #log: ServerLog;
  #process: ChildProcess | undefined;
  #isStopping = false;
  #isWatched = false;
  #restartMs = RESTART_MS_MIN;
  #restarting: NodeJS.Timeout | undefined;

  /** @param flags of every start. @param logFile takes all that it logs. @param print takes what people should know of it. */
  constructor(
    name: string,
    flags: readonly string[],
    { logFile, print }: { readonly logFile: string; readonly print: (line: string) => void },
  ) {
    this.name = name;
    this.#flags = flags;
    this.#print = (line) => print(`${name}: ${line}`);
    this.#log = new ServerLog(logFile, this.#print);
  }

  /**
   * Resolves when the server is ready; it is watched from then on. One that was a member
   * before may wait for others for as long as it takes: then with what it waits for.
   *
   * @param more flags of this start only; none: it has its data.
   * @throws {UsageError} it ended before: with what it said.
   */
  async start(more: readonly string[] = []): Promise<ServerReady> {
    const ready = await this.#launch(more);
    this.#watch();
    return ready;
  }

  /** In good order as far as it can, within a bounded time. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    clearTimeout(this.#restarting);
    const child = this.#process;
    if (child === undefined || hasEnded(child)) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
    await ended;
    clearTimeout(timer);
    this.#log.close();
  }

  async #launch(more: readonly string[]): Promise<ServerReady> {
    const startedMs = performance.now();
    const program = [...SERVER_NODE_FLAGS, PROGRAM, "server", "--json"];
    const child = spawn(process.execPath, [...program, ...this.#flags, ...more], {
      // A group of its own, so that Ctrl-C reaches only us; the channel tells it when we are gone.
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#process = child;
    this.#log.begin();
    createInterface({ input: child.stderr! }).on("line", (line) => {
      // What ends the first start is told by whoever asked for it.
      this.#log.take(line, this.#isWatched || !line.startsWith("orbweaver: "));
    });
    const { promise, resolve, reject } = Promise.withResolvers<ServerReady>();
    let waiting: ServerReady | undefined;
    let isLate = false;
    createInterface({ input: child.stdout! }).on("line", (line) => {
      const said = readReady(line);
      if (said?.event === "ready") {
        if (isLate) this.#print("is ready now");
        resolve(said);
      } else waiting = said ?? waiting;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      const said = this.#log.lastWords() || `ended with ${signal ?? code}`;
      reject(new UsageError(`${this.name} did not start: ${said.replace(/^orbweaver: /, "")}`));
      if (performance.now() - startedMs > WELL_MS) this.#restartMs = RESTART_MS_MIN;
    });
    const timer = setTimeout(() => {
      if (waiting !== undefined && more.length === 0) {
        isLate = true;
        this.#print(`is not ready yet: ${waiting.reasons.join("; ")}`);
        return resolve(waiting);
      }
      reject(
        new UnavailableError(
          `${this.name} was not ready within ${READY_MS_MAX / 1000} s; ${this.#log.path} says what it waited for`,
        ),
      );
      child.kill("SIGKILL");
    }, READY_MS_MAX);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  #watch(): void {
    this.#isWatched = true;
    const child = this.#process!;
    const onExit = () => {
      if (this.#isStopping) return;
      this.#print(`ended unexpectedly; it is started again in ${this.#restartMs} ms`);
      this.#restarting = setTimeout(() => void this.#restart(), this.#restartMs);
      this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX);
    };
    if (hasEnded(child)) onExit();
    else child.once("exit", onExit);
  }

  async #restart(): Promise<void> {
    if (this.#isStopping) return;
    try {
      await this.#launch([]);
      this.#print("is back");
    } catch {
      // Its own lines were printed; it is tried again like after any other end.
    }
    if (!this.#isStopping) this.#watch();
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function readReady(line: string): ServerReady | undefined {
  try {
    return readySchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined; // Not every line has to be for us.
  }
}
