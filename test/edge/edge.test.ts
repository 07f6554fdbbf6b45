/** REST and tRPC over real HTTPS: who may, what is refused and how, streams, abuse. */

import { once } from "node:events";
import { connect } from "node:tls";
import { type Test, test } from "tap";
import { request } from "undici";
import { publicRouter } from "../../src/edge/public-router.ts";
import { routes } from "../../src/edge/routes.ts";
import { createGround, type Ground, LOSS, PASSWORD, RestCaller, type RunningEdge } from "./edge-ground.ts";

interface Setting {
  readonly ground: Ground;
  readonly server: RunningEdge;
  readonly as: (user: string) => Promise<RestCaller>;
  readonly stranger: RestCaller;
}

async function setUp(t: Test): Promise<Setting> {
  const ground = await createGround();
  const server = await ground.addEdge();
  const callers: RestCaller[] = [];
  const caller = () => {
    const one = new RestCaller(server.url, ground.ca);
    callers.push(one);
    return one;
  };
  t.teardown(async () => {
    for (const one of callers) await one.close();
    await ground.close();
  });
  return { ground, server, as: (user) => caller().signIn(user), stranger: caller() };
}

const spec = { seeds: ["https://a.example/"] };
const JOB = "0".repeat(32);
const concrete = (path: string) => path.replace(":id", JOB).replace(":key", "host%2Fa.example");

test("every call but signing in needs credentials and its scope, and says so as a problem", async (t) => {
  const { as, stranger } = await setUp(t);
  const viewer = await as("victor");
  let guarded = 0;

  for (const { method, path, access, body } of routes) {
    if (access === "open") continue;
    guarded++;
    const sent = body === undefined ? undefined : spec;
    const unknown = await stranger.call(method.toUpperCase(), concrete(path), sent);
    t.equal(unknown.status, 401, `${method} ${path} without credentials`);
    t.match(unknown.headers, { "www-authenticate": /Bearer/, "content-type": /^application\/problem\+json/ });
    const forged = await stranger.call(method.toUpperCase(), concrete(path), sent, {
      authorization: "Bearer x.y.z",
    });
    t.equal(forged.status, 401, `${method} ${path} with a forged token`);
    const mayView = ["jobs:read", "results:read"].includes(access);
    const viewed = await viewer.call(method.toUpperCase(), concrete(path), sent);
    if (mayView) t.not(viewed.status, 403, `${method} ${path} as a viewer`);
    else t.equal(viewed.status, 403, `${method} ${path} as a viewer`);
  }

  t.ok(guarded > 16, `${guarded} calls`);
});

test("every procedure but signing in needs credentials", async (t) => {
  const { stranger } = await setUp(t);
  const names = Object.keys(publicRouter._def.procedures);

  // These take name and password beside the rest.
  const wrong = { username: "admin", password: "not that" };
  const partitions = [{ partition: LOSS.partition, seen: LOSS.seen }];
  const proving: Record<string, object> = {
    "recovery.losses": wrong,
    "recovery.recover": { ...wrong, partitions },
  };
  for (const name of names.filter((name) => !name.startsWith("auth."))) {
    const reply = await stranger.call("POST", `/trpc/${name}`, {
      json: proving[name] ?? { jobId: JOB, spec, url: spec.seeds[0], key: "k" },
    });
    t.equal(reply.status, 401, name);
    t.equal(reply.json("error.json.data.code"), "UNAUTHENTICATED", name);
  }

  t.ok(names.length > 18, `${names.length} procedures`);
});

