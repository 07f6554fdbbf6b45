/** The small parts of replication, as tables. */
import { test } from "tap";
import { compareBallots, compareClaims, compareVersions, versionOf } from "../../src/replication/ballot.ts";
import { BatchWindow } from "../../src/replication/batch-window.ts";
import { failedCondition, OpenBatch } from "../../src/replication/open-batch.ts";
import { majorityOf, reachedByMajority } from "../../src/replication/quorum.ts";
import { nextStep, type Step } from "../../src/replication/reconfiguration.ts";
import type { Change } from "../../src/replication/register.ts";

const ballot = (round: number, replicaId = "a/1") => ({ round, replicaId });
const put = (key: string, bytes = 1): Change => ({ kind: "put", key, value: new Uint8Array(bytes) });

test("ballots are ordered by round, then by who proposed them", (t) => {
  for (const [a, b, order] of [
    [ballot(1), ballot(2), -1],
    [ballot(10), ballot(9), 1],
    [ballot(3, "a/1"), ballot(3, "b/1"), -1],
    [ballot(3, "b/1"), ballot(3, "a/9"), 1],
    [ballot(3), ballot(3), 0],
    [ballot(0, ""), ballot(1), -1],
  ] as const)
    t.equal(Math.sign(compareBallots(a, b)), order, `${JSON.stringify(a)} and ${JSON.stringify(b)}`);
  t.equal(Math.sign(compareClaims({ accepted: ballot(2), seq: 1 }, { accepted: ballot(1), seq: 900 })), 1);
  t.equal(Math.sign(compareClaims({ accepted: ballot(2), seq: 1 }, { accepted: ballot(2), seq: 2 })), -1);
  t.end();
});

test("versions are ordered as the states that they name", (t) => {
  t.equal(versionOf(ballot(7, "n/2"), 4), "7.n/2.4");
  t.equal(versionOf(ballot(7, "n/2"), 4, 3), "7.n/2.4.3");
  for (const [a, b, order] of [
    ["7.n/2.4", "7.n/2.10", -1],
    ["10.a/1.0", "9.z/1.99", 1],
    ["", "1.a/1.0", -1],
    ["1.a/1.0", "", 1],
    ["2.a/1.5", "2.a/1.5", 0],
  ] as const)
    t.equal(Math.sign(compareVersions(a, b)), order, `${a} and ${b}`);
  t.end();
});

test("a majority of 1, 2, 3, 4, 5, 6 is 1, 2, 2, 3, 3, 4", (t) => {
  t.same([1, 2, 3, 4, 5, 6].map(majorityOf), [1, 2, 2, 3, 3, 4]);
  for (const [values, reached] of [
    [[5], 5],
    [[5, 3], 3],
    [[5, 3, -1], 3],
    [[9, 9, 2, 1], 2],
    [[9, 8, 7, -1, -1], 7],
    [[9, -1, -1], -1],
    [[], Number.NEGATIVE_INFINITY],
  ] as const)
    t.equal(reachedByMajority(values), reached, JSON.stringify(values));
  t.end();
});

