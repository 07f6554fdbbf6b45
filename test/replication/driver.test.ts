/** Replica drivers of several servers over a direct line: growth, operations, takeover, restart. */
import { EventEmitter } from "node:events";
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { ReplicaDriver, type ReplicaRing } from "../../src/node/replica-driver.ts";
import type { ReplicationMessage } from "../../src/replication/message.ts";
import type { Operation } from "../../src/replication/register.ts";
import {
  distance,
  type Identifier,
  identifierOf,
  type NodeId,
  nodeIdOf,
  pointOf,
  positionOf,
} from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import { placementOf } from "../../src/ring/placement.ts";
import { MemoryStore } from "../../src/store/memory-store.ts";

const PARTITIONS = 16;
const REPLICATION = 5;
const log = createLog({ level: (process.env.LOG as "silent" | undefined) ?? "silent", text: true });

/** Who lives is known to all at once: the ring has tests of its own. */
class Cluster {
  readonly servers = new Map<NodeId, { driver: ReplicaDriver; member: Member; store: MemoryStore }>();
  readonly dead = new Set<NodeId>();
  readonly changes = new EventEmitter();
  /** The last one that came, by who said it to whom. */
  readonly appends = new Map<string, ReplicationMessage>();
  /** Pairs of nodes: the first one does not know where the second one is. */
  readonly unknown = new Set<string>();
  incarnation = 1;
  replaceAfterMs = 60_000;

  ring(self: Member): ReplicaRing {
    const live = () =>
      [...this.servers.values()].map((s) => s.member).filter((m) => !this.dead.has(m.nodeId));
    const after = (point: Identifier, count: number) =>
      live()
        .sort((a, b) => (order(point, a) < order(point, b) ? -1 : 1))
        .slice(0, count);
    const wished = (point: Identifier, count: number, except: ReadonlySet<string>) =>
      placementOf(
        after(point, Number.POSITIVE_INFINITY).filter(({ nodeId }) => !except.has(nodeId)),
        count,
      );
    const order = (point: Identifier, member: Member) => distance(point, identifierOf(member.nodeId));
    return {
      self,
      member: (nodeId) =>
        this.unknown.has(`${self.nodeId} ${nodeId}`) ? undefined : this.servers.get(nodeId)?.member,
      meet: ({ nodeId }) => this.unknown.delete(`${self.nodeId} ${nodeId}`),
      members: live,
      isSuspected: (nodeId) => this.dead.has(nodeId) && !this.unknown.has(`${self.nodeId} ${nodeId}`),
      successorsOfLocally: after,
      placementLocally: wished,
      placement: async (point, count, except) => ({ members: wished(point, count, except) }),
    };
  }

  async start(name: string, store = new MemoryStore({ durable: "soon" }), zone = ""): Promise<NodeId> {
    const nodeId = nodeIdOf(pointOf(name));
    const isFirst = this.servers.size === 0;
    const member: Member = {
      nodeId,
      address: { host: "127.0.0.1", port: 1 },
      zone,
      incarnation: this.incarnation++,
      instance: name,
    };
    const driver = new ReplicaDriver({
      wall: Date.now,
      self: member,
      partitionCount: PARTITIONS,
      store,
      digestKey: Buffer.alloc(32, 7),
      random: Math.random,
      log: log.child({ at: name }),
      settings: { replicationFactor: REPLICATION, leaderTimeoutMs: 500, replaceAfterMs: this.replaceAfterMs },
      ring: this.ring(member),
      send: (to, message) => this.deliver(member, to.nodeId as NodeId, message),
    });
    this.dead.delete(nodeId);
    this.servers.set(nodeId, { driver, member, store });
    if (isFirst) await driver.bootstrap();
    else await driver.open();
    driver.start();
    for (const [id, { driver: other }] of this.servers) if (id !== nodeId) other.alive(nodeId);
    return nodeId;
  }

  /** Groups have all their members, and each is led by the first wished one. */
  async startAll(...names: string[]): Promise<NodeId[]> {
    const ids: NodeId[] = [];
    for (const name of names) ids.push(await this.start(name));
    await until("whole groups", () => this.whole(Math.min(names.length, REPLICATION)) || undefined);
    await until("each leader is the first wished member", () => this.isBalanced() || undefined);
    return ids;
  }

