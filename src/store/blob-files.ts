/**
 * Blobs as files: named by a keyed hash, sealed as a whole, never changed. A file
 * is there whole or not at all: it gets its name only once its content is durable.
 */
import { opendir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { InvalidInputError } from "../errors.ts";
import { isSystemError, makeDirectory, syncDirectory, writeDurably } from "./durable-file.ts";
import { openBytes, type StoreCipher, sealBytes } from "./encryption.ts";

export class BlobFiles {
  readonly #directory: string;
  readonly #temporary: string;
  readonly #quarantine: string;
  readonly #cipher: StoreCipher;

  /** All of these directories exist, on one file system. Blobs lie in 256 folders, by the first two digits of their name. */
  constructor(
    paths: { readonly blobs: string; readonly temporary: string; readonly quarantine: string },
    cipher: StoreCipher,
  ) {
    this.#directory = paths.blobs;
    this.#temporary = paths.temporary;
    this.#quarantine = paths.quarantine;
    this.#cipher = cipher;
  }

  /** Durable when the promise resolves. @param name 32 to 64 hex digits. */
  async put(name: string, bytes: Uint8Array): Promise<void> {
    const path = this.#path(name);
    const sealed = sealBytes(this.#cipher, place(name), bytes);
    try {
      await writeDurably(path, sealed, this.#temporary);
    } catch (error) {
      if (!isSystemError(error, "ENOENT")) throw error;
      await makeDirectory(dirname(path));
      await syncDirectory(this.#directory);
      await writeDurably(path, sealed, this.#temporary);
    }
  }

  /** Undefined only ever means absent. @throws {DamagedError} it is there, but not as it was written. */
  async get(name: string): Promise<Uint8Array | undefined> {
    const path = this.#path(name);
    let sealed: Uint8Array;
    try {
      sealed = await readFile(path);
    } catch (error) {
      if (isSystemError(error, "ENOENT")) return undefined;
      throw error;
    }
    return openBytes(this.#cipher, place(name), sealed, () => `blob ${path}`);
  }

  /** Whether the file is there; it may be damaged. */
  async has(name: string): Promise<boolean> {
    try {
      await stat(this.#path(name));
      return true;
    } catch (error) {
      if (isSystemError(error, "ENOENT")) return false;
      throw error;
    }
  }

  /** Nothing happens when it is not there. */
  async delete(name: string): Promise<void> {
    const path = this.#path(name);
    try {
      await rm(path);
      await syncDirectory(dirname(path));
    } catch (error) {
      if (!isSystemError(error, "ENOENT")) throw error;
    }
  }

  /** Takes it away from the others, to be looked at by people; a look at so many is enough. */
  async setAside(name: string): Promise<void> {
    const path = this.#path(name);
    const kept = (await readdir(this.#quarantine)).filter((file) => file.startsWith("blob-")).length;
    try {
      if (kept < QUARANTINED_MAX) await rename(path, join(this.#quarantine, `blob-${name}`));
      else await rm(path);
      await syncDirectory(dirname(path));
    } catch (error) {
      if (!isSystemError(error, "ENOENT")) throw error;
    }
  }

  /** All names, in no order; those put or deleted meanwhile may be in it or not. */
  async *list(): AsyncGenerator<string> {
    for await (const folder of await opendir(this.#directory)) {
      if (!/^[0-9a-f]{2}$/.test(folder.name)) continue;
      for await (const file of await opendir(join(this.#directory, folder.name))) {
        if (NAME.test(file.name)) yield file.name;
      }
    }
  }

  #path(name: string): string {
    if (!NAME.test(name)) throw new InvalidInputError("the name of a blob has 32 to 64 hex digits");
    return join(this.#directory, name.slice(0, 2), name);
  }
}

const QUARANTINED_MAX = 256;
const NAME = /^[0-9a-f]{32,64}$/;

/** What a blob is bound to; no key of the table begins like this. */
function place(name: string): string {
  return `blob/${name}`;
}
