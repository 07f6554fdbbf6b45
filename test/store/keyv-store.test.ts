/** The journal that gives any Keyv adapter atomic batches, and the crashes of the store in memory. */
import assert from "node:assert/strict";
import { Keyv } from "keyv";
import { test } from "tap";
import { UnavailableError, UsageError } from "../../src/errors.ts";
import { ClaimPages } from "../../src/store/claim-pages.ts";
import { GroupCommit } from "../../src/store/group-commit.ts";
import { KeyvStore } from "../../src/store/keyv-store.ts";
import { MemoryStore } from "../../src/store/memory-store.ts";
import { OrderedMap } from "../../src/store/ordered-map.ts";
import type { Store } from "../../src/store/store.ts";
import { randomNumbers, seed } from "../conformance/store.ts";
import { FragileMap } from "./fragile-map.ts";
import { testCipher } from "./test-cipher.ts";

const put = (key: string, text: string) => ({
  kind: "put" as const,
  key,
  entry: { version: text, value: Buffer.from(text) },
});
const textOf = (store: Store, key: string) => store.get(1, 1, key)?.version;

test("wherever a Keyv backend dies, a batch is there as a whole or not at all", async () => {
  const cipher = testCipher();
  const outcomes = new Set<string>();
  for (let writes = 0; writes <= 12; writes++) {
    const map = new FragileMap();
    const before = await KeyvStore.open("a map", new Keyv<string>({ store: map }), cipher);
    await before.write({
      partition: 1,
      generation: 1,
      changes: [put("a", "old"), put("b", "old"), put("c", "old")],
      meta: Buffer.from("old"),
      claim: Buffer.alloc(24, "old"),
    });

    map.writesLeft = writes;
    const written = before.write({
      partition: 1,
      generation: 1,
      changes: [put("a", "new"), { kind: "delete", key: "b" }, put("d", "new")],
      meta: Buffer.from("new"),
      claim: Buffer.alloc(24, "new"),
    });
    const wasTold = await written.then(
      () => true,
      () => false,
    );

    map.writesLeft = Number.POSITIVE_INFINITY;
    const after = await KeyvStore.open("a map", new Keyv<string>({ store: map }), cipher);
    const meta = Buffer.from(after.meta(1)!).toString();
    assert.equal(Buffer.from(after.claim(1)!).toString("latin1", 0, 3), meta);
    const state = [...["a", "b", "c", "d"].map((key) => textOf(after, key) ?? "-"), meta].join(" ");
    assert(state === "old old old - old" || state === "new - old new new", `${state} after ${writes} writes`);
    if (wasTold) assert.equal(meta, "new", "acknowledged");
    outcomes.add(`${meta} ${wasTold}`);
  }
  // It died before the journal, between journal and end, and not at all.
  assert.deepEqual([...outcomes], ["old false", "new false", "new true"]);
});

test("a partition that was being dropped when the backend died is gone after opening", async () => {
  const cipher = testCipher();
  for (let writes = 1; writes < 20; writes++) {
    const map = new FragileMap();
    const before = await KeyvStore.open("a map", new Keyv<string>({ store: map }), cipher);
    const changes = ["a", "b", "c"].map((key) => put(key, "old"));
    await before.write({ partition: 1, generation: 1, changes, meta: Buffer.from("m") });
    await before.write({ partition: 2, generation: 1, changes, meta: Buffer.from("m") });

    map.writesLeft = writes;
    await before.dropPartition(1).catch((error) => assert(error instanceof UnavailableError));

    map.writesLeft = Number.POSITIVE_INFINITY;
    const after = await KeyvStore.open("a map", new Keyv<string>({ store: map }), cipher);
    assert.deepEqual(after.partitions(), [2]);
    for (const key of ["a", "b", "c"]) assert.equal(textOf(after, key), undefined, `${writes} writes`);
    assert.equal(after.get(2, 1, "a")?.version, "old");
  }
});

test("a Keyv backend that can't list its keys, or can't be read, is refused at opening", async () => {
  const cipher = testCipher();
  const values = new Map<string, string>();
  const blind = {
    get: (key: string) => values.get(key),
    set: (key: string, value: string) => values.set(key, value),
    delete: (key: string) => values.delete(key),
    clear: () => values.clear(),
    has: (key: string) => values.has(key),
  };
  await assert.rejects(KeyvStore.open("blind", new Keyv<string>({ store: blind }), cipher), UsageError);

  class BrokenMap extends FragileMap {
    override get(): undefined {
      throw new Error("no route");
    }
  }
  const broken = new Keyv<string>({ store: new BrokenMap() });
  await assert.rejects(KeyvStore.open("broken", broken, cipher), UnavailableError);
});

