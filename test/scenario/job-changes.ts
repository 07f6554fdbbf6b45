/** Row 25: jobs are paused, cancelled and deleted while two servers die. */
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import { NotFoundError } from "../../src/errors.ts";
import { allServed, type Ground, inSeconds, until } from "../cluster/ground.ts";
import type { Site } from "../fixture/site/site.ts";
import { CRAWL_MS_MAX, crawlOf } from "./page-crawl.ts";

const DELAY_MS = 400;
/** Requests under way may end; after that there are none. */
const CALM_MS = 3_000;

export async function jobChanges(t: Test, ground: Ground, site: Site): Promise<void> {
  const { servers, client, pinned } = ground;
  const [one, two, three, four, five] = servers;
  const asker = client(one, two, three);
  const ids = await Promise.all(
    [0, 1, 2].map(async () => (await asker.jobs.submit(crawlOf(site, DELAY_MS))).id),
  );
  const [paused, cancelled, deleted] = ids as [string, string, string];
  for (const id of ids)
    await until("pages are stored", CRAWL_MS_MAX, async () => (await asker.jobs.get(id)).stats.done > 5);

  const killing = Promise.all([four.kill(), five.kill()]);
  const changedMs = performance.now();
  await Promise.all([asker.jobs.pause(paused), asker.jobs.cancel(cancelled), asker.jobs.remove(deleted)]);
  const tookMs = performance.now() - changedMs;
  await killing;
  await pause(CALM_MS);
  const requests = site.requests.length;
  await pause(CALM_MS);
  t.equal(site.requests.length, requests, "nobody asks the site for anything any more");
  t.comment(`paused, cancelled and deleted within ${inSeconds(tookMs)} while two servers died`);

  const look = async (alive: readonly (typeof one)[]) => {
    for (const server of alive) {
      const asked = pinned(server);
      t.equal((await asked.jobs.get(paused)).status, "paused");
      t.equal((await asked.jobs.get(cancelled)).status, "cancelled");
      await t.rejects(asked.jobs.get(deleted), NotFoundError, "the deleted one is not there");
      await t.rejects(asked.jobs.results(deleted), NotFoundError, "nor are its results");
    }
  };
  await look([one, two, three]);
  await Promise.all([four.restart(), five.restart()]);
  await allServed(client(four), 5);
  await look(servers);

  await asker.jobs.resume(paused);
  const { done } = (await asker.jobs.get(paused)).stats;
  await until(
    "the paused one goes on",
    CRAWL_MS_MAX,
    async () => (await asker.jobs.get(paused)).stats.done > done,
  );
  await asker.jobs.cancel(paused);
}
