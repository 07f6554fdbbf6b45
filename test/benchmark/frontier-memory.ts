/**
 * A frontier of a million URLs: what its leader keeps in memory of it. The real
 * state machine and the real entries, in LevelDB; what replication and the network
 * would add is left out, so that a minute is enough.
 *
 * By itself: `node test/benchmark/frontier-memory.ts [URLS]`.
 */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { ClassicLevel } from "classic-level";
import { Frontier } from "../../src/frontier/frontier.ts";
import type { OfferedPage } from "../../src/frontier/page.ts";
import type { Outcome } from "../../src/frontier/verdict.ts";
import { jobSpecSchema } from "../../src/job/job-spec.ts";
import { FrontierStore } from "../../src/node/frontier-store.ts";
import { KeyLayout } from "../../src/node/key-layout.ts";
import type { Outcome as Answer, Operation } from "../../src/replication/register.ts";
import { testNames } from "../simulation/crawl-cluster.ts";
import type { Figure } from "./figure.ts";

const JOB = "1".repeat(32);
const OFFER_LENGTH = 512;
/** As many as one of ten partitions of a server that crawls would have. */
const MEMORY = { pagesMax: () => 6_554, knownMax: () => 50_000 };
const SETTLED_EACH = 64;

const { seeds: _, ...spec } = jobSpecSchema.parse({
  seeds: ["http://h.test/"],
  scope: { maxPages: 1_000_000_000 },
  limits: { pagesPerHost: 1_000_000_000, trapScore: 0 },
  politeness: { delayMs: 0, robots: false, concurrencyPerHost: 4 },
});
const VIEW = { version: "1", status: "running", run: 1, spec, scopeHosts: null } as const;

/** One partition's registers in LevelDB. */
class Registers {
  readonly #level: ClassicLevel<Buffer, Buffer>;

  constructor(directory: string) {
    this.#level = new ClassicLevel(directory, { keyEncoding: "buffer", valueEncoding: "buffer" });
  }

  async operate(operation: Operation): Promise<Answer> {
    switch (operation.kind) {
      case "get": {
        const values = await this.#level.getMany(operation.keys.map(bytesOf));
        const entries = values.map((value, n) =>
          value === undefined ? undefined : { key: operation.keys[n]!, version: "1", value },
        );
        return { kind: "entries", entries };
      }
      case "scan": {
        const { prefix, after, limit } = operation;
        const from =
          after === undefined || after < prefix ? { gte: bytesOf(prefix) } : { gt: bytesOf(after) };
        const to = { lt: Buffer.concat([bytesOf(prefix), Buffer.alloc(64, 0xff)]) };
        const found = await this.#level.iterator({ ...from, ...to, limit: limit + 1 }).all();
        const entries = found
          .slice(0, limit)
          .map(([key, value]) => ({ key: key.toString("latin1"), version: "1", value }));
        return { kind: "scanned", entries, more: found.length > limit };
      }
      case "batch": {
        await this.#level.batch(
          operation.changes.map((change) =>
            change.kind === "delete"
              ? { type: "del", key: bytesOf(change.key) }
              : { type: "put", key: bytesOf(change.key), value: Buffer.from(change.value) },
          ),
        );
        return { kind: "written", version: "1" };
      }
      default:
        throw new Error(`nothing is ${operation.kind}ed here`);
    }
  }

  close(): Promise<void> {
    return this.#level.close();
  }
}

const bytesOf = (key: string) => Buffer.from(key, "latin1");

export interface FrontierMemoryCurve {
  readonly urls: number;
  readonly settled: number;
  /** Of the heap, after a collection, at each tenth of the URLs; the first stands for an empty frontier. */
  readonly heapBytes: readonly number[];
  readonly cpuSeconds: number;
}

