/** Commands against a running edge. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Test, test } from "tap";
import type { Result } from "../../src/job/job-spec.ts";
import { createGround, type Ground, nodeAt, PASSWORD } from "../edge/edge-ground.ts";
import { type Ended, orbweaver } from "./command.ts";

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

test("failures are listed and fetched again, and a URL is explained", async (t) => {
  const { run, job, ground } = await setUp(t);
  ground.jobs.add(job.id, "https://a.example/1");
  const lost = { url: "https://a.example/\u001b[2J", key: "k", reason: "HTTP 404", status: 404 };
  ground.jobs.fail(job.id, { ...lost, attempts: 3, failedAt: "2026-01-01T00:00:00.000Z" });

  const early = await run("jobs", "retry", job.id);
  ground.jobs.finish(job.id, "completed");
  const failures = await run("jobs", "failures", job.id);
  const asJson = await run("jobs", "failures", job.id, "--json");
  const known = await run("explain", job.id, "https://a.example/1");
  const unknown = await run("explain", job.id, "https://b.example/");
  const explained = JSON.parse((await run("explain", job.id, "https://b.example/", "--json")).stdout);
  const again = await run("jobs", "retry", job.id);

  t.equal(early.code, 1);
  t.match(failures.stdout, /^https:\/\/a\.example\/\S+ {2}HTTP 404, 3 tries\n$/);
  t.notMatch(failures.stdout + unknown.stdout, /\u001b/, "what pages are called is not obeyed");
  t.equal(JSON.parse(asJson.stdout).attempts, 3);
  t.match(known.stdout, /^done: It was fetched\.\n {2}URL +https:\/\/a\.example\/1\n/);
  t.match(known.stdout, /tries +1\n {2}result +\S+\n$/);
  t.match(unknown.stdout, /^not a page of the job: .*\n(?: .*\n)* {2}rule +scope\.exclude\.0: it matches /);
  t.equal(explained.state, "unknown");
  t.equal(again.code, 0);
  t.match(again.stdout, /running/);
  t.equal((await run("jobs", "failures", job.id)).stdout, "");
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
  t.match(status.stdout, /16 with three copies or more, 0 with fewer, 0 not served/);
  t.match(status.stdout, /bbbbbbbb +alive +https:\/\/10\.0\.0\.5:8443 +127\.0\.0\.1:7443 +50\.0 %/);
  t.equal(JSON.parse((await run("cluster", "status", "--json")).stdout).partitionCount, 16);
  t.match((await run("cluster", "lookup", "host/a.example")).stdout, /partition 3/);
  t.equal((await run("cluster", "join-token")).stdout, "token-for-admin\n");
  t.equal((await run("cluster", "join-token", "-o", "token")).code, 0);
  t.equal(readFileSync(join(cwd, "token"), "utf8"), "token-for-admin\n");
  t.equal(statSync(join(cwd, "token")).mode & 0o777, 0o600);
  t.equal((await run("cluster", "join-token", "-o", "token")).code, 2, "nothing is overwritten");
});

test("a script tells a partition that is not served from a cluster that could not be asked", async (t) => {
  const { run, ground } = await setUp(t);

  Object.assign(ground.partitions, { full: 15, unserved: 1 });
  const partly = await run("cluster", "status");
  const nobody = { servers: ["https://127.0.0.1:1"], ca: ground.ca, username: "admin", password: PASSWORD };
  const unasked = await run(
    "cluster",
    "status",
    "--profile",
    join(t.testdir({ p: JSON.stringify(nobody) }), "p"),
  );

  t.equal(partly.code, 3);
  t.match(partly.stdout, /15 with three copies or more, 0 with fewer, 1 not served/);
  t.equal(unasked.code, 1);
  t.match(unasked.stderr, /no server answers at https:\/\/127\.0\.0\.1:1/);
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

/** Results with `data` in them, as pages might have made it. */
function wrap({ jobs }: Ground, data: Result["data"]): Ground["jobs"]["results"] {
  const results = jobs.results.bind(jobs);
  return async (jobId, page) => {
    const { items, nextCursor } = await results(jobId, page);
    return { items: items.map((item) => ({ ...item, data })), nextCursor };
  };
}
