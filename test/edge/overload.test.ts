/** More than an edge can take: it says so at once, keeps its memory, and is well again afterwards. */

import { once } from "node:events";
import { connect } from "node:net";
import { connect as connectSecure } from "node:tls";
import { test } from "tap";
import { request } from "undici";
import { createGround, RestCaller } from "./edge-ground.ts";

const MiB = 1024 * 1024;

test("bodies beyond the bound are refused unread with Retry-After, and all is well afterwards", async (t) => {
  const ground = await createGround();
  t.teardown(() => ground.close());
  const { url } = await ground.addEdge();
  const alice = await new RestCaller(url, ground.ca).signIn("alice");
  t.teardown(() => alice.close());
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  let held = 0;
  let heldMax = 0;
  const { operate } = ground.registers;
  ground.registers.operate = async (...args) => {
    if (args[1].kind === "batch") {
      heldMax = Math.max(heldMax, ++held);
      await gate;
      held--;
    }
    return operate.apply(ground.registers, args);
  };
  const value = Buffer.alloc(MiB, 7);
  const put = (n: number) =>
    request(`${url}/v1/kv/load/${n}`, {
      method: "PUT",
      dispatcher: alice.agent,
      headers: { authorization: alice.authorization, "content-type": "application/octet-stream" },
      body: value,
    }).then(async ({ statusCode, headers, body }) => {
      await body.dump();
      return { statusCode, retryAfter: headers["retry-after"] };
    });

  const before = process.memoryUsage().rss;
  const answers = Array.from({ length: 200 }, (_, n) => put(n));
  const refused = await Promise.race(answers);
  const alive = await alice.call("GET", "/readyz");
  const rss = process.memoryUsage().rss - before;
  open();
  const settled = await Promise.allSettled(answers);
  const after = await alice.call("PUT", "/v1/kv/load/after", "1");

  const codes = settled.map((one) => (one.status === "fulfilled" ? one.value.statusCode : 0));
  const taken = codes.filter((code) => code === 200 || code === 201 || code === 204).length;
  t.match(refused, { statusCode: 503, retryAfter: "1" });
  t.equal(alive.status, 200, "it tells that it lives");
  t.ok(heldMax > 50 && heldMax <= 128, `${heldMax} were in hand at once`);
  t.ok(taken > 50, `${taken} were taken`);
  t.ok(rss < 900 * MiB, `${Math.round(rss / MiB)} MiB more, those of this test's own requests included`);
  t.ok(after.status < 300, after.text);
});

test("clients that are slow with their handshake do not hold up its end", async (t) => {
  const ground = await createGround();
  t.teardown(() => ground.close());
  const { url, kill } = await ground.addEdge();
  const { hostname, port } = new URL(url);
  const slow = connect(Number(port), hostname);
  const ended = new Promise((resolve) => {
    slow.once("close", resolve);
  });
  slow.on("error", () => {});
  await once(slow, "connect");
  // Connections are accepted in order: once a later one is through, this one is the edge's.
  const alice = await new RestCaller(url, ground.ca).signIn("alice");
  t.teardown(() => alice.close());

  const closing = kill();
  // The others are gone: now it goes on.
  await once(alice.agent, "disconnect");
  const late = connectSecure({ socket: slow, ca: ground.ca, servername: "localhost" });
  late.on("error", () => {});
  t.teardown(() => late.destroy());
  await closing;
  await ended;
  t.pass("both sides are through");
});
