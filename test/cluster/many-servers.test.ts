/** What a crawl survives: two of five servers die at the same moment; all five do. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { t as tap, test } from "tap";
import type { JobSpecInput, Result } from "../../src/job/job-spec.ts";
import { auditCrawl } from "../fixture/crawl-audit.ts";
import { EXTRACT } from "../fixture/site/page.ts";
import { createSite, type Site } from "../fixture/site/site.ts";
import { watchTakeover } from "../fixture/takeover.ts";
import {
  allFailures,
  allServed,
  collect,
  slowness,
  startGround,
  until,
  untilListening,
  untilOver,
} from "./ground.ts";

tap.setTimeout(200_000);

/** Three times what is promised. */
const TAKEOVER_MS_MAX = 3 * 2_000;
const CRAWL_MS_MAX = 60_000;
const DELAY_MS = 150;
const HOSTS = 12;
const PAGES = 300;

test("many servers die in the middle of a crawl", async (t) => {
  const site = await createSite({ hosts: HOSTS, pages: PAGES });
  t.teardown(() => site.close());
  const ground = await startGround(t, ["--partitions", "32"]);
  const { servers, client } = ground;
  const [one, two, three, four, five] = servers;
  const expectation = site.expected({ scope: site.hosts });

  await t.test("two killed at the same moment, mid-crawl", async (t) => {
    const reader = client(two);
    // Speaks to one of those that die.
    const asker = client(one, two, three, four, five);
    const lag = monitorEventLoopDelay({ resolution: 5 });
    lag.enable();
    const { id } = await asker.jobs.submit(crawlOf(site, DELAY_MS));
    const stored: Result[] = [];
    const following = follow(reader.results(id), stored);
    following.catch(() => {}); // Awaited below.
    await until("a third is stored", CRAWL_MS_MAX, () => stored.length >= PAGES / 3);

    let before: Result[] = [];
    const takeoverMs = await watchTakeover(reader, [one.nodeId, four.nodeId], () => {
      before = [...stored];
      return Promise.all([one.kill(), four.kill()]);
    });
    const limitMs = TAKEOVER_MS_MAX * slowness();
    const { status, stats } = await untilOver(asker, id, CRAWL_MS_MAX);
    lag.disable();
    await following;
    const results = await collect(client(five).results(id));

    t.ok(
      takeoverMs === null || takeoverMs < limitMs,
      `took over after ${Math.round(takeoverMs ?? 0)} ms, of ${Math.round(limitMs)}`,
    );
    t.equal(status, "completed", "the crawl ended");
    t.ok(before.length < PAGES, "they died before it was over");
    t.match(auditCrawl(expectation, results, await allFailures(reader, id)), RIGHT);
    t.match(
      auditCrawl(expectation, stored, await allFailures(reader, id)),
      RIGHT,
      "also for who read all the while",
    );
    t.same(forgotten(before, results), [], "what was stored before is the same");
    t.equal(stats.pending, 0, "nothing is left");

    // An arrival is seen late when this process is busy: then the gap behind it seems shorter than it was.
    const lateMs = lag.max / 1e6 + TIMER_MS;
    for (const { host, requests, gapMsMin, concurrencyMax } of site.load) {
      t.equal(concurrencyMax, 1, `${host} was asked one thing at a time`);
      t.ok(
        gapMsMin > DELAY_MS - lateMs,
        `${host} had ${gapMsMin.toFixed(1)} ms between ${requests} requests, seen up to ${lateMs.toFixed(1)} ms late`,
      );
      const burstMs = shortestBurst(site, host, 10);
      t.ok(burstMs > 9 * DELAY_MS - lateMs, `and ${burstMs.toFixed(1)} ms between each and the tenth`);
    }
    t.same(
      site.requests.filter(({ stray }) => stray),
      [],
    );
  });

  await t.test("all five killed at once (power cut), restarted in any order", async (t) => {
    await Promise.all([one.restart(), four.restart()]);
    await allServed(client(one), 5);
    site.reset();
    const asker = client(...servers);
    const earlier = (await asker.jobs.list({ limit: 100 })).items;
    const { id } = await asker.jobs.submit(crawlOf(site, 50));
    const stored: Result[] = [];
    const following = follow(asker.results(id), stored).catch(() => {}); // Ends when nobody answers for too long.
    await until("a third is stored", CRAWL_MS_MAX, () => stored.length >= PAGES / 3);

    const before = [...stored];
    await Promise.all(servers.map((server) => server.kill()));
    t.ok(before.length < PAGES, "they died before it was over");
    const restarts: Promise<void>[] = [];
    t.teardown(() => Promise.allSettled(restarts));
    for (const server of [five, two, four, one, three]) {
      const restart = server.restart();
      restart.catch(() => {}); // Awaited below: none is ready before there are three.
      restarts.push(restart);
      await untilListening(server.peer, 20_000);
    }
    await Promise.all(restarts);
    const reader = client(three);
    const job = await untilOver(reader, id, CRAWL_MS_MAX);
    await following;
    const results = await collect(reader.results(id));

    await until("all stand in one ring", RING_MS_MAX, async () => {
      const shares = (await reader.cluster.nodes()).map(({ arcShare }) => arcShare ?? 0);
      return shares.length === 5 && Math.abs(shares.reduce((sum, share) => sum + share, 0) - 1) < 0.001;
    });
    t.equal(job.status, "completed", "the crawl went on by itself");
    t.match(auditCrawl(expectation, results, await allFailures(reader, id)), RIGHT);
    t.same(forgotten(before, results), [], "what was stored before is the same");
    for (const { id, stats } of earlier) {
      t.same((await reader.jobs.get(id)).stats, stats, "the crawl before is as it was");
      t.match(
        auditCrawl(expectation, await collect(reader.results(id)), await allFailures(reader, id)),
        RIGHT,
      );
    }
  });
});

const RIGHT = { lost: [], duplicates: 0, unexpected: [], wrong: [], wrongFailures: [], isRight: true };
const RING_MS_MAX = 30_000;
/** What a timer, and the way of a packet, may differ. */
const TIMER_MS = 10;

function crawlOf(site: Site, delayMs: number): JobSpecInput {
  return {
    seeds: [site.portal],
    scope: { hosts: [...site.hosts], maxDepth: 50, maxPages: PAGES * 10 },
    politeness: { delayMs, concurrencyPerHost: 1 },
    extract: EXTRACT,
  };
}

/** Milliseconds from the first to the last of any so many requests in a row. */
function shortestBurst(site: Site, host: string, length: number): number {
  const times = site.requests.filter((request) => request.host === host).map(({ atMs }) => atMs);
  return Math.min(...times.slice(length - 1).map((atMs, i) => atMs - times[i]!));
}

async function follow(results: AsyncIterable<Result>, into: Result[]): Promise<void> {
  for await (const result of results) into.push(result);
}

/** URLs of results that are missing or others later. */
function forgotten(before: readonly Result[], after: readonly Result[]): string[] {
  const known = new Map(after.map((result) => [result.url, result.sha256]));
  return before.filter((result) => known.get(result.url) !== result.sha256).map((result) => result.url);
}
