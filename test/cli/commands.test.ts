/** Commands that work: against an edge, and with a server of their own. */
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import type { Result } from "../../src/job/job-spec.ts";
import { createGround, type Ground, nodeAt, PASSWORD } from "../edge/edge-ground.ts";
import { type Ended, orbweaver, RunningCommand } from "./command.ts";

async function setUp(t: Test, username = "admin") {
  const ground: Ground = await createGround();
  t.teardown(() => ground.close());
  const { url } = await ground.addEdge();
  const profile = { servers: [url], ca: ground.ca, username, password: PASSWORD };
  const cwd = t.testdir({ data: { "client.json": JSON.stringify(profile) } });
  const run = (...args: string[]): Promise<Ended> => orbweaver(args, { cwd });
  const job = await ground.jobs.submit(
    username,
    (await import("../../src/job/job-spec.ts")).jobSpecSchema.parse({
      name: "books",
      seeds: ["https://a.example/"],
      extract: { price: "b" },
    }),
  );
  return { ground, cwd, run, job, url };
}

test("jobs are listed, shown, paused, resumed, cancelled and removed", async (t) => {
  const { run, job, ground } = await setUp(t);

  t.match((await run("jobs", "list")).stdout, new RegExp(`${job.id} +running .*books`));
  t.match((await run("jobs", "get", job.id)).stdout, /0 found = 0 done/);
  t.equal(JSON.parse((await run("jobs", "pause", job.id, "--json")).stdout).status, "paused");
  t.equal((await run("jobs", "resume", job.id)).code, 0);
  t.match((await run("jobs", "cancel", job.id)).stdout, /cancelled/);
  const late = await run("jobs", "pause", job.id);
  t.equal(late.code, 1);
  t.equal(late.stderr, "orbweaver: the job is cancelled\n");
  t.match((await run("jobs", "rm", job.id)).stdout, /removed/);
  t.same(ground.jobs.ids, []);
  const gone = await run("jobs", "get", job.id);
  t.equal(gone.code, 1);
  t.match(gone.stderr, /no such job/);
  t.equal((await run("jobs", "get", "nonsense")).code, 2);
});

test("results are written as NDJSON, JSON and CSV, and what pages say is not obeyed", async (t) => {
  const { run, job, ground, cwd } = await setUp(t);
  ground.jobs.add(job.id, "https://a.example/1");
  ground.jobs.add(job.id, 'https://a.example/"2",x');
  ground.jobs.results = wrap(ground, { price: "=1+1", "\u001b[2J": "x" });
  ground.jobs.finish(job.id, "completed");

  const lines = (await run("results", job.id)).stdout.trimEnd().split("\n");
  for (const format of ["ndjson", "json", "csv"])
    t.equal((await run("results", job.id, "-o", `out.${format}`)).code, 0);

  t.equal(lines.length, 2);
  t.equal(JSON.parse(lines[0] ?? "").url, "https://a.example/1");
  t.notMatch(lines.join(""), /\u001b/);
  const read = (name: string) => readFileSync(join(cwd, name), "utf8");
  t.equal(read("out.ndjson"), `${lines.join("\n")}\n`);
  t.equal(JSON.parse(read("out.json")).length, 2);
  t.equal(
    read("out.csv"),
    "url,finalUrl,status,contentType,fetchedAt,depth,parent,bytes,title,data.price\r\n" +
      "https://a.example/1,https://a.example/1,200,text/html,2026-01-01T00:00:00.000Z,0,,100,,'=1+1\r\n" +
      '"https://a.example/""2"",x","https://a.example/""2"",x",200,text/html,2026-01-01T00:00:00.000Z,0,,100,,\'=1+1\r\n',
  );
});

test("the ring is shown as a table, and a join token is handed over in a file of one's own", async (t) => {
  const { run, ground, cwd } = await setUp(t);
  ground.nodes.push(nodeAt("https://10.0.0.5:8443"));

  const status = await run("cluster", "status");
  t.equal(status.code, 0);
  t.match(status.stdout, /16 with all copies, 0 with fewer, 0 not served/);
  t.match(status.stdout, /bbbbbbbb +alive +https:\/\/10\.0\.0\.5:8443 +127\.0\.0\.1:7443 +50\.0 %/);
  t.equal(JSON.parse((await run("cluster", "status", "--json")).stdout).partitionCount, 16);
  t.match((await run("cluster", "lookup", "host/a.example")).stdout, /partition 3/);
  t.equal((await run("cluster", "join-token")).stdout, "token-for-admin\n");
  t.equal((await run("cluster", "join-token", "-o", "token")).code, 0);
  t.equal(readFileSync(join(cwd, "token"), "utf8"), "token-for-admin\n");
  t.equal(statSync(join(cwd, "token")).mode & 0o777, 0o600);
  t.equal((await run("cluster", "join-token", "-o", "token")).code, 2, "nothing is overwritten");
});

