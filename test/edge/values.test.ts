/** Users' values over REST and the SDK: what is kept, under which conditions it changes, who sees it. */
import { randomInt } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { Readable } from "node:stream";
import { type Test, test } from "tap";
import { request } from "undici";
import { DamagedError, UnavailableError } from "../../src/errors.ts";
import { ValueWatch } from "../../src/node/value-watch.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import { createClient } from "../../src/sdk/client.ts";
import { createGround, type Ground, layout, PASSWORD, type Reply, RestCaller } from "./edge-ground.ts";
import { FlakyLine } from "./flaky-line.ts";
import { MemoryRegisters } from "./memory-registers.ts";

interface Setting {
  readonly ground: Ground;
  readonly url: string;
  readonly as: (user: string) => Promise<RestCaller>;
}

async function setUp(t: Test): Promise<Setting> {
  const ground = await createGround();
  const { url } = await ground.addEdge();
  const callers: RestCaller[] = [];
  t.teardown(async () => {
    for (const one of callers) await one.close();
    await ground.close();
  });
  const as = (user: string) => {
    const one = new RestCaller(url, ground.ca);
    callers.push(one);
    return one.signIn(user);
  };
  return { ground, url, as };
}

const etagOf = ({ headers }: Reply) => String(headers.etag);
const bytesOf = (...codes: number[]) => Uint8Array.from(codes);

test("a value comes back as it was written: bytes, content type, empty or of one MiB", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const large = Buffer.alloc(1024 * 1024, "orb");

  for (const [key, body, type] of [
    ["json", '{"a":1}', "application/json"],
    ["bytes", bytesOf(0, 255, 10, 13, 0), "image/x-odd; v=1"],
    ["empty", "", "text/plain"],
    ["large", large, "application/octet-stream"],
    ["a%2Fb%20c%3F%E2%9C%93", "odd", "text/plain; charset=utf-8"],
  ] as const) {
    const written = await alice.send("PUT", `/v1/kv/things/${key}`, body, { "content-type": type });
    t.equal(written.status, 200, key);
    t.equal(written.json("key"), decodeURIComponent(key));
    t.equal(written.json("etag"), etagOf(written));
    const read = await alice.send("GET", `/v1/kv/things/${key}`);
    t.equal(read.status, 200);
    t.ok(read.bytes.equals(Buffer.from(body)), `${key}: the bytes`);
    t.equal(read.headers["content-type"], type);
    t.equal(read.headers["content-length"], String(Buffer.from(body).byteLength));
    t.equal(etagOf(read), etagOf(written));
    t.match(read.headers, {
      "cache-control": "private, no-cache",
      "content-security-policy": /sandbox/,
      "x-content-type-options": "nosniff",
      "x-request-id": /./,
    });
  }
  for (const [method, path, body] of [
    ["PUT", "/v1/kv/things/json", '{"a":1}'],
    ["GET", "/v1/kv/things/json", undefined],
    ["GET", "/v1/kv/things/none", undefined],
    ["DELETE", "/v1/kv/things/bytes", undefined],
    ["GET", "/healthz", undefined],
    ["GET", "/nothing/here", undefined],
    ["GET", "/trpc/nothing", undefined],
  ] as const) {
    const headers = { "content-type": "application/json", "x-request-id": "mine" };
    const reply = await alice.send(method, path, body, headers);
    t.match(
      reply.headers,
      {
        "x-request-id": "mine",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "content-security-policy": /default-src/,
        "strict-transport-security": /max-age/,
      },
      `${method} ${path}`,
    );
  }
  const head = await alice.send("HEAD", "/v1/kv/things/json");
  t.equal(head.status, 200);
  t.equal(head.text, "");
  t.equal(head.headers["content-length"], "7");
  const untyped = await alice.send("PUT", "/v1/kv/things/untyped", bytesOf(1));
  t.equal(untyped.status, 200);
  t.equal(
    (await alice.send("GET", "/v1/kv/things/untyped")).headers["content-type"],
    "application/octet-stream",
  );
});

