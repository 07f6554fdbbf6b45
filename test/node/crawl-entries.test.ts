/** Keys, records and cursors: what is written today must be found and read tomorrow. */
import { test } from "tap";
import { z } from "zod";
import { KeyLayout } from "../../src/node/key-layout.ts";
import { decodeRecord, encodeRecord } from "../../src/node/record.ts";
import { decodeCursor, encodeCursor, type Progress } from "../../src/node/result-cursor.ts";
import { testNames } from "../simulation/crawl-cluster.ts";

const JOB = "0123456789abcdef0123456789abcdef";
const OTHER = "f".repeat(32);
const layout = new KeyLayout(testNames, 256);

test("due pages are in order of priority, then of arrival, those under way first", (t) => {
  const key = (band: "flying" | "waiting", priority: number, seq: number) =>
    layout.due(JOB, "a.test", { band, priority, seq });
  const inOrder = [
    key("flying", 0, 7),
    key("flying", 5, 300),
    key("waiting", 1_000_000, 9),
    key("waiting", 1, 2),
    key("waiting", 0, 1),
    key("waiting", 0, 255),
    key("waiting", 0, 256),
    key("waiting", -1_000_000, 1),
  ];

  t.same([...inOrder].sort(), inOrder);
  t.ok(inOrder.every((one) => one.startsWith(layout.dues(JOB, "a.test"))));
  t.ok(inOrder.slice(0, 2).every((one) => one.startsWith(layout.dueFlying(JOB, "a.test"))));
  t.notOk(inOrder[2]!.startsWith(layout.dueFlying(JOB, "a.test")));
  t.end();
});

test("the newest job of an owner comes first in the index", (t) => {
  const old = layout.jobIndex("ann", 1_700_000_000_000, JOB);
  const young = layout.jobIndex("ann", 1_700_000_000_001, OTHER);

  t.ok(young < old);
  t.ok(old.startsWith(layout.jobIndexPrefix("ann")));
  t.notOk(old.startsWith(layout.jobIndexPrefix("anne")));
  t.end();
});

test("a key names nobody", (t) => {
  for (const key of [
    layout.page(JOB, "secret.example", "k"),
    layout.pace("secret.example"),
    layout.robots("secret.example", "https://secret.example"),
    layout.jobIndex("secret.example", 0, JOB),
    layout.value("secret.example", "n", "k"),
  ]) {
    t.notMatch(key, /secret|example/);
    t.ok(key.length <= 512);
    t.not(key.charCodeAt(0), 0, "the first byte 0 is reserved");
  }
  t.end();
});

test("everything of a job in a partition is under the prefixes that its deletion drops", (t) => {
  const prefixes = layout.ofJob(JOB);
  for (const key of [
    layout.page(JOB, "a.test", "k"),
    layout.due(JOB, "a.test", { band: "waiting", priority: 0, seq: 1 }),
    layout.result(JOB, 1),
    layout.failure(JOB, 1),
    layout.size(JOB, "a.test"),
    layout.out(JOB, "a.test", "k"),
    layout.count(JOB),
  ]) {
    t.ok(prefixes.some((prefix) => key.startsWith(prefix)));
  }
  t.equal(
    prefixes.at(-1),
    layout.count(JOB),
    "the counts go last: they tell that there is something to drop",
  );
  t.notOk(prefixes.some((prefix) => layout.page(OTHER, "a.test", "k").startsWith(prefix)));
  t.end();
});

test("a record comes back as it was, and nothing else is taken for one", (t) => {
  const schema = z.object({ a: z.number(), b: z.array(z.string()), bytes: z.instanceof(Uint8Array) });
  const record = { a: 1, b: ["x", "ü"], bytes: new Uint8Array([1, 2, 3]) };

  const encoded = encodeRecord(record);

  t.equal(encoded[0], 1);
  t.same(
    { ...decodeRecord(schema, encoded), bytes: [...decodeRecord(schema, encoded).bytes] },
    { ...record, bytes: [1, 2, 3] },
  );
  t.throws(() => decodeRecord(schema, encoded.subarray(0, 5)), { code: "DAMAGED" });
  t.throws(() => decodeRecord(schema, encodeRecord({ a: "1" })), { code: "DAMAGED" });
  t.throws(() => decodeRecord(schema, new Uint8Array([2, ...encoded.subarray(1)])), {
    code: "DAMAGED",
    message: /version 2/,
  });
  t.throws(() => decodeRecord(schema, new Uint8Array()), { code: "DAMAGED" });
  t.end();
});

test("a cursor says exactly how far its reader has come, and serves no other list", (t) => {
  const progress: Progress = new Map([
    [200, { n: 1_000_000_000, isOver: false }],
    [3, { n: 0, isOver: true }],
    [65_535, { n: 129, isOver: true }],
  ]);

  const cursor = encodeCursor(0, JOB, progress);

  t.match(cursor, /^[\w-]+$/);
  t.same(
    [...decodeCursor(0, JOB, cursor)],
    [...progress].sort(([a], [b]) => a - b),
  );
  for (const [kind, job, text] of [
    [0, OTHER, cursor],
    [1, JOB, cursor],
    [0, JOB, ""],
    [0, JOB, "%%%"],
    [0, JOB, Buffer.concat([Buffer.from(cursor, "base64url"), Buffer.alloc(12, 0x80)]).toString("base64url")],
  ] as const) {
    t.throws(() => decodeCursor(kind, job, text), { code: "INVALID_INPUT" }, `${kind} ${text}`);
  }
  t.end();
});

test("one key of a user gives one job id, and another user's key another", (t) => {
  t.match(layout.jobIdFor("ann", "k"), /^[0-9a-f]{32}$/);
  t.equal(layout.jobIdFor("ann", "k"), layout.jobIdFor("ann", "k"));
  t.not(layout.jobIdFor("ann", "k"), layout.jobIdFor("bob", "k"));
  t.end();
});
