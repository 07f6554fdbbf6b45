/** Locks over REST and the SDK, before a leader in memory. */
import { once } from "node:events";
import { type Test, test } from "tap";
import { request } from "undici";
import { LockHeldError, LockLostError } from "../../src/errors.ts";
import { type Client, type ClientOptions, createClient, type Lock } from "../../src/sdk/client.ts";
import { createGround, type Ground, PASSWORD, RestCaller } from "./edge-ground.ts";
import { FlakyLine } from "./flaky-line.ts";

interface Setting {
  readonly ground: Ground;
  readonly url: string;
  readonly as: (user: string) => Promise<RestCaller>;
  readonly client: (options?: Partial<ClientOptions>) => Client;
}

async function setUp(t: Test): Promise<Setting> {
  const ground = await createGround();
  const { url } = await ground.addEdge();
  const callers: { close(): Promise<void> }[] = [];
  t.teardown(async () => {
    for (const one of callers) await one.close();
    await ground.close();
  });
  return {
    ground,
    url,
    as: (user) => {
      const one = new RestCaller(url, ground.ca);
      callers.push(one);
      return one.signIn(user);
    },
    client: (options = {}) => {
      const one = createClient({
        servers: [url],
        ca: ground.ca,
        username: "alice",
        password: PASSWORD,
        ...options,
      });
      callers.push(one);
      return one;
    },
  };
}

async function lost({ signal }: Lock): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

test("a lock over REST: taken, refused with who and when, renewed, released", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const path = "/v1/locks/nightly%2Fimport";
  const startedMs = Date.now();

  const taken = await alice.call("POST", path, { ttlMs: 60_000 });
  const owner = taken.json("owner");
  t.equal(taken.status, 200);
  t.match(owner, /^[0-9a-f]{32}$/);
  t.equal(taken.json("fencingToken"), 1);
  const expiresAtMs = Date.parse(String(taken.json("expiresAt")));
  t.ok(expiresAtMs >= startedMs + 60_000 && expiresAtMs <= Date.now() + 60_000);

  const refused = await alice.call("POST", path, { ttlMs: 60_000 });
  t.equal(refused.status, 409);
  t.equal(refused.json("code"), "LOCK_HELD");
  t.equal(refused.json("fencingToken"), 1);
  t.equal(refused.json("expiresAt"), taken.json("expiresAt"));
  t.notMatch(refused.text, String(owner), "who holds it is told, not how to release it");

  const renewed = await alice.call("PUT", path, { owner, ttlMs: 90_000 });
  t.equal(renewed.status, 200);
  t.equal(renewed.json("fencingToken"), 1);
  t.ok(Date.parse(String(renewed.json("expiresAt"))) > expiresAtMs);

  const stranger = "0".repeat(32);
  for (const [method, body] of [
    ["PUT", { owner: stranger, ttlMs: 1000 }],
    ["PUT", { owner, ttlMs: 1000, fencingToken: 2 }],
    ["DELETE", { owner: stranger }],
    ["DELETE", { owner, fencingToken: 2 }],
  ] as const) {
    const lost = await alice.call(method, path, body);
    t.equal(lost.status, 409, `${method} ${JSON.stringify(body)}`);
    t.equal(lost.json("code"), "LOCK_LOST");
  }

  t.equal((await alice.call("DELETE", path, { owner, fencingToken: 1 })).status, 204);
  t.equal((await alice.call("DELETE", path, { owner })).status, 204, "again");
  t.equal((await alice.call("PUT", path, { owner, ttlMs: 1000 })).status, 409);
  t.equal((await alice.call("POST", path, { ttlMs: 1000 })).json("fencingToken"), 2);
});

test("what is no proper request for a lock is refused by name; scopes and users are kept apart", async (t) => {
  const { as } = await setUp(t);
  const [alice, bob, viewer] = [await as("alice"), await as("bob"), await as("victor")];

  for (const [method, body, path] of [
    ["POST", {}, "ttlMs"],
    ["POST", { ttlMs: 0 }, "ttlMs"],
    ["POST", { ttlMs: 86_400_001 }, "ttlMs"],
    ["POST", { ttlMs: 1000, waitMs: 300_001 }, "waitMs"],
    ["POST", { ttlMs: 1000, wait: 5 }, "wait"],
    ["PUT", { ttlMs: 1000 }, "owner"],
    ["DELETE", { owner: "me" }, "owner"],
  ] as const) {
    const reply = await alice.call(method, "/v1/locks/a", body);
    t.equal(reply.status, 422, JSON.stringify(body));
    t.equal(reply.json("errors.0.path"), path);
  }
  t.equal((await alice.call("POST", "/v1/locks/a", { ttlMs: 1000 })).status, 200);
  t.equal((await bob.call("POST", "/v1/locks/a", { ttlMs: 1000 })).status, 200);
  t.equal((await viewer.call("POST", "/v1/locks/a", { ttlMs: 1000 })).status, 403);
});

