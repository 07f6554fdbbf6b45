import assert from "node:assert/strict";
import { test } from "tap";
import { LedBook } from "../../src/node/led-book.ts";
import type { NodeId } from "../../src/ring/identifier.ts";

type List = readonly (readonly [partition: number, round: number])[];

const nodeId = (digit: string) => digit.padEnd(40, "0") as NodeId;
const [a, b] = [nodeId("a"), nodeId("b")] as const;

/** What server `b` notes down, with what it asked for and whose followers it woke. */
function reader() {
  const asked: NodeId[] = [];
  const shorter: NodeId[] = [];
  const book = new LedBook({ ask: (from) => asked.push(from), changed: (of) => shorter.push(of) });
  return { book, asked, shorter };
}

const writer = new LedBook({ ask: () => {}, changed: () => {} });
const digestOf = (list: List) => writer.digestOf(list);

test("a list that was lost is asked for at the next ping, and then no more", async () => {
  const { book, asked, shorter } = reader();
  const first: List = [
    [3, 1],
    [7, 2],
  ];
  book.learn(a, 1, first);
  book.heard(a, 1, digestOf(first));
  assert.deepEqual(asked, []);

  // That 7 is led there no more was told, and got lost: the digest says so.
  const next: List = [[3, 1]];
  book.heard(a, 1, digestOf(next));
  assert.deepEqual(asked, [a]);
  assert.deepEqual(shorter, []);
  book.heard(a, 1, digestOf(next));
  assert.deepEqual(asked, [a], "the answer may still be under way");
  book.learn(a, 1, next);

  assert.deepEqual(shorter, [a]);
  assert.equal(book.roundOf(a, 7), undefined);
  book.heard(a, 1, digestOf(next));
  assert.deepEqual(asked, [a]);
});

test("what stands in a list holds however long nothing is said", async () => {
  const { book, shorter } = reader();
  book.learn(a, 1, [[5, 4]]);
  book.learn(b, 1, [[5, 9]]);

  assert.equal(book.roundOf(a, 5), 4);
  assert.equal(book.leaderOf(5), b);
  assert.deepEqual(shorter, []);
});

test("what an earlier start said is void as soon as a later one speaks", async () => {
  const { book, asked, shorter } = reader();
  book.learn(a, 1, [[5, 4]]);

  book.heard(a, 2, digestOf([]));

  assert.equal(book.roundOf(a, 5), undefined);
  assert.deepEqual(shorter, [a]);
  assert.deepEqual(asked, [a]);
  book.learn(a, 1, [[5, 4]]);
  assert.equal(book.roundOf(a, 5), undefined, "an old list that comes late");
});