test("a job from submission to removal", async (t) => {
  const { ground, as } = await setUp(t);
  const alice = await as("alice");

  const submitted = await alice.call("POST", "/v1/jobs", { ...spec, name: "books" });
  const id = String(submitted.json("id"));
  const path = `/v1/jobs/${id}`;

  t.equal(submitted.status, 202);
  t.equal(submitted.headers.location, path);
  t.equal(submitted.json("spec.scope.maxPages"), 1000);
  t.equal((await alice.call("GET", path)).json("name"), "books");
  t.equal((await alice.call("GET", "/v1/jobs?limit=5")).json("items.0.id"), id);
  t.equal((await alice.call("GET", "/v1/jobs?status=completed")).json("items.length"), 0);
  t.equal((await alice.call("POST", `${path}/pause`)).json("status"), "paused");
  t.equal((await alice.call("POST", `${path}/resume`)).json("status"), "running");
  t.equal((await alice.call("POST", `${path}/cancel`)).json("status"), "cancelled");
  const late = await alice.call("POST", `${path}/pause`);
  t.equal(late.status, 409);
  t.equal(late.json("code"), "WRONG_STATE");
  const removed = await alice.call("DELETE", path);
  t.equal(removed.status, 204);
  t.equal(removed.text, "");
  t.equal((await alice.call("GET", path)).status, 404);
  t.same(ground.jobs.ids, []);
});

test("what is another's is unknown, but not to an administrator", async (t) => {
  const { as } = await setUp(t);
  const [alice, bob, admin] = [await as("alice"), await as("bob"), await as("admin")];
  const id = String((await alice.call("POST", "/v1/jobs", spec)).json("id"));

  for (const [method, path] of [
    ["GET", ""],
    ["POST", "/cancel"],
    ["DELETE", ""],
    ["GET", "/results"],
    ["GET", "/failures"],
    ["POST", "/retry-failures"],
    ["GET", "/explain?url=https%3A%2F%2Fa.example%2F"],
    ["GET", "/events"],
  ] as const) {
    const reply = await bob.call(method, `/v1/jobs/${id}${path}`);
    t.equal(reply.status, 404, `${method} ${path}`);
    t.match(reply.json("detail"), /no such job, or it is not yours/);
  }

  t.equal((await bob.call("GET", "/v1/jobs")).json("items.length"), 0);
  t.equal((await bob.call("GET", "/v1/jobs?owner=alice")).status, 403);
  t.equal((await admin.call("GET", "/v1/jobs?owner=alice")).json("items.0.id"), id);
  t.equal((await admin.call("GET", `/v1/jobs/${id}`)).status, 200);
});

test("the same Idempotency-Key is the same job, and never another one", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const key = { "idempotency-key": "monday-1" };

  const first = await alice.call("POST", "/v1/jobs", spec, key);
  const again = await alice.call("POST", "/v1/jobs", spec, key);
  const other = await alice.call("POST", "/v1/jobs", { seeds: ["https://b.example/"] }, key);

  t.equal(again.json("id"), first.json("id"));
  t.equal(other.status, 422);
  t.equal((await alice.call("POST", "/v1/jobs", spec, { "idempotency-key": "two words" })).status, 422);
});

test("a wrong spec is refused with the path of what is wrong", async (t) => {
  const { as, ground } = await setUp(t);
  const alice = await as("alice");

  for (const [body, path] of [
    [{}, "seeds"],
    [{ seeds: [] }, "seeds"],
    [{ seeds: ["ftp://a.example/"] }, "seeds.0"],
    [{ seeds: ["https://a.example/", "nonsense"] }, "seeds.1"],
    [{ ...spec, scope: { maxPages: 0 } }, "scope.maxPages"],
    [{ ...spec, scope: { maxPage: 5 } }, "scope.maxPage"],
    [{ ...spec, scope: { include: ["/(a/"] } }, "scope.include.0"],
    [{ ...spec, scope: { hosts: ["https://a.example/"] } }, "scope.hosts.0"],
    [{ ...spec, render: "browser" }, "render"],
    [{ ...spec, extract: { price: "div[" } }, "extract.price"],
    [
      { ...spec, extract: { rows: { css: "tr", fields: { a: { css: "td:nope(" } } } } },
      "extract.rows.fields.a.css",
    ],
    [{ ...spec, politeness: { delayMs: "fast" } }, "politeness.delayMs"],
    [[spec], ""],
  ] as const) {
    const reply = await alice.call("POST", "/v1/jobs", body);
    t.equal(reply.status, 422, path);
    t.equal(reply.json("errors.0.path"), path);
    t.equal(reply.json("code"), "INVALID_INPUT");
  }

  for (const [body, path, message] of [
    [{ ...spec, scope: { hosts: "mine" } }, "scope.hosts", /"same-host", "same-domain", "any", or a list/],
    [{ ...spec, extract: "h1" }, "extract", /must be an object: a rule for each field/],
    [{ ...spec, extract: { a: 5 } }, "extract.a", /must be a rule, e.g. "h1"/],
    [{ ...spec, extract: { a: {} } }, "extract.a", /says not where its value is/],
    [{ ...spec, extract: { a: { css: "b", type: "nmber" } } }, "extract.a.type", /"number"/],
    [
      { ...spec, extract: { a: { css: "b", fields: { c: { css: "d", al: true } } } } },
      "extract.a.fields.c.al",
      /no such field/,
    ],
  ] as const) {
    const reply = await alice.call("POST", "/v1/jobs", body);
    t.equal(reply.json("errors.0.path"), path);
    t.match(reply.json("errors.0.message"), message);
    t.match(reply.json("detail"), message);
  }

  t.same(ground.jobs.ids, []);
});

