/** The frontier of one partition as a state machine: what it commits, and what it does after. */
import { test } from "tap";
import { HEAD_LENGTH_MAX, HostQueue } from "../../src/frontier/host-queue.ts";
import { KnownPages } from "../../src/frontier/known-pages.ts";
import { newPage } from "../../src/frontier/page.ts";
import { backoffMs, HostPace, takeoverWaitMs } from "../../src/frontier/politeness.ts";
import { RobotsAccess } from "../../src/frontier/robots-access.ts";
import { type Outcome, verdictOf } from "../../src/frontier/verdict.ts";
import { seededRandom } from "../simulation/virtual-clock.ts";
import { Desk, JOB, offered, page, runs, view } from "./desk.ts";

const counts = (desk: Desk) => desk.frontier.countsOf(JOB)!;

test("a page is admitted once, handed out, and settled with its links in one batch", (t) => {
  const desk = new Desk();
  const [run] = runs(desk.offer(offered("1"), offered("1")));
  desk.writes.length = 0;

  const effects = desk.report(run!, page, [offered("2", { depth: 1 }), offered("1", { depth: 1 })]);

  t.match(counts(desk), { discovered: 2, done: 1, results: 1, spent: 1 });
  t.same(
    runs(effects).map((next) => next.key),
    ["2"],
  );
  const result = desk.writes.findIndex((write) => write.kind === "result");
  const link = desk.writes.findIndex((write) => write.kind === "page" && write.page.key === "2");
  t.ok(result !== -1 && link !== -1);
  t.end();
});

test("a report counts once, and only for the hand-out that is under way", (t) => {
  const desk = new Desk();
  const [first] = runs(desk.offer(offered("1")));
  const broken: Outcome = { kind: "broken", reason: "reset", retryable: true };

  desk.report(first!, broken);
  t.equal(desk.frontier.heardReport(first!, 0, broken, desk.nowMs), false, "a repeat is of no interest");
  desk.nowMs += 1_000;
  const [second] = runs(desk.settle());

  t.equal(second!.handout, 2);
  t.equal(desk.frontier.heardReport(first!, 0, page, desk.nowMs), false, "nor is a late one");
  desk.report(second!, page);
  t.match(counts(desk), { done: 1, results: 1 });
  const attempts = desk.writes.flatMap((write) => (write.kind === "page" ? [write.page.attempts] : []));
  t.equal(Math.max(...attempts), 1);
  t.end();
});

test("nothing is accepted, handed out or settled without a fresh confirmation", (t) => {
  const desk = new Desk();
  const [run] = runs(desk.offer(offered("1")));
  desk.isConfirming = false;
  desk.frontier.forgetConfirmation(JOB, desk.nowMs);

  t.same(desk.offer(offered("2")), []);
  t.same(desk.report(run!, page), []);
  t.match(counts(desk), { discovered: 1, done: 0 });

  // An answer to a question from before does not count.
  desk.frontier.confirmed(JOB, desk.views.get(JOB)!, desk.nowMs);
  t.same(desk.settle(), []);
  desk.nowMs += 1;
  desk.isConfirming = true;
  desk.settle();
  t.match(counts(desk), { discovered: 2, done: 1 });
  t.end();
});

test("no more pages are under way than there are credits", (t) => {
  const desk = new Desk(view({ concurrencyPerHost: 8 }));
  desk.credits = 2;
  const effects = desk.offer(...["1", "2", "3", "4"].map((path) => offered(path)));

  t.equal(runs(effects).length, 2);
  const [a] = runs(effects);
  t.equal(runs(desk.report(a!, page)).length, 0, "a result uses its credit up");
  const b = runs(effects)[1]!;
  t.equal(
    runs(desk.report(b, { kind: "refused", status: 404, reason: "HTTP 404", retryAfterMs: null })).length,
    1,
    "a failure gives it back",
  );
  t.match(counts(desk), { spent: 1, done: 1, failed: 1 });
  t.end();
});

