/** What every `Store` keeps to. An implementation hands itself to it with a place that can be opened again. */
import assert from "node:assert/strict";
import { test } from "tap";
import { UnavailableError } from "../../src/errors.ts";
import type { Store, StoreChange, StoredEntry, StoreSnapshot } from "../../src/store/store.ts";

export interface StorePlace {
  /** The store that is in this place; the one opened before was closed. */
  open(): Promise<Store>;
  /** The next write of the open store to its disk fails; later ones would work. */
  breakDisk(): void;
  /** After the last store was closed, or broken. */
  remove(): Promise<void>;
}

/** Numbers in [0, below), the same for the same seed (mulberry32). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) % below) >>> 0;
  };
}

export const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));

const bytes = (text: string) => Buffer.from(text, "latin1");
const put = (key: string, value: string, version = "v1", expiresAtMs?: number): StoreChange => ({
  kind: "put",
  key,
  entry: { version, value: bytes(value), ...(expiresAtMs !== undefined && { expiresAtMs }) },
});
const del = (key: string): StoreChange => ({ kind: "delete", key });

/** Version, value and expiry of an entry as one text. */
function shown(entry: StoredEntry | undefined): string | undefined {
  if (entry === undefined) return undefined;
  const expiry = entry.expiresAtMs === undefined ? "" : ` until ${entry.expiresAtMs}`;
  return `${entry.version} ${Buffer.from(entry.value).toString("latin1")}${expiry}`;
}

async function keysOf(
  snapshot: StoreSnapshot,
  range: { prefix: string; after?: string; limit: number },
  generation = 1,
): Promise<string[]> {
  return (await snapshot.scan(7, generation, range)).map(({ key }) => key);
}

