/** Row 13: a server is killed while it receives its partitions, while it hands over, while it is removed. */
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import { allServed, type Ground, inSeconds, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { nothingLost } from "./settled.ts";

const WHOLE_MS_MAX = 120_000;

export async function killedInChange(t: Test, ground: Ground): Promise<void> {
  const { cluster, client, servers } = ground;
  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(one, two), client(two, three), client(three, one)], { keys: 60 });
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 400);
  const asker = client(one, two, three);
  const keptBy = async (id: string) =>
    (await asker.cluster.partitions()).filter(({ members }) => members.includes(id)).length;
  /** Five members in each group, none of them `gone`. */
  const untilWhole = (gone: readonly string[]) =>
    until("groups are whole", WHOLE_MS_MAX, async () => {
      const groups = await asker.cluster.partitions();
      return groups.every(
        ({ leader, members }) =>
          leader !== null && members.length === 5 && !members.some((id) => gone.includes(id)),
      );
    });

  const six = await cluster.add();
  await until("it gets its first copies", WHOLE_MS_MAX, async () => (await keptBy(six.nodeId)) > 0);
  await six.kill();
  t.comment(`killed while it receives: it had ${await keptBy(six.nodeId)} of 32 partitions by then`);
  await pause(2_000);
  await six.restart();
  const sixMs = performance.now();
  await until("it gets its share", WHOLE_MS_MAX, async () => (await keptBy(six.nodeId)) > 0);
  await untilWhole([]);
  t.comment(`all groups whole ${inSeconds(performance.now() - sixMs)} after it came back`);

  four.process.kill("SIGTERM");
  await pause(20);
  await four.kill();
  await four.restart();
  const fourMs = performance.now();
  await allServed(asker, 5);
  await untilWhole([]);
  t.comment(`killed while it hands over: whole ${inSeconds(performance.now() - fourMs)} after it came back`);

  const before = await keptBy(five.nodeId);
  await asker.cluster.drain(five.nodeId);
  await until(
    "some of its copies have moved",
    WHOLE_MS_MAX,
    async () => (await keptBy(five.nodeId)) < before,
  );
  const left = await keptBy(five.nodeId);
  await five.kill();
  const killedMs = performance.now();
  await untilWhole([five.nodeId]);
  await asker.cluster.remove(five.nodeId);
  t.comment(
    `killed while it is removed, with ${left} of ${before} partitions left: whole without it after ${inSeconds(performance.now() - killedMs)}`,
  );
  const answers = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answers + 200);
  await load.stop();

  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await nothingLost(t, ground, load, [one, two, three, four, six]);
}
