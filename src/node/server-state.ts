/**
 * What a server is when it starts: its directory, its vault, which member of
 * which cluster. An empty directory becomes a new server, by making a cluster or
 * by joining one; any other one is started again as who it was, whatever the
 * flags say, so that one command line is good for the first start and all later ones.
 */
import { existsSync } from "node:fs";
import { readdir, rename } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { ServerSettings } from "../config.ts";
import { DamagedError, UsageError } from "../errors.ts";
import { readCertificate } from "../identity/certificate-authority.ts";
import type { JoinToken } from "../identity/join-token.ts";
import type { Log } from "../log.ts";
import { DataDirectory, type Identity } from "../store/data-directory.ts";
import { DirectoryLock } from "../store/directory-lock.ts";
import { makeDirectory } from "../store/durable-file.ts";
import { readMasterKey } from "../vault/master-key.ts";
import { Vault } from "../vault/vault.ts";
import { createCluster, isFounder, readAdminPassword } from "./bootstrap.ts";
import { joinCluster, readTokenFile } from "./joining.ts";
import { type Membership, readCredentials, readMembership, showCertificates } from "./membership.ts";
import { chooseAddresses, readHostPort, type ServerAddresses } from "./server-addresses.ts";

export interface ServerState {
  readonly directory: DataDirectory;
  readonly vault: Vault;
  readonly membership: Membership;
  /** Of this start. */
  readonly identity: Identity;
  readonly addresses: ServerAddresses;
  /** Set while the cluster's first server has not finished making it. */
  readonly founding: { readonly adminPassword: string | undefined } | undefined;
}

/** What may lie in a directory that holds no server yet. */
const EMPTY = new Set([
  "LOCK",
  "master.key",
  "vault.json",
  "tmp",
  "quarantine",
  "blobs",
  "store",
  "lost+found",
]);

/**
 * The directory is locked until `directory.close`; when this rejects it is free again.
 *
 * @throws {UsageError} settings and directory don't fit: says what to do.
 * @throws {StaleDataDirectoryError} the directory is an old copy.
 */
export async function openServerState(settings: ServerSettings, log: Log): Promise<ServerState> {
  const path = resolve(settings.data);
  const isMaking = settings.bootstrap || settings.join !== undefined;
  if (settings.asNew) await setAside(path, settings);
  await requireServerOrEmpty(path, isMaking);
  const isNew = !existsSync(join(path, "identity.json"));
  // A token that can't be read leaves nothing behind; a server that was let in needs none any more.
  if (isMaking && isNew && settings.joinTokenFile !== undefined) await readTokenFile(settings.joinTokenFile);
  // Nor does a port that can't be had.
  if (isMaking && isNew) await chooseAddresses(settings);
  const directory = await DataDirectory.open(path, { create: isMaking });
  try {
    return directory.identity === undefined
      ? await firstStart(directory, settings, log)
      : await restart(directory, directory.identity, settings, log);
  } catch (error) {
    await directory.close();
    throw error;
  }
}

async function firstStart(
  directory: DataDirectory,
  settings: ServerSettings,
  log: Log,
): Promise<ServerState> {
  // All that the person gave is looked at before anything is written.
  const { join: contact, joinTokenFile } = settings;
  const token = joinTokenFile === undefined ? undefined : await readTokenFile(joinTokenFile);
  const adminPassword = await adminPasswordOf(settings);
  const addresses = await chooseAddresses(settings);
  const masterKey = await readMasterKey(masterKeySource(settings), directory, { create: true });
  const kept =
    (await directory.read("vault.json")) === undefined ? undefined : await Vault.open(directory, masterKey);

  let vault = kept;
  if (vault === undefined || readMembership(vault) === undefined) {
    vault =
      token === undefined || contact === undefined
        ? await createCluster({ directory, masterKey, addresses, ...sizeOf(settings) })
        : await joinCluster({
            directory,
            masterKey,
            kept,
            token,
            contact: readHostPort(contact),
            addresses,
            zone: settings.zone,
            log,
          });
  }
  const membership = requireMembership(vault, directory);
  const { clusterId, nodeId } = membership;
  await showCertificates(directory, readCredentials(vault));
  // Last: until it is there, the next start takes up what is in the vault.
  await directory.writeIdentity({
    version: 1,
    clusterId,
    nodeId,
    incarnation: 0,
    instances: [],
    bootstrapped: !isFounder(vault),
  });
  const identity = await directory.nextStart(settings.zone);
  const founding = identity.bootstrapped ? undefined : { adminPassword };
  return { directory, vault, membership, identity, addresses, founding };
}

