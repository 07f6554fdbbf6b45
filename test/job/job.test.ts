/** Credits, completion and the life of a job: pure arithmetic and small machines. */
import { test } from "tap";
import { type Account, creditBlock, creditsFree, creditsLeft, grantedAfter } from "../../src/job/budget.ts";
import { Completion } from "../../src/job/completion.ts";
import { type Counts, noCounts, pendingOf, tellTrap } from "../../src/job/counts.ts";
import { isOver, mayBecome } from "../../src/job/life-cycle.ts";
import { finalStats, Speed, statsOf } from "../../src/job/stats.ts";
import { seededRandom } from "../simulation/virtual-clock.ts";

const JOB = "0".repeat(32);
const counts = (some: Partial<Counts>): Counts => ({ ...noCounts(JOB), ...some });

test("a block of credits leaves something for the other participants", (t) => {
  for (const [left, participants, block] of [
    [1_000, 1, 16],
    [1_000, 5, 16],
    [100, 5, 10],
    [20, 5, 2],
    [9, 5, 1],
    [1, 5, 1],
    [0, 5, 0],
    [-1, 5, 0],
    [5, 0, 2],
  ] as const) {
    t.equal(creditBlock(left, participants), block, `${left} left for ${participants}`);
  }
  t.end();
});

test("an asker that does not know its total yet gets that total, not more", (t) => {
  const account = { granted: 16, returned: 0 };

  t.equal(grantedAfter(account, { granted: 0, want: 8 }, 500, 2), 16);
  t.equal(grantedAfter(account, { granted: 16, want: 8 }, 500, 2), 24);
  t.equal(grantedAfter(account, { granted: 16, want: 0 }, 500, 2), 16);
  t.end();
});

test("whatever is lost, doubled or late, rights never exceed maxPages and none are stranded", (t) => {
  const seed = Number(process.env.SEED ?? 7);
  t.comment(`SEED=${seed}`);
  const random = seededRandom(seed);
  for (let round = 0; round < 200; round++) {
    const maxPages = 1 + Math.floor(random() * 60);
    const accounts: Account[] = Array.from({ length: 4 }, () => ({ granted: 0, returned: 0 }));
    const hosts = accounts.map(() => ({ granted: 0, returned: 0, spent: 0 }));
    for (let step = 0; step < 300; step++) {
      const n = Math.floor(random() * 4);
      const host = hosts[n]!;
      const fate = random();
      if (fate < 0.5) {
        const left = creditsLeft(maxPages, accounts);
        const granted = grantedAfter(accounts[n]!, { granted: host.granted, want: 16 }, left, 4);
        accounts[n] = { ...accounts[n]!, granted };
        if (random() < 0.7) host.granted = Math.max(host.granted, granted);
      } else if (fate < 0.8) {
        if (creditsFree(host, 0) > 0) host.spent++;
      } else {
        host.granted = Math.max(host.granted, accounts[n]!.granted);
        host.returned += creditsFree(host, 0);
        if (random() < 0.7) {
          accounts[n] = { ...accounts[n]!, returned: Math.max(accounts[n]!.returned, host.returned) };
        }
      }
      if (creditsLeft(maxPages, accounts) < 0) return t.fail(`seed ${seed}: rights beyond ${maxPages}`);
      if (hosts.reduce((sum, { spent }) => sum + spent, 0) > maxPages) return t.fail("overspent");
    }
    for (const [n, host] of hosts.entries()) {
      host.granted = Math.max(host.granted, accounts[n]!.granted);
      host.returned += creditsFree(host, 0);
      accounts[n] = { granted: accounts[n]!.granted, returned: host.returned };
    }
    const spent = hosts.reduce((sum, host) => sum + host.spent, 0);
    if (creditsLeft(maxPages, accounts) !== maxPages - spent) return t.fail("credits were stranded");
  }
  t.pass("held in 200 runs");
  t.end();
});

const quiet = new Map([
  [1, counts({ discovered: 3, done: 3, spent: 3 })],
  [2, counts({ discovered: 2, done: 1, failed: 1, spent: 1 })],
]);

test("two equal rounds end a job, one does not", (t) => {
  const completion = new Completion(100);

  completion.begin();
  t.equal(completion.end(quiet, true), "again");
  t.not(completion.stillHolds, false, "the first round stands");
  completion.begin();
  t.equal(completion.end(new Map(quiet), true), "finished");
  t.equal(completion.stillHolds, true);
  t.end();
});

