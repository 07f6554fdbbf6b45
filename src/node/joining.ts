/**
 * The side of a new server: it has a join token, asks a member to be let in, and
 * keeps the answer in one step.
 *
 * Its keys are kept before it asks: should the answer be lost, it asks again as
 * the same one and gets the same answer, not a second identity.
 */
import type { KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { ClusterError, RefusedError, UnavailableError, UsageError } from "../errors.ts";
import {
  certificateHash,
  createKeyPair,
  publicKeyHash,
  readCertificate,
} from "../identity/certificate-authority.ts";
import { type JoinToken, readJoinToken } from "../identity/join-token.ts";
import type { Log } from "../log.ts";
import { callJoin } from "../peer/join-call.ts";
import type { PeerAddress } from "../peer/transport.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import { Vault } from "../vault/vault.ts";
import {
  type Credentials,
  encodeSecret,
  type Membership,
  membershipSecrets,
  publicKeyOf,
  readSecret,
  requestFor,
} from "./membership.ts";
import { type JoinAnswer, type JoinRequest, joinAnswerSchema } from "./peer-contract.ts";
import { readHostPort, type ServerAddresses, writeHostPort } from "./server-addresses.ts";

const KEYS = "joining";
const keysSchema = z.object({ nodeKey: z.string(), edgeKey: z.string() });

const ATTEMPT_MS_MAX = 10_000;
const PAUSE_MS_MIN = 250;
const PAUSE_MS_MAX = 5_000;
/** Members may just be starting; longer than this is for whoever supervises this process. */
const JOIN_MS_MAX = 60_000;

/** @throws {UsageError} the file can't be read, or holds no join token. */
export async function readTokenFile(path: string): Promise<JoinToken> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new UsageError(`--join-token-file ${path} can't be read; give the file that holds the token`, {
      cause,
    });
  }
  try {
    return readJoinToken(text);
  } catch (cause) {
    if (!(cause instanceof ClusterError)) throw cause;
    throw new UsageError(`--join-token-file ${path}: ${cause.message}`, { cause });
  }
}

/**
 * Asks until a member answers. The vault of the new member is durable when it resolves; its
 * identity is still to be written.
 *
 * @throws {UsageError} the cluster refuses this token, or nobody answered for a minute.
 */
export async function joinCluster(options: {
  readonly directory: DataDirectory;
  readonly masterKey: KeyObject;
  /** Of an attempt before this one. */
  readonly kept: Vault | undefined;
  readonly token: JoinToken;
  /** Asked first; then those that the token names. */
  readonly contact: PeerAddress;
  readonly addresses: ServerAddresses;
  readonly zone: string;
  readonly log: Log;
}): Promise<Vault> {
  const { directory, masterKey, kept, token, addresses, zone } = options;
  const keys = await keepKeys(directory, masterKey, kept);
  const answer = await ask(options, {
    nodeRequest: await requestFor(keys.nodeKey),
    edgeRequest: await requestFor(keys.edgeKey),
    addresses: {
      peer: writeHostPort(addresses.peer.advertise),
      edge: writeHostPort(addresses.edge.advertise),
    },
    peerHosts: [...addresses.peer.hosts],
    edgeHosts: [...addresses.edge.hosts],
    zone,
  });
  requireOwn(answer, token, keys.nodeKey);
  const { nodeId, clusterId, partitions, replicationFactor, contacts } = answer;
  const membership: Membership = { nodeId, clusterId, partitions, replicationFactor, contacts };
  const credentials: Credentials = {
    rootCertificate: answer.rootCertificate,
    nodeCertificate: answer.nodeCertificate,
    edgeCertificate: answer.edgeCertificate,
    ...keys,
  };
  // In place of the vault that only held the keys: nothing was sealed with that one.
  const instead = {
    path: directory.path,
    read: async () => undefined,
    write: (name: "vault.json", content: string) => directory.write(name, content),
  };
  return Vault.create(instead, masterKey, {
    namingSecret: answer.namingSecret,
    secrets: membershipSecrets(membership, credentials),
  });
}

/** The keys of an attempt before this one, or new ones; durable either way. */
async function keepKeys(
  directory: DataDirectory,
  masterKey: KeyObject,
  kept: Vault | undefined,
): Promise<z.output<typeof keysSchema>> {
  const known = kept === undefined ? undefined : readSecret(kept, KEYS, keysSchema);
  if (known !== undefined) return known;
  const keys = { nodeKey: createKeyPair().privateKey, edgeKey: createKeyPair().privateKey };
  await Vault.create(directory, masterKey, { secrets: { [KEYS]: encodeSecret(keys) } });
  return keys;
}

async function ask(
  options: { readonly token: JoinToken; readonly contact: PeerAddress; readonly log: Log },
  request: JoinRequest,
): Promise<JoinAnswer> {
  const { token, contact, log } = options;
  const given = writeHostPort(contact);
  const places = new Set([given, ...token.addresses]);
  const deadline = performance.now() + JOIN_MS_MAX;
  for (let pauseMs = PAUSE_MS_MIN; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)) {
    const reasons: string[] = [];
    for (const place of places) {
      try {
        const answer = await callJoin({
          address: readHostPort(place),
          token,
          identify: readCertificate,
          input: request,
          timeoutMs: ATTEMPT_MS_MAX,
        });
        const joined = joinAnswerSchema.parse(answer);
        if (place !== given) {
          log.warn("the server given with --join did not let this one in, another one of the token did", {
            given,
            by: place,
            reason: reasons[0],
          });
        }
        return joined;
      } catch (error) {
        if (!(error instanceof ClusterError)) throw error;
        if (error.remedy === "reject" && !(error instanceof RefusedError)) {
          throw new UsageError(`the cluster does not let this server in: ${error.message}`, { cause: error });
        }
        // Of two clusters that a person named, this server must not choose one.
        if (place === given && isOfAnotherCluster(error)) {
          throw new UsageError(
            `the join token is of another cluster than the server at ${given}: give one that a member of its cluster made (${error.message})`,
            { cause: error },
          );
        }
        reasons.push(error.message.includes(place) ? error.message : `${place}: ${error.message}`);
      }
    }
    if (performance.now() + pauseMs > deadline) {
      throw new UsageError(
        `no member let this server in within ${JOIN_MS_MAX / 1000} s: ${reasons.join("; ")}. Is ${given}, given with --join, the peer address of a member that runs? Correct it, then start this server again`,
      );
    }
    log.warn("join not answered", { retryMs: pauseMs, reason: reasons[0] });
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/** Its certificate is not under the token's root, or ours not under its own. */
function isOfAnotherCluster(error: ClusterError): boolean {
  if (error instanceof RefusedError) return true;
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const code = "code" in cause ? String(cause.code) : "";
    if (/^(SELF_SIGNED_CERT|UNABLE_TO_|CERT_|ERR_SSL_TLSV1_ALERT_UNKNOWN_CA|ERR_TLS_CERT)/.test(code))
      return true;
  }
  return false;
}

/** @throws {UnavailableError} the answer is not one to this server's question. */
function requireOwn(answer: JoinAnswer, token: JoinToken, nodeKey: string): void {
  const { role, name, clusterId } = readCertificate(answer.nodeCertificate);
  const isOwn =
    certificateHash(answer.rootCertificate) === token.rootHash &&
    answer.clusterId === token.clusterId &&
    clusterId === token.clusterId &&
    role === "node" &&
    name === answer.nodeId &&
    publicKeyHash(publicKeyOf(nodeKey)) === publicKeyHash(answer.nodeCertificate);
  if (!isOwn)
    throw new UnavailableError("the member's answer does not fit the join token; try another member");
}
