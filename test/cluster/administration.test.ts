/** What operators do to real servers: one is drained, stopped and removed; partitions go on after their majority is lost. */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { t as tap, test } from "tap";
import { identifierOf, type NodeId, positionOf } from "../../src/ring/identifier.ts";
import type { Client, NodeStatus } from "../../src/sdk/client.ts";
import { orbweaver } from "../cli/command.ts";
import { ServerProcess } from "../fixture/cluster.ts";
import { allServed, startGround, until } from "./ground.ts";

tap.setTimeout(100_000);

const PARTITIONS = 16;
const BALANCE_MS_MAX = 30_000;

test("a server is drained and removed, and later three of four are lost for good", async (t) => {
  const ground = await startGround(t, { flags: ["--partitions", String(PARTITIONS)] });
  const { servers, client, directory } = ground;
  const [one, two, three, four, five] = servers;
  const { admin, ca } = ground.cluster;
  const reader = client(one, two, three, four);
  const profile = async (...edges: readonly string[]) => {
    const path = join(directory, "client.json");
    await writeFile(path, JSON.stringify({ servers: edges, ca, ...admin }), { mode: 0o600 });
    return ["--profile", path];
  };
  const command = async (args: readonly string[], edge = one.edge) =>
    orbweaver([...args, ...(await profile(edge))], { cwd: directory });
  const writer = new SteadyWriter(client(one, two, three, four, five));

  await t.test("leaders are where the ring wants them", async (t) => {
    await until("each first live member leads", BALANCE_MS_MAX, () => isInPlace(reader));
    const leads = (await reader.cluster.nodes()).map((node) => node.leads ?? 0);
    t.ok(Math.max(...leads) <= (1.5 * PARTITIONS) / 5 + 1, `leaderships: ${leads}`);
  });

  await t.test("a server that was stopped is away, and is not forgotten", async (t) => {
    const { edge, nodeId } = four;
    await four.stop();
    await until("it is away", 10_000, async () => (await nodeOf(reader, four))?.state === "away");
    const node = await nodeOf(reader, four);
    const { partitions } = await reader.cluster.status();
    const status = await command(["cluster", "status"]);
    await four.restart();
    await allServed(reader, 5);
    await until("leaders are in place", BALANCE_MS_MAX, () => isInPlace(reader));

    t.match(node, { edge, membership: "active", incarnation: null, replicas: null });
    t.same(partitions, { full: PARTITIONS, degraded: 0, unserved: 0, complete: 0 });
    t.match(status.stdout, /1 of which is away/);
    t.match(await nodeOf(reader, four), { nodeId, state: "alive", replicas: PARTITIONS });
  });

  await t.test("a server that drains may be taken back", async (t) => {
    const drained = await command(["cluster", "drain", four.nodeId.slice(0, 12), "--no-wait"]);
    await until("something has left it", 20_000, async () => {
      return ((await nodeOf(reader, four))?.replicas ?? PARTITIONS) < PARTITIONS;
    });
    const kept = await command(["cluster", "drain", four.nodeId, "--undo"]);
    await allServed(reader, 5);
    await until("leaders are in place", BALANCE_MS_MAX, () => isInPlace(reader));

    t.equal(drained.code, 0, drained.stderr);
    t.equal(kept.code, 0, kept.stderr);
    t.match(await nodeOf(reader, four), { membership: "active", replicas: PARTITIONS });
  });

  await t.test("drain shows what is left until nothing is, and clients notice nothing", async (t) => {
    writer.start();
    const drained = await command(["cluster", "drain", five.nodeId.slice(0, 8)]);
    const node = await nodeOf(reader, five);
    const partitions = await reader.cluster.partitions();
    await until("leaders are in place", BALANCE_MS_MAX, () => isInPlace(reader));
    const failures = await writer.stop();

    t.equal(drained.code, 0, drained.stderr);
    t.match(drained.stderr, /left on [0-9a-f]{8}: \d+ leaderships, \d+ copies, 0 blobs/);
    t.match(drained.stdout, /nothing is left on server/);
    t.match(node, { membership: "draining", state: "alive", leads: 0, replicas: 0 });
    t.same(new Set(partitions.map(({ copies }) => copies)), new Set([4]), "the others keep all");
    t.same(failures, []);
    t.ok(writer.acknowledged.size > 20, `${writer.acknowledged.size} writes`);
    await writer.check(t, reader);
  });

  await t.test("a removed server is refused, whoever starts it", async (t) => {
    const removed = await command(["cluster", "remove", five.nodeId]);
    await until("it stops by itself", 10_000, () => !five.isRunning);
    const back = await five.restart().then(
      () => "it is back",
      (error: Error) => error.message,
    );
    const nodes = await reader.cluster.nodes();

    t.equal(removed.code, 0, removed.stderr);
    t.match(back, /removed/);
    t.match(back, /--as-new --join HOST:PORT --join-token-file FILE/);
    t.notOk(
      nodes.some(({ nodeId }) => nodeId === five.nodeId),
      "nobody speaks of it any more",
    );
  });

  await t.test("partitions go on from the survivor, by an operator's word only", async (t) => {
    const lost = [two, three, four];
    await Promise.all(lost.map((server) => server.kill()));
    await Promise.all(lost.map((server) => rm(server.directory, { recursive: true })));
    const asked = await command(["cluster", "recover"], one.edge);
    const alone = client(one);
    const recovered = await command(["cluster", "recover", "--yes", "--json"], one.edge);
    await until("all are led again", 20_000, async () =>
      (await alone.cluster.partitions()).every(({ leader }) => leader === one.nodeId),
    );

    t.equal(asked.code, 2, "it asks, and nobody is there to answer");
    t.match(asked.stderr, /16 partitions have no majority of their copies/);
    t.match(asked.stderr, /<- goes on from here/);
    t.match(asked.stderr, /lost/);
    t.equal(recovered.code, 0, recovered.stderr);
    t.equal(JSON.parse(recovered.stdout).recovered.length, PARTITIONS);
    await writer.check(t, alone);
    const audit = await command(["audit"], one.edge);
    t.match(
      audit.stdout,
      /admin {2}cluster\.drain {2}[0-9a-f]{40}\n.*cluster\.keep.*\n.*cluster\.drain.*\n4 {2}.*cluster\.remove.*\n5 {2}.*cluster\.recover {2}0,1,2/,
    );

    const { token } = await alone.cluster.createJoinToken();
    const tokenFile = join(directory, "join-token-new");
    await writeFile(tokenFile, token, { mode: 0o600 });
    const fresh = new ServerProcess(join(directory, "server-6"), ["--scrape-threads", "1"]);
    t.teardown(() => fresh.stop());
    await fresh.start(["--join", one.peer, "--join-token-file", tokenFile]);
    await until("the groups grow again", 30_000, async () =>
      (await alone.cluster.partitions()).every(({ copies }) => copies === 2),
    );
  });
});

