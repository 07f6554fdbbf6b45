/** The port on which other members reach this server, as it presents itself there. */
import { readCertificate } from "../identity/certificate-authority.ts";
import type { Log } from "../log.ts";
import type { InstanceBook } from "../peer/instance-book.ts";
import type { PeerAddress, PeerHandlers } from "../peer/transport.ts";
import { TrpcTransport } from "../peer/trpc-transport.ts";
import type { Member } from "../ring/member.ts";
import { type Credentials, readCredentials } from "./membership.ts";
import { type Messages, type Procedures, peerSchemas } from "./peer-contract.ts";
import { portError } from "./server-addresses.ts";
import type { ServerState } from "./server-state.ts";

export interface PeerPort {
  readonly transport: TrpcTransport<Messages, Procedures>;
  /** With the address that others are told. */
  readonly self: Member;
}

/** @throws {UsageError} the port can't be bound. */
export async function openPeerPort(
  state: ServerState,
  log: Log,
  parts: {
    readonly instances: InstanceBook;
    readonly reception: PeerHandlers<Messages, Procedures>;
    readonly closing: AsyncDisposableStack;
    /** As of the transport. */
    stale(by: string, reason: string): void;
  },
): Promise<PeerPort> {
  const { vault, membership, identity, addresses } = state;
  const { nodeId, clusterId } = membership;
  const [instance = "", ...earlierInstances] = identity.instances.toReversed();
  const { incarnation } = identity;
  const { bind, advertise } = addresses.peer;
  const transport = new TrpcTransport<Messages, Procedures>({
    self: { clusterId, nodeId, incarnation, instance, earlierInstances },
    bind,
    advertise,
    credentials: peerCredentials(readCredentials(vault)),
    identify: readCertificate,
    schemas: peerSchemas,
    book: parts.instances,
    log,
    stale: (by, reason) => parts.stale(by, reason),
  });
  parts.closing.defer(async () => {
    await transport.close();
    log.info("peer port closed", transport.counts);
  });
  try {
    await transport.listen(parts.reception);
  } catch (error) {
    throw bindError(error, bind);
  }
  return {
    transport,
    self: { nodeId, address: advertise, zone: identity.zone ?? "", incarnation, instance },
  };
}

function bindError(error: unknown, { host, port }: PeerAddress): unknown {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && "code" in cause ? portError("peer", host, port, cause) : error;
}

export function peerCredentials({ nodeCertificate, nodeKey, rootCertificate }: Credentials) {
  return { certificate: nodeCertificate, key: nodeKey, rootCertificate };
}