test("what is no proper request gets a problem with the right status", async (t) => {
  const { as, stranger } = await setUp(t);
  const alice = await as("alice");
  const large = JSON.stringify({ ...spec, name: "x".repeat(5 * 1024 * 1024) });

  for (const [status, detail, ask] of [
    [400, /the body is no JSON/, () => alice.call("POST", "/v1/jobs", '{"seeds": [')],
    [422, /the body is not valid/, () => alice.call("POST", "/v1/jobs", "7")],
    [413, /more than 4194304 bytes/, () => alice.call("POST", "/v1/jobs", large)],
    [413, /more than 16384 bytes/, () => stranger.call("POST", "/v1/auth/token", large)],
    [401, /sign in first/, () => stranger.call("POST", "/v1/jobs", large)],
    [415, /application\/json/, () => alice.call("POST", "/v1/jobs", "a=b", { "content-type": "text/plain" })],
    [404, /nothing at GET \/v2\/jobs/, () => alice.call("GET", "/v2/jobs")],
    [404, /nothing at GET \/\.\./, () => alice.call("GET", "/..%2fetc")],
    [405, /possible: .*GET/, () => alice.call("PUT", "/v1/jobs")],
    [422, /limit/, () => alice.call("GET", "/v1/jobs?limit=0")],
    [422, /limit/, () => alice.call("GET", "/v1/jobs?limit=5&limit=6")],
    [422, /colour/, () => alice.call("GET", "/v1/jobs?colour=red")],
    [422, /is no job id/, () => alice.call("GET", "/v1/jobs/nope")],
    [
      422,
      /there is no such field/,
      () => stranger.call("POST", "/v1/auth/token", { username: "a", password: "b", x: 1 }),
    ],
  ] as const) {
    const reply = await ask();
    t.equal(reply.status, status, String(detail));
    t.match(reply.headers["content-type"], /^application\/problem\+json/);
    t.match(reply.json("detail"), detail);
    t.equal(reply.json("status"), status);
    const code = {
      400: "BAD_REQUEST",
      401: "UNAUTHENTICATED",
      404: "NOT_FOUND",
      405: "METHOD_NOT_ALLOWED",
      413: "TOO_LARGE",
      415: "UNSUPPORTED_MEDIA_TYPE",
      422: "INVALID_INPUT",
    }[status];
    t.equal(reply.json("code"), code);
    t.equal(reply.json("type"), `urn:orbweaver:error:${code.toLowerCase().replaceAll("_", "-")}`);
    t.type(reply.json("title"), "string");
    t.notMatch(reply.text, /node_modules|\.ts:\d/, "no stack");
  }
  t.match((await alice.call("PUT", "/v1/jobs")).headers.allow, /POST/);
});

