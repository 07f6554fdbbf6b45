/** What one server may do to the other four: die under load, come back as the same, as another one or from the past, speak nonsense. */
import { rm } from "node:fs/promises";
import { t as tap, test } from "tap";
import { ServerProcess } from "../fixture/cluster.ts";
import { createSite } from "../fixture/site/site.ts";
import { heldOverTakeover } from "../scenario/held-over-takeover.ts";
import { oldCopy } from "../scenario/old-copy.ts";
import { oneKilled } from "../scenario/one-killed.ts";
import { strangeMessages } from "../scenario/strange-messages.ts";
import { allServed, lastWord, startGround, until } from "./ground.ts";

tap.setTimeout(200_000);

test("one server that fails", async (t) => {
  const site = await createSite({ hosts: 2, pages: 60 });
  t.teardown(() => site.close());
  const ground = await startGround(t);

  await t.test("one server killed (SIGKILL) under load", (t) => oneKilled(t, ground, site.homes[0]!));
  await t.test("locks and watches outlive the leader behind them", (t) => heldOverTakeover(t, ground));
  await t.test("two processes on one data directory: the second refuses to start", async (t) => {
    const [one] = ground.servers;
    const second = new ServerProcess(one.directory, ["--scrape-threads", "1"]);

    await t.rejects(second.start([]), { message: /ended before it was ready/ });

    await lastWord(
      one,
      new RegExp(`is in use by process ${one.process.pid}; stop it first, or give .*--data`),
    );
    t.ok((await ground.pinned(one).cluster.status()).ready, "the first one goes on");
  });

  await t.test("a server that comes back is the same node, in its next start", async (t) => {
    const [one, , three] = ground.servers;
    const { nodeId } = three;
    const others = ground.client(one);
    const startsOf = async () =>
      (await others.cluster.nodes()).find((node) => node.nodeId === nodeId)?.incarnation;
    const starts = (await startsOf())!;

    await three.stop();
    await three.restart();

    t.equal(three.nodeId, nodeId);
    await until("the others know of its next start", 20_000, async () => (await startsOf()) === starts + 1);
    t.equal((await others.cluster.nodes()).length, 5, "and no other node came with it");
  });

  await t.test("malformed, oversized, repeated and out-of-order peer messages", (t) =>
    strangeMessages(t, ground),
  );
  await t.test("an old copy of a data directory is started", (t) => oldCopy(t, ground));

  await t.test("a server with an empty data directory is a new node", async (t) => {
    const [one, two, three, four, five] = ground.servers;
    const { nodeId } = five;
    await allServed(ground.client(one), 4);
    const before = (await ground.client(one).jobs.list({ limit: 1000 })).items.map(({ id }) => id);

    await five.kill();
    await rm(five.directory, { recursive: true });
    await t.rejects(five.start([]), { message: /ended before it was ready/ }, "by itself it makes nothing");
    await lastWord(five, /there is no such data directory|holds no server yet/);
    await ground.cluster.join(five);

    t.not(five.nodeId, nodeId);
    const nodes = await ground.client(two, three, four).cluster.nodes();
    t.ok(nodes.some((node) => node.nodeId === five.nodeId && node.state === "alive"));
    t.same(
      (await ground.pinned(five).jobs.list({ limit: 1000 })).items.map(({ id }) => id),
      before,
      "and it serves what the cluster holds",
    );
  });
});
