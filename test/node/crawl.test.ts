/** A whole crawl through the real drivers, in virtual time, over partitions that stand in for replication. */
import { hash } from "node:crypto";
import { test } from "tap";
import { type JobSpecInput, jobSpecSchema, type Result } from "../../src/job/job-spec.ts";
import { CrawlCluster } from "../simulation/crawl-cluster.ts";
import { CrawlSite } from "../simulation/crawl-site.ts";
import { seededRandom, VirtualTime } from "../simulation/virtual-clock.ts";

function world(options: { nodes: number; partitions?: number; threads?: number; perThread?: number }) {
  const time = new VirtualTime();
  const site = new CrawlSite();
  const cluster = new CrawlCluster({
    time,
    site,
    partitionCount: options.partitions ?? 16,
    nodes: options.nodes,
    random: seededRandom(Number(process.env.SEED ?? 1)),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.perThread === undefined ? {} : { perThread: options.perThread }),
  });
  /** Lets time pass until the promise is kept; at most `maxMs`. */
  const wait = async <T>(promise: Promise<T>, maxMs = 60_000): Promise<T> => {
    let isDone = false;
    promise.then(
      () => {
        isDone = true;
      },
      () => {
        isDone = true;
      },
    );
    if (!(await time.run(() => isDone, time.nowMs + maxMs))) throw new Error(`not within ${maxMs} ms`);
    return promise;
  };
  const finish = async (jobId: string, maxMs = 60_000) => {
    const end = time.nowMs + maxMs;
    while (time.nowMs < end) {
      const job = await wait(cluster.alive[0]!.jobs.get(jobId));
      if (["completed", "failed"].includes(job.status) || job.finishedAt !== null) return job;
      await time.run(() => false, time.nowMs + 50);
    }
    throw new Error(`job not over: ${JSON.stringify(await wait(cluster.alive[0]!.jobs.get(jobId)))}`);
  };
  const allResults = async (jobId: string, limit = 7): Promise<Result[]> => {
    const items: Result[] = [];
    let cursor: string | undefined;
    while (true) {
      const page = await wait(
        cluster.alive.at(-1)!.jobs.results(jobId, { limit, ...(cursor === undefined ? {} : { cursor }) }),
      );
      items.push(...page.items);
      if (page.nextCursor === null) return items;
      cursor = page.nextCursor;
    }
  };
  return { time, site, cluster, wait, finish, allResults };
}

function spec(input: JobSpecInput) {
  return jobSpecSchema.parse({
    ...input,
    politeness: { delayMs: 0, robots: false, concurrencyPerHost: 4, ...input.politeness },
  });
}

/** A tree of `count` pages on one host, each linking to its children and back to the root. */
function tree(site: CrawlSite, host: string, count: number, fan = 4): string[] {
  const url = (n: number) => `http://${host}/${n === 0 ? "" : n}`;
  for (let n = 0; n < count; n++) {
    const links = [url(0)];
    for (let k = 1; k <= fan; k++) if (n * fan + k < count) links.push(url(n * fan + k));
    site.page(url(n), { links });
  }
  return Array.from({ length: count }, (_, n) => url(n));
}

test("a crawl on one node gives one result for each page and completes", async (t) => {
  const { site, cluster, wait, finish, allResults, time } = world({ nodes: 1 });
  const urls = tree(site, "a.test", 60);

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.equal(end.stats.results, 60);
  t.equal(end.stats.pending, 0);
  t.equal(end.stats.discovered, 60);
  const results = await allResults(job.id);
  t.same(results.map((result) => result.url).sort(), [...urls].sort());
  t.same(results[0]!.data, { title: "Title of http://a.test/" });
  t.equal(site.requests.length, 60);
  t.ok(time.nowMs - site.requests.at(-1)!.atMs < 1_000, "completed within a second of the last page");
});