test("idle credits are given back, durably first", (t) => {
  const desk = new Desk();
  desk.credits = 10;
  const [run] = runs(desk.offer(offered("1")));
  desk.report(run!, page);

  desk.frontier.recall(99, JOB, 12);
  const effects = desk.settle();

  t.match(counts(desk), { granted: 12, returned: 11, spent: 1 });
  t.ok(effects.some((effect) => effect.kind === "answer" && effect.id === 99));
  const last = desk.writes.findLast((write) => write.kind === "counts");
  t.match(last, { counts: { returned: 11 } });
  t.end();
});

test("the delay runs from the start of a request; while that is unknown, from the latest it could be", (t) => {
  const desk = new Desk(view({ delayMs: 1_000, concurrencyPerHost: 4 }));
  const [first] = runs(desk.offer(offered("1"), offered("2"), offered("3")));
  const decidedAtMs = desk.nowMs;

  desk.nowMs = decidedAtMs + 1_499;
  t.equal(runs(desk.settle()).length, 0);
  desk.frontier.started(first!, 1_299, desk.nowMs);
  const [second] = runs(desk.settle());
  t.ok(second, "it started 200 ms after its hand-out, so the next one may go at 1,200");

  desk.frontier.heardReport(second!, 0, { kind: "notStarted", reason: "late" }, desk.nowMs);
  desk.frontier.settle(50, second!, { kind: "notStarted", reason: "late" }, []);
  t.equal(runs(desk.settle()).length, 1, "one that never started delays nothing");
  t.end();
});

test("a page whose hand-outs end eight times without a report is failed", (t) => {
  const desk = new Desk();
  let next = runs(desk.offer(offered("1")))[0];
  let handouts = 0;
  while (next !== undefined) {
    handouts++;
    desk.frontier.started(next, 0, desk.nowMs);
    desk.frontier.lost(next);
    next = runs(desk.settle())[0];
  }

  t.equal(handouts, 8);
  t.match(counts(desk), { failed: 1, failures: 1 });
  t.end();
});

test("hand-outs that never started don't count against the page", (t) => {
  const desk = new Desk();
  let next = runs(desk.offer(offered("1")))[0];
  for (let n = 0; n < 20; n++) {
    desk.frontier.lost(next!);
    next = runs(desk.settle())[0];
  }

  t.equal(next!.handout, 21);
  t.match(counts(desk), { failed: 0 });
  t.end();
});

test("a page that was found nearer to a seed while under way is fetched again for its links", (t) => {
  const desk = new Desk(view({}, { scope: { maxDepth: 3 } }));
  const [run] = runs(desk.offer(offered("1", { depth: 3 })));
  desk.offer(offered("1", { depth: 1 }));

  const [again] = runs(desk.report(run!, { ...page, found: null }));

  t.equal(again!.handout, 2);
  t.match(counts(desk), { done: 0 });
  t.end();
});

test("robots.txt is fetched first, once, and its rules and delay hold", (t) => {
  const desk = new Desk(view({ robots: true, concurrencyPerHost: 4 }));
  const effects = desk.offer(offered("1"), offered("secret"), offered("2"));

  t.same(
    effects.filter((effect) => effect.kind === "fetchRobots").map((effect) => effect.origin),
    ["http://a.test"],
  );
  t.equal(runs(effects).length, 0);
  desk.frontier.robotsFetched(
    "a.test",
    "http://a.test",
    {
      kind: "answered",
      status: 200,
      text: "User-agent: *\nDisallow: /secret\nCrawl-delay: 2",
      retryAfterMs: null,
      agoMs: 0,
    },
    desk.nowMs,
  );
  t.equal(runs(desk.settle()).length, 0, "the file was a request too: its delay runs");
  desk.nowMs += 2_000;
  t.equal(runs(desk.settle()).length, 1);
  desk.nowMs += 4_500;
  desk.settle();
  t.match(counts(desk), { discovered: 3, skipped: 1 });
  t.end();
});

test("a robots.txt that stays unavailable fails the pages in the end", (t) => {
  const access = new RobotsAccess("a.test", "http://a.test", 10_000);
  t.equal(access.ask("http://a.test/", "x", 0).kind, "fetch");
  access.fetching();
  t.equal(access.ask("http://a.test/", "x", 0).kind, "wait");
  access.fetched(503, "", 0, 0);
  t.same(access.ask("http://a.test/", "x", 0), { kind: "wait", atMs: 500 });
  t.equal(access.ask("http://a.test/", "x", 500).kind, "fetch");
  t.equal(access.ask("http://a.test/", "x", 10_000).kind, "unreachable");
  access.fetched(404, "", 10_001, 0);
  t.equal(access.ask("http://a.test/", "x", 10_001).kind, "allowed", "4xx allows everything");
  access.fetched(500, "", 10_002, 0);
  t.equal(access.ask("http://a.test/", "x", 10_003).kind, "allowed", "the copy at hand is used");
  t.end();
});

