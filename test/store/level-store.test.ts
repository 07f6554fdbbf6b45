/** The level store under what the suite of all stores can't do to it: kills, bit flips, swaps, searches of its files. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ClassicLevel } from "classic-level";
import { Keyv } from "keyv";
import { test } from "tap";
import { DamagedError, UsageError } from "../../src/errors.ts";
import { binaryKeys, LevelAdapter } from "../../src/store/level-adapter.ts";
import { firstDamage } from "../../src/store/level-log.ts";
import { LevelStore } from "../../src/store/level-store.ts";
import { randomNumbers, seed } from "../conformance/store.ts";
import { openPlace } from "./place.ts";
import { testCipher } from "./test-cipher.ts";

async function inTemporary(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-level-"));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const put = (key: string, value: Uint8Array, version = "3.owner-of-it/1.9") => ({
  kind: "put" as const,
  key,
  entry: { version, value },
});

test("a killed process loses no acknowledged batch and leaves none half done", async () => {
  await inTemporary(async (directory) => {
    let first = 0;
    for (let round = 0; round < 5; round++) {
      const writer = spawn(
        process.execPath,
        [join(import.meta.dirname, "crash-writer.ts"), directory, String(first)],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      const acknowledged: number[] = [];
      for await (const line of createInterface({ input: writer.stdout })) {
        acknowledged.push(Number(line));
        if (acknowledged.length === 400 + round * 331) writer.kill("SIGKILL");
      }
      if (writer.exitCode === null && writer.signalCode === null) await once(writer, "exit");
      assert.equal(writer.signalCode, "SIGKILL");
      const last = Math.max(...acknowledged);

      const { store, close } = await openPlace(directory);
      const snapshot = store.snapshot();
      const present = new Set<number>();
      for (let partition = 0; partition < 16; partition++) {
        const left = await snapshot.scan(partition, 1, { prefix: "left", limit: 100_000 });
        const right = await snapshot.scan(partition, 1, { prefix: "right", limit: 100_000 });
        const numbers = (entries: typeof left, from: number) =>
          entries.map(({ key, value }) => {
            const n = Number(key.slice(from));
            assert.equal(Buffer.from(value).readUInt32BE(), n);
            return n;
          });
        const both = numbers(left, 4);
        assert.deepEqual(numbers(right, 5), both, "a batch is there as a whole");
        for (const n of both) present.add(n);
        if (both.length > 0) {
          const meta = Buffer.from(store.meta(partition)!).readUInt32BE();
          assert.equal(meta, Math.max(...both), "meta belongs to the last batch");
          const claim = Buffer.from(store.claim(partition)!).readUInt32BE();
          assert.equal(claim, meta, "and so does the claim");
        }
      }
      await snapshot.close();
      for (const n of acknowledged) assert(present.has(n), `batch ${n} was acknowledged and is gone`);
      // In order: what became durable is a beginning of what was handed over.
      assert.equal(present.size, Math.max(...present) + 1);
      assert(last < present.size);
      await close();
      first = present.size;
    }
  });
});

test("nothing on disk can be read: no value, no version, no meta", async () => {
  await inTemporary(async (directory) => {
    const { store, close } = await openPlace(directory);
    const value = Buffer.from("the-known-value ".repeat(20));
    for (let n = 0; n < 50; n++) {
      await store.write({ partition: n, generation: 1, changes: [put(`k${n}`, value)], meta: value });
    }
    await close();

    let files = 0;
    for (const name of await readdir(join(directory, "store"))) {
      const bytes = await readFile(join(directory, "store", name));
      files++;
      for (const text of ["the-known-value", "owner-of-it"])
        assert(!bytes.includes(text), `${text} in ${name}`);
    }
    assert(files >= 4);
  });
});

/** Raw access to the records of a closed store. */
async function withRecords(
  directory: string,
  change: (level: ClassicLevel<string, Buffer>) => Promise<void>,
): Promise<void> {
  const level = new ClassicLevel<string, Buffer>(directory, {
    keyEncoding: binaryKeys,
    valueEncoding: "buffer",
    compression: false,
  });
  await change(level);
  await level.close();
}