test("hosts of several partitions on three nodes are crawled together", async (t) => {
  const { site, cluster, wait, finish, allResults } = world({ nodes: 3, partitions: 64 });
  const hosts = Array.from({ length: 12 }, (_, n) => `h${n}.test`);
  const urls = hosts.flatMap((host) => tree(site, host, 10));
  for (const [n, host] of hosts.entries()) {
    site.page(`http://${host}/`, {
      links: [...(site.pages.get(`http://${host}/`)!.links ?? []), `http://${hosts[(n + 1) % 12]}/`],
    });
  }

  const job = await wait(
    cluster.nodes[1]!.jobs.submit(
      "ann",
      spec({ seeds: ["http://h0.test/"], scope: { hosts: ["*.test"], maxDepth: 100 } }),
    ),
  );
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.same((await allResults(job.id)).map((result) => result.url).sort(), [...urls].sort());
  t.equal(end.stats.results, 120);
  t.ok(Object.keys(end.stats.servers).length >= 2, "more than one server did the work");
});

test("maxPages is exact, and what is left over counts as skipped", async (t) => {
  const { site, cluster, wait, finish, allResults } = world({ nodes: 3, partitions: 64 });
  const hosts = Array.from({ length: 6 }, (_, n) => `h${n}.test`);
  for (const host of hosts) tree(site, host, 40);

  const job = await wait(
    cluster.nodes[0]!.jobs.submit(
      "ann",
      spec({ seeds: hosts.map((host) => `http://${host}/`), scope: { maxPages: 37 } }),
    ),
  );
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.equal((await allResults(job.id)).length, 37);
  t.equal(end.stats.results, 37);
  t.equal(end.stats.done + end.stats.failed + end.stats.skipped, end.stats.discovered);
});

test("requests to a host start no closer than its delay", async (t) => {
  const { site, cluster, wait, finish } = world({ nodes: 1 });
  tree(site, "a.test", 12);
  site.robots.set("http://a.test", { status: 200, text: "User-agent: *\nDisallow: /3" });

  const job = await wait(
    cluster.nodes[0]!.jobs.submit(
      "ann",
      spec({ seeds: ["http://a.test/"], politeness: { delayMs: 500, robots: true, concurrencyPerHost: 2 } }),
    ),
  );
  const end = await finish(job.id);

  const starts = site.requestsOf("a.test").map((request) => request.atMs);
  const gaps = starts.slice(1).map((at, n) => at - starts[n]!);
  t.ok(Math.min(...gaps) >= 500, `least gap ${Math.min(...gaps)}`);
  t.ok(Math.max(...gaps) < 650, `no time is wasted: greatest gap ${Math.max(...gaps)}`);
  t.equal(end.stats.results, 11);
  t.equal(end.stats.skipped, 1);
  t.equal(site.requests[0]!.url, "http://a.test/robots.txt");
  t.equal(site.requests.length, 12);
});

test("failures are listed, retries are bounded, redirects give one result", async (t) => {
  const { site, cluster, wait, finish, allResults } = world({ nodes: 2 });
  site.page("http://a.test/", {
    links: ["/gone", "/flaky", "/down", "/old", "/older", "/target", "http://b.test/x"],
  });
  site.page("http://a.test/gone", { status: 410 });
  site.page("http://a.test/flaky", { status: 500, failures: 2 });
  site.page("http://a.test/down", { status: 500 });
  site.page("http://a.test/old", { location: "/target" });
  site.page("http://a.test/older", { location: "/old" });
  site.page("http://a.test/target");

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.same((await allResults(job.id)).map((result) => result.url).sort(), [
    "http://a.test/",
    "http://a.test/flaky",
    "http://a.test/target",
  ]);
  const failures = await wait(cluster.nodes[1]!.jobs.failures(job.id, { limit: 10 }));
  t.same(failures.items.map(({ url, status, attempts }) => [url, status, attempts]).sort(), [
    ["http://a.test/down", 500, 4],
    ["http://a.test/gone", 410, 1],
  ]);
  t.equal(failures.nextCursor, null);
  t.equal(end.stats.skipped, 2);
});