test("one byte more than a MiB is too large, told before it is sent or when it comes", async (t) => {
  const { as, url, ground } = await setUp(t);
  const alice = await as("alice");
  const body = Buffer.alloc(1024 * 1024 + 1);

  const sent = await alice.send("PUT", "/v1/kv/things/large", body);
  async function* chunks() {
    for (let i = 0; i < 17; i++) yield Buffer.alloc(64 * 1024);
  }
  const streamed = await request(`${url}/v1/kv/things/large`, {
    method: "PUT",
    dispatcher: alice.agent,
    headers: { authorization: alice.authorization },
    body: Readable.from(chunks()),
  });

  t.equal(sent.status, 413);
  t.equal(sent.json("code"), "TOO_LARGE");
  t.equal(streamed.statusCode, 413);
  await streamed.body.dump();
  t.equal((await alice.send("GET", "/v1/kv/things/large")).status, 404);
  t.same(
    ground.logged.filter((line) => /error/.test(line)),
    [],
  );
});

test("conditions: what is written, refused, told", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const path = "/v1/kv/flags/leader";
  const put = (body: string, headers: Record<string, string> = {}) => alice.send("PUT", path, body, headers);

  const early = await put("x", { "if-match": "*" });
  t.equal(early.status, 412);
  t.equal(early.json("code"), "PRECONDITION_FAILED");
  t.equal(early.json("etag"), null);
  t.equal(early.headers.etag, undefined);

  const first = await put("one", { "if-none-match": "*" });
  t.equal(first.status, 200);
  const taken = await put("two", { "if-none-match": "*" });
  t.equal(taken.status, 412);
  t.equal(etagOf(taken), etagOf(first), "the present ETag is told");
  t.equal(taken.json("etag"), etagOf(first));

  const second = await put("two", { "if-match": etagOf(first) });
  t.equal(second.status, 200);
  t.not(etagOf(second), etagOf(first));
  const late = await put("three", { "if-match": etagOf(first) });
  t.equal(late.status, 412);
  t.equal(etagOf(late), etagOf(second));
  const same = await put("two");
  t.not(etagOf(same), etagOf(second), "the same bytes written again have another ETag");

  t.equal((await put("x", { "if-match": `W/${etagOf(same)}` })).status, 412, "weak tags match nothing");
  t.equal((await put("x", { "if-match": '"absent", "present", "?"' })).status, 412);
  const listed = await put("four", { "if-match": `${etagOf(first)} , ${etagOf(same)}` });
  t.equal(listed.status, 200, "any of several");
  t.equal((await put("x", { "if-none-match": `"zzz", ${etagOf(listed)}` })).status, 412);
  const unlisted = await put("five", { "if-none-match": `"zzz", ${etagOf(first)}` });
  t.equal(unlisted.status, 200, "none of several");

  const known = await alice.send("GET", path, undefined, { "if-none-match": `W/${etagOf(unlisted)}` });
  t.equal(known.status, 304);
  t.equal(known.text, "");
  t.equal(etagOf(known), etagOf(unlisted));
  t.equal((await alice.send("GET", path, undefined, { "if-none-match": etagOf(first) })).text, "five");
  t.equal((await alice.send("GET", path, undefined, { "if-match": etagOf(first) })).status, 412);

  const kept = await alice.send("DELETE", path, undefined, { "if-match": etagOf(first) });
  t.equal(kept.status, 412);
  t.equal(etagOf(kept), etagOf(unlisted));
  t.equal((await alice.send("DELETE", path, undefined, { "if-match": etagOf(unlisted) })).status, 204);
  t.equal((await alice.send("DELETE", path)).status, 404);
  t.equal((await alice.send("DELETE", path, undefined, { "if-match": "*" })).status, 412);
  const gone = await alice.send("GET", path);
  t.equal(gone.status, 404);
  t.equal(gone.json("code"), "NOT_FOUND");
});

