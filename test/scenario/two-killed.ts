/** Row 2: two of five servers die at the same moment, in the middle of a crawl. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Test } from "tap";
import type { Result } from "../../src/job/job-spec.ts";
import { allFailures, collect, type Ground, slowness, until, untilOver } from "../cluster/ground.ts";
import { auditCrawl } from "../fixture/crawl-audit.ts";
import type { Site } from "../fixture/site/site.ts";
import { watchTakeover } from "../fixture/takeover.ts";
import { CRAWL_MS_MAX, crawlOf, follow, forgotten, PAGES, RIGHT } from "./page-crawl.ts";

/** Three times what is promised. */
const TAKEOVER_MS_MAX = 3 * 2_000;
const DELAY_MS = 150;
/** What a timer, and the way of a packet, may differ. */
const TIMER_MS = 10;

/** Leaves the first and the fourth server dead. */
export async function twoKilled(t: Test, { servers, client }: Ground, site: Site): Promise<void> {
  const [one, two, three, four, five] = servers;
  const expectation = site.expected({ scope: site.hosts });
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
}

/** Milliseconds from the first to the last of any so many requests in a row. */
function shortestBurst(site: Site, host: string, length: number): number {
  const times = site.requests.filter((request) => request.host === host).map(({ atMs }) => atMs);
  return Math.min(...times.slice(length - 1).map((atMs, i) => atMs - times[i]!));
}
