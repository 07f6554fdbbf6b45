/**
 * Crawls in virtual time under faults: servers die and come back, leaderships
 * move, messages are lost, doubled and late, wall clocks are wrong. The drivers
 * and state machines are those of production; after each crawl what a user may
 * rely on is checked against the site's own log and the entries themselves.
 */
import { dueSchema, type Page, pageSchema, resultRecordSchema } from "../../src/frontier/page.ts";
import { countsSchema, pendingOf } from "../../src/job/counts.ts";
import { jobRecordSchema } from "../../src/job/job-record.ts";
import { type JobSpecInput, jobSpecSchema } from "../../src/job/job-spec.ts";
import { isOver } from "../../src/job/life-cycle.ts";
import { NAMESPACE } from "../../src/node/key-layout.ts";
import { decodeRecord } from "../../src/node/record.ts";
import { CrawlCluster, type CrawlNode } from "./crawl-cluster.ts";
import { CrawlSite } from "./crawl-site.ts";
import { CrawlWitness } from "./crawl-witness.ts";
import { seededRandom, VirtualTime } from "./virtual-clock.ts";

/** Virtual time that one crawl may take, faults included. */
const CRAWL_MS_MAX = 30 * 60_000;
const FAULTS_MS = 20_000;

export interface CrawlFinding {
  readonly seed: number;
  readonly violations: string[];
  readonly pages: number;
  readonly requests: number;
  readonly crashes: number;
  readonly virtualMs: number;
}

/** `--seeds N` runs N of them from `--seed S` on; 1 when any violated a promise. */
export async function simulateCrawl(args: string[]): Promise<number> {
  const option = (name: string, otherwise: number) => {
    const at = args.indexOf(name);
    const value = at === -1 ? otherwise : Number(args[at + 1]);
    if (!Number.isInteger(value) || value < 0) throw new Error(`${name} takes a number, e.g. ${name} 20`);
    return value;
  };
  const first = option("--seed", 1);
  const count = option("--seeds", 50);
  if (args.includes("--breaks")) {
    const at = args.indexOf("--break");
    return breakAll(at === -1 ? "" : String(args[at + 1]), first, count);
  }
  let [bad, requests, crashes] = [0, 0, 0];
  for (let seed = first; seed < first + count; seed++) {
    const finding = await simulateOne(seed);
    requests += finding.requests;
    crashes += finding.crashes;
    if (finding.violations.length === 0) continue;
    bad++;
    for (const violation of finding.violations.slice(0, 5)) console.log(`seed ${seed}: ${violation}`);
  }
  console.log(
    `crawl: ${count} seeds from ${first}, ${requests} requests, ${crashes} crashes, ${bad} seeds with violations`,
  );
  return bad === 0 ? 0 : 1;
}

/** A line for each rule that is broken on purpose: how many seeds it took to notice, and what was seen. */
async function breakAll(name: string, first: number, seeds: number): Promise<number> {
  // Only here: it loads this file anew for each break.
  const { CRAWL_BREAKS, findCrawlBreak } = await import("./broken-crawl.ts");
  const breaks = CRAWL_BREAKS.filter((broken) => broken.name.includes(name));
  let missed = 0;
  for (const broken of breaks) {
    const found = await findCrawlBreak(broken, first, seeds);
    if (found === undefined) missed++;
    const seen = found === undefined ? `not in ${seeds} seeds` : `after ${found.tries}, seed ${found.seed}`;
    console.log(`${broken.name.padEnd(80)} ${seen.padEnd(22)} ${found?.violation.slice(0, 110) ?? ""}`);
  }
  console.log(`crawl: ${breaks.length} rules broken, ${missed} of that unnoticed`);
  return missed === 0 ? 0 : 1;
}

interface HostPlan {
  readonly host: string;
  readonly urls: string[];
}