test("lists go on by their cursor, and a running job always has one", async (t) => {
  const { ground, as } = await setUp(t);
  const alice = await as("alice");
  const id = String((await alice.call("POST", "/v1/jobs", spec)).json("id"));
  const path = `/v1/jobs/${id}/results`;
  for (const n of [1, 2, 3]) ground.jobs.add(id, `https://a.example/${n}`);

  const first = await alice.call("GET", `${path}?limit=2`);
  const rest = await alice.call("GET", `${path}?limit=2&cursor=${first.json("nextCursor")}`);
  ground.jobs.add(id, "https://a.example/4");
  ground.jobs.fail(id, failure("404", 404));
  ground.jobs.finish(id, "completed");
  const last = await alice.call("GET", `${path}?limit=2&cursor=${rest.json("nextCursor")}`);

  t.equal(first.json("items.1.url"), "https://a.example/2");
  t.equal(rest.json("items.0.url"), "https://a.example/3");
  t.equal(rest.json("items.length"), 1);
  t.equal(last.json("items.0.url"), "https://a.example/4");
  t.equal(last.json("nextCursor"), null);
  t.equal((await alice.call("GET", `/v1/jobs/${id}/failures`)).json("items.0.reason"), "404");
  const explained = await alice.call("GET", `/v1/jobs/${id}/explain?url=https%3A%2F%2Fb.example%2F`);
  t.equal(explained.json("state"), "unknown");
  t.equal(explained.json("rule.name"), "scope.exclude.0");
  t.equal((await alice.call("GET", `/v1/jobs/${id}/explain`)).status, 422, "it asks for a url");
});

test("events carry progress, pages and the status, go on after Last-Event-ID, and end with the job", async (t) => {
  const { ground, as } = await setUp(t);
  const alice = await as("alice");
  const id = String((await alice.call("POST", "/v1/jobs", spec)).json("id"));
  ground.jobs.add(id, "https://a.example/1");
  ground.jobs.add(id, "https://a.example/2");
  ground.jobs.finish(id, "completed");

  const all = await alice.call("GET", `/v1/jobs/${id}/events`);
  const resumed = await alice.call("GET", `/v1/jobs/${id}/events`, undefined, { "last-event-id": "1" });
  const quiet = await alice.call("GET", `/v1/jobs/${id}/events?pages=false`);

  t.match(all.headers["content-type"], /^text\/event-stream/);
  t.match(
    all.text,
    /^retry: \d+\n\nevent: page\nid: 1\ndata: .*\/1".*\n\nevent: page\nid: 2\ndata: .*\n\nevent: progress\ndata: .*\n\nevent: status\ndata: .*completed.*\n\n$/,
  );
  t.notMatch(resumed.text, /id: 1\n/);
  t.match(resumed.text, /id: 2\n/);
  t.notMatch(quiet.text, /event: page/);
  t.match(quiet.text, /event: status/);
});

test("an event stream ends for the server when its client leaves", async (t) => {
  const { ground, as, server } = await setUp(t);
  const alice = await as("alice");
  const id = String((await alice.call("POST", "/v1/jobs", spec)).json("id"));
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const events = ground.jobs.events.bind(ground.jobs);
  ground.jobs.events = async function* (jobId, options) {
    try {
      yield* events(jobId, options);
    } finally {
      resolve();
    }
  };

  const leaving = new AbortController();
  const stream = await request(`${server.url}/v1/jobs/${id}/events`, {
    dispatcher: alice.agent,
    headers: { authorization: alice.authorization },
    signal: leaving.signal,
  });
  stream.body.on("error", () => {});
  await once(stream.body, "readable");
  leaving.abort();

  await ended;
  t.same(ground.logged, []);
});