test("what is no proper condition, name, or time is refused by name", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");

  for (const [method, path, headers, named] of [
    ["PUT", "/v1/kv/n/k", { "if-match": "abc" }, "If-Match"],
    ["PUT", "/v1/kv/n/k", { "if-match": '"a" "b"' }, "If-Match"],
    ["GET", "/v1/kv/n/k", { "if-none-match": "abc" }, "If-None-Match"],
    ["PUT", "/v1/kv/n/k", { "if-match": "*", "if-none-match": "*" }, "If-None-Match"],
    ["DELETE", "/v1/kv/n/k", { "if-none-match": "*" }, "If-None-Match"],
    ["PUT", "/v1/kv/n/k", { "idempotency-key": "two words" }, "idempotency-key"],
    ["PUT", "/v1/kv/n/k?ttlMs=0", {}, "ttlMs"],
    ["PUT", "/v1/kv/n/k?ttlMs=soon", {}, "ttlMs"],
    ["PUT", "/v1/kv/n/k?ttl=5", {}, "ttl"],
    ["PUT", `/v1/kv/${"n".repeat(129)}/k`, {}, "namespace"],
    ["PUT", `/v1/kv/n/${"k".repeat(513)}`, {}, "key"],
    ["PUT", "/v1/kv/n/a%00b", {}, "key"],
    ["GET", "/v1/kv/n?limit=0", {}, "limit"],
    ["GET", "/v1/kv/n?cursor=AAAA", {}, "cursor"],
    ["GET", "/v1/kv/n?prefx=a", {}, "prefx"],
  ] as const) {
    const reply = await alice.send(method, path, method === "PUT" ? "x" : undefined, { ...headers });
    t.equal(reply.status, 422, `${method} ${path.slice(0, 40)} ${JSON.stringify(headers)}`);
    t.equal(reply.json("errors.0.path"), named);
  }
  t.equal((await alice.send("PUT", "/v1/kv/n/k", "x", { "content-encoding": "gzip" })).status, 415);
});

test("a value ends at its time, and a later write without one lasts", async (t) => {
  const { as, ground } = await setUp(t);
  const alice = await as("alice");
  const path = "/v1/kv/leases/a";
  const startedMs = Date.now();

  const written = await alice.send("PUT", `${path}?ttlMs=60000`, "x");
  const expiresAtMs = Date.parse(String(written.json("expiresAt")));
  t.ok(expiresAtMs >= startedMs + 60_000 && expiresAtMs <= Date.now() + 60_000);
  t.equal((await alice.send("GET", path)).headers["x-expires-at"], written.json("expiresAt"));
  t.equal((await alice.send("GET", "/v1/kv/leases")).json("items.0.expiresAt"), written.json("expiresAt"));

  ground.registers.nowMs = () => expiresAtMs;
  t.equal((await alice.send("GET", path)).status, 404);
  t.equal((await alice.send("GET", "/v1/kv/leases")).json("items.length"), 0);
  const again = await alice.send("PUT", path, "y", { "if-none-match": "*" });
  t.equal(again.status, 200);
  t.equal(again.json("expiresAt"), null);
  t.equal((await alice.send("GET", path)).headers["x-expires-at"], undefined);
});

test("the same names of two users are two values, and scopes part readers from writers", async (t) => {
  const { as } = await setUp(t);
  const [alice, bob, viewer] = [await as("alice"), await as("bob"), await as("victor")];

  await alice.send("PUT", "/v1/kv/n/k", "of alice");

  t.equal((await bob.send("GET", "/v1/kv/n/k")).status, 404);
  t.equal((await bob.send("GET", "/v1/kv/n")).json("items.length"), 0);
  t.equal((await bob.send("PUT", "/v1/kv/n/k", "of bob", { "if-none-match": "*" })).status, 200);
  t.equal((await alice.send("GET", "/v1/kv/n/k")).text, "of alice");
  t.equal((await viewer.send("GET", "/v1/kv/n/k")).status, 403);
  t.equal((await viewer.send("PUT", "/v1/kv/n/k", "x")).status, 403);
});