test("where a seed redirects to another host, that host belongs to the job", async (t) => {
  const { site, cluster, wait, finish, allResults } = world({ nodes: 2 });
  site.page("http://a.test/", { location: "http://www.a.test/" });
  tree(site, "www.a.test", 8);

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.equal((await allResults(job.id)).length, 8);
});

test("a host that says Retry-After is left alone for that long, and the crawl ends complete", async (t) => {
  const { site, cluster, wait, finish } = world({ nodes: 2 });
  tree(site, "a.test", 10);
  site.page("http://a.test/5", { status: 429, retryAfterMs: 5_000, failures: 1 });

  const job = await wait(
    cluster.nodes[0]!.jobs.submit(
      "ann",
      spec({ seeds: ["http://a.test/"], politeness: { concurrencyPerHost: 1 } }),
    ),
  );
  const end = await finish(job.id);

  t.equal(end.stats.results, 10);
  const at = site.requests.findIndex((request) => request.url === "http://a.test/5");
  const gap = site.requests[at + 1]!.atMs - site.requests[at]!.atMs;
  t.ok(gap >= 5_000, `the next request came after ${gap} ms`);
});

test("a page that kills its scraper is given up after two deaths alone", async (t) => {
  const { site, cluster, wait, finish } = world({ nodes: 1 });
  site.page("http://a.test/", { links: ["/bomb", "/fine"] });
  site.page("http://a.test/bomb", { kills: true });
  site.page("http://a.test/fine");

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  const end = await finish(job.id);

  t.equal(end.stats.results, 2);
  const { items } = await wait(cluster.nodes[0]!.jobs.failures(job.id, { limit: 10 }));
  t.same(
    items.map(({ url, reason }) => [url, reason]),
    [["http://a.test/bomb", "killed its scraper"]],
  );
});

test("a job without any result is failed and says why", async (t) => {
  const { cluster, wait, finish } = world({ nodes: 1 });

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://nowhere.test/"] })));
  const end = await finish(job.id);

  t.equal(end.status, "failed");
  t.match(end.error, /no page gave a result/);
});

