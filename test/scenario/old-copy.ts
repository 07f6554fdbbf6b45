/** Row 16: an old copy of a data directory is started. */
import { cp, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Test } from "tap";
import { allServed, type Ground, lastWord, logOf, until } from "../cluster/ground.ts";

/** Puts the second server's directory back to an earlier state; at the end it is another node. */
export async function oldCopy(t: Test, ground: Ground): Promise<void> {
  const { servers, client } = ground;
  const [one, two, three, four, five] = servers;
  const others = client(one, three, four, five);
  const nodeId = two.nodeId;
  const before = (await others.jobs.list({ limit: 1000 })).items.map(({ id, status }) => ({ id, status }));
  await two.kill();
  const copy = join(ground.directory, "copy");
  await cp(two.directory, copy, { recursive: true });
  await two.restart();
  // Long enough to have been heard: it is a member again.
  await allServed(others, 5);
  await two.kill();
  await rename(two.directory, join(ground.directory, "newer"));
  await rename(copy, two.directory);

  let word = "";
  for (const start of ["the first start", "a repeated start"]) {
    const refused = two.start([]);
    const { process } = two;
    await t.rejects(refused, { message: /ended before it was ready/ }, `${start} is refused`);
    t.equal(process.exitCode, 1, "with an exit code that says so");
    word = await lastWord(two, /is an old copy.*--as-new --join HOST:PORT --join-token-file FILE/);
  }
  t.equal(
    (await logOf(two)).filter(({ event }) => event === "data directory is stale").length,
    1,
    "the second time it does not even ask the others",
  );

  await ground.cluster.join(two, ["--as-new"]);
  t.not(two.nodeId, nodeId, "with --as-new it joins as a new node");
  const joined = client(two);
  const member = (await joined.cluster.nodes()).find((node) => node.self);
  t.match(member, { nodeId: two.nodeId, state: "alive" });
  await until("the others know it", 20_000, async () =>
    (await others.cluster.nodes()).some((node) => node.nodeId === two.nodeId && node.state === "alive"),
  );
  t.same(
    (await joined.jobs.list({ limit: 1000 })).items.map(({ id, status }) => ({ id, status })),
    before,
    "and serves what the cluster holds",
  );
  t.comment(`refused twice: ${word}`);
  t.equal(joined.server, two.edge, "by itself");
}
