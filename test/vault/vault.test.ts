/** Master key, vault, data cipher, naming. */
import assert from "node:assert/strict";
import { createSecretKey, randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { DamagedError, UnavailableError, UsageError } from "../../src/errors.ts";
import { DataDirectory } from "../../src/store/data-directory.ts";
import { DataCipher } from "../../src/vault/data-cipher.ts";
import { readMasterKey } from "../../src/vault/master-key.ts";
import { Naming } from "../../src/vault/naming.ts";
import { Vault } from "../../src/vault/vault.ts";

async function inDirectory(run: (directory: DataDirectory) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), "orbweaver-vault-"));
  const directory = await DataDirectory.open(path, { create: true });
  try {
    await run(directory);
  } finally {
    await directory.close();
    await rm(path, { recursive: true });
  }
}

const newKey = () => createSecretKey(randomBytes(32));
const place = Buffer.from("place");
const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString("hex");

test("a vault gives back its secrets, and every start seals with a key of its own", async () => {
  await inDirectory(async (directory) => {
    const masterKey = newKey();
    const nodeKey = randomBytes(48);
    const created = await Vault.create(directory, masterKey, { secrets: { nodeKey } });
    const first = created.cipher().seal(Buffer.from("first"), place);
    await Promise.all([created.putSecret("a", randomBytes(8)), created.putSecret("b", Buffer.from("bb"))]);
    await assert.rejects(Vault.create(directory, masterKey), UsageError);

    const second = await Vault.open(directory, masterKey);
    const third = await Vault.open(directory, masterKey);
    assert.equal(hex(third.namingSecret), hex(created.namingSecret));
    assert.equal(hex(third.secret("nodeKey")), hex(nodeKey));
    assert.equal(hex(third.secret("b")), "6262");
    assert.equal(third.secret("none"), undefined);
    const keyIdOf = (sealed: Uint8Array) => Buffer.from(sealed).readUInt32BE(1);
    const sealed = [created, second, third].map((vault) => vault.cipher().seal(Buffer.from("x"), place));
    assert.deepEqual(sealed.map(keyIdOf), [1, 2, 3]);
    assert.equal(String(third.cipher().open(first, place)), "first");
    assert.throws(() => created.cipher().open(sealed[2]!, place), DamagedError, "a key it does not know");

    const text = await readFile(join(directory.path, "vault.json"), "utf8");
    for (const secret of [created.namingSecret, nodeKey]) {
      assert(!text.includes(Buffer.from(secret).toString("base64").slice(0, 20)));
    }
    assert.equal((await stat(join(directory.path, "vault.json"))).mode & 0o777, 0o600);
  });
});

test("a server that joins keeps the cluster's naming secret", async () => {
  await inDirectory(async (directory) => {
    const namingSecret = randomBytes(32);
    const masterKey = newKey();
    const created = await Vault.create(directory, masterKey, { namingSecret });
    assert.equal(hex(created.namingSecret), hex(namingSecret));
    assert.equal(hex((await Vault.open(directory, masterKey)).namingSecret), hex(namingSecret));
  });
});

test("a wrong master key, or a damaged vault, changes nothing", async () => {
  await inDirectory(async (directory) => {
    const masterKey = newKey();
    await Vault.create(directory, masterKey);
    const path = join(directory.path, "vault.json");
    const before = await readFile(path, "utf8");

    await assert.rejects(Vault.open(directory, newKey()), (error: unknown) => {
      assert(error instanceof UsageError);
      assert.match(error.message, /the master key does not open .*vault\.json: .*nothing was changed/);
      return true;
    });
    assert.equal(await readFile(path, "utf8"), before);

    const swapped = JSON.parse(before);
    swapped.dataKeys.push({ id: 2, wrapped: swapped.dataKeys[0].wrapped });
    await writeFile(path, JSON.stringify(swapped));
    await assert.rejects(Vault.open(directory, masterKey), /vault\.json: data\/2 can't be opened/);
    for (const text of ["", "{}", before.slice(0, 100)]) {
      await writeFile(path, text);
      await assert.rejects(Vault.open(directory, masterKey), DamagedError);
      assert.equal(await readFile(path, "utf8"), text);
    }
    await rm(path);
    await assert.rejects(Vault.open(directory, masterKey), UsageError);
  });
});

test("a data key seals its share and no more, with a fresh nonce each time", async () => {
  await inDirectory(async (directory) => {
    const vault = await Vault.create(directory, newKey(), {}, { valuesPerKey: 100 });
    const cipher = vault.cipher();
    const heads = new Set<string>();
    const perKey = new Map<number, number>();
    for (let n = 0; n < 1_000; n++) {
      const sealed = Buffer.from(cipher.seal(Buffer.from("same"), place));
      heads.add(sealed.toString("hex", 1, 17));
      const id = sealed.readUInt32BE(1);
      perKey.set(id, (perKey.get(id) ?? 0) + 1);
      assert.equal(String(cipher.open(sealed, place)), "same");
      // The next key needs the disk; nothing else does.
      if (n % 50 === 49) await vault.putSecret("turn", Buffer.from([n & 0xff]));
    }
    assert.equal(heads.size, 1_000);
    assert(perKey.size >= 10);
    for (const count of perKey.values()) assert(count <= 100);

    const stuck = new DataCipher({
      keys: [],
      current: { id: 1, key: newKey() },
      valuesMax: 10,
      nextKey: () => Promise.reject(new Error("disk full")),
    });
    for (let n = 0; n < 10; n++) stuck.seal(Buffer.from("x"), place);
    assert.throws(() => stuck.seal(Buffer.from("x"), place), UnavailableError);
  });
});

test("what was sealed opens only unchanged, whole, and in its place", async () => {
  const cipher = new DataCipher({
    keys: [],
    current: { id: 7, key: newKey() },
    valuesMax: 1_000,
    nextKey: () => Promise.reject(new Error("not needed")),
  });
  const sealed = cipher.seal(Buffer.from("value"), place);

  assert.equal(String(cipher.open(sealed, place)), "value");
  assert.equal(sealed.length, 5 + 33);
  assert.throws(() => cipher.open(sealed, Buffer.from("other")), DamagedError);
  for (let length = 0; length < sealed.length; length++) {
    assert.throws(() => cipher.open(sealed.subarray(0, length), place), DamagedError);
  }
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const flipped = Uint8Array.from(sealed);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => cipher.open(flipped, place), DamagedError, `bit ${bit}`);
  }
  assert.equal(cipher.open(cipher.seal(new Uint8Array(0), place), place).length, 0);
});

