/** Duplicates, traps and limits of a crawl, through the real drivers in virtual time. */
import { hash } from "node:crypto";
import { test } from "tap";
import type { Job } from "../../src/job/job-spec.ts";
import { CrawlWorld } from "./crawl-world.ts";

const A = "http://a.test";
/** Of a text that pages have in common. */
const SAME = "aa".padStart(64, "0");

/** Conservation, in whatever answer. */
function isConserved({ stats }: Job): boolean {
  return stats.discovered === stats.done + stats.failed + stats.skipped + stats.pending;
}

/** A calendar without end: each month leads to the next and the last one, and says nothing. */
function calendar(world: CrawlWorld, simhash = (_n: number) => SAME): void {
  world.site.made = (url) => {
    const n = Number(/\/calendar\/(\d+)$/.exec(url)?.[1] ?? Number.NaN);
    if (Number.isNaN(n)) return undefined;
    return { links: ["/", `/calendar/${n - 1}`, `/calendar/${n + 1}`], simhash: simhash(n) };
  };
}

test("pages that repeat another of their host are marked, also after a takeover", async (t) => {
  const world = new CrawlWorld(3);
  const { site } = world;
  site.latencyMs = () => 20;
  const order = Array.from({ length: 60 }, (_, n) => `/p/${n}`);
  site.page(`${A}/`, { links: ["/one", ...order, "/same", "/near", "/far"] });
  site.page(`${A}/one`, { body: "the same bytes", simhash: "0".repeat(64) });
  site.page(`${A}/same`, { body: "the same bytes", simhash: "0".repeat(64) });
  site.page(`${A}/near`, { simhash: "1".padStart(64, "0") });
  site.page(`${A}/far`, { simhash: "f".repeat(64) });
  for (const path of order) site.page(A + path);

  const job = await world.submit({ seeds: [`${A}/`] });
  await world.time.run(() => site.requests.length > 30, 60_000);
  world.crashLeaderOf("a.test");
  await world.finish(job.id);

  const results = await world.results(job.id);
  const first = results.find(({ url }) => url === `${A}/one`)!;
  t.equal(results.length, 65);
  t.same(
    results
      .filter((result) => result.duplicateOf !== undefined || result.nearDuplicateOf !== undefined)
      .map(({ url, duplicateOf, nearDuplicateOf }) => ({ url, duplicateOf, nearDuplicateOf }))
      .sort((a, b) => (a.url < b.url ? -1 : 1)),
    [
      { url: `${A}/near`, duplicateOf: undefined, nearDuplicateOf: first.key },
      { url: `${A}/same`, duplicateOf: first.key, nearDuplicateOf: undefined },
    ],
  );
});

test("links of pages that repeat another are followed, unless the job says not", async (t) => {
  for (const stopNearDuplicates of [false, true]) {
    const world = new CrawlWorld(2);
    world.site.page(`${A}/`, { links: ["/1", "/2", "/3"] });
    world.site.page(`${A}/1`, { links: ["/below/1"], body: "x" });
    world.site.page(`${A}/2`, { links: ["/below/2", "http://b.test/"], body: "x" });
    world.site.page(`${A}/3`, { links: ["/below/3"], body: "x" });
    for (const n of [1, 2, 3]) world.site.page(`${A}/below/${n}`);
    world.site.page("http://b.test/");

    const job = await world.submit({ seeds: [`${A}/`], scope: { stopNearDuplicates, hosts: "any" } });
    const end = await world.finish(job.id);

    t.equal(end.stats.results, stopNearDuplicates ? 5 : 8);
    t.equal(end.stats.discovered, stopNearDuplicates ? 5 : 8, "what is not followed is not discovered");
  }
});

