import assert from "node:assert/strict";
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { RingDriver } from "../../src/node/ring-driver.ts";
import type { PeerRef, PeerSender } from "../../src/peer/transport.ts";
import { identifierOf, type NodeId, positionOf } from "../../src/ring/identifier.ts";
import type { ContactRecord, Member } from "../../src/ring/member.ts";
import { ringMessageSchema } from "../../src/ring/message.ts";

const log = createLog({ level: "silent", text: false });
const nodeId = (digits: string) => digits.padEnd(40, "0") as NodeId;
const bytes = (text: string) => new TextEncoder().encode(text);

/** A network in memory: frames are copied, and refused where nobody listens. */
class Loop {
  readonly drivers = new Map<string, RingDriver>();
  readonly frames: string[] = [];
  /** How long each answer to a ping took, and undefined for each ping. */
  readonly answers: { readonly peer: NodeId; readonly tookMs: number | undefined }[] = [];
  /** Until when messages from there wait. */
  held: { readonly from: NodeId; readonly until: Promise<void> } | undefined;
  successors = 8;
  readonly contacts = new Map<string, ContactRecord[]>();

  start(id: NodeId, incarnation = 1, contacts: ContactRecord[] = []): RingDriver {
    const self: Member = {
      nodeId: id,
      address: { host: "127.0.0.1", port: 7000 },
      zone: `zone-${id[0]}`,
      incarnation,
      instance: `start-${incarnation}`,
    };
    const driver = new RingDriver({
      self,
      send: (to, message) => this.#send(self, to, message),
      random: Math.random,
      log,
      settings: { ringSuccessors: this.successors, suspectAfterMs: 1200 },
      contacts,
      onContacts: (list) => this.contacts.set(id, list),
      led: {
        outgoing: (peer) => bytes(`${id}>${peer}`),
        incoming: (peer, from, led, tookMs) => {
          this.frames.push(`${from} ${new TextDecoder().decode(led)}@${peer}`);
          this.answers.push({ peer, tookMs });
        },
      },
    });
    this.drivers.set(id, driver);
    return driver;
  }

  kill(id: NodeId): void {
    this.drivers.get(id)?.stop();
    this.drivers.delete(id);
  }

  stop(): void {
    for (const driver of this.drivers.values()) driver.stop();
  }

  #send(self: Member, to: PeerRef, message: unknown): void {
    const held = this.held?.from === self.nodeId ? this.held.until : undefined;
    setImmediate(async () => {
      await held;
      const target = this.drivers.get(to.nodeId);
      if (target === undefined) this.drivers.get(self.nodeId)?.refused(to.nodeId);
      else {
        const sender: PeerSender = {
          nodeId: self.nodeId,
          address: self.address,
          incarnation: self.incarnation,
          instance: self.instance,
        };
        target.receive(sender, ringMessageSchema.parse(structuredClone(message)));
      }
    });
  }
}

/** Members that have joined one after another. */
async function ringOf(loop: Loop, names: readonly string[], successors = 8): Promise<RingDriver[]> {
  loop.successors = successors;
  const [first, ...rest] = names.map((name) => loop.start(nodeId(name)));
  first!.bootstrap();
  for (const driver of rest) await driver.join([refOf(first!)]);
  await until(() => isWhole(loop));
  return [first!, ...rest];
}

const refOf = (driver: RingDriver): PeerRef => ({ nodeId: driver.self.nodeId, address: driver.self.address });

/** Generous, for the machine may be busy: how fast things go is shown in virtual time. */
const LIMIT_MS = 20_000;

