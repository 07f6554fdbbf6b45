/** The SDK against real edges that die, lose answers, and forget who signed in. */
import { once } from "node:events";
import { createServer } from "node:net";
import { type Test, test } from "tap";
import {
  BusyError,
  ClusterError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  RefusedError,
  UnauthenticatedError,
  UsageError,
  WrongStateError,
} from "../../src/errors.ts";
import { Caller } from "../../src/sdk/caller.ts";
import { type Client, type ClientOptions, createClient } from "../../src/sdk/client.ts";
import { NobodyAnswersError } from "../../src/sdk/edge-error.ts";
import { createGround, type Ground, nodeAt, PASSWORD, type RunningEdge } from "./edge-ground.ts";
import { FlakyLine } from "./flaky-line.ts";

interface Setting {
  readonly ground: Ground;
  readonly a: RunningEdge;
  readonly b: RunningEdge;
  /** To server a, and to server b. */
  readonly lines: readonly [FlakyLine, FlakyLine];
  readonly client: (options?: Partial<ClientOptions>) => Client;
}

async function setUp(t: Test): Promise<Setting> {
  const ground = await createGround();
  const [a, b] = [await ground.addEdge(), await ground.addEdge()];
  const lines = [await FlakyLine.to(a.url), await FlakyLine.to(b.url)] as const;
  const clients: Client[] = [];
  t.teardown(async () => {
    for (const client of clients) await client.close();
    for (const line of lines) line.cut();
    await ground.close();
  });
  const servers = lines.map(({ url }) => url);
  return {
    ground,
    a,
    b,
    lines,
    client: (options = {}) => {
      const signIn = (options.token ?? options.apiKey) ? {} : { username: "alice", password: PASSWORD };
      const client = createClient({ servers, ca: ground.ca, ...signIn, ...options });
      clients.push(client);
      return client;
    },
  };
}

const spec = { seeds: ["https://a.example/"] };
const url = (n: number) => `https://a.example/${n}`;
const urls = (count: number) => Array.from({ length: count }, (_, n) => url(n));

/** Where nothing listens. */
async function silentServer(): Promise<string> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const bound = probe.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : 0;
  probe.close();
  await once(probe, "close");
  return `https://127.0.0.1:${port}`;
}

test("results go on at another server when theirs dies in the middle, each once and in order", async (t) => {
  const { ground, lines, client } = await setUp(t);
  const alice = client();
  const job = await alice.jobs.submit(spec);
  for (let n = 0; n < 250; n++) ground.jobs.add(job.id, url(n));
  const seen: string[] = [];

  for await (const result of alice.results(job.id)) {
    seen.push(result.url);
    if (seen.length === 120) {
      lines[0].cut();
      for (let n = 250; n < 500; n++) ground.jobs.add(job.id, url(n));
    }
    if (seen.length === 480) ground.jobs.finish(job.id, "completed");
  }

  t.same(seen, urls(500));
  t.equal(alice.server, lines[1].url);
});

test("events go on at another server when theirs dies in the middle: no page twice, none lost", async (t) => {
  const { ground, lines, client } = await setUp(t);
  const alice = client();
  const job = await alice.jobs.submit(spec);
  for (let n = 0; n < 10; n++) ground.jobs.add(job.id, url(n));
  const seen: string[] = [];
  const statuses: string[] = [];

  for await (const event of alice.events(job.id)) {
    if (event.kind === "status") statuses.push(event.status);
    if (event.kind !== "page") continue;
    seen.push(event.result.url);
    if (seen.length === 10) {
      lines[0].cut();
      for (let n = 10; n < 20; n++) ground.jobs.add(job.id, url(n));
    }
    if (seen.length === 15) ground.jobs.finish(job.id, "completed");
  }

  t.same(seen, urls(20));
  t.same(statuses, ["completed"]);
});

test("events also go on when their server stops in good order", async (t) => {
  const { ground, a, client } = await setUp(t);
  const alice = client();
  const job = await alice.jobs.submit(spec);
  ground.jobs.add(job.id, url(0));
  const seen: string[] = [];

  for await (const event of alice.events(job.id)) {
    if (event.kind !== "page") continue;
    seen.push(event.result.url);
    if (seen.length === 1) {
      await a.kill();
      ground.jobs.add(job.id, url(1));
      ground.jobs.finish(job.id, "completed");
    }
  }

  t.same(seen, urls(2));
});

test("a submission whose answer was lost is made once", async (t) => {
  const { ground, lines, client } = await setUp(t);
  const alice = client();
  ground.jobs.onSubmit = () => lines[0].cut();

  const job = await alice.jobs.submit(spec);

  t.same(ground.jobs.ids, [job.id]);
  t.equal(alice.server, lines[1].url);
});

test("submit, follow and collect is one call", async (t) => {
  const { ground, client } = await setUp(t);
  ground.jobs.onSubmit = (id) => {
    ground.jobs.add(id, url(0));
    ground.jobs.add(id, url(1));
    ground.jobs.finish(id, "completed");
  };

  const { job, results } = await client().crawl({ ...spec, name: "books" });

  t.equal(job.status, "completed");
  t.equal(job.name, "books");
  t.same(
    results.map((result) => result.url),
    urls(2),
  );
});

test("a page that is scraped comes back with its data", async (t) => {
  const { ground, client } = await setUp(t);
  ground.jobs.onSubmit = (id) => {
    ground.jobs.add(id, url(7));
    ground.jobs.finish(id, "completed");
  };

  t.equal((await client().scrape({ url: url(7) })).url, url(7));
});

