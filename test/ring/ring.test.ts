import assert from "node:assert/strict";
import { test } from "tap";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import { Ring } from "../../src/ring/ring.ts";
import type { RingEffect } from "../../src/ring/ring-effect.ts";
import { CONVERGE_MS_MAX, grow, largestArc, splitInTwo } from "../simulation/ring-churn.ts";
import { RingSimulator } from "../simulation/ring-simulator.ts";

const seed = Number(process.env.SEED ?? 1);
const at = (digits: string) => digits.padEnd(40, "0") as NodeId;
const member = (digits: string, incarnation = 1): Member => ({
  nodeId: at(digits),
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation,
  instance: `${incarnation}`,
});
const isWhole = (simulator: RingSimulator) => simulator.disorder() === undefined;

/** Virtual milliseconds until it is one ring in order. */
function wholeWithin(simulator: RingSimulator, msMax: number, what = ""): number {
  const tookMs = simulator.runUntil(() => isWhole(simulator), msMax, 10);
  assert.ok(tookMs !== undefined, `${what} ${simulator.disorder()}`);
  return tookMs;
}

/** A settled ring of the named nodes. */
function settled(names: readonly string[], successors = 8): RingSimulator {
  const simulator = new RingSimulator({ seed, successors });
  const contact = simulator.bootstrap(at(names[0]!));
  for (const name of names.slice(1)) {
    simulator.join(at(name), [contact.member]);
    simulator.run(200);
  }
  wholeWithin(simulator, CONVERGE_MS_MAX);
  simulator.run(1000);
  return simulator;
}

test("a predecessor gives way only to one that is nearer, or when it is dead", async () => {
  const simulator = settled(["1", "4", "6", "8"]);
  const { ring } = simulator.node(at("8"));
  const notify = (name: string) =>
    ring.step(member(name), { kind: "notify", node: member(name) }, simulator.nowMs);

  notify("4");
  assert.equal(ring.predecessor?.nodeId, at("6"));
  // Only the node itself may say so.
  ring.step(member("4"), { kind: "notify", node: member("7") }, simulator.nowMs);
  assert.equal(ring.predecessor?.nodeId, at("6"));
  notify("7");
  assert.equal(ring.predecessor?.nodeId, at("7"));
  assert.deepEqual(simulator.violations, []);
});

test("a node that left is not brought back by a list that still goes round; a later start of it is", async () => {
  const simulator = settled(["1", "4", "6", "8"]);
  const { ring } = simulator.node(at("1"));
  simulator.leave(at("4"));
  simulator.run(20);
  assert.deepEqual(
    ring.successors.map((m) => m.nodeId),
    [at("6"), at("8")],
  );
  const hint = (incarnation: number): RingEffect[] =>
    ring.step(member("6"), { kind: "hint", node: member("4", incarnation) }, simulator.nowMs);
  const asks = (effects: RingEffect[]) =>
    effects.some((effect) => effect.kind === "send" && effect.message.kind === "neighbours");

  assert.equal(asks(hint(1)), false);
  assert.equal(asks(hint(2)), true);
});

test("messages of an earlier start, or of another process with the same start, are no sign of life", async () => {
  const simulator = settled(["1", "4", "6"]);
  simulator.crash(at("4"));
  simulator.restart(at("4"));
  assert.ok(simulator.runUntil(() => isWhole(simulator), CONVERGE_MS_MAX) !== undefined);
  const { ring } = simulator.node(at("1"));
  const ping: RingMessage = { kind: "ping", id: 1, load: 0, led: new Uint8Array(0), zone: "", around: 0 };
  const isAnswered = (from: Member) => ring.step(from, ping, simulator.nowMs).length > 0;

  assert.equal(isAnswered(member("4", 1)), false);
  assert.equal(isAnswered({ ...member("4", 2), instance: "copy" }), false);
  assert.equal(isAnswered(member("4", 2)), true);
});