async function nodeOf(client: Client, server: ServerProcess): Promise<NodeStatus | undefined> {
  return (await client.cluster.nodes()).find(({ nodeId }) => nodeId === server.nodeId);
}

/** Whether each partition is led by the first node at or after its place that lives and stays. */
async function isInPlace(client: Client): Promise<boolean> {
  const nodes = (await client.cluster.nodes()).filter(
    ({ state, membership }) => state === "alive" && membership === "active",
  );
  const ring = nodes
    .map(({ nodeId }) => nodeId as NodeId)
    .sort((a, b) => (identifierOf(a) < identifierOf(b) ? -1 : 1));
  return (await client.cluster.partitions()).every(({ partition, leader }) => {
    const position = positionOf(partition, PARTITIONS);
    const wished = ring.find((nodeId) => identifierOf(nodeId) >= position) ?? ring[0];
    return leader === wished;
  });
}

/** One write after another until it is stopped; remembers what was acknowledged. */
class SteadyWriter {
  readonly acknowledged = new Map<string, string>();
  readonly #client: Client;
  readonly #failures: unknown[] = [];
  #running: Promise<void> | undefined;
  #isStopping = false;

  constructor(client: Client) {
    this.#client = client;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<unknown[]> {
    this.#isStopping = true;
    await this.#running;
    return this.#failures;
  }

  async check(t: { fail(message: string): unknown }, client: Client): Promise<void> {
    for (const [key, text] of this.acknowledged) {
      const found = await client.kv.get("steady", key);
      if (found?.text() !== text) t.fail(`${key} was acknowledged as ${text} and is ${found?.text()}`);
    }
  }

  async #run(): Promise<void> {
    for (let n = 0; !this.#isStopping; n++) {
      const key = `key ${n % 64}`;
      try {
        await this.#client.kv.set("steady", key, `value ${n}`);
        this.acknowledged.set(key, `value ${n}`);
      } catch (error) {
        this.#failures.push(error);
      }
    }
  }
}
