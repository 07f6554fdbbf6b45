/** Row 7: all servers are stopped and started, one after the other, under load. */
import type { Test } from "tap";
import { allServed, type Ground, inSeconds, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { nothingLost, untilLevel } from "./settled.ts";

export async function rollingRestart(t: Test, ground: Ground): Promise<void> {
  const { servers, client } = ground;
  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(one, two), client(three, four), client(five, one), client(four, five)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);

  const fromMs = performance.now();
  for (const [n, server] of servers.entries()) {
    const { nodeId } = server;
    await server.stop();
    await server.restart();
    t.equal(server.nodeId, nodeId, "it is the same node");
    const other = client(servers[(n + 1) % servers.length]!);
    await allServed(other, 5);
    await until("it is seen alive", 20_000, async () =>
      (await other.cluster.nodes()).every(({ state }) => state === "alive"),
    );
  }
  const backMs = performance.now();
  const answersAtEnd = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersAtEnd + 100);
  await load.stop();

  t.comment(`five restarts in ${inSeconds(backMs - fromMs)}`);
  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await untilLevel(t, ground, load, backMs);
  await nothingLost(t, ground, load);
}