test("a page that names another as its canonical form makes room for it, when the job wants that", async (t) => {
  for (const canonicalLinks of [false, true]) {
    const world = new CrawlWorld(2);
    const { site } = world;
    site.page(`${A}/`, { links: ["/p?ref=1", "/p?ref=2", "/only?x=1", "/self", "http://b.test/q?x"] });
    for (const n of [1, 2]) site.page(`${A}/p?ref=${n}`, { canonical: "/p", links: ["/lost"] });
    site.page(`${A}/p`, { canonical: "/p", links: ["/below"] });
    site.page(`${A}/only?x=1`, { canonical: "/only" });
    site.page(`${A}/only`);
    site.page(`${A}/self`, { canonical: "/self" });
    site.page("http://b.test/q?x", { canonical: "http://a.b.test/q" });
    for (const path of ["/below", "/lost"]) site.page(A + path);
    site.page("http://a.b.test/q");

    const scope = { canonicalLinks, hosts: ["a.test", "b.test", "*.b.test"], maxDepth: 2 };
    const job = await world.submit({ seeds: [`${A}/`], scope });
    const end = await world.finish(job.id);

    t.ok(isConserved(end));
    const results = await world.results(job.id);
    t.same(
      results.map(({ url, depth }) => `${depth} ${url}`).sort(),
      canonicalLinks
        ? [`0 ${A}/`, "1 http://a.b.test/q", `1 ${A}/only`, `1 ${A}/p`, `1 ${A}/self`, `2 ${A}/below`]
        : [
            `0 ${A}/`,
            `1 ${A}/only?x=1`,
            `1 ${A}/p?ref=1`,
            `1 ${A}/p?ref=2`,
            `1 ${A}/self`,
            "1 http://b.test/q?x",
            `2 ${A}/lost`,
          ],
    );
    t.equal(end.stats.skipped, canonicalLinks ? 4 : 0);
    const asked = world.site.requests.map(({ url }) => url);
    t.equal(new Set(asked).size, asked.length, "each page is asked for once");
  }
});

test("of pages that name each other in a circle at least one stays, in whatever order they come", async (t) => {
  for (let order = 0; order < 24; order++) {
    const world = new CrawlWorld(3, 64);
    const { site } = world;
    let n = order;
    site.latencyMs = () => 5 + ((n = (n * 7 + 3) % 31) % 20);
    // One circle within a host, one over four hosts of one site.
    const own = ["1", "2", "3"].map((name) => `${A}/${name}`);
    const far = ["w", "x", "y", "z"].map((name) => `http://${name}.c.test/`);
    for (const circle of [own, far]) {
      for (const [at, url] of circle.entries())
        site.page(url, { canonical: circle[(at + 1) % circle.length]!, links: [`${url}-below`] });
      for (const url of circle) site.page(`${url}-below`);
    }
    const links = [...own, ...far].sort((a, b) => (`${a}${order}` < `${b}${order}` ? -1 : order % 2));
    site.page(`${A}/`, { links });

    const job = await world.submit({
      seeds: [`${A}/`],
      scope: { canonicalLinks: true, hosts: "any" },
      politeness: { concurrencyPerHost: (order % 3) + 1 },
    });
    const end = await world.finish(job.id);

    const urls = (await world.results(job.id)).map(({ url }) => url);
    t.ok(isConserved(end));
    for (const circle of [own, far]) {
      const stayed = circle.filter((url) => urls.includes(url));
      t.ok(stayed.length >= 1, `order ${order}: ${urls.join(" ")}`);
      for (const url of stayed) t.ok(urls.includes(`${url}-below`), `links of ${url} are followed`);
    }
  }
});

test("a calendar without end is stopped and told, and the rest of the site is crawled", async (t) => {
  const world = new CrawlWorld(3);
  calendar(world);
  const articles = Array.from({ length: 40 }, (_, n) => `/article/${n}`);
  world.site.page(`${A}/`, { links: ["/calendar/1000", ...articles] });
  for (const path of articles) world.site.page(A + path);

  const job = await world.submit({ seeds: [`${A}/`], scope: { maxDepth: 1_000, maxPages: 5_000 } });
  const end = await world.finish(job.id);

  t.equal(end.status, "completed");
  t.ok(isConserved(end));
  const results = await world.results(job.id);
  t.equal(results.filter(({ url }) => url.includes("/article/")).length, 40);
  const months = results.length - 41;
  t.ok(months >= 21 && months <= 60, `${months} months were fetched`);
  const [trap] = end.stats.traps;
  t.equal(end.stats.traps.length, 1);
  t.match(trap, { host: "a.test", pattern: "/calendar/{n}", reason: "near duplicates" });
  t.ok(trap!.pages >= 20 && trap!.pages <= months, `${trap!.pages} pages brought nothing new`);
  t.match(trap!.example, /^http:\/\/a\.test\/calendar\/\d+$/);
  t.equal(end.stats.skipped, trap!.skipped);
  t.equal(world.site.requests.length, results.length, "nothing else was asked for");
});