/** Takes in `urls` URLs of `hosts` hosts, and settles some of them meanwhile. */
export async function fillFrontier(urls: number, hosts: number): Promise<FrontierMemoryCurve> {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-frontier-"));
  const registers = new Registers(directory);
  const layout = new KeyLayout(testNames, 1);
  const store = new FrontierStore(layout, { round: 1, replicaId: "a/1" }, (operation) =>
    registers.operate(operation),
  );
  const frontier = new Frontier({ robotsWaitMs: 600_000, random: () => 0.5, memory: MEMORY });
  const startedCpu = process.cpuUsage();
  const heapBytes = [heapAfterCollection()];
  let [nowMs, offered, settled, id] = [1_000, 0, 0, 1];
  const answered = new Set<number>();
  const page: Outcome = {
    kind: "page",
    ...{ status: 200, finalUrl: "http://h.test/", contentType: "text/html", fetchedAtMs: 0, durationMs: 1 },
    ...{ bytes: 10, sha256: "", simhash: null, canonical: null, found: [] },
    content: { kind: "bytes", bytes: new Uint8Array(64) },
  };

  const turn = async (runnersMax: number) => {
    nowMs += 1;
    let runners = runnersMax;
    const { batch, wants } = frontier.advance({
      ...{ nowMs, wallMs: nowMs, timeOf: () => nowMs },
      nextRunner: () => (runners-- > 0 ? { nodeId: "r", timeMs: 0 } : undefined),
    });
    if (batch !== undefined && batch.writes.length > 0) await store.write(batch.writes);
    for (const jobId of wants.confirm) frontier.confirmed(jobId, VIEW, nowMs);
    for (const jobId of wants.credit.keys()) frontier.credited(jobId, 1_000_000_000);
    for (const jobId of wants.shares) frontier.restoreShare(jobId, undefined, [], [], nowMs);
    for (const host of wants.hosts) frontier.restoreHost(host, undefined, [], nowMs, nowMs);
    for (const { id, jobId, pages } of wants.lookups) {
      frontier.lookedUp(id, await store.pages(jobId, pages));
    }
    for (const { jobId, size, end, loadLength } of wants.loads) {
      const { pages, more } = await store.due(jobId, size.host, end, loadLength);
      frontier.loaded(jobId, size.host, pages, more, nowMs, nowMs);
    }
    for (const effect of batch?.effects ?? []) {
      if (effect.kind === "answer") answered.add(effect.id);
      if (effect.kind !== "run") continue;
      const { jobId, host, key, handout } = effect;
      const ref = { jobId, host, key, handout };
      frontier.heardReport(ref, 0, page, nowMs, 1);
      frontier.settle(id++, ref, page, []);
      settled++;
    }
  };

  try {
    while (offered < urls) {
      const count = Math.min(OFFER_LENGTH, urls - offered);
      const pages = Array.from({ length: count }, (_, n) => offeredPage(offered + n, hosts));
      const offer = id++;
      frontier.offer(offer, JOB, pages);
      while (!answered.has(offer)) await turn(SETTLED_EACH);
      answered.clear();
      offered += count;
      if (Math.floor((offered / urls) * 10) > heapBytes.length - 1) heapBytes.push(heapAfterCollection());
    }
    const { user, system } = process.cpuUsage(startedCpu);
    return { urls, settled, heapBytes, cpuSeconds: (user + system) / 1e6 };
  } finally {
    await registers.close();
    await rm(directory, { recursive: true, force: true });
  }
}

function offeredPage(n: number, hosts: number): OfferedPage {
  const host = `h${n % hosts}.test`;
  const url = `http://${host}/a-path-of-usual-length/page-${n}.html`;
  const key = createHash("sha256").update(url).digest().subarray(0, 16).toString("base64url");
  return {
    ...{ url, key, host, depth: 1, parent: `http://${host}/`, priority: 0, hops: 0, seed: false },
    ...{ trail: 0, named: false, sitemap: null },
  };
}

let collect: (() => void) | undefined;

function heapAfterCollection(): number {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
  return process.memoryUsage().heapUsed;
}

/** The part `frontier-memory` of the benchmark `crawl`. */
export async function frontierMemory(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  urls = 1_000_000,
): Promise<void> {
  progress(`a frontier of ${urls} URLs on 2,000 hosts`);
  const { heapBytes, cpuSeconds, settled } = await fillFrontier(urls, 2_000);
  const megabytes = heapBytes.map((bytes) => (bytes - heapBytes[0]!) / 1e6);
  for (const [n, value] of megabytes.entries()) {
    if (n > 0) report({ name: `frontier: heap at ${n * 10} % of ${urls} URLs`, value, unit: "MB" });
  }
  // Known pages are dropped a quarter at a time, so the curve is a saw; its top must not rise with the URLs.
  report({ name: "frontier: most of the heap", value: Math.max(...megabytes), unit: "MB", max: 64 });
  report({ name: "frontier: processor for each URL taken in", value: (cpuSeconds / urls) * 1e6, unit: "µs" });
  report({ name: "frontier: pages settled meanwhile", value: settled, unit: "" });
}

if (import.meta.main) {
  const urls = Number(process.argv[2] ?? 1_000_000);
  await frontierMemory(
    ({ name, value, unit }) => console.log(`${name.padEnd(60)} ${value.toFixed(2)} ${unit}`),
    () => {},
    urls,
  );
}
