/**
 * What makes this server a member, as it lies in the vault: which node of which
 * cluster it is, and what it proves that with. Written in one step, so that a
 * server is a member or is not.
 */
import { createPublicKey } from "node:crypto";
import { z } from "zod";
import { DamagedError } from "../errors.ts";
import {
  createCertificateRequest,
  type IssuingAuthority,
  issueCertificate,
} from "../identity/certificate-authority.ts";
import { nodeIdSchema } from "../ring/member.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { Vault } from "../vault/vault.ts";
import { contactSchema } from "./peer-contract.ts";

const membershipSchema = z.object({
  clusterId: z.string(),
  nodeId: nodeIdSchema,
  /** Q and R of the cluster; they rule, whatever this server's settings say. */
  partitions: z.int().min(1),
  replicationFactor: z.int().min(1),
  /** Members to enter the ring by; empty for the first server. */
  contacts: z.array(contactSchema),
});
export type Membership = z.output<typeof membershipSchema>;

/** All PEM. The edge has a key of its own: what faces the clients must not speak for the node. */
const credentialsSchema = z.object({
  rootCertificate: z.string(),
  nodeCertificate: z.string(),
  nodeKey: z.string(),
  edgeCertificate: z.string(),
  edgeKey: z.string(),
});
export type Credentials = z.output<typeof credentialsSchema>;

const MEMBERSHIP = "membership";
const CREDENTIALS = "credentials";

export function membershipSecrets(
  membership: Membership,
  credentials: Credentials,
): Record<string, Uint8Array> {
  return { [MEMBERSHIP]: encodeSecret(membership), [CREDENTIALS]: encodeSecret(credentials) };
}

/** Undefined in the vault of a server that is not let in yet. */
export function readMembership(vault: Vault): Membership | undefined {
  return readSecret(vault, MEMBERSHIP, membershipSchema);
}

/** @throws {DamagedError} there are none. */
export function readCredentials(vault: Vault): Credentials {
  const credentials = readSecret(vault, CREDENTIALS, credentialsSchema);
  if (credentials === undefined) {
    throw new DamagedError("the vault holds no certificate of this server; restore vault.json from a copy");
  }
  return credentials;
}

/** Durable when it resolves; `node.crt` and `ca.crt` are copies for people and clients. */
export async function replaceCredentials(
  vault: Vault,
  directory: DataDirectory,
  credentials: Credentials,
): Promise<void> {
  await vault.putSecret(CREDENTIALS, encodeSecret(credentials));
  await showCertificates(directory, credentials);
}

export async function showCertificates(directory: DataDirectory, credentials: Credentials): Promise<void> {
  await directory.write("ca.crt", credentials.rootCertificate);
  await directory.write("node.crt", credentials.nodeCertificate);
}

/** Both certificates of a server, for the keys that it has. */
export async function issueCredentials(
  authority: IssuingAuthority,
  server: {
    readonly nodeId: string;
    readonly nodeKey: string;
    readonly edgeKey: string;
    readonly peerHosts: readonly string[];
    readonly edgeHosts: readonly string[];
  },
  nowMs: number,
): Promise<Credentials> {
  const { nodeId: name, nodeKey, edgeKey, peerHosts, edgeHosts } = server;
  const issue = (role: "node" | "edge", key: string, hosts: readonly string[]) =>
    issueCertificate(authority, { role, name, publicKey: publicKeyOf(key), hosts, nowMs });
  return {
    rootCertificate: authority.rootCertificate,
    nodeCertificate: await issue("node", nodeKey, peerHosts),
    nodeKey,
    edgeCertificate: await issue("edge", edgeKey, edgeHosts),
    edgeKey,
  };
}

export function requestFor(privateKey: string): Promise<string> {
  return createCertificateRequest({ privateKey, publicKey: publicKeyOf(privateKey) });
}

/** PEM of the public half. */
export function publicKeyOf(privateKey: string): string {
  return createPublicKey(privateKey).export({ type: "spki", format: "pem" }).toString();
}

export function encodeSecret(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value), "utf8");
}

/** @throws {DamagedError} it is there, in another form. */
export function readSecret<T>(vault: Vault, name: string, schema: z.ZodType<T>): T | undefined {
  const secret = vault.secret(name);
  if (secret === undefined) return undefined;
  const parsed = schema.safeParse(JSON.parse(Buffer.from(secret).toString("utf8")));
  if (!parsed.success) {
    throw new DamagedError(`the vault's ${name} has not the expected form; restore vault.json from a copy`, {
      cause: parsed.error,
    });
  }
  return parsed.data;
}
