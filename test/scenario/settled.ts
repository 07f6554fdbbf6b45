/** What a cluster must come back to after a fault: all copies, the same everywhere, leaderships in balance. */
import type { Test } from "tap";
import { allServed, type Ground, inSeconds, until } from "../cluster/ground.ts";
import type { ValueLoad } from "../cluster/value-load.ts";
import type { ServerProcess } from "../fixture/cluster.ts";

/** Three times what is promised. */
const LEVEL_MS_MAX = 3 * 10_000;
const BALANCED_MS_MAX = 3 * 30_000;
/** Of the mean. */
const LED_MAX = 1.5;
const LOOKED_MS_MAX = 60_000;

/** All of `servers` keep the same copy of all that the load wrote; the load is over. @param backMs since when. */
export async function untilLevel(
  t: Test,
  ground: Ground,
  load: ValueLoad,
  backMs: number,
  servers: readonly ServerProcess[] = ground.servers,
): Promise<void> {
  const clients = servers.map((server) => ground.pinned(server));
  let differing: readonly string[] = [];
  const levelMs = await until("all replicas are identical", LEVEL_MS_MAX, async () => {
    differing = await load.differing(clients);
    return differing.length === 0 && performance.now() - backMs;
  }).catch((error: unknown) => {
    t.comment(`${differing.length} differ: ${differing.slice(0, 5).join("; ")}`);
    throw error;
  });
  t.comment(
    `all ${servers.length} copies of ${load.keys.length} values identical ${inSeconds(levelMs)} after`,
  );
}

/** Nobody leads more than half as much again as the others on average. */
export async function untilBalanced(
  t: Test,
  ground: Ground,
  backMs: number,
  servers: readonly ServerProcess[] = ground.servers,
): Promise<void> {
  const client = ground.client(...servers);
  const { balancedMs, led } = await until("leaderships are in balance", BALANCED_MS_MAX, async () => {
    const led = (await client.cluster.nodes()).map(({ leads }) => leads ?? 0);
    const mean = led.reduce((sum, one) => sum + one, 0) / servers.length;
    const isBalanced = led.length >= servers.length && Math.max(...led) <= LED_MAX * mean;
    return isBalanced && { balancedMs: performance.now() - backMs, led };
  });
  t.comment(`leaderships in balance (${led.join(", ")}) ${inSeconds(balancedMs)} after`);
}

/** Nothing that the load wrote is missing, whichever server is asked. */
export async function nothingLost(
  t: Test,
  ground: Ground,
  load: ValueLoad,
  servers: readonly ServerProcess[] = ground.servers,
): Promise<void> {
  await allServed(ground.client(...servers), 1);
  for (const server of servers) {
    t.same(
      await load.lost(ground.pinned(server, LOOKED_MS_MAX)),
      [],
      `nothing is lost, as ${server.nodeId.slice(0, 8)} says`,
    );
  }
}