test("one page is scraped, answered, and its job is gone", async (t) => {
  const { ground, as } = await setUp(t);
  const alice = await as("alice");
  const seen: unknown[] = [];
  ground.jobs.onSubmit = (id, { scope, seeds, extract }) => {
    seen.push([scope.maxPages, scope.maxDepth, seeds, extract]);
    if (seeds[0]?.endsWith("missing")) ground.jobs.fail(id, failure("HTTP 404", 404));
    else if (seeds[0]?.endsWith("broken")) ground.jobs.fail(id, failure("reset", null));
    else if (seeds[0]?.endsWith("silent")) return ground.jobs.wait(id, 5_000, "robots.txt unavailable");
    else if (seeds[0]?.endsWith("closed")) return ground.jobs.wait(id, 600_000, "HTTP 503");
    else ground.jobs.add(id, seeds[0] ?? "");
    ground.jobs.finish(id, "completed");
  };

  const page = await alice.call("POST", "/v1/scrape", {
    url: "https://a.example/x",
    extract: { title: "h1" },
  });
  const missing = await alice.call("POST", "/v1/scrape", { url: "https://a.example/missing" });
  const broken = await alice.call("POST", "/v1/scrape", { url: "https://a.example/broken" });
  const silent = await alice.call("POST", "/v1/scrape", { url: "https://a.example/silent" });
  const closed = await alice.call("POST", "/v1/scrape", { url: "https://a.example/closed" });
  const wrong = await alice.call("POST", "/v1/scrape", { url: "https://a.example/", extract: { a: "b[" } });

  t.equal(page.json("url"), "https://a.example/x");
  t.same(seen[0], [1, 0, ["https://a.example/x"], { title: "h1" }]);
  for (const [reply, detail, pageStatus] of [
    [missing, /HTTP 404/, 404],
    [broken, /reset/, null],
    [silent, /a\.example does not answer, or not with its robots\.txt/, null],
    [closed, /a\.example is to be left alone until .*HTTP 503/, null],
  ] as const) {
    t.equal(reply.status, 502);
    t.equal(reply.json("code"), "PAGE_FAILED");
    t.match(reply.json("detail"), detail);
    t.equal(reply.json("pageStatus"), pageStatus);
    t.equal(reply.headers["retry-after"], undefined);
  }
  t.equal(wrong.json("errors.0.path"), "extract.a");
  t.same(ground.jobs.ids, []);
});

test("secrets of a spec are shown to nobody", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const headers = { Authorization: "Basic c2VjcmV0", Cookie: "sid=secret", "Accept-Language": "de" };

  const submitted = await alice.call("POST", "/v1/jobs", { ...spec, fetch: { headers } });
  const listed = await alice.call("GET", "/v1/jobs");
  const events = await alice.call("POST", `/v1/jobs/${submitted.json("id")}/cancel`);

  for (const reply of [submitted, listed, events]) t.notMatch(reply.text, /c2VjcmV0|sid=/);
  t.same(submitted.json("spec.fetch.headers"), {
    Authorization: "***",
    Cookie: "***",
    "Accept-Language": "de",
  });
});

test("a refresh token is good once; coming twice it ends the session on every server", async (t) => {
  const { ground, server, stranger } = await setUp(t);
  const elsewhere = new RestCaller((await ground.addEdge()).url, ground.ca);
  t.teardown(() => elsewhere.close());
  const token = (reply: { json(path: string): unknown }) => ({
    authorization: `Bearer ${reply.json("accessToken")}`,
  });

  const first = await stranger.call("POST", "/v1/auth/token", { username: "alice", password: PASSWORD });
  const second = await elsewhere.call("POST", "/v1/auth/refresh", {
    refreshToken: first.json("refreshToken"),
  });

  t.equal(first.json("tokenType"), "Bearer");
  t.equal(first.json("expiresIn"), 900);
  t.equal(second.status, 200);
  t.equal(
    (await stranger.call("GET", "/v1/jobs", undefined, token(second))).status,
    200,
    "good at another server",
  );
  const stolen = await stranger.call("POST", "/v1/auth/refresh", {
    refreshToken: first.json("refreshToken"),
  });
  t.equal(stolen.status, 401);
  const refused = await elsewhere.call("POST", "/v1/auth/refresh", {
    refreshToken: second.json("refreshToken"),
  });
  t.equal(refused.status, 401, "the thief's session is over too");
  t.ok(server.url);
});

