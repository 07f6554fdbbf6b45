/**
 * Names that tell nothing: what could be guessed (URLs, hosts, users) becomes a
 * keyed hash before it becomes part of a key. A plain hash could be tried out.
 *
 * The secret belongs to the cluster and never changes: all servers make the same
 * keys, in the same order.
 */
import assert from "node:assert/strict";
import { createHmac, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";

export const NAMING_SECRET_BYTES = 32;
const NAME_BYTES = 16;

/** Job ids and hosts return in every key of a page. */
const KNOWN_MAX = 16_384;
const KNOWN_TEXT_MAX = 256;

export class Naming {
  readonly #secret: KeyObject;
  // Forgotten as a whole when full: the few names that matter are back at once.
  readonly #known = new Map<string, string>();
  /** 32 bytes, for the keyed digests of partitions. */
  readonly digestKey: Uint8Array;

  constructor(namingSecret: Uint8Array) {
    assert.equal(namingSecret.length, NAMING_SECRET_BYTES);
    this.#secret = createSecretKey(namingSecret);
    this.digestKey = new Uint8Array(hkdfSync("sha256", namingSecret, new Uint8Array(0), "digest", 32));
  }

  /**
   * The first 16 bytes of HMAC-SHA256(secret, namespace byte + text), as a binary string.
   *
   * @param namespace 0..255: the same text has another name in each.
   */
  name(namespace: number, text: string): string {
    assert(Number.isInteger(namespace) && namespace >= 0 && namespace <= 255);
    const named = String.fromCharCode(namespace) + text;
    const known = this.#known.get(named);
    if (known !== undefined) return known;
    const name = createHmac("sha256", this.#secret)
      .update(Buffer.from([namespace]))
      .update(text, "utf8")
      .digest()
      .toString("latin1", 0, NAME_BYTES);
    if (text.length <= KNOWN_TEXT_MAX) {
      if (this.#known.size >= KNOWN_MAX) this.#known.clear();
      this.#known.set(named, name);
    }
    return name;
  }

  /** Big-endian uint64 as a binary string of 8 bytes: orders as the numbers do. Method of the class so that keys have one maker. */
  number(value: bigint | number): string {
    const number = BigInt(value);
    assert(number >= 0n && number < 1n << 64n, `not a uint64: ${value}`);
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigUInt64BE(number);
    return bytes.toString("latin1");
  }
}