test("a repeat under the same Idempotency-Key gets the first outcome, also a refusal", async (t) => {
  const { as } = await setUp(t);
  const [alice, bob] = [await as("alice"), await as("bob")];
  const path = "/v1/kv/n/k";
  const create = { "if-none-match": "*", "idempotency-key": "r1" };

  const first = await alice.send("PUT", path, "one", create);
  await alice.send("PUT", path, "two");
  const again = await alice.send("PUT", path, "one", create);
  t.equal(again.status, 200);
  t.equal(etagOf(again), etagOf(first));
  t.equal((await alice.send("GET", path)).text, "two", "it was not written twice");

  const refused = await alice.send("PUT", path, "x", { "if-match": etagOf(first), "idempotency-key": "r2" });
  t.equal(refused.status, 412);
  const removed = await alice.send("DELETE", path, undefined, { "idempotency-key": "r3" });
  t.equal(removed.status, 204);
  await alice.send("PUT", path, "three");
  t.equal((await alice.send("DELETE", path, undefined, { "idempotency-key": "r3" })).status, 204);
  t.equal((await alice.send("GET", path)).text, "three", "it was not removed twice");
  const stillRefused = await alice.send("PUT", path, "x", {
    "if-match": etagOf(first),
    "idempotency-key": "r2",
  });
  t.equal(etagOf(stillRefused), etagOf(refused));

  t.equal((await bob.send("PUT", path, "one", create)).status, 200, "another's key is another key");
  const other = await alice.send("PUT", path, "other", { "idempotency-key": "r1" });
  t.equal(other.status, 200, "another request is another request");
  t.equal((await alice.send("GET", path)).text, "other");
});

test("a condition on several tags is repeated along the way it first went", async (t) => {
  const { as, ground } = await setUp(t);
  const alice = await as("alice");
  const path = "/v1/kv/n/k";
  const first = await alice.send("PUT", path, "one");
  const second = await alice.send("PUT", path, "two");
  const anyOf = { "if-match": `${etagOf(first)}, ${etagOf(second)}`, "idempotency-key": "r1" };

  const before = ground.registers.batches;
  const written = await alice.send("PUT", path, "three", anyOf);
  t.equal(ground.registers.batches - before, 2, "a wrong guess costs one batch");
  const again = await alice.send("PUT", path, "three", anyOf);

  t.equal(written.status, 200);
  t.equal(again.status, 200);
  t.equal(etagOf(again), etagOf(written));
});

test("a list gives each key once, by pages, with its size and tag; a prefix filters", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const keys = Array.from({ length: 60 }, (_, i) => `${i % 3 === 0 ? "a" : "b"}/${i}`);
  for (const key of keys) await alice.send("PUT", `/v1/kv/many/${encodeURIComponent(key)}`, key);
  await alice.send("PUT", "/v1/kv/other/a", "x");

  const list = async (query: string) => {
    const found: string[] = [];
    let cursor = "";
    let pages = 0;
    do {
      const page = await alice.send("GET", `/v1/kv/many?${query}${cursor && `&cursor=${cursor}`}`);
      t.equal(page.status, 200);
      const items = page.json("items") as { key: string; size: number; etag: string; contentType: string }[];
      for (const { key, size, etag } of items) {
        t.equal(size, key.length);
        t.match(etag, /^".+"$/);
        found.push(key);
      }
      cursor = String(page.json("nextCursor") ?? "");
      pages++;
    } while (cursor !== "");
    return { found, pages };
  };

  for (const limit of [1, 7, 59, 60, 1000]) {
    const { found } = await list(`limit=${limit}`);
    t.same(found.toSorted(), keys.toSorted(), `limit ${limit}`);
  }
  const { found } = await list("limit=5&prefix=a/");
  t.same(found.toSorted(), keys.filter((key) => key.startsWith("a/")).toSorted());
});