test("the master key comes from a file, a text, a command, or is made beside the data", async () => {
  await inDirectory(async (directory) => {
    const key = Buffer.alloc(32, 0xab);
    const shown = async (source: Parameters<typeof readMasterKey>[0]) =>
      hex((await readMasterKey(source, directory, { create: false })).export());
    const file = join(directory.path, "k");
    await writeFile(file, `${key.toString("base64")}\n`, { mode: 0o600 });

    assert.equal(await shown({ masterKeyFile: file }), key.toString("hex"));
    assert.equal(await shown({ masterKey: key.toString("hex") }), key.toString("hex"));
    assert.equal(await shown({ masterKey: key.toString("base64url") }), key.toString("hex"));
    assert.equal(await shown({ masterKeyCommand: `cat ${file}` }), key.toString("hex"));

    const refused = (source: Parameters<typeof readMasterKey>[0], pattern: RegExp) =>
      assert.rejects(shown(source), (error: unknown) => {
        assert(error instanceof UsageError);
        assert.match(error.message, pattern);
        assert(!error.message.includes("secret-text"));
        return true;
      });
    await chmod(file, 0o640);
    await refused({ masterKeyFile: file }, /others can read this key; chmod 600/);
    await refused({ masterKeyFile: `${file}x` }, /can't be read \(ENOENT\)/);
    await refused({ masterKey: "secret-text" }, /32 bytes, as 64 hex digits or base64/);
    await refused({ masterKeyCommand: "echo secret-text >&2; exit 3" }, /failed with 3; run it by hand/);
    await refused({ masterKey: "a", masterKeyFile: file }, /only one of masterKey, masterKeyFile/);
    await refused({}, /master\.key is missing: put it back/);

    const made = await readMasterKey({}, directory, { create: true });
    assert.equal(await shown({}), hex(made.export()));
    assert.equal((await stat(join(directory.path, "master.key"))).mode & 0o777, 0o600);
  });
});

test("names are keyed, one per namespace and text; numbers order as they are", async () => {
  const naming = new Naming(Buffer.alloc(32, 1));
  const hexName = (namespace: number, text: string) =>
    Buffer.from(naming.name(namespace, text), "latin1").toString("hex");

  // HMAC-SHA256 with 32 bytes 01 of "\x05example.org", by openssl.
  assert.equal(hexName(5, "example.org"), "3ac64dba85ebd7de0fdc653c940fb210");
  assert.equal(hexName(5, "example.org"), hexName(5, "example.org"));
  assert.notEqual(hexName(6, "example.org"), hexName(5, "example.org"));
  assert.notEqual(new Naming(Buffer.alloc(32, 2)).name(5, "example.org"), naming.name(5, "example.org"));
  assert.equal(naming.name(0, "ü".repeat(9_999)).length, 16);

  assert.equal(naming.number(258), "\0\0\0\0\0\0\x01\x02");
  assert.equal(naming.number(2n ** 64n - 1n), "\xff".repeat(8));
  const numbers = [0, 1, 255, 256, 65_536, 2 ** 40, 2 ** 53 - 1].map((n) => naming.number(n));
  assert.deepEqual(numbers.toSorted(), numbers);
  assert.throws(() => naming.number(-1));

  // HKDF-SHA256, no salt, info "digest", by openssl.
  assert.equal(
    Buffer.from(naming.digestKey).toString("hex"),
    "9cbf4b43b9cf50bfdc8daff236ee6dd03ffb568066327110ef3ed460a5abc483",
  );
});