test("a later start of a node takes the place of the earlier one only once it has joined", async () => {
  const simulator = settled(["1", "4", "6", "8"]);
  const { ring } = simulator.node(at("1"));
  const ping: RingMessage = { kind: "ping", id: 1, load: 0, led: new Uint8Array(0), zone: "", around: 0 };
  assert.equal(ring.successorsOf(at("2"), 1)?.[0]?.nodeId, at("4"));

  ring.step(member("4", 2), ping, simulator.nowMs);

  assert.equal(ring.isSuspected(at("4")), false);
  assert.equal(ring.successorsOf(at("2"), 1)?.[0]?.nodeId, at("6"));
  simulator.restart(at("4"));
  wholeWithin(simulator, 2000);
  assert.equal(ring.successors[0]?.incarnation, 2);
  assert.equal(ring.successorsOf(at("2"), 1)?.[0]?.nodeId, at("4"));
});

test("a process that has not joined answers pings and refuses the rest", async () => {
  const ring = new Ring({
    self: member("1"),
    settings: { successors: 8, suspectAfterMs: 1200, contactsMax: 64 },
    random: Math.random,
    contacts: [],
    nowMs: 0,
  });
  const kindsFor = (message: RingMessage) =>
    ring.step(member("4"), message, 1).flatMap((e) => (e.kind === "send" ? [e.message.kind] : []));

  assert.deepEqual(kindsFor({ kind: "ping", id: 1, load: 0, led: new Uint8Array(0), zone: "", around: 0 }), [
    "pong",
  ]);
  assert.deepEqual(kindsFor({ kind: "neighbours", id: 1 }), ["refusal"]);
  assert.deepEqual(kindsFor({ kind: "probe", id: 1, target: member("6") }), ["refusal"]);
  assert.deepEqual(kindsFor({ kind: "reserve", id: 1, point: at("6"), known: [] }), ["refusal"]);
  assert.deepEqual(kindsFor({ kind: "closest", id: 1, point: at("6"), avoid: [], claimed: true }), [
    "refusal",
  ]);
  assert.deepEqual(kindsFor({ kind: "notify", node: member("4") }), []);
});

test("rings of one, two and three come and go", async () => {
  const simulator = settled(["1"]);
  assert.deepEqual(simulator.node(at("1")).ring.successorsOf(at("8"), 5), [simulator.node(at("1")).member]);
  simulator.join(at("8"), [member("1")]);
  wholeWithin(simulator, 200);
  simulator.join(at("4"), [member("8")]);
  wholeWithin(simulator, 5000);

  simulator.crash(at("4"));
  wholeWithin(simulator, 5000);
  simulator.crash(at("8"));
  wholeWithin(simulator, 5000);
  simulator.restart(at("8"));
  simulator.restart(at("4"));
  wholeWithin(simulator, 8000);
});

test("up to L + 2 nodes, each knows from its own lists who follows any point", async () => {
  const names = ["1", "2", "4", "5", "7"];
  const simulator = settled(names, 3);

  for (const name of names) {
    const { ring } = simulator.node(at(name));
    assert.deepEqual(
      ring.successorsOf(at("3"), 9)?.map((m) => m.nodeId),
      ["4", "5", "7", "1", "2"].map(at),
    );
    assert.deepEqual(
      ring.successorsOf(at("5"), 2)?.map((m) => m.nodeId),
      ["5", "7"].map(at),
    );
    assert.equal(ring.sizeEstimate(), 5);
  }
  simulator.crash(at("4"));
  simulator.run(1400);
  assert.deepEqual(
    simulator
      .node(at("1"))
      .ring.successorsOf(at("3"), 2)
      ?.map((m) => m.nodeId),
    ["5", "7"].map(at),
  );
});