async function restart(
  directory: DataDirectory,
  known: Identity,
  settings: ServerSettings,
  log: Log,
): Promise<ServerState> {
  if (!known.bootstrapped && settings.join !== undefined) {
    throw new UsageError(
      `${directory.path} holds a cluster that was not finished: start it with --bootstrap, or use an empty data directory to join one`,
    );
  }
  if (settings.join !== undefined && settings.joinTokenFile !== undefined) {
    // The same command line after a restart is right; a token of another cluster is a mix-up of folders.
    const token = await readTokenFile(settings.joinTokenFile).catch(() => undefined);
    if (token !== undefined && token.clusterId !== known.clusterId) {
      throw new UsageError(
        `${directory.path} holds server ${known.nodeId.slice(0, 8)} of another cluster than the join token is of; give an empty data directory, or add --as-new to set this one aside`,
      );
    }
  }
  const adminPassword = known.bootstrapped ? undefined : await adminPasswordOf(settings);
  const addresses = await chooseAddresses(settings);
  const masterKey = await readMasterKey(masterKeySource(settings), directory, { create: false });
  const vault = await Vault.open(directory, masterKey);
  const membership = requireMembership(vault, directory);
  if (membership.nodeId !== known.nodeId || membership.clusterId !== known.clusterId) {
    throw new DamagedError(
      `${directory.path}: vault.json and identity.json are of two different servers; restore both from one copy`,
    );
  }
  const { notAfterMs } = readCertificate(readCredentials(vault).nodeCertificate);
  // No reason to stop: alone, or with all others in the same state, it may still be the one that mends it.
  if (notAfterMs <= Date.now()) {
    log.error("certificate has ended", {
      endedAt: new Date(notAfterMs).toISOString(),
      reason:
        "this server was away for too long, or its clock is wrong: other members refuse it. Start it as a new one: --as-new --join HOST:PORT --join-token-file FILE",
    });
  }
  const identity = await directory.nextStart(settings.zone);
  const founding = identity.bootstrapped ? undefined : { adminPassword };
  return { directory, vault, membership, identity, addresses, founding };
}

function requireMembership(vault: Vault, directory: DataDirectory): Membership {
  const membership = readMembership(vault);
  if (membership === undefined) {
    throw new DamagedError(
      `${directory.path}/vault.json does not say which server it belongs to; restore it from a copy`,
    );
  }
  return membership;
}

async function adminPasswordOf(settings: ServerSettings): Promise<string | undefined> {
  return settings.adminPasswordFile === undefined ? undefined : readAdminPassword(settings.adminPasswordFile);
}

function masterKeySource({ masterKeyFile, masterKey, masterKeyCommand }: ServerSettings) {
  return { masterKeyFile, masterKey, masterKeyCommand };
}

function sizeOf({ partitions, replicationFactor }: ServerSettings) {
  return { partitions, replicationFactor };
}

/** Before anything is made or changed in it. @throws {UsageError} */
async function requireServerOrEmpty(path: string, isMaking: boolean): Promise<void> {
  const names = await namesIn(path);
  if (names === undefined || names.includes("identity.json")) return;
  if (!isMaking) {
    throw new UsageError(
      `${path} holds no server yet: start the first server of a new cluster with --bootstrap, any other one with --join HOST:PORT --join-token-file FILE`,
    );
  }
  const foreign = names.find((name) => !EMPTY.has(name) && !name.startsWith("LOCK"));
  if (foreign !== undefined) {
    throw new UsageError(
      `${path} is not empty (it has ${foreign}) and holds no server: give an empty or a new directory with --data`,
    );
  }
  if ((await namesIn(join(path, "store")))?.length) {
    throw new UsageError(
      `${path} holds a server's data but no identity.json: restore that file from a copy, or give another directory with --data`,
    );
  }
}

/** None where there is no such folder; undefined where it can't be read, which opening it explains. */
async function namesIn(path: string): Promise<string[] | undefined> {
  try {
    return await readdir(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === undefined) throw error;
    return code === "ENOENT" ? [] : undefined;
  }
}

/**
 * Moves everything of the old server to `quarantine/`. A token that did so before
 * does it no second time: the same command line starts the new server again.
 *
 * @throws {UsageError} the token can't be read, or the directory is in use.
 */
async function setAside(path: string, settings: ServerSettings): Promise<void> {
  if (settings.join === undefined || settings.joinTokenFile === undefined) {
    throw new UsageError(
      "--as-new makes a new server of this directory: give --join and --join-token-file too",
    );
  }
  const token: JoinToken = await readTokenFile(settings.joinTokenFile);
  const names = await namesIn(path);
  if (names === undefined || names.length === 0) return;
  const quarantine = join(path, "quarantine");
  const done = join(quarantine, `before-${token.id}`);
  if ((await namesIn(quarantine))?.includes(`before-${token.id}`)) return;
  const lock = await DirectoryLock.take(path);
  try {
    const under = `${done}.partly`;
    await makeDirectory(under);
    for (const name of names) {
      if (name !== "LOCK" && name !== "quarantine") await rename(join(path, name), join(under, name));
    }
    await rename(under, done);
  } finally {
    await lock.release();
  }
}