test("who may not, and who has the wrong password, is told so with exit code 1", async (t) => {
  const { run, cwd, url, ground } = await setUp(t, "victor");

  const forbidden = await run("cluster", "status");
  writeFileSync(
    join(cwd, "wrong.json"),
    JSON.stringify({ servers: [url], ca: ground.ca, username: "victor", password: "wrong" }),
  );
  const wrong = await run("jobs", "list", "--profile", "wrong.json");
  writeFileSync(join(cwd, "no-ca.json"), JSON.stringify({ servers: [url], token: "x" }));
  const untrusted = await run("jobs", "list", "--profile", "no-ca.json");

  t.equal(forbidden.code, 1);
  t.match(forbidden.stderr, /needs the scope cluster:read/);
  t.equal(wrong.code, 1);
  t.equal(wrong.stderr, "orbweaver: wrong user name or password\n");
  t.equal(untrusted.code, 1);
  t.match(untrusted.stderr, /certificate can't be trusted.*ca\.crt/);
});

test("a crawl follows its job to the end, and its exit code tells how it went", async (t) => {
  const { run, ground, cwd } = await setUp(t);
  const outcomes = ["whole", "partly", "failed"];
  ground.jobs.onSubmit = (id) => {
    const outcome = outcomes.shift();
    if (outcome !== "failed") ground.jobs.add(id, "https://a.example/");
    const failure = {
      url: "https://a.example/\u001b[31m",
      key: "k",
      reason: "HTTP 404",
      status: 404,
      attempts: 1,
    };
    if (outcome === "partly") ground.jobs.fail(id, { ...failure, failedAt: "2026-01-01T00:00:00.000Z" });
    ground.jobs.finish(id, outcome === "failed" ? "failed" : "completed");
  };

  const whole = await run("crawl", "https://a.example/", "-o", "out.ndjson", "--max-pages", "7");
  const partly = await run("crawl", "https://a.example/", "--json");
  const failed = await run("crawl", "https://a.example/");

  t.equal(whole.code, 0);
  t.match(whole.stderr, /completed: 1 pages in out\.ndjson, 0 failed/);
  t.equal(whole.stdout, "");
  t.equal(JSON.parse(readFileSync(join(cwd, "out.ndjson"), "utf8")).url, "https://a.example/");
  t.equal(partly.code, 3);
  t.equal(JSON.parse(partly.stdout).url, "https://a.example/");
  t.equal(JSON.parse(partly.stderr.trimEnd().split("\n").at(-1) ?? "").status, "completed");
  t.equal(failed.code, 1);
  const listed = await ground.jobs.list({ owner: "admin", limit: 10 });
  t.equal(listed.items.at(-2)?.spec.scope.maxPages, 7);
});

test("without a server running, a crawl gets one of its own, and takes it away again", async (t) => {
  const site = await smallSite(t, 30);
  const cwd = t.testdir({
    "rules.json": JSON.stringify({ heading: "h1" }),
    // Of a ring that does not run any more.
    data: { "client.json": JSON.stringify({ servers: ["https://127.0.0.1:1"], token: "x" }) },
  });
  const left = () => readdirSync(tmpdir()).filter((name) => name.startsWith("orbweaver-crawl-")).length;
  const before = left();

  const args = [
    "--allow-addresses",
    "127.0.0.0/8",
    "--delay",
    "0",
    "--extract",
    "rules.json",
    "-o",
    "out.ndjson",
  ];
  const crawled = await orbweaver(["crawl", site.url, "--max-pages", "10", ...args], { cwd });
  const results = readLines(join(cwd, "out.ndjson"));

  t.equal(crawled.code, 0, crawled.stderr);
  t.equal(results.length, 10);
  t.equal(new Set(results.map(({ url }) => url)).size, 10);
  t.match(results[0]?.data.heading, /^Page \d+$/);
  t.equal(left(), before);
  const scraped = await orbweaver(
    ["scrape", `${site.url}3`, "--allow-addresses", "127.0.0.1", "--extract", "rules.json"],
    { cwd },
  );
  t.equal(scraped.code, 0, scraped.stderr);
  t.match(scraped.stdout, /heading: Page 3/);
});

test("Ctrl-C leaves a whole file, and with --data the same command goes on", async (t) => {
  const site = await smallSite(t, 40);
  const cwd = t.testdir({});
  const args = [
    "crawl",
    site.url,
    "--allow-addresses",
    "127.0.0.0/8",
    "--delay",
    "20",
    "-o",
    "out.json",
    "--data",
    "state",
  ];

  const first = new RunningCommand(args, { cwd });
  await site.served(12);
  first.process.kill("SIGINT");
  const interrupted = await first.ended;
  const partial: Result[] = JSON.parse(readFileSync(join(cwd, "out.json"), "utf8"));
  const second = await orbweaver(args, { cwd });
  const whole: Result[] = JSON.parse(readFileSync(join(cwd, "out.json"), "utf8"));

  t.equal(interrupted.code, 3, interrupted.stderr);
  t.match(interrupted.stderr, /the same command goes on/);
  t.ok(partial.length < 40);
  t.equal(second.code, 0, second.stderr);
  t.equal(new Set(whole.map(({ url }) => url)).size, 40);
  t.equal(whole.length, 40);
  t.ok(existsSync(join(cwd, "state", "identity.json")));
  t.ok(site.requests() < 40 + 12, "what was stored was not fetched again");
});

test("Ctrl-C without --data ends the job and keeps what is there", async (t) => {
  const site = await smallSite(t, 500);
  const cwd = t.testdir({});
  const args = ["crawl", site.url, "--allow-addresses", "127.0.0.0/8", "--delay", "20", "-o", "out.json"];

  const crawl = new RunningCommand(args, { cwd });
  await site.served(10);
  crawl.process.kill("SIGINT");
  const { code, stderr } = await crawl.ended;

  t.equal(code, 3, stderr);
  t.match(stderr, /interrupted: \d+ pages in out\.json/);
  t.ok(JSON.parse(readFileSync(join(cwd, "out.json"), "utf8")).length > 0);
});

test("a ring is started with one command, signs the command line in, stops and comes back", async (t) => {
  const cwd = t.testdir({});
  const args = ["up", "--nodes", "2", "--edge-port", "0", "--peer-port", "0"];

  const first = new RunningCommand(args, { cwd });
  await first.said(/Orbweaver is up: 2 servers/);
  const status = await orbweaver(["cluster", "status", "--json"], { cwd });
  first.process.kill("SIGINT");
  const stopped = await first.ended;
  const again = new RunningCommand(args, { cwd });
  await again.said(/Orbweaver is up: 2 servers/);
  const jobs = await orbweaver(["jobs", "list"], { cwd });
  again.process.kill("SIGTERM");

  t.match(stopped.stdout, /npm run orbweaver -- cluster status\n/);
  t.equal(JSON.parse(status.stdout).nodes.length, 2);
  t.equal(stopped.code, 0, stopped.stderr);
  t.equal(statSync(join(cwd, "data", "client.json")).mode & 0o777, 0o600);
  t.equal(jobs.code, 0, jobs.stderr);
  t.equal((await again.ended).code, 0);
});

/** Pages `/` to `/N`, each linking to the next three. */
async function smallSite(t: Test, pages: number) {
  let requests = 0;
  const watchers: { count: number; resolve: () => void }[] = [];
  const server: Server = createServer((request, response) => {
    const page = Number(request.url?.slice(1) || 0);
    if (!(page < pages)) {
      response.writeHead(404).end();
      return;
    }
    requests++;
    for (const { count, resolve } of watchers) if (requests >= count) resolve();
    const links = [1, 2, 3].map((n) => page + n).filter((n) => n < pages);
    response.setHeader("content-type", "text/html");
    response.end(`<h1>Page ${page}</h1>${links.map((n) => `<a href="/${n}">${n}</a>`).join("")}`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const bound = server.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : 0;
  return {
    url: `http://127.0.0.1:${port}/`,
    requests: () => requests,
    served: (count: number) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      watchers.push({ count, resolve });
      return promise;
    },
  };
}

function readLines(path: string): Result[] {
  return readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Result);
}

/** Results with `data` in them, as pages might have made it. */
function wrap({ jobs }: Ground, data: Result["data"]): Ground["jobs"]["results"] {
  const results = jobs.results.bind(jobs);
  return async (jobId, page) => {
    const { items, nextCursor } = await results(jobId, page);
    return { items: items.map((item) => ({ ...item, data })), nextCursor };
  };
}
