import assert from "node:assert/strict";
import { test } from "tap";
import { randomPoint } from "../../src/ring/arc.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import { type Found, type LocalAnswer, Lookup } from "../../src/ring/lookup.ts";
import type { Member } from "../../src/ring/member.ts";
import type { Answer } from "../../src/ring/message.ts";
import { grow } from "../simulation/ring-churn.ts";
import { observe } from "../simulation/ring-figures.ts";
import { RingSimulator } from "../simulation/ring-simulator.ts";

const seed = Number(process.env.SEED ?? 1);
const at = (digits: string) => digits.padEnd(40, "0") as NodeId;
const member = (digits: string): Member => ({
  nodeId: at(digits),
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation: 1,
  instance: "a",
});
const nothing: LocalAnswer = { owner: null, successors: [], predecessor: null, next: [], unsettled: false };

interface Asked {
  readonly to: string;
  readonly claimed: boolean;
  readonly avoid: readonly string[];
  readonly patience: number;
  answer(answer: Partial<LocalAnswer>): void;
  fail(): void;
}

/** A lookup of `point` by node 1, whose questions wait here for their answers. */
function lookupOf(point: string, local: Partial<LocalAnswer>, stepsMax = 16) {
  const asked: Asked[] = [];
  const ends: (Found | undefined)[] = [];
  const name = (nodeId: NodeId) => nodeId.replace(/0+$/, "");
  const lookup = new Lookup({
    point: at(point),
    avoid: [],
    stepsMax,
    routes: {
      local: () => ({ ...nothing, ...local }),
      ask: (to, question, done, patience) => {
        const reply = (answer: Answer | undefined) => done(answer, 0);
        asked.push({
          to: name(to.nodeId),
          claimed: question.claimed,
          patience,
          avoid: question.avoid.map(name),
          answer: (answer) => reply({ kind: "closer", id: 0, ...nothing, ...answer }),
          fail: () => reply(undefined),
        });
        return { slowMs: 25 };
      },
    },
    done: (found) => ends.push(found),
  });
  lookup.start(member("1"), 0);
  return { lookup, asked, ends };
}

test("a result counts only when the owner itself has answered", async () => {
  const { asked, ends } = lookupOf("75", { next: [member("3"), member("7")] });

  assert.equal(asked[0]?.to, "7");
  asked[0]?.answer({ owner: member("8"), successors: [member("9")] });
  assert.equal(ends.length, 0);
  assert.deepEqual([asked[1]?.to, asked[1]?.claimed], ["8", true]);
  asked[1]?.answer({ owner: member("8"), successors: [member("9"), member("b")] });

  assert.equal(ends.length, 1);
  assert.equal(ends[0]?.owner.nodeId, at("8"));
  assert.deepEqual(ends[0]?.path, [at("7"), at("8")]);
  assert.equal(ends[0]?.hops, 2);
  assert.deepEqual(
    ends[0]?.successors.map((m) => m.nodeId),
    [at("9"), at("b")],
  );
});

test("an owner that does not answer is asked three times, then avoided; who named it is asked again", async () => {
  const { asked, ends } = lookupOf("75", { next: [member("7")] });
  asked[0]?.answer({ owner: member("8") });

  for (const patience of [1, 4, 16]) {
    assert.deepEqual(
      [asked.at(-1)?.to, asked.at(-1)?.claimed, asked.at(-1)?.patience],
      ["8", true, patience],
    );
    asked.at(-1)?.fail();
  }

  assert.deepEqual([asked[4]?.to, asked[4]?.avoid], ["7", ["8"]]);
  asked[4]?.answer({ owner: member("9") });
  asked[5]?.answer({ owner: member("9") });
  assert.equal(ends[0]?.owner.nodeId, at("9"));
});

test("an owner before which its live predecessor stands sends the lookup there", async () => {
  const { asked, ends } = lookupOf("75", { owner: member("8") });
  assert.deepEqual([asked[0]?.to, asked[0]?.claimed], ["8", true]);

  asked[0]?.answer({ unsettled: true, predecessor: member("77") });

  assert.deepEqual([asked[1]?.to, asked[1]?.claimed], ["77", true]);
  asked[1]?.answer({ owner: member("77") });
  assert.equal(ends[0]?.owner.nodeId, at("77"));
});

test("a wild claim is walked back three steps at most; then the other candidates are asked", async () => {
  const { asked } = lookupOf("75", { owner: member("f"), next: [member("7")] });
  for (const predecessor of ["e", "d", "c", "b"]) {
    asked[asked.length - 1]?.answer({ unsettled: true, predecessor: member(predecessor) });
  }

  assert.deepEqual(
    asked.map(({ to }) => to),
    ["f", "e", "d", "c", "7"],
  );
});

test("when the first step is slow, one more runs beside it, and no third", async () => {
  const { lookup, asked, ends } = lookupOf("75", { next: [member("7"), member("6"), member("5")] });

  lookup.tick(24);
  assert.equal(asked.length, 1);
  lookup.tick(25);
  lookup.tick(60);

  assert.deepEqual(
    asked.map(({ to }) => to),
    ["7", "6"],
  );
  asked[1]?.answer({ owner: member("8") });
  asked[2]?.fail();
  asked[0]?.answer({ owner: member("8") });
  assert.equal(ends.length, 0);
});

test("a lookup that leads nowhere ends after its bound of steps", async () => {
  const { asked, ends } = lookupOf("f", { next: [member("2")] }, 5);
  for (let i = 0; i < 10; i++) asked[i]?.answer({ next: [member((3 + i).toString(16))] });

  assert.equal(asked.length, 5);
  assert.deepEqual(ends, [undefined]);
});

test(`in a ring of 100 lookups take under 4 hops and name the owner (SEED=${seed})`, async () => {
  const simulator = new RingSimulator({ seed });
  assert.ok(grow(simulator, 100) !== undefined);
  simulator.run(15_000);

  const { hopsMean, hopsP99, failed, wrong } = observe(simulator, { ms: 2500, lookups: 500 });

  assert.deepEqual({ failed, wrong }, { failed: 0, wrong: 0 });
  // Half of log2 N, and log2 N.
  assert.ok(hopsMean > 1.5 && hopsMean <= 3.32, `${hopsMean} hops`);
  assert.ok(hopsP99 <= 6.64, `${hopsP99} hops`);
});

test(`no lookup names a dead node, right after a fifth of the ring died (SEED=${seed})`, async () => {
  const simulator = new RingSimulator({ seed });
  assert.ok(grow(simulator, 60) !== undefined);
  simulator.run(10_000);
  const doomed = simulator.members.filter(() => simulator.random() < 0.2);
  for (const node of doomed) simulator.crash(node.member.nodeId);
  const named: NodeId[] = [];
  let answers = 0;

  for (let i = 0; i < 300; i++) {
    const asker = simulator.pick(simulator.members);
    simulator.lookup(asker, randomPoint(simulator.random), ({ found }) => {
      answers++;
      if (found !== undefined && found.hops > 0) named.push(found.owner.nodeId);
    });
    simulator.run(3);
  }
  simulator.run(10_000);

  assert.equal(answers, 300);
  assert.ok(named.length > 200, `${named.length} found`);
  assert.deepEqual(
    named.filter((nodeId) => !simulator.node(nodeId).isUp),
    [],
  );
});