test("signing out ends the session, and nobody learns whether there was one", async (t) => {
  const { as, stranger } = await setUp(t);
  const signedIn = await stranger.call("POST", "/v1/auth/token", { username: "alice", password: PASSWORD });
  const authorization = `Bearer ${signedIn.json("accessToken")}`;
  await as("bob");

  const out = await stranger.call("POST", "/v1/auth/revoke", { refreshToken: signedIn.json("refreshToken") });
  const nonsense = await stranger.call("POST", "/v1/auth/revoke", { refreshToken: "made-up" });

  t.equal(out.status, 204);
  t.equal(nonsense.status, 204);
  t.equal((await stranger.call("GET", "/v1/jobs", undefined, { authorization })).status, 401);
});

test("wrong passwords are counted by name and address, and right ones are refused then too", async (t) => {
  const { stranger, as } = await setUp(t);
  const attempt = (username: string, password: string) =>
    stranger.call("POST", "/v1/auth/token", { username, password });

  for (let n = 0; n < 10; n++) t.equal((await attempt("alice", `wrong ${n}`)).status, 401);
  const locked = await attempt("alice", PASSWORD);

  t.equal(locked.status, 429);
  t.ok(Number(locked.headers["retry-after"]) > 0);
  t.equal(locked.json("code"), "BUSY");
  t.equal((await attempt("no-such-user", PASSWORD)).status, 401);
  t.ok((await as("bob")).authorization, "others are not locked out");
});

test("without word from the accounts for five seconds nobody is let in: 503, not 401", async (t) => {
  const { ground, stranger, as } = await setUp(t);
  const alice = await as("alice");
  await ground.renewAccounts();
  ground.registers.isDown = true;
  const fresh = await ground.addEdge();
  const caller = new RestCaller(fresh.url, ground.ca);
  t.teardown(() => caller.close());

  const reply = await caller.call("GET", "/v1/jobs", undefined, { authorization: "Bearer a.b.c" });

  t.equal(reply.status, 503);
  t.equal(reply.headers["retry-after"], "1");
  t.equal(reply.json("remedy"), "retry");
  t.equal((await alice.call("GET", "/v1/jobs")).status, 200, "what was confirmed a moment ago is still good");
  const { now } = performance;
  t.teardown(() => Object.assign(performance, { now }));
  Object.assign(performance, { now: () => now.call(performance) + 6_000 });
  t.equal((await alice.call("GET", "/v1/jobs")).status, 503);
  t.equal((await stranger.call("GET", "/healthz")).status, 200);
});

test("liveness, readiness and keys are open, and each answer is guarded by headers", async (t) => {
  const { ground, stranger } = await setUp(t);

  const live = await stranger.call("GET", "/healthz", undefined, { "x-request-id": "mine-7" });
  t.equal(live.headers["x-request-id"], "mine-7");
  t.match(live.headers, { "x-content-type-options": "nosniff", "content-security-policy": /default-src/ });
  const odd = await stranger.call("GET", "/healthz", undefined, { "x-request-id": "a b" });
  t.match(odd.headers["x-request-id"], /^[0-9a-f-]{36}$/);
  t.equal((await stranger.call("GET", "/readyz")).status, 200);
  ground.readiness.value = {
    ready: false,
    reasons: ["2 of its partitions have no leader"],
    durability: "degraded",
  };
  t.equal((await stranger.call("GET", "/healthz")).json("durability"), "degraded");
  const waiting = await stranger.call("GET", "/readyz");
  t.equal(waiting.status, 503);
  t.equal(waiting.json("reasons.0"), "2 of its partitions have no leader");
  const keys = await stranger.call("GET", "/.well-known/jwks.json");
  t.equal(keys.json("keys.0.alg"), "ES256");
  t.notMatch(keys.text, /"d"/, "no private key");
});

