/** The embedded default: a partition store on LevelDB, in one directory that one process holds. */
import { ClassicLevel } from "classic-level";
import { Keyv } from "keyv";
import { DamagedError, UsageError } from "../errors.ts";
import { makeDirectory } from "./durable-file.ts";
import type { StoreCipher } from "./encryption.ts";
import { KeyvStore } from "./keyv-store.ts";
import { binaryKeys, LevelAdapter } from "./level-adapter.ts";
import { checkLevelLogs } from "./level-log.ts";
import type { Store } from "./store.ts";

/**
 * Made when it is not there yet.
 *
 * @throws {UsageError} the directory is in use or can't be used.
 * @throws {DamagedError} LevelDB's own files can't be read.
 */
export async function openLevelStore(directory: string, cipher: StoreCipher): Promise<Store> {
  await makeDirectory(directory).catch((error) => {
    throw openError(directory, error);
  });
  await checkLevelLogs(directory);
  const level = new ClassicLevel<string, Buffer>(directory, {
    keyEncoding: binaryKeys,
    valueEncoding: "buffer",
    // Sealed records don't get any smaller.
    compression: false,
  });
  try {
    await level.open();
  } catch (error) {
    throw openError(directory, error);
  }
  try {
    return await KeyvStore.open(directory, new Keyv<string>({ store: new LevelAdapter(level) }), cipher);
  } catch (error) {
    await level.close();
    throw error;
  }
}

function openError(directory: string, error: unknown): Error {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "LEVEL_LOCKED") {
    return new UsageError(`${directory} is in use by another process; stop that one first`, { cause });
  }
  if (code === "LEVEL_CORRUPTION") {
    return new DamagedError(
      `${directory} is damaged and was not opened; keep a copy, then start this server with an empty data directory`,
      { cause },
    );
  }
  const message = cause instanceof Error ? cause.message : String(cause);
  return new UsageError(`${directory} can't be opened (${message}); check permissions and free space`, {
    cause,
  });
}