test("a record that was changed, moved or exchanged is damage, never a miss or another value", async () => {
  await inTemporary(async (directory) => {
    const cipher = testCipher();
    let store = await LevelStore.open(directory, cipher);
    for (const [partition, generation] of [
      [1, 1],
      [1, 2],
      [2, 1],
    ] as const) {
      const changes = ["a", "b", "c", "d"].map((key) =>
        put(key, Buffer.from(`${partition}${generation}${key}`)),
      );
      const claim = Buffer.alloc(24, partition);
      await store.write({ partition, generation, changes, meta: Buffer.from(`meta ${partition}`), claim });
    }
    await store.write({ partition: 64, generation: 1, changes: [], claim: Buffer.alloc(24, 64) });
    await store.close();
    const entry = (partition: number, generation: number, key: string) =>
      `\x02\0${String.fromCharCode(partition)}\0\0\0${String.fromCharCode(generation)}${key}`;

    await withRecords(directory, async (level) => {
      const record = async (key: string) => Buffer.from((await level.get(key))!);
      const a = await record(entry(1, 1, "a"));
      const b = await record(entry(1, 1, "b"));
      await level.put(entry(1, 1, "a"), b);
      await level.put(entry(1, 1, "b"), a);
      await level.put(entry(1, 1, "c"), await record(entry(1, 2, "c")));
      await level.put(entry(1, 1, "d"), await record(entry(2, 1, "d")));
      await level.put("\x01\0\x02", await record("\x01\0\x01"));
      await level.put("\x00claims\0\0", await record("\x00claims\0\x01"));
    });

    store = await LevelStore.open(directory, cipher);
    for (const key of ["a", "b", "c", "d"]) assert.throws(() => store.get(1, 1, key), DamagedError, key);
    assert.throws(() => store.get(1, 1, "a"), /entry 61 of partition 1 in .*orbweaver-level-/);
    const snapshot = store.snapshot();
    await assert.rejects(snapshot.scan(1, 1, { prefix: "c", limit: 1 }), DamagedError);
    assert.equal(Buffer.from(store.get(1, 2, "c")!.value).toString(), "12c");
    assert.deepEqual(store.partitions(), [1, 2]);
    assert.equal(Buffer.from(store.meta(1)!).toString(), "meta 1");
    assert.throws(() => store.meta(2), /the meta record of partition 2/);
    for (const partition of [1, 2, 63]) {
      assert.throws(() => store.claim(partition), DamagedError, "one page for all of them");
    }
    assert.equal(store.claim(64)?.[0], 64);
    await store.write({ partition: 2, generation: 1, changes: [], claim: Buffer.alloc(24, 7) });
    assert.equal(store.claim(2)?.[0], 7);
    assert.throws(() => store.claim(1), DamagedError, "what it was is still not known");
    await snapshot.close();
    await store.close();

    await withRecords(directory, async (level) => {
      const stored = Buffer.from((await level.get(entry(2, 1, "a")))!);
      for (let bit = 0; bit < stored.length * 8; bit++) {
        const flipped = Buffer.from(stored);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        // The first byte belongs to the adapter: it says that this is a record.
        if (bit >= 8)
          assert.throws(() => cipher.open(flipped.subarray(1), Buffer.from(entry(2, 1, "a"), "latin1")));
      }
    });
    const other = await LevelStore.open(directory, testCipher());
    assert.throws(() => other.get(2, 1, "a"), DamagedError, "another key");
    await other.close();
  });
});