test("who waits has the lock as soon as it is free; who leaves the wait, never", async (t) => {
  const { as, ground, url } = await setUp(t);
  const alice = await as("alice");
  const first = await alice.call("POST", "/v1/locks/a", { ttlMs: 60_000 });
  const gone = new AbortController();
  const asked = request(`${url}/v1/locks/a`, {
    method: "POST",
    dispatcher: alice.agent,
    headers: { authorization: alice.authorization, "content-type": "application/json" },
    body: JSON.stringify({ ttlMs: 60_000, waitMs: 60_000 }),
    signal: gone.signal,
  });
  while (ground.lockKeeper.waiting === 0) await new Promise(setImmediate);
  const second = alice.call("POST", "/v1/locks/a", { ttlMs: 60_000, waitMs: 60_000 });
  while (ground.lockKeeper.waiting === 1) await new Promise(setImmediate);
  gone.abort();
  await t.rejects(asked);
  while (ground.lockKeeper.waiting === 2) await new Promise(setImmediate);

  await alice.call("DELETE", "/v1/locks/a", { owner: first.json("owner") });

  t.equal((await second).json("fencingToken"), 2);
  const late = await alice.call("POST", "/v1/locks/a", { ttlMs: 1000, waitMs: 20 });
  t.equal(late.status, 409, "a wait that was too short");
});

test("the SDK waits, holds by renewing, and releases", async (t) => {
  const { client, ground } = await setUp(t);
  const [one, two] = [client(), client()];

  const lock = await one.locks.acquire("a", { ttlMs: 1_200 });
  const firstEnd = lock.expiresAt;
  await t.rejects(two.locks.acquire("a"), LockHeldError);
  const waiting = two.locks.acquire("a", { ttlMs: 60_000, waitMs: Infinity });
  while (ground.lockKeeper.waiting === 0) await new Promise(setImmediate);
  // Longer than the lease was.
  while (Date.now() < Date.parse(firstEnd) + 200) await new Promise((next) => setTimeout(next, 20));
  t.equal(lock.signal.aborted, false);
  await lock.release();
  await lock.release();
  const next = await waiting;

  t.equal(lock.fencingToken, 1);
  t.equal(next.fencingToken, 2);
  t.equal(lock.signal.aborted, false, "released is not lost");
  await next.release();
  const seen = await one.locks.with("a", async ({ fencingToken }) => fencingToken);
  t.equal(seen, 3);
  await one.locks.with("a", async ({ fencingToken }) => t.equal(fencingToken, 4));
});

test("a holder hears of its loss: by an answer, or when no answer can be had until its lease ends", async (t) => {
  const { client, ground } = await setUp(t);
  const one = client();
  const [taken, cut] = [
    await one.locks.acquire("taken", { ttlMs: 300 }),
    await one.locks.acquire("cut", { ttlMs: 300 }),
  ];
  const { nowMs } = ground.registers;
  // As for a leader whose clock is ahead.
  ground.registers.nowMs = () => Date.now() + 1_000;
  await lost(taken);
  t.match(taken.signal.reason, LockLostError);
  ground.registers.nowMs = nowMs;
  await cut.release();

  const lonely = await one.locks.acquire("lonely", { ttlMs: 300 });
  const endsMs = Date.parse(lonely.expiresAt);
  ground.registers.isDown = true;
  await lost(lonely);

  t.match(lonely.signal.reason, { code: "LOCK_LOST" });
  t.ok(Date.now() >= endsMs - 300 && Date.now() < endsMs + 5_000, "about when it ends, not before");
  ground.registers.isDown = false;
  await t.resolves(lonely.release());
});

test("a wait is given up by its signal, and goes on at another server when its own dies", async (t) => {
  const { client, ground, url } = await setUp(t);
  const other = await ground.addEdge();
  const line = await FlakyLine.to(url);
  const holder = client({ servers: [other.url] });
  const lock = await holder.locks.acquire("a", { ttlMs: 60_000 });
  const waiter = client({ servers: [line.url, other.url], learnServers: false });
  const gone = new AbortController();
  const given = waiter.locks.acquire("a", { waitMs: 60_000, signal: gone.signal });
  while (ground.lockKeeper.waiting === 0) await new Promise(setImmediate);
  gone.abort(new Error("no more"));
  await t.rejects(given, /no more/);
  while (ground.lockKeeper.waiting === 1) await new Promise(setImmediate);

  const waiting = waiter.locks.acquire("a", { waitMs: 60_000 });
  while (ground.lockKeeper.waiting === 0) await new Promise(setImmediate);
  line.cut();
  while (waiter.server !== other.url) await new Promise(setImmediate);
  await lock.release();

  t.equal((await waiting).fencingToken, 2);
});
