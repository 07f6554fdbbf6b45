/**
 * Speaks to the servers as one of them would, without standing in the ring: let in
 * by a join token, it asks each partition's leader by the peer API and follows it
 * when it moves.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { BusyError, NotLeaderError, OutcomeUnknownError, UnavailableError } from "../../src/errors.ts";
import { createKeyPair, readCertificate } from "../../src/identity/certificate-authority.ts";
import { readJoinToken } from "../../src/identity/join-token.ts";
import { createLog } from "../../src/log.ts";
import { requestFor } from "../../src/node/membership.ts";
import {
  joinAnswerSchema,
  type Messages,
  type PartitionStatus,
  type Procedures,
  peerSchemas,
} from "../../src/node/peer-contract.ts";
import { readHostPort } from "../../src/node/server-addresses.ts";
import { InstanceBook } from "../../src/peer/instance-book.ts";
import { callJoin } from "../../src/peer/join-call.ts";
import type { PeerRef } from "../../src/peer/transport.ts";
import { TrpcTransport } from "../../src/peer/trpc-transport.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import type { Ground } from "./kv-ground.ts";

const NOWHERE = { host: "127.0.0.1", port: 1 };
const CALL_MS_MAX = 10_000;
const RETRY_MS = 20;

export class PeerAsker {
  readonly partitionCount: number;
  readonly #transport: TrpcTransport<Messages, Procedures>;
  readonly #peers: ReadonlyMap<string, PeerRef>;
  /** By partition; a wrong one costs a redirect. */
  readonly #leaders: string[];

  private constructor(
    transport: TrpcTransport<Messages, Procedures>,
    peers: ReadonlyMap<string, PeerRef>,
    leaders: string[],
  ) {
    this.#transport = transport;
    this.#peers = peers;
    this.#leaders = leaders;
    this.partitionCount = leaders.length;
  }

  static async admitted({ client, servers }: Ground): Promise<PeerAsker> {
    const token = readJoinToken((await client.cluster.createJoinToken()).token);
    const { privateKey } = createKeyPair();
    const answer = joinAnswerSchema.parse(
      await callJoin({
        address: readHostPort(servers[0]!.peer),
        token,
        identify: readCertificate,
        input: {
          nodeRequest: await requestFor(privateKey),
          edgeRequest: await requestFor(createKeyPair().privateKey),
          addresses: { peer: "127.0.0.1:1", edge: "127.0.0.1:1" },
          peerHosts: ["127.0.0.1"],
          edgeHosts: ["127.0.0.1"],
          zone: "",
        },
        timeoutMs: CALL_MS_MAX,
      }),
    );
    const transport = new TrpcTransport<Messages, Procedures>({
      self: {
        clusterId: answer.clusterId,
        nodeId: answer.nodeId,
        incarnation: 1,
        instance: randomBytes(8).toString("hex"),
        earlierInstances: [],
      },
      bind: NOWHERE,
      credentials: {
        certificate: answer.nodeCertificate,
        key: privateKey,
        rootCertificate: answer.rootCertificate,
      },
      identify: readCertificate,
      schemas: peerSchemas,
      book: new InstanceBook(),
      log: createLog({ level: "warn", text: true }),
      stale: () => {},
    });
    const peers = new Map(
      servers.map(({ nodeId, peer }) => [nodeId, { nodeId, address: readHostPort(peer) }] as const),
    );
    const partitions = await client.cluster.partitions();
    const leaders = partitions
      .toSorted((a, b) => a.partition - b.partition)
      .map(({ leader }) => leader ?? servers[0]!.nodeId);
    return new PeerAsker(transport, peers, leaders);
  }

  /**
   * Asks until a leader answers; what has a request id, also when the outcome was not known at first.
   *
   * @throws {ClusterError} what a leader refuses with, or an unknown outcome.
   */
  async operate(partition: number, operation: Operation): Promise<Outcome> {
    for (;;) {
      const to = this.#peers.get(this.#leaders[partition]!);
      if (to === undefined)
        throw new Error(`partition ${partition} is led by a server that is not known here`);
      try {
        return await this.#transport.call(
          to,
          "operate",
          { partition, operation },
          { timeoutMs: CALL_MS_MAX },
        );
      } catch (error) {
        if (error instanceof NotLeaderError) {
          if (error.leader !== undefined && error.leader !== to.nodeId)
            this.#leaders[partition] = error.leader;
          await pause(RETRY_MS);
        } else if (error instanceof BusyError) await pause(error.retryAfterMs);
        else if (!(error instanceof OutcomeUnknownError || error instanceof UnavailableError)) throw error;
        else if (!isRepeatable(operation)) throw error;
        else {
          this.#leaders[partition] = this.#after(to.nodeId);
          await pause(RETRY_MS);
        }
      }
    }
  }

  /** Whoever is asked knows better. */
  #after(nodeId: string): string {
    const nodeIds = [...this.#peers.keys()];
    return nodeIds[(nodeIds.indexOf(nodeId) + 1) % nodeIds.length]!;
  }

  /** What a server says of the partitions that it keeps. */
  async partitions(nodeId: string): Promise<readonly PartitionStatus[]> {
    const to = this.#peers.get(nodeId);
    if (to === undefined) throw new Error(`${nodeId} is not known here`);
    const status = await this.#transport.call(to, "status", { partitions: true }, { timeoutMs: CALL_MS_MAX });
    return status.partitions ?? [];
  }

  close(): Promise<void> {
    return this.#transport.close();
  }
}

function isRepeatable(operation: Operation): boolean {
  return operation.kind !== "batch" || operation.requestId !== undefined;
}
