/** Row 12: the cluster grows from five to nine servers and shrinks to five again, under load. */
import type { Test } from "tap";
import type { Client } from "../../src/sdk/client.ts";
import { type Ground, inSeconds, slowness, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import type { ServerProcess } from "../fixture/cluster.ts";
import { nothingLost, untilBalanced } from "./settled.ts";

const MOVED_MS_MAX = 120_000;
/** Three times what is promised. */
const GAP_MS_MAX = 3 * 3_000;

/**
 * Some of those that came go again, and as many of those that were there from the beginning. Arcs of those that
 * go are left to their neighbours until somebody joins: of no two neighbours both go.
 */
export async function growAndShrink(t: Test, ground: Ground): Promise<void> {
  const { cluster, client } = ground;
  const [one, , three, , five] = ground.servers;
  const load = new ValueLoad([client(one, three), client(three, one), client(five, one)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);

  const fromMs = performance.now();
  const added: ServerProcess[] = [];
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
  const leaving = apart(nine, [one]);
  const staying = nine.filter((server) => !leaving.includes(server));
  const originals = leaving.filter((server) => !added.includes(server));
  t.equal(originals.length, 2, "two that were there from the beginning go");
  for (const [n, server] of leaving.entries()) {
    await asker.cluster.drain(server.nodeId);
    await until("it keeps nothing any more", MOVED_MS_MAX, async () => {
      const node = (await asker.cluster.nodes()).find(({ nodeId }) => nodeId === server.nodeId);
      return node?.replicas === 0;
    });
    await asker.cluster.remove(server.nodeId);
    await server.stop();
    const which = originals.includes(server) ? "from the beginning" : "added";
    t.comment(
      `server ${n + 1} of four, ${which}, had left after ${inSeconds(performance.now() - leavingMs)}`,
    );
  }
  await untilMoved(
    asker,
    staying.map(({ nodeId }) => nodeId),
    leaving.map(({ nodeId }) => nodeId),
  );
  const answers = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answers + 200);
  await load.stop();

  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  t.ok(load.longestMs < GAP_MS_MAX * slowness(), "no gap in service");
  await untilBalanced(t, ground, performance.now(), staying);
  await nothingLost(t, ground, load, staying);
}

/** Two of the first five and two of the others, none of them beside another on the ring, and none of `staying`. */
function apart(servers: readonly ServerProcess[], staying: readonly ServerProcess[]): ServerProcess[] {
  const ring = servers.toSorted((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
  const choose = (from: number, chosen: readonly number[]): readonly number[] | undefined => {
    if (chosen.length === 4) {
      const originals = chosen.filter((at) => servers.indexOf(ring[at]!) < 5).length;
      const isApart = chosen.every((at) => !chosen.includes((at + 1) % ring.length));
      return originals === 2 && isApart ? chosen : undefined;
    }
    for (let at = from; at < ring.length; at++) {
      if (staying.includes(ring[at]!)) continue;
      const found = choose(at + 1, [...chosen, at]);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return (choose(0, []) ?? []).map((at) => ring[at]!);
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