test(`a flipped bit in a log of LevelDB is found before it drops the record (SEED=${seed})`, async () => {
  await inTemporary(async (directory) => {
    const cipher = testCipher();
    const store = await LevelStore.open(directory, cipher);
    const writes = Array.from({ length: 200 }, (_, n) =>
      store.write({ partition: 1, generation: 1, changes: [put(`k${n}`, Buffer.alloc(1 + 37 * n, n))] }),
    );
    await Promise.all(writes);
    for (let n = 0; n < 50; n++) {
      await store.write({ partition: 1, generation: 1, changes: [put(`k${n}`, Buffer.alloc(10, n))] });
    }
    await store.close();
    const name = (await readdir(directory)).find((file) => file.endsWith(".log"))!;
    const log = await readFile(join(directory, name));
    assert(log.length > 500_000);
    assert.equal(firstDamage(log), undefined);
    const random = randomNumbers(seed);

    for (let round = 0; round < 60; round++) {
      // Half of them in the last records, where damage and a torn end look alike.
      const at = round % 2 === 0 ? random(log.length) : log.length - 1 - random(400);
      const bit = 1 << random(8);
      log[at]! ^= bit;
      assert.notEqual(firstDamage(log), undefined, `byte ${at} of ${log.length}, bit ${bit}`);
      log[at]! ^= bit;
      const cut = random(log.length);
      assert.equal(firstDamage(log.subarray(0, cut)), undefined, `cut at ${cut} is a torn end`);
    }
    const unwritten = Buffer.concat([log.subarray(0, log.length - 3_000), Buffer.alloc(3_000)]);
    assert.equal(firstDamage(unwritten), undefined, "sectors that were never written are a torn end");

    log[100_000]! ^= 1;
    await writeFile(join(directory, name), log);
    await assert.rejects(LevelStore.open(directory, cipher), (error: unknown) => {
      assert(error instanceof DamagedError);
      assert(error.message.includes(name));
      return true;
    });
    log[100_000]! ^= 1;
    await writeFile(join(directory, name), log);
    const again = await LevelStore.open(directory, cipher);
    assert.equal(again.get(1, 1, "k199")?.value.length, 7_364);
    await again.close();
  });
});

test("a damaged manifest is said to be damage, a store in use to be in use", async () => {
  await inTemporary(async (directory) => {
    const cipher = testCipher();
    const store = await LevelStore.open(directory, cipher);
    await assert.rejects(LevelStore.open(directory, cipher), UsageError);
    await store.close();
    const manifest = (await readdir(directory)).find((file) => file.startsWith("MANIFEST"))!;
    const bytes = await readFile(join(directory, manifest));
    bytes[10]! ^= 0xff;
    await writeFile(join(directory, manifest), bytes);

    await assert.rejects(LevelStore.open(directory, cipher), DamagedError);
    await assert.rejects(LevelStore.open("/proc/nowhere", cipher), UsageError);
  });
});

test("the adapter serves a Keyv as well: namespaces, lifetimes, text and JSON", async () => {
  await inTemporary(async (directory) => {
    const level = new ClassicLevel<string, Buffer>(directory, {
      keyEncoding: binaryKeys,
      valueEncoding: "buffer",
    });
    await level.open();
    const keyv = new Keyv<unknown>({ store: new LevelAdapter(level), namespace: "one" });
    const other = new Keyv({ store: new LevelAdapter(level), namespace: "two" });
    await other.set("a", "of two");

    assert.equal(await keyv.set("a", { deep: [1, "ü"] }), true);
    await keyv.set("gone", 1, 1);
    await keyv.set("stays", 2, 3_600_000);
    await keyv.setMany([{ key: "b", value: "x" }]);
    await keyv.setMany([{ key: "c", value: 3 }]);
    while ((await keyv.get("gone")) !== undefined) await new Promise(setImmediate);

    assert.deepEqual(await keyv.get("a"), { deep: [1, "ü"] });
    assert.deepEqual(await keyv.getMany(["b", "gone", "stays"]), ["x", undefined, 2]);
    assert.deepEqual(await keyv.hasMany(["a", "gone"]), [true, false]);
    assert.equal(await keyv.delete("b"), true);
    assert.equal(await keyv.delete("b"), false);
    const listed: unknown[] = [];
    for await (const entry of keyv.iterator()) listed.push(entry);
    assert.deepEqual(listed, [
      ["a", { deep: [1, "ü"] }],
      ["c", 3],
      ["stays", 2],
    ]);
    await keyv.clear();
    assert.equal(await keyv.get("a"), undefined);
    assert.equal(await other.get("a"), "of two");
    await keyv.disconnect();
    assert.equal(level.status, "closed");
  });
});
