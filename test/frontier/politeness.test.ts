/** How a host is spared: by its latency, by its silence, between several jobs. */
import { test } from "tap";
import { HostPace, throttledDelayMs } from "../../src/frontier/politeness.ts";
import { RobotsAccess } from "../../src/frontier/robots-access.ts";
import type { Outcome } from "../../src/frontier/verdict.ts";
import { Desk, JOB, offered, page, runs, view } from "./desk.ts";

const counts = (desk: Desk) => desk.frontier.countsOf(JOB)!;
const reset: Outcome = { kind: "broken", reason: "reset", retryable: true };

test("the delay is twice the latency, never below what the job says, at most half a minute", (t) => {
  for (const [delayMs, latencyMs, expected] of [
    [1_000, 0, 1_000],
    [1_000, 200, 1_000],
    [1_000, 500, 1_000],
    [1_000, 501, 1_050],
    [1_000, 2_000, 4_000],
    [1_000, 14_999, 30_000],
    [1_000, 60_000, 30_000],
    [45_000, 60_000, 45_000],
    [100, 80, 200],
    [30, 15, 30],
    [30, 16, 50],
    // Without a delay only the slots count.
    [0, 5_000, 0],
  ] as const) {
    t.equal(throttledDelayMs(delayMs, latencyMs), expected, `${delayMs} ms, answered after ${latencyMs} ms`);
  }
  t.end();
});

test("a host that becomes slow is asked more seldom, until it is quick again", (t) => {
  const desk = new Desk(view({ delayMs: 1_000 }));
  const pages = Array.from({ length: 30 }, (_, n) => offered(String(n)));
  let [run] = runs(desk.offer(...pages));
  const gaps: number[] = [];
  for (const latencyMs of [100, 100, 4_000, 4_000, 100, 100, 100, 100, 100, 100, 100, 100]) {
    const startedAtMs = desk.nowMs;
    desk.nowMs += latencyMs;
    let next = runs(desk.report(run!, page, [], latencyMs, latencyMs))[0];
    while (next === undefined) {
      desk.nowMs += 50;
      next = runs(desk.settle())[0];
    }
    gaps.push(desk.nowMs - startedAtMs);
    run = next;
  }

  t.same(gaps, [1_000, 1_000, 4_000, 4_000, 2_800, 2_150, 1_650, 1_300, 1_050, 1_000, 1_000, 1_000]);
  t.end();
});

test("without auto-throttle, and without a delay, latency changes nothing", (t) => {
  for (const [politeness, expected] of [
    [{ delayMs: 1_000, autoThrottle: false }, 9_000],
    [{ delayMs: 0, concurrencyPerHost: 1 }, 9_000],
  ] as const) {
    const desk = new Desk(view(politeness));
    const [run] = runs(desk.offer(offered("1"), offered("2")));
    const startedAtMs = desk.nowMs;
    desk.nowMs += 9_000;
    const [next] = runs(desk.report(run!, page, [], 9_000, 9_000));

    t.ok(next, JSON.stringify(politeness));
    t.equal(desk.nowMs - startedAtMs, expected);
  }
  t.end();
});

test("what is known of a host's latency and silence outlives its leader", (t) => {
  const before = new HostPace("a.test");
  before.decide("1", 0, 500, 1_000);
  before.answeredAfter(3_000);
  t.ok(before.isDirty, "the delay that follows is another one than was stored");
  for (let n = 0; n < 6; n++) before.broke("reset", 1_000 + n, 0);
  const record = before.record(601_000, 1_700_000_000_000);
  t.match(record, { latencyMs: 3_000, broken: 6, brokenForMs: 600_000 });

  const after = new HostPace("a.test");
  after.restore(record, 50, 1_700_000_000_000);
  t.equal(after.latencyMs, 3_000);
  t.equal(after.isDown, true, "the circuit is still open");
  t.equal(after.isGivenUp(51, 600_000), true);
  t.equal(after.isGivenUp(51, 600_002), false);
  after.answered();
  t.equal(after.isDown, false);
  t.equal(after.isGivenUp(51, 600_000), false);
  t.end();
});

test("a host without any answer is tried by one request at a time, until one is answered", (t) => {
  const desk = new Desk(view({ concurrencyPerHost: 4 }, { fetch: { retries: 20 } }), 600_000);
  const pages = Array.from({ length: 12 }, (_, n) => offered(String(n)));
  let under = runs(desk.offer(...pages));
  t.equal(under.length, 4);
  for (let n = 0; n < 5; n++) under = [...under.slice(1), ...runs(desk.report(under[0]!, reset))];
  t.equal(under.length, 3, "after five failures in a row nothing new leaves");
  t.match(desk.frontier.waitingOn(JOB, desk.nowMs - 1_000, 0), [
    { host: "a.test", reason: "host does not answer: reset" },
  ]);
  for (const run of under) desk.report(run, reset);
  desk.nowMs += 60_000;

  const probe = runs(desk.settle());
  t.equal(probe.length, 1, "half open: one request");
  t.equal(runs(desk.settle()).length, 0);
  t.equal(runs(desk.report(probe[0]!, reset)).length, 0, "open again");
  desk.nowMs += 60_000;
  const [second] = runs(desk.settle());
  t.equal(runs(desk.report(second!, page)).length, 4, "closed");
  t.end();
});