test("a group comes nearer to the wish one step at a time", (t) => {
  type Group = Partial<Parameters<typeof nextStep>[0]> & { lost?: string[]; dismissed?: string[] };
  const table: readonly [string, Group, Step | undefined][] = [
    ["alone and content", { members: ["a/1"], wish: ["a"] }, undefined],
    ["a newcomer first learns", { members: ["a/1"], wish: ["a", "b"] }, { kind: "learn", nodeId: "b" }],
    ["one that learns is waited for", { members: ["a/1"], wish: ["a", "b"], learning: ["b"] }, undefined],
    [
      "level, it becomes a member",
      { members: ["a/1"], wish: ["a", "b"], level: ["a/1", "b/1"] },
      { kind: "add", replicaId: "b/1" },
    ],
    [
      "a live one goes last: first its successor comes",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "d"], level: ["a/1", "b/1", "c/1", "d/1"] },
      { kind: "add", replicaId: "d/1" },
    ],
    [
      "then it goes",
      { members: ["a/1", "b/1", "c/1", "d/1"], wish: ["a", "b", "d"], level: ["a/1", "b/1", "c/1", "d/1"] },
      { kind: "remove", replicaId: "c/1" },
    ],
    [
      "a dead one goes first, once its substitute is level",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "d"], level: ["a/1", "b/1", "d/1"], lost: ["c"] },
      { kind: "remove", replicaId: "c/1" },
    ],
    [
      "of two dead ones a substitute replaces one",
      {
        members: ["a/1", "b/1", "c/1", "d/1", "e/1"],
        wish: ["a", "b", "c", "f"],
        level: ["a/1", "b/1", "c/1", "f/1"],
        lost: ["d", "e"],
        replicationFactor: 5,
      },
      { kind: "remove", replicaId: "d/1" },
    ],
    [
      "the other keeps its place: the group does not shrink",
      {
        members: ["a/1", "b/1", "c/1", "e/1"],
        wish: ["a", "b", "c", "f"],
        level: ["a/1", "b/1", "c/1", "f/1"],
        lost: ["e"],
        replicationFactor: 5,
      },
      { kind: "add", replicaId: "f/1" },
    ],
    [
      "a dead one that would cost a majority goes, also where there is room",
      {
        members: ["a/1", "b/1", "c/1"],
        wish: ["a", "b", "d"],
        level: ["a/1", "b/1", "d/1"],
        lost: ["c"],
        replicationFactor: 5,
      },
      { kind: "remove", replicaId: "c/1" },
    ],
    [
      "a dead one stays while nobody is there for it",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b"], level: ["a/1", "b/1"], lost: ["c"] },
      undefined,
    ],
    [
      "one away for a short time keeps its place",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "d"], level: ["a/1", "b/1"] },
      undefined,
    ],
    [
      "a memory that has gone is replaced by the next one of its node",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "c"], gone: new Set(["c/1"]) },
      { kind: "learn", nodeId: "c" },
    ],
    [
      "and removed when that is level",
      {
        members: ["a/1", "b/1", "c/1"],
        wish: ["a", "b", "c"],
        level: ["a/1", "b/1", "c/2"],
        gone: new Set(["c/1"]),
      },
      { kind: "remove", replicaId: "c/1" },
    ],
    [
      "the preferred one leads",
      { self: "b/1", members: ["a/1", "b/1"], wish: ["a", "b"], level: ["a/1", "b/1"] },
      { kind: "handOver", replicaId: "a/1" },
    ],
    [
      "the preferred one of those that are level",
      { self: "c/1", members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "c"], level: ["b/1", "c/1"] },
      { kind: "handOver", replicaId: "b/1" },
    ],
    [
      "a leader that is to go hands over before it is removed",
      {
        self: "c/1",
        members: ["a/1", "b/1", "c/1", "d/1"],
        wish: ["a", "b", "d"],
        level: ["a/1", "b/1", "c/1", "d/1"],
      },
      { kind: "handOver", replicaId: "a/1" },
    ],
    [
      "one that an operator dismissed goes though nobody comes in its place",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b"], dismissed: ["c"] },
      { kind: "remove", replicaId: "c/1" },
    ],
    [
      "but not before its substitute, when there is one",
      { members: ["a/1", "b/1", "c/1"], wish: ["a", "b", "d"], dismissed: ["c"] },
      { kind: "learn", nodeId: "d" },
    ],
    [
      "nor while two others are away: the rest would be no majority",
      {
        members: ["a/1", "b/1", "c/1", "d/1", "e/1"],
        wish: ["a", "d"],
        level: ["a/1", "d/1", "e/1"],
        replicationFactor: 5,
        dismissed: ["e"],
      },
      undefined,
    ],
    [
      "one that is dismissed and dead goes, which makes the majority smaller",
      {
        members: ["a/1", "b/1", "c/1", "e/1"],
        wish: ["a", "b", "c"],
        level: ["a/1", "b/1", "c/1"],
        replicationFactor: 5,
        dismissed: ["e"],
      },
      { kind: "remove", replicaId: "e/1" },
    ],
    ["a group never shrinks by itself", { members: ["a/1", "b/1", "c/1"], wish: ["a"] }, undefined],
  ];
  for (const [name, { lost, dismissed, ...group }, step] of table) {
    const found = nextStep({
      self: "a/1",
      members: [],
      level: group.members ?? [],
      learning: [],
      wish: [],
      replicationFactor: 3,
      gone: new Set(),
      isLost: (nodeId) => lost?.includes(nodeId) === true,
      isDismissed: (nodeId) => dismissed?.includes(nodeId) === true,
      ...group,
    });
    t.same(found, step, name);
  }
  t.end();
});

