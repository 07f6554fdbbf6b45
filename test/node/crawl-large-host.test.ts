/** A host with more pages than its partition takes: what lies elsewhere is crawled like the rest, at one pace. */
import { test } from "tap";
import { HOST_PARTS, SPREAD_ABOVE } from "../../src/frontier/host-spread.ts";
import { pageSchema } from "../../src/frontier/page.ts";
import { NAMESPACE } from "../../src/node/key-layout.ts";
import { decodeRecord } from "../../src/node/record.ts";
import { CrawlWorld } from "./crawl-world.ts";

const HOST = "large.test";
const PAGES = 300;
const PARTITIONS = 64;
const ABOVE = 60;

/** Each page links to some further on; the last ones are found late. */
function largeSite(nodes: number): CrawlWorld {
  const world = new CrawlWorld(nodes, PARTITIONS, ABOVE);
  for (let n = 0; n < PAGES; n++) {
    const links = [2 * n + 1, 2 * n + 2, n + 7].filter((to) => to < PAGES).map((to) => urlOf(to));
    world.site.page(urlOf(n), { links });
  }
  return world;
}

const urlOf = (n: number) => `http://${HOST}/${n === 0 ? "" : `page-${n}`}`;
const crawlOf = (more: object = {}) => ({
  seeds: [urlOf(0)],
  scope: { hosts: [HOST], maxDepth: 1_000, maxPages: 10_000, ...more },
});

/** How many pages each partition holds. */
function pagesByPartition(world: CrawlWorld): Map<number, number> {
  const held = new Map<number, number>();
  for (const { partition, entry } of world.cluster.entries(String.fromCharCode(NAMESPACE.page))) {
    decodeRecord(pageSchema, entry.value);
    held.set(partition, (held.get(partition) ?? 0) + 1);
  }
  return held;
}

test("a host is spread above 100,000 pages of a job, over 16 parts", (t) => {
  t.equal(SPREAD_ABOVE, 100_000);
  t.equal(HOST_PARTS, 16);
  t.end();
});

test("pages above the threshold lie in the host's parts, by key, and each gives one result", async (t) => {
  const world = largeSite(3);
  const { layout } = world.cluster;
  const job = await world.submit(crawlOf());
  const { status, stats } = await world.finish(job.id);

  t.equal(status, "completed");
  t.match(stats, { discovered: PAGES, done: PAGES, failed: 0, skipped: 0, pending: 0, results: PAGES });
  const results = await world.results(job.id);
  t.equal(new Set(results.map(({ url }) => url)).size, PAGES);
  t.equal(world.site.requestsOf(HOST).length, PAGES, "each was asked for once");

  const held = pagesByPartition(world);
  const main = layout.hostPartition(HOST);
  const inMain = held.get(main)!;
  t.ok(inMain >= ABOVE && inMain <= ABOVE + 30, `${inMain} pages in the main partition`);
  const parts = new Set(layout.hostParts(HOST));
  t.ok([...held.keys()].every((partition) => partition === main || parts.has(partition)));
  t.ok(held.size >= 10, `${held.size} partitions hold pages`);
});

test("the host's pace holds, whoever stores its pages, and whoever of them dies", async (t) => {
  const world = largeSite(5);
  const { cluster, time, site } = world;
  const job = await world.submit({ ...crawlOf(), politeness: { delayMs: 40, concurrencyPerHost: 2 } });
  const victims = [
    () => world.crashLeaderOf(HOST),
    () => {
      // Whoever leads the part with the most pages.
      const main = cluster.layout.hostPartition(HOST);
      const [part] = [...pagesByPartition(world)]
        .filter(([partition]) => partition !== main)
        .sort((a, b) => b[1] - a[1])[0]!;
      const node = cluster.alive.find(({ member }) => member.nodeId === cluster.partitions[part]!.leader);
      if (node !== undefined) cluster.crash(node, () => 300);
    },
  ];
  await time.run(() => site.requests.length >= 120, time.nowMs + 60_000);
  victims[0]!();
  await time.run(() => site.requests.length >= 180, time.nowMs + 60_000);
  victims[1]!();
  const { status, stats } = await world.finish(job.id);

  t.equal(status, "completed");
  t.match(stats, { discovered: PAGES, done: PAGES, pending: 0, results: PAGES });
  const starts = site.requestsOf(HOST).map(({ atMs }) => atMs);
  const gaps = starts.slice(1).map((atMs, n) => atMs - starts[n]!);
  t.ok(Math.min(...gaps) >= 40, `${Math.min(...gaps)} ms between two requests`);
  t.ok(starts.length <= PAGES + 20, `${starts.length} requests`);
});

