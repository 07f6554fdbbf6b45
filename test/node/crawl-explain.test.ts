/** Each URL has one answer to why it was, or was not, fetched: the rule that decided, by its name. */
import { test } from "tap";
import { CrawlWorld } from "./crawl-world.ts";

test("what became of a page, and by which rule", async (t) => {
  const world = new CrawlWorld(3, 64);
  const { site } = world;
  site.robots.set("http://a.test", {
    status: 200,
    text: "# rules\nUser-agent: *\nDisallow: /private # not for us\nAllow: /private/open\n",
  });
  const links = ["/one", "/gone", "/private/x", "/private/open", "/skip/x", "/flaky"];
  const all = [...links.map((path) => `http://a.test${path}`), "http://b.test/", "http://a.test/old"];
  site.page("http://a.test/", { links: all });
  site.page("http://a.test/one", { links: ["http://a.test/deep"] });
  site.page("http://a.test/gone", { status: 404 });
  for (const path of ["/private/x", "/private/open", "/skip/x", "/deep"]) site.page(`http://a.test${path}`);
  site.page("http://a.test/flaky", { failures: 2 });
  site.page("http://a.test/old", { location: "http://a.test/one" });
  const job = await world.submit({
    seeds: ["http://A.test:80/#top"],
    scope: { exclude: ["*/nothing/*", "*/skip/*"], maxDepth: 1 },
    politeness: { robots: true },
  });
  await world.finish(job.id);
  const why = (url: string) => world.wait(world.cluster.alive[1]!.jobs.explain(job.id, url));

  const seed = await why("http://a.TEST/./#x");
  t.match(seed, {
    canonicalUrl: "http://a.test/",
    state: "done",
    inScope: true,
    found: { parent: null, depth: 0, isSeed: true },
    attempts: 1,
    rule: null,
  });
  const results = await world.results(job.id);
  t.equal(seed.result, results.find(({ url }) => url === "http://a.test/")?.key);
  t.match(await why("http://a.test/flaky"), { state: "done", attempts: 3 });
  t.match(await why("http://a.test/one"), { found: { parent: "http://a.test/", depth: 1, isSeed: false } });

  t.match(await why("http://a.test/private/x"), {
    state: "skipped",
    rule: { name: "robots.txt", line: 3, text: "Disallow: /private" },
    attempts: 0,
    result: null,
  });
  t.match(await why("http://a.test/private/open"), { state: "done", rule: null });
  t.match(await why("http://a.test/gone"), { state: "failed", attempts: 1, why: /HTTP 404/ });
  t.match(await why("http://a.test/old"), { state: "skipped", rule: { name: "redirect" } });

  const excluded = await why("http://a.test/skip/x");
  t.match(excluded, { state: "unknown", inScope: false, found: null, rule: { name: "scope.exclude.1" } });
  t.match(await why("http://b.test/"), { state: "unknown", rule: { name: "scope.hosts" } });
  t.match(await why("http://a.test/deep"), {
    state: "unknown",
    inScope: true,
    rule: { name: "scope.maxDepth", text: "1" },
  });
  t.match(await why("http://a.test/private/never"), {
    state: "unknown",
    rule: { name: "robots.txt", line: 3 },
  });
  t.match(await why("ftp://a.test/"), { state: "unknown", canonicalUrl: null, key: null, why: /no http/ });
});

test("a page that was left over names the limit, one that waits what it waits for", async (t) => {
  const world = new CrawlWorld(1);
  const links = Array.from({ length: 9 }, (_, n) => `http://a.test/${n}`);
  world.site.page("http://a.test/", { links });
  for (const link of links) world.site.page(link);
  const limited = await world.submit({ seeds: ["http://a.test/"], scope: { maxPages: 1 } });
  await world.finish(limited.id);
  const { jobs } = world.cluster.alive[0]!;
  t.match(await world.wait(jobs.explain(limited.id, "http://a.test/3")), {
    state: "skipped",
    rule: { name: "scope.maxPages", text: "1" },
  });

  world.site.page("http://slow.test/", { links: ["http://slow.test/1"] });
  world.site.page("http://slow.test/1", { status: 429, failures: 1, retryAfterMs: 60_000 });
  const slow = await world.submit({ seeds: ["http://slow.test/"] });
  await world.time.run(() => false, world.time.nowMs + 3_000);
  const waiting = await world.wait(jobs.explain(slow.id, "http://slow.test/1"));
  t.match(waiting, { state: "pending", why: /slow\.test has a break/ });
  const untilMs = Date.parse(waiting.notBefore ?? "") - Date.parse(slow.createdAt);
  t.ok(untilMs > 55_000 && untilMs < 65_000, `until ${untilMs} ms after its start`);

  await world.wait(jobs.setStatus(slow.id, "paused"));
  t.match(await world.wait(jobs.explain(slow.id, "http://slow.test/1")), { why: /paused/ });
  await world.wait(jobs.setStatus(slow.id, "cancelled"));
  t.match(await world.wait(jobs.explain(slow.id, "http://slow.test/1")), {
    state: "skipped",
    why: /cancelled/,
  });
});
