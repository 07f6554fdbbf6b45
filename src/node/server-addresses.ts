/**
 * Where a server listens, where others are told to find it, and which names its
 * certificates must bear for that.
 */
import { once } from "node:events";
import { createServer, isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import type { ServerSettings } from "../config.ts";
import { UsageError } from "../errors.ts";
import type { PeerAddress } from "../peer/transport.ts";

/** One of the two ports. */
export interface ListeningPlace {
  readonly bind: PeerAddress;
  /** What others connect to. */
  readonly advertise: PeerAddress;
  /** Host names and addresses by which it may be reached. */
  readonly hosts: readonly string[];
}

export interface ServerAddresses {
  readonly edge: ListeningPlace;
  readonly peer: ListeningPlace;
}

/**
 * Chooses free ports where 0 is asked for, and makes sure of the others before
 * anything is written.
 *
 * @throws {UsageError} a port is in use, or its address is not one of this machine.
 */
export async function chooseAddresses(settings: ServerSettings): Promise<ServerAddresses> {
  const edgePort = await free("edge", settings.edgeAddress, settings.edgePort);
  let peerPort = await free("peer", settings.peerAddress, settings.peerPort);
  // The system may give the port again that it gave a moment ago.
  while (settings.peerPort === 0 && peerPort === edgePort)
    peerPort = await free("peer", settings.peerAddress, 0);
  if (edgePort === peerPort && settings.edgeAddress === settings.peerAddress) {
    throw new UsageError(`--edge-port and --peer-port are both ${edgePort}: give two different ones`);
  }
  return {
    edge: place(settings.edgeAddress, edgePort, settings.advertiseEdge),
    peer: place(settings.peerAddress, peerPort, settings.advertisePeer),
  };
}

/** @param text `host:port` or `[v6]:port`, as the settings' schema lets through. */
export function readHostPort(text: string): PeerAddress {
  const colon = text.lastIndexOf(":");
  const host = text.slice(0, colon).replace(/^\[(.*)\]$/, "$1");
  return { host, port: Number(text.slice(colon + 1)) };
}

export function writeHostPort({ host, port }: PeerAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function place(host: string, port: number, advertised: string | undefined): ListeningPlace {
  const isAny = host === "0.0.0.0" || host === "::";
  const own = isAny ? [...interfaceAddresses(), hostname()] : [host];
  const advertise = advertised === undefined ? { host: own[0]!, port } : readHostPort(advertised);
  const hosts = new Set([advertise.host, ...own, "localhost", "127.0.0.1", "::1"]);
  return { bind: { host, port }, advertise, hosts: [...hosts].filter(canBeCertified) };
}

function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
    .sort((a, b) => a.family.localeCompare(b.family))
    .map(({ address }) => address);
}

function canBeCertified(host: string): boolean {
  return isIP(host) !== 0 || /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/i.test(host);
}

/** Binds the port for a moment. */
async function free(name: "edge" | "peer", host: string, port: number): Promise<number> {
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, "listening");
  } catch (cause) {
    throw portError(name, host, port, cause);
  }
  const bound = probe.address();
  probe.close();
  await once(probe, "close");
  return bound !== null && typeof bound === "object" ? bound.port : port;
}

/** What a failed bind means to the person who gave the port. */
export function portError(name: "edge" | "peer", host: string, port: number, cause: unknown): UsageError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
  const means: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} is in use: stop the program that listens there, or choose another one with --${name}-port`,
    EACCES: `port ${port} may not be used by this user: choose one above 1023 with --${name}-port`,
    EADDRNOTAVAIL: `${host} is no address of this machine: give one with --${name}-address`,
    ENOTFOUND: `${host} can't be resolved: give an address of this machine with --${name}-address`,
  };
  return new UsageError(means[code] ?? `${writeHostPort({ host, port })} can't be listened on (${code})`, {
    cause,
  });
}
