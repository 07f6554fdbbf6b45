/** Row 20: scraping processes are killed again and again in the middle of a crawl. */
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import { allFailures, collect, type Ground, until, untilOver } from "../cluster/ground.ts";
import { auditCrawl } from "../fixture/crawl-audit.ts";
import type { Site } from "../fixture/site/site.ts";
import { CRAWL_MS_MAX, crawlOf, PAGES, RIGHT } from "./page-crawl.ts";

const DELAY_MS = 100;
const BETWEEN_MS = 400;
const KILLS = 10;

export async function scrapingKilled(t: Test, { servers, client }: Ground, site: Site): Promise<void> {
  const [one] = servers;
  const asker = client(...servers);
  const expectation = site.expected({ scope: site.hosts });
  const leadersBefore = (await asker.cluster.partitions()).map(({ ballot }) => ballot);
  const starts = servers.map(({ process }) => process.pid);

  const { id } = await asker.jobs.submit(crawlOf(site, DELAY_MS));
  await until("some pages are stored", CRAWL_MS_MAX, async () => (await asker.jobs.get(id)).stats.done > 20);
  let killed = 0;
  for (let n = 0; n < KILLS; n++) {
    killed += servers[n % servers.length]!.killScraping();
    await pause(BETWEEN_MS);
  }
  const during = (await asker.jobs.get(id)).stats;
  const { status, stats } = await untilOver(asker, id, CRAWL_MS_MAX);
  const results = await collect(client(one).results(id));

  t.comment(
    `${killed} scraping processes killed until ${during.done} of ${PAGES} pages were done; ${results.length} at the end`,
  );
  t.ok(killed >= KILLS, "they were there");
  t.ok(during.pending > 0, "the crawl was not over");
  t.equal(status, "completed", "the crawl ended");
  t.match(auditCrawl(expectation, results, await allFailures(asker, id)), RIGHT);
  t.equal(stats.pending, 0);
  t.same(
    servers.map(({ process }) => process.pid),
    starts,
    "the servers went on",
  );
  t.same(
    (await asker.cluster.partitions()).map(({ ballot }) => ballot),
    leadersBefore,
    "no leader has changed",
  );
}