test("the ring is shown to those who may see it", async (t) => {
  const { as } = await setUp(t);
  const admin = await as("admin");

  t.equal((await admin.call("GET", "/v1/cluster")).json("partitions.full"), 16);
  t.equal((await admin.call("GET", "/v1/cluster/nodes")).json("items.length"), 0);
  t.equal((await admin.call("GET", "/v1/cluster/partitions")).json("items.0.durability"), "full");
  t.equal((await admin.call("GET", "/v1/cluster/lookup/host%2Fa.example")).json("key"), "host/a.example");
  const token = await admin.call("POST", "/v1/cluster/join-tokens");
  t.equal(token.status, 201);
  t.equal(token.json("token"), "token-for-admin");
});

test("tRPC errors carry code, remedy, wait and issues", async (t) => {
  const { as } = await setUp(t);
  const alice = await as("alice");
  const ask = (name: string, json: unknown) => alice.call("POST", `/trpc/${name}`, { json });

  const wrong = await ask("jobs.submit", { spec: { seeds: ["https://a.example/"], scope: { maxPages: 0 } } });
  const rule = await ask("jobs.submit", { spec: { ...spec, extract: { a: "b[" } } });
  const unknown = await ask("jobs.get", { jobId: JOB });
  const nothing = await ask("jobs.nothing", {});

  t.match(wrong.json("error.json.data"), {
    code: "INVALID_INPUT",
    remedy: "reject",
    httpStatus: 422,
    issues: [{ path: "spec.scope.maxPages" }],
  });
  t.equal(rule.status, 422);
  t.equal(rule.json("error.json.data.issues.0.path"), "extract.a");
  t.equal(unknown.status, 404);
  t.equal(unknown.json("error.json.data.code"), "NOT_FOUND");
  t.equal(nothing.status, 404);
  for (const { text } of [wrong, rule, unknown, nothing]) t.notMatch(text, /stack|\.ts:\d/);
});

test("a defect is logged with the request's id, and told nobody", async (t) => {
  const { ground, as } = await setUp(t);
  const alice = await as("alice");
  ground.jobs.list = async () => {
    throw new TypeError("secret detail");
  };

  const rest = await alice.call("GET", "/v1/jobs", undefined, { "x-request-id": "find-me" });
  const rpc = await alice.call("POST", "/trpc/jobs.list", { json: {} });

  t.equal(rest.status, 500);
  t.notMatch(rest.text, /secret detail/);
  t.match(rest.json("detail"), /find-me/);
  t.equal(rpc.status, 500);
  t.notMatch(rpc.text, /secret detail/);
  t.equal(ground.logged.filter((line) => /secret detail/.test(line)).length, 2);
  t.match(ground.logged[0], /find-me/);
});

test("what is no HTTP, and clients that break off, are turned away without a word in the log", async (t) => {
  const { ground, server, as } = await setUp(t);
  const alice = await as("alice");
  const { port } = new URL(server.url);
  const open = async () => {
    const socket = connect({ host: "127.0.0.1", port: Number(port), ca: ground.ca });
    await once(socket, "secureConnect");
    socket.on("error", () => {});
    return socket;
  };

  const garbage = await open();
  garbage.write("hello?\r\n\r\n");
  const [answer] = await once(garbage, "data");
  t.match(String(answer), /^HTTP\/1\.1 400 /);
  const long = await open();
  long.write(`GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(40_000)}\r\n\r\n`);
  t.match(String((await once(long, "data"))[0]), /^HTTP\/1\.1 431 /);
  for (let n = 0; n < 5; n++) {
    const cut = await open();
    cut.write(
      `POST /v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: ${alice.authorization}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"se`,
    );
    cut.destroy();
  }

  t.equal((await alice.call("GET", "/v1/jobs")).status, 200);
  t.same(ground.logged, []);
});

function failure(reason: string, status: number | null) {
  return {
    url: "https://a.example/x",
    key: "k",
    reason,
    status,
    attempts: 1,
    failedAt: "2026-01-01T00:00:00.000Z",
  };
}
