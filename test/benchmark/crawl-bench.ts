/**
 * Pages a second and processor time a page, beside a loop by hand that keeps nothing.
 * All in one run and in turn: what else the machine does hits all of them. The site
 * says how many pages were really asked for.
 */
import { type ChildProcess, execFile, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { SERVER_NODE_FLAGS } from "../../src/cli/node-flags.ts";
import type { JobSpecInput } from "../../src/job/job-spec.ts";
import { createClient } from "../../src/sdk/client.ts";
import { type Cluster, startCluster } from "../fixture/cluster.ts";
import { CpuShare } from "./cpu-share.ts";
import type { SiteCounts } from "./crawl/big-site.ts";
import type { BenchmarkOptions, Figure } from "./figure.ts";
import { frontierMemory } from "./frontier-memory.ts";

const PAGES = 5_000;
const PAGES_LARGE = 100_000;
const ROUNDS = 2;
const SERVERS = 5;
const POLL_MS = 50;
const CRAWL_MS_MAX = 30 * 60_000;
const PARTS = ["one", "five", "large", "frontier-memory"] as const;

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const run = promisify(execFile);

interface Crawled {
  readonly pages: number;
  readonly seconds: number;
  /** Of all processes but the site's, microseconds. */
  readonly cpuUs: number;
}

type Report = (figure: Figure) => void;

export async function benchmark(report: Report, { parts, progress }: BenchmarkOptions): Promise<void> {
  const unknown = parts.find((part) => !PARTS.some((known) => known === part));
  if (unknown !== undefined) throw new Error(`crawl has no part ${unknown}: it has ${PARTS.join(", ")}`);
  const wants = (part: (typeof PARTS)[number]) =>
    parts.length === 0 ? part !== "large" && part !== "frontier-memory" : parts.includes(part);
  if (wants("one") || wants("five")) {
    const bounds: Crawled[] = [];
    const ones: Crawled[] = [];
    const fives: Crawled[] = [];
    const site = await Site.start(PAGES);
    try {
      for (let round = 1; round <= ROUNDS; round++) {
        progress(`round ${round} of ${ROUNDS}: the loop by hand`);
        bounds.push(told(await byHand(site), progress));
        if (wants("one")) {
          progress("one server, embedded");
          ones.push(told(await embedded(site), progress));
        }
        if (wants("five")) {
          progress("five servers");
          fives.push(told(await withCluster((cluster) => crawl(cluster, site)), progress));
        }
      }
    } finally {
      site.stop();
    }
    const bound = mean(bounds);
    tell(report, "the loop by hand", bound);
    if (ones.length > 0) {
      const one = mean(ones);
      tell(report, "one server", one);
      const rate = rateOf(one) / rateOf(bound);
      report({ name: "one server: pages a second", value: rate, unit: "x the loop", min: 0.65 });
      const cpu = cpuOf(one) / cpuOf(bound);
      report({ name: "one server: processor a page", value: cpu, unit: "x the loop", max: 1.5 });
    }
    if (fives.length > 0) {
      const five = mean(fives);
      tell(report, "five servers", five);
      const rate = rateOf(five) / rateOf(bound);
      report({ name: "five servers: pages a second", value: rate, unit: "x the loop", min: 0.4 });
    }
  }
  if (wants("large")) await large(report, progress);
  if (parts.includes("frontier-memory")) await frontierMemory(report, progress);
}

/** At once: a run that is cut off has shown what it had. */
function told(crawled: Crawled, progress: (text: string) => void): Crawled {
  progress(
    `  ${rateOf(crawled).toFixed(0)} pages/s, ${(cpuOf(crawled) / 1000).toFixed(2)} ms of processor a page`,
  );
  return crawled;
}

function tell(report: Report, who: string, crawled: Crawled): void {
  report({ name: `${who}: pages a second`, value: rateOf(crawled), unit: "" });
  report({ name: `${who}: processor a page`, value: cpuOf(crawled) / 1000, unit: "ms" });
}

const rateOf = ({ pages, seconds }: Crawled) => pages / seconds;
const cpuOf = ({ pages, cpuUs }: Crawled) => cpuUs / pages;

function mean(all: readonly Crawled[]): Crawled {
  const sum = (of: (crawled: Crawled) => number) => all.reduce((total, crawled) => total + of(crawled), 0);
  return { pages: sum((c) => c.pages), seconds: sum((c) => c.seconds), cpuUs: sum((c) => c.cpuUs) };
}

/** Twenty times as much must take about twenty times as long, and no more memory. */
async function large(report: Report, progress: (text: string) => void): Promise<void> {
  const small = await Site.start(PAGES);
  let few: Crawled;
  try {
    progress(`five servers: ${PAGES} pages`);
    few = await withCluster((cluster) => crawl(cluster, small));
  } finally {
    small.stop();
  }
  const site = await Site.start(PAGES_LARGE);
  try {
    progress(`five servers: ${PAGES_LARGE} pages`);
    const memory: number[] = [];
    const many = await withCluster((cluster) =>
      crawl(cluster, site, (share) => {
        for (let tenth = memory.length + 1; tenth <= share * 10; tenth++) {
          memory.push(memoryOf(cluster));
          progress(`${tenth * 10} %: ${megabytes(memory.at(-1)!)} MB in all servers`);
        }
      }),
    );
    tell(report, `${PAGES_LARGE} pages`, many);
    const ratio = many.seconds / few.seconds;
    report({ name: `${PAGES_LARGE} pages: time`, value: ratio, unit: `x that of ${PAGES}`, max: 22 });
    for (const [n, bytes] of memory.entries()) {
      report({ name: `memory of all servers at ${(n + 1) * 10} %`, value: megabytes(bytes), unit: "MB" });
    }
    const flat = Math.max(...memory.slice(2)) / memory[1]!;
    report({ name: "memory after the first 20 %", value: flat, unit: "x that at 20 %", max: 1.25 });
  } finally {
    site.stop();
  }
}

const megabytes = (bytes: number) => Math.round(bytes / 1024 / 1024);

class Site {
  readonly url: string;
  readonly pages: number;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, url: string, pages: number) {
    this.#process = process;
    this.url = url;
    this.pages = pages;
  }

  static async start(pages: number): Promise<Site> {
    const child = fork(file("./crawl/big-site.ts"), ["--pages", String(pages)]);
    const [{ url }] = (await once(child, "message")) as [{ url: string }];
    return new Site(child, url, pages);
  }

  /** Since the last time. @throws when a page was left out, or asked for twice. */
  async exactly(who: string): Promise<SiteCounts> {
    this.#process.send("counts");
    const [counts] = (await once(this.#process, "message")) as [SiteCounts];
    if (counts.distinct !== this.pages || counts.requests !== this.pages) {
      throw new Error(
        `${who} asked for ${counts.distinct} of ${this.pages} pages, with ${counts.requests} requests`,
      );
    }
    return counts;
  }

  stop(): void {
    this.#process.disconnect();
  }
}

async function byHand(site: Site): Promise<Crawled> {
  const before = endedChildrenUs();
  const { stdout } = await run(process.execPath, [file("./crawl/bound.ts"), site.url]);
  const { pages, seconds }: { pages: number; seconds: number } = JSON.parse(stdout);
  await site.exactly("the loop by hand");
  return { pages, seconds, cpuUs: endedChildrenUs() - before };
}

/** From the first request until everything is stored, written to the file, and the process has ended. */
async function embedded(site: Site): Promise<Crawled> {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-bench-crawl-"));
  try {
    const spec = join(directory, "spec.json");
    const results = join(directory, "results.ndjson");
    await writeFile(spec, JSON.stringify(jobOf(site)));
    const before = endedChildrenUs();
    const child = spawn(
      process.execPath,
      [...SERVER_NODE_FLAGS, file("../../src/cli/orbweaver.js"), "crawl", spec, "-o", results].concat([
        "--allow-addresses",
        "127.0.0.0/8",
        "--data",
        join(directory, "data"),
      ]),
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    let said = "";
    child.stderr.on("data", (text: Buffer) => {
      said = `${said}${text.toString()}`.slice(-2000);
    });
    const [code] = await once(child, "exit");
    const endedMs = Date.now();
    if (code !== 0) throw new Error(`the crawl ended with ${code}:\n${said}`);
    const lines = (await readFile(results, "utf8")).split("\n").length - 1;
    if (lines !== site.pages) throw new Error(`${lines} results of ${site.pages}`);
    const { firstMs } = await site.exactly("one server");
    return {
      pages: site.pages,
      seconds: (endedMs - firstMs) / 1000,
      cpuUs: endedChildrenUs() - before,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function jobOf(site: Site): JobSpecInput {
  return {
    name: "benchmark",
    seeds: [site.url],
    scope: { maxDepth: 1000, maxPages: site.pages * 2 },
    politeness: { delayMs: 0, concurrencyPerHost: 16 },
    extract: {
      title: "h1",
      price: { css: "#offer .price", type: "number" },
      tags: { css: "ul.tags > li", all: true },
    },
    formats: [],
  };
}

async function withCluster<T>(work: (cluster: Cluster) => Promise<T>): Promise<T> {
  const dataDirectory = await mkdtemp(join(tmpdir(), "orbweaver-bench-crawl-"));
  const cluster = await startCluster({ nodes: SERVERS, dataDirectory, allowAddresses: ["127.0.0.0/8"] });
  try {
    return await work(cluster);
  } finally {
    await cluster.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  }
}

/** From the first request until the job says that it is over: everything is on five disks by then. */
async function crawl(
  cluster: Cluster,
  site: Site,
  onProgress: (share: number) => void = () => {},
): Promise<Crawled> {
  const { servers, admin, ca } = cluster;
  const client = createClient({ servers: servers.map((server) => server.edge), ...admin, ca });
  try {
    const share = new CpuShare(processesOf(cluster));
    let job = await client.jobs.submit(jobOf(site));
    const untilMs = performance.now() + CRAWL_MS_MAX;
    while (job.finishedAt === null) {
      if (performance.now() > untilMs) throw new Error(`the crawl hangs: ${JSON.stringify(job.stats)}`);
      await delay(POLL_MS);
      job = await client.jobs.get(job.id);
      onProgress(job.stats.done / site.pages);
    }
    const endedMs = Date.now();
    const cpuUs = share.take().ownUs.reduce((sum, us) => sum + us, 0);
    const { firstMs } = await site.exactly("five servers");
    const { done, discovered, failed, results } = job.stats;
    if (done !== site.pages || results !== site.pages || discovered !== site.pages || failed !== 0) {
      throw new Error(`the counts are not exact: ${JSON.stringify(job.stats)}`);
    }
    return { pages: site.pages, seconds: (endedMs - firstMs) / 1000, cpuUs };
  } finally {
    await client.close();
  }
}

function processesOf(cluster: Cluster): number[] {
  return cluster.servers.flatMap(({ process }) => {
    const pid = process.pid!;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    return [pid, ...children.split(" ").filter(Boolean).map(Number)];
  });
}

/** What they hold in memory for themselves: resident, without files. */
function memoryOf(cluster: Cluster): number {
  return processesOf(cluster).reduce((sum, pid) => {
    const kilobytes = /^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return sum + Number(kilobytes ?? 0) * 1024;
  }, 0);
}

/** Processor time of all children of this process that have ended, with theirs. */
function endedChildrenUs(): number {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) * 10_000;
}
