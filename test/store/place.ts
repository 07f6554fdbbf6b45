import { DataDirectory, type Identity } from "../../src/store/data-directory.ts";
import { LevelStore } from "../../src/store/level-store.ts";
import type { Store } from "../../src/store/store.ts";
import type { DataCipher } from "../../src/vault/data-cipher.ts";
import { readMasterKey } from "../../src/vault/master-key.ts";
import { Vault } from "../../src/vault/vault.ts";

/** Of a server that was never started. */
export const IDENTITY: Identity = {
  version: 1,
  clusterId: "c",
  nodeId: "a".repeat(40),
  incarnation: 0,
  instances: [],
  bootstrapped: true,
};

/** What lies under a server: its directory, vault and store, made when they are not there. */
export async function openPlace(path: string): Promise<{
  directory: DataDirectory;
  vault: Vault;
  cipher: DataCipher;
  store: Store;
  close(): Promise<void>;
}> {
  const directory = await DataDirectory.open(path, { create: true });
  const isNew = (await directory.read("vault.json")) === undefined;
  const masterKey = await readMasterKey({}, directory, { create: isNew });
  const vault = await (isNew ? Vault.create(directory, masterKey) : Vault.open(directory, masterKey));
  const store = await LevelStore.open(directory.storePath, vault.cipher());
  const close = async () => {
    await store.close();
    await directory.close();
  };
  return { directory, vault, cipher: vault.cipher(), store, close };
}
