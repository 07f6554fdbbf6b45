/**
 * One server of a cluster: opens what lies in its directory, sets its parts up,
 * connects them, and takes them down again in the opposite order.
 *
 * The only place where the protocols meet the world. It decides nothing itself;
 * what a part tells, the parts that it concerns hear.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import type { ServerSettings } from "../config.ts";
import { type ClusterError, StaleDataDirectoryError, UnavailableError, UsageError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerAddress } from "../peer/transport.ts";
import { majorityOf } from "../replication/quorum.ts";
import type { NodeId } from "../ring/identifier.ts";
import type { Administration } from "./administration.ts";
import type { AuditLog } from "./audit-log.ts";
import { type FirstAdmin, foundCluster, updateClientFile } from "./bootstrap.ts";
import type { ClusterView, Readiness } from "./cluster-view.ts";
import type { Jobs } from "./jobs.ts";
import type { KeyLayout } from "./key-layout.ts";
import type { KeyValues } from "./key-values.ts";
import type { Locks } from "./locks.ts";
import { type Credentials, readCredentials } from "./membership.ts";
import { type HeldPartition, heldPartitions } from "./own-status.ts";
import type { Registers } from "./registers.ts";
import { type ServerParts, setUpParts } from "./server-parts.ts";
import { openServerState, type ServerState } from "./server-state.ts";
import type { ValueWatch } from "./value-watch.ts";

/** PEM. */
export interface EdgeTls {
  readonly cert: string;
  readonly key: string;
}

export interface EdgeParts {
  readonly clusterId: string;
  readonly registers: Registers;
  readonly layout: KeyLayout;
  readonly jobs: Jobs;
  readonly values: KeyValues;
  readonly valueWatch: ValueWatch;
  readonly locks: Locks;
  readonly cluster: ClusterView;
  readonly administration: Administration;
  readonly audit: AuditLog;
  ready(): Readiness;
}

const READY_LOOK_MS = 25;
const HAND_OVER_MS_MAX = 5_000;

/**
 * Resolves when the edge may open: it answers 503 until `ready`. Whatever was
 * opened is closed again when this rejects.
 *
 * @throws {UsageError} the settings don't fit the directory or this machine: says what to do.
 * @throws {ClusterError} the directory is an old copy, or damaged.
 */
export async function startServer(settings: ServerSettings, log: Log): Promise<RunningServer> {
  const state = await openServerState(settings, log);
  const ownLog = log.child({ nodeId: state.membership.nodeId });
  let server: RunningServer | undefined;
  try {
    const edgeTls = await readEdgeTls(settings);
    server = new RunningServer(state, edgeTls, ownLog);
    await server.open(settings);
    return server;
  } catch (error) {
    if (server === undefined) await state.directory.close();
    else await server.stop();
    // What it was stopped for says more than what that broke.
    throw server?.failure ?? error;
  }
}

export class RunningServer {
  readonly nodeId: NodeId;
  readonly clusterId: string;
  /** Where the edge is to listen, and what clients are told. */
  readonly edge: { readonly bind: PeerAddress; readonly advertise: PeerAddress };
  /** What peers connect to. */
  readonly peerAddress: PeerAddress;
  /** PEM of the cluster's root: what clients verify the edge with. */
  readonly rootCertificate: string;
  /**
   * Resolves when this server is a member of the ring and each partition that it keeps has a leader.
   * Rejects when it stops before that.
   */
  readonly ready: Promise<void>;
  /** Resolves when this server has stopped: with what made it stop by itself, or undefined after `stop`. */
  readonly ended: Promise<ClusterError | undefined>;

  readonly #state: ServerState;
  readonly #log: Log;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<ClusterError | undefined>();
  readonly #edgeListeners = new Set<(tls: EdgeTls) => void>();
  readonly #hasOwnEdgeCertificate: boolean;
  #edgeTls: EdgeTls;
  #firstAdmin: FirstAdmin | undefined;
  /** How to close what is open, the directory last. */
  readonly #closing = new AsyncDisposableStack();
  #parts: ServerParts | undefined;
  #isDraining = false;
  #stopping: Promise<void> | undefined;
  #failure: ClusterError | undefined;

