import assert from "node:assert/strict";
import { test } from "tap";
import { FailureDetector } from "../../src/ring/failure-detector.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { RingEffect } from "../../src/ring/ring-effect.ts";
import { RingSimulator } from "../simulation/ring-simulator.ts";

const seed = Number(process.env.SEED ?? 1);
const at = (digits: string) => digits.padEnd(40, "0") as NodeId;

/** A settled ring of `count` nodes that all share replica groups. */
function settled(
  count: number,
  options: { seed?: number; isRefusing?: boolean; isResting?: boolean } = {},
): RingSimulator {
  const simulator = new RingSimulator({
    seed: options.seed ?? seed,
    isResting: options.isResting ?? false,
    network: { isRefusing: options.isRefusing ?? false },
  });
  const first = simulator.bootstrap(at("1"));
  for (let i = 1; i < count; i++) simulator.join(at((1 + i).toString(16)), [first.member]);
  assert.ok(simulator.runUntil(() => simulator.disorder() === undefined, 10_000) !== undefined);
  for (const { ring } of simulator.up) {
    ring.watch(
      [...simulator.nodes.keys()].filter((nodeId) => nodeId !== ring.self.nodeId),
      simulator.nowMs,
    );
  }
  simulator.run(2000);
  return simulator;
}

const suspectedBy = (simulator: RingSimulator, of: NodeId) =>
  simulator.suspicions.filter((suspicion) => suspicion.of === of);

test("a node that falls silent is suspected by all others 0.9 to 1.4 s later", async () => {
  for (let i = 0; i < 20; i++) {
    const simulator = settled(5, { seed: seed + i });
    const diedMs = simulator.nowMs;
    simulator.crash(at("3"));

    simulator.run(2000);

    const delays = suspectedBy(simulator, at("3")).map(({ ms }) => ms - diedMs);
    assert.equal(delays.length, 4);
    for (const delay of delays) assert.ok(delay >= 900 && delay <= 1400, `${delay} ms, seed ${seed + i}`);
  }
});

test("a process that died and whose system refuses connections is suspected once a ping has met that", async () => {
  const simulator = settled(5, { isRefusing: true });
  const diedMs = simulator.nowMs;
  simulator.crash(at("3"));

  simulator.run(600);

  const delays = suspectedBy(simulator, at("3")).map(({ ms }) => ms - diedMs);
  assert.equal(delays.length, 4);
  // The connections that end say so: it takes two pings, a tick apart, and one opinion.
  for (const delay of delays) assert.ok(delay <= 150, `${delay} ms`);
});

test("in a ring of two there is no second opinion: silence decides, refusal does not", async () => {
  const simulator = settled(2, { isRefusing: true });
  const diedMs = simulator.nowMs;
  simulator.crash(at("2"));

  simulator.run(3000);

  const [suspicion] = suspectedBy(simulator, at("2"));
  assert.ok(suspicion !== undefined && suspicion.ms - diedMs >= 900, `${suspicion?.ms}`);
  assert.equal(simulator.disorder(), undefined);
});

test("nobody suspects a node that others still reach: cut from one side it is alive but unreachable", async () => {
  const simulator = settled(5);
  simulator.cut(at("2"), at("3"));

  simulator.run(10_000);

  assert.deepEqual(simulator.suspicions, []);
  const { ring } = simulator.node(at("2"));
  assert.equal(ring.isReachable(at("3")), false);
  assert.equal(ring.isReachable(at("4")), true);
  assert.equal(ring.successors[0]?.nodeId, at("3"));
  simulator.heal();
  simulator.run(3000);
  assert.equal(ring.isReachable(at("3")), true);
});

test("a node that hears nobody, because it was cut off, is not suspected by those it reaches", async () => {
  const simulator = settled(5);
  for (const other of ["1", "3", "4", "5"]) simulator.cut(at(other), at("2"));

  simulator.run(10_000);

  assert.deepEqual(suspectedBy(simulator, at("2")), []);
});

test("a pause of 900 ms is survived unnoticed, one of 3 s is suspected and over when the node speaks again", async () => {
  const short = settled(5);
  short.pause(at("3"), 900);
  short.run(5000);
  assert.deepEqual(short.suspicions, []);

  const long = settled(5);
  long.pause(at("3"), 3000);
  long.run(2500);
  assert.equal(suspectedBy(long, at("3")).length, 4);
  assert.ok(long.node(at("1")).ring.isSuspected(at("3")));
  long.run(2500);
  assert.equal(long.disorder(), undefined);
  for (const name of ["1", "2", "4", "5"]) {
    assert.equal(long.node(at(name)).ring.isSuspected(at("3")), false);
  }
  // The one that stood still started its clocks anew before it suspected anybody.
  assert.deepEqual(
    long.suspicions.filter(({ by }) => by === at("3")),
    [],
  );
});