test("nothing starts later than a second after a pause; resume finishes the crawl", async (t) => {
  const { site, cluster, wait, finish, time, allResults } = world({ nodes: 3 });
  site.latencyMs = () => 40;
  tree(site, "a.test", 200);
  const { jobs } = cluster.nodes[0]!;
  const job = await wait(jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  await time.run(() => site.requests.length > 50, 60_000);

  const paused = await wait(jobs.setStatus(job.id, "paused"));
  const pausedAtMs = time.nowMs;
  await time.run(() => false, time.nowMs + 10_000);

  t.equal(paused.status, "paused");
  t.ok(site.requests.at(-1)!.atMs < pausedAtMs + 1_000);
  const before = site.requests.length;
  t.ok(before < 200);
  await wait(jobs.setStatus(job.id, "running"));
  const end = await finish(job.id);
  t.equal(end.status, "completed");
  t.equal((await allResults(job.id)).length, 200);
  t.equal(site.requests.length, 200);
});

test("a cancelled job stops, counts up, and can't be resumed", async (t) => {
  const { site, cluster, wait, finish, time } = world({ nodes: 3 });
  site.latencyMs = () => 40;
  tree(site, "a.test", 200);
  const { jobs } = cluster.nodes[0]!;
  const job = await wait(jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  await time.run(() => site.requests.length > 50, 60_000);

  await wait(jobs.setStatus(job.id, "cancelled"));
  const end = await finish(job.id);

  t.equal(end.status, "cancelled");
  t.equal(end.stats.discovered, end.stats.done + end.stats.failed + end.stats.skipped);
  const page = await wait(jobs.results(job.id, { limit: 1_000 }));
  t.equal(page.items.length, end.stats.results);
  t.equal(page.nextCursor, null);
  await t.rejects(wait(jobs.setStatus(job.id, "running")), { code: "WRONG_STATE" });
});

test("a deleted job is gone at once and leaves no entry behind", async (t) => {
  const { site, cluster, wait, time } = world({ nodes: 3 });
  site.latencyMs = () => 40;
  tree(site, "a.test", 100);
  tree(site, "b.test", 100);
  const { jobs } = cluster.nodes[0]!;
  const job = await wait(jobs.submit("ann", spec({ seeds: ["http://a.test/", "http://b.test/"] })));
  await time.run(() => site.requests.length > 50, 60_000);

  await wait(jobs.remove(job.id));

  await t.rejects(wait(jobs.get(job.id)), { code: "NOT_FOUND" });
  await time.run(() => false, time.nowMs + 10_000);
  const prefixes = [
    ...cluster.layout.ofJob(job.id),
    cluster.layout.job(job.id),
    cluster.layout.participants(job.id),
  ];
  t.same(
    prefixes.flatMap((prefix) => cluster.entries(prefix)),
    [],
  );
  t.same((await wait(jobs.list({ owner: "ann", limit: 10 }))).items, []);
});

test("jobs are listed newest first, page by page, and only the owner's", async (t) => {
  const { site, cluster, wait, finish, time } = world({ nodes: 2 });
  site.page("http://a.test/");
  const { jobs } = cluster.nodes[0]!;
  const ids: string[] = [];
  for (let n = 0; n < 5; n++) {
    ids.unshift((await wait(jobs.submit("ann", spec({ seeds: ["http://a.test/"], name: `job ${n}` })))).id);
    await time.run(() => false, time.nowMs + 5);
  }
  await wait(jobs.submit("bob", spec({ seeds: ["http://a.test/"] })));
  for (const id of ids) await finish(id);

  const first = await wait(jobs.list({ owner: "ann", limit: 3 }));
  const second = await wait(jobs.list({ owner: "ann", limit: 3, cursor: first.nextCursor! }));

  t.same(
    [...first.items, ...second.items].map((job) => job.id),
    ids,
  );
  t.equal(second.nextCursor, null);
  t.same((await wait(jobs.list({ owner: "ann", limit: 3, status: "running" }))).items, []);
});

test("a key makes submissions repeatable; another body under it is refused", async (t) => {
  const { site, cluster, wait } = world({ nodes: 2 });
  site.page("http://a.test/");
  const body = spec({ seeds: ["http://a.test/"] });

  const first = await wait(cluster.nodes[0]!.jobs.submit("ann", body, "key 1"));
  const again = await wait(cluster.nodes[1]!.jobs.submit("ann", body, "key 1"));
  const other = await wait(cluster.nodes[1]!.jobs.submit("bob", body, "key 1"));

  t.equal(again.id, first.id);
  t.not(other.id, first.id);
  await t.rejects(wait(cluster.nodes[0]!.jobs.submit("ann", { ...body, priority: 1 }, "key 1")), {
    code: "INVALID_INPUT",
  });
});

test("events tell every page once, also when resumed elsewhere, and end with the final status", async (t) => {
  const { site, cluster, wait } = world({ nodes: 3 });
  site.latencyMs = () => 30;
  const urls = tree(site, "a.test", 80);
  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));

  const seen: string[] = [];
  let lastEventId: string | undefined;
  const first = (async () => {
    const controller = new AbortController();
    const stream = cluster.nodes[1]!.jobs.events(job.id, { pages: true, signal: controller.signal });
    for await (const event of stream) {
      if (event.kind !== "page") continue;
      seen.push(event.result.url);
      lastEventId = event.id;
      if (seen.length === 20) break;
    }
  })();
  await wait(first);
  const kinds: string[] = [];
  const second = (async () => {
    const stream = cluster.nodes[2]!.jobs.events(job.id, {
      pages: true,
      lastEventId: lastEventId!,
      signal: new AbortController().signal,
    });
    for await (const event of stream) {
      kinds.push(event.kind === "status" ? event.status : event.kind);
      if (event.kind === "page") seen.push(event.result.url);
    }
  })();
  await wait(second);

  t.same([...seen].sort(), [...urls].sort());
  t.equal(kinds[0], "running");
  t.equal(kinds.at(-1), "completed");
  t.ok(kinds.includes("progress"));
});