test("scores and traps outlive the server that kept them", async (t) => {
  const world = new CrawlWorld(4);
  calendar(world);
  world.site.latencyMs = () => 20;
  world.site.page(`${A}/`, { links: ["/calendar/1000"] });

  const job = await world.submit({
    seeds: [`${A}/`],
    scope: { maxDepth: 1_000 },
    limits: { trapScore: 30 },
    politeness: { concurrencyPerHost: 2 },
  });
  for (const requests of [20, 45]) {
    await world.time.run(() => world.site.requests.length > requests, 60_000);
    world.crashLeaderOf("a.test");
  }
  const end = await world.finish(job.id);

  t.ok(isConserved(end));
  t.match(end.stats.traps, [{ pattern: "/calendar/{n}" }]);
  t.equal(end.stats.skipped, end.stats.traps[0]!.skipped);
  t.ok(world.site.requests.length < 90, `${world.site.requests.length} requests`);
});

test("months that have something to say are no trap", async (t) => {
  const world = new CrawlWorld(1);
  calendar(world, (n) => hash("sha256", `${n}`));
  world.site.page(`${A}/`, { links: ["/calendar/1000"] });

  const job = await world.submit({ seeds: [`${A}/`], scope: { maxDepth: 1_000, maxPages: 200 } });
  const end = await world.finish(job.id);

  t.equal(end.stats.results, 200);
  t.same(end.stats.traps, []);
});

test("uniform pages of a well-linked site are no trap", async (t) => {
  const world = new CrawlWorld(1);
  const fan = 6;
  for (let n = 0; n < 600; n++) {
    const links = Array.from({ length: fan }, (_, k) => n * fan + k + 1).filter((child) => child < 600);
    world.site.page(`${A}/item/${n}`, {
      links: links.map((child) => `/item/${child}`),
      simhash: SAME,
    });
  }

  const job = await world.submit({ seeds: [`${A}/item/0`], scope: { maxDepth: 100 } });
  const end = await world.finish(job.id);

  t.equal(end.stats.results, 600);
  t.same(end.stats.traps, []);
});

test("filters of a shop that only reorder it are a trap within the usual depth", async (t) => {
  const world = new CrawlWorld(2);
  const sorts = Array.from({ length: 40 }, (_, n) => `/shop?sort=${n}`);
  world.site.made = (url) => {
    const [, sort, view] = /\/shop\?sort=(\d+)(?:&view=(\d+))?$/.exec(url) ?? [];
    if (sort === undefined) return undefined;
    const next = Number(view ?? 0) + 1;
    return {
      links: [...sorts, `/shop?sort=${sort}&view=${next}`, `/shop?sort=${Number(sort) + 1000}&view=${next}`],
      simhash: SAME,
    };
  };
  world.site.page(`${A}/`, { links: ["/shop?sort=1"] });

  const job = await world.submit({ seeds: [`${A}/`], scope: { maxDepth: 50, maxPages: 5_000 } });
  const end = await world.finish(job.id);

  t.equal(end.status, "completed");
  t.ok(isConserved(end));
  t.same(
    end.stats.traps.map(({ pattern }) => pattern),
    ["/shop?sort&view"],
  );
  t.ok(end.stats.results < 120, `${end.stats.results} pages`);
});

test("what a trap has stopped stays stopped: its URLs are refused, before and after a takeover", async (t) => {
  for (const isKilled of [false, true]) {
    const world = new CrawlWorld(3);
    const { site } = world;
    site.latencyMs = () => 20;
    site.made = (url) => {
      const sort = Number(/\/shop\?sort=(\d+)$/.exec(url)?.[1] ?? Number.NaN);
      if (Number.isNaN(sort)) return undefined;
      return { links: [1, 2, 3].map((n) => `/shop?sort=${sort * 3 + n}`), simhash: SAME };
    };
    // By the time the articles are reached, the shop is known for what it is.
    const articles = Array.from({ length: 40 }, (_, n) => `/article/${n}`);
    for (let n = 0; n < 30; n++) site.page(`${A}/way/${n}`, { links: n < 29 ? [`/way/${n + 1}`] : articles });
    for (const [n, path] of articles.entries())
      site.page(A + path, { links: [`/shop?sort=${1_000_000 + n}`] });
    site.page(`${A}/`, { links: ["/shop?sort=1", "/way/0"] });

    const job = await world.submit({
      seeds: [`${A}/`],
      scope: { maxDepth: 100 },
      limits: { trapScore: 5 },
      politeness: { concurrencyPerHost: 2 },
    });
    await world.time.run(() => site.requests.some(({ url }) => url.endsWith("/way/25")), 60_000);
    const before = site.requests.filter(({ url }) => url.includes("/shop")).length;
    if (isKilled) world.crashLeaderOf("a.test");
    const end = await world.finish(job.id);

    t.ok(isConserved(end));
    t.equal((await world.results(job.id)).filter(({ url }) => url.includes("/article/")).length, 40);
    const shop = new Set(site.requests.map(({ url }) => url).filter((url) => url.includes("/shop"))).size;
    t.ok(before >= 6 && before < 18, `${before} pages of the shop before`);
    t.equal(shop, before, "none after");
    t.notOk(site.requests.some(({ url }) => url.includes("sort=1000")));
    const [trap] = end.stats.traps;
    t.match(trap, { pattern: "/shop?sort" });
    t.equal(end.stats.skipped, trap!.skipped);
    t.equal(end.stats.discovered, 1 + 30 + 40 + shop + trap!.skipped);
    t.ok(trap!.skipped < 40, `the 40 that the articles link to are no pages: ${trap!.skipped} skipped`);
  }
});

