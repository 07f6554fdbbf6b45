import assert from "node:assert/strict";
import { test } from "tap";
import {
  arcLength,
  between,
  clockwiseFrom,
  exponentBeyond,
  fingerStart,
  inArc,
  middleOf,
} from "../../src/ring/arc.ts";
import { FingerTable } from "../../src/ring/finger-table.ts";
import {
  distance,
  identifier,
  identifierOf,
  isBetween,
  isInArc,
  isNodeId,
  type NodeId,
  nodeIdOf,
  partitionOf,
  pointOf,
  positionOf,
  wrap,
} from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import { RoundTrip } from "../../src/ring/round-trip.ts";
import { SuccessorList } from "../../src/ring/successor-list.ts";

const at = (digits: string) => digits.padEnd(40, "0") as NodeId;
const member = (digits: string): Member => ({
  nodeId: at(digits),
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation: 1,
  instance: "a",
});
const nobody = () => false;
const names = (members: readonly Member[]) => members.map((m) => m.nodeId.replace(/0+$/, "")).join(" ");

test("arcs are half open, wrap round, and one point is the whole circle", async () => {
  // point, from, to, in (from, to], in (from, to)
  const table = [
    ["2", "1", "3", true, true],
    ["3", "1", "3", true, false],
    ["1", "1", "3", false, false],
    ["4", "1", "3", false, false],
    ["f", "e", "2", true, true],
    ["1", "e", "2", true, true],
    ["2", "e", "2", true, false],
    ["e", "e", "2", false, false],
    ["5", "e", "2", false, false],
    ["5", "7", "7", true, true],
    ["7", "7", "7", true, false],
  ] as const;
  for (const [point, from, to, isIn, isInside] of table) {
    const [p, a, b] = [at(point), at(from), at(to)];
    assert.equal(inArc(p, a, b), isIn, `${point} in (${from}, ${to}]`);
    assert.equal(between(p, a, b), isInside, `${point} in (${from}, ${to})`);
    assert.equal(isInArc(identifierOf(p), identifierOf(a), identifierOf(b)), isIn);
    assert.equal(isBetween(identifierOf(p), identifierOf(a), identifierOf(b)), isInside);
  }
});

