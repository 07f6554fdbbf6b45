/** One server with both its sides: the member of the ring, and the edge before it. */
import type { ServerSettings } from "../config.ts";
import { RegisterAccounts } from "../edge/accounts.ts";
import { createEdge } from "../edge/edge.ts";
import type { ClusterError } from "../errors.ts";
import type { Log } from "../log.ts";
import { startServer } from "../node/node.ts";
import { writeHostPort } from "../node/server-addresses.ts";

/** For requests under way when the server stops. */
const GRACE_MS = 3_000;

export interface ServerProcess {
  readonly nodeId: string;
  /** `https://host:port`, as clients reach it. */
  readonly edge: string;
  /** `host:port` */
  readonly peer: string;
  /** Resolves when it is a member of the ring. */
  readonly ready: Promise<void>;
  /** Of all that the cluster keeps, as this server sees it. */
  durability(): Promise<"full" | "degraded">;
  /** Resolves with what made it stop by itself; with undefined after `stop`. */
  readonly ended: Promise<ClusterError | undefined>;
  /** What keeps it from being ready; empty: nothing. */
  reasons(): readonly string[];
  /** Hands over what it leads, finishes what is under way, and closes everything. */
  stop(): Promise<void>;
}

/** @throws {UsageError} settings and machine don't fit together. */
export async function startServerProcess(settings: ServerSettings, log: Log): Promise<ServerProcess> {
  const server = await startServer(settings, log);
  const { registers, layout, ...parts } = server.backend;
  const accounts = new RegisterAccounts({ registers, layout, clusterId: server.clusterId, log });
  const edge = createEdge({ backend: { ...parts, accounts }, tls: server.edgeTls, log });
  server.onEdgeTls((tls) => edge.present(tls));
  const stop = async () => {
    await server.drain();
    await edge.close(GRACE_MS);
    accounts.stop();
    await server.stop();
  };
  try {
    const { host, port } = server.edge.bind;
    await edge.listen(port, host);
  } catch (error) {
    await stop();
    throw error;
  }
  accounts.start();
  return {
    nodeId: server.nodeId,
    edge: `https://${writeHostPort(server.edge.advertise)}`,
    peer: writeHostPort(server.peerAddress),
    ready: server.ready,
    reasons: () => server.readiness().reasons,
    durability: async () => (await parts.cluster.status()).durability,
    ended: server.ended,
    stop,
  };
}
