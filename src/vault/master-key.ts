/**
 * The key that opens the vault: 32 bytes in hexadecimal or base64, from a file, a
 * variable, or the output of a command (a secret store's client); else a file
 * made beside the data, which protects copies of parts of it, not of the whole.
 */
import { execFile } from "node:child_process";
import { createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { UsageError } from "../errors.ts";

const KEY_BYTES = 32;
const COMMAND_MS_MAX = 30_000;

/** At most one of them. */
export interface MasterKeySource {
  readonly masterKeyFile?: string | undefined;
  readonly masterKey?: string | undefined;
  readonly masterKeyCommand?: string | undefined;
}

/** Where a key is kept when none is configured; `write` is atomic and durable, mode 0600. */
export interface MasterKeyDirectory {
  readonly path: string;
  read(name: "master.key"): Promise<Uint8Array | undefined>;
  write(name: "master.key", content: string): Promise<void>;
}

/**
 * @param options.create make `master.key` when no source is given and there is none yet.
 * @throws {UsageError} says which source is wrong, and what to do.
 */
export async function readMasterKey(
  source: MasterKeySource,
  directory: MasterKeyDirectory,
  options: { readonly create: boolean },
): Promise<KeyObject> {
  const given = Object.entries(source).filter(([, value]) => value !== undefined);
  if (given.length > 1) {
    throw new UsageError(`give only one of ${given.map(([name]) => name).join(", ")}`);
  }
  const { masterKeyFile, masterKey, masterKeyCommand } = source;
  if (masterKeyFile !== undefined) return parse(await readKeyFile(masterKeyFile), masterKeyFile);
  if (masterKey !== undefined) return parse(masterKey, "masterKey");
  if (masterKeyCommand !== undefined) return parse(await runCommand(masterKeyCommand), "masterKeyCommand");

  const kept = await directory.read("master.key");
  if (kept !== undefined) return parse(Buffer.from(kept).toString("latin1"), `${directory.path}/master.key`);
  if (!options.create) {
    throw new UsageError(
      `${directory.path}/master.key is missing: put it back, or give the key that this server was set up with (masterKeyFile, ORBWEAVER_MASTER_KEY or masterKeyCommand)`,
    );
  }
  const made = randomBytes(KEY_BYTES);
  await directory.write("master.key", `${made.toString("hex")}\n`);
  return createSecretKey(made);
}

async function readKeyFile(path: string): Promise<string> {
  try {
    const { mode, uid } = await stat(path);
    // A file of root that a group may read is how orchestrators hand over secrets.
    const forbidden = uid === process.getuid?.() ? 0o077 : 0o007;
    if ((mode & forbidden) !== 0) throw new UsageError(`${path}: others can read this key; chmod 600 it`);
    return await readFile(path, "latin1");
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(
      `${path}: the master key can't be read (${reason(cause)}); check path and permissions`,
      {
        cause,
      },
    );
  }
}

async function runCommand(command: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)("/bin/sh", ["-c", command], {
      timeout: COMMAND_MS_MAX,
      maxBuffer: 65_536,
    });
    return stdout;
  } catch (cause) {
    // Neither its message nor its output is repeated: both may hold the key.
    const code = cause instanceof Error && "code" in cause ? ` with ${cause.code}` : "";
    throw new UsageError(`masterKeyCommand failed${code}; run it by hand to see why`);
  }
}

function parse(text: string, where: string): KeyObject {
  const trimmed = text.trim();
  const bytes = /^[0-9a-fA-F]{64}$/.test(trimmed)
    ? Buffer.from(trimmed, "hex")
    : /^[A-Za-z0-9+/_-]{43}=?$/.test(trimmed)
      ? Buffer.from(trimmed, "base64")
      : undefined;
  if (bytes?.length !== KEY_BYTES) {
    throw new UsageError(
      `${where}: a master key is 32 bytes, as 64 hex digits or base64; \`openssl rand -hex 32\` makes one`,
    );
  }
  return createSecretKey(bytes);
}

function reason(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
}
