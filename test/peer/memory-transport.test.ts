import { test } from "tap";
import { UnavailableError } from "../../src/errors.ts";
import type { PeerAddress } from "../../src/peer/transport.ts";
import { MemoryWorld, nodeId, open, type Party, selfOf } from "./parties.ts";
import { transportConformance } from "./transport-conformance.ts";

transportConformance("MemoryTransport", async () => new MemoryWorld());

test("MemoryTransport: what is cut off is silent, and heard again after the cut heals", async (t) => {
  const world = new MemoryWorld();
  const a = await world.party(selfOf("a"));
  const b = await world.party(selfOf("b"));
  await open(a);
  const to = { nodeId: nodeId("b"), address: await open(b, async () => ({ ok: true })) };
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
  await a.transport.call(to, "status", null, { timeoutMs: 5000 });

  world.network.cut(nodeId("a"), nodeId("b"));
  a.transport.send(to, "ring", { kind: "ping", n: 1 });
  await t.rejects(a.transport.call(to, "status", null, { timeoutMs: 20 }), UnavailableError);
  world.network.heal();
  const feed = setInterval(() => a.transport.send(to, "ring", { kind: "ping", n: 2 }), 20);
  await b.inbox.until(() => b.inbox.pings.includes(2));
  clearInterval(feed);

  t.strictSame(a.inbox.refused, []);
  t.strictSame(await a.transport.call(to, "status", null, { timeoutMs: 5000 }), { ok: true });
});

test("MemoryTransport: a call that a later start answered is not repeated by itself", async (t) => {
  const world = new MemoryWorld();
  const a = await world.party(selfOf("a"));
  const b = await world.party(selfOf("b"));
  await open(a);
  const to = { nodeId: nodeId("b"), address: await open(b, async () => ({ ok: true })) };
  await a.transport.call(to, "status", null, { timeoutMs: 5000 });
  world.network.leave(to.address.port); // Its connections seem to go on: the worst case.
  const fresh = await world.party(
    selfOf("b", { incarnation: 2, instance: "b000000000000002", earlierInstances: ["b000000000000001"] }),
    b.book,
    to.address.port,
  );
  let calls = 0;
  await open(fresh, async () => ({ ok: ++calls > 0 }));
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close(), fresh.transport.close()]));

  await t.rejects(a.transport.call(to, "status", null, { timeoutMs: 5000 }), UnavailableError);

  t.equal(calls, 1);
  a.transport.send(to, "ring", { kind: "ping", n: 1 });
  t.strictSame(await a.transport.call(to, "status", null, { timeoutMs: 5000 }), { ok: true });
  t.equal(calls, 2);
});

/** A member that answers each ping with ten times its number, which can get back with the answer only. */
function echo(party: Party, act: (n: number) => void = () => {}): Promise<PeerAddress> {
  const unreachable = { nodeId: nodeId("a"), address: { host: "memory", port: 999 } };
  return party.transport.listen({
    ...party.inbox.handlers(),
    message: (_from, _channel, message) => {
      if (message.kind !== "ping") return;
      act(message.n);
      party.transport.send(unreachable, "ring", { kind: "ping", n: message.n * 10 });
    },
  });
}

test("MemoryTransport: what an answer carried is lost with it, and comes no second time", async (t) => {
  const world = new MemoryWorld();
  const a = await world.party(selfOf("a"));
  const b = await world.party(selfOf("b"));
  await open(a);
  let isAnswerLost = () => {};
  const answerLost = new Promise<void>((resolve) => (isAnswerLost = resolve));
  const address = await echo(b, (n) => {
    if (n !== 1) return;
    world.network.cut(nodeId("a"), nodeId("b"));
    isAnswerLost();
  });
  const to = { nodeId: nodeId("b"), address };
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

  a.transport.send(to, "ring", { kind: "ping", n: 1 });
  await answerLost;
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  world.network.heal();
  const feed = setInterval(() => a.transport.send(to, "ring", { kind: "ping", n: 2 }), 20);
  await a.inbox.until(() => a.inbox.pings.includes(20));
  clearInterval(feed);

  t.notOk(a.inbox.pings.includes(10));
});

test("MemoryTransport: what an unknown start of a member gives with its answer is not heard", async (t) => {
  const world = new MemoryWorld();
  const a = await world.party(selfOf("a"));
  const b = await world.party(selfOf("b"));
  await open(a);
  const to = { nodeId: nodeId("b"), address: await echo(b) };
  a.transport.send(to, "ring", { kind: "ping", n: 1 });
  await a.inbox.until(() => a.inbox.pings.length === 1);
  world.network.leave(to.address.port); // Its connections seem to go on.
  const fresh = await world.party(
    selfOf("b", { incarnation: 2, instance: "b000000000000002", earlierInstances: ["b000000000000001"] }),
    b.book,
    to.address.port,
  );
  let isHeard = () => {};
  const heard = new Promise<void>((resolve) => (isHeard = resolve));
  await echo(fresh, () => isHeard());
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close(), fresh.transport.close()]));

  a.transport.send(to, "ring", { kind: "ping", n: 2 });
  await heard;
  a.transport.send(to, "ring", { kind: "ping", n: 3 });
  await a.inbox.until(() => a.inbox.pings.length === 2);

  t.strictSame(a.inbox.pings, [10, 30]);
  t.strictSame(
    a.inbox.received.map(({ from }) => [from.incarnation, from.instance]),
    [
      [1, "b000000000000001"],
      [2, "b000000000000002"],
    ],
  );
});

test("MemoryTransport: a frame that overtakes an answer waits for what the answer holds", async (t) => {
  const world = new MemoryWorld();
  const a = await world.party(selfOf("a"));
  const b = await world.party(selfOf("b"));
  const refA = { nodeId: nodeId("a"), address: await open(a) };
  let isHeard = () => {};
  const heard = new Promise<void>((resolve) => (isHeard = resolve));
  const address = await b.transport.listen({
    ...b.inbox.handlers(),
    message: () => {
      b.transport.send(refA, "ring", { kind: "ping", n: 1 });
      world.network.delayMs = 100; // For the answer.
      isHeard();
    },
  });
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
  await b.transport.call(refA, "operate", { kind: "echo", value: 0 }, { timeoutMs: 5000 });

  a.transport.send({ nodeId: nodeId("b"), address }, "ring", { kind: "ping", n: 0 });
  await heard;
  world.network.delayMs = 0;
  b.transport.send(refA, "ring", { kind: "ping", n: 2 });
  await a.inbox.until(() => a.inbox.pings.length === 2);

  t.strictSame(a.inbox.pings, [1, 2]);
});