test("identifiers are the first 160 bits of SHA-256 and survive being written as hex", async () => {
  assert.equal(nodeIdOf(pointOf("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4");
  assert.equal(nodeIdOf(identifier(1n)), "0000000000000000000000000000000000000001");
  assert.equal(identifierOf(at("8")), 1n << 159n);
  assert.equal(wrap(-1n), (1n << 160n) - 1n);
  assert.equal(distance(identifierOf(at("f")), identifierOf(at("1"))), 2n << 156n);
  assert.throws(() => identifier(1n << 160n));
  assert.equal(isNodeId("E3b0c44298fc1c149afbf4c8996fb92427ae41e4"), false);
  assert.equal(isNodeId("e3b0"), false);
});

test("a placement belongs to the partition in whose arc its hash falls", async () => {
  // SHA-256 of the empty string begins e3b0c442, of "abc" ba7816bf.
  for (const [placement, partitions, partition] of [
    ["", 1, 0],
    ["", 2, 1],
    ["", 256, 0xe3],
    ["", 65_536, 0xe3b0],
    ["abc", 1, 0],
    ["abc", 4, 2],
    ["abc", 65_536, 0xba78],
  ] as const) {
    assert.equal(partitionOf(placement, partitions), partition, `${placement} of ${partitions}`);
  }
  assert.equal(nodeIdOf(positionOf(0, 1)), at(""));
  assert.equal(nodeIdOf(positionOf(3, 256)), at("03"));
  assert.equal(nodeIdOf(positionOf(65_535, 65_536)), at("ffff"));
  for (const placement of ["", "abc", "example.com", "127.0.0.1:8080"]) {
    for (const partitions of [1, 2, 256, 65_536]) {
      const partition = partitionOf(placement, partitions);
      const start = positionOf(partition, partitions);
      const end = positionOf((partition + 1) % partitions, partitions);
      const point = pointOf(placement);
      const isInside = end > start ? point >= start && point < end : point >= start;
      assert.ok(isInside, `${placement} of ${partitions}`);
    }
  }
});

test("middles, lengths and finger starts go round the circle", async () => {
  assert.equal(middleOf(at("2"), at("4")), at("3"));
  assert.equal(middleOf(at("f"), at("1")), at("0"));
  assert.equal(middleOf(at("4"), at("4")), at("c"));
  assert.equal(arcLength(at("4"), at("4")), 1n << 160n);
  assert.equal(fingerStart(at("c"), 159), at("4"));
  assert.equal(exponentBeyond(at("0"), at("1")), 157);
  assert.equal(exponentBeyond(at("0"), at("9")), 160);
  assert.deepEqual([at("1"), at("8"), at("5"), at("3")].sort(clockwiseFrom(at("5"))), [
    at("8"),
    at("1"),
    at("3"),
    at("5"),
  ]);
});

test("a list of candidates is cut at the first that does not go forward", async () => {
  for (const [candidates, length, expected, isWhole] of [
    [["5", "7", "9"], 8, "5 7 9", false],
    // Removing self would let the list wrap round the ring: 5 7 would be followed by 4 again.
    [["5", "7", "3", "5"], 8, "5 7", true],
    [["5", "3", "9"], 8, "5", true],
    [["5", "4", "9"], 8, "5", false],
    [["5", "5", "9"], 8, "5", false],
    [["9", "1", "2", "5"], 8, "9 1 2", false],
    [["5", "7", "9"], 2, "5 7", false],
    [["5", "7", "3"], 2, "5 7", true],
    [["3"], 8, "", true],
    [[], 8, "", true],
  ] as const) {
    const list = new SuccessorList(member("3"), length);
    list.adopt(candidates.map(member), undefined);
    assert.equal(names(list.members), expected, candidates.join(" "));
    assert.equal(list.isWhole(undefined, nobody), isWhole, `${candidates.join(" ")} whole`);
  }
});

test("a short list ends with the predecessor, and the one past the cut shows a ring of L + 2 as whole", async () => {
  const list = new SuccessorList(member("3"), 2);
  assert.equal(list.adopt([member("5")], member("1")), true);
  assert.equal(list.adopt([member("5")], member("1")), false);
  assert.equal(names(list.members), "5 1");
  // Unknown nodes may stand between the two.
  assert.equal(names(list.chain), "5");
  assert.equal(list.isWhole(member("1"), nobody), false);

  list.endWith(member("2"));
  assert.equal(names(list.members), "5 2");

  list.adopt([member("5"), member("7"), member("9")], member("9"));
  assert.equal(names(list.members), "5 7");
  assert.equal(list.isWhole(member("9"), nobody), true);
  assert.equal(list.isWhole(member("a"), nobody), false);

  // The answer that came round is older than a predecessor that stands elsewhere.
  list.adopt([member("5"), member("7"), member("3")], undefined);
  assert.equal(list.isWhole(member("7"), nobody), true);
  assert.equal(list.isWhole(member("9"), nobody), false);
  assert.equal(
    list.isWhole(member("5"), (m) => m.nodeId === at("7")),
    true,
  );
});

test("a finger owns what lies between its start and itself, and nothing when it lies before", async () => {
  const fingers = new FingerTable(at("0"));
  assert.equal(fingers.set(159, member("9")), true);
  assert.equal(fingers.set(159, member("9")), false);
  fingers.set(158, member("3"));
  fingers.set(157, member("0"));

  assert.equal(names(fingers.distinct()), "9");
  assert.equal(fingers.ownerOf(at("85"))?.nodeId, at("9"));
  assert.equal(fingers.ownerOf(at("8"))?.nodeId, at("9"));
  assert.equal(fingers.ownerOf(at("9"))?.nodeId, at("9"));
  assert.equal(fingers.ownerOf(at("7")), undefined);
  assert.equal(fingers.ownerOf(at("91")), undefined);
  fingers.drop(at("9"));
  assert.equal(fingers.ownerOf(at("85")), undefined);
});

test("time-outs follow the round trip, between 50 ms and 1 s", async () => {
  const roundTrip = new RoundTrip();
  assert.equal(roundTrip.timeoutMs, 500);
  roundTrip.measured(100);
  assert.equal(roundTrip.timeoutMs, 300);
  for (let i = 0; i < 100; i++) roundTrip.measured(1);
  assert.equal(roundTrip.timeoutMs, 50);
  roundTrip.measured(5000);
  assert.equal(roundTrip.timeoutMs, 1000);
});
