/** Three servers in one process, and bits that flip in the files of one of them. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Test, test } from "tap";
import { serverSettingsSchema } from "../../src/config.ts";
import { createLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/node/node.ts";

const PARTITIONS = 8;
const WAIT_MS = 30_000;
const KEYS = 400;

/** One server that can be stopped and started again; with what it logged. */
class Place {
  readonly data: string;
  readonly lines: string[] = [];
  #server: RunningServer | undefined;

  constructor(t: Test, data: string) {
    this.data = data;
    t.teardown(() => this.stop());
  }

  get server(): RunningServer {
    if (this.#server === undefined) throw new Error("it is stopped");
    return this.#server;
  }

  async start(more: object = {}): Promise<RunningServer> {
    const ports = this.#server === undefined ? {} : { peerPort: this.#server.peerAddress.port };
    const settings = serverSettingsSchema.parse({
      data: this.data,
      edgePort: 0,
      peerPort: 0,
      partitions: PARTITIONS,
      scrapeThreads: 1,
      ...ports,
      ...more,
    });
    const log = createLog({ level: "info", text: false, write: (line) => this.lines.push(line) });
    this.#server = await startServer(settings, log);
    await this.#server.ready;
    return this.#server;
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
  }

  logged(event: string): Record<string, unknown>[] {
    return this.lines.map((line) => JSON.parse(line)).filter((line) => line.event === event);
  }

  async files(pattern: RegExp): Promise<string[]> {
    const names = await readdir(join(this.data, "store"));
    return names.filter((name) => pattern.test(name)).map((name) => join(this.data, "store", name));
  }
}

async function until<T>(what: string, ask: () => Promise<T | false> | T | false): Promise<T> {
  for (const endMs = performance.now() + WAIT_MS; performance.now() < endMs; await pause(25)) {
    const answer = await ask();
    if (answer !== false) return answer;
  }
  throw new Error(`not within ${WAIT_MS} ms: ${what}`);
}

async function flip(file: string, at: (size: number) => number): Promise<void> {
  const bytes = await readFile(file);
  bytes[at(bytes.length)]! ^= 0x10;
  // In place: LevelDB has the file open.
  await writeFile(file, bytes, { flag: "r+" });
}

test("flipped bits are found, their file is kept, and the copies come back from the others", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-damage-"));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const [a, b, c] = ["a", "b", "c"].map((name) => new Place(t, join(directory, name)));
  const first = await a!.start({ bootstrap: true });
  for (const place of [b!, c!]) {
    const { token } = await first.backend.cluster.createJoinToken();
    const joinTokenFile = join(directory, "token");
    await writeFile(joinTokenFile, token, { mode: 0o600 });
    await place.start({ join: `127.0.0.1:${first.peerAddress.port}`, joinTokenFile });
  }
  const { registers } = first.backend;
  const full = () =>
    until("three copies of all", async () =>
      (await first.backend.cluster.partitions()).every(
        ({ leader, copies }) => leader !== null && copies === 3,
      ),
    );
  const key = (n: number) => `\x30key ${n}`;
  const wrong = async () => {
    let count = 0;
    for (let n = 0; n < KEYS; n++) {
      const operation = { kind: "get" as const, keys: [key(n)] };
      const outcome = await registers.operate(n % PARTITIONS, operation, { timeoutMs: 10_000 });
      const value = outcome.kind === "entries" ? outcome.entries[0]?.value : undefined;
      if (value?.length !== 2_000 || value.some((byte) => byte !== n % 251)) count++;
    }
    return count;
  };
  await full();
  for (let n = 0; n < KEYS; n++) {
    const changes = [{ kind: "put" as const, key: key(n), value: Buffer.alloc(2_000, n % 251) }];
    await registers.operate(
      n % PARTITIONS,
      { kind: "batch", changes, conditions: [] },
      { repeatable: true, timeoutMs: 10_000 },
    );
  }

  await t.test("in the log, at start", async (t) => {
    await b!.stop();
    const [log] = await b!.files(/\.log$/);
    await flip(log!, (size) => size >> 1);
    await b!.start();
    await full();

    const id = b!.server.nodeId;
    const led = await until("it leads again", async () => {
      const all = await first.backend.cluster.partitions();
      return all.find(({ leader }) => leader === id) ?? false;
    });
    const [told] = b!.logged("the store was set aside and is fetched again");
    const serial = Number(led.ballot?.slice(led.ballot.lastIndexOf("/") + 1));
    t.ok(serial > 1_000_000, `a lost memory never comes back under its old id: ${led.ballot}`);
    t.match(told, { error: { message: /\.log is damaged at byte \d+/ } }, "it names the file");
    t.match((await readdir(join(b!.data, "quarantine"))).join(), /store-/, "which is kept");
    t.equal(await wrong(), 0);
  });

  await t.test("in a table, by scrub", async (t) => {
    // Started again, so that what was fetched lies in tables.
    await b!.stop();
    // What it remembers of the last scrub is no better than the rest, and must not end all later ones.
    await writeFile(join(b!.data, "scrub.json"), "{");
    await b!.start({ scrubIntervalMs: 500 });
    await full();
    await until("all is well", () => b!.logged("scrub finished").length > 0);
    const tables = await b!.files(/\.ldb$/);
    const sizes = await Promise.all(tables.map(async (file) => (await readFile(file)).length));
    const largest = tables[sizes.indexOf(Math.max(...sizes))]!;
    await flip(largest, (size) => size >> 1);
    const found = await until("it is found", () => {
      return b!.logged("scrub finished").find((line) => Number(line.tables) > 0) ?? false;
    });
    await full();

    t.match(b!.logged("scrub finished")[0], { tables: 0, replicas: 0, blobs: 0 });
    t.ok(Number(found.replicas) >= 1 && Number(found.replicas) <= PARTITIONS, `${found.replicas} replicas`);
    const [told] = b!.logged("a table of the store is damaged");
    t.equal(told?.file, largest);
    t.ok((await readdir(join(b!.data, "quarantine"))).includes(largest.slice(largest.lastIndexOf("/") + 1)));
    t.equal(await wrong(), 0);
    const node = (await first.backend.cluster.nodes()).find(({ nodeId }) => nodeId === b!.server.nodeId);
    t.match(node?.scrubbedAt, /^\d{4}-/);
  });

  await t.test("the others without it are right as well", async (t) => {
    await b!.stop();
    t.equal(await wrong(), 0);
    const shown = await until("it counts no more", async () => {
      const status = await first.backend.cluster.status();
      return status.partitions.degraded === PARTITIONS && status;
    });
    t.match(shown, { durability: "degraded", partitions: { full: 0, unserved: 0, complete: 0 } });
    t.equal(first.readiness().durability, "degraded");
    t.equal(first.readiness().ready, true, "it works, and says what it lacks");
  });
});