test("a process that stands still again and again, and reads nothing between, suspects nobody", async () => {
  const simulator = settled(5);
  const { ring } = simulator.node(at("3"));
  let { nowMs } = simulator;
  const suspected: NodeId[] = [];

  for (const gapMs of [900, 500, 450, 1300, 390, 390, 390, 50]) {
    nowMs += gapMs;
    for (const effect of ring.tick(nowMs)) if (effect.kind === "suspected") suspected.push(effect.nodeId);
  }

  assert.equal(suspected.length, 0);
  for (let i = 0; i < 30; i++) {
    nowMs += 50;
    for (const effect of ring.tick(nowMs)) if (effect.kind === "suspected") suspected.push(effect.nodeId);
  }
  assert.equal(suspected.length, 4);
});

test("a process that is always late suspects the dead all the same", async () => {
  const simulator = settled(5);
  const { ring } = simulator.node(at("3"));
  let { nowMs } = simulator;
  const startMs = nowMs;
  const suspected: NodeId[] = [];

  while (suspected.length < 4 && nowMs < startMs + 10_000) {
    nowMs += 150;
    for (const effect of ring.tick(nowMs)) if (effect.kind === "suspected") suspected.push(effect.nodeId);
  }

  assert.ok(nowMs - startMs > 1200 && nowMs - startMs < 2500, `${nowMs - startMs} ms`);
});

test("ten minutes without faults brings no suspicion, nor does a minute with 200 ms of jitter and 5 % loss", async () => {
  const calm = settled(5);
  calm.run(600_000);
  assert.deepEqual(calm.suspicions, []);

  const rough = settled(5);
  Object.assign(rough.network, { delayMsMax: 200, lossRatio: 0.05 });
  rough.run(60_000);
  assert.deepEqual(rough.suspicions, []);
});

test("what changed in a digest is told to all watched at the next tick, and four times a second anyway", async () => {
  const simulator = settled(5);
  const { ring } = simulator.node(at("3"));
  const pings = (nowMs: number) =>
    ring.tick(nowMs).filter((effect) => effect.kind === "send" && effect.message.kind === "ping").length;
  pings(simulator.nowMs);

  ring.tellAll();

  assert.equal(pings(simulator.nowMs + 25), 4);
  assert.equal(pings(simulator.nowMs + 50), 0);
  assert.equal(pings(simulator.nowMs + 275), 4);
});

test("an idle ring of five sends at most 13 messages per node and second, and asks for known neighbours every 1.5 to 2 s only", async () => {
  const simulator = settled(5, { isResting: true });
  simulator.traffic.clear();
  simulator.run(10_000);
  const perNode = simulator.traffic.messages / 5 / 10;
  assert.ok(perNode >= 10 && perNode <= 13, `${perNode}`);
  const questions = simulator.traffic.byKind().find(({ kind }) => kind === "neighbours");
  assert.ok(questions !== undefined && questions.messages >= 25 && questions.messages <= 35);
});

test("at rest two ping in turn, and what a node has to do it does when it is pinged: all of a ring in the same moments", async () => {
  const simulator = settled(5, { isResting: true });
  simulator.run(2000);
  const pings: { ms: number; pair: string; by: NodeId }[] = [];
  for (const { ring } of simulator.up) {
    for (const call of ["tick", "step"] as const) {
      const original = ring[call].bind(ring) as (...input: unknown[]) => RingEffect[];
      Object.assign(ring, {
        [call]: (...input: unknown[]) => {
          const effects = original(...input);
          for (const effect of effects) {
            if (effect.kind !== "send" || effect.message.kind !== "ping") continue;
            const { nodeId } = ring.self;
            const pair = [nodeId, effect.to.nodeId].sort().join();
            pings.push({ ms: simulator.nowMs, pair, by: nodeId });
          }
          return effects;
        },
      });
    }
  }
  simulator.run(20_000);

  const waves: number[] = [];
  for (const { ms } of pings) if (ms - (waves.at(-1) ?? 0) > 50) waves.push(ms);
  assert.ok(waves.length >= 50 && waves.length <= 56, `${waves.length} waves in 20 s`);
  const byPair = Map.groupBy(pings, ({ pair }) => pair);
  assert.equal(byPair.size, 10);
  for (const [pair, exchanges] of byPair) {
    assert.ok(exchanges.length <= waves.length + 1, `${exchanges.length} for ${pair}`);
    const again = exchanges.filter(({ by }, i) => exchanges[i - 1]?.by === by).length;
    assert.ok(again <= 1, `${again} of ${exchanges.length} out of turn`);
  }
});