test("pages of a host that stays silent fail in the end, and new ones still try it now and then", (t) => {
  // The desk's hosts are waited for one second.
  const desk = new Desk(view({ concurrencyPerHost: 1 }, { fetch: { retries: 20 } }));
  const pages = Array.from({ length: 40 }, (_, n) => offered(String(n)));
  let [run] = runs(desk.offer(...pages));
  let tries = 0;
  while (run !== undefined || counts(desk).failed === 0) {
    if (run !== undefined) {
      tries++;
      run = runs(desk.report(run, reset))[0];
    } else {
      desk.nowMs += 100;
      run = runs(desk.settle())[0];
    }
  }

  t.equal(counts(desk).failed, 40, "all of them, after a second and some tries");
  t.ok(tries >= 6 && tries <= 8, `${tries} tries`);
  const reasons = new Set(desk.writes.flatMap((w) => (w.kind === "failure" ? [w.failure?.reason] : [])));
  t.same([...reasons], ["host-unreachable"]);

  t.equal(runs(desk.offer(offered("late"))).length, 0);
  t.equal(counts(desk).failed, 41, "while the circuit is open");
  desk.nowMs += 60_000;
  const [probe] = runs(desk.offer(offered("later"), offered("last")));
  t.ok(probe, "it is tried again after the break");
  desk.report(probe!, page);
  t.equal(counts(desk).done, 1);
  t.equal(counts(desk).failed, 41);
  t.end();
});

test("of two jobs on a host the larger delay and the smaller concurrency hold, and they take turns", (t) => {
  const other = "2".repeat(32);
  const desk = new Desk(view({ delayMs: 0, concurrencyPerHost: 8 }));
  desk.views.set(other, view({ delayMs: 2_000, concurrencyPerHost: 1, autoThrottle: false }));
  desk.nowMs = 10_000;
  desk.isConfirming = false;
  desk.offer(...["1", "2", "3", "4"].map((key) => offered(key)));
  desk.offerTo(other, ...["5", "6", "7", "8"].map((key) => offered(key)));
  desk.isConfirming = true;
  const taken: string[] = [];
  const startsMs: number[] = [];
  for (let run = runs(desk.settle())[0]; taken.length < 6; run = runs(desk.settle())[0]) {
    if (run === undefined) {
      desk.nowMs += 100;
      continue;
    }
    taken.push(run.jobId === JOB ? "first" : "other");
    startsMs.push(desk.nowMs);
    desk.report(run, page);
  }

  t.same(taken, ["first", "other", "first", "other", "first", "other"]);
  t.same(
    startsMs.map((ms) => ms - startsMs[0]!),
    [0, 2_000, 4_000, 6_000, 8_000, 10_000],
  );
  t.end();
});

test("users share a host's pace alike, however many jobs each of them has", (t) => {
  const jobs = ["1", "2", "3", "4"].map((digit) => digit.repeat(32));
  const desk = new Desk();
  for (const [n, jobId] of jobs.entries()) {
    // The first job is of one user, the three others of another.
    desk.views.set(jobId, {
      ...view({ delayMs: 100, concurrencyPerHost: 1 }),
      owner: n === 0 ? "ann" : "bob",
    });
  }
  desk.isConfirming = false;
  for (const jobId of jobs) {
    desk.offerTo(jobId, ...Array.from({ length: 20 }, (_, n) => offered(`${jobId[0]}-${n}`)));
  }
  desk.isConfirming = true;
  const taken = new Map(jobs.map((jobId) => [jobId, 0]));
  for (let n = 0; n < 24; ) {
    const [run] = runs(desk.settle());
    if (run === undefined) {
      desk.nowMs += 20;
      continue;
    }
    n++;
    taken.set(run.jobId, taken.get(run.jobId)! + 1);
    desk.report(run, page);
  }

  t.same([...taken.values()], [12, 4, 4, 4]);
  t.end();
});

test("an old copy of robots.txt serves on while the file can't be had, also for the next leader", (t) => {
  const access = new RobotsAccess("a.test", "http://a.test", 600_000);
  access.fetched(200, "User-agent: *\nDisallow: /x", 0, 0);
  const dayMs = 86_400_000;
  t.equal(access.ask("http://a.test/x", "bot", dayMs - 1).kind, "disallowed");
  t.equal(access.ask("http://a.test/x", "bot", dayMs).kind, "fetch", "kept for a day");
  const record = access.record(dayMs, 1_000);

  const next = new RobotsAccess("a.test", "http://a.test", 600_000);
  next.restore(record, 5_000_000, 1_000);
  t.equal(next.ask("http://a.test/x", "bot", 5_000_000).kind, "fetch");
  next.fetching();
  next.fetched(503, "", 5_000_000, 0);
  t.equal(
    next.ask("http://a.test/x", "bot", 5_000_001).kind,
    "disallowed",
    "the copy is better than nothing",
  );
  t.equal(next.ask("http://a.test/x", "bot", 5_600_000).kind, "fetch", "asked for again after ten minutes");
  t.end();
});
