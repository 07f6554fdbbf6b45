/** One host, one owner, more pages than it has threads for: other servers fetch them, one that comes later too. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { t as tap, test } from "tap";
import { inSeconds, slowness, startGround, until } from "./ground.ts";

const PAGES = 20_000;
const LATENCY_MS = 250;
const CONCURRENCY = 48;
const JOINED_MS_MAX = 10_000;

tap.setTimeout(180_000);

test("a busy owner hands pages to others, and a server added to a running crawl takes part within 10 s", async (t) => {
  let [underWay, most] = [0, 0];
  const site = createServer((request, response) => {
    if (request.url === "/robots.txt") return response.writeHead(404).end();
    const n = Number(request.url!.slice(1) || 0);
    most = Math.max(most, ++underWay);
    setTimeout(() => {
      underWay--;
      const links = Array.from({ length: 20 }, (_, i) => n * 20 + i + 1).filter((to) => to < PAGES);
      response
        .setHeader("content-type", "text/html")
        .end(`<h1>Page ${n}</h1>${links.map((to) => `<a href="/${to}">${to}</a>`).join(" ")}`);
    }, LATENCY_MS);
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  t.teardown(() => {
    site.closeAllConnections();
    site.close();
  });
  const { cluster, servers, client: ask } = await startGround(t, { flags: ["--partitions", "16"] });
  const client = ask(...servers);

  const job = await client.jobs.submit({
    seeds: [`http://127.0.0.1:${(site.address() as AddressInfo).port}/`],
    scope: { maxDepth: 10, maxPages: PAGES },
    politeness: { delayMs: 0, concurrencyPerHost: CONCURRENCY, robots: false },
  });
  const pagesOf = async (nodeId: string) => (await client.jobs.get(job.id)).stats.servers[nodeId] ?? 0;
  await until("several servers fetch pages", 30_000, async () => {
    const pages = await Promise.all(servers.map(({ nodeId }) => pagesOf(nodeId)));
    return pages.filter((n) => n >= 20).length >= 2;
  });

  t.comment(JSON.stringify((await client.jobs.get(job.id)).stats.servers));
  const added = await cluster.add();
  const addedMs = performance.now();
  await until("the new server fetches pages", JOINED_MS_MAX, async () => (await pagesOf(added.nodeId)) > 0);
  const tookMs = performance.now() - addedMs;

  t.comment(`after ${inSeconds(tookMs)}`);
  t.ok(tookMs <= JOINED_MS_MAX * slowness());
  t.equal((await client.jobs.get(job.id)).status, "running");
  t.ok(most <= CONCURRENCY, `${most} requests at once`);
  await client.jobs.cancel(job.id);
});
