/** Sitemaps of a crawl, through the real drivers in virtual time. */
import { test } from "tap";
import { CrawlWorld } from "./crawl-world.ts";

const A = "http://a.test";

/** A site that lists its pages: robots.txt names an index, which names two files; some files are nowhere named. */
function listedSite(world: CrawlWorld): void {
  const { site } = world;
  site.robots.set(A, {
    status: 200,
    text: "User-agent: *\nDisallow: /private\nSitemap: /index.xml\nSitemap: http://files.other.test/far.xml\nSitemap: mailto:x\n",
  });
  site.page(`${A}/`, { links: ["/linked"] });
  site.page(`${A}/index.xml`, { lists: { sitemaps: ["/1.xml", "/2.xml", "http://evil.test/x.xml"] } });
  site.page(`${A}/1.xml`, { lists: { pages: [`${A}/`, `${A}/listed/1`, "http://elsewhere.test/"] } });
  site.page(`${A}/2.xml`, { location: "/two.xml" });
  site.page(`${A}/two.xml`, { lists: { pages: [`${A}/listed/2`, `${A}/private/3`, `${A}/gone`] } });
  site.page("http://files.other.test/far.xml", { lists: { pages: [`${A}/listed/4`] } });
  for (const path of ["/linked", "/listed/1", "/listed/2", "/listed/4", "/below"]) site.page(A + path);
  site.page(`${A}/listed/1`, { links: ["/below"] });
}

test("URLs that sitemaps list are pages of depth 1; the files count as skipped", async (t) => {
  const world = new CrawlWorld(3, 64);
  listedSite(world);

  const job = await world.submit({
    seeds: [`${A}/`],
    scope: { sitemaps: true },
    politeness: { robots: true, concurrencyPerHost: 1 },
  });
  const end = await world.finish(job.id);

  t.equal(end.status, "completed");
  const results = await world.results(job.id);
  t.same(
    results.map(({ url, depth, parent }) => [url, depth, parent]).sort(),
    [
      [`${A}/`, 0, null],
      [`${A}/below`, 2, `${A}/listed/1`],
      [`${A}/linked`, 1, `${A}/`],
      [`${A}/listed/1`, 1, `${A}/1.xml`],
      [`${A}/listed/2`, 1, `${A}/two.xml`],
      [`${A}/listed/4`, 1, "http://files.other.test/far.xml"],
    ].sort(),
  );
  // robots.txt, /sitemap.xml (which is missing), index, 1, 2 (a redirect), two, far; /private/3.
  t.match(end.stats, { discovered: 15, done: 6, failed: 1, skipped: 8, pending: 0 });
  const asked = world.site.requests.map(({ url }) => url);
  t.equal(new Set(asked).size, asked.length, `each is asked for once: ${asked.join(" ")}`);
  t.equal(asked.filter((url) => url.endsWith("/robots.txt")).length, 2, "one for each origin");
  t.notOk(
    asked.some((url) => url.includes("evil.test")),
    "an index speaks for its own site only",
  );
  const failures = await world.wait(world.cluster.alive[0]!.jobs.failures(job.id, { limit: 10 }));
  t.same(
    failures.items.map(({ url }) => url),
    [`${A}/gone`],
    "a sitemap that can't be had is no failure of a page",
  );
});

test("without the setting nobody asks for a sitemap; without depth neither", async (t) => {
  for (const scope of [{}, { sitemaps: true, maxDepth: 0 }]) {
    const world = new CrawlWorld(1);
    listedSite(world);
    const job = await world.submit({ seeds: [`${A}/`], scope, politeness: { robots: true } });
    await world.finish(job.id);
    t.notOk(world.site.requests.some(({ url }) => url.endsWith(".xml")));
  }
});

test("a job that does not obey robots.txt reads it for its sitemaps, and does not wait for it in vain", async (t) => {
  for (const status of [200, 500]) {
    const world = new CrawlWorld(1);
    listedSite(world);
    world.site.robots.set(A, { status, text: "User-agent: *\nDisallow: /\nSitemap: /1.xml" });
    world.site.page(`${A}/sitemap.xml`, { lists: { pages: [`${A}/listed/2`] } });

    const job = await world.submit({ seeds: [`${A}/`], scope: { sitemaps: true } });
    const end = await world.finish(job.id);

    t.equal(end.status, "completed");
    t.equal(end.stats.results, status === 200 ? 5 : 3);
    t.ok(world.time.nowMs < 30_000, `it took ${world.time.nowMs} ms`);
  }
});

