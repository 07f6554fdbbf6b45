/** What a member tells people of the cluster, while servers are silent or away. */
import { EventEmitter } from "node:events";
import { test } from "tap";
import { ClusterView, type ClusterViewParts } from "../../src/node/cluster-view.ts";
import type { NodeStatus } from "../../src/node/peer-contract.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";

const member = (digit: string): Member => ({
  nodeId: digit.repeat(40) as NodeId,
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation: 1,
  instance: "1",
});
const [a, b, c] = [member("1"), member("2"), member("3")];

const status = (leads: number): NodeStatus => ({
  nodeId: b.nodeId,
  peer: "127.0.0.1:7443",
  zone: "",
  edge: "127.0.0.1:8443",
  incarnation: 1,
  load: 0,
  leads,
  replicas: 4,
  blobs: null,
  scrubbedAt: null,
  problem: null,
  uptimeMs: 1,
  epochMs: 1,
  version: "1.0",
  predecessor: a.nodeId,
  state: "ready",
  calls: { made: 0, redirects: 0, lookups: 0 },
});

/** A ring of a and b, of which b may fall silent; c is a member that was stopped. */
class World {
  readonly events = new EventEmitter<{ suspected: [NodeId] }>();
  readonly suspected = new Set<NodeId>();
  asked = 0;
  readonly view: ClusterView;

  constructor(ask: ClusterViewParts["ask"]) {
    const record = ({ nodeId }: Member, edge: string) => ({
      nodeId,
      addresses: { peer: "127.0.0.1:7443", edge },
      zone: "",
      serial: "",
      state: "active" as const,
    });
    const members = [a, b];
    this.view = new ClusterView({
      self: a,
      cluster: { clusterId: "c", partitions: 256, replicationFactor: 5 },
      ring: {
        members: () => members,
        member: (nodeId) => members.find((one) => one.nodeId === nodeId),
        isSuspected: (nodeId) => this.suspected.has(nodeId),
        isReachable: () => true,
        loadOf: () => 0,
        view: () => ({ predecessor: b.nodeId, successors: [b.nodeId], fingers: [], watched: [] }),
        placement: async () => ({ members: [a], hops: 0, path: [] }),
        on: (event, listener) => this.events.on(event, listener),
      },
      admission: { createJoinToken: () => Promise.reject(new Error("nor for that")) },
      roster: {
        stateOf: () => "active",
        removed: new Set(),
        members: [record(a, "a:1"), record(b, "b:1"), record(c, "c:1")],
        staying: 3,
      },
      readiness: () => ({ ready: true, reasons: [], durability: "full" }),
      local: () => status(1),
      ask: (...args) => {
        this.asked++;
        return ask(...args);
      },
    });
  }

  suspect(nodeId: NodeId): void {
    this.suspected.add(nodeId);
    this.events.emit("suspected", nodeId);
  }
}

test("one that falls silent while it is asked is told as soon as all take it for dead", async (t) => {
  const world = new World(() => new Promise(() => {}));
  const both = Promise.all([world.view.nodes(), world.view.nodes()]);
  world.suspect(b.nodeId);
  const [first, second] = await both;
  t.match(first[1], { nodeId: b.nodeId, state: "suspected", edge: "https://b:1", leads: null });
  t.strictSame(second, first);
  t.equal(world.asked, 2);

  await world.view.nodes();
  t.equal(world.asked, 2, "and is not asked any more");
});

test("one that answers is told as it says, one that was stopped as away", async (t) => {
  const world = new World(async () => status(3));
  const nodes = await world.view.nodes();
  t.match(nodes, [
    { nodeId: a.nodeId, self: true, state: "alive", leads: 1 },
    { nodeId: b.nodeId, self: false, state: "alive", leads: 3, edge: "https://127.0.0.1:8443" },
    { nodeId: c.nodeId, state: "away", edge: "https://c:1", incarnation: null, leads: null },
  ]);
  t.equal(world.asked, 1, "who is away is not asked");
});

test("one that can't be asked is unreachable, as long as nobody takes it for dead", async (t) => {
  const world = new World(() => Promise.reject(new Error("no connection")));
  t.match((await world.view.nodes())[1], { nodeId: b.nodeId, state: "unreachable" });
});

test("a host is looked up where it is placed, however it is written; other keys as they stand", async (t) => {
  const { view } = new World(() => Promise.reject(new Error("no connection")));
  const keyOf = async (text: string) => (await view.lookup(text)).key;
  t.equal(await keyOf("host/EXAMPLE.org"), "host/example.org");
  t.equal(await keyOf("host/Exämple.org."), "host/xn--exmple-cua.org");
  t.equal(await keyOf("host/::1"), "host/::1", "no host by itself");
  t.equal(await keyOf("host/[::1]"), "host/::1");
  t.equal(await keyOf("host/a/3"), "host/a/3");
  t.equal(await keyOf("kv/Ann/n/K"), "kv/Ann/n/K");
});
