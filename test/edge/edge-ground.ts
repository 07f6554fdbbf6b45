/** Real edges over HTTPS, before jobs in memory and accounts on registers in memory. */
import { createHash } from "node:crypto";
import { Agent, request } from "undici";
import { RegisterAccounts } from "../../src/edge/accounts.ts";
import type {
  ClusterStatus,
  ClusterView,
  EdgeBackend,
  NodeStatus,
  Readiness,
} from "../../src/edge/backend.ts";
import { createEdge, type Edge } from "../../src/edge/edge.ts";
import {
  createAuthority,
  createKeyPair,
  issueCertificate,
} from "../../src/identity/certificate-authority.ts";
import { hashPassword } from "../../src/identity/password.ts";
import type { Role } from "../../src/identity/permission.ts";
import { createSigningKey } from "../../src/identity/token.ts";
import { createUser } from "../../src/identity/user.ts";
import { createLog, type Log } from "../../src/log.ts";
import type { PartitionLoss } from "../../src/node/administration.ts";
import { AuditLog } from "../../src/node/audit-log.ts";
import { systemClock } from "../../src/node/clock.ts";
import { KeyLayout } from "../../src/node/key-layout.ts";
import { KeyValues } from "../../src/node/key-values.ts";
import { LockKeeper } from "../../src/node/lock-keeper.ts";
import { Locks } from "../../src/node/locks.ts";
import { SystemEntries } from "../../src/node/system-entries.ts";
import { ValueWatch } from "../../src/node/value-watch.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import { MemoryJobs } from "./memory-jobs.ts";
import { MemoryRegisters } from "./memory-registers.ts";

export const CLUSTER_ID = "c".repeat(32);
export const PASSWORD = "correct horse battery";
export const layout = new KeyLayout(
  {
    name: (namespace, text) =>
      createHash("sha256").update(`${namespace}/${text}`).digest("latin1").slice(0, 16),
    number: (n) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64BE(BigInt(n));
      return bytes.toString("latin1");
    },
  },
  16,
);

export interface Ground {
  readonly jobs: MemoryJobs;
  readonly registers: MemoryRegisters;
  readonly entries: SystemEntries;
  /** As at a leader, one for all edges. */
  readonly lockKeeper: LockKeeper;
  readonly ca: string;
  /** What the edges logged, one line each. */
  readonly logged: string[];
  readonly readiness: { value: Readiness };
  readonly nodes: NodeStatus[];
  /** As the status tells of them. */
  readonly partitions: ClusterStatus["partitions"];
  /** What operators asked for, and who. */
  readonly administered: string[];
  /** Lets all edges look at the accounts anew. */
  renewAccounts(): Promise<void>;
  /** One more server with a copy of the accounts of its own. */
  addEdge(): Promise<RunningEdge>;
  close(): Promise<void>;
}

export interface RunningEdge {
  readonly url: string;
  readonly accounts: RegisterAccounts;
  /** As when its process dies: all connections break. */
  kill(): Promise<void>;
  readonly edge: Edge;
}

/** With users admin, alice and victor (roles admin, user, viewer), who share one password. */
export async function createGround(): Promise<Ground> {
  const nowMs = Date.now();
  const authority = await createAuthority(CLUSTER_ID, nowMs);
  const pair = createKeyPair();
  const cert = await issueCertificate(authority, {
    role: "edge",
    name: "a".repeat(40),
    hosts: ["127.0.0.1", "localhost"],
    publicKey: pair.publicKey,
    nowMs,
  });
  const logged: string[] = [];
  const log: Log = createLog({ level: "info", text: false, write: (line) => logged.push(line) });
  const jobs = new MemoryJobs();
  const registers = new MemoryRegisters();
  const entries = new SystemEntries(registers, layout);
  const passwordHash = await hashPassword(PASSWORD);
  const roles: Record<string, Role> = { admin: "admin", alice: "user", bob: "user", victor: "viewer" };
  for (const [name, role] of Object.entries(roles)) {
    await entries.put("user", name, createUser({ name, role, passwordHash, nowMs }), "absent");
  }
  const signing = createSigningKey({ signFrom: nowMs, verifyUntil: nowMs + 60 * 86_400_000 });
  await entries.put("signing", signing.kid, signing, "absent");
  const readiness = { value: { ready: true, reasons: [], durability: "full" } as Readiness };
  const nodes: NodeStatus[] = [];
  const partitions = { full: 16, degraded: 0, unserved: 0, complete: 16 };
  const running: RunningEdge[] = [];
  const lockKeeper = new LockKeeper({
    layout,
    operate: (partition, operation) => registers.operate(partition, operation),
    clock: systemClock,
  });
  const locks = new Locks({
    layout,
    leaders: registers,
    here: (request) => lockKeeper.request(request),
    there: (_, request) => lockKeeper.request(request),
    timeoutMs: 2_000,
  });
  const administered: string[] = [];
  const administration: EdgeBackend["administration"] = {
    drain: async (actor, nodeId) => void administered.push(`${actor} drains ${nodeId}`),
    keep: async (actor, nodeId) => void administered.push(`${actor} keeps ${nodeId}`),
    remove: async (actor, nodeId) => void administered.push(`${actor} removes ${nodeId}`),
    losses: async () => [LOSS],
    recover: async (actor, decided) => {
      administered.push(`${actor} recovers ${decided.map(({ partition }) => partition)}`);
      return { recovered: decided.map(({ partition }) => partition), failed: [] };
    },
  };
  return {
    jobs,
    lockKeeper,
    registers,
    entries,
    ca: authority.rootCertificate,
    logged,
    readiness,
    nodes,
    partitions,
    administered,
    renewAccounts: async () => {
      for (const { accounts } of running) await accounts.renew();
    },
    addEdge: async () => {
      const accounts = new RegisterAccounts({ registers, layout, clusterId: CLUSTER_ID, log });
      const backend: EdgeBackend = {
        clusterId: CLUSTER_ID,
        jobs,
        accounts,
        cluster: clusterOf(nodes, partitions),
        administration,
        audit: new AuditLog(registers, layout),
        values: new KeyValues({ registers, layout }),
        valueWatch: new ValueWatch({ registers, layout }),
        locks,
        ready: () => readiness.value,
      };
      const edge = createEdge({ backend, tls: { cert, key: pair.privateKey }, log });
      const { host, port } = await edge.listen(0, "127.0.0.1");
      accounts.start();
      const kill = () => edge.close(0);
      const one = { url: `https://${host}:${port}`, accounts, kill, edge };
      running.push(one);
      return one;
    },
    close: async () => {
      for (const { accounts, edge } of running) {
        accounts.stop();
        await edge.close(0);
      }
    },
  };
}