  deliver(from: Member, to: NodeId, message: ReplicationMessage): void {
    const copy = structuredClone(message);
    setImmediate(() => {
      if (this.dead.has(to) || this.dead.has(from.nodeId)) return;
      if ("body" in copy && copy.body.kind === "append") this.appends.set(`${from.nodeId} ${to}`, copy);
      const target = this.servers.get(to);
      target?.driver.receive({ ...from }, copy);
    });
  }

  async kill(nodeId: NodeId): Promise<void> {
    this.dead.add(nodeId);
    const { driver, store } = this.servers.get(nodeId)!;
    await driver.stop();
    store.crash();
    for (const [id, { driver: other }] of this.servers) if (!this.dead.has(id)) other.suspected(nodeId);
  }

  get live(): ReplicaDriver[] {
    return [...this.servers].filter(([id]) => !this.dead.has(id)).map(([, { driver }]) => driver);
  }

  /** At whoever leads; waits for a leader. */
  async operate(partition: number, operation: Operation) {
    return until(`partition ${partition} answers`, async () => {
      for (const driver of this.live) {
        if (driver.leads(partition) !== undefined)
          return driver.operate(partition, operation).catch(() => undefined);
      }
      return undefined;
    });
  }

  isBalanced(): boolean {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const first = this.ring([...this.servers.values()][0]!.member).successorsOfLocally(
        positionOf(partition, PARTITIONS),
        1,
      )?.[0];
      if (first === undefined || this.servers.get(first.nodeId)?.driver.leads(partition) === undefined)
        return false;
    }
    return true;
  }

  whole(size: number): boolean {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const leader = this.live.find((driver) => driver.leads(partition) !== undefined);
      if (leader?.members(partition)?.length !== size) return false;
    }
    return true;
  }
}

async function stopAll(cluster: Cluster): Promise<void> {
  await Promise.all(cluster.live.map((driver) => driver.stop()));
}

