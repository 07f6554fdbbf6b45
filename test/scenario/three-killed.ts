/** Row 5: three of five servers die: no majority is left, and nobody may pretend. */
import type { Test } from "tap";
import { EdgePorts, problemIn } from "../chaos/edge-port.ts";
import { allServed, type Ground, inSeconds, slowness, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";

/** A server answers within 5 s. */
const DEADLINE_MS = 8_000;
const ASKED = 20;

/** The first three servers die, two of them come back. */
export async function threeKilled(t: Test, ground: Ground): Promise<void> {
  const { servers, client, cluster } = ground;
  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(four, five), client(five, four)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);
  await load.stop();
  const ports = new EdgePorts(cluster.admin, cluster.ca);
  t.teardown(() => ports.close());
  await ports.signIn(four.edge);

  await Promise.all([one, two, three].map((server) => server.kill()));
  const asked = Array.from({ length: ASKED }, async (_, n) => {
    const { edge } = n % 2 === 0 ? four : five;
    const path = `/v1/kv/load/${encodeURIComponent(load.keys[n % load.keys.length]!)}`;
    const askedMs = performance.now();
    const answer = await ports.ask(edge, n % 4 < 2 ? "GET" : "PUT", path, n % 4 < 2 ? {} : { body: "no" });
    return {
      status: answer.status,
      retryAfter: answer.headers["retry-after"] !== undefined,
      reason: problemIn(answer)?.detail ?? "",
      tookMs: performance.now() - askedMs,
    };
  });
  const answers = await Promise.all(asked);
  const slowestMs = Math.max(...answers.map(({ tookMs }) => tookMs));

  t.same(
    answers.filter(({ status, retryAfter, reason }) => status !== 503 || !retryAfter || reason === ""),
    [],
    "all are refused, with a reason, and when to ask again",
  );
  t.ok(slowestMs < DEADLINE_MS * slowness(), `within the deadline: ${Math.round(slowestMs)} ms`);
  t.comment(`${ASKED} reads and writes: 503 after at most ${inSeconds(slowestMs)}: ${answers[0]?.reason}`);

  const restartedMs = performance.now();
  await Promise.all([one.restart(), two.restart()]);
  const alive = [one, two, four, five];
  await allServed(client(four, five), 5);
  await client(five).kv.set("load", "after", "yes");
  t.comment(`served again ${inSeconds(performance.now() - restartedMs)} after two were started`);
  // What was asked for in vain may have been written after all: it is known as "no".
  for (const server of alive) {
    const wrong: string[] = [];
    for (const text of await load.lost(ground.pinned(server)))
      if (!text.includes(": no instead of")) wrong.push(text);
    t.same(wrong, [], `nothing is lost, as ${server.nodeId.slice(0, 8)} says`);
  }
  await three.restart();
  await allServed(client(one), 5);
  t.equal((await client(three).kv.get("load", "after"))?.text(), "yes");
}