const SURVIVOR = "d".repeat(40) as NodeId;
export const LOSS: PartitionLoss = {
  partition: 3,
  members: [`${SURVIVOR}/1`, `${"e".repeat(40)}/1`, `${"f".repeat(40)}/1`],
  survivors: [
    {
      nodeId: SURVIVOR,
      replica: `${SURVIVOR}/1`,
      accepted: `7.${"e".repeat(40)}/1`,
      seq: 12,
      entries: 340,
      ageMs: 1200,
    },
  ],
  lost: [`${"e".repeat(40)}/1`, `${"f".repeat(40)}/1`],
  best: SURVIVOR,
  seen: "0123456789abcdef",
};

function clusterOf(nodes: NodeStatus[], partitions: ClusterStatus["partitions"]): ClusterView {
  const nodeId = "a".repeat(40);
  return {
    status: async () => ({
      clusterId: CLUSTER_ID,
      nodeId,
      partitionCount: 16,
      replicationFactor: 5,
      ready: true,
      reasons: [],
      durability: "full",
      partitions,
      ring: { predecessor: null, successors: [], fingers: [] },
      nodes,
    }),
    nodes: async () => nodes,
    partitions: async () => [
      {
        partition: 0,
        leader: nodeId,
        members: [nodeId],
        ballot: `1.${nodeId}`,
        copies: 5,
        durability: "full",
      },
    ],
    lookup: async (key) => ({
      key,
      point: nodeId,
      partition: 3,
      leader: nodeId,
      members: [nodeId],
      path: [],
      hops: 0,
    }),
    createJoinToken: async (user) => ({ token: `token-for-${user}`, expiresAt: "2026-01-01T01:00:00.000Z" }),
  };
}

export function nodeAt(edge: string): NodeStatus {
  return {
    nodeId: "b".repeat(40),
    edge,
    peer: "127.0.0.1:7443",
    zone: "",
    state: "alive",
    membership: "active",
    self: false,
    incarnation: 1,
    load: 0,
    leads: 1,
    replicas: 1,
    blobs: null,
    scrubbedAt: null,
    problem: null,
    uptimeMs: 1,
    version: "0.1.0",
    arcShare: 0.5,
    calls: { made: 100, redirects: 2, lookups: 1 },
  };
}

export interface Reply {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly bytes: Buffer;
  readonly text: string;
  // Tests look at single members of answers whose form they know.
  json(path: string): unknown;
}

/** Plain HTTPS, as any client would speak it. */
export class RestCaller {
  readonly #agent: Agent;
  readonly #url: string;
  #authorization: string | undefined;

  constructor(url: string, ca: string) {
    this.#url = url;
    this.#agent = new Agent({ connect: { ca } });
  }

  get agent(): Agent {
    return this.#agent;
  }

  get authorization(): string {
    return this.#authorization ?? "";
  }

  async signIn(username: string): Promise<this> {
    const reply = await this.call("POST", "/v1/auth/token", { username, password: PASSWORD });
    this.#authorization = `Bearer ${reply.json("accessToken")}`;
    return this;
  }

  async call(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const type = body === undefined ? {} : { "content-type": "application/json" };
    const bytes = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    return this.send(method, path, bytes, { ...type, ...headers });
  }

  /** What is given, as it is. */
  async send(
    method: string,
    path: string,
    body?: string | Uint8Array,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const response = await request(this.#url + path, {
      method: method as "GET",
      dispatcher: this.#agent,
      headers: {
        ...(this.#authorization === undefined ? {} : { authorization: this.#authorization }),
        ...headers,
      },
      body: body ?? null,
    });
    const bytes = Buffer.from(await response.body.arrayBuffer());
    const text = bytes.toString("utf8");
    return {
      status: response.statusCode,
      headers: response.headers,
      bytes,
      text,
      json: (path) => path.split(".").reduce<unknown>((at, name) => memberOf(at, name), JSON.parse(text)),
    };
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
