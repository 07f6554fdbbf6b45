/**
 * The store of one server, and whether it is the one that belongs to its
 * directory. What a store holds are promises too: one that is gone, damaged or an
 * older copy must not be taken for one that never promised anything. So directory
 * and store bear the same mark, renewed with each start; where it differs, the
 * store goes to quarantine, and replicas without a record of their own have
 * serials from then on that were never used.
 */
import { randomBytes } from "node:crypto";
import { readdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { DamagedError } from "../errors.ts";
import type { DataDirectory, StoreIdentity } from "./data-directory.ts";
import { makeDirectory, syncDirectory } from "./durable-file.ts";
import type { StoreCipher } from "./encryption.ts";
import { LevelStore } from "./level-store.ts";

/** What is lost more often than that is not looked at by anybody. */
const QUARANTINED_MAX = 4;
/** Serials that a store may have used up by itself, counting on from its first one. */
const SERIALS_RESERVED = 1_000_000;

export interface ServerStore {
  readonly store: LevelStore;
  /** As of `StoreIdentity`. */
  readonly firstSerial: number;
  /** Set when the store before could not be used: why, and where it lies now. */
  readonly lost: { readonly error: DamagedError; readonly quarantine: string } | undefined;
}

/**
 * @param mayLose whether others can bring back what this server's store held.
 * @throws {DamagedError} it is damaged, and nobody else has what it holds.
 * @throws {UsageError} the disk refuses.
 */
export async function openServerStore(
  directory: DataDirectory,
  cipher: StoreCipher,
  mayLose: boolean,
): Promise<ServerStore> {
  const known = directory.identity?.store;
  let store: LevelStore | undefined;
  try {
    store = await LevelStore.open(directory.storePath, cipher);
    requireOwn(store, known);
    const firstSerial = known?.firstSerial ?? 1;
    await renewMark(directory, store, { mark: known?.mark ?? newMark(), firstSerial });
    return { store, firstSerial, lost: undefined };
  } catch (error) {
    await store?.close();
    if (!(error instanceof DamagedError)) throw error;
    if (!mayLose) {
      throw new DamagedError(
        `${error.message}. No other server is known that holds the same, so it was left as it is: restore the whole data directory from a copy, or make a new cluster in an empty one`,
        { cause: error },
      );
    }
    const { mark, firstSerial } = await setStoreAside(directory);
    const fresh = await LevelStore.open(directory.storePath, cipher);
    await fresh.writeMark(mark);
    return { store: fresh, firstSerial, lost: { error, quarantine: directory.quarantinePath } };
  }
}

/**
 * The files of a store that is closed go to quarantine. The one that is opened in
 * their place must be given the mark before anything else.
 */
export async function setStoreAside(directory: DataDirectory): Promise<StoreIdentity> {
  const known = directory.identity?.store;
  // Greater than any that came before: those count up from the first one, or are an earlier time.
  const firstSerial = Math.max(Date.now(), (known?.firstSerial ?? 1) + SERIALS_RESERVED);
  const identity = { mark: newMark(), firstSerial };
  // Before anything can be promised under the new serials.
  await directory.writeStoreIdentity(identity);
  const kept = join(directory.quarantinePath, `store-${new Date().toISOString().replace(/[:.]/g, "-")}`);
  await rename(directory.storePath, kept);
  await makeDirectory(directory.storePath);
  await syncDirectory(directory.path);
  await dropOldest(directory.quarantinePath);
  return identity;
}

/**
 * Whenever the store was opened, before it is used.
 *
 * @throws {DamagedError} the directory has seen another store than this one.
 */
export function requireOwn(store: LevelStore, known: StoreIdentity | undefined): void {
  if (known === undefined) return;
  const mark = store.mark();
  if (mark !== undefined && (mark === known.mark || mark === known.next)) return;
  const what = mark === undefined ? "is empty" : "is an older copy, or another server's";
  throw new DamagedError(`${store.directory} ${what}: what this server promised is not in it`);
}

/** A crash at any point leaves the store with one of the two marks that the directory knows. */
async function renewMark(directory: DataDirectory, store: LevelStore, { mark, firstSerial }: StoreIdentity) {
  const present = store.mark() ?? mark;
  const next = newMark();
  await directory.writeStoreIdentity({ mark: present, next, firstSerial });
  await store.writeMark(next);
  await directory.writeStoreIdentity({ mark: next, firstSerial });
}

async function dropOldest(quarantine: string): Promise<void> {
  const names = (await readdir(quarantine)).filter((name) => name.startsWith("store-")).sort();
  for (const name of names.slice(0, -QUARANTINED_MAX)) {
    await rm(join(quarantine, basename(name)), { recursive: true, force: true });
  }
}

function newMark(): string {
  return randomBytes(8).toString("hex");
}
