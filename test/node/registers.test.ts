/**
 * Calls to leaders of partitions: who is asked, and how rarely the ring has to be
 * asked where that one is. A small cluster stands behind it: servers that know
 * whether they lead, and say whom they believe to.
 */
import assert from "node:assert/strict";
import { test } from "tap";
import { BusyError, NotLeaderError, OutcomeUnknownError, UnavailableError } from "../../src/errors.ts";
import { RoutedRegisters } from "../../src/node/registers.ts";
import type { PeerRef } from "../../src/peer/transport.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import { randomFrom } from "../simulation/random.ts";

const id = (digit: string) => digit.repeat(40) as NodeId;
const [a, b, c, d, e, f] = ["a", "b", "c", "d", "e", "f"].map(id) as [
  NodeId,
  NodeId,
  NodeId,
  NodeId,
  NodeId,
  NodeId,
];
const self = id("0");
const done: Outcome = { kind: "written", version: "1" };
const read: Operation = { kind: "get", keys: ["k"] };

function memberOf(nodeId: NodeId): Member {
  return {
    nodeId,
    address: { host: nodeId.slice(0, 1), port: 7443 },
    zone: "",
    incarnation: 1,
    instance: "1",
  };
}

/** Partitions led and kept by some of the servers; the caller itself is one that keeps nothing. */
class Servers {
  readonly leaders = new Map<number, NodeId>();
  /** Whom each server believes to lead what it does not lead itself. */
  hintOf: (nodeId: NodeId, partition: number) => NodeId | undefined = (_, partition) =>
    this.leaders.get(partition);
  /** The ring's wish for each partition. */
  wish: (partition: number) => NodeId[] = () => [a, b, c, d, e];
  /** What the caller was told without asking. */
  readonly announced = new Map<number, NodeId>();
  readonly suspected = new Set<NodeId>();
  readonly silent = new Set<NodeId>();
  /** Whose address the caller's ring does not know. */
  readonly strangers = new Set<NodeId>();
  readonly busyOnce = new Set<NodeId>();
  readonly asked: string[] = [];
  ringAsked = 0;

  readonly registers = new RoutedRegisters({
    self: memberOf(self),
    partitionCount: 256,
    replicationFactor: 5,
    requestTimeoutMs: 2000,
    random: () => 0.5,
    replicas: {
      operate: (partition) => Promise.reject(new NotLeaderError(partition)),
      takesOperations: () => false,
      leaderHint: (partition) => this.announced.get(partition),
      members: () => undefined,
    },
    ring: {
      member: (nodeId) => (this.strangers.has(nodeId) ? undefined : memberOf(nodeId)),
      isSuspected: (nodeId) => this.suspected.has(nodeId),
      placement: async (point) => {
        this.ringAsked++;
        await Promise.resolve();
        return { members: this.wish(Number(point >> 152n)).map(memberOf) };
      },
    },
    callOperate: (to, { partition }) => this.#answer(to, partition),
    callCrawl: () => Promise.reject(new Error("not part of this")),
    crawlLocally: () => Promise.reject(new Error("not part of this")),
  });

  read(partition: number): Promise<Outcome> {
    return this.registers.operate(partition, read);
  }

  async #answer(to: PeerRef, partition: number): Promise<Outcome> {
    const nodeId = to.nodeId as NodeId;
    assert.equal(to.address.host, nodeId.slice(0, 1), "asked at its own address");
    this.asked.push(nodeId.slice(0, 1));
    await Promise.resolve();
    if (this.silent.has(nodeId)) throw new UnavailableError(`${nodeId} does not answer`);
    if (this.busyOnce.delete(nodeId)) throw new BusyError("the queue", 1);
    if (this.leaders.get(partition) === nodeId) return done;
    throw new NotLeaderError(partition, this.hintOf(nodeId, partition));
  }
}

test("the ring is asked once for a partition, however many calls wait for it", async () => {
  const servers = new Servers();
  servers.leaders.set(7, c);

  await Promise.all(Array.from({ length: 20 }, () => servers.read(7)));
  for (let i = 0; i < 100; i++) await servers.read(7);

  assert.equal(servers.ringAsked, 1);
  assert.equal(servers.registers.counts.made, 120);
  assert.equal(servers.registers.counts.lookups, 1);
});

test("a leader that moved is followed by one redirect, and found at once from then on", async () => {
  const servers = new Servers();
  servers.leaders.set(7, a);
  await servers.read(7);
  servers.leaders.set(7, f);

  for (let i = 0; i < 10; i++) await servers.read(7);

  assert.equal(servers.asked.join(" "), `a a ${"f ".repeat(10).trim()}`);
  assert.deepEqual(servers.registers.counts, { made: 11, redirects: 1, lookups: 1 });
});

