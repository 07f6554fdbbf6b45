/** What failed is fetched again, in another run of the job: just that, and all of it, whoever dies. */
import { type Test, test } from "tap";
import { CrawlWorld } from "./crawl-world.ts";

const PAGES = 450;

/** Every page but the first is broken at first: more than one batch makes pending again. */
async function withFailures(t: Test, nodes: number) {
  const world = new CrawlWorld(nodes, 64);
  const url = (n: number) => `http://${n % 2 === 0 ? "a" : "b"}.test/${n}`;
  const urls = Array.from({ length: PAGES }, (_, n) => url(n));
  for (const [n, one] of urls.entries()) {
    world.site.page(one, n === 0 ? { links: urls } : { status: 404 });
  }
  const job = await world.submit({
    seeds: [url(0)],
    scope: { hosts: ["*.test"], maxPages: 10_000 },
    fetch: { retries: 0 },
  });
  const end = await world.finish(job.id);
  t.match(end, { status: "completed", stats: { done: 1, failed: PAGES - 1, pending: 0, results: 1 } });
  return { world, urls, jobId: job.id };
}

async function failuresOf(world: CrawlWorld, jobId: string, limit = 100) {
  const found = [];
  for (let cursor: string | undefined; ; ) {
    const { jobs } = world.cluster.alive.at(-1)!;
    const page = await world.wait(
      jobs.failures(jobId, { limit, ...(cursor === undefined ? {} : { cursor }) }),
    );
    found.push(...page.items);
    if (page.nextCursor === null) return found;
    cursor = page.nextCursor;
  }
}

test("the pages that failed are fetched again, and no other", async (t) => {
  const { world, urls, jobId } = await withFailures(t, 3);
  const { site } = world;
  t.equal((await failuresOf(world, jobId)).length, PAGES - 1);
  for (const one of urls.slice(1, -5)) site.page(one, {});
  const before = site.requests.length;

  const { jobs } = world.cluster.alive[0]!;
  const again = await world.wait(jobs.retryFailures(jobId));
  const repeated = await world.wait(jobs.retryFailures(jobId)).catch(() => undefined);
  const end = await world.finish(jobId);

  t.ok(["queued", "running"].includes(again.status));
  t.ok(repeated === undefined || repeated.id === jobId, "asked twice, it is one run");
  t.match(end, { status: "completed", stats: { discovered: PAGES, done: PAGES - 5, failed: 5, pending: 0 } });
  t.equal(site.requests.length - before, PAGES - 1);
  t.notOk(
    site.requests.slice(before).some(({ url }) => url === urls[0]),
    "what was done stays",
  );
  t.equal((await world.results(jobId)).length, PAGES - 5);
  t.same((await failuresOf(world, jobId, 2)).map(({ url }) => url).sort(), urls.slice(-5).sort());

  for (const one of urls.slice(-5)) site.page(one, {});
  await world.wait(jobs.retryFailures(jobId));
  const last = await world.finish(jobId);
  t.match(last, { status: "completed", stats: { done: PAGES, failed: 0 } }, "and a third time");
  t.same((await world.results(jobId)).map(({ url }) => url).sort(), [...urls].sort());
  t.same(await failuresOf(world, jobId), []);
  await t.rejects(world.wait(jobs.retryFailures(jobId)), { code: "WRONG_STATE" }, "nothing is left to retry");
});

test("a run that begins while servers die is whole", async (t) => {
  for (const [name, host] of [
    ["the owner of a host", "a.test"],
    ["the job's leader", undefined],
  ] as const) {
    const { world, urls, jobId } = await withFailures(t, 5);
    for (const one of urls.slice(1)) world.site.page(one, {});

    const again = world.cluster.alive[0]!.jobs.retryFailures(jobId).catch(() => {});
    await world.time.run(() => false, world.time.nowMs + 8);
    if (host !== undefined) world.crashLeaderOf(host);
    else {
      const { leader } = world.cluster.partitions[world.cluster.layout.jobPartition(jobId)]!;
      const node = world.cluster.alive.find(({ member }) => member.nodeId === leader);
      if (node !== undefined) world.cluster.crash(node, () => 300);
    }
    await world.wait(again);
    await world.wait(world.cluster.alive[0]!.jobs.retryFailures(jobId)).catch(() => {});
    const end = await world.finish(jobId);

    t.match(end, { status: "completed", stats: { discovered: PAGES, done: PAGES, failed: 0 } }, name);
    t.same((await world.results(jobId)).map(({ url }) => url).sort(), [...urls].sort(), name);
  }
});

test("a job that was cancelled, or runs, has no other run", async (t) => {
  const world = new CrawlWorld(1);
  world.site.page("http://a.test/", { links: ["http://a.test/1"] });
  world.site.page("http://a.test/1", { status: 404 });
  const job = await world.submit({ seeds: ["http://a.test/"], politeness: { delayMs: 20_000 } });
  const { jobs } = world.cluster.alive[0]!;

  await t.rejects(world.wait(jobs.retryFailures(job.id)), { code: "WRONG_STATE" });
  await world.wait(jobs.setStatus(job.id, "cancelled"));
  await world.finish(job.id);
  await t.rejects(world.wait(jobs.retryFailures(job.id)), { code: "WRONG_STATE" });
});