  /** Made by `startServer` only. @param edgeTls what the settings give; the cluster's own certificate, when left out. */
  constructor(state: ServerState, edgeTls: EdgeTls | undefined, log: Log) {
    const { membership, addresses, vault } = state;
    const credentials = readCredentials(vault);
    this.#state = state;
    this.#log = log;
    this.#hasOwnEdgeCertificate = edgeTls !== undefined;
    this.#edgeTls = edgeTls ?? edgeTlsOf(credentials);
    this.nodeId = membership.nodeId;
    this.clusterId = membership.clusterId;
    this.edge = { bind: addresses.edge.bind, advertise: addresses.edge.advertise };
    this.peerAddress = addresses.peer.advertise;
    this.rootCertificate = credentials.rootCertificate;
    this.ready = this.#ready.promise;
    this.ended = this.#ended.promise;
    // Whoever does not wait for it hears of the end by `ended`.
    this.ready.catch(() => {});
    this.#closing.defer(() => state.directory.close());
  }

  /** Sets everything up and begins to enter the ring. Part of `startServer`. */
  async open(settings: ServerSettings): Promise<void> {
    const { directory, addresses, founding } = this.#state;
    const parts = await setUpParts(this.#state, settings, this.#log, this.#closing, {
      state: () => (this.#isDraining ? "draining" : this.readiness().ready ? "ready" : "starting"),
      readiness: () => this.readiness(),
      renewed: (credentials) => this.#renewed(credentials),
      stale: (by, reason) => this.#stale(by, reason),
    });
    await parts.replicas.open();
    if (founding !== undefined) await parts.replicas.bootstrap();
    parts.replicas.start();
    parts.crawl.start();
    this.#parts = parts;
    if (founding === undefined) {
      await updateClientFile(directory, addresses);
      void this.#enter(parts);
    } else {
      parts.ring.bootstrap();
      this.#firstAdmin = await this.#found(parts, this.#state.identity.zone ?? "", founding.adminPassword);
    }
    await parts.poolStarted;
    void this.#awaitReady(parts);
  }

  /** What made it stop by itself. */
  get failure(): ClusterError | undefined {
    return this.#failure;
  }

  /** Of a cluster that this start made; to be shown once. */
  get firstAdmin(): FirstAdmin | undefined {
    return this.#firstAdmin;
  }

  /** What an edge needs of the member that it stands before. */
  get backend(): EdgeParts {
    const { registers, layout, jobs, view, values, valueWatch, locks, administration, audit } = this.#open;
    return {
      clusterId: this.clusterId,
      registers,
      layout,
      administration,
      audit,
      jobs,
      values,
      valueWatch,
      locks,
      cluster: view,
      ready: () => this.readiness(),
    };
  }

  /** What the edge presents now. */
  get edgeTls(): EdgeTls {
    return this.#edgeTls;
  }

  /** Called with each new certificate of the edge. */
  onEdgeTls(listener: (tls: EdgeTls) => void): void {
    this.#edgeListeners.add(listener);
  }