test("servers that can't say who leads are passed over for other members, without asking the ring", async () => {
  const servers = new Servers();
  servers.leaders.set(7, a);
  await servers.read(7);
  servers.hintOf = () => undefined;
  servers.leaders.set(7, d);

  await servers.read(7);
  await servers.read(7);

  assert.equal(servers.asked.join(" "), "a a b c d d");
  assert.equal(servers.ringAsked, 1);
});

test("an announcement spares the redirect", async () => {
  const servers = new Servers();
  servers.leaders.set(7, a);
  servers.announced.set(7, a);
  await servers.read(7);
  servers.leaders.set(7, b);
  servers.announced.set(7, b);

  await servers.read(7);

  assert.equal(servers.asked.join(" "), "a b");
  assert.deepEqual(servers.registers.counts, { made: 2, redirects: 0, lookups: 0 });
});

test("an announcement that went out of date costs one redirect, not one for each call", async () => {
  const servers = new Servers();
  servers.announced.set(7, a);
  servers.leaders.set(7, b);

  for (let i = 0; i < 10; i++) await servers.read(7);

  assert.equal(servers.asked.join(" "), `a ${"b ".repeat(10).trim()}`);
  assert.deepEqual(servers.registers.counts, { made: 10, redirects: 1, lookups: 0 });
});

test("when a leader dies its fellows are asked: suspected or silent, it costs no lookup", async () => {
  for (const how of ["suspected", "silent"] as const) {
    const servers = new Servers();
    servers.leaders.set(7, a);
    await servers.read(7);
    servers[how].add(a);
    servers.leaders.set(7, b);

    await servers.read(7);
    await servers.read(7);

    assert.equal(servers.asked.join(" "), how === "silent" ? "a a b b" : "a b b", how);
    assert.equal(servers.ringAsked, 1, how);
  }
});

test("a write whose outcome is unknown is told so at once, and the next one goes to another server", async () => {
  const servers = new Servers();
  servers.leaders.set(7, a);
  await servers.read(7);
  servers.silent.add(a);
  servers.leaders.set(7, b);
  const write: Operation = { kind: "batch", changes: [], conditions: [] };

  await assert.rejects(servers.registers.operate(7, write), OutcomeUnknownError);
  await servers.registers.operate(7, write);

  assert.equal(servers.asked.join(" "), "a a b");
});

test("a group that moved away altogether is looked up again, once", async () => {
  const servers = new Servers();
  servers.leaders.set(7, a);
  await servers.read(7);
  servers.hintOf = () => undefined;
  servers.leaders.set(7, f);
  servers.wish = () => [f];

  await servers.read(7);
  await servers.read(7);

  assert.equal(servers.asked.join(" "), "a a b c d e f f");
  assert.equal(servers.ringAsked, 2);
});

test("a server known from the lookup alone is asked where the lookup found it", async () => {
  const servers = new Servers();
  servers.leaders.set(7, d);
  for (const nodeId of [a, b, c, d, e]) servers.strangers.add(nodeId);

  await servers.read(7);

  assert.equal(servers.asked.join(" "), "a d");
});

test("a busy leader stays the leader", async () => {
  const servers = new Servers();
  servers.leaders.set(7, b);
  await servers.read(7);
  servers.busyOnce.add(b);

  await servers.read(7);

  assert.equal(servers.asked.join(" "), "a b b b");
  assert.equal(servers.ringAsked, 1);
});

test("while nobody leads, calls go round and wait; they end when somebody does", async () => {
  const servers = new Servers();

  const reading = servers.read(7);
  while (servers.asked.length < 10) await new Promise((resolve) => setImmediate(resolve));
  servers.leaders.set(7, e);

  assert.deepEqual(await reading, done);
});

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1_000_000_000));
test(`leaders that move now and then cost few redirects and hardly a lookup (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  const servers = new Servers();
  const nodes = [a, b, c, d, e, f];
  const pick = () => nodes[Math.floor(random() * nodes.length)]!;
  servers.wish = (partition) => [0, 1, 2, 3, 4].map((n) => nodes[(partition + n) % nodes.length]!);
  for (let partition = 0; partition < 16; partition++) servers.leaders.set(partition, pick());

  let moves = 0;
  for (let i = 0; i < 20_000; i++) {
    const partition = Math.floor(random() * 16);
    if (random() < 0.01) {
      servers.leaders.set(partition, pick());
      moves++;
    }
    await servers.read(partition);
  }

  const { made, redirects, lookups } = servers.registers.counts;
  assert.equal(made, 20_000);
  assert.equal(lookups, 16);
  assert.ok(redirects <= moves + 16, `${redirects} redirects for ${moves} moves`);
});
