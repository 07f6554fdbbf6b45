/** The data directory and the blobs in it. */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { z } from "zod";
import { DamagedError, InvalidInputError, StaleDataDirectoryError, UsageError } from "../../src/errors.ts";
import { BlobFiles } from "../../src/store/blob-files.ts";
import { DataDirectory, type Identity } from "../../src/store/data-directory.ts";
import { testCipher } from "./test-cipher.ts";

async function inTemporary(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-data-"));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const identity: Identity = {
  version: 1,
  clusterId: "c1",
  nodeId: "0123456789abcdef0123456789abcdef01234567",
  incarnation: 0,
  instances: [],
  bootstrapped: false,
};
const message = (pattern: RegExp) => (error: unknown) => {
  assert(error instanceof UsageError);
  assert.match(error.message, pattern);
  return true;
};

test("each start counts, has an id of its own, and is durable before it is told", async () => {
  await inTemporary(async (path) => {
    const directory = await DataDirectory.open(join(path, "new", "one"), { create: true });
    assert.equal(directory.identity, undefined);
    await assert.rejects(directory.nextStart(""), UsageError);
    await directory.writeIdentity(identity);

    const [first, second] = await Promise.all([directory.nextStart(""), directory.nextStart("")]);
    assert.deepEqual([first.incarnation, second.incarnation], [1, 2]);
    await directory.close();

    const again = await DataDirectory.open(directory.path, { create: false });
    assert.equal(again.identity?.incarnation, 2);
    assert.equal(new Set(again.identity?.instances).size, 2);
    for (const instance of again.identity!.instances) assert.match(instance, /^[0-9a-f]{16}$/);
    const thousand = Array.from({ length: 1_000 }, (_, n) => n.toString(16).padStart(16, "0"));
    await again.writeIdentity({ ...identity, instances: thousand });
    const next = await again.nextStart("rack 1");
    assert.equal(next.instances.length, 1_000);
    assert.equal(next.instances[0], "0000000000000001");
    assert.equal((await again.nextStart("")).zone, "rack 1", "told once, kept");
    assert.equal((await again.nextStart("rack 2")).zone, "rack 2");

    await again.markStale();
    await again.close();
    const copy = await DataDirectory.open(directory.path, { create: false });
    await assert.rejects(copy.nextStart(""), StaleDataDirectoryError);
    assert.equal(copy.identity?.incarnation, 3);
    await copy.close();
  });
});

test("files are 0600 and folders 0700, unfinished files go at the start, small files are kept", async () => {
  await inTemporary(async (path) => {
    const first = await DataDirectory.open(path, { create: true });
    await first.writeIdentity(identity);
    await first.write("client.json", "{}");
    await first.write("client.json", `{"servers":[]}`);
    await first.writeContacts([{ nodeId: "n" }]);
    await writeFile(join(first.temporaryPath, "identity.json.ab12"), "half");
    await first.close();

    const again = await DataDirectory.open(path, { create: false });
    assert.deepEqual(await readdir(again.temporaryPath), []);
    assert.deepEqual((await readdir(path)).toSorted(), [
      "LOCK",
      "blobs",
      "client.json",
      "contacts.json",
      "identity.json",
      "quarantine",
      "store",
      "tmp",
    ]);
    for (const name of await readdir(path)) {
      const { mode } = await stat(join(path, name));
      assert.equal(mode & 0o777, (mode & 0o170000) === 0o040000 ? 0o700 : 0o600, name);
    }
    assert.equal(String(await again.read("client.json")), `{"servers":[]}`);
    assert.equal(await again.read("node.crt"), undefined);
    assert.deepEqual(await again.readContacts(z.object({ nodeId: z.string() })), [{ nodeId: "n" }]);
    await assert.rejects(again.readContacts(z.string()), DamagedError);
    await again.close();

    await writeFile(join(path, "identity.json"), `{"version":1}`);
    await assert.rejects(DataDirectory.open(path, { create: false }), DamagedError);
    await assert.rejects(DataDirectory.open(path, { create: false }), DamagedError, "and its lock is free");
  });
});

