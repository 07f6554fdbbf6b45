/** Rows 3 and 4: two servers die at the same moment under load; what comes back afterwards, with its disk or without. */
import { rm } from "node:fs/promises";
import type { Test } from "tap";
import { type Ground, inSeconds, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { watchTakeover } from "../fixture/takeover.ts";
import { nothingLost, untilBalanced, untilLevel } from "./settled.ts";

const GROUPS_MS_MAX = 90_000;

/** Row 3. The second and the fifth server die. */
export async function twoRestarted(t: Test, ground: Ground): Promise<void> {
  const [, two, , , five] = ground.servers;
  const load = await underLoad(t, ground);

  await killBoth(t, ground, load);
  await Promise.all([two.restart(), five.restart()]);
  const backMs = performance.now();
  const answersAtReturn = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersAtReturn + 100);
  await load.stop();

  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await untilLevel(t, ground, load, backMs);
  await untilBalanced(t, ground, backMs);
  await nothingLost(t, ground, load);
}

/** Row 4. The second and the fifth server die; the second loses its disk, and the fifth comes back at the end only. */
export async function oneEmptied(t: Test, ground: Ground): Promise<void> {
  const { cluster, client } = ground;
  const [one, two, three, four, five] = ground.servers;
  const lostId = two.nodeId;
  const load = await underLoad(t, ground);

  await killBoth(t, ground, load);
  await rm(two.directory, { recursive: true });
  await cluster.join(two);
  const joinedMs = performance.now();
  t.not(two.nodeId, lostId, "it is a new node");
  const asker = client(one, three, four);
  const wholeMs = await until("groups have five members again", GROUPS_MS_MAX, async () => {
    const groups = await asker.cluster.partitions();
    const isWhole = groups.every(({ members }) => members.length === 5 && members.includes(two.nodeId));
    return isWhole && performance.now() - joinedMs;
  });
  const answersWhole = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersWhole + 100);
  await load.stop();

  t.comment(`groups had five members again ${inSeconds(wholeMs)} after it joined`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await untilLevel(t, ground, load, performance.now(), [one, two, three, four]);
  await nothingLost(t, ground, load, [one, two, three, four]);
  await five.restart();
  const returnedMs = performance.now();
  const goneMs = await until("the lost one is replaced everywhere", GROUPS_MS_MAX, async () => {
    const groups = await asker.cluster.partitions();
    return (
      groups.every(({ members }) => members.length === 5 && !members.includes(lostId)) &&
      performance.now() - returnedMs
    );
  });
  t.comment(`no group names the lost one any more ${inSeconds(goneMs)} after the other had come back`);
  await untilLevel(t, ground, load, performance.now());
}

async function underLoad(t: Test, { servers, client }: Ground): Promise<ValueLoad> {
  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(two, one), client(three, four), client(five, three)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);
  return load;
}

async function killBoth(t: Test, { servers, client }: Ground, load: ValueLoad): Promise<void> {
  const [one, two, , , five] = servers;
  const takeoverMs = await watchTakeover(client(one), [two.nodeId, five.nodeId], () =>
    Promise.all([two.kill(), five.kill()]),
  );
  const answersAtTakeover = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersAtTakeover + 300);
  t.comment(
    `two killed: led again after ${Math.round(takeoverMs ?? 0)} ms, longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`,
  );
}
