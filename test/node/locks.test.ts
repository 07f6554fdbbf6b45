/** Locks at the leader of their partition: order, tokens, ends; each in virtual time on registers in memory. */
import { randomInt } from "node:crypto";
import { type Test, test } from "tap";
import { BusyError, NotLeaderError } from "../../src/errors.ts";
import type { Clock } from "../../src/node/clock.ts";
import { LockKeeper } from "../../src/node/lock-keeper.ts";
import type { LockReply } from "../../src/node/lock-message.ts";
import { layout } from "../edge/edge-ground.ts";
import { MemoryRegisters } from "../edge/memory-registers.ts";
import { randomFrom } from "../simulation/random.ts";

/** Stands still until it is told how far to go; then what is due happens in order. */
class VirtualClock implements Clock {
  #nowMs = 0;
  #timers: { atMs: number; callBack: () => void }[] = [];

  now = () => this.#nowMs;
  wall = () => 1_000_000 + this.#nowMs;

  after(ms: number, callBack: () => void): () => void {
    const timer = { atMs: this.#nowMs + Math.max(0, ms), callBack };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await settled();
    for (;;) {
      const due = this.#timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callBack();
      await settled();
    }
    this.#nowMs = endMs;
  }
}

/** Promises that wait for nothing but one another are through. */
function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function setUp() {
  const clock = new VirtualClock();
  const registers = new MemoryRegisters();
  registers.nowMs = clock.wall;
  const keeper = new LockKeeper({
    layout,
    operate: (partition, operation) => registers.operate(partition, operation),
    clock,
  });
  const ownerOf = (who: string) => Buffer.from(who.padEnd(16, ".")).toString("hex");
  const log: string[] = [];
  const note = (who: string) => (reply: LockReply) => {
    const token = "lease" in reply ? reply.lease?.fencingToken : undefined;
    log.push(`${who} ${reply.kind}${token === undefined ? "" : ` ${token}`}`);
    return reply;
  };
  const on = (name: string) => ({ user: "alice", name });
  return {
    clock,
    registers,
    keeper,
    log,
    ownerOf,
    acquire: (
      who: string,
      options: { waitMs?: number; ttlMs?: number; name?: string; ticket?: string } = {},
    ) => {
      const { waitMs = 0, ttlMs = 10_000, name = "door", ticket = "t" } = options;
      return keeper
        .request({ kind: "acquire", ...on(name), owner: ownerOf(who), ticket, ttlMs, waitMs })
        .then(note(who));
    },
    renew: (who: string, ttlMs = 10_000, fencingToken?: number) =>
      keeper
        .request({ kind: "renew", ...on("door"), owner: ownerOf(who), ttlMs, fencingToken })
        .then(note(who)),
    release: (who: string, fencingToken?: number) =>
      keeper.request({ kind: "release", ...on("door"), owner: ownerOf(who), fencingToken }).then(note(who)),
    leave: (who: string, ticket = "t") =>
      keeper.request({ kind: "leave", ...on("door"), owner: ownerOf(who), ticket }).then(note(who)),
  };
}

test("a lock has one holder, until it is released or its lease ends; tokens only grow", async (t) => {
  const { acquire, release, renew, clock, log } = setUp();

  await acquire("ann");
  await acquire("bob");
  await release("ann");
  await acquire("bob");
  await clock.pass(9_999);
  await acquire("cid");
  await clock.pass(1);
  await acquire("cid");
  await renew("bob");
  await release("bob");
  await renew("cid");
  await clock.pass(9_999);
  await renew("cid");
  await clock.pass(9_999);
  await acquire("ann");

  t.same(log, [
    "ann granted 1",
    "bob held 1",
    "ann done",
    "bob granted 2",
    "cid held 2",
    "cid granted 3",
    "bob lost 3",
    "bob lost 3",
    "cid granted 3",
    "cid granted 3",
    "ann held 3",
  ]);
});

test("tokens grow across all locks of a partition, and when a lock's entry and its leader are gone", async (t) => {
  const { registers, acquire, log, clock } = setUp();
  await acquire("ann");
  await registers.operate(layout.lockPartition("alice", "door"), {
    kind: "batch",
    conditions: [],
    changes: [{ kind: "delete", key: layout.lock("alice", "door") }],
  });
  const successor = new LockKeeper({
    layout,
    operate: (partition, operation) => registers.operate(partition, operation),
    clock,
  });

  const reply = await successor.request({
    kind: "acquire",
    user: "alice",
    name: "door",
    owner: "0".repeat(32),
    ticket: "t",
    ttlMs: 5,
    waitMs: 0,
  });
  await clock.pass(5);
  // The first one believes that the counter stands at 1 still.
  await acquire("ann");

  t.match(reply, { kind: "granted", lease: { fencingToken: 2 } });
  t.same(log, ["ann granted 1", "ann granted 3"]);
});

test("who waits gets it in the order of coming, and nobody overtakes them", async (t) => {
  const { acquire, release, clock, log } = setUp();
  await acquire("ann");
  const waits = ["bob", "cid", "dan"].map((who) => acquire(who, { waitMs: 5_000 }));
  await clock.pass(10);

  const released = release("ann");
  await acquire("eve");
  await released;
  await clock.pass(0);
  await acquire("eve");
  await release("bob");
  await clock.pass(0);
  await release("cid");
  await Promise.all(waits);

  t.same(
    log.filter((line) => / granted/.test(line)),
    ["ann granted 1", "bob granted 2", "cid granted 3", "dan granted 4"],
  );
  t.same(log.filter((line) => /^eve/.test(line)).length, 2);
});

test("the end of a lease wakes who waits; a renewal puts it off", async (t) => {
  const { acquire, renew, clock, log } = setUp();
  await acquire("ann", { ttlMs: 1_000 });
  void acquire("bob", { waitMs: 9_000 });
  await clock.pass(900);
  await renew("ann", 1_000);
  await clock.pass(900);
  t.same(log, ["ann granted 1", "ann granted 1"]);

  await clock.pass(200);

  t.same(log.at(-1), "bob granted 2");
});

test("a slice that ends keeps its place for the next one, but not for ever", async (t) => {
  const { acquire, release, clock, log } = setUp();
  await acquire("ann", { ttlMs: 60_000 });
  void acquire("bob", { waitMs: 1_000 });
  void acquire("cid", { waitMs: 9_000 });
  await clock.pass(1_001);
  t.same(log.at(-1), "bob held 1");

  void acquire("bob", { waitMs: 1_000, ticket: "u" });
  await clock.pass(1_000);
  const released = release("ann");
  await clock.pass(10);
  await released;
  t.notOk(log.includes("cid granted 2"), "bob may come back");
  t.match(await acquire("eve"), { kind: "held", lease: null }, "and nobody overtakes him meanwhile");
  void acquire("bob", { waitMs: 1_000, ticket: "v" });
  await clock.pass(0);
  t.same(log.at(-1), "bob granted 2");

  await release("bob");
  void acquire("dan", { waitMs: 1_000 });
  await clock.pass(0);
  t.same(log.at(-1), "cid granted 3");
  void acquire("eve", { waitMs: 9_000 });
  await clock.pass(1_000);
  await release("cid");
  await clock.pass(1_400);
  t.notOk(log.includes("eve granted 4"));
  await clock.pass(200);
  t.same(log.at(-1), "eve granted 4", "dan did not come back");
});

test("an owner that asks again finds the lock its own, and its older question is over", async (t) => {
  const { acquire, release, leave, clock, log } = setUp();

  await acquire("ann");
  await acquire("ann", { ticket: "u" });
  void acquire("bob", { waitMs: 5_000, ticket: "at-one-server" });
  await clock.pass(0);
  void acquire("bob", { waitMs: 5_000, ticket: "at-another" });
  await clock.pass(0);
  await leave("bob", "at-one-server");
  await release("ann");
  await clock.pass(0);

  t.same(log, ["ann granted 1", "ann granted 1", "bob held 1", "bob done", "ann done", "bob granted 2"]);
});

test("who leaves the queue is passed over", async (t) => {
  const { acquire, release, leave, clock, log } = setUp();
  await acquire("ann");
  void acquire("bob", { waitMs: 5_000 });
  void acquire("cid", { waitMs: 5_000 });
  await clock.pass(0);

  await leave("bob");
  await release("ann");
  await clock.pass(0);

  t.ok(log.includes("bob held 1"), "its question is answered");
  t.same(log.at(-1), "cid granted 2");
});

test("a release while the lock is being asked for is not overlooked", async (t) => {
  const { acquire, release, registers, clock, log } = setUp();
  await acquire("ann");
  const { operate } = registers;
  const seen = Promise.withResolvers<void>();
  let reads = 0;
  registers.operate = async (...args) => {
    const outcome = await operate.apply(registers, args);
    // The first is that of the attempt before the wait.
    if (args[1].kind === "get" && ++reads === 2) await seen.promise;
    return outcome;
  };
  void acquire("bob", { waitMs: 5_000 });
  await clock.pass(0);

  await release("ann");
  seen.resolve();
  await clock.pass(0);

  t.equal(log.at(-1), "bob granted 2");
});

test("when leadership goes, all who wait are sent to the next leader", async (t) => {
  const { acquire, keeper, clock } = setUp();
  await acquire("ann");
  const waits = ["bob", "cid"].map((who) => acquire(who, { waitMs: 5_000 }));
  await clock.pass(0);

  keeper.stopped(layout.lockPartition("alice", "door"));

  for (const wait of waits) await t.rejects(wait, NotLeaderError);
  t.match(await acquire("bob"), { kind: "held" }, "and the queue is empty");
});

test("a queue has a bound, and an answer for those beyond it", async (t) => {
  const { acquire, clock } = setUp();
  await acquire("ann");
  const waits: Promise<unknown>[] = [];
  for (let i = 0; i < 1_024; i++) waits.push(acquire(`w${i}`, { waitMs: 1_000 }));
  await clock.pass(0);

  await t.rejects(acquire("late", { waitMs: 1_000 }), BusyError);

  t.match(await acquire("late"), { kind: "held" });
  await clock.pass(3_000);
  await Promise.all(waits);
});

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
test(`two never hold a lock, tokens follow time, and nobody is forgotten (seed=${seed})`, async (t: Test) => {
  const random = randomFrom(seed);
  const below = (n: number) => Math.floor(random() * n);
  const { acquire, release, renew, clock, registers } = setUp();
  const { operate } = registers;
  registers.operate = async (...args) => {
    // Commits take their time, and so do answers.
    await new Promise<void>((resolve) => {
      clock.after(below(30), () => void resolve());
    });
    const outcome = await operate.apply(registers, args);
    await new Promise<void>((resolve) => {
      clock.after(below(30), () => void resolve());
    });
    return outcome;
  };
  const ttlMs = 300;
  let lastToken = 0;
  let grants = 0;
  let holder: { who: string; endsMs: number } | undefined;
  const live = async (name: string) => {
    for (let turn = 0; turn < 6; turn++) {
      const who = `${name}${turn}`;
      const reply = await acquire(who, { ttlMs, waitMs: 1_000 + below(3_000), ticket: `${turn}` });
      if (reply.kind !== "granted") continue;
      grants++;
      const { fencingToken, expiresAtMs } = reply.lease;
      t.ok(fencingToken > lastToken, `${who} has ${fencingToken} after ${lastToken}`);
      lastToken = fencingToken;
      const nowMs = clock.wall();
      if (holder !== undefined) t.ok(holder.endsMs <= nowMs, `${who} while ${holder.who} held it`);
      holder = { who, endsMs: expiresAtMs };
      const own = holder;
      await new Promise<void>((resolve) => {
        clock.after(below(250), () => void resolve());
      });
      if (below(3) === 0) {
        const renewed = await renew(who, ttlMs);
        if (renewed.kind === "granted") own.endsMs = renewed.lease.expiresAtMs;
      }
      if (below(4) > 0) {
        // It is given up from here on, whatever the release says.
        if (holder === own) holder = undefined;
        await release(who, fencingToken);
      }
    }
  };
  const lives = Promise.all(["ann", "bob", "cid", "dan", "eve"].map(live));
  let isOver = false;
  void lives.then(() => {
    isOver = true;
  });

  for (let i = 0; i < 2_000 && !isOver; i++) await clock.pass(50);

  t.ok(isOver, "all turns came to an end");
  t.ok(grants > 5, `${grants} grants`);
});
