/** A small job beside a large one: servers and hosts are shared between users and jobs, so it takes at most twice its time. */
import { test } from "tap";
import { jobSpecSchema } from "../../src/job/job-spec.ts";
import { CrawlWorld } from "./crawl-world.ts";

const LARGE = 4_000;
const SMALL = 10;

/** Virtual milliseconds that a job of ten pages takes; `beside`: a large one by another user has all servers busy. */
async function takes(host: (n: number) => string, delayMs: number, beside: boolean): Promise<number> {
  const world = new CrawlWorld(3, 64);
  const politeness = { delayMs, robots: false, concurrencyPerHost: 4 };
  const spec = (seeds: string[]) =>
    jobSpecSchema.parse({ seeds, scope: { hosts: ["*.test"], maxPages: 1_000_000 }, politeness });
  const { jobs } = world.cluster.alive[0]!;
  let large: string | undefined;
  if (beside) {
    const links = Array.from({ length: LARGE }, (_, n) => `http://${host(n)}.test/large/${n}`);
    world.site.page("http://start.test/", { links });
    for (const link of links) world.site.page(link);
    large = (await world.wait(jobs.submit("bob", spec(["http://start.test/"])))).id;
    for (let done = 0; done < 200; ) {
      await world.time.run(() => false, world.time.nowMs + 20);
      ({ done } = (await world.job(large)).stats);
      if (delayMs > 0) break;
    }
    if (delayMs > 0) await world.time.run(() => false, world.time.nowMs + 3 * delayMs);
  }
  const seeds = Array.from({ length: SMALL }, (_, n) => `http://${host(n)}.test/small/${n}`);
  for (const seed of seeds) world.site.page(seed);
  const { id } = await world.wait(jobs.submit("ann", spec(seeds)));
  const end = await world.finish(id);
  if (end.stats.results !== SMALL) throw new Error(`${end.stats.results} results`);
  if (large !== undefined && (await world.job(large)).status !== "running")
    throw new Error("the large one is over");
  return Date.parse(end.finishedAt!) - Date.parse(end.createdAt);
}

test("a job of ten pages beside one that keeps all servers busy", async (t) => {
  for (const [name, host, delayMs] of [
    ["on hosts of many partitions", (n: number) => `h${n % 40}`, 0],
    ["on the one host of both, at its pace", () => "only", 500],
  ] as const) {
    const alone = await takes(host, delayMs, false);
    const beside = await takes(host, delayMs, true);

    t.comment(`${name}: ${alone} ms alone, ${beside} ms beside the large one`);
    // Alone it finds its host rested: beside another its first page too has to wait for the delay.
    // And so short a job may lose a tenth of a second to chance.
    t.ok(beside <= Math.max(2 * (alone + delayMs), alone + 100), `${name}: ${beside} ms, alone ${alone} ms`);
  }
});
