import { test } from "tap";
import { UnavailableError } from "../../src/errors.ts";
import { MemoryWorld, nodeId, open, selfOf } from "./parties.ts";
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
