/** Row 6: all servers die at once in the middle of a crawl, and are started again in any order. */
import type { Test } from "tap";
import type { Result } from "../../src/job/job-spec.ts";
import {
  allFailures,
  collect,
  type Ground,
  inSeconds,
  until,
  untilListening,
  untilOneRing,
  untilOver,
} from "../cluster/ground.ts";
import { auditCrawl } from "../fixture/crawl-audit.ts";
import type { Site } from "../fixture/site/site.ts";
import { CRAWL_MS_MAX, crawlOf, follow, forgotten, PAGES, RIGHT } from "./page-crawl.ts";

const RING_MS_MAX = 30_000;

/** All servers must be up. */
export async function powerCut(t: Test, { servers, client }: Ground, site: Site): Promise<void> {
  const [one, two, three, four, five] = servers;
  const expectation = site.expected({ scope: site.hosts });
  const asker = client(...servers);
  const earlier = (await asker.jobs.list({ limit: 100 })).items;
  const { id } = await asker.jobs.submit(crawlOf(site, 50));
  const stored: Result[] = [];
  const following = follow(asker.results(id), stored).catch(() => {}); // Ends when nobody answers for too long.
  await until("a third is stored", CRAWL_MS_MAX, () => stored.length >= PAGES / 3);

  const before = [...stored];
  const killedMs = performance.now();
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
  t.comment(`all ready ${inSeconds(performance.now() - killedMs)} after the cut`);
  const reader = client(three);
  const job = await untilOver(reader, id, CRAWL_MS_MAX);
  await following;
  const results = await collect(reader.results(id));
  t.comment(`${before.length} of ${PAGES} pages stored before the cut, ${results.length} at the end`);

  await untilOneRing(reader, 5, RING_MS_MAX);
  t.comment(`one ring again ${inSeconds(performance.now() - killedMs)} after the cut`);
  t.equal(job.status, "completed", "the crawl went on by itself");
  t.match(auditCrawl(expectation, results, await allFailures(reader, id)), RIGHT);
  t.same(forgotten(before, results), [], "what was stored before is the same");
  for (const { id, stats } of earlier) {
    t.same((await reader.jobs.get(id)).stats, stats, "the crawl before is as it was");
    t.match(auditCrawl(expectation, await collect(reader.results(id)), await allFailures(reader, id)), RIGHT);
  }
}
