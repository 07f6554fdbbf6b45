/** A store that comes back after its disk has refused writes: only as the one that it was, or under serials of its own. */
import { EventEmitter } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { createLog } from "../../src/log.ts";
import type { ReplicaDriver } from "../../src/node/replica-driver.ts";
import { StoreCare } from "../../src/node/store-care.ts";
import { DataDirectory } from "../../src/store/data-directory.ts";
import { openServerStore, setStoreAside } from "../../src/store/server-store.ts";
import { IDENTITY } from "../store/place.ts";
import { testCipher } from "../store/test-cipher.ts";

/** What the care needs of replicas: they tell of the failure, and are told to go on. */
class Replicas extends EventEmitter implements Pick<ReplicaDriver, "resume" | "storeFailure"> {
  storeFailure: string | undefined;
  readonly resumed = Promise.withResolvers<number | undefined>();

  async resume(firstSerial?: number): Promise<void> {
    this.storeFailure = undefined;
    this.resumed.resolve(firstSerial);
  }
}

async function place(t: Test) {
  const path = await mkdtemp(join(tmpdir(), "orbweaver-care-"));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  const directory = await DataDirectory.open(path, { create: true });
  t.teardown(() => directory.close());
  await directory.writeIdentity(IDENTITY);
  const { store, firstSerial } = await openServerStore(directory, testCipher(), true);
  t.teardown(() => store.close());
  const replicas = new Replicas();
  const log = createLog({ level: "silent", text: false });
  const care = new StoreCare({ directory, store, replicas, mayLose: () => true, log });
  t.teardown(() => care.stop());
  const fail = () => {
    replicas.storeFailure = "no space left";
    replicas.emit("storeFailed", new Error("no space left"));
    return replicas.resumed.promise;
  };
  return { directory, store, firstSerial, care, fail };
}

test("the same store goes on as it was", async (t) => {
  const { store, directory, fail, care } = await place(t);
  await store.write({ partition: 1, generation: 1, changes: [], meta: Buffer.from("promised") });

  const firstSerial = await fail();

  t.equal(firstSerial, undefined, "under the serials that it had");
  t.equal(Buffer.from(store.meta(1)!).toString(), "promised");
  t.equal(care.problem, undefined);
  t.same(await readdir(directory.quarantinePath), []);
});

test("an empty store is never taken for the one that was set aside before the disk refused again", async (t) => {
  const { store, directory, firstSerial, fail } = await place(t);
  await store.write({ partition: 1, generation: 1, changes: [], meta: Buffer.from("promised") });
  await store.shut();
  await setStoreAside(directory);

  const resumedFrom = await fail();

  t.equal(store.meta(1), undefined, "what it held is fetched again");
  t.ok(Number(resumedFrom) >= firstSerial + 1_000_000, `its replicas are new ones, from ${resumedFrom} on`);
  t.equal(store.mark(), directory.identity?.store?.mark, "and it is the one that its directory knows");
});