test("a crash of the store in memory keeps what was made durable, and what reached the disk unseen", async () => {
  const store = new MemoryStore({ durable: "byHand" });
  const told: string[] = [];
  const write = (text: string) => {
    void store.write({ partition: 1, generation: 1, changes: [put("k", text)] }).then(() => told.push(text));
  };
  for (const text of ["1", "2", "3", "4"]) write(text);
  assert.equal(store.waiting, 4);
  assert.equal(textOf(store, "k"), "4");

  store.flush(1);
  await Promise.resolve();
  assert.deepEqual(told, ["1"]);
  store.crash(2);
  assert.equal(textOf(store, "k"), "3");
  assert.equal(store.waiting, 0);

  write("5");
  store.crash();
  assert.equal(textOf(store, "k"), "3");
  store.fail();
  await assert.rejects(store.write({ partition: 1, generation: 1, changes: [] }), UnavailableError);
  store.crash();
  write("6");
  store.flush();
  await Promise.resolve();
  assert.deepEqual(told, ["1", "6"], "promises of lost writes never settle");
});

test(`an ordered map and its copies hold what a plain map holds (SEED=${seed})`, async () => {
  const random = randomNumbers(seed);
  const maps = [{ map: new OrderedMap<number>(), model: new Map<string, number>() }];
  for (let step = 0; step < 20_000; step++) {
    const { map, model } = maps[random(maps.length)]!;
    const key = String(random(2_000));
    if (random(3) === 0) {
      assert.equal(map.delete(key), model.delete(key));
    } else {
      map.set(key, step);
      model.set(key, step);
    }
    if (step % 2_500 === 0) maps.push({ map: map.copy(), model: new Map(model) });
  }
  for (const { map, model } of maps) {
    const sorted = [...model].toSorted(([a], [b]) => (a < b ? -1 : 1));
    assert.equal(map.size, model.size);
    assert.deepEqual([...map.range("", undefined)], sorted);
    const part = sorted.filter(([key]) => key >= "12" && key < "7");
    assert.deepEqual(map.slice("12", "7", 100), part.slice(0, 100));
    for (let n = 0; n < 2_000; n++) assert.equal(map.get(String(n)), model.get(String(n)));
  }
});

test("a page that is written holds no claim of a batch that is not written yet", async () => {
  const written: string[] = [];
  const pages = new ClaimPages((key, page) => {
    written.push(Buffer.from(page).toString("latin1"));
    return Buffer.from(key);
  });
  const claim = (text: string) => Buffer.alloc(24, text);
  const first = pages.change(1, claim("a"));
  const second = pages.change(1, claim("b"));
  const third = pages.change(2, claim("c"));

  first.apply();
  first.record();
  second.apply();
  third.apply();
  third.record();

  assert.equal(pages.of(1)?.[0], 98);
  assert.deepEqual(written, [`\x01${"a".repeat(24)}`, `\x01${"b".repeat(24)}\x02${"c".repeat(24)}`]);
});

test("commits that find a write under way share the next, and a crowd waits for more", async () => {
  const groups: string[] = [];
  const ends: (() => void)[] = [];
  let isWritten = () => {};
  const commits = new GroupCommit<string>("nowhere", (changes) => {
    groups.push(changes.join(""));
    isWritten();
    return new Promise((resolve) => ends.push(resolve));
  });
  const written = () => new Promise<void>((resolve) => (isWritten = resolve));
  const commit = (text: string) => {
    for (const one of text) void commits.commit([one], 1);
  };

  let next = written();
  commit("a");
  await next;
  commit("bcdef");
  next = written();
  ends[0]!();
  await next;
  assert.deepEqual(groups, ["a", "bcdef"]);
  commit("ghijkl");
  next = written();
  ends[1]!();
  await new Promise((resolve) => setImmediate(resolve));
  commit("m");
  await next;
  assert.deepEqual(groups, ["a", "bcdef", "ghijklm"]);
  ends[2]!();
  await commits.idle();
});
