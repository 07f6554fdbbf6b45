/** A clock that jumps is not believed until the others say the same; one that is off says so and leads nothing. */
import { test } from "tap";
import type { Log } from "../../src/log.ts";
import type { Clock } from "../../src/node/clock.ts";
import { ClockWatch } from "../../src/node/clock-watch.ts";
import { isNodeId, type NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";

const HOUR_MS = 3_600_000;
const EPOCH_MS = 1_700_000_000_000;

function nodeId(digit: string): NodeId {
  const id = digit.repeat(40);
  if (!isNodeId(id)) throw new Error(id);
  return id;
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent };

/** Five servers; `ahead` is by how much the clock of each is ahead of the true time. */
class World {
  nowMs = 0;
  readonly ahead = new Map(["1", "2", "3", "4", "5"].map((digit) => [nodeId(digit), 0]));
  readonly silent = new Set<NodeId>();
  off: NodeId[] = [];

  get trueMs(): number {
    return EPOCH_MS + this.nowMs;
  }

  watch(self: NodeId, members: readonly NodeId[] = [...this.ahead.keys()]): ClockWatch {
    const clock: Clock = {
      now: () => this.nowMs,
      wall: () => this.trueMs + this.ahead.get(self)!,
      after: () => () => {},
    };
    return new ClockWatch({
      nodeId: self,
      clock,
      ring: {
        members: () =>
          members.map(
            (one): Member => ({
              nodeId: one,
              address: { host: "a", port: 1 },
              zone: "",
              incarnation: 1,
              instance: "i",
            }),
          ),
        isSuspected: () => false,
      },
      changed: (off) => {
        this.off = [...off].sort();
      },
      log: silent,
    });
  }

  /** Each second the others tell what their clocks say. */
  pass(watch: ClockWatch, seconds: number): void {
    for (let second = 0; second < seconds; second++) {
      this.nowMs += 1_000;
      for (const [id, aheadMs] of this.ahead) {
        if (id !== self && !this.silent.has(id)) watch.heard(id, this.trueMs + aheadMs);
      }
    }
  }
}

const self = nodeId("4");

test("an hour ahead, or behind: time goes on evenly, it is told, and after a while nothing is led", async (t) => {
  for (const ahead of [HOUR_MS, -HOUR_MS]) {
    const world = new World();
    const watch = world.watch(self);
    world.pass(watch, 15);
    t.equal(watch.wall(), world.trueMs);

    world.ahead.set(self, ahead);
    t.equal(watch.wall(), world.trueMs, "at once");
    world.pass(watch, 1);
    t.match(watch.problem, ahead > 0 ? /3600 s ahead of/ : /3600 s behind/);
    t.same(world.off, [], "the others have not seen it yet");
    world.pass(watch, 15);
    t.same(world.off, [self]);
    t.equal(watch.wall(), world.trueMs);

    world.ahead.set(self, 0);
    world.pass(watch, 1);
    t.equal(watch.problem, undefined, "set right again");
    t.same(world.off, []);
    t.equal(watch.wall(), world.trueMs);
  }
});

test("a server that starts with a wrong clock goes by that of the others", async (t) => {
  const world = new World();
  world.ahead.set(self, HOUR_MS);
  const watch = world.watch(self);

  world.pass(watch, 1);

  t.equal(watch.wall(), world.trueMs);
  t.match(watch.problem, /ahead of/);
});

test("when all clocks are set, the jump is followed", async (t) => {
  const world = new World();
  const watch = world.watch(self);
  world.pass(watch, 15);

  for (const id of world.ahead.keys()) world.ahead.set(id, HOUR_MS);
  world.pass(watch, 1);

  t.equal(watch.wall(), world.trueMs + HOUR_MS);
  t.equal(watch.problem, undefined);
});

test("another server's wrong clock is seen; a little wrong is right", async (t) => {
  const world = new World();
  const watch = world.watch(self);
  world.ahead.set(nodeId("2"), -HOUR_MS);
  world.ahead.set(nodeId("3"), 20_000);
  world.ahead.set(self, -5_000);

  world.pass(watch, 15);

  t.same(world.off, [nodeId("2")]);
  t.equal(watch.problem, undefined);
  t.equal(watch.wall(), world.trueMs - 5_000, "its own clock");
});

test("too few answers say nothing; two servers can't tell whose clock is wrong", async (t) => {
  const world = new World();
  const watch = world.watch(self);
  for (const digit of ["1", "2", "3"]) world.silent.add(nodeId(digit));
  world.ahead.set(self, HOUR_MS);
  world.pass(watch, 15);
  t.equal(watch.problem, undefined);
  t.equal(watch.wall(), world.trueMs, "the jump is not believed");

  const two = world.watch(self, [self, nodeId("5")]);
  world.pass(two, 15);
  t.equal(two.problem, undefined);
  t.equal(two.wall(), world.trueMs + HOUR_MS);
});