test("a job with more seeds than fit into its record crawls them all", async (t) => {
  const { site, cluster, wait, finish } = world({ nodes: 2, partitions: 64 });
  const seeds = Array.from({ length: 1_500 }, (_, n) => `http://s${n % 300}.test/${n}`);
  for (const seed of seeds) site.page(seed);

  const job = await wait(cluster.nodes[0]!.jobs.submit("ann", spec({ seeds, scope: { maxPages: 10_000 } })));
  const end = await finish(job.id, 600_000);

  t.equal(end.stats.results, 1_500);
  t.same(end.spec.seeds, seeds);
});

test("a busy owner hands pages to the others, and the pace holds", async (t) => {
  const { site, cluster, wait, finish } = world({ nodes: 5, perThread: 4 });
  site.latencyMs = () => 100;
  tree(site, "a.test", 400, 20);

  const job = await wait(
    cluster.nodes[0]!.jobs.submit(
      "ann",
      spec({ seeds: ["http://a.test/"], politeness: { concurrencyPerHost: 32 } }),
    ),
  );
  const end = await finish(job.id);

  t.equal(end.stats.results, 400);
  const shares = Object.values(end.stats.servers).filter((pages) => pages >= 20);
  t.equal(shares.length, 5, `pages by server: ${JSON.stringify(end.stats.servers)}`);
});

