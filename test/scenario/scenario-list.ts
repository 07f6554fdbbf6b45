/** The rows that are run with real processes, each on servers of its own. */
import type { Test } from "tap";
import { startGround } from "../cluster/ground.ts";
import { createSite, type Site } from "../fixture/site/site.ts";
import { bitFlips } from "./bit-flips.ts";
import { frozenServer } from "./frozen-server.ts";
import { fullDisk } from "./full-disk.ts";
import { growAndShrink } from "./grow-and-shrink.ts";
import { jobChanges } from "./job-changes.ts";
import { killedInChange } from "./killed-in-change.ts";
import { netsplit } from "./netsplit.ts";
import { oldCopy } from "./old-copy.ts";
import { oneKilled } from "./one-killed.ts";
import { HOSTS, PAGES } from "./page-crawl.ts";
import { powerCut } from "./power-cut.ts";
import { rollingRestart } from "./rolling-restart.ts";
import type { Scenario } from "./scenario.ts";
import { scrapingKilled } from "./scraping-killed.ts";
import { strangeMessages } from "./strange-messages.ts";
import { threeKilled } from "./three-killed.ts";
import { twoKilled } from "./two-killed.ts";
import { oneEmptied, twoRestarted } from "./two-restarted.ts";
import { wrongClock } from "./wrong-clock.ts";
import { wrongIdentity } from "./wrong-identity.ts";

/** Fewer than a cluster has by default: what is seen is the same, in less time. */
const FLAGS = ["--partitions", "32"];

/** A dead member is replaced after 5 s instead of a minute. */
const REPLACE_SOON = ["--replace-after-ms", "5000"];

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
    row: 3,
    name: "two killed, then restarted with their disks",
    secondsMax: 240,
    run: async (t) => twoRestarted(t, await startGround(t, { flags: FLAGS })),
  },
  {
    row: 4,
    name: "two killed, one comes back with an empty disk",
    secondsMax: 240,
    run: async (t) => oneEmptied(t, await startGround(t, { flags: [...FLAGS, ...REPLACE_SOON] })),
  },
  {
    row: 5,
    name: "three of five killed",
    secondsMax: 200,
    run: async (t) => threeKilled(t, await startGround(t, { flags: FLAGS })),
  },
  {
    row: 6,
    name: "all five killed at once (power cut), restarted in any order",
    secondsMax: 200,
    run: async (t) => powerCut(t, await startGround(t, { flags: FLAGS }), await crawlSite(t)),
  },
  {
    row: 7,
    name: "rolling restart, one after the other, under load",
    secondsMax: 240,
    run: async (t) => rollingRestart(t, await startGround(t, { flags: FLAGS })),
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
    row: 12,
    name: "grow 5 -> 9 and shrink to 5 under load",
    secondsMax: 280,
    run: async (t) => growAndShrink(t, await startGround(t, { flags: FLAGS })),
  },
  {
    row: 13,
    name: "server killed while it receives a partition; while it hands over; while it is removed",
    secondsMax: 280,
    run: async (t) => killedInChange(t, await startGround(t, { flags: [...FLAGS, ...REPLACE_SOON] })),
  },
  {
    row: 14,
    name: "disk full; write error",
    secondsMax: 240,
    run: (t) => fullDisk(t, FLAGS),
  },
  {
    row: 15,
    name: "bit flips in a store file",
    secondsMax: 240,
    run: async (t) => bitFlips(t, await startGround(t, { flags: FLAGS })),
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
    row: 18,
    name: "clock of one server 1 h ahead, then 1 h back",
    secondsMax: 200,
    run: (t) => wrongClock(t, FLAGS),
  },
  {
    row: 20,
    name: "the scraping process is killed",
    secondsMax: 200,
    run: async (t) => scrapingKilled(t, await startGround(t, { flags: FLAGS }), await crawlSite(t)),
  },
  {
    row: 25,
    name: "job cancelled, paused, deleted while servers die",
    secondsMax: 200,
    run: async (t) => jobChanges(t, await startGround(t, { flags: FLAGS }), await crawlSite(t)),
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