async function until(holds: () => boolean): Promise<void> {
  const startMs = performance.now();
  while (!holds()) {
    assert.ok(performance.now() - startMs < LIMIT_MS, `not within ${LIMIT_MS} ms: ${holds}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Each one's successors, in order, and its predecessor. */
function isWhole(loop: Loop): boolean {
  const order = [...loop.drivers.keys()].sort();
  return order.every((id, i) => {
    const view = loop.drivers.get(id)!.view();
    const expected = [...order.slice(i + 1), ...order.slice(0, i)].slice(0, loop.successors);
    return (
      (view.predecessor === (order[(i + order.length - 1) % order.length] ?? null)) === order.length > 1 &&
      view.successors.join() === expected.join()
    );
  });
}

test("ten servers choose their places, join one another and know the whole ring", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const first = loop.start(nodeId("4"));

  first.bootstrap();

  assert.equal(first.isMember, true);
  assert.deepEqual(first.successorsOfLocally(positionOf(3, 256), 5), [first.self]);
  for (let i = 1; i < 10; i++) {
    const contact = [...loop.drivers.values()][i % loop.drivers.size]!;
    const joiner = loop.start(await contact.chooseIdentifier());
    await joiner.join([refOf(contact)]);
  }
  await until(() => isWhole(loop));
  const order = [...loop.drivers.keys()].sort();
  const zero = identifierOf(nodeId("0"));
  // The one entry past the list, which shows that there are no more, comes with the next round.
  await until(() =>
    [...loop.drivers.values()].every((driver) => driver.successorsOfLocally(zero, 10) !== undefined),
  );
  for (const driver of loop.drivers.values()) {
    assert.deepEqual(
      driver.successorsOfLocally(zero, 10)?.map((m) => m.nodeId),
      order,
    );
    assert.equal(driver.members().length, 10);
  }
  assert.ok(order.includes(nodeId("c")), "the second stands opposite the first");
});

test("two that come at once through different servers get different places", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const [a, b] = await ringOf(loop, ["2", "a"]);

  const points = await Promise.all([a!, b!, a!, b!].map((driver) => driver.chooseIdentifier()));

  assert.equal(new Set(points).size, 4);
});

test("a killed server is suspected by all, and back after it has rejoined", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const drivers = await ringOf(loop, ["1", "4", "7", "a", "d"]);
  for (const driver of drivers) driver.watch(["1", "4", "7", "a", "d"].map(nodeId));
  const dead = nodeId("7");
  const others = drivers.filter((driver) => driver.self.nodeId !== dead);
  const suspicions: string[] = [];
  for (const driver of others) {
    driver.on("suspected", (nodeId) => suspicions.push(nodeId));
  }
  await until(() => loop.contacts.get(dead)?.length === 4);

  loop.kill(dead);

  await until(() => suspicions.length === 4);
  assert.deepEqual(new Set(suspicions), new Set([dead]));
  await until(() => isWhole(loop));
  const back = loop.start(dead, 2, loop.contacts.get(dead));
  assert.equal(back.isMember, false);
  await back.rejoin();
  await until(() => isWhole(loop));
  assert.equal(others[0]!.isSuspected(dead), false);
  assert.equal(others[0]!.member(dead)?.incarnation, 2);
});

test("load, zone and led digests travel with pings and their answers", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const [a, b] = await ringOf(loop, ["2", "a"]);

  a!.setLoad(1.5);
  b!.setLoad(0.25);

  await until(() => b!.loadOf(nodeId("2")) === 1.5 && a!.loadOf(nodeId("a")) === 0.25);
  assert.equal(a!.member(nodeId("a"))?.zone, "zone-a");
  assert.equal(b!.member(nodeId("2"))?.zone, "zone-2");
  assert.ok(loop.frames.includes(`1 ${nodeId("2")}>${nodeId("a")}@${nodeId("2")}`));
  assert.ok(loop.frames.includes(`1 ${nodeId("a")}>${nodeId("2")}@${nodeId("a")}`));
  loop.frames.length = 0;
  await until(() => loop.frames.length >= 8);
  loop.frames.length = 0;
  a!.ledChanged();
  await until(() => loop.frames.length >= 2);
});

test("what comes in answer to a ping is told with how long that took, what was held up with all of it", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const [a] = await ringOf(loop, ["2", "a"]);
  const { promise, resolve } = Promise.withResolvers<void>();
  loop.held = { from: nodeId("a"), until: promise };
  loop.answers.length = 0;
  const startMs = performance.now();
  a!.ledChanged();
  await until(() => performance.now() - startMs > 150);
  loop.held = undefined;
  resolve();

  const fromA = () => loop.answers.filter(({ peer }) => peer === nodeId("a"));
  await until(() => fromA().some(({ tookMs }) => tookMs !== undefined && tookMs < 50));
  const late = fromA().filter(({ tookMs }) => tookMs !== undefined && tookMs >= 100);
  assert.ok(late.length <= 1, "one that was repeated meanwhile says nothing when its first answer comes");
  assert.ok(loop.answers.some(({ tookMs }) => tookMs === undefined));
});

test("who leaves is gone at once for all who watch, and back with its next start", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const drivers = await ringOf(loop, ["1", "4", "7", "a"]);
  const events: string[] = [];
  for (const driver of drivers) {
    driver.watch(["1", "4", "7", "a"].map(nodeId));
    driver.on("suspected", (id) => events.push(`-${id[0]}`));
    driver.on("alive", (id) => events.push(`+${id[0]}`));
  }

  await drivers[1]!.leave();
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  loop.kill(nodeId("4"));

  await until(() => isWhole(loop));
  assert.deepEqual(events, ["-4", "-4", "-4"]);
  assert.equal(drivers[0]!.isSuspected(nodeId("4")), true);
  assert.equal(drivers[0]!.member(nodeId("4")), undefined);
  await loop.start(nodeId("4"), 2, [...loop.contacts.values()].flat()).rejoin();
  await until(() => isWhole(loop));
  await until(() => events.length === 6);
  assert.deepEqual(events.slice(3), ["+4", "+4", "+4"]);
  assert.equal(drivers[0]!.isSuspected(nodeId("4")), false);
});

test("a server that never had contacts, or lost all, stands alone; one that only joins goes on trying", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const alone = loop.start(nodeId("5"), 2);

  await alone.rejoin();

  assert.equal(alone.isMember, true);
  const abort = new AbortController();
  const absent = { nodeId: nodeId("9"), address: { host: "127.0.0.1", port: 1 } };
  const joiner = loop.start(nodeId("8"));
  const joining = joiner.join([absent], abort.signal);
  abort.abort();
  await assert.rejects(joining, { code: "UNAVAILABLE" });
  assert.equal(joiner.isMember, false);
  await assert.rejects(joiner.chooseIdentifier(), { code: "UNAVAILABLE" });
});

test("lookups find who follows a point, and say how", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const drivers = await ringOf(loop, ["1", "3", "5", "7", "9", "b", "d"], 2);
  // Who knew all of a smaller ring learns with its next round that there are more behind its list.
  const zero = identifierOf(nodeId("0"));
  await until(() =>
    drivers.every((driver) => driver.successorsOfLocally(zero, drivers.length) === undefined),
  );

  for (const driver of drivers) {
    const { members, hops, path } = await driver.placement(identifierOf(nodeId("6")), 3);
    assert.deepEqual(
      members.map((member) => member.nodeId),
      ["7", "9", "b"].map(nodeId),
    );
    assert.ok(hops <= 4 && path.length === hops, `${hops} hops`);
  }
  const [last] = drivers.slice(-1);
  const asking = last!.placement(identifierOf(nodeId("6")), 3);
  last!.stop();
  await assert.rejects(asking, { code: "UNAVAILABLE" });
});