/** One crawl of a random web by a random cluster; what was promised and not kept. */
export async function simulateOne(seed: number, virtualMsMax = CRAWL_MS_MAX): Promise<CrawlFinding> {
  const random = seededRandom(seed);
  const pick = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const chance = (p: number) => random() < p;
  const time = new VirtualTime();
  const site = new CrawlSite();
  const latencyMax = chance(0.3) ? 400 : 40;
  site.latencyMs = () => 2 + random() * latencyMax;

  const isChain = chance(0.4);
  const hosts = isChain ? planChain(site, random) : planHosts(site, random);
  // So slow that nothing is heard of the crawl between two pages, and rounds begin by themselves.
  if (isChain && chance(0.5)) site.latencyMs = () => 1_500 + random() * 2_500;
  const all = new Set([...site.pages.keys()].map((url) => new URL(url).hostname));
  const isRobots = chance(0.4);
  if (isRobots) {
    for (const host of all)
      if (chance(0.5)) site.robots.set(`http://${host}`, { status: 200, text: "User-agent: *\n" });
  }
  const delayMs = chance(0.5) ? 0 : pick(50, 400);
  const total = site.pages.size;
  const isLimited = chance(0.35);
  const seeded = hosts.slice(0, pick(1, hosts.length));
  const sitemaps = chance(0.4);
  // What sitemaps list is found as if it were named in the job.
  const listed = sitemaps ? listPages(site, seeded, random) : [];
  // With one request at a time it is certain what a leader knew when it let the next one go.
  const isSpared = seed % 3 === 0;
  if (isSpared) {
    for (const { urls } of hosts) {
      for (const url of urls.slice(1)) {
        const { links = [], ...rest } = site.pages.get(url) ?? {};
        if (Object.keys(rest).length > 0 || !chance(0.15)) continue;
        site.page(url, { links, status: 429, retryAfterMs: pick(1, 4) * 1_000, failures: 1 });
      }
    }
  }
  if (seed % 4 === 2) {
    // Pages fail and are slow: a report that is told again finds the page under way once more.
    site.latencyMs = () => 300 + random() * 1_200;
    for (const [url, { links = [], ...rest }] of site.pages) {
      if (Object.keys(rest).length > 0 || !chance(0.3)) continue;
      site.page(url, { links, status: 500, failures: 2 });
    }
  }
  const spec: JobSpecInput = {
    seeds: seeded.map(({ urls }) => urls[0]!),
    scope: {
      hosts: ["*.test"],
      maxDepth: 10_000,
      maxPages: isLimited ? pick(1, total) : 1_000_000,
      sitemaps,
    },
    politeness: { delayMs, robots: isRobots, concurrencyPerHost: isSpared ? 1 : pick(1, 6) },
    // No page fails more than twice: a failure that is counted twice shows.
    fetch: { retries: seed % 2 === 0 ? 2 : 20 },
  };

  const nodes = pick(2, 5);
  const cluster = new CrawlCluster({
    time,
    site,
    partitionCount: 2 ** pick(0, 5),
    nodes,
    random,
    perThread: pick(1, 6),
    wallErrorMs: () => (chance(0.5) ? pick(-20_000, 20_000) : 0),
    spreadAbove: chance(0.4) ? pick(1, 20) : undefined,
  });
  const slowMs = chance(0.2) ? 150 : 8;
  const isFaulty = chance(0.85);
  const quiet = {
    loss: 0,
    duplication: 0,
    delayMs: () => 0.2 + random() * slowMs,
    commitMs: () => 0.5 + random() * 6,
  };
  // Some messages take much longer than others: what is read early and what is read late differ.
  const tail = chance(0.6) ? 0.08 : 0;
  // Rounds above all: early and late reading is what they must survive.
  const delayed = (kind?: string) =>
    random() < (kind === "counts" ? 6 * tail : tail) ? random() * 1_200 : quiet.delayMs();
  cluster.faults = isFaulty
    ? { ...quiet, delayMs: delayed, loss: random() * 0.1, duplication: random() * 0.1 }
    : quiet;

  const violations: string[] = [];
  const jobId = await submit(cluster, time, spec);
  if (jobId === undefined) {
    return { seed, violations: ["not submitted"], pages: 0, requests: 0, crashes: 0, virtualMs: time.nowMs };
  }

  const deathsMs: number[] = [];
  const witness = new CrawlWitness({
    ...{ cluster, jobId, delayMs, deathsMs },
    concurrency: spec.politeness!.concurrencyPerHost!,
    maxPages: spec.scope!.maxPages!,
  });

  // --- faults -------------------------------------------------------------------------------
  let crashes = 0;
  const faultsUntilMs = time.nowMs + FAULTS_MS;
  const takeoverMs = () => 100 + random() * 900;
  const gapMs = pick(200, 2_000);
  const schedule = () => {
    time.at(time.nowMs + 30 + random() * gapMs, () => {
      if (time.nowMs > faultsUntilMs) return;
      const victim = cluster.alive[pick(0, cluster.alive.length - 1)]!;
      if (chance(0.4) && cluster.alive.length > 1 && crashes < 4) {
        crashes++;
        deathsMs.push(time.nowMs);
        const index = cluster.nodes.indexOf(victim);
        cluster.crash(victim, takeoverMs);
        if (chance(0.6)) time.at(time.nowMs + 500 + random() * 5_000, () => void restart(cluster, index));
      } else if (chance(0.2)) {
        // Silent for a while, and taken for dead: its pages are given out again while it still has them.
        deathsMs.push(time.nowMs);
        for (const other of cluster.alive) {
          if (other !== victim) other.driver.suspected(victim.member.nodeId);
        }
      } else {
        const partition = pick(0, cluster.partitions.length - 1);
        if (cluster.partitions[partition]!.leader !== undefined) cluster.lead(partition, victim);
      }
      schedule();
    });
  };
  if (isFaulty) schedule();
  time.at(faultsUntilMs, () => {
    cluster.faults = quiet;
  });
  const isPaused = chance(0.25);
  if (isPaused) pauseForAWhile(cluster, time, jobId, random);

  // --- until it is over, looking on ---------------------------------------------------------
  const record = () => {
    const entry = cluster.partitions[cluster.layout.jobPartition(jobId)]!.entries.get(
      cluster.layout.job(jobId),
    );
    return entry === undefined ? undefined : decodeRecord(jobRecordSchema, entry.value);
  };
  const endMs = time.nowMs + virtualMsMax;
  let isDone = false;
  while (!isDone && time.nowMs < endMs && violations.length === 0) {
    await time.run(() => false, time.nowMs + 50);
    isDone = isOver(record()?.status ?? "queued");
    violations.push(...witness.violations.splice(0));
  }
  const finding = () => ({
    seed,
    violations,
    pages: total,
    requests: site.requests.length,
    crashes,
    virtualMs: time.nowMs,
  });
  if (!isDone) {
    violations.push(`not over after ${virtualMsMax} ms: ${JSON.stringify(sumOf(cluster, jobId))}`);
    return finding();
  }
  const overAtMs = time.nowMs;
  const last = site.lastEndMs;
  if (!isFaulty && !isPaused && overAtMs - last > 1_000 + 3 * slowMs + 100) {
    violations.push(`over ${Math.round(overAtMs - last)} ms after the last answer`);
  }
  const before = resultsOf(cluster, jobId).length;
  await time.run(() => false, time.nowMs + 5_000);
  if (resultsOf(cluster, jobId).length !== before) violations.push("a result was added after the end");

  // --- what must hold -----------------------------------------------------------------------
  checkResults(
    cluster,
    jobId,
    site,
    { ...spec, seeds: [...spec.seeds, ...listed] },
    all,
    isLimited,
    violations,
  );
  violations.push(...witness.violations);
  if (witness.requests !== site.requests.length) violations.push("requests that nobody saw");
  checkCounts(cluster, jobId, isLimited, violations);
  const stats = record()?.stats;
  if (stats === null || stats === undefined) violations.push("no final statistics");
  else {
    if (stats.results !== resultsOf(cluster, jobId).length) {
      violations.push(`${stats.results} results counted, ${resultsOf(cluster, jobId).length} stored`);
    }
    if (stats.discovered !== stats.done + stats.failed + stats.skipped + stats.pending) {
      violations.push(`not conserved: ${JSON.stringify(stats)}`);
    }
  }
  for (const node of cluster.nodes) {
    node.isDead = true;
    void node.driver.stop();
  }
  return finding();
}