test("a directory that can't be used gives one clear message", async () => {
  await inTemporary(async (path) => {
    await assert.rejects(
      DataDirectory.open(join(path, "none"), { create: false }),
      message(/none: there is no such data directory; --bootstrap or --join/),
    );
    await writeFile(join(path, "file"), "");
    await assert.rejects(
      DataDirectory.open(join(path, "file"), { create: true }),
      message(/ENOTDIR.*must be a folder/),
    );
    await assert.rejects(DataDirectory.open("/proc/none", { create: true }), UsageError);
    if (process.getuid?.() !== 0) {
      await chmod(path, 0o500);
      await assert.rejects(DataDirectory.open(join(path, "new"), { create: true }), message(/EACCES/));
      await chmod(path, 0o700);
    }
  });
});

test("a directory in use is refused with the process that has it; a dead one's lock does not block", async () => {
  await inTemporary(async (path) => {
    const holder = fork(join(import.meta.dirname, "lock-holder.ts"), [path]);
    await once(holder, "message");
    const inUse = message(new RegExp(`${path} is in use by process ${holder.pid}; .*--data`));
    await assert.rejects(DataDirectory.open(path, { create: true }), inUse);
    await assert.rejects(DataDirectory.open(path, { create: true }), inUse, "also the second time");
    holder.kill("SIGKILL");
    await once(holder, "exit");
    const after = await DataDirectory.open(path, { create: true });
    await assert.rejects(DataDirectory.open(path, { create: true }), message(/is in use by process/));
    const lock = await readFile(join(path, "LOCK"), "utf8");
    await after.close();

    // The same id, given to another process: this one, which began at another time.
    await writeFile(join(path, "LOCK"), JSON.stringify({ ...JSON.parse(lock), birth: "another boot 1" }));
    await (await DataDirectory.open(path, { create: true })).close();
    for (const broken of ["", "{", `{"pid":"x"}`, "\0\0\0"]) {
      await writeFile(join(path, "LOCK"), broken);
      await (await DataDirectory.open(path, { create: true })).close();
    }
    assert(!(await readdir(path)).some((name) => name.startsWith("LOCK")));

    const both = await Promise.allSettled(
      Array.from({ length: 8 }, () => DataDirectory.open(path, { create: true })),
    );
    const opened = both.filter((one) => one.status === "fulfilled");
    assert.equal(opened.length, 1, "one of many at once");
    await opened[0]!.value.close();
  });
});

test("a blob is there whole or not at all, and a changed or exchanged file is damage", async () => {
  await inTemporary(async (path) => {
    const directory = await DataDirectory.open(path, { create: true });
    const blobs = new BlobFiles(
      {
        blobs: directory.blobsPath,
        temporary: directory.temporaryPath,
        quarantine: directory.quarantinePath,
      },
      testCipher(),
    );
    const [one, two] = ["a1".repeat(16), "b2".repeat(16)];
    const bytes = Buffer.from("page body ".repeat(1_000));
    assert.equal(await blobs.get(one), undefined);
    assert.equal(await blobs.has(one), false);

    await Promise.all([blobs.put(one, bytes), blobs.put(one, bytes), blobs.put(two, Buffer.from("other"))]);
    await writeFile(join(directory.temporaryPath, `${"c3".repeat(16)}.0123`), "torn");
    await writeFile(join(directory.blobsPath, "a1", "not-a-blob"), "");

    assert.deepEqual(Buffer.from((await blobs.get(one))!), bytes);
    assert.equal(await blobs.has(one), true);
    const listed: string[] = [];
    for await (const name of blobs.list()) listed.push(name);
    assert.deepEqual(listed.toSorted(), [one, two]);
    assert.equal(await blobs.has("c3".repeat(16)), false);
    await assert.rejects(blobs.put("../../etc/passwd", bytes), InvalidInputError);

    const file = join(directory.blobsPath, "a1", one);
    const sealed = await readFile(file);
    assert(!sealed.includes("page body"));
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    for (const at of [0, 3, 10, 20, 5_000, sealed.length - 1]) {
      const flipped = Buffer.from(sealed);
      flipped[at]! ^= 1;
      await writeFile(file, flipped);
      await assert.rejects(blobs.get(one), DamagedError, `byte ${at}`);
    }
    await writeFile(file, sealed.subarray(0, 12));
    await assert.rejects(blobs.get(one), (error: unknown) => {
      assert(error instanceof DamagedError);
      assert(error.message.includes(file));
      return true;
    });
    await rename(join(directory.blobsPath, "b2", two), file);
    await assert.rejects(blobs.get(one), DamagedError, "another blob's content");
    await blobs.delete(one);
    await blobs.delete(one);
    assert.equal(await blobs.get(one), undefined);
    await directory.close();
  });
});
