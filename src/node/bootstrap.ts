/**
 * The first server of a cluster makes it: secrets, authority, partitions, the
 * first administrator. Each step looks whether it was done, so that a start after
 * a crash repeats what is missing.
 */
import { type KeyObject, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { UnavailableError, UsageError } from "../errors.ts";
import {
  createAuthority,
  createKeyPair,
  issuingAuthoritySchema,
  readCertificate,
} from "../identity/certificate-authority.ts";
import { hashPassword, passwordSchema, randomPassword } from "../identity/password.ts";
import { createSigningKey } from "../identity/token.ts";
import { createUser } from "../identity/user.ts";
import { nodeIdOf, wrap } from "../ring/identifier.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import { Vault } from "../vault/vault.ts";
import { CLUSTER_VERSION, type ClusterEntries } from "./cluster-entries.ts";
import {
  encodeSecret,
  issueCredentials,
  type Membership,
  membershipSecrets,
  readCredentials,
  readSecret,
} from "./membership.ts";
import { type ServerAddresses, writeHostPort } from "./server-addresses.ts";
import type { SystemEntries } from "./system-entries.ts";

const AUTHORITY = "authority";
/** The root's key stays in this server's vault: it is needed only to renew the issuing authority. */
const authoritySchema = issuingAuthoritySchema.extend({ rootKey: z.string() });

const SIGNING_KEY_MS = 60 * 86_400_000;
const ADMIN = "admin";

const clientFileSchema = z.object({
  servers: z.array(z.string()),
  ca: z.string(),
  username: z.string(),
  password: z.string(),
});

/** To be shown once. */
export interface FirstAdmin {
  readonly username: string;
  readonly password: string;
}

/** A vault with everything that makes this server the first member of a new cluster, in one durable write. */
export async function createCluster(options: {
  readonly directory: DataDirectory;
  readonly masterKey: KeyObject;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly addresses: ServerAddresses;
}): Promise<Vault> {
  const { directory, masterKey, partitions, replicationFactor, addresses } = options;
  const nowMs = Date.now();
  const clusterId = randomBytes(16).toString("hex");
  const nodeId = nodeIdOf(wrap(BigInt(`0x${randomBytes(20).toString("hex")}`)));
  const authority = await createAuthority(clusterId, nowMs);
  const credentials = await issueCredentials(
    authority,
    {
      nodeId,
      nodeKey: createKeyPair().privateKey,
      edgeKey: createKeyPair().privateKey,
      peerHosts: addresses.peer.hosts,
      edgeHosts: addresses.edge.hosts,
    },
    nowMs,
  );
  const membership: Membership = { clusterId, nodeId, partitions, replicationFactor, contacts: [] };
  return Vault.create(directory, masterKey, {
    secrets: {
      ...membershipSecrets(membership, credentials),
      [AUTHORITY]: encodeSecret(authoritySchema.parse(authority)),
    },
  });
}

/** Whether the vault is that of a cluster's first server. */
export function isFounder(vault: Vault): boolean {
  return vault.secret(AUTHORITY) !== undefined;
}

/** @throws {UsageError} the file can't be read, or holds no good password. */
export async function readAdminPassword(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new UsageError(`--admin-password-file ${path} can't be read`, { cause });
  }
  const parsed = passwordSchema.safeParse(text.replace(/\r?\n$/, ""));
  if (parsed.success) return parsed.data;
  throw new UsageError(`--admin-password-file ${path}: the password ${parsed.error.issues[0]?.message}`);
}

/**
 * Writes the cluster's first entries, and `client.json` so that the command line
 * signs in by itself. The partitions are led by this server. `bootstrapped` is the
 * caller's to write, after this.
 *
 * @param options.adminPassword made, when left out.
 */
export async function foundCluster(options: {
  readonly directory: DataDirectory;
  readonly vault: Vault;
  readonly membership: Membership;
  readonly addresses: ServerAddresses;
  readonly zone: string;
  readonly adminPassword: string | undefined;
  readonly entries: ClusterEntries;
  readonly accounts: SystemEntries;
}): Promise<FirstAdmin> {
  const { directory, vault, membership, addresses, zone, entries, accounts } = options;
  const { clusterId, nodeId, partitions, replicationFactor } = membership;
  const authority = readSecret(vault, AUTHORITY, authoritySchema);
  if (authority === undefined) {
    throw new UsageError(`${directory.path}: the vault is not that of a cluster's first server`);
  }
  const credentials = readCredentials(vault);
  const nowMs = Date.now();

  // The password is on disk before it counts: after a crash it is neither lost nor a second one.
  const password = options.adminPassword ?? (await readClientFile(directory))?.password ?? randomPassword();
  await writeClientFile(directory, {
    servers: [`https://${writeHostPort(addresses.edge.advertise)}`],
    ca: credentials.rootCertificate,
    username: ADMIN,
    password,
  });

  if ((await entries.read("cluster")) === undefined) {
    const { rootKey: _, ...issuing } = authority;
    const isWritten = await entries.write(
      [
        {
          kind: "cluster",
          name: "",
          is: "absent",
          record: { clusterId, partitions, replicationFactor, createdAt: nowMs, version: CLUSTER_VERSION },
        },
        { kind: "authority", name: "", is: "absent", record: issuing },
        {
          kind: "member",
          name: nodeId,
          is: "absent",
          record: {
            nodeId,
            addresses: {
              peer: writeHostPort(addresses.peer.advertise),
              edge: writeHostPort(addresses.edge.advertise),
            },
            zone,
            serial: readCertificate(credentials.nodeCertificate).serial,
            state: "active",
          },
        },
      ],
      { repeatable: true },
    );
    if (!isWritten && (await entries.read("cluster")) === undefined) {
      throw new UnavailableError("the cluster's first entries could not be written; start again");
    }
  }
  if ((await accounts.list("signing")).length === 0) {
    const key = createSigningKey({ signFrom: nowMs, verifyUntil: nowMs + SIGNING_KEY_MS });
    await accounts.put("signing", key.kid, key, "absent", key.verifyUntil);
  }
  const admin = await accounts.read("user", ADMIN);
  const record = createUser({
    name: ADMIN,
    role: "admin",
    passwordHash: await hashPassword(password),
    nowMs,
  });
  await accounts.put("user", ADMIN, record, admin?.version ?? "absent");
  return { username: ADMIN, password };
}

/** Keeps the way in right when this server's edge has moved; does nothing where there is no client file. */
export async function updateClientFile(directory: DataDirectory, addresses: ServerAddresses): Promise<void> {
  const file = await readClientFile(directory);
  const server = `https://${writeHostPort(addresses.edge.advertise)}`;
  if (file === undefined || file.servers.includes(server)) return;
  await writeClientFile(directory, { ...file, servers: [server] });
}

/** Undefined when there is none that can be read: it is made anew, it holds nothing that is not elsewhere. */
async function readClientFile(
  directory: DataDirectory,
): Promise<z.output<typeof clientFileSchema> | undefined> {
  const bytes = await directory.read("client.json");
  if (bytes === undefined) return undefined;
  try {
    return clientFileSchema.parse(JSON.parse(bytes.toString("utf8")));
  } catch {
    return undefined;
  }
}

function writeClientFile(directory: DataDirectory, file: z.output<typeof clientFileSchema>): Promise<void> {
  return directory.write("client.json", `${JSON.stringify(file, null, 2)}\n`);
}