test("the SDK keeps text, bytes and JSON, and tells conflicts instead of failing", async (t) => {
  const { ground, url } = await setUp(t);
  const client = createClient({ servers: [url], ca: ground.ca, username: "alice", password: PASSWORD });
  t.teardown(() => client.close());
  const { kv } = client;

  t.equal(await kv.get("n", "k"), undefined);
  const created = await kv.create("n", "k", { visits: 1 });
  t.ok(created.written);
  const taken = await kv.create("n", "k", "x");
  t.same(taken, { written: false, etag: created.etag });
  const read = await kv.get("n", "k");
  t.same(read?.json(), { visits: 1 });
  t.equal(read?.contentType, "application/json");
  t.equal(read?.etag, created.etag);
  const swapped = await kv.compareAndSet("n", "k", created.etag ?? "", bytesOf(0, 200), { ttlMs: 60_000 });
  t.ok(swapped.written);
  t.same(await kv.compareAndSet("n", "k", created.etag ?? "", "late"), {
    written: false,
    etag: swapped.etag,
  });
  const bytes = await kv.get("n", "k");
  t.same([...(bytes?.bytes ?? [])], [0, 200]);
  t.match(bytes?.expiresAt, /^\d{4}-/);
  await kv.set("n", "text", "grüß");
  t.equal((await kv.get("n", "text"))?.text(), "grüß");
  await t.rejects(kv.delete("n", "k", { ifMatch: created.etag ?? "" }), {
    code: "PRECONDITION_FAILED",
    etag: swapped.etag,
  });
  const sizes: [string, number][] = [];
  for await (const { key, size } of kv.list("n")) sizes.push([key, size]);
  t.same(sizes.toSorted(), [
    ["k", 2],
    ["text", 6],
  ]);
  t.equal(await kv.delete("n", "k"), true);
  t.equal(await kv.delete("n", "k"), false);
});

test("a write whose answer was lost is neither made twice nor refused as a rival's", async (t) => {
  const { ground, url } = await setUp(t);
  const other = await ground.addEdge();
  const line = await FlakyLine.to(url);
  const client = createClient({
    servers: [line.url, other.url],
    ca: ground.ca,
    username: "alice",
    password: PASSWORD,
  });
  t.teardown(() => client.close());
  await client.kv.get("n", "warm");
  const before = ground.registers.batches;
  const { operate } = ground.registers;
  ground.registers.operate = async (...args) => {
    const outcome = await operate.apply(ground.registers, args);
    if (args[1].kind === "batch" && ground.registers.batches === before + 1) line.cut();
    return outcome;
  };

  const created = await client.kv.create("n", "k", "mine");

  t.equal(created.written, true);
  t.equal(ground.registers.batches, before + 2, "it was repeated");
  t.equal((await client.kv.get("n", "k"))?.etag, created.etag);
});

