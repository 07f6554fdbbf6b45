/** Each store against the one suite. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { Keyv } from "keyv";
import { KeyvStore } from "../../src/store/keyv-store.ts";
import { binaryKeys, LevelAdapter } from "../../src/store/level-adapter.ts";
import { MemoryStore } from "../../src/store/memory-store.ts";
import { type StorePlace, storeConformance } from "../conformance/store.ts";
import { FragileMap } from "./fragile-map.ts";
import { testCipher } from "./test-cipher.ts";

storeConformance("level store", async (): Promise<StorePlace> => {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-store-"));
  const cipher = testCipher();
  let level: ClassicLevel<string, Buffer>;
  return {
    open: async () => {
      level = new ClassicLevel(directory, { keyEncoding: binaryKeys, valueEncoding: "buffer" });
      await level.open();
      return KeyvStore.open(directory, new Keyv<string>({ store: new LevelAdapter(level) }), cipher);
    },
    breakDisk: () => {
      const batch = level.batch.bind(level);
      const fail = async () => {
        Object.defineProperty(level, "batch", { value: batch });
        throw new Error("No space left on device");
      };
      Object.defineProperty(level, "batch", { value: fail, configurable: true });
    },
    remove: async () => {
      await level.close();
      await rm(directory, { recursive: true });
    },
  };
});

storeConformance("keyv store over a map", async (): Promise<StorePlace> => {
  const map = new FragileMap();
  const cipher = testCipher();
  return {
    open: () => KeyvStore.open("a map", new Keyv<string>({ store: map }), cipher),
    breakDisk: () => {
      map.failsOnce = true;
    },
    remove: async () => {},
  };
});

storeConformance("memory store", async (): Promise<StorePlace> => {
  const store = new MemoryStore();
  return {
    open: async () => {
      store.crash();
      return store;
    },
    breakDisk: () => store.fail(),
    remove: async () => {},
  };
});
