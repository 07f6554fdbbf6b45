/** The rows that are run with real processes, each on servers of its own. */
import type { Test } from "tap";
import { startGround } from "../cluster/ground.ts";
import { createSite, type Site } from "../fixture/site/site.ts";
import { frozenServer } from "./frozen-server.ts";
import { netsplit } from "./netsplit.ts";
import { oldCopy } from "./old-copy.ts";
import { oneKilled } from "./one-killed.ts";
import { HOSTS, PAGES } from "./page-crawl.ts";
import { powerCut } from "./power-cut.ts";
import type { Scenario } from "./scenario.ts";
import { strangeMessages } from "./strange-messages.ts";
import { twoKilled } from "./two-killed.ts";
import { wrongIdentity } from "./wrong-identity.ts";

/** Fewer than a cluster has by default: what is seen is the same, in less time. */
const FLAGS = ["--partitions", "32"];

export const scenarios: readonly Scenario[] = [
  {
    row: 1,
    name: "one server killed (SIGKILL) under load",
    secondsMax: 120,
    run: async (t) => oneKilled(t, await startGround(t), (await smallSite(t)).homes[0]!),
  },
  {
    row: 2,
    name: "two killed at the same moment, mid-crawl",
    secondsMax: 200,
    run: async (t) => twoKilled(t, await startGround(t, { flags: FLAGS }), await crawlSite(t)),
  },
  {
    row: 6,
    name: "all five killed at once (power cut), restarted in any order",
    secondsMax: 200,
    run: async (t) => powerCut(t, await startGround(t, { flags: FLAGS }), await crawlSite(t)),
  },
  {
    row: 8,
    name: "a server frozen for 10 s (SIGSTOP), then woken",
    secondsMax: 200,
    run: async (t) => frozenServer(t, await startGround(t, { flags: FLAGS }), (await smallSite(t)).homes[0]!),
  },
  {
    row: 9,
    name: "split 3 / 2, clients on both sides, 30 s, healed",
    secondsMax: 250,
    run: netsplit,
  },
  {
    row: 16,
    name: "an old copy of a data directory is started",
    secondsMax: 120,
    run: async (t) => oldCopy(t, await startGround(t, { flags: FLAGS })),
  },
  {
    row: 17,
    name: "wrong master key, wrong cluster, wrong certificate, expired certificate",
    secondsMax: 200,
    run: async (t) => wrongIdentity(t, await startGround(t, { flags: FLAGS })),
  },
  {
    row: 28,
    name: "malformed, oversized, repeated and out-of-order peer messages",
    secondsMax: 120,
    run: async (t) => strangeMessages(t, await startGround(t)),
  },
];

async function smallSite(t: Test): Promise<Site> {
  const site = await createSite({ hosts: 2, pages: 60 });
  t.teardown(() => site.close());
  return site;
}

async function crawlSite(t: Test): Promise<Site> {
  const site = await createSite({ hosts: HOSTS, pages: PAGES });
  t.teardown(() => site.close());
  return site;
}
