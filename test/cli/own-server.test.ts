/** Commands that start servers: a crawl with one of its own, and a ring. */
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { type Test, test } from "tap";
import type { Result } from "../../src/job/job-spec.ts";
import { orbweaver, RunningCommand } from "./command.ts";

test("without a server running, a crawl gets one of its own, and takes it away again", async (t) => {
  const site = await smallSite(t, 30);
  const cwd = t.testdir({
    "rules.json": JSON.stringify({ heading: "h1" }),
    // Of a ring that does not run any more.
    data: { "client.json": JSON.stringify({ servers: ["https://127.0.0.1:1"], token: "x" }) },
    tmp: {},
  });
  const own = { cwd, env: { TMPDIR: join(cwd, "tmp") } };

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
  const crawled = await orbweaver(["crawl", site.url, "--max-pages", "10", ...args], own);
  const results = readLines(join(cwd, "out.ndjson"));

  t.equal(crawled.code, 0, crawled.stderr);
  t.equal(results.length, 10);
  t.equal(new Set(results.map(({ url }) => url)).size, 10);
  t.match(results[0]?.data.heading, /^Page \d+$/);
  t.same(readdirSync(own.env.TMPDIR), []);
  const scraped = await orbweaver(
    ["scrape", `${site.url}3`, "--allow-addresses", "127.0.0.1", "--extract", "rules.json"],
    own,
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
    "--max-depth",
    "999",
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
  const args = [
    "crawl",
    site.url,
    "--allow-addresses",
    "127.0.0.0/8",
    "--delay",
    "20",
    "--max-depth",
    "999",
    "--max-depth",
    "999",
    "-o",
    "out.json",
  ];

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
  const args = ["up", "--nodes", "2", "--edge-port", "0", "--peer-port", "0", "--log-level", "info"];

  const first = new RunningCommand(args, { cwd });
  await first.said(/Orbweaver is up: 2 servers/);
  const status = await orbweaver(["cluster", "status", "--json"], { cwd });
  first.process.kill("SIGINT");
  const stopped = await first.ended;
  // Other ports than those by which the two know each other.
  const again = new RunningCommand(["up", "--nodes", "2", "--edge-port", "18443", "--peer-port", "0"], {
    cwd,
  });
  await again.said(/Orbweaver is up: 2 servers/);
  const jobs = await orbweaver(["jobs", "list"], { cwd });
  again.process.kill("SIGTERM");

  t.match(stopped.stdout, /npm run orbweaver -- cluster status\n/);
  t.match(stopped.stdout, /durability: degraded: with two servers/);
  t.equal(JSON.parse(status.stdout).durability, "degraded");
  t.equal(JSON.parse(status.stdout).partitions.complete, 256, "each group has both its copies");
  t.equal(JSON.parse(status.stdout).nodes.length, 2);
  t.equal(stopped.code, 0, stopped.stderr);
  t.equal(statSync(join(cwd, "data", "client.json")).mode & 0o777, 0o600);
  t.equal(jobs.code, 0, jobs.stderr);
  const second = await again.ended;
  t.equal(second.code, 0);
  t.match(second.stderr, /keep the ports by which they know each other/);
  t.notMatch(second.stderr + stopped.stderr, /^\{|"level"/m, "what the servers log is in a file");
  t.match(readFileSync(join(cwd, "data", "server-1.log"), "utf8"), /"level"/);
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
