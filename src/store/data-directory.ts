/**
 * The folder in which everything of one server lies, and who this server is: its
 * identity, the list of its starts, its contacts. Whoever opens it holds it alone.
 */
import { randomBytes } from "node:crypto";
import { access, chmod, constants, readdir, readFile, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { DamagedError, StaleDataDirectoryError, UsageError } from "../errors.ts";
import { DirectoryLock } from "./directory-lock.ts";
import { isSystemError, makeDirectory, writeDurably } from "./durable-file.ts";

const INSTANCES_MAX = 1_000;

const randomIdSchema = z.string().regex(/^[0-9a-f]{16}$/);

const identitySchema = z.strictObject({
  version: z.literal(1),
  clusterId: z.string().min(1).max(128),
  nodeId: z.string().regex(/^[0-9a-f]{40}$/),
  /** Counts the starts. */
  incarnation: z.int().min(0),
  /** A random id of each start, newest last: peers that saw one which is missing here know an old copy. */
  instances: z.array(randomIdSchema).max(INSTANCES_MAX),
  /** False until the first server of a cluster has written everything that makes one. */
  bootstrapped: z.boolean(),
  /** Peers have seen a later start than this directory knows of, or it was removed: it must not start again. */
  stale: z.boolean().optional(),
  /** What the server was last told that it shares with others that fail together. */
  zone: z.string().max(64).optional(),
  /** Which store belongs here, once there is one. */
  store: z
    .strictObject({
      /** Stands in the store too, new with each start: another store, or an older copy, has not the same. */
      mark: randomIdSchema,
      /** The one that is being put in its place. */
      next: randomIdSchema.optional(),
      /** Replicas without a record of their own are this serial of this server: never one that was lost with a store. */
      firstSerial: z.int().min(1),
    })
    .optional(),
});

export type Identity = Readonly<z.output<typeof identitySchema>>;
export type StoreIdentity = Readonly<NonNullable<Identity["store"]>>;

/** Small files that others keep here; 0600, replaced as a whole. */
export type DataFile =
  | "node.crt"
  | "ca.crt"
  | "client.json"
  | "vault.json"
  | "master.key"
  | "removed.json"
  | "scrub.json";

export class DataDirectory {
  /** Absolute. */
  readonly path: string;
  readonly #lock: DirectoryLock;
  #identity: Identity | undefined;
  // Writes of identity.json, one after the other: the second must not overtake the first.
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(path: string, lock: DirectoryLock, identity: Identity | undefined) {
    this.path = path;
    this.#lock = lock;
    this.#identity = identity;
  }

  /**
   * @param options.create make it when it is not there.
   * @throws {UsageError} it is in use, is not there, or can't be read and written.
   * @throws {DamagedError} identity.json can't be decoded.
   */
  static async open(path: string, options: { readonly create: boolean }): Promise<DataDirectory> {
    const full = resolve(path);
    await usable(full, async () => {
      if (options.create) await makeDirectory(full);
      await readdir(full);
      await access(full, constants.R_OK | constants.W_OK | constants.X_OK);
      await chmod(full, 0o700);
    });
    const lock = await usable(full, () => DirectoryLock.take(full));
    try {
      await usable(full, async () => {
        await rm(join(full, "tmp"), { recursive: true, force: true });
        for (const folder of ["tmp", "quarantine", "blobs", "store"]) {
          await makeDirectory(join(full, folder));
        }
      });
      const identity = await usable(full, () => readJson(join(full, "identity.json"), identitySchema));
      return new DataDirectory(full, lock, identity);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  get storePath(): string {
    return join(this.path, "store");
  }

  get blobsPath(): string {
    return join(this.path, "blobs");
  }

  /** For files that are not finished; emptied at each start. */
  get temporaryPath(): string {
    return join(this.path, "tmp");
  }

  /** For what could not be read, kept for people to look at. */
  get quarantinePath(): string {
    return join(this.path, "quarantine");
  }

  /** Undefined in a directory that was never bootstrapped or joined. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Durable when it resolves. Written last at join and bootstrap: without it, nothing else in here counts. */
  async writeIdentity(identity: Identity): Promise<void> {
    await this.#changeIdentity(() => identitySchema.parse(identity));
  }

  /**
   * A new start: incarnation + 1 and a new instance, durable before anybody hears of them.
   *
   * @param zone kept for starts that are not told one; "": the one that is kept.
   * @throws {StaleDataDirectoryError} `markStale` was called, in this or an earlier start.
   */
  nextStart(zone: string): Promise<Identity> {
    return this.#changeIdentity(() => {
      const identity = this.#known();
      if (identity.stale) throw stale(this.path);
      const instances = [...identity.instances, randomBytes(8).toString("hex")].slice(-INSTANCES_MAX);
      const told = zone === "" ? {} : { zone };
      return { ...identity, incarnation: identity.incarnation + 1, instances, ...told };
    });
  }

  /** The cluster of which this is the first server stands. */
  async markBootstrapped(): Promise<void> {
    await this.#changeIdentity(() => ({ ...this.#known(), bootstrapped: true }));
  }

  /** Durable before the store is used accordingly. */
  async writeStoreIdentity(store: StoreIdentity): Promise<void> {
    await this.#changeIdentity(() => ({ ...this.#known(), store }));
  }

  /** A peer has seen a later start of this node: this copy must never look newer by starting again. */
  async markStale(): Promise<void> {
    await this.#changeIdentity(() => ({ ...this.#known(), stale: true }));
  }

  /** @throws {DamagedError} contacts.json does not fit `schema`. Empty when there is none. */
  async readContacts<T>(schema: z.ZodType<T>): Promise<T[]> {
    return (await readJson(join(this.path, "contacts.json"), z.array(schema))) ?? [];
  }

  /** What is there can't be read: it goes to quarantine, and the next write makes it anew. */
  async setContactsAside(): Promise<void> {
    await rename(join(this.path, "contacts.json"), join(this.quarantinePath, "contacts.json"));
  }

  writeContacts(contacts: readonly unknown[]): Promise<void> {
    return this.#write("contacts.json", json(contacts));
  }

  /** Undefined when there is none. */
  async read(name: DataFile): Promise<Buffer | undefined> {
    return usable(this.path, () => readIfThere(join(this.path, name)));
  }

  /** Atomic and durable. */
  async write(name: DataFile, content: string | Uint8Array): Promise<void> {
    await this.#write(name, typeof content === "string" ? Buffer.from(content, "utf8") : content);
  }

  /** Another process may have it from now on. */
  async close(): Promise<void> {
    await this.#writing;
    await this.#lock.release();
  }

  #known(): Identity {
    if (this.#identity === undefined) throw new UsageError(`${this.path} holds no server yet`);
    return this.#identity;
  }

  #changeIdentity(change: () => Identity): Promise<Identity> {
    const done = this.#writing.then(async () => {
      const identity = change();
      await this.#write("identity.json", json(identity));
      this.#identity = identity;
      return identity;
    });
    this.#writing = done.catch(() => {});
    return done;
  }

  #write(name: string, bytes: Uint8Array): Promise<void> {
    return usable(this.path, () => writeDurably(join(this.path, name), bytes, this.temporaryPath));
  }
}

function stale(path: string): StaleDataDirectoryError {
  return new StaleDataDirectoryError(
    `${path} is an old copy, or of a server that was removed: the cluster takes nothing of it any more. Start it as a new one: --as-new --join HOST:PORT --join-token-file FILE`,
  );
}

function json(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`, "utf8");
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isSystemError(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const bytes = await readIfThere(path);
  if (bytes === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(bytes.toString("utf8")));
  } catch (cause) {
    throw new DamagedError(
      `${path} can't be decoded; restore it from a copy, or use an empty data directory`,
      {
        cause,
      },
    );
  }
}

/** What the operating system refuses is a wrong directory: one message for all of it. */
async function usable<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (isSystemError(cause, "ENOENT")) {
      throw new UsageError(`${path}: there is no such data directory; --bootstrap or --join makes one`, {
        cause,
      });
    }
    if (!(cause instanceof Error && "syscall" in cause && "code" in cause)) throw cause;
    throw new UsageError(
      `${path} can't be used as data directory (${cause.code}): it must be a folder that this user may read and write`,
      { cause },
    );
  }
}