function planHosts(site: CrawlSite, random: () => number): HostPlan[] {
  const pick = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const hosts: HostPlan[] = [];
  const hostCount = pick(1, 6);
  for (let h = 0; h < hostCount; h++) {
    const host = `h${h}.test`;
    const count = pick(1, 80);
    hosts.push({
      host,
      urls: Array.from({ length: count }, (_, n) => `http://${host}/${n === 0 ? "" : n}`),
    });
  }
  const everywhere = hosts.flatMap(({ urls }) => urls);
  for (const { urls } of hosts) {
    for (const [n, url] of urls.entries()) {
      const links = Array.from({ length: pick(0, 6) }, () => everywhere[pick(0, everywhere.length - 1)]!);
      if (n + 1 < urls.length) links.push(urls[n + 1]!);
      const fate = random();
      if (n > 0 && fate < 0.04) site.page(url, { status: 404 });
      else if (n > 0 && fate < 0.08)
        site.page(url, { location: everywhere[pick(0, everywhere.length - 1)]! });
      else if (fate < 0.14) site.page(url, { links, status: 500, failures: pick(1, 2) });
      else if (fate < 0.17)
        site.page(url, { links, status: 429, retryAfterMs: pick(1, 3) * 1000, failures: 1 });
      else site.page(url, { links });
    }
  }
  return hosts;
}