test("all servers lose power; when they are back, the crawl goes on by itself", async (t) => {
  const { site, cluster, wait, finish, time, allResults } = world({ nodes: 3 });
  site.latencyMs = () => 40;
  const urls = [...tree(site, "a.test", 80), ...tree(site, "b.test", 80)];
  const job = await wait(
    cluster.nodes[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/", "http://b.test/"] })),
  );
  await time.run(() => site.requests.length > 60, 60_000);

  for (const node of [...cluster.alive]) cluster.crash(node, () => 1e9);
  await time.run(() => false, time.nowMs + 5_000);
  const back = [7, 8, 9].map((n) => cluster.addNode(n));
  for (const partition of cluster.partitions.keys()) cluster.lead(partition, back[partition % 3]!);
  const end = await finish(job.id);

  t.equal(end.status, "completed");
  t.same((await allResults(job.id)).map((result) => result.url).sort(), [...urls].sort());
  const repeated = site.requests.length - 160;
  t.ok(repeated <= 8, `${repeated} requests were repeated: only those under way`);
});

test("a deletion that began goes on although servers die, and a cancelled job stays cancelled", async (t) => {
  const { site, cluster, wait, finish, time } = world({ nodes: 4 });
  site.latencyMs = () => 40;
  for (const host of ["a.test", "b.test", "c.test"]) tree(site, host, 60);
  const seeds = ["http://a.test/", "http://b.test/", "http://c.test/"];
  const gone = await wait(cluster.nodes[3]!.jobs.submit("ann", spec({ seeds })));
  const cancelled = await wait(cluster.nodes[3]!.jobs.submit("ann", spec({ seeds })));
  await time.run(() => site.requests.length > 100, 60_000);

  await wait(cluster.nodes[3]!.jobs.remove(gone.id));
  await wait(cluster.nodes[3]!.jobs.setStatus(cancelled.id, "cancelled"));
  cluster.crash(cluster.nodes[0]!, () => 400);
  cluster.crash(cluster.nodes[1]!, () => 700);
  const end = await finish(cancelled.id);
  await time.run(() => false, time.nowMs + 20_000);

  t.equal(end.status, "cancelled");
  t.equal(
    end.stats.results,
    (await wait(cluster.alive[0]!.jobs.results(cancelled.id, { limit: 1_000 }))).items.length,
  );
  await t.rejects(wait(cluster.alive[0]!.jobs.get(gone.id)), { code: "NOT_FOUND" });
  const prefixes = [
    ...cluster.layout.ofJob(gone.id),
    cluster.layout.job(gone.id),
    cluster.layout.participants(gone.id),
  ];
  t.same(prefixes.flatMap((prefix) => cluster.entries(prefix)).length, 0);
  const before = site.requests.length;
  await time.run(() => false, time.nowMs + 5_000);
  t.equal(site.requests.length, before);
});

test("a host's pace and its Retry-After outlive the server that kept them", async (t) => {
  const { site, cluster, wait, finish, time } = world({ nodes: 3 });
  tree(site, "a.test", 12);
  site.page("http://a.test/5", { status: 503, retryAfterMs: 8_000, failures: 1 });
  const job = await wait(
    cluster.nodes[0]!.jobs.submit(
      "ann",
      spec({ seeds: ["http://a.test/"], politeness: { delayMs: 300, concurrencyPerHost: 2 } }),
    ),
  );
  await time.run(() => site.requests.some((request) => request.url === "http://a.test/5"), 60_000);
  await time.run(() => false, time.nowMs + 200);
  const leader = cluster.partitions[cluster.layout.hostPartition("a.test")]!.leader;

  cluster.crash(cluster.nodes.find((node) => node.member.nodeId === leader)!, () => 300);
  const end = await finish(job.id);

  t.equal(end.stats.results, 12);
  const starts = site.requestsOf("a.test");
  const gaps = starts.slice(1).map(({ atMs }, n) => atMs - starts[n]!.atMs);
  t.ok(Math.min(...gaps) >= 300);
  const refused = starts.findIndex(({ url }) => url === "http://a.test/5");
  t.ok(gaps[refused]! >= 8_000 || gaps[refused + 1]! >= 7_000, `gaps ${gaps.join(" ")}`);
});

test("contents over 64 KiB are blobs, read back whole, and go with their job", async (t) => {
  const { site, cluster, time, wait, finish, allResults } = world({ nodes: 2 });
  const kept = new Map<string, Uint8Array>();
  cluster.blobs = {
    put: async (jobId, bytes) => {
      const sha256 = hash("sha256", bytes, "hex");
      kept.set(`${jobId}/${sha256}`, bytes);
      return sha256;
    },
    get: async (jobId, sha256) => kept.get(`${jobId}/${sha256}`)!,
    drop: async (jobId) => {
      for (const name of kept.keys()) if (name.startsWith(jobId)) kept.delete(name);
    },
  };
  for (const n of [0, 1]) {
    cluster.crash(cluster.nodes[n]!, () => 1e9);
    cluster.addNode(20 + n);
  }
  for (const partition of cluster.partitions.keys()) {
    cluster.lead(partition, cluster.alive[partition % 2]!);
  }
  site.page("http://a.test/", { links: ["/small"], text: "x".repeat(100_000) });
  site.page("http://a.test/small", { text: "y" });

  const job = await wait(cluster.alive[0]!.jobs.submit("ann", spec({ seeds: ["http://a.test/"] })));
  await finish(job.id);

  const texts = (await allResults(job.id)).map((result) => result.text?.length);
  t.same(texts.sort(), [1, 100_000]);
  t.equal(kept.size, 1);

  await wait(cluster.alive[0]!.jobs.remove(job.id));
  await time.run(() => kept.size === 0, 60_000);
  t.equal(kept.size, 0);
});