test("more servers are learned from the cluster, and outlive those that were named", async (t) => {
  const { ground, a, b, client } = await setUp(t);
  ground.nodes.push(nodeAt(b.url));
  const admin = client({ username: "admin", password: PASSWORD, servers: [a.url] });
  await admin.jobs.list();
  while (admin.servers.length < 2) await new Promise(setImmediate);

  await a.kill();

  t.same((await admin.jobs.list()).items, []);
  t.equal(admin.server, b.url);
});

test("a client that is told to stay with its servers learns no others", async (t) => {
  const { ground, a, b, client } = await setUp(t);
  ground.nodes.push(nodeAt(b.url));
  const admin = client({ username: "admin", password: PASSWORD, servers: [a.url], learnServers: false });

  await admin.jobs.list();
  await admin.cluster.nodes();
  await admin.close();

  t.same(admin.servers, [a.url]);
});

test("a session that ended is replaced by a new one without a word", async (t) => {
  const { ground, client } = await setUp(t);
  const alice = client();
  await alice.jobs.list();
  await endSessions(ground);

  t.same((await alice.jobs.list()).items, []);
});

test("calls that start at once sign in once", async (t) => {
  const { ground, client } = await setUp(t);
  const alice = client();

  await Promise.all(Array.from({ length: 20 }, () => alice.jobs.list()));

  t.equal(await countSessions(ground), 1);
});

test("closing ends the session", async (t) => {
  const { ground, client } = await setUp(t);
  const alice = client();
  await alice.jobs.list();
  t.equal(await countSessions(ground), 1);

  await alice.close();

  t.equal(await countSessions(ground), 0);
});

test("failures are errors of their class, with code and what is wrong", async (t) => {
  const { ground, client, lines } = await setUp(t);
  const alice = client();
  const job = await alice.jobs.submit(spec);
  ground.jobs.finish(job.id, "completed");

  await t.rejects(alice.jobs.get("0".repeat(32)), NotFoundError);
  await t.rejects(alice.jobs.pause(job.id), WrongStateError);
  await t.rejects(alice.cluster.status(), ForbiddenError);
  await t.rejects(client({ token: "nonsense" }).jobs.list(), UnauthenticatedError);
  await t.rejects(client({ username: "alice", password: "wrong" }).jobs.list(), UnauthenticatedError);
  const wrong = await alice.jobs.submit({ ...spec, extract: { a: "b[" } }).catch((error) => error);
  t.type(wrong, InvalidInputError);
  t.equal(wrong.issues[0].path, "extract.a");
  t.ok(wrong instanceof ClusterError);
  await t.rejects(async () => {
    for await (const _ of alice.events("0".repeat(32))) t.fail("there is nothing to tell");
  }, NotFoundError);
  await t.rejects(client({ servers: [lines[0].url], ca: undefined }).jobs.list(), RefusedError);
});

test("being told to wait for long is an error at once, not a long wait", async (t) => {
  const { client } = await setUp(t);
  const wrong = () => client({ username: "alice", password: "wrong" });
  for (let n = 0; n < 10; n++) await t.rejects(wrong().jobs.list(), UnauthenticatedError);

  const error = await wrong()
    .jobs.list()
    .catch((error) => error);

  t.type(error, BusyError);
  t.ok(error.retryAfterMs > 60_000);
});

test("when nothing listens anywhere, that is what is said, and soon", async (t) => {
  const { ground, client } = await setUp(t);

  const lost = client({ servers: [await silentServer()] });

  await t.rejects(lost.jobs.list(), {
    constructor: NobodyAnswersError,
    message: /no server answers.*are they running/,
  });
  t.ok(ground.ca);
});

test("when nobody can be asked to sign in, the call is not made again and again", async (t) => {
  const caller = new Caller({ servers: [await silentServer()], username: "alice", password: PASSWORD });
  t.teardown(() => caller.close());
  const { connection } = caller;
  const reach = connection.procedures.bind(connection);
  let tries = 0;
  connection.procedures = (server) => {
    tries++;
    return reach(server);
  };

  await t.rejects(
    caller.call((to, rest) => to.jobs.list.query({}, rest)),
    NobodyAnswersError,
  );

  t.equal(tries, 5, "the call, and four tries to sign in for it");
});

test("a client needs servers and one way to sign in", (t) => {
  const servers = ["https://127.0.0.1:8443"];

  t.throws(() => createClient({ servers: [], token: "x" }), UsageError);
  t.throws(() => createClient({ servers: ["http://127.0.0.1:8443"], token: "x" }), UsageError);
  t.throws(() => createClient({ servers: ["127.0.0.1:8443"], token: "x" }), UsageError);
  t.throws(() => createClient({ servers }), UsageError);
  t.throws(() => createClient({ servers, token: "x", apiKey: "y" }), UsageError);
  t.throws(() => createClient({ servers, username: "x" }), UsageError);
  t.end();
});

async function countSessions(ground: Ground): Promise<number> {
  return (await ground.entries.list("session")).length;
}

async function endSessions(ground: Ground): Promise<void> {
  for (const { id } of await ground.entries.list("session")) {
    const found = await ground.entries.read("session", id);
    if (found !== undefined) await ground.entries.remove("session", id, found.version);
  }
  // Each server's copy still has them until it looks again.
  await ground.renewAccounts();
}