test("the window keeps the newest batches and says how far it reaches back", (t) => {
  const window = new BatchWindow({ windowBatches: 3, windowBytes: 100 });
  t.equal(window.reaches(1), false);
  t.equal(window.first, undefined);

  for (let seq = 1; seq <= 5; seq++) window.push({ seq, changes: [], bytes: 10 });

  t.equal(window.first, 3);
  t.equal(window.reaches(2), false);
  t.equal(window.reaches(3), true);
  t.same(
    window.from(4, 10).map(({ seq }) => seq),
    [4, 5],
  );
  t.same(
    window.from(1, 2).map(({ seq }) => seq),
    [3, 4],
  );
  t.equal(window.bytesAfter(3), 20);
  t.same([window.bytesBetween(1, 4), window.bytesBetween(3, 4), window.bytesBetween(4, 4)], [20, 10, 0]);
  t.same(
    [1, 10, 11, 30].map((bytesMax) => window.from(1, 10, bytesMax).length),
    [1, 1, 2, 3],
    "at least one",
  );
  t.equal(window.from(1, 10, 0).length, 0);
  window.push({ seq: 6, changes: [], bytes: 1000 });
  t.same([window.first, window.from(1, 9).length], [6, 1], "the newest stays whatever its size");
  t.end();
});

test("an open batch shows what it will have done", (t) => {
  const batch = new OpenBatch();
  const held = { version: "1.a/1.1", value: Buffer.from("old") };
  t.equal(batch.read("k", ballot(2), 5, held), held);

  batch.add([put("k"), put("l")], batch.stepOf([put("k"), put("l")]));
  t.equal(batch.read("k", ballot(2), 5, held)?.version, "2.a/1.5");

  t.equal(batch.stepOf([put("m")]), 0);
  const step = batch.stepOf([put("k"), put("m")]);
  batch.add([put("k"), put("m")], step);
  t.equal(batch.read("k", ballot(2), 5, held)?.version, "2.a/1.5.1", "the later one is another version");
  t.equal(batch.read("m", ballot(2), 5, undefined)?.version, "2.a/1.5.1");
  t.equal(batch.read("l", ballot(2), 5, undefined)?.version, "2.a/1.5");
  t.equal(batch.stepOf([put("l")]), 2);

  batch.add([{ kind: "delete", key: "k" }]);
  t.equal(batch.read("k", ballot(2), 5, held), undefined);
  t.same(
    batch.changes.map(({ key }) => key),
    ["k", "l", "m"],
  );
  t.end();
});

test("an open batch is bounded, but takes any one operation when it is empty", (t) => {
  const batch = new OpenBatch();
  t.equal(batch.fits([put("k", 5 * 1024 * 1024)]), true);
  batch.add([put("k", 3 * 1024 * 1024)]);
  t.equal(batch.fits([put("l", 512 * 1024)]), true);
  t.equal(batch.fits([put("l", 2 * 1024 * 1024)]), false);
  t.equal(batch.fits(Array.from({ length: 1024 }, (_, i) => put(`${i}`))), false);
  t.end();
});

test("the first condition that does not hold is named, with what stands there", (t) => {
  const entries = new Map([["k", { version: "1.a/1.1", value: Buffer.from("v") }]]);
  const read = (key: string) => entries.get(key);
  for (const [conditions, failed] of [
    [[], undefined],
    [[{ key: "k", is: "present" }], undefined],
    [[{ key: "k", is: "1.a/1.1" }], undefined],
    [[{ key: "none", is: "absent" }], undefined],
    [[{ key: "k", is: "absent" }], { key: "k", found: "1.a/1.1" }],
    [[{ key: "none", is: "present" }], { key: "none", found: undefined }],
    [[{ key: "none", is: "1.a/1.1" }], { key: "none", found: undefined }],
    [
      [
        { key: "k", is: "present" },
        { key: "k", is: "1.a/1.2" },
        { key: "none", is: "present" },
      ],
      { key: "k", found: "1.a/1.1" },
    ],
  ] as const)
    t.same(failedCondition(conditions, read), failed, JSON.stringify(conditions));
  t.end();
});
