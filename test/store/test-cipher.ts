import { createSecretKey, randomBytes } from "node:crypto";
import { DataCipher } from "../../src/vault/data-cipher.ts";

/** The real cipher, with a key of its own. */
export function testCipher(key: Uint8Array = randomBytes(32), id = 1): DataCipher {
  return new DataCipher({
    keys: [],
    current: { id, key: createSecretKey(key) },
    valuesMax: 2 ** 31,
    nextKey: () => Promise.reject(new Error("one key is enough here")),
  });
}
