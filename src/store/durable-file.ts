/** Files that are either the old or the new one, whole, whatever dies in between. */
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/**
 * Written beside, fsynced, renamed, and the folder fsynced: when the promise
 * resolves, the file survives a power cut.
 *
 * @param temporaryDirectory on the same file system; emptied when the server starts.
 */
export async function writeDurably(
  path: string,
  bytes: Uint8Array,
  temporaryDirectory: string,
): Promise<void> {
  const temporary = join(temporaryDirectory, `${basename(path)}.${randomBytes(6).toString("hex")}`);
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Makes names that were added to or taken from a folder durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * With its parents, mode 0700; nothing happens when it is there. Each step is tried
 * once: Node's own recursive `mkdir` never ends where a folder refuses children
 * with ENOENT, as those of /proc do.
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (isSystemError(error, "EEXIST")) return;
    if (!isSystemError(error, "ENOENT") || dirname(path) === path) throw error;
    await makeDirectory(dirname(path));
    await mkdir(path, { mode: 0o700 });
  }
}

/** Whether `error` is one of the operating system, with one of these codes. */
export function isSystemError(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
