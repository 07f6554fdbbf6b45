/** The folder that holds a whole ring on one machine: made when it is not there. */
import { readdir } from "node:fs/promises";
import { makeDirectory } from "../store/durable-file.ts";

/**
 * Names of what lies in it.
 *
 * @throws the operating system's error, when the folder can't be made or read.
 */
export async function openRingFolder(path: string): Promise<string[]> {
  await makeDirectory(path);
  return readdir(path);
}