async function until<T>(
  what: string,
  poll: () => Promise<T | undefined> | T | undefined,
  limitMs = 15_000,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  while (performance.now() < deadline) {
    const found = await poll();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never: ${what}`);
}

const put = (key: string, value: string): Operation => ({
  kind: "batch",
  changes: [{ kind: "put", key, value: Buffer.from(value) }],
  conditions: [],
});

test("groups grow from one to five members and keep what was written", async (t) => {
  const cluster = new Cluster();
  t.teardown(() => stopAll(cluster));
  await cluster.start("a");
  await until("one leads all", () => cluster.whole(1) || undefined);
  for (let p = 0; p < PARTITIONS; p++)
    t.match(await cluster.operate(p, put("k", `v${p}`)), { kind: "written" });

  for (const [i, name] of ["b", "c", "d", "e"].entries()) {
    await cluster.start(name);
    await until(`groups of ${i + 2}`, () => cluster.whole(i + 2) || undefined);
  }
  await until("each leader is the first wished member", () => cluster.isBalanced() || undefined);

  for (let p = 0; p < PARTITIONS; p++) {
    const outcome = await cluster.operate(p, { kind: "get", keys: ["k", "absent"] });
    t.match(outcome, { kind: "entries", entries: [{ key: "k", value: Buffer.from(`v${p}`) }, undefined] });
  }
});

test("no two copies stand in one zone while there are others; a zone that dies takes one copy with it", async (t) => {
  const cluster = new Cluster();
  t.teardown(() => stopAll(cluster));
  const zones = new Map<NodeId, string>();
  const start = async (name: string, zone: string) => {
    zones.set(await cluster.start(name, undefined, zone), zone);
  };
  for (const name of ["a", "b", "c", "d", "e"]) await start(name, "one host");
  await until("too few zones: five copies all the same", () => cluster.whole(5) || undefined);
  for (let p = 0; p < PARTITIONS; p++) await cluster.operate(p, put("k", `v${p}`));

  for (const [i, name] of ["f", "g", "h", "i"].entries()) await start(name, `rack ${i}`);
  const isSpread = () => {
    for (let p = 0; p < PARTITIONS; p++) {
      const leader = cluster.live.find((driver) => driver.leads(p) !== undefined);
      const members = leader?.members(p);
      if (members?.length !== 5 || new Set(members.map((id) => zones.get(id))).size !== 5) return false;
    }
    return true;
  };
  await until("each group in five zones", () => isSpread() || undefined);
  for (let p = 0; p < PARTITIONS; p++) {
    const outcome = await cluster.operate(p, { kind: "get", keys: ["k"] });
    t.match(outcome, { kind: "entries", entries: [{ value: Buffer.from(`v${p}`) }] });
  }
});

test("two of five die at once: all partitions are led again and nothing acknowledged is lost", async (t) => {
  const cluster = new Cluster();
  t.teardown(() => stopAll(cluster));
  const ids: NodeId[] = [];
  for (const name of ["a", "b", "c", "d", "e"]) ids.push(await cluster.start(name));
  await until("groups of five", () => cluster.whole(5) || undefined);
  const acknowledged: [number, string][] = [];
  for (let i = 0; i < 200; i++) {
    await cluster.operate(i % PARTITIONS, put(`k${i}`, `v${i}`));
    acknowledged.push([i % PARTITIONS, `k${i}`]);
  }

  await Promise.all([cluster.kill(ids[0]!), cluster.kill(ids[1]!)]);
  const began = performance.now();
  await until("all are led", () => cluster.whole(5) || undefined);
  t.comment(`takeover of all partitions after ${Math.round(performance.now() - began)} ms`);

  for (const [partition, key] of acknowledged) {
    const outcome = await cluster.operate(partition, { kind: "get", keys: [key] });
    if (outcome.kind !== "entries" || outcome.entries[0]?.key !== key) t.fail(`${key} is lost`);
  }
  t.pass("all 200 are there");
});

test("members of a group that do not know one another meet when one of them speaks", async (t) => {
  const cluster = new Cluster();
  t.teardown(() => stopAll(cluster));
  const ids = await cluster.startAll("a", "b", "c");
  cluster.unknown.add(`${ids[1]} ${ids[2]}`);

  await cluster.kill(ids[0]!);

  // Each of the two needs the other's answers.
  for (let p = 0; p < PARTITIONS; p++) t.match(await cluster.operate(p, put("k", "v")), { kind: "written" });
  t.equal(cluster.unknown.size, 0);
});

test("a member that died before anybody of the living came is replaced like any other", async (t) => {
  const cluster = new Cluster();
  cluster.replaceAfterMs = 300;
  t.teardown(() => stopAll(cluster));
  const ids = await cluster.startAll("a", "b", "c", "d", "e", "f");
  const gone = ids[5]!;
  const { driver, store } = cluster.servers.get(gone)!;
  const leaders = [...Array(PARTITIONS).keys()].map((p) =>
    cluster.live.find(
      (one) => one !== driver && one.leads(p) !== undefined && one.members(p)!.includes(gone),
    ),
  );
  t.ok(leaders.some((leader) => leader !== undefined));

  for (const id of ids.slice(0, 5)) cluster.unknown.add(`${id} ${gone}`);
  cluster.dead.add(gone);
  await driver.stop();
  store.crash();

  const isReplaced = (leader: ReplicaDriver | undefined, p: number) =>
    leader?.members(p)?.includes(gone) !== true;
  const copies = leaders.flatMap((leader, p) =>
    leader === undefined ? [] : leader.status().filter(({ partition }) => partition === p),
  );
  t.ok(
    copies.every((status) => status.copies === status.members.length - 1),
    "it is not counted among the copies",
  );
  for (const one of cluster.live) one.ringChanged();
  await until("others have taken its place", () => leaders.every(isReplaced) || undefined);
});

test("what a dead leader said last comes after the news of its death: others lead all the same", async (t) => {
  const cluster = new Cluster();
  t.teardown(() => stopAll(cluster));
  const ids = await cluster.startAll("a", "b", "c");
  const leader = cluster.servers.get(ids[0]!)!;
  const partition = [...Array(PARTITIONS).keys()].find((p) => leader.driver.leads(p) !== undefined)!;
  cluster.appends.clear();
  await leader.driver.operate(partition, put("k", "v"));
  const late = () => ids.slice(1).map((id) => cluster.appends.get(`${ids[0]} ${id}`));
  await until("both have heard of it", () => late().every((append) => append !== undefined) || undefined);

  await cluster.kill(ids[0]!);
  for (const [i, append] of late().entries())
    cluster.servers.get(ids[i + 1]!)!.driver.receive(leader.member, append!);

  const outcome = await cluster.operate(partition, { kind: "get", keys: ["k"] });
  t.match(outcome, { kind: "entries", entries: [{ value: Buffer.from("v") }] });
});
