/** Row 9: two of five servers are cut off from the other three for half a minute, with clients on both sides. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import {
  allServed,
  inSeconds,
  slowness,
  startGround,
  until,
  untilOneRing,
  untilOver,
} from "../cluster/ground.ts";
import { Lan, lanObstacle } from "../cluster/lan.ts";
import { SmallJobs } from "../cluster/small-jobs.ts";
import { watchTakeover } from "../fixture/takeover.ts";
import { leaveOut } from "./scenario.ts";

const SPLIT_MS = 30_000;
/** Three times what is promised. */
const TAKEOVER_MS_MAX = 3 * 3_000;
const RING_MS_MAX = 3 * 10_000;
/** What a server needs to find out that it has no majority, and then to refuse. */
const REFUSAL_MS_MAX = 15_000;

/** Needs network namespaces. */
export async function netsplit(t: Test): Promise<void> {
  const obstacle = await lanObstacle();
  if (obstacle !== undefined) return leaveOut(t, obstacle);
  const lan = await Lan.make(5);
  t.teardown(() => lan.close());
  const page = await listen(t, lan.address);
  const ground = await startGround(t, {
    flags: ["--partitions", "32"],
    place: (index) => lan.place(index),
    allowAddresses: [`${lan.address}/32`],
  });
  const { servers, client, pinned } = ground;
  const [one, two, three, four, five] = servers;
  const majority = client(one, three, five);
  const minority = [two, four];
  const load = new SmallJobs([client(one, three), client(three, five), client(two, four)], page, {
    everyMs: 200,
    jobsMax: 900,
  });
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.acknowledged.size >= 10);

  const splitAtMs = performance.now();
  const takeoverMs = await watchTakeover(
    majority,
    minority.map(({ nodeId }) => nodeId),
    () =>
      lan.split([
        [0, 2, 4],
        [1, 3],
      ]),
  );
  const doubted = [...load.acknowledged.keys()].slice(0, 10);
  // Clients of the minority alone; before their servers have heard of the split they are not asked.
  const probing = minority.flatMap((server) =>
    doubted.map(async (id) => {
      const probe = pinned(server, REFUSAL_MS_MAX);
      const askedMs = performance.now();
      const outcome = await probe.jobs.pause(id).then(
        () => "acknowledged",
        (error: unknown) => (error instanceof Error && "code" in error ? String(error.code) : String(error)),
      );
      return { outcome, tookMs: performance.now() - askedMs };
    }),
  );
  const answersAtSplit = load.answers;
  const probes = await Promise.all(probing);
  await until("the majority goes on", 20_000, () => load.answers >= answersAtSplit + 20);
  await pause(Math.max(0, SPLIT_MS - (performance.now() - splitAtMs)));
  const duringSplit = load.answers - answersAtSplit;
  const healedMs = performance.now();
  await lan.heal();
  const ringMs = await untilOneRing(majority, 5, RING_MS_MAX);
  await allServed(majority, 5);
  const copiedMs = performance.now() - healedMs;
  const answersAtHeal = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersAtHeal + 20);
  await load.stop();

  t.comment(
    `the majority led all after ${Math.round(takeoverMs ?? 0)} ms and answered ${duringSplit} calls in the split`,
  );
  t.comment(
    `${probes.length} calls to the minority alone: ${[...new Set(probes.map(({ outcome }) => outcome))].join(", ")}, at most after ${inSeconds(Math.max(...probes.map(({ tookMs }) => tookMs)))}`,
  );
  t.comment(`one ring ${inSeconds(ringMs)} after healing, all copies ${inSeconds(copiedMs)}`);
  t.ok(takeoverMs !== null && takeoverMs < TAKEOVER_MS_MAX * slowness(), "the majority took over");
  t.same(
    probes.filter(({ outcome }) => outcome !== "UNAVAILABLE" && outcome !== "OUTCOME_UNKNOWN"),
    [],
    "the minority refuses",
  );
  t.same(load.failed, [], `none of ${load.answers} calls of clients that know all servers failed`);
  t.comment(
    `longest of ${load.answers} calls of clients that know all servers ${inSeconds(load.longestMs)}, ${load.failed.length} failed`,
  );
  const known = [...load.acknowledged];
  for (const [id] of known) await untilOver(majority, id, 20_000);
  for (const server of servers) {
    const listed = (await pinned(server).jobs.list({ limit: 1000 })).items;
    const found = new Map(listed.map((job) => [job.id, job]));
    const lost = known
      .filter(([id, name]) => {
        const job = found.get(id);
        return job?.name !== name || job.status !== "completed" || job.stats.results !== 1;
      })
      .map(([id, name]) => `${name}: ${found.get(id)?.status}`);
    t.same(lost, [], `all ${known.length} jobs ended with their page, as ${server.nodeId.slice(0, 8)} says`);
  }
}

/** A page for jobs, on the clients' network. */
async function listen(t: Test, host: string): Promise<string> {
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>a page</title><p>text");
  });
  server.listen(0, host);
  await once(server, "listening");
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://${host}:${(server.address() as AddressInfo).port}/`;
}
