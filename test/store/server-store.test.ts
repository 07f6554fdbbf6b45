/** A store that is not the one that its directory knows, and one whose files are damaged. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { DamagedError } from "../../src/errors.ts";
import { DataDirectory } from "../../src/store/data-directory.ts";
import { LevelStore } from "../../src/store/level-store.ts";
import { openServerStore, type ServerStore } from "../../src/store/server-store.ts";
import { randomNumbers, seed } from "../conformance/store.ts";
import { IDENTITY } from "./place.ts";
import { testCipher } from "./test-cipher.ts";

const cipher = testCipher();

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "orbweaver-server-store-"));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** One start of a server: its directory and store, closed after `use`. */
async function started<T>(
  path: string,
  use: (opened: ServerStore, directory: DataDirectory) => Promise<T> | T,
  mayLose = true,
): Promise<T> {
  const directory = await DataDirectory.open(path, { create: true });
  try {
    if (directory.identity === undefined) {
      await directory.writeIdentity(IDENTITY);
    }
    const opened = await openServerStore(directory, cipher, mayLose);
    try {
      return await use(opened, directory);
    } finally {
      await opened.store.close();
    }
  } finally {
    await directory.close();
  }
}

const entry = (n: number) => ({ version: `1.a/${n}`, value: Buffer.alloc(200, n) });

/** Enough for some tables. */
async function fill(store: LevelStore): Promise<void> {
  for (let n = 0; n < 60; n++) {
    const changes = Array.from({ length: 200 }, (_, k) => ({
      kind: "put" as const,
      key: `${n}/${k}`,
      entry: entry(n),
    }));
    await store.write({ partition: n % 4, generation: 1, changes, meta: Buffer.from(`meta ${n}`) });
  }
}

test("the same store is the same one through all starts", async (t) => {
  const path = await folder(t);
  for (let n = 0; n < 3; n++) {
    const found = await started(path, async ({ store, firstSerial, lost }) => {
      const before = store.partitions();
      await store.write({ partition: n, generation: 1, changes: [], meta: Buffer.from("m") });
      return { before, firstSerial, lost };
    });
    t.same(found, { before: [0, 1, 2].slice(0, n), firstSerial: 1, lost: undefined });
  }
});

test("an emptied store, and one put back from an older copy, are lost memory", async (t) => {
  const path = await folder(t);
  await started(path, ({ store }) => fill(store));
  await cp(join(path, "store"), join(path, "copy"), { recursive: true });
  await started(path, () => {});

  await rm(join(path, "store"), { recursive: true });
  await rename(join(path, "copy"), join(path, "store"));
  const first = await started(path, ({ store, firstSerial, lost }) => ({
    partitions: store.partitions(),
    firstSerial,
    reason: lost?.error.message ?? "",
  }));
  await rm(join(path, "store"), { recursive: true });
  const second = await started(path, ({ firstSerial, lost }) => ({
    firstSerial,
    reason: lost?.error.message ?? "",
  }));

  t.match(first.reason, /store is an older copy/);
  t.same(first.partitions, [], "nothing of it is used");
  t.ok(first.firstSerial > 1_000_000_000, "no serial comes back");
  t.match(second.reason, /store is empty/);
  t.ok(second.firstSerial > first.firstSerial);
  t.equal((await readdir(join(path, "quarantine"))).length, 2, "both are kept for a look");
  await started(path, ({ firstSerial, lost }) => {
    t.equal(lost, undefined);
    t.equal(firstSerial, second.firstSerial, "it stays with that");
  });
});

test("a server alone keeps a store that it can't read as it is", async (t) => {
  const path = await folder(t);
  await started(path, ({ store }) => fill(store));
  await started(path, () => {});
  const names = await readdir(join(path, "store"));
  const table = join(path, "store", names.find((name) => name.endsWith(".ldb"))!);
  const bytes = await readFile(table);
  bytes[bytes.length - 60]! ^= 1; // In the index: nothing of the table can be trusted.
  await writeFile(table, bytes);

  await assert.rejects(
    started(path, () => {}, false),
    (error: unknown) => {
      assert(error instanceof DamagedError);
      t.match(error.message, /\.ldb is damaged.*No other server/);
      return true;
    },
  );
  t.same(await readdir(join(path, "quarantine")), []);
  const lost = await started(path, (opened) => opened.lost);
  t.match(lost?.error.message, /\.ldb is damaged/, "with others, it is fetched again");
});

test("a crash while the mark is renewed loses nothing", async (t) => {
  const path = await folder(t);
  await started(path, ({ store }) => fill(store));
  const identity = join(path, "identity.json");
  const before = await readFile(identity, "utf8");
  const known = JSON.parse(before).store.mark;

  // The next one was announced, and not yet written to the store; then it was.
  const announced = { ...JSON.parse(before), store: { mark: known, next: "ab".repeat(8), firstSerial: 1 } };
  await writeFile(identity, JSON.stringify(announced));
  const first = await started(path, (opened) => opened.lost);
  const mark = JSON.parse(await readFile(identity, "utf8")).store.mark;
  await writeFile(
    identity,
    JSON.stringify({ ...announced, store: { mark: known, next: mark, firstSerial: 1 } }),
  );
  const second = await started(path, ({ lost, store }) => ({ lost, partitions: store.partitions() }));

  t.equal(first, undefined);
  t.same(second, { lost: undefined, partitions: [0, 1, 2, 3] });
});

test(`a scrub finds each flipped bit of a table, and says whose it may be (SEED=${seed})`, async (t) => {
  const path = join(await folder(t), "store");
  const store = await LevelStore.open(path, cipher);
  await fill(store);
  await store.close();
  // Opened again, so that all of it is in tables.
  const again = await LevelStore.open(path, cipher);
  const quarantine = join(path, "..", "quarantine");
  const scrub = () => again.scrub(quarantine, async () => {});

  const tables = (await readdir(path)).filter((name) => name.endsWith(".ldb"));
  t.same(await scrub(), [], "all is well");
  const random = randomNumbers(seed);
  let ofOne = 0;
  for (let round = 0; round < 30; round++) {
    const file = join(path, tables[random(tables.length)]!);
    const original = await readFile(file);
    const bytes = Buffer.from(original);
    // The footer ends with zeros that mean nothing.
    const at = random(bytes.length - 48);
    bytes[at]! ^= 1 << random(8);
    await writeFile(file, bytes);

    const found = await scrub();

    await writeFile(file, original);
    if (found[0]?.file !== file) t.fail(`byte ${at} of ${file}: ${JSON.stringify(found)}`);
    if (found.some(({ partitions }) => partitions.to - partitions.from <= 1)) ofOne++;
  }
  t.ok(ofOne > 0, "damage of a block concerns the partitions in it, not all");
  t.ok((await readdir(quarantine)).length > 0, "damaged files are kept");
  await again.close();
});
