/** Five or more real servers for a benchmark, and what each of them spends. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { z } from "zod";
import { type Client, createClient } from "../../src/sdk/client.ts";
import { type Cluster, type ServerProcess, startCluster } from "../fixture/cluster.ts";
import { toldSchema } from "./kv-probe.ts";

const PROBE = fileURLToPath(new URL("./kv-probe.ts", import.meta.url));
const SETTLED_MS = 1_000;
const SETTLED_MS_MAX = 30_000;
const LOOK_MS = 100;
const TOLD_MS_MAX = 10_000;

/** What a server has spent since its start. */
export interface Spent extends Omit<z.output<typeof toldSchema>, "probe"> {
  /** Given to write calls, for connections and files alike. */
  readonly writtenBytes: number;
  /** Got from read calls. */
  readonly readBytes: number;
}

export class Ground {
  readonly cluster: Cluster;
  readonly client: Client;
  readonly directory: string;
  #probes = 0;

  private constructor(cluster: Cluster, client: Client, directory: string) {
    this.cluster = cluster;
    this.client = client;
    this.directory = directory;
  }

  /** Resolves when each group has all its members and leaders move no more. */
  static async start(nodes: number, flags: readonly string[] = []): Promise<Ground> {
    const directory = await mkdtemp(join(tmpdir(), "orbweaver-bench-"));
    const cluster = await startCluster({
      nodes,
      dataDirectory: directory,
      allowAddresses: ["127.0.0.0/8"],
      flags: ["--scrape-threads", "1", "--log-level", "warn", ...flags],
      place: () => ({ environment: { NODE_OPTIONS: `--import ${PROBE}` } }),
    });
    const edges = cluster.servers.map(({ edge }) => edge);
    const client = createClient({ servers: edges, ...cluster.admin, ca: cluster.ca });
    const ground = new Ground(cluster, client, directory);
    try {
      await ground.settled();
    } catch (error) {
      await ground.stop();
      throw error;
    }
    return ground;
  }

  get servers(): readonly ServerProcess[] {
    return this.cluster.servers;
  }

  /** Waits until all partitions have had the same leaders for a while. */
  async settled(): Promise<void> {
    const deadline = performance.now() + SETTLED_MS_MAX;
    let seen = "";
    let sinceMs = performance.now();
    while (performance.now() - sinceMs < SETTLED_MS) {
      const partitions = await this.client.cluster.partitions();
      const leaders = partitions.map(({ leader }) => leader ?? "?").join();
      if (leaders !== seen || leaders.includes("?")) {
        seen = leaders;
        sinceMs = performance.now();
      }
      if (performance.now() > deadline) throw new Error("leaders still move");
      await pause(LOOK_MS);
    }
  }

  async spent(server: ServerProcess): Promise<Spent> {
    const { probe: _, ...told } = await this.#ask(server, { probe: "spent" });
    const io = readFileSync(`/proc/${server.process.pid}/io`, "utf8");
    const read = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, "m").exec(io)?.[1]);
    return { ...told, writtenBytes: read("wchar"), readBytes: read("rchar") };
  }

  /** Of all running servers together. */
  async spentByAll(): Promise<Spent> {
    const all = await Promise.all(
      this.servers.filter(({ isRunning }) => isRunning).map((server) => this.spent(server)),
    );
    const sum = (of: keyof Spent) => all.reduce((total, one) => total + one[of], 0);
    return {
      cpuUs: sum("cpuUs"),
      fsyncs: sum("fsyncs"),
      storedBytes: sum("storedBytes"),
      receivedBytes: sum("receivedBytes"),
      writtenBytes: sum("writtenBytes"),
      readBytes: sum("readBytes"),
    };
  }

  /** Samples a server for `ms` and writes `file`. */
  async profile(server: ServerProcess, ms: number, file: string): Promise<void> {
    await this.#ask(server, { probe: "profile", ms, file }, ms);
  }

  async stop(): Promise<void> {
    await this.client.close();
    // What they hold is thrown away: no need to hand anything over.
    await Promise.all(this.servers.map((server) => server.kill()));
    await rm(this.directory, { recursive: true, force: true });
  }

  #ask(server: ServerProcess, question: object, ms = 0): Promise<z.output<typeof toldSchema>> {
    const id = ++this.#probes;
    const child = server.process;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        child.off("message", hear);
        reject(new Error(`${server.directory}: the server did not tell what it has spent`));
      }, TOLD_MS_MAX + ms);
      const hear = (message: unknown) => {
        const told = toldSchema.safeParse(message);
        if (!told.success || told.data.probe !== id) return;
        clearTimeout(timer);
        child.off("message", hear);
        resolve(told.data);
      };
      child.on("message", hear);
      child.send({ ...question, id });
    });
  }
}

export function less(after: Spent, before: Spent): Spent {
  return {
    cpuUs: after.cpuUs - before.cpuUs,
    fsyncs: after.fsyncs - before.fsyncs,
    storedBytes: after.storedBytes - before.storedBytes,
    receivedBytes: after.receivedBytes - before.receivedBytes,
    writtenBytes: after.writtenBytes - before.writtenBytes,
    readBytes: after.readBytes - before.readBytes,
  };
}