test("the pace of a host holds for its sitemaps too", async (t) => {
  const world = new CrawlWorld(2);
  listedSite(world);
  const job = await world.submit({
    seeds: [`${A}/`],
    scope: { sitemaps: true },
    politeness: { robots: true, delayMs: 400, concurrencyPerHost: 2 },
  });
  const end = await world.finish(job.id);

  t.equal(end.stats.results, 6);
  const starts = world.site.requestsOf("a.test").map(({ atMs }) => atMs);
  const gaps = starts.slice(1).map((at, n) => at - starts[n]!);
  t.ok(Math.min(...gaps) >= 400, `gaps ${gaps.join(" ")}`);
});

test("where a seed redirects to another host, that one's sitemaps are read", async (t) => {
  const world = new CrawlWorld(2);
  world.site.page("http://b.test/", { location: `${A}/` });
  listedSite(world);
  world.site.page(`${A}/sitemap.xml`, { lists: { pages: [`${A}/listed/1`] } });
  const job = await world.submit({ seeds: ["http://b.test/"], scope: { sitemaps: true } });
  const end = await world.finish(job.id);
  t.equal(end.stats.results, 6);
});

test("indexes within indexes have an end, circles too", async (t) => {
  const world = new CrawlWorld(1);
  world.site.page(`${A}/`);
  world.site.made = (url) => {
    const n = /\/deep\/(\d+)\.xml$/.exec(url)?.[1];
    if (n === undefined) return url === `${A}/page` ? {} : undefined;
    return {
      lists: { sitemaps: [`${A}/deep/${Number(n) + 1}.xml`, `${A}/sitemap.xml`], pages: [`${A}/page`] },
    };
  };
  world.site.page(`${A}/sitemap.xml`, { lists: { sitemaps: [`${A}/deep/1.xml`, `${A}/sitemap.xml`] } });

  const job = await world.submit({ seeds: [`${A}/`], scope: { sitemaps: true } });
  const end = await world.finish(job.id);

  t.equal(end.stats.results, 2);
  const files = world.site.requests.filter(({ url }) => url.endsWith(".xml")).map(({ url }) => url);
  t.same(files, [`${A}/sitemap.xml`, `${A}/deep/1.xml`, `${A}/deep/2.xml`]);
});

test("maxPages counts results alone, and a job of one page has its page", async (t) => {
  for (const maxPages of [1, 3]) {
    const world = new CrawlWorld(3, 64);
    listedSite(world);
    const job = await world.submit({
      seeds: [`${A}/`],
      scope: { sitemaps: true, maxPages },
      politeness: { robots: true },
    });
    const end = await world.finish(job.id);
    t.equal(end.status, "completed");
    t.equal(end.stats.results, maxPages);
  }
});

test("servers die while sitemaps are read: every page that is listed has its result, once", async (t) => {
  let ends = 0;
  for (let at = 1; at <= 24; at++) {
    const world = new CrawlWorld(4, 64);
    world.site.latencyMs = () => 20;
    listedSite(world);
    const pages = Array.from({ length: 60 }, (_, n) => `${A}/many/${n}`);
    for (const url of pages) world.site.page(url);
    world.site.page(`${A}/two.xml`, { lists: { pages } });

    const job = await world.submit({
      seeds: [`${A}/`],
      scope: { sitemaps: true },
      politeness: { robots: true, concurrencyPerHost: 2 },
    });
    await world.time.run(() => false, world.time.nowMs + at * 7);
    world.crashLeaderOf("a.test");
    if (at % 2 === 0) {
      await world.time.run(() => false, world.time.nowMs + 150);
      const { leader } = world.cluster.partitions[world.cluster.layout.jobPartition(job.id)]!;
      const node = world.cluster.alive.find((other) => other.member.nodeId === leader);
      if (node !== undefined && world.cluster.alive.length > 2) world.cluster.crash(node, () => 300);
    }
    const end = await world.finish(job.id);

    const urls = (await world.results(job.id)).map(({ url }) => url);
    t.equal(end.status, "completed");
    t.equal(urls.length, 65, `killed after ${at * 7} ms`);
    t.equal(new Set(urls).size, 65);
    t.equal(end.stats.discovered, end.stats.done + end.stats.failed + end.stats.skipped);
    ends++;
  }
  t.equal(ends, 24);
});