/** Sitemaps of these hosts, which list pages that no link leads to among others. Returns all that are listed. */
function listPages(site: CrawlSite, hosts: readonly HostPlan[], random: () => number): string[] {
  const pick = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const listed: string[] = [];
  for (const { host, urls } of hosts) {
    const own = Array.from({ length: pick(0, 12) }, (_, n) => `http://${host}/listed/${n}`);
    for (const url of own) site.page(url, { links: [urls[pick(0, urls.length - 1)]!] });
    const pages = [...own, ...urls.slice(0, pick(0, 3))];
    listed.push(...pages);
    const half = pick(0, pages.length);
    const files = [pages.slice(0, half), pages.slice(half)].map((part, n) => {
      const url = `http://${n === 0 ? host : hosts[pick(0, hosts.length - 1)]!.host}/maps/${host}-${n}.xml`;
      site.page(url, { lists: { pages: part }, ...(random() < 0.2 ? { status: 503, failures: 1 } : {}) });
      return url;
    });
    if (random() < 0.5) {
      site.page(`http://${host}/sitemap.xml`, { lists: { sitemaps: files } });
    } else {
      const text = `User-agent: *\n${files.map((url) => `Sitemap: ${url}\n`).join("")}`;
      site.robots.set(`http://${host}`, { status: 200, text });
    }
  }
  return listed;
}

/** One page at a time, each linking to one on another host: between two of them nothing seems to be pending. */
function planChain(site: CrawlSite, random: () => number): HostPlan[] {
  const pick = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const hosts = Array.from({ length: pick(2, 5) }, (_, h) => ({ host: `h${h}.test`, urls: [] as string[] }));
  const length = pick(5, 30);
  let next: string | undefined;
  for (let n = length; n >= 0; n--) {
    const plan = hosts[n === 0 ? 0 : pick(0, hosts.length - 1)]!;
    const url = `http://${plan.host}/${n === 0 ? "" : n}`;
    plan.urls.unshift(url);
    site.page(url, { links: next === undefined ? [] : [next] });
    next = url;
  }
  return [hosts[0]!];
}

async function submit(
  cluster: CrawlCluster,
  time: VirtualTime,
  input: JobSpecInput,
): Promise<string | undefined> {
  const spec = jobSpecSchema.parse(input);
  for (let attempt = 0; attempt < 5; attempt++) {
    let jobId: string | undefined;
    let isAnswered = false;
    cluster.alive[0]!.jobs.submit("ann", spec, "key").then(
      (job) => {
        jobId = job.id;
        isAnswered = true;
      },
      () => {
        isAnswered = true;
      },
    );
    await time.run(() => isAnswered, time.nowMs + 30_000);
    if (jobId !== undefined) return jobId;
  }
  return undefined;
}

function restart(cluster: CrawlCluster, index: number): CrawlNode {
  const node = cluster.addNode(cluster.nodes.length + index * 100);
  for (const partition of cluster.partitions.keys()) {
    if (cluster.random() < 0.3) cluster.lead(partition, node);
  }
  return node;
}

