/** Row 12: the cluster grows from five to nine servers and shrinks to five again, under load. */
import type { Test } from "tap";
import type { Client } from "../../src/sdk/client.ts";
import { type Ground, inSeconds, slowness, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { nothingLost, untilBalanced } from "./settled.ts";

const MOVED_MS_MAX = 120_000;
/** Three times what is promised. */
const GAP_MS_MAX = 3 * 3_000;

/** Those that came go again: the arcs of others that go are left to their neighbours until somebody joins. */
export async function growAndShrink(t: Test, ground: Ground): Promise<void> {
  const { cluster, client } = ground;
  const [one, , three, , five] = ground.servers;
  const load = new ValueLoad([client(one, three), client(three, five), client(five, one)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);

  const fromMs = performance.now();
  const added = [];
  for (let n = 0; n < 4; n++) added.push(await cluster.add());
  const nine = [...ground.servers, ...added];
  const asker = client(one, three, five);
  await untilMoved(
    asker,
    nine.map(({ nodeId }) => nodeId),
    [],
  );
  t.comment(
    `nine servers, with all groups where they shall be, after ${inSeconds(performance.now() - fromMs)}`,
  );
  await untilBalanced(t, ground, performance.now(), nine);
  const shares = (await asker.cluster.nodes()).map(({ arcShare }) => arcShare ?? 0);
  t.ok(
    Math.max(...shares) <= 2.1 / 9,
    `the largest arc is ${(Math.max(...shares) * 9).toFixed(2)} of the mean`,
  );

  const leavingMs = performance.now();
  for (const [n, server] of added.entries()) {
    await asker.cluster.drain(server.nodeId);
    await until("it keeps nothing any more", MOVED_MS_MAX, async () => {
      const node = (await asker.cluster.nodes()).find(({ nodeId }) => nodeId === server.nodeId);
      return node?.replicas === 0;
    });
    await asker.cluster.remove(server.nodeId);
    await server.stop();
    t.comment(`server ${n + 1} of four had left after ${inSeconds(performance.now() - leavingMs)}`);
  }
  await untilMoved(
    asker,
    ground.servers.map(({ nodeId }) => nodeId),
    added.map(({ nodeId }) => nodeId),
  );
  const answers = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answers + 200);
  await load.stop();

  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  t.ok(load.longestMs < GAP_MS_MAX * slowness(), "no gap in service");
  await untilBalanced(t, ground, performance.now());
  await nothingLost(t, ground, load);
}

/** All of `present` keep something, none of `gone` does, and each group has five members. */
async function untilMoved(
  client: Client,
  present: readonly string[],
  gone: readonly string[],
): Promise<void> {
  await until("groups are where they shall be", MOVED_MS_MAX, async () => {
    const groups = await client.cluster.partitions();
    const kept = new Set(groups.flatMap(({ members }) => members));
    return (
      groups.every(({ leader, members }) => leader !== null && members.length === 5) &&
      present.every((nodeId) => kept.has(nodeId)) &&
      !gone.some((nodeId) => kept.has(nodeId))
    );
  });
}