test("a watch tells what is there, then each change, over a change of servers and a loss of memory", async (t) => {
  const { ground, url } = await setUp(t);
  const other = await ground.addEdge();
  const line = await FlakyLine.to(url);
  const signIn = { ca: ground.ca, username: "alice", password: PASSWORD };
  const writer = createClient({ servers: [other.url], ...signIn });
  const reader = createClient({ servers: [line.url, other.url], ...signIn });
  t.teardown(async () => {
    await writer.close();
    await reader.close();
  });
  const { kv } = writer;
  await kv.set("n", "a/1", "one");
  await kv.set("n", "b/1", "other prefix");
  await kv.set("m", "a/1", "other namespace");
  const over = new AbortController();
  const told: string[] = [];
  const heard = new EventEmitter();
  const watching = (async () => {
    for await (const change of reader.kv.watch("n", { prefix: "a/", signal: over.signal })) {
      told.push(`${change.key} ${change.kind === "value" ? change.value.text() : "deleted"}`);
      heard.emit("change");
    }
  })();
  const until = async (line: string) => {
    while (!told.includes(line)) await once(heard, "change");
  };

  await until("a/1 one");
  await kv.set("n", "a/2", "two");
  await until("a/2 two");
  await kv.delete("n", "a/1");
  await until("a/1 deleted");
  line.cut();
  await kv.set("n", "a/2", "two again");
  await until("a/2 two again");
  ground.registers.isForgetful = true;
  await kv.delete("n", "a/2");
  await until("a/2 deleted");
  ground.registers.isForgetful = false;
  await kv.set("n", "a/3", "three", { ttlMs: 100 });
  await until("a/3 three");
  await until("a/3 deleted");
  over.abort();
  await watching;

  t.same(told.toSorted(), [
    "a/1 deleted",
    "a/1 one",
    "a/2 deleted",
    "a/2 two",
    "a/2 two again",
    "a/3 deleted",
    "a/3 three",
  ]);
});

test("a watch of which one partition fails ends with that error, also while others can't be read", async (t) => {
  class Broken extends MemoryRegisters {
    override async operate(partition: number, operation: Operation): Promise<Outcome> {
      if (partition === 3 && operation.kind === "watch") throw new DamagedError("an entry can't be read");
      if (partition === 4 || operation.kind === "watch") throw new UnavailableError("nobody leads it");
      return super.operate(partition, operation);
    }
  }
  const over = new AbortController();
  t.teardown(() => over.abort());
  const events = new ValueWatch({ registers: new Broken(), layout }).watch(
    { user: "alice", namespace: "n", key: undefined },
    over.signal,
  );

  await t.rejects(events.next(), DamagedError);
});

test("one key is watched over REST, until the client leaves", async (t) => {
  const { as, url } = await setUp(t);
  const [alice, viewer] = [await as("alice"), await as("victor")];
  await alice.send("PUT", "/v1/kv/n/k", "one");
  await alice.send("PUT", "/v1/kv/n/j", "not asked for");
  t.equal((await viewer.send("GET", "/v1/kv/n?watch=true")).status, 403);
  t.equal((await alice.send("GET", "/v1/kv/n?watch=yes")).status, 422);

  const { statusCode, headers, body } = await request(`${url}/v1/kv/n?watch=true&key=k`, {
    dispatcher: alice.agent,
    headers: { authorization: alice.authorization },
  });
  t.equal(statusCode, 200);
  t.match(headers["content-type"], /^text\/event-stream/);
  let text = "";
  for await (const chunk of body) {
    text += String(chunk);
    if (/"value":"dHdv"/.test(text)) await alice.send("DELETE", "/v1/kv/n/k");
    else if (/event: ready/.test(text)) await alice.send("PUT", "/v1/kv/n/k", "two");
    if (/event: deleted/.test(text)) break;
  }

  t.match(
    text,
    /event: value\ndata: \{"id":"[\w-]{22}","key":"k".*"value":"b25l"\}\n\nevent: ready\ndata: \{\}\n\nevent: value\n.*"dHdv"\}\n\nevent: deleted\ndata: \{"id":"[\w-]{22}"\}/,
  );
  t.notMatch(text, /"key":"j"/);
});