test("verdicts", (t) => {
  const fresh = { key: "k", attempts: 0, deaths: 0, hops: 0, named: false };
  const limits = { retries: 2, maxRedirects: 3 };
  const refused = (status: number, retryAfterMs: number | null = null): Outcome => ({
    kind: "refused",
    status,
    reason: `HTTP ${status}`,
    retryAfterMs,
  });
  const to = (key: string): Outcome => ({
    kind: "redirect",
    status: 301,
    target: { url: "http://a.test/t", key, host: "a.test" },
  });
  for (const [outcome, from, expected] of [
    [page, fresh, { kind: "done" }],
    [refused(404), fresh, { kind: "failed", status: 404 }],
    [refused(410), fresh, { kind: "failed", status: 410 }],
    [refused(429), fresh, { kind: "again", counts: true }],
    [refused(503), fresh, { kind: "again", counts: true }],
    [refused(500), { ...fresh, attempts: 1 }, { kind: "again", counts: true }],
    [refused(500), { ...fresh, attempts: 2 }, { kind: "failed", status: 500 }],
    [refused(503, 5_000), { ...fresh, attempts: 2 }, { kind: "again", counts: false }],
    [{ kind: "broken", reason: "reset", retryable: true }, fresh, { kind: "again", counts: true }],
    [{ kind: "broken", reason: "blocked", retryable: false }, fresh, { kind: "failed", status: null }],
    [to("other"), fresh, { kind: "skipped", reason: "redirect" }],
    [to("k"), fresh, { kind: "again", counts: false, hops: 1 }],
    [to("other"), { ...fresh, hops: 3 }, { kind: "failed", status: 301 }],
    [{ kind: "died", alone: false }, fresh, { kind: "again", counts: false }],
    [{ kind: "died", alone: true }, fresh, { kind: "again", counts: false }],
    [
      { kind: "died", alone: true },
      { ...fresh, deaths: 1 },
      { kind: "failed", reason: "killed its scraper" },
    ],
    [
      { kind: "notStarted", reason: "late" },
      { ...fresh, attempts: 9 },
      { kind: "again", counts: false },
    ],
  ] as const) {
    t.match(verdictOf(outcome as Outcome, from, limits, 0.5), expected, JSON.stringify([outcome, from]));
  }
  t.end();
});

test("back-off doubles up to a minute, half of it left to chance", (t) => {
  for (const [refusals, least, most] of [
    [0, 500, 1_000],
    [1, 1_000, 2_000],
    [5, 16_000, 32_000],
    [6, 30_000, 60_000],
    [900, 30_000, 60_000],
  ] as const) {
    t.equal(backoffMs(refusals, 0), least, `${refusals} refusals, luck`);
    t.equal(backoffMs(refusals, 1), most, `${refusals} refusals, no luck`);
  }
  t.end();
});

test("a new leader waits as long as its predecessor might have, whatever the clocks say", (t) => {
  const record = {
    host: "a.test",
    delayMs: 1_000,
    untilMs: 0,
    forMs: 0,
    reason: "",
    refusals: 0,
    latencyMs: 0,
    broken: 0,
    brokenForMs: 0,
  };
  for (const [some, wallMs, waitMs] of [
    [{}, 1_000_000, 1_500],
    [{ delayMs: 0 }, 1_000_000, 500],
    // An hour was asked for just now.
    [{ untilMs: 4_600_000, forMs: 3_600_000 }, 1_000_000, 3_600_500],
    // Half of it has passed; the clocks may differ by a minute.
    [{ untilMs: 2_800_000, forMs: 3_600_000 }, 1_000_000, 1_860_500],
    // A clock an hour ahead can't make it longer than was asked for.
    [{ untilMs: 9_000_000, forMs: 5_000 }, 1_000_000, 5_500],
    // Long over.
    [{ untilMs: 10_000, forMs: 5_000 }, 1_000_000, 1_500],
  ] as const) {
    t.equal(takeoverWaitMs({ ...record, ...some }, 500, wallMs), waitMs, JSON.stringify(some));
  }
  const pace = new HostPace("a.test");
  pace.restore({ ...record, untilMs: 1_002_000, forMs: 2_000, reason: "HTTP 429" }, 50, 1_000_000);
  t.equal(pace.readyAtMs(0), 50 + 2_500);
  t.end();
});

