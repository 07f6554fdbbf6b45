/** The command line as a person has it: a process, its output, its exit code. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../../src/cli/orbweaver.js", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Of Node, before the program. */
  readonly nodeFlags?: readonly string[];
}

export class RunningCommand {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  #stdout = "";
  #stderr = "";
  readonly #watchers = new Set<() => void>();

  constructor(args: readonly string[], { cwd, env = {}, nodeFlags = [] }: CommandOptions) {
    this.process = spawn(process.execPath, [...nodeFlags, PROGRAM, ...args], {
      cwd,
      // Settings of whoever runs the tests must not reach it.
      env: { PATH: process.env.PATH, HOME: cwd, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.process.stdout?.on("data", (chunk) => {
      this.#stdout += String(chunk);
      for (const look of this.#watchers) look();
    });
    this.process.stderr?.on("data", (chunk) => {
      this.#stderr += String(chunk);
      for (const look of this.#watchers) look();
    });
    this.ended = once(this.process, "close").then(([code]) => ({
      code: code as number | null,
      stdout: this.#stdout,
      stderr: this.#stderr,
    }));
  }

  /** Resolves when either output has matched; rejects when it ends before. */
  async said(pattern: RegExp): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (pattern.test(this.#stdout) || pattern.test(this.#stderr)) resolve();
    };
    this.#watchers.add(look);
    look();
    const early = this.ended.then(({ stdout, stderr }) => {
      look();
      throw new Error(`it ended without saying ${pattern}:\n${stdout}\n${stderr}`);
    });
    early.catch(() => {});
    await Promise.race([promise, early]);
    this.#watchers.delete(look);
  }
}

export function orbweaver(args: readonly string[], options: CommandOptions): Promise<Ended> {
  return new RunningCommand(args, options).ended;
}