test("a host gives at most so many pages to a job, and that is told", async (t) => {
  const world = new CrawlWorld(2);
  world.site.made = (url) => {
    const { pathname } = new URL(url);
    return { links: [`${pathname}x/`, `${pathname}y/`, "http://b.test/"] };
  };

  const job = await world.submit({
    seeds: [`${A}/`],
    scope: { hosts: ["a.test", "b.test"], maxDepth: 1_000 },
    limits: { pagesPerHost: 33 },
  });
  const end = await world.finish(job.id);

  t.equal(end.stats.results, 66);
  t.equal(end.stats.discovered, 66);
  t.same(
    end.stats.traps
      .map(({ host, pattern, reason, pages, skipped }) => ({ host, pattern, reason, pages, skipped }))
      .sort((a, b) => (a.host < b.host ? -1 : 1)),
    [
      { host: "a.test", pattern: "*", reason: "pages per host", pages: 33, skipped: 0 },
      { host: "b.test", pattern: "*", reason: "pages per host", pages: 33, skipped: 0 },
    ],
  );
  t.equal((await world.results(job.id)).length, 66);
});

test("two servers die at any point of a crawl with copies, forms and a trap: nothing is lost, doubled or miscounted", async (t) => {
  for (let at = 1; at <= 20; at++) {
    const world = new CrawlWorld(5, 64);
    calendar(world);
    const { site } = world;
    site.latencyMs = () => 20;
    const numbers = Array.from({ length: 40 }, (_, n) => n);
    const links = numbers.flatMap((n) => [`/article/${n}?ref=1`, `/copy/${n}`, `http://b.test/${n}?ref=1`]);
    site.page(`${A}/`, { links: ["/calendar/1000", ...links] });
    for (const n of numbers) {
      site.page(`${A}/article/${n}?ref=1`, { canonical: `/article/${n}` });
      site.page(`${A}/article/${n}`, { links: [`/article/${(n + 1) % 40}?ref=1`] });
      site.page(`${A}/copy/${n}`, { body: "copy", links: ["/"] });
      site.page(`http://b.test/${n}?ref=1`, { canonical: `${n}` });
      site.page(`http://b.test/${n}`);
    }

    const job = await world.submit({
      seeds: [`${A}/`],
      scope: { canonicalLinks: true, hosts: ["a.test", "b.test"], maxDepth: 1_000, maxPages: 5_000 },
      politeness: { concurrencyPerHost: 3 },
    });
    if (at % 3 === 0) world.loseMessages(0.05);
    await world.time.run(() => site.requests.length >= at * 12, 60_000);
    world.crashLeaderOf("a.test");
    await world.time.run(() => false, world.time.nowMs + ((at * 53) % 400));
    if (at % 2 === 0) world.crashLeaderOf("b.test");
    const end = await world.finish(job.id);

    t.equal(end.status, "completed");
    t.ok(isConserved(end));
    const results = await world.results(job.id);
    const urls = results.map(({ url }) => url);
    t.equal(new Set(urls).size, urls.length, "one result for each page");
    const others = urls.filter((url) => !url.includes("/calendar/")).sort();
    t.same(
      others,
      [
        `${A}/`,
        ...numbers.flatMap((n) => [`${A}/article/${n}`, `${A}/copy/${n}`, `http://b.test/${n}`]),
      ].sort(),
      `killed after ${at * 12} requests`,
    );
    const copies = results.filter(({ url }) => url.includes("/copy/"));
    const first = copies.filter(({ duplicateOf }) => duplicateOf === undefined);
    t.equal(first.length, 1, "39 of 40 copies are marked");
    t.ok(copies.every(({ duplicateOf }) => duplicateOf === undefined || duplicateOf === first[0]!.key));
    t.match(end.stats.traps, [{ pattern: "/calendar/{n}" }]);
    t.equal(end.stats.skipped, 80 + end.stats.traps[0]!.skipped);
  }
});
