/**
 * One process per data directory. The lock names its holder by process id and by
 * when that process began, so an id that was given out again, after a reboot or
 * in a new container, doesn't block. LevelDB's own lock, which the operating
 * system drops with the process, stands behind it.
 */
import { randomBytes } from "node:crypto";
import { link, readFile, readlink, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { UsageError } from "../errors.ts";
import { isSystemError } from "./durable-file.ts";

const holderSchema = z.object({
  pid: z.int().min(1),
  /** Boot id, pid namespace and start time of the process, as far as the system tells; else empty. */
  birth: z.string(),
});
type Holder = z.output<typeof holderSchema>;

export class DirectoryLock {
  readonly #path: string;
  readonly #text: string;

  private constructor(path: string, text: string) {
    this.#path = path;
    this.#text = text;
  }

  /** @throws {UsageError} a living process holds the directory. */
  static async take(directory: string): Promise<DirectoryLock> {
    const path = join(directory, "LOCK");
    const text = `${JSON.stringify({ pid: process.pid, birth: await birthOf(process.pid) })}\n`;
    // Of this attempt alone: the lock is the same file, so another one of this process would overwrite it.
    const own = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
    await writeFile(own, text, { mode: 0o600 });
    try {
      // Two tries: a stale lock is moved away once; whoever is in the way after that has just taken it.
      for (let last = false; ; last = true) {
        try {
          // A link appears with its content, so nobody reads a lock that is half written.
          await link(own, path);
          return new DirectoryLock(path, text);
        } catch (error) {
          if (!isSystemError(error, "EEXIST")) throw error;
        }
        const found = await readFile(path, "utf8").catch(() => "");
        const holder = parse(found);
        if (last || (holder !== undefined && (await isAlive(holder)))) throw inUse(directory, holder);
        await moveAway(path, found, `${own}.stale`);
      }
    } finally {
      await rm(own, { force: true });
    }
  }

  async release(): Promise<void> {
    const found = await readFile(this.#path, "utf8").catch(() => "");
    if (found === this.#text) await rm(this.#path, { force: true });
  }
}

function inUse(directory: string, holder: Holder | undefined): UsageError {
  const who = holder === undefined ? "another process" : `process ${holder.pid}`;
  return new UsageError(
    `${directory} is in use by ${who}; stop it first, or give this server another data directory (--data)`,
  );
}

function parse(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    // Cut short by a crash of the machine: its writer is gone.
    return undefined;
  }
}

async function isAlive(holder: Holder): Promise<boolean> {
  const birth = await birthOf(holder.pid);
  if (birth !== "" && holder.birth !== "") return birth === holder.birth;
  try {
    process.kill(holder.pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives, and is another user's.
    return isSystemError(error, "EPERM");
  }
}

/** Takes the stale lock out of the way, and puts it back if somebody has replaced it meanwhile. */
async function moveAway(path: string, stale: string, aside: string): Promise<void> {
  try {
    await rename(path, aside);
  } catch (error) {
    if (isSystemError(error, "ENOENT")) return;
    throw error;
  }
  const moved = await readFile(aside, "utf8");
  if (moved !== stale) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

async function birthOf(pid: number): Promise<string> {
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const namespace = await readlink("/proc/self/ns/pid");
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    // The name in brackets may hold anything; the start time is the 20th field after it (proc(5), field 22).
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${boot} ${namespace} ${started}`;
  } catch {
    // No such process, or a system without /proc.
    return "";
  }
}
