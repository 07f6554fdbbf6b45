/** Two servers of five die at each of twenty points of a crawl, and two others come in their place. */
import { test } from "tap";
import { CrawlWorld } from "./crawl-world.ts";

const PAGES = 2_000;
const POINTS = 20;
const HOSTS = 12;
const DELAY_MS = 20;
/** Until others lead what the dead ones led. */
const TAKEOVER_MS = 300;

test("two servers die at twenty points of a crawl of 2,000 pages", async (t) => {
  const world = new CrawlWorld(5, 64);
  const { site, cluster, time } = world;
  const url = (n: number) => `http://h${n % HOSTS}.test/${n}`;
  for (let n = 0; n < PAGES; n++) {
    const links = Array.from({ length: 5 }, (_, k) => n * 5 + k + 1).filter((child) => child < PAGES);
    site.page(url(n), { links: [...links.map(url), url(0)] });
  }
  const job = await world.submit({
    seeds: [url(0)],
    scope: { hosts: ["*.test"], maxDepth: 100, maxPages: 10_000 },
    politeness: { delayMs: DELAY_MS, concurrencyPerHost: 1, autoThrottle: false },
  });
  const killedAtMs = new Map<string, number>();
  let under = 0;
  for (let point = 0; point < POINTS; point++) {
    const atLeast = ((point + 0.5) * PAGES) / POINTS;
    await time.run(() => site.requests.length >= atLeast, time.nowMs + 120_000);
    const { finishedAt } = await world.job(job.id);
    if (finishedAt === null) under++;
    const victims = cluster.alive.slice(0, 2);
    for (const victim of victims) {
      killedAtMs.set(victim.member.nodeId, time.nowMs);
      cluster.crash(victim, () => TAKEOVER_MS);
    }
    for (let n = 0; n < 2; n++) cluster.addNode(100 + point * 2 + n);
  }
  const end = await world.finish(job.id);
  const overAfterMs = time.nowMs - site.requests.at(-1)!.atMs;

  t.equal(under, POINTS, "each time in the middle");
  t.match(end, { status: "completed", stats: { discovered: PAGES, done: PAGES, failed: 0, pending: 0 } });
  const urls = (await world.results(job.id)).map((result) => result.url);
  t.same(urls.sort(), Array.from({ length: PAGES }, (_, n) => url(n)).sort(), "one result for each page");
  t.ok(overAfterMs <= 1_000, `over ${overAfterMs} ms after the last page`);

  const last = new Map<string, { atMs: number; node: string }>();
  const lastOfHost = new Map<string, number>();
  const [repeatedAlive, tooFast]: [string[], string[]] = [[], []];
  let repeated = 0;
  for (const { url: asked, host, atMs, node } of site.requests) {
    const before = last.get(asked);
    if (before !== undefined) repeated++;
    if (before !== undefined && (killedAtMs.get(before.node) ?? Number.POSITIVE_INFINITY) > atMs) {
      repeatedAlive.push(asked);
    }
    last.set(asked, { atMs, node });
    // Half a millisecond: clocks of two servers are read at two moments.
    if (atMs - (lastOfHost.get(host) ?? Number.NEGATIVE_INFINITY) < DELAY_MS - 0.5) {
      tooFast.push(`${host} after ${atMs - lastOfHost.get(host)!} ms`);
    }
    lastOfHost.set(host, atMs);
  }
  t.same(repeatedAlive, [], "only what was with a dead server is fetched twice");
  t.same(tooFast, [], "no request came too fast");
  t.comment(`${killedAtMs.size} servers died; ${repeated} requests were repeated`);
});