test("maxPages is exact, also where most pages lie in parts", async (t) => {
  for (const maxPages of [61, 150, 299]) {
    const world = largeSite(3);
    const job = await world.submit(crawlOf({ maxPages }));
    const { status, stats } = await world.finish(job.id);

    t.equal(status, "completed");
    t.match(stats, { results: maxPages, pending: 0 }, `${maxPages}`);
    t.equal((await world.results(job.id)).length, maxPages);
    t.equal(stats.discovered, stats.done + stats.failed + stats.skipped);
  }
});

test("robots.txt holds for pages in parts", async (t) => {
  const world = largeSite(3);
  world.site.robots.set(`http://${HOST}`, { status: 200, text: "User-agent: *\nDisallow: /*page-29" });
  const job = await world.submit({ ...crawlOf(), politeness: { robots: true } });
  const { stats } = await world.finish(job.id);

  // page-29 and page-290 to page-299.
  t.match(stats, { discovered: PAGES, skipped: 11, done: PAGES - 11 });
  t.notOk(world.site.requestsOf(HOST).some(({ url }) => url.includes("page-29")));
});

test("of a host that falls silent the pages in parts fail too, after ten minutes and few requests", async (t) => {
  const world = largeSite(3);
  const { time, site } = world;
  const job = await world.submit(crawlOf());
  await time.run(() => site.requests.length >= 150, time.nowMs + 60_000);
  site.silent.add(HOST);
  const asked = site.requests.length;
  await time.run(() => false, time.nowMs + 12 * 60_000);
  const { status, stats } = await world.finish(job.id);

  t.equal(status, "completed");
  t.equal(stats.pending, 0);
  t.equal(stats.discovered, stats.done + stats.failed);
  t.ok(stats.failed > 30, `${stats.failed} failed`);
  t.ok(site.requests.length - asked < 60, `${site.requests.length - asked} requests to a silent host`);
  const failures = await world.wait(world.cluster.alive[0]!.jobs.failures(job.id, { limit: 500 }));
  t.ok(failures.items.every(({ reason }) => ["reset", "host-unreachable"].includes(reason)));
});

test("pause, resume and deletion reach the parts", async (t) => {
  const world = largeSite(3);
  const { cluster, time, site } = world;
  const job = await world.submit({ ...crawlOf(), politeness: { delayMs: 20 } });
  await time.run(() => site.requests.length >= 120, time.nowMs + 60_000);
  await world.wait(cluster.alive[0]!.jobs.setStatus(job.id, "paused"));
  await time.run(() => false, time.nowMs + 1_000);
  const asked = site.requests.length;
  await time.run(() => false, time.nowMs + 5_000);
  t.equal(site.requests.length, asked, "nothing starts while it is paused");
  await world.wait(cluster.alive[0]!.jobs.setStatus(job.id, "running"));
  t.match((await world.finish(job.id)).stats, { results: PAGES, pending: 0 });

  await world.wait(cluster.alive[0]!.jobs.remove(job.id));
  const left = () => cluster.layout.ofJob(job.id).flatMap((prefix) => cluster.entries(prefix));
  await time.run(() => left().length === 0, time.nowMs + 60_000);
  t.equal(left().length, 0);
});