test("a stale read says how old it may be, and needs no majority", async (t) => {
  const { as, ground, url } = await setUp(t);
  const alice = await as("alice");
  await alice.send("PUT", "/v1/kv/n/k", "one");
  const { operate } = ground.registers;
  ground.registers.operate = async (partition, operation) => {
    const isStale = operation.kind === "get" && operation.stale === true;
    const outcome = await operate.call(ground.registers, partition, operation);
    return isStale && outcome.kind === "entries" ? { ...outcome, ageMs: 1234.5 } : outcome;
  };
  const client = createClient({ servers: [url], ca: ground.ca, username: "alice", password: PASSWORD });
  t.teardown(() => client.close());

  const read = await alice.send("GET", "/v1/kv/n/k?stale=true");

  t.equal(read.text, "one");
  t.equal(read.headers["x-stale-age-ms"], "1235");
  t.equal((await alice.send("GET", "/v1/kv/n/k?stale=false")).headers["x-stale-age-ms"], undefined);
  t.equal((await alice.send("GET", "/v1/kv/n/k?stale=1")).status, 422);
  t.equal((await client.kv.get("n", "k", { stale: true }))?.ageMs, 1234.5);
  t.equal((await client.kv.get("n", "k"))?.ageMs, undefined);
});

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
test(`conditions do what a model says they do (seed=${seed})`, async (t) => {
  const { as, ground } = await setUp(t);
  const alice = await as("alice");
  let state = seed;
  const random = (below: number) => {
    // Park and Miller's minimal generator.
    state = (state * 48_271 + 11) % 2_147_483_647;
    return state % below;
  };
  interface Held {
    readonly body: string;
    readonly etag: string;
    readonly expiresAtMs: number;
  }
  const model = new Map<string, Held>();
  const tags = ['"never"'];
  let nowMs = Date.now();
  ground.registers.nowMs = () => nowMs;
  const someTags = () => Array.from({ length: 1 + random(3) }, () => tags[random(tags.length)]!);

  for (let step = 0; step < 400; step++) {
    const key = `k${random(3)}`;
    const path = `/v1/kv/model/${key}`;
    const held = model.get(key);
    const there = held !== undefined && held.expiresAtMs > nowMs ? held : undefined;
    const form = random(5);
    const listed = someTags();
    const condition: Record<string, string> =
      form === 0
        ? {}
        : form === 1
          ? { "if-match": "*" }
          : form === 2
            ? { "if-none-match": "*" }
            : form === 3
              ? { "if-match": listed.join(", ") }
              : { "if-none-match": listed.join(", ") };
    const isAmong = there !== undefined && listed.includes(there.etag);
    const holds = [true, there !== undefined, there === undefined, isAmong, !isAmong][form]!;
    const verb = random(10);
    const label = `step ${step}: ${verb} ${key} ${JSON.stringify(condition)}`;
    if (verb < 5) {
      const ttlMs = random(3) === 0 ? 1 + random(5_000) : undefined;
      const body = `v${step}`;
      const reply = await alice.send(
        "PUT",
        ttlMs === undefined ? path : `${path}?ttlMs=${ttlMs}`,
        body,
        condition,
      );
      t.equal(reply.status, holds ? 200 : 412, label);
      if (holds) {
        t.notOk(tags.includes(etagOf(reply)), `${label}: a new tag`);
        tags.push(etagOf(reply));
        const expiresAt = reply.json("expiresAt");
        const expiresAtMs = expiresAt === null ? Infinity : Date.parse(String(expiresAt));
        model.set(key, { body, etag: etagOf(reply), expiresAtMs });
      } else t.equal(reply.json("etag"), there?.etag ?? null, label);
    } else if (verb < 7 && form !== 2 && form !== 4) {
      const reply = await alice.send("DELETE", path, undefined, condition);
      t.equal(reply.status, there === undefined && form === 0 ? 404 : holds ? 204 : 412, label);
      if (reply.status === 204) model.delete(key);
    } else if (verb < 9) {
      const reply = await alice.send("GET", path, undefined, condition);
      const isRequired = form === 1 || form === 3;
      const expected = isRequired && !holds ? 412 : there === undefined ? 404 : holds ? 200 : 304;
      t.equal(reply.status, expected, label);
      if (expected === 200) t.equal(reply.text, there?.body, label);
      if (expected === 200 || expected === 304) t.equal(etagOf(reply), there?.etag, label);
    } else {
      nowMs += random(4_000);
    }
    if (t.counts.fail > 0) break;
  }
  t.ok(tags.length > 50);
});