test("a confirmation asked for between or during two rounds voids them", (t) => {
  const between = new Completion(100);
  between.begin();
  between.end(quiet, true);
  between.disturb();
  between.begin();
  t.equal(between.end(quiet, true), "again");

  const during = new Completion(100);
  during.begin();
  during.disturb();
  t.equal(during.end(quiet, true), "again");
  during.begin();
  t.equal(during.end(quiet, true), "again");
  during.begin();
  t.equal(during.end(quiet, true), "finished");

  during.disturb();
  t.equal(during.stillHolds, false, "and after them, before the write");
  t.end();
});

test("rounds that differ, or with something pending, end nothing", (t) => {
  const completion = new Completion(100);
  const more = new Map(quiet).set(2, counts({ discovered: 3, done: 2, failed: 1, spent: 2 }));
  const pending = new Map(quiet).set(2, counts({ discovered: 3, done: 1, failed: 1, spent: 1 }));

  completion.begin();
  t.equal(completion.end(quiet, true), "again");
  completion.begin();
  t.equal(completion.end(more, true), "again");
  completion.begin();
  t.equal(completion.end(pending, true), "notYet");
  completion.begin();
  t.equal(completion.end(quiet, false), "notYet", "seeds are still being offered");
  completion.begin();
  t.equal(completion.end(quiet, true), "again");
  completion.begin();
  t.equal(completion.end(new Map([...quiet, [3, counts({})]]), true), "again", "a participant more");
  t.end();
});

test("when all pages that were asked for are had, what is pending does not matter", (t) => {
  const completion = new Completion(4);
  const full = new Map(quiet).set(2, counts({ discovered: 9, done: 1, failed: 1, spent: 1 }));

  completion.begin();
  t.equal(completion.end(full, true), "again");
  completion.begin();
  t.equal(completion.end(full, true), "finished");
  t.end();
});

test("a job that is over stays so", (t) => {
  t.equal(mayBecome("running", "paused"), true);
  t.equal(mayBecome("paused", "running"), true);
  t.equal(mayBecome("paused", "completed"), false);
  for (const over of ["completed", "failed", "cancelled"] as const) {
    t.equal(isOver(over), true);
    t.equal(mayBecome(over, "running"), false);
    t.equal(mayBecome(over, over), true, "a repeat changes nothing");
  }
  t.end();
});

test("statistics are conserved, in sum and at the end", (t) => {
  const stats = statsOf(
    [
      counts({
        discovered: 9,
        done: 3,
        failed: 1,
        skipped: 2,
        results: 3,
        bytes: 10,
        servers: { a: 5, b: 1 },
      }),
      counts({ discovered: 4, done: 4, results: 4, bytes: 5, servers: { b: 4 } }),
    ],
    { pagesPerSecond: 2, waiting: [] },
  );

  t.match(stats, { discovered: 13, done: 7, failed: 1, skipped: 2, pending: 3, results: 7, bytes: 15 });
  t.same(stats.servers, { a: 5, b: 5 });
  t.equal(pendingOf(stats), 3);
  t.match(finalStats(stats), { discovered: 13, done: 7, failed: 1, skipped: 5, pending: 0 });
  t.end();
});

test("pages per second are those of the last five seconds", (t) => {
  const speed = new Speed();
  for (let s = 0; s <= 10; s++) speed.sample(s * 1_000, s * 20);

  t.equal(speed.at(10_000), 20);
  t.equal(speed.at(13_000), 8);
  t.equal(speed.at(20_000), 0);
  t.end();
});

test("traps are told within bounds: each once, those that go in circles first", (t) => {
  const here = counts({});
  const full = (host: number) =>
    ({
      host: `h${host}`,
      pattern: "*",
      reason: "pages per host",
      pages: 100_000,
      skipped: 0,
      example: "",
    }) as const;
  const circle = (n: number, skipped = 0) =>
    ({
      host: "a",
      pattern: `/${n}`,
      reason: "near duplicates",
      pages: 20 + n,
      skipped,
      example: "",
    }) as const;
  for (let host = 0; host < 30; host++) {
    tellTrap(here, full(host));
    tellTrap(here, full(host));
  }
  t.equal(here.traps.length, 16);

  tellTrap(here, circle(1));
  tellTrap(here, circle(1, 1));
  tellTrap(here, circle(1, 1));

  t.equal(here.traps.length, 16);
  t.same(
    here.traps.filter(({ host }) => host === "a"),
    [circle(1, 2)],
  );
  const others = Array.from({ length: 10 }, (_, n) => {
    const there = counts({});
    for (let k = 0; k < 16; k++) tellTrap(there, circle(100 * n + k + 10));
    return there;
  });
  const { traps } = statsOf([here, ...others], { pagesPerSecond: 0, waiting: [] });
  t.equal(traps.length, 64);
  t.ok(traps.every(({ reason }) => reason === "near duplicates"));
  t.equal(traps[0]!.pattern, "/925", "the largest first");
  t.end();
});
