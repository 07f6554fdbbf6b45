/**
 * Letting servers in, on any member: gives out join tokens, and answers the one
 * call that their holders may make.
 *
 * The member entry, created if absent, makes a node id unique for good; the token
 * is marked as used in the same batch. A joiner whose answer was lost asks again
 * with the same key, here or elsewhere, and becomes the same node.
 */
import { ForbiddenError, OutcomeUnknownError, UnavailableError } from "../errors.ts";
import {
  type IssuingAuthority,
  issueCertificate,
  publicKeyHash,
  publicKeyOfRequest,
  readCertificate,
} from "../identity/certificate-authority.ts";
import { createJoinToken, useJoinToken } from "../identity/join-token.ts";
import type { Log } from "../log.ts";
import { isNodeId, type NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { ClusterEntries, MemberRecord } from "./cluster-entries.ts";
import type { Membership } from "./membership.ts";
import type { JoinAnswer, JoinRequest } from "./peer-contract.ts";
import { writeHostPort } from "./server-addresses.ts";

const ATTEMPTS_MAX = 5;
const CONTACTS_MAX = 16;
const DAY_MS = 86_400_000;

export class Admission {
  readonly #entries: ClusterEntries;
  readonly #cluster: Pick<Membership, "clusterId" | "partitions" | "replicationFactor">;
  readonly #namingSecret: Uint8Array;
  readonly #ring: { chooseIdentifier(): Promise<NodeId>; members(): Member[] };
  readonly #log: Log;

  constructor(options: {
    readonly entries: ClusterEntries;
    readonly cluster: Pick<Membership, "clusterId" | "partitions" | "replicationFactor">;
    readonly namingSecret: Uint8Array;
    readonly ring: { chooseIdentifier(): Promise<NodeId>; members(): Member[] };
    readonly log: Log;
  }) {
    this.#entries = options.entries;
    this.#cluster = options.cluster;
    this.#namingSecret = options.namingSecret;
    this.#ring = options.ring;
    this.#log = options.log;
  }

  /** For one server, within an hour. @throws {UnavailableError} */
  async createJoinToken(): Promise<{ readonly token: string; readonly expiresAtMs: number }> {
    const addresses = this.#contacts().map(({ address }) => writeHostPort(address));
    const { token, record } = await createJoinToken(await this.#authority(), addresses, Date.now());
    const isWritten = await this.#entries.write(
      // Kept for a while after its end, so that a late joiner hears why.
      [{ kind: "token", name: record.id, record, is: "absent", expiresAtMs: record.expiresAt + DAY_MS }],
    );
    if (!isWritten) throw new UnavailableError("no join token could be made; try again");
    this.#log.info("join token made", { token: record.id });
    return { token, expiresAtMs: record.expiresAt };
  }

  /**
   * @param tokenId from the caller's certificate.
   * @throws {UnauthenticatedError} the token is unknown, has expired, or let another server in.
   * @throws {InvalidInputError} a request that can't be signed.
   */
  async admit(tokenId: string, request: JoinRequest): Promise<JoinAnswer> {
    const keyHash = publicKeyHash(publicKeyOfRequest(request.nodeRequest));
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const token = await this.#entries.read("token", tokenId);
      const used = useJoinToken(token?.record, keyHash, Date.now());
      const known = token?.record.nodeId;
      if (known !== undefined && isNodeId(known)) return this.#welcomeAgain(known, request);

      const nodeId = await this.#ring.chooseIdentifier();
      const answer = await this.#answer(nodeId, request);
      const member: MemberRecord = {
        nodeId,
        addresses: request.addresses,
        zone: request.zone,
        serial: readCertificate(answer.nodeCertificate).serial,
        state: "joining",
      };
      try {
        const isWritten = await this.#entries.write([
          {
            kind: "token",
            name: tokenId,
            record: { ...used, nodeId },
            is: token?.version ?? "absent",
            expiresAtMs: used.expiresAt + DAY_MS,
          },
          { kind: "member", name: nodeId, record: member, is: "absent" },
        ]);
        if (isWritten) {
          this.#log.info("server let in", { peer: nodeId, token: tokenId });
          return answer;
        }
      } catch (error) {
        // The next turn reads which of the two it was.
        if (!(error instanceof OutcomeUnknownError)) throw error;
      }
    }
    throw new UnavailableError("the cluster is too busy to let a server in; try again");
  }

  async #welcomeAgain(nodeId: NodeId, request: JoinRequest): Promise<JoinAnswer> {
    const member = await this.#entries.read("member", nodeId);
    if (member === undefined || member.record.state === "removed") {
      throw new ForbiddenError(
        `server ${nodeId.slice(0, 8)} was removed from the cluster; join with a new token`,
      );
    }
    return this.#answer(nodeId, request);
  }

  async #answer(nodeId: NodeId, request: JoinRequest): Promise<JoinAnswer> {
    const authority = await this.#authority();
    const wanted = { name: nodeId, nowMs: Date.now() };
    return {
      ...this.#cluster,
      nodeId,
      rootCertificate: authority.rootCertificate,
      nodeCertificate: await issueCertificate(authority, {
        ...wanted,
        role: "node",
        request: request.nodeRequest,
        hosts: request.peerHosts,
      }),
      edgeCertificate: await issueCertificate(authority, {
        ...wanted,
        role: "edge",
        request: request.edgeRequest,
        hosts: request.edgeHosts,
      }),
      namingSecret: this.#namingSecret,
      contacts: this.#contacts().filter((contact) => contact.nodeId !== nodeId),
    };
  }

  async #authority(): Promise<IssuingAuthority> {
    const authority = await this.#entries.read("authority");
    if (authority === undefined) {
      throw new UnavailableError("the cluster is still being set up; try again in a moment");
    }
    return authority.record;
  }

  #contacts(): JoinAnswer["contacts"] {
    return this.#ring
      .members()
      .slice(0, CONTACTS_MAX)
      .map(({ nodeId, address }) => ({ nodeId, address }));
  }
}