test("five broken tries in a row make the host wait, one good answer ends that", (t) => {
  const pace = new HostPace("a.test");
  for (let n = 0; n < 4; n++) pace.broke("reset", 0, 1);
  t.equal(pace.readyAtMs(0), Number.NEGATIVE_INFINITY);
  pace.broke("reset", 0, 1);
  t.equal(pace.readyAtMs(0), 1_000);
  pace.answered();
  pace.broke("reset", 2_000, 1);
  t.equal(pace.readyAtMs(0), 1_000);
  t.end();
});

test("a queue of any length gives all pages in order, with a bounded head in memory", (t) => {
  const seed = Number(process.env.SEED ?? 11);
  t.comment(`SEED=${seed}`);
  const random = seededRandom(seed);
  for (let run = 0; run < 60; run++) {
    const size = { jobId: JOB, host: "a.test", discovered: 0, sitemaps: 0, pending: 0, full: false };
    const queue = new HostQueue(JOB, size, false);
    const stored: ReturnType<typeof newPage>[] = [];
    const isBefore = (a: { priority: number; seq: number }, b: { priority: number; seq: number }) =>
      a.priority !== b.priority ? b.priority - a.priority : a.seq - b.seq;
    const taken: string[] = [];
    let seq = 0;
    let scan: { from: (typeof stored)[number][]; more: boolean } | undefined;
    const total = 200 + Math.floor(random() * 3_000);
    while (taken.length < total) {
      const fate = random();
      if (seq < total && fate < (seq < total / 2 ? 0.6 : 0.1)) {
        for (let n = 0; n < 40 && seq < total; n++) {
          const entry = newPage(offered(String(seq), { priority: Math.floor(random() * 3) }), seq++);
          stored.push(entry);
          queue.push(entry, 0, random() < 0.9);
        }
      } else if (fate < 0.75) {
        if (scan === undefined && queue.wantsLoad) {
          queue.loading();
          const { end } = queue;
          const behind = stored
            .filter((entry) => end === undefined || isBefore(end, entry) < 0)
            .sort(isBefore);
          scan = { from: behind.slice(0, 256), more: behind.length > 256 };
        }
      } else if (fate < 0.85 && scan !== undefined) {
        queue.loaded(
          scan.from.map((entry) => ({ page: entry, readyAtMs: 0 })),
          scan.more,
        );
        scan = undefined;
      } else {
        for (let n = 0; n < 30; n++) {
          const queued = queue.peek(0);
          if (queued === undefined) break;
          queue.remove(queued);
          stored.splice(stored.indexOf(queued.page), 1);
          taken.push(queued.page.key);
        }
        const isStuck = queue.length === 0 && !queue.wantsLoad && scan === undefined && stored.length > 0;
        if (isStuck) return t.fail(`seed ${seed}: ${stored.length} pages are never read`);
      }
      if (queue.length > HEAD_LENGTH_MAX + 256)
        return t.fail(`seed ${seed}: ${queue.length} pages in memory`);
    }
    if (new Set(taken).size !== total)
      return t.fail(`seed ${seed}: ${new Set(taken).size} of ${total} pages`);
  }
  t.pass("every page came out once");
  t.end();
});

test("known pages are complete until their bound, then a cache", (t) => {
  const known = new KnownPages(true, 100);
  for (let n = 0; n < 100; n++) known.set(String(n), 1);
  known.trim();
  t.equal(known.isComplete, true);
  known.set("100", 1);
  known.trim();
  t.equal(known.isComplete, false);
  t.equal(known.depthOf("0"), undefined);
  t.equal(known.depthOf("100"), 1);
  t.end();
});