test("whoever is pinged pings on those it soon would; of pings that cross, the lower node has the next turn", async () => {
  let nowMs = 1000;
  let pinged: string[] = [];
  const detector = new FailureDetector({
    self: at("3"),
    suspectAfterMs: 1200,
    random: () => 0,
    detection: {
      ping: ({ nodeId }) => pinged.push(nodeId[0]!),
      probe: () => assert.fail("nobody is silent"),
      suspected: () => assert.fail("nobody is silent"),
      alive: () => {},
    },
  });
  const others = ["1", "2", "4", "5"].map((name) => ({
    nodeId: at(name),
    address: { host: "localhost", port: 1 },
    zone: "",
    incarnation: 1,
    instance: "a",
  }));
  detector.watch(new Map(others.map((member) => [member.nodeId, member])), nowMs);
  /** Whom it has pinged since; each answers at once. */
  const answered = (): string => {
    const names = pinged;
    pinged = [];
    for (const name of names) {
      detector.answered(at(name), 0, nowMs);
      detector.heard(at(name), nowMs);
    }
    return names.sort().join("");
  };
  const pingFrom = (name: string): string => {
    detector.heard(at(name), nowMs);
    detector.told(at(name), nowMs);
    detector.pingedUs(at(name), nowMs);
    detector.pingAlso(nowMs);
    return answered();
  };
  /** Ticks each 5 ms; the pings of each tick, with when it was. */
  const pass = (ms: number): string[] => {
    const pings: string[] = [];
    for (let passed = 5; passed <= ms; passed += 5) {
      nowMs += 5;
      detector.tick(nowMs);
      const names = answered();
      if (names !== "") pings.push(`${passed}: ${names}`);
    }
    return pings;
  };

  assert.deepEqual(pass(150), ["5: 1245"]);
  for (const { nodeId } of others) assert.equal(pingFrom(nodeId[0]!), "");
  assert.deepEqual(pass(150), []);
  detector.tellAll();
  assert.deepEqual(pass(25), ["5: 1245"]);
  assert.deepEqual(pass(355), []);
  for (const { nodeId } of others) assert.equal(pingFrom(nodeId[0]!), "", "theirs was the turn");
  assert.deepEqual(pass(100), []);
  assert.equal(pingFrom("1"), "", "too early for the others");
  assert.deepEqual(pass(150), []);
  assert.equal(pingFrom("1"), "245", "125 ms before they are due");

  assert.deepEqual(pass(10), []);
  assert.equal(pingFrom("2") + pingFrom("5"), "");
  assert.deepEqual(pass(400), ["365: 15", "390: 4", "400: 2"]);
  // Nobody pings any more: after a second it waits for nobody's turn, and they all have one rhythm.
  pass(1200);
  assert.deepEqual(pass(800).length, 2);
  assert.deepEqual(
    pass(750).map((ping) => ping.split(": ")[1]),
    ["1245", "1245"],
  );
});

test("replica peers are watched wherever they stand, and a verdict lapses 2 s after nobody watches any more", async () => {
  const simulator = new RingSimulator({ seed, successors: 1 });
  const first = simulator.bootstrap(at("1"));
  for (let i = 2; i <= 9; i++) simulator.join(at(i.toString(16)), [first.member]);
  assert.ok(simulator.runUntil(() => simulator.disorder() === undefined, 20_000) !== undefined);
  simulator.run(30_000);
  const { ring } = simulator.node(at("1"));
  // With fingers to 3 or so, 5 and 9, and neighbours 2 and 9, nobody looks at 7.
  assert.equal(
    ring.watched(simulator.nowMs).some(({ nodeId }) => nodeId === at("7")),
    false,
  );

  ring.watch([at("7")], simulator.nowMs);
  simulator.run(500);
  simulator.crash(at("7"));
  simulator.run(2000);
  assert.equal(ring.isSuspected(at("7")), true);
  ring.watch([], simulator.nowMs);
  simulator.run(1500);
  assert.equal(ring.isSuspected(at("7")), true);
  simulator.run(1000);
  assert.equal(ring.isSuspected(at("7")), false);
});
