/** A cluster and a web in virtual time, and what tests of whole crawls ask of them. */
import { type Job, type JobSpecInput, jobSpecSchema, type Result } from "../../src/job/job-spec.ts";
import { CrawlCluster } from "../simulation/crawl-cluster.ts";
import { CrawlSite } from "../simulation/crawl-site.ts";
import { seededRandom, VirtualTime } from "../simulation/virtual-clock.ts";

export class CrawlWorld {
  readonly time = new VirtualTime();
  readonly site = new CrawlSite();
  readonly cluster: CrawlCluster;

  /** @param spreadAbove pages of a host above which others go to its parts. */
  constructor(nodes: number, partitionCount = 16, spreadAbove?: number) {
    this.cluster = new CrawlCluster({
      time: this.time,
      site: this.site,
      partitionCount,
      nodes,
      spreadAbove,
      random: seededRandom(Number(process.env.SEED ?? 1)),
    });
  }

  /** Lets time pass until the promise is kept. */
  async wait<T>(promise: Promise<T>, maxMs = 60_000): Promise<T> {
    let isDone = false;
    const done = () => {
      isDone = true;
    };
    promise.then(done, done);
    if (!(await this.time.run(() => isDone, this.time.nowMs + maxMs)))
      throw new Error(`not within ${maxMs} ms`);
    return promise;
  }

  /** Without robots.txt and delay, unless it says so. */
  submit(input: JobSpecInput): Promise<Job> {
    const spec = jobSpecSchema.parse({
      ...input,
      politeness: { delayMs: 0, robots: false, concurrencyPerHost: 4, ...input.politeness },
    });
    return this.wait(this.cluster.alive[0]!.jobs.submit("ann", spec));
  }

  job(jobId: string): Promise<Job> {
    return this.wait(this.cluster.alive[0]!.jobs.get(jobId));
  }

  async finish(jobId: string, maxMs = 300_000): Promise<Job> {
    const end = this.time.nowMs + maxMs;
    while (this.time.nowMs < end) {
      const job = await this.job(jobId);
      if (job.finishedAt !== null) return job;
      await this.time.run(() => false, this.time.nowMs + 50);
    }
    throw new Error(`job not over: ${JSON.stringify(await this.job(jobId))}`);
  }

  async results(jobId: string): Promise<Result[]> {
    const items: Result[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await this.wait(
        this.cluster.alive
          .at(-1)!
          .jobs.results(jobId, { limit: 500, ...(cursor === undefined ? {} : { cursor }) }),
      );
      items.push(...page.items);
      if (page.nextCursor === null) return items;
      cursor = page.nextCursor;
    }
  }

  /** From now on this share of messages is lost, and as many come twice. */
  loseMessages(share: number): void {
    const { random } = this.cluster;
    this.cluster.faults = {
      loss: share,
      duplication: share,
      delayMs: () => 0.5 + random() * 10,
      commitMs: () => 0.5 + random() * 6,
    };
  }

  /** Power is cut at the server that leads this host; another takes over. */
  crashLeaderOf(host: string): void {
    const { leader } = this.cluster.partitions[this.cluster.layout.hostPartition(host)]!;
    const node = this.cluster.alive.find(({ member }) => member.nodeId === leader);
    // Undefined: it lost its leader a moment ago.
    if (node !== undefined) this.cluster.crash(node, () => 300);
  }
}