export function storeConformance(name: string, makePlace: () => Promise<StorePlace>): void {
  const check = (title: string, run: (store: Store, place: StorePlace) => Promise<Store | undefined>) =>
    test(`${name}: ${title}`, async () => {
      const place = await makePlace();
      try {
        const last = await run(await place.open(), place);
        await last?.close();
      } finally {
        await place.remove();
      }
    });

  check("a write is seen at once, before it is durable", async (store) => {
    const written = store.write({
      partition: 7,
      generation: 1,
      changes: [put("k", "one", "1.a", 99)],
      meta: bytes("meta"),
    });
    let durable = false;
    void written.then(() => {
      durable = true;
    });

    assert.equal(shown(store.get(7, 1, "k")), "1.a one until 99");
    assert.equal(Buffer.from(store.meta(7)!).toString(), "meta");
    assert.deepEqual(store.partitions(), [7]);
    const snapshot = store.snapshot();
    assert.equal(durable, false);
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }), ["k"]);

    await written;
    await snapshot.close();
    return store;
  });

  check("what was never written is absent, in each partition and generation by itself", async (store) => {
    await store.write({ partition: 7, generation: 1, changes: [put("k", "a")] });
    await store.write({ partition: 7, generation: 2, changes: [put("k", "b")] });
    await store.write({ partition: 263, generation: 1, changes: [put("k", "c")], meta: bytes("m") });

    assert.equal(shown(store.get(7, 1, "k")), "v1 a");
    assert.equal(shown(store.get(7, 2, "k")), "v1 b");
    assert.equal(shown(store.get(263, 1, "k")), "v1 c");
    assert.equal(store.get(7, 3, "k"), undefined);
    assert.equal(store.get(8, 1, "k"), undefined);
    assert.equal(store.get(7, 1, "k\0"), undefined);
    assert.equal(store.meta(7), undefined);
    assert.deepEqual(store.partitions(), [263]);
    return store;
  });

  check("all of it is there after opening again", async (store, place) => {
    const long = "x".repeat(1024 * 1024 + 4096);
    const longKey = "\xff".repeat(512);
    await store.write({ partition: 0, generation: 0, changes: [put("\0", ""), put(longKey, long, "", 0)] });
    await store.write({ partition: 65_535, generation: 2 ** 32 - 1, changes: [], meta: bytes("last") });
    await store.write({
      partition: 0,
      generation: 0,
      changes: [del("\0"), put("a", "1"), put("a", "2", "ü")],
    });
    await store.close();

    const again = await place.open();
    assert.equal(again.get(0, 0, "\0"), undefined);
    assert.equal(shown(again.get(0, 0, "a")), "ü 2", "the last change of a key counts");
    assert.equal(shown(again.get(0, 0, longKey)), ` ${long} until 0`);
    assert.deepEqual(again.partitions(), [65_535]);
    assert.equal(Buffer.from(again.meta(65_535)!).toString(), "last");
    return again;
  });

  check("claims are kept by partition, as they were handed over last with a batch", async (store, place) => {
    const claim = (n: number) => Buffer.alloc(24, n);
    const partitions = [0, 1, 63, 64, 65_535];
    assert.equal(store.claim(1), undefined);
    const write = (partition: number, n: number) =>
      store.write({ partition, generation: 1, changes: [put("k", String(n))], claim: claim(n) });
    await Promise.all(partitions.map((partition) => write(partition, 1)));
    const again = [2, 3, 4].map((n) => write(63, n));
    assert.deepEqual(Buffer.from(store.claim(63)!), claim(4), "seen at once");
    await Promise.all([...again, write(1, 9)]);
    await store.write({ partition: 0, generation: 1, changes: [put("k", "without")] });
    await store.dropPartition(64);
    assert.equal(store.claim(64), undefined);
    await store.close();

    const opened = await place.open();
    const found = partitions.map((partition) => opened.claim(partition)?.[23]);
    assert.deepEqual(found, [1, 9, 4, undefined, 1]);
    return opened;
  });

  check("scans go in the order of bytes, by prefix, after a key, up to a limit", async (store) => {
    const keys = [
      "\0",
      "\0\0",
      "A",
      "a",
      "a\0",
      "a\x7f",
      "a\x80",
      "a\xff",
      "a\xff\xff",
      "b",
      "\x80",
      "\xff",
      "\xff\xff",
    ];
    await store.write({ partition: 6, generation: 1, changes: [put("z", "")] });
    await store.write({ partition: 8, generation: 1, changes: [put("a", "")] });
    await store.write({
      partition: 7,
      generation: 1,
      changes: keys.toReversed().map((key) => put(key, key)),
    });
    const snapshot = store.snapshot();

    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 99 }), keys);
    assert.deepEqual(await keysOf(snapshot, { prefix: "a", limit: 99 }), [
      "a",
      "a\0",
      "a\x7f",
      "a\x80",
      "a\xff",
      "a\xff\xff",
    ]);
    assert.deepEqual(await keysOf(snapshot, { prefix: "a", after: "a\x7f", limit: 2 }), ["a\x80", "a\xff"]);
    assert.deepEqual(await keysOf(snapshot, { prefix: "a", after: "A", limit: 1 }), ["a"]);
    assert.deepEqual(await keysOf(snapshot, { prefix: "a", after: "b", limit: 9 }), []);
    assert.deepEqual(await keysOf(snapshot, { prefix: "\xff", limit: 9 }), ["\xff", "\xff\xff"]);
    assert.deepEqual(await keysOf(snapshot, { prefix: "c", limit: 9 }), []);
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }, 2), []);
    const [first] = await snapshot.scan(7, 1, { prefix: "b", limit: 1 });
    assert.equal(shown(first), "v1 b");
    await snapshot.close();
    return store;
  });

  check("a snapshot stays as it was, whatever is written later", async (store) => {
    await store.write({ partition: 7, generation: 1, changes: [put("a", "1"), put("b", "1")] });
    const waiting = store.write({ partition: 7, generation: 1, changes: [put("c", "1"), del("a")] });
    const snapshot = store.snapshot();
    await store.write({ partition: 7, generation: 1, changes: [put("b", "2"), del("c"), put("d", "2")] });
    await waiting;

    const then = await snapshot.scan(7, 1, { prefix: "", limit: 9 });
    assert.deepEqual(
      then.map((entry) => `${entry.key} ${shown(entry)}`),
      ["b v1 1", "c v1 1"],
    );
    const later = store.snapshot();
    assert.deepEqual(await keysOf(later, { prefix: "", limit: 9 }), ["b", "d"]);
    await snapshot.close();
    await later.close();
    return store;
  });

  check("batches become durable in the order in which they were handed over", async (store) => {
    const order: number[] = [];
    const writes = Array.from({ length: 300 }, async (_, n) => {
      await store.write({ partition: n % 5, generation: 1, changes: [put("n", String(n))] });
      order.push(n);
    });
    await Promise.all(writes);

    assert.deepEqual(
      order,
      Array.from({ length: 300 }, (_, n) => n),
    );
    return store;
  });

  check("a write that waits is seen while the one before it becomes durable", async (store) => {
    for (let n = 0; n < 20; n++) {
      const first = store.write({ partition: 7, generation: 1, changes: [put("k", `first ${n}`)] });
      await Promise.resolve();
      await Promise.resolve();
      const second = store.write({ partition: 7, generation: 1, changes: [put("k", `second ${n}`)] });
      await first;
      assert.equal(shown(store.get(7, 1, "k")), `v1 second ${n}`);
      await second;
      assert.equal(shown(store.get(7, 1, "k")), `v1 second ${n}`);
    }
    return store;
  });

  check("a dropped generation is gone, the others stay", async (store, place) => {
    const many = Array.from({ length: 2_500 }, (_, n) => put(`k${n}`, "x"));
    await store.write({ partition: 7, generation: 1, changes: many, meta: bytes("m") });
    await store.write({ partition: 7, generation: 2, changes: [put("k", "kept")] });
    await store.write({ partition: 8, generation: 1, changes: [put("k", "kept")] });

    await store.dropGeneration(7, 1);
    await store.close();

    const again = await place.open();
    const snapshot = again.snapshot();
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }), []);
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }, 2), ["k"]);
    assert.equal(shown(again.get(8, 1, "k")), "v1 kept");
    assert.deepEqual(again.partitions(), [7]);
    await snapshot.close();
    return again;
  });

  check("a dropped partition is gone with all generations, and can be filled again", async (store, place) => {
    const many = Array.from({ length: 1_200 }, (_, n) => put(`k${n}`, "x"));
    await store.write({ partition: 7, generation: 1, changes: many, meta: bytes("m") });
    await store.write({ partition: 7, generation: 2, changes: many });
    await store.write({ partition: 8, generation: 1, changes: [put("k", "kept")], meta: bytes("m") });

    const dropped = store.dropPartition(7);
    assert.deepEqual(store.partitions(), [8]);
    assert.equal(store.meta(7), undefined);
    await dropped;
    assert.equal(store.get(7, 1, "k0"), undefined);
    assert.equal(store.get(7, 2, "k1199"), undefined);
    await store.write({ partition: 7, generation: 1, changes: [put("new", "x")], meta: bytes("new") });
    await store.close();

    const again = await place.open();
    assert.deepEqual(again.partitions(), [7, 8]);
    const snapshot = again.snapshot();
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }), ["new"]);
    assert.deepEqual(await keysOf(snapshot, { prefix: "", limit: 9 }, 2), []);
    await snapshot.close();
    return again;
  });

  check("after a failed write every further one is refused", async (store, place) => {
    await store.write({ partition: 7, generation: 1, changes: [put("k", "safe")] });
    place.breakDisk();

    const change = { partition: 7, generation: 1, changes: [put("k", "lost")] };
    const both = await Promise.allSettled([store.write(change), store.write(change)]);
    for (const result of both) {
      assert.equal(result.status, "rejected");
      assert(result.reason instanceof UnavailableError);
    }
    const later = { partition: 7, generation: 1, changes: [put("later", "x")] };
    await assert.rejects(store.write(later), UnavailableError, "though the disk works again");
    assert.equal(store.get(7, 1, "later"), undefined);
    return undefined;
  });

  check(`any sequence of operations ends as in a plain map (SEED=${seed})`, async (first, place) => {
    const random = randomNumbers(seed);
    const model = new Map<string, string>();
    let store = first;
    const partitions = [0, 1, 257];
    const keyOf = () =>
      String.fromCharCode(...Array.from({ length: 1 + random(3) }, () => [0, 97, 98, 255][random(4)]!));
    const compare = async (snapshot: StoreSnapshot, expected: ReadonlyMap<string, string>) => {
      const partition = partitions[random(3)]!;
      const generation = random(2);
      const prefix = random(2) === 0 ? "" : keyOf().slice(0, 1);
      const after = random(2) === 0 ? undefined : keyOf();
      const limit = 1 + random(40);
      const start = `${partition}/${generation}/`;
      const wanted = [...expected]
        .map(([place, value]) => [place.slice(start.length), value, place] as const)
        .filter(([key, , place]) => place.startsWith(start) && key.startsWith(prefix))
        .filter(([key]) => after === undefined || key > after)
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .slice(0, limit)
        .map(([key, value]) => `${key} ${value}`);
      const found = await snapshot.scan(partition, generation, { prefix, after, limit });
      assert.deepEqual(
        found.map((entry) => `${entry.key} ${shown(entry)}`),
        wanted,
      );
    };

    let last: Promise<void> = Promise.resolve();
    const open: { snapshot: StoreSnapshot; model: Map<string, string> }[] = [];
    for (let step = 0; step < 600; step++) {
      const action = random(20);
      if (action < 12) {
        const partition = partitions[random(3)]!;
        const generation = random(2);
        const changes = Array.from({ length: 1 + random(4) }, () =>
          random(3) === 0
            ? del(keyOf())
            : put(keyOf(), String(step), `v${step}`, random(2) === 0 ? undefined : step),
        );
        for (const change of changes) {
          const at = `${partition}/${generation}/${change.key}`;
          if (change.kind === "put") model.set(at, shown(change.entry)!);
          else model.delete(at);
        }
        last = store.write({ partition, generation, changes });
        // Some wait, others pile up behind them.
        if (random(4) === 0) await last;
      } else if (action < 15) {
        const key = keyOf();
        assert.equal(shown(store.get(257, 1, key)), model.get(`257/1/${key}`));
      } else if (action < 18) {
        open.push({ snapshot: store.snapshot(), model: new Map(model) });
      } else if (action < 19 && open.length > 0) {
        const taken = open.splice(random(open.length), 1)[0]!;
        await compare(taken.snapshot, taken.model);
        await taken.snapshot.close();
      } else if (step % 7 === 0) {
        await last;
        for (const { snapshot } of open.splice(0)) await snapshot.close();
        await store.close();
        store = await place.open();
      }
    }
    await last;
    for (const taken of open) {
      await compare(taken.snapshot, taken.model);
      await taken.snapshot.close();
    }
    return store;
  });
}