  /** In the ring, and all partitions that it keeps served. */
  readiness(): Readiness {
    const reasons: string[] = [];
    if (this.#stopping !== undefined || this.#isDraining) reasons.push("the server is stopping");
    const parts = this.#parts;
    const problem = parts?.care.problem;
    if (problem !== undefined) reasons.push(problem);
    const wrongClock = parts?.clockWatch.problem;
    if (wrongClock !== undefined) reasons.push(wrongClock);
    const held = parts === undefined ? [] : heldPartitions(parts.replicas);
    const broken = parts?.replicas.status().find(({ quarantine }) => quarantine !== undefined);
    if (broken !== undefined && problem === undefined) {
      reasons.push(`its copy of partition ${broken.partition} can't be used: ${broken.quarantine}`);
    }
    if (parts === undefined || !parts.ring.isMember) {
      reasons.push("the server is not in the ring yet");
    } else {
      const isCut = ({ copies, members }: HeldPartition) => copies < majorityOf(members.length);
      const cut = held.filter(isCut).length;
      const unserved = held.filter((one) => one.leader === null && !isCut(one)).length;
      if (cut > 0) reasons.push(`of ${cut} of its partitions most copies are on servers that do not answer`);
      if (unserved > 0 && problem === undefined) reasons.push(`${unserved} of its partitions have no leader`);
    }
    const isSafe = held.length > 0 && held.every(({ durability }) => durability === "full");
    return { ready: reasons.length === 0, reasons, durability: isSafe ? "full" : "degraded" };
  }

  /** Not ready any more; its leaderships go to others, for as long as that takes but 5 s. */
  async drain(): Promise<void> {
    if (this.#isDraining) return;
    this.#isDraining = true;
    const parts = this.#parts;
    if (parts === undefined) return;
    const bound = new AbortController();
    await Promise.race([
      parts.replicas.handOverAll(),
      pause(HAND_OVER_MS_MAX, undefined, { signal: bound.signal }).catch(() => {}),
    ]);
    bound.abort();
  }

  /** Drains, says goodbye, and closes everything; never rejects. The directory is free when it resolves. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#ready.reject(new UnavailableError("the server was stopped"));
    await this.#attempt("drain", () => this.drain());
    // In the opposite order; one part that fails to close does not keep the others open.
    await this.#attempt("close", () => this.#closing.disposeAsync());
    this.#log.info("server stopped", {});
    this.#ended.resolve(this.#failure);
  }

  async #attempt(step: string, run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.#log.error("not stopped cleanly", { step, error });
    }
  }

  get #open(): ServerParts {
    if (this.#parts === undefined) throw new UnavailableError("the server is starting; ask again");
    return this.#parts;
  }

  /** Writes the cluster's first entries; from here on it is there. */
  async #found(parts: ServerParts, zone: string, adminPassword: string | undefined): Promise<FirstAdmin> {
    const { directory, vault, membership, addresses } = this.#state;
    const { entries, accounts } = parts;
    const admin = await foundCluster({
      directory,
      vault,
      membership,
      addresses,
      zone,
      adminPassword,
      entries,
      accounts,
    });
    await directory.markBootstrapped();
    return admin;
  }

  async #enter({ ring, book }: ServerParts): Promise<void> {
    const { membership } = this.#state;
    try {
      // A server that was let in and never got into the ring knows only those that let it in.
      if (book.contacts.length === 0 && membership.contacts.length > 0) await ring.join(membership.contacts);
      else await ring.rejoin();
    } catch (error) {
      if (this.#stopping === undefined) this.#log.error("ring not entered", { error });
    }
  }

  async #awaitReady(parts: ServerParts): Promise<void> {
    while (this.#stopping === undefined) {
      if (this.readiness().ready) {
        this.#log.info("server ready", {});
        parts.enrolment.start();
        parts.roster.start();
        parts.scrub.start(Math.random);
        this.#ready.resolve();
        return;
      }
      await pause(READY_LOOK_MS);
    }
  }

  #renewed(credentials: Credentials): void {
    if (this.#hasOwnEdgeCertificate) return;
    this.#edgeTls = edgeTlsOf(credentials);
    for (const listener of this.#edgeListeners) listener(this.#edgeTls);
  }

  /** Member `by` takes nothing of this server: it runs on an old copy, or was removed. */
  #stale(by: string, reason: string): void {
    if (this.#failure !== undefined) return;
    const { directory } = this.#state;
    this.#failure = new StaleDataDirectoryError(
      `${directory.path}: ${reason} (says server ${by.slice(0, 8)}): --as-new --join HOST:PORT --join-token-file FILE`,
    );
    this.#log.error("data directory is stale", { by, reason });
    void this.#attempt("stale mark", () => directory.markStale()).then(() => this.stop());
  }
}

function edgeTlsOf({ edgeCertificate, edgeKey }: Credentials): EdgeTls {
  return { cert: edgeCertificate, key: edgeKey };
}

/** @throws {UsageError} a file of the settings can't be read. */
async function readEdgeTls(settings: ServerSettings): Promise<EdgeTls | undefined> {
  const { edgeCertFile, edgeKeyFile } = settings;
  if (edgeCertFile === undefined || edgeKeyFile === undefined) return undefined;
  const read = async (name: string, path: string) => {
    try {
      return await readFile(path, "utf8");
    } catch (cause) {
      throw new UsageError(`--${name} ${path} can't be read; give a PEM file`, { cause });
    }
  };
  return { cert: await read("edge-cert-file", edgeCertFile), key: await read("edge-key-file", edgeKeyFile) };
}
