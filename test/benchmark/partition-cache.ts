/**
 * How well callers know who leads: five real servers crawl the fixture site, and
 * their own counts at both ends of the steady part tell how many calls went
 * straight to the leader. Start, stop and the first finding of everybody are
 * left out, as they would be of a cluster that has run for a day.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Client, createClient } from "../../src/sdk/client.ts";
import { startCluster } from "../fixture/cluster.ts";
import { EXTRACT } from "../fixture/site/page.ts";
import { createSite } from "../fixture/site/site.ts";

const NODES = 5;
const STEADY_FROM = 0.1;
const STEADY_TO = 0.95;
const POLL_MS = 50;
const CRAWL_MS_MAX = 120_000;

export interface CallCounts {
  readonly made: number;
  readonly redirects: number;
  readonly lookups: number;
}

/** @returns what all servers counted while a crawl of `pages` pages was between its first tenth and its end. */
export async function observeCalls(pages: number): Promise<CallCounts> {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-calls-"));
  const site = await createSite({ pages });
  try {
    const cluster = await startCluster({
      nodes: NODES,
      dataDirectory: directory,
      allowAddresses: ["127.0.0.0/8"],
    });
    const { servers, admin, ca } = cluster;
    const client = createClient({ servers: servers.map((server) => server.edge), ...admin, ca });
    try {
      const expected = site.expected({ scope: site.hosts }).pages.length;
      let job = await client.jobs.submit({
        name: "steady",
        seeds: [site.portal],
        scope: { hosts: [...site.hosts], maxDepth: 50, maxPages: pages * 10 },
        politeness: { delayMs: 0, concurrencyPerHost: 4 },
        extract: EXTRACT,
      });
      const untilMs = performance.now() + CRAWL_MS_MAX;
      const reach = async (share: number) => {
        while (job.stats.done < share * expected) {
          if (job.finishedAt !== null || performance.now() > untilMs) {
            throw new Error(`the crawl came to ${job.stats.done} of ${expected} pages: ${job.status}`);
          }
          await delay(POLL_MS);
          job = await client.jobs.get(job.id);
        }
        return countsOf(client);
      };
      const before = await reach(STEADY_FROM);
      const after = await reach(STEADY_TO);
      return {
        made: after.made - before.made,
        redirects: after.redirects - before.redirects,
        lookups: after.lookups - before.lookups,
      };
    } finally {
      await client.close();
      await cluster.stop();
    }
  } finally {
    await site.close();
    await rm(directory, { recursive: true, force: true });
  }
}

async function countsOf(client: Client): Promise<CallCounts> {
  const sum = { made: 0, redirects: 0, lookups: 0 };
  for (const { nodeId, calls } of await client.cluster.nodes()) {
    if (calls === null) throw new Error(`${nodeId} did not say how many calls it made`);
    sum.made += calls.made;
    sum.redirects += calls.redirects;
    sum.lookups += calls.lookups;
  }
  return sum;
}