function pauseForAWhile(cluster: CrawlCluster, time: VirtualTime, jobId: string, random: () => number): void {
  const set = (to: "paused" | "running") => {
    cluster.alive[0]?.jobs.setStatus(jobId, to).catch((error: { code?: string }) => {
      // Over already: nothing to go on with. Anything else is tried again.
      if (error.code !== "WRONG_STATE") time.at(time.nowMs + 500, () => set(to));
    });
  };
  time.at(time.nowMs + random() * 5_000, () => {
    set("paused");
    time.at(time.nowMs + 10_000 + random() * 5_000, () => set("running"));
  });
}

function resultsOf(cluster: CrawlCluster, jobId: string) {
  return cluster
    .entries(cluster.layout.results(jobId))
    .map(({ entry }) => decodeRecord(resultRecordSchema, entry.value));
}

function pagesOf(cluster: CrawlCluster): { partition: number; page: Page }[] {
  return cluster
    .entries(String.fromCharCode(NAMESPACE.page))
    .map(({ partition, entry }) => ({ partition, page: decodeRecord(pageSchema, entry.value) }));
}

function sumOf(cluster: CrawlCluster, jobId: string) {
  const all = cluster
    .entries(cluster.layout.count(jobId))
    .map(({ partition, entry }) => ({ partition, ...decodeRecord(countsSchema, entry.value) }));
  return all.map(({ partition, discovered, done, failed, skipped, granted, returned, spent }) => ({
    partition,
    discovered,
    done,
    failed,
    skipped,
    granted,
    returned,
    spent,
  }));
}

function checkResults(
  cluster: CrawlCluster,
  jobId: string,
  site: CrawlSite,
  spec: JobSpecInput,
  hosts: ReadonlySet<string>,
  isLimited: boolean,
  violations: string[],
): void {
  const results = resultsOf(cluster, jobId).map((result) => result.url);
  const stored = new Set(results);
  if (stored.size !== results.length) violations.push(`${results.length - stored.size} results stored twice`);
  const expected = site.expected(spec.seeds, hosts);
  for (const url of stored) if (!expected.has(url)) violations.push(`a result of ${url}, which has none`);
  if (isLimited) {
    const wanted = Math.min(spec.scope!.maxPages!, expected.size);
    if (stored.size !== wanted) violations.push(`${stored.size} results instead of ${wanted}`);
    return;
  }
  const failed = new Set(
    pagesOf(cluster).flatMap(({ page }) => (page.status === "failed" ? [page.url] : [])),
  );
  for (const url of expected) {
    if (stored.has(url)) continue;
    const page = pagesOf(cluster).find((found) => found.page.url === url)?.page;
    const at = failed.has(url) ? "failed" : (page?.status ?? "not known");
    violations.push(`${url} has no result: ${at} ${page?.reason ?? ""}, hops ${page?.hops}`);
  }
}

/** The counts of each partition against its entries. */
function checkCounts(cluster: CrawlCluster, jobId: string, isLimited: boolean, violations: string[]): void {
  const pages = pagesOf(cluster);
  const dues = cluster.entries(String.fromCharCode(NAMESPACE.due));
  for (const { partition, entry } of cluster.entries(cluster.layout.count(jobId))) {
    const counts = decodeRecord(countsSchema, entry.value);
    const own = pages.filter((page) => page.partition === partition).map(({ page }) => page);
    const count = (status: string) => own.filter((page) => page.status === status).length;
    const pending = count("pending");
    const actual = `${own.length} ${count("done")} ${count("failed")} ${count("skipped")} ${pending}`;
    const counted = `${counts.discovered} ${counts.done} ${counts.failed} ${counts.skipped} ${pendingOf(counts)}`;
    if (actual !== counted) violations.push(`partition ${partition} counts ${counted}, holds ${actual}`);
    if (pending > 0 && !isLimited)
      violations.push(`partition ${partition} has ${pending} pages pending at the end`);
    const keys = dues
      .filter((due) => due.partition === partition)
      .map((due) => decodeRecord(dueSchema, due.entry.value).key);
    const due = new Set(keys);
    if (due.size !== keys.length) violations.push(`partition ${partition} has a page due twice`);
    if (due.size !== pending) violations.push(`partition ${partition}: ${due.size} due, ${pending} pending`);
    if (counts.spent > counts.granted - counts.returned) violations.push(`partition ${partition} overspent`);
  }
}

if (import.meta.main) process.exitCode = await simulateCrawl(process.argv.slice(2));
