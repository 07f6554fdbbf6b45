/**
 * What lets a server in: a key and a certificate of role `join`, good for one
 * hour and one server, the cluster's root and its addresses, in one string. So
 * the first connection is already mutual TLS, and nothing is trusted on first use.
 */
import { z } from "zod";
import { InvalidInputError, UnauthenticatedError } from "../errors.ts";
import {
  certificateHash,
  createKeyPair,
  type IssuingAuthority,
  issueCertificate,
  JOIN_CERTIFICATE_MS,
} from "./certificate-authority.ts";
import { randomId } from "./secret.ts";

const PREFIX = "orbweaver-join-1.";
const TOKEN_CHARS_MAX = 32_768;

export const joinTokenSchema = z.object({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  clusterId: z.string().min(1).max(64),
  /** SHA-256 of `rootCertificate`, hex: short enough to be compared by eye. */
  rootHash: z.string().regex(/^[0-9a-f]{64}$/),
  rootCertificate: z.string(),
  /** Peer ports of members, `host:port`. */
  addresses: z.array(z.string()).max(64),
  /** PEM: the joiner's certificate and the issuing authority's. */
  certificate: z.string(),
  /** PEM, PKCS #8. */
  key: z.string(),
});
export type JoinToken = z.output<typeof joinTokenSchema>;

/** What the cluster keeps of a token. */
export const joinTokenRecordSchema = z.object({
  id: z.string(),
  expiresAt: z.number(),
  /** Hash of the public key that used it. */
  usedBy: z.string().optional(),
});
export type JoinTokenRecord = z.output<typeof joinTokenRecordSchema>;

/** @returns the string to hand over and the record to store. */
export async function createJoinToken(
  authority: IssuingAuthority,
  addresses: readonly string[],
  nowMs: number,
): Promise<{ readonly token: string; readonly record: JoinTokenRecord }> {
  const id = randomId();
  const pair = createKeyPair();
  const certificate = await issueCertificate(authority, {
    role: "join",
    name: id,
    publicKey: pair.publicKey,
    nowMs,
  });
  const content: JoinToken = {
    id,
    clusterId: authority.clusterId,
    rootHash: certificateHash(authority.rootCertificate),
    rootCertificate: authority.rootCertificate,
    addresses: addresses.slice(0, 64),
    certificate,
    key: pair.privateKey,
  };
  return {
    token: PREFIX + Buffer.from(JSON.stringify(content)).toString("base64url"),
    record: { id, expiresAt: nowMs + JOIN_CERTIFICATE_MS },
  };
}

/** @throws {InvalidInputError} not a join token, or its root is not the one that it pins. */
export function readJoinToken(token: string): JoinToken {
  const text = token.trim();
  if (!text.startsWith(PREFIX) || text.length > TOKEN_CHARS_MAX) throw unreadable();
  try {
    const content = joinTokenSchema.parse(
      JSON.parse(Buffer.from(text.slice(PREFIX.length), "base64url").toString("utf8")),
    );
    if (certificateHash(content.rootCertificate) !== content.rootHash) throw unreadable();
    return content;
  } catch (cause) {
    throw cause instanceof InvalidInputError ? cause : unreadable({ cause });
  }
}

/**
 * The record after `publicKeyHash` has used the token. The same key may come
 * again: its answer may have been lost.
 *
 * @throws {UnauthenticatedError} unknown (`record` undefined), expired, or used by another server.
 */
export function useJoinToken(
  record: JoinTokenRecord | undefined,
  publicKeyHash: string,
  nowMs: number,
): JoinTokenRecord {
  if (record === undefined || nowMs >= record.expiresAt) {
    throw new UnauthenticatedError(
      "the join token has expired; make a new one: orbweaver cluster join-token",
    );
  }
  if (record.usedBy !== undefined && record.usedBy !== publicKeyHash) {
    throw new UnauthenticatedError(
      "the join token was used by another server; make one for each: orbweaver cluster join-token",
    );
  }
  return { ...record, usedBy: publicKeyHash };
}

function unreadable(options?: ErrorOptions): InvalidInputError {
  return new InvalidInputError(
    "not a join token, or only a part of one; make a new one: orbweaver cluster join-token",
    [],
    options,
  );
}
