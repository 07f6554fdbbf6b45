/**
 * The server's secrets at rest: data keys, naming secret, node key, each wrapped
 * by the master key, in one file. Envelope encryption: to change the master key
 * rewraps a few keys, not the data.
 *
 * Each start makes a new data key, so no nonce counter has to survive a crash.
 */
import assert from "node:assert/strict";
import { createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { z } from "zod";
import { DamagedError, UsageError } from "../errors.ts";
import { DataCipher, type DataKey } from "./data-cipher.ts";
import { NAMING_SECRET_BYTES } from "./naming.ts";
import { unwrap, wrap } from "./wrapping.ts";

const FILE = "vault.json";
const KEY_BYTES = 32;
const VALUES_PER_KEY = 2 ** 31;
const DATA_KEYS_MAX = 65_536;
const NAMING_SECRET = "naming";

const vaultSchema = z.strictObject({
  version: z.literal(1),
  /** In the order of their ids; the last one is that of the newest start. */
  dataKeys: z
    .array(z.strictObject({ id: z.int().min(1).max(0xffffffff), wrapped: z.base64() }))
    .min(1)
    .max(DATA_KEYS_MAX),
  secrets: z.record(z.string(), z.base64()),
});
type VaultFile = z.output<typeof vaultSchema>;

/** Where the vault lies; `write` is atomic and durable. */
export interface VaultDirectory {
  readonly path: string;
  read(name: typeof FILE): Promise<Uint8Array | undefined>;
  write(name: typeof FILE, content: string): Promise<void>;
}

interface VaultOptions {
  /** How many values one data key seals; 2^31 when left out. */
  readonly valuesPerKey?: number;
}

export class Vault {
  readonly #directory: VaultDirectory;
  readonly #masterKey: KeyObject;
  readonly #secrets: Map<string, Uint8Array>;
  readonly #cipher: DataCipher;
  #file: VaultFile;
  // Changes of the file, one after the other.
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    directory: VaultDirectory,
    masterKey: KeyObject,
    content: { file: VaultFile; dataKeys: DataKey[]; secrets: Map<string, Uint8Array> },
    options: VaultOptions,
  ) {
    this.#directory = directory;
    this.#masterKey = masterKey;
    this.#file = content.file;
    this.#secrets = content.secrets;
    const current = content.dataKeys.at(-1);
    assert(current !== undefined);
    this.#cipher = new DataCipher({
      keys: content.dataKeys,
      current,
      valuesMax: options.valuesPerKey ?? VALUES_PER_KEY,
      nextKey: () => this.#addDataKey(),
    });
  }

  /**
   * Everything in one durable write.
   *
   * @param content.namingSecret the cluster's, when this server joins one; made, when left out.
   * @throws {UsageError} there is a vault already.
   */
  static async create(
    directory: VaultDirectory,
    masterKey: KeyObject,
    content: {
      readonly namingSecret?: Uint8Array;
      readonly secrets?: Readonly<Record<string, Uint8Array>>;
    } = {},
    options: VaultOptions = {},
  ): Promise<Vault> {
    if ((await directory.read(FILE)) !== undefined) {
      throw new UsageError(
        `${directory.path} holds a ${FILE} already; open it, or use an empty data directory`,
      );
    }
    const namingSecret = content.namingSecret ?? randomBytes(NAMING_SECRET_BYTES);
    assert.equal(namingSecret.length, NAMING_SECRET_BYTES);
    const secrets = new Map([
      ...Object.entries(content.secrets ?? {}),
      [NAMING_SECRET, namingSecret],
    ] as const);
    const { key, wrapped } = makeDataKey(masterKey, 1);
    const file: VaultFile = {
      version: 1,
      dataKeys: [{ id: 1, wrapped }],
      secrets: Object.fromEntries(
        [...secrets].map(([name, secret]) => [name, wrap(masterKey, `secret/${name}`, secret)]),
      ),
    };
    await directory.write(FILE, json(file));
    return new Vault(directory, masterKey, { file, dataKeys: [key], secrets }, options);
  }

  /**
   * Adds the data key of this start; nothing is written unless everything opens.
   *
   * @throws {UsageError} no vault, or not its master key. @throws {DamagedError} a part of it can't be decoded.
   */
  static async open(
    directory: VaultDirectory,
    masterKey: KeyObject,
    options: VaultOptions = {},
  ): Promise<Vault> {
    const path = `${directory.path}/${FILE}`;
    const bytes = await directory.read(FILE);
    if (bytes === undefined) {
      throw new UsageError(
        `${path} is missing: restore it, without it the data of this server can't be read`,
      );
    }
    let file: VaultFile;
    try {
      file = vaultSchema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
    } catch (cause) {
      throw new DamagedError(`${path} can't be decoded; restore it from a copy`, { cause });
    }
    const wrapped = [
      ...file.dataKeys.map(({ id, wrapped }) => [`data/${id}`, wrapped] as const),
      ...Object.entries(file.secrets).map(([name, wrapped]) => [`secret/${name}`, wrapped] as const),
    ];
    const opened = new Map(wrapped.map(([name, text]) => [name, unwrap(masterKey, name, text)]));
    const closed = [...opened].filter(([, secret]) => secret === undefined).map(([name]) => name);
    if (closed.length === opened.size) {
      throw new UsageError(
        `the master key does not open ${path}: give the key that this server was set up with; nothing was changed`,
      );
    }
    if (closed.length > 0)
      throw new DamagedError(`${path}: ${closed.join(", ")} can't be opened; restore it from a copy`);

    const dataKeys = file.dataKeys.map(({ id }) => ({ id, key: createSecretKey(opened.get(`data/${id}`)!) }));
    const secrets = new Map(
      Object.keys(file.secrets).map((name) => [name, opened.get(`secret/${name}`)!] as const),
    );
    if (secrets.get(NAMING_SECRET)?.length !== NAMING_SECRET_BYTES) {
      throw new DamagedError(`${path}: the naming secret is missing; restore it from a copy`);
    }
    const next = extended(file, masterKey, path);
    await directory.write(FILE, json(next.file));
    return new Vault(
      directory,
      masterKey,
      { file: next.file, dataKeys: [...dataKeys, next.key], secrets },
      options,
    );
  }

  /** 32 bytes, the same on all servers of the cluster. */
  get namingSecret(): Uint8Array {
    return this.#secrets.get(NAMING_SECRET)!;
  }

  /** One for everything that this process seals: its nonces come from one counter. */
  cipher(): DataCipher {
    return this.#cipher;
  }

  /** Undefined when none was ever put under this name. */
  secret(name: string): Uint8Array | undefined {
    return this.#secrets.get(name);
  }

  /** Durable when it resolves. */
  async putSecret(name: string, secret: Uint8Array): Promise<void> {
    assert(name !== NAMING_SECRET, "the naming secret never changes");
    await this.#change((file) => ({
      ...file,
      secrets: { ...file.secrets, [name]: wrap(this.#masterKey, `secret/${name}`, secret) },
    }));
    this.#secrets.set(name, secret);
  }

  async #addDataKey(): Promise<DataKey> {
    let added: DataKey | undefined;
    await this.#change((file) => {
      const next = extended(file, this.#masterKey, this.#directory.path);
      added = next.key;
      return next.file;
    });
    assert(added !== undefined);
    return added;
  }

  #change(change: (file: VaultFile) => VaultFile): Promise<void> {
    const done = this.#writing.then(async () => {
      const file = change(this.#file);
      await this.#directory.write(FILE, json(file));
      this.#file = file;
    });
    this.#writing = done.catch(() => {});
    return done;
  }
}

function makeDataKey(masterKey: KeyObject, id: number): { key: DataKey; wrapped: string } {
  const bytes = randomBytes(KEY_BYTES);
  return { key: { id, key: createSecretKey(bytes) }, wrapped: wrap(masterKey, `data/${id}`, bytes) };
}

function extended(file: VaultFile, masterKey: KeyObject, path: string): { file: VaultFile; key: DataKey } {
  if (file.dataKeys.length >= DATA_KEYS_MAX) {
    throw new UsageError(
      `${path} holds ${DATA_KEYS_MAX} data keys, as many as it may; replace this server by a new one`,
    );
  }
  const id = file.dataKeys.at(-1)!.id + 1;
  const { key, wrapped } = makeDataKey(masterKey, id);
  return { file: { ...file, dataKeys: [...file.dataKeys, { id, wrapped }] }, key };
}

function json(file: VaultFile): string {
  return `${JSON.stringify(file, null, 2)}\n`;
}