test("with more nodes, the own view says so where it does not reach", async () => {
  const simulator = settled(["1", "3", "5", "7", "9", "b", "d", "f"], 3);
  const { ring } = simulator.node(at("1"));

  assert.deepEqual(
    ring.successorsOf(at("2"), 3)?.map((m) => m.nodeId),
    ["3", "5", "7"].map(at),
  );
  assert.equal(ring.successorsOf(at("2"), 4), undefined);
  assert.equal(ring.successorsOf(at("8"), 1), undefined);
  assert.deepEqual(
    ring.successorsOf(at("0"), 1)?.map((m) => m.nodeId),
    ["1"].map(at),
  );
});

test("four of five that restart at once find the fifth, which knows only them", async () => {
  const simulator = settled(["1", "4", "6", "8", "a"]);
  for (const name of ["4", "6", "8", "a"]) {
    simulator.crash(at(name));
    simulator.restart(at(name));
  }

  wholeWithin(simulator, 3000);
});

test("a server whose contacts are all gone is found by a member that remembers it", async () => {
  const simulator = settled(["1", "4", "6", "8"]);
  simulator.crash(at("6"));
  simulator.run(8000);
  simulator.join(at("6"), [member("5")]);

  wholeWithin(simulator, CONVERGE_MS_MAX);
});

test("two rings of which only one node of one side has heard of the other become one", async () => {
  const simulator = settled(["6", "c", "d"]);
  const other = simulator.bootstrap(at("1"));
  const far = simulator.join(at("a"), [other.member]);
  simulator.run(2000);
  // Over there 1 follows c, which is behind d and thus of no use to c itself.
  simulator.node(at("c")).ring.step(member("6"), { kind: "hint", node: far.member }, simulator.nowMs);

  wholeWithin(simulator, CONVERGE_MS_MAX);
});

test(`all restart, one after another, and become one ring again (SEED=${seed})`, async () => {
  const simulator = settled(["1", "4", "6", "8", "a"]);
  const names = ["1", "4", "6", "8", "a"];
  for (const name of names) simulator.crash(at(name));
  simulator.run(10_000);
  for (const name of names.sort(() => simulator.random() - 0.5)) {
    simulator.restart(at(name));
    simulator.run(simulator.random() * 4000);
  }

  wholeWithin(simulator, CONVERGE_MS_MAX);
});

test("half of a ring of 60 dies, and nobody is lost", async () => {
  const simulator = new RingSimulator({ seed });
  assert.ok(grow(simulator, 60) !== undefined);
  simulator.run(5000);
  const doomed = simulator.members.filter(() => simulator.random() < 0.5);
  for (const node of doomed) simulator.crash(node.member.nodeId);

  wholeWithin(simulator, CONVERGE_MS_MAX);
});

test("a split of five is whole 3 s after it ends, one of 60 after 9 s", async () => {
  for (const [nodes, msMax] of [
    [5, 3000],
    [60, 9000],
  ] as const) {
    const simulator = new RingSimulator({ seed });
    assert.ok(grow(simulator, nodes) !== undefined);
    simulator.run(3000);
    splitInTwo(simulator);
    simulator.run(12_000);
    assert.notEqual(simulator.disorder(), undefined);
    simulator.heal();

    wholeWithin(simulator, msMax, `${nodes} nodes`);
  }
});

test("places are the middles of the largest arcs, and never the same for two that come at once", async () => {
  const simulator = settled(["1", "4", "6", "8"]);
  const points: (NodeId | undefined)[] = [];

  for (const name of ["1", "4", "6", "8", "1"]) {
    simulator.choose(simulator.node(at(name)), (point) => points.push(point));
  }
  simulator.run(1000);

  assert.equal(points.length, 5);
  assert.equal(new Set(points).size, 5);
  // The middle of (8, 1], those of its halves, and that of (1, 4].
  for (const point of ["c8", "a4", "ec", "28"]) assert.ok(points.includes(at(point)), point);

  const large = new RingSimulator({ seed });
  assert.ok(grow(large, 100) !== undefined);
  assert.ok(largestArc(large) <= 2.6, `${largestArc(large)} x the mean`);
});
