/** A server may run for years: what its crawling remembers of pages and jobs ends with them. */
import { test } from "tap";
import { jobSpecSchema } from "../../src/job/job-spec.ts";
import type { CrawlReply, RunMessage } from "../../src/node/crawl-message.ts";
import { CreditRequests } from "../../src/node/credit-requests.ts";
import { JobWatch, type Watcher } from "../../src/node/job-watch.ts";
import { pageTaskOf } from "../../src/node/page-task.ts";
import { Runner } from "../../src/node/runner.ts";
import { silentLog } from "../simulation/crawl-cluster.ts";
import { VirtualTime } from "../simulation/virtual-clock.ts";

const { seeds: _, ...spec } = jobSpecSchema.parse({ seeds: ["https://a.test/"] });
const view = { version: "1", status: "running", run: 1, spec, scopeHosts: null } as const;

/** Job ids that differ. */
const jobIdOf = (n: number) => n.toString(16).padStart(32, "0");

test("a page that was run is remembered for a minute, whether or not anyone asks", async (t) => {
  const time = new VirtualTime();
  const clock = time.clock(0, 0, () => false);
  let runs = 0;
  const runner = new Runner({
    nodeId: "b",
    pool: {
      threads: 1,
      running: 0,
      waiting: 0,
      run: async () => {
        runs++;
        return { kind: "notStarted", reason: "too late" };
      },
    },
    allowAddresses: [],
    ask: async () => ({ kind: "accepted" }),
    onRoom: () => {},
    clock,
    log: silentLog,
  });
  const message: RunMessage = {
    kind: "run",
    partition: 1,
    ballot: { round: 1, replicaId: "a/1" },
    ref: { jobId: jobIdOf(1), host: "a.test", key: "k", handout: 1 },
    task: pageTaskOf(view, { url: "https://a.test/", depth: 0, sitemapPart: null }),
    alone: false,
    runnerTimeMs: 0,
    startWithinMs: 500,
  };

  runner.accept(message, () => {});
  await time.run(() => false, 1_000);
  runner.accept(message, () => {});
  await time.run(() => false, 59_000);
  runner.accept(message, () => {});
  t.equal(runs, 1, "a second copy is not run");

  await time.run(() => false, 62_000);
  runner.accept(message, () => {});
  t.equal(runs, 2, "nothing is kept of it");
});

test("jobs that nobody here works for any more are forgotten, though nobody tells that they are over", async (t) => {
  const time = new VirtualTime();
  const known: string[] = [];
  const watch = new JobWatch({
    ask: async (jobId, request): Promise<CrawlReply> => {
      const question = request(0);
      if (question.kind !== "confirm") throw new Error(`not expected: ${question.kind}`);
      if (jobId === jobIdOf(0)) known.push(question.known);
      const { version, status, run } = view;
      return { kind: "confirmed", version, status, run, details: { spec, scopeHosts: null } };
    },
    clock: time.clock(0, 0, () => false),
    log: silentLog,
  });
  const watcher: Watcher = {
    partition: 0,
    progressOf: () => ({ counts: null, waiting: [] }),
    confirmed: () => {},
    gone: () => {},
  };
  const ask = async (n: number) => {
    watch.want(jobIdOf(n), watcher);
    await time.run(() => false, time.nowMs + 1);
  };

  await ask(0);
  await ask(0);
  for (let n = 1; n <= 1024; n++) await ask(n);
  await ask(0);

  t.same(known, ["", "1", ""]);
});

test("credits are asked for once at a time, and again a moment after an answer that brought none", async (t) => {
  const time = new VirtualTime();
  const asked: number[] = [];
  const credits: CreditRequests = new CreditRequests({
    clock: time.clock(0, 0, () => false),
    ask: async () => {
      asked.push(time.nowMs);
      return "none";
    },
    onChange: () => credits.want("j", 1),
  });

  credits.want("j", 1);
  credits.want("j", 1);
  await time.run(() => asked.length === 3, 10_000);
  t.same(asked, [0, 250, 500]);
});
