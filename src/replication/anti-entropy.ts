/**
 * Digests of a partition's state: 1,024 buckets, each the XOR of a keyed hash of
 * its entries; their XOR is the root. Keyed, for XOR is linear and users choose
 * values. Two replicas with one root hold the same entries at the same versions.
 */
import { hash } from "node:crypto";
import type { Key } from "./register.ts";
import type { HeldEntry } from "./replica-state.ts";

export const BUCKETS = 1024;
const WORDS = 4;

/** 128 bits as four words. */
export type Digest = Uint32Array;

export class EntryDigester {
  readonly #secret: Uint8Array;

  constructor(secret: Uint8Array) {
    this.#secret = secret;
  }

  /** Of one entry: its key, version, expiry and value. */
  of(key: Key, entry: HeldEntry): Digest {
    const head = Buffer.from(
      `${key.length}:${key}${entry.version.length}:${entry.version}${entry.expiresAtMs ?? ""}:`,
      "latin1",
    );
    // As text, which costs less than a third of a buffer of its own.
    const hex = hash("sha256", Buffer.concat([this.#secret, head, entry.value]), "hex");
    const words = new Uint32Array(WORDS);
    for (let i = 0; i < WORDS; i++) words[i] = Number.parseInt(hex.slice(i * 8, i * 8 + 8), 16);
    return words;
  }
}

/** FNV-1a: which bucket is no secret, only its digest is. */
export function bucketOf(key: Key): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) h = Math.imul(h ^ key.charCodeAt(i), 0x01000193);
  return (h ^ (h >>> 15)) & (BUCKETS - 1);
}

export function xorInto(target: Uint32Array, digest: Digest, word = 0): void {
  target[word]! ^= digest[0]!;
  target[word + 1]! ^= digest[1]!;
  target[word + 2]! ^= digest[2]!;
  target[word + 3]! ^= digest[3]!;
}

/** The buckets of one state. */
export class BucketDigests {
  readonly words: Uint32Array;

  constructor(words = new Uint32Array(BUCKETS * WORDS)) {
    this.words = words;
  }

  /** Adds an entry that was absent, or takes away one that was present: the same operation. */
  toggle(key: Key, digest: Digest): void {
    xorInto(this.words, digest, bucketOf(key) * WORDS);
  }

  merge(other: BucketDigests): void {
    for (let i = 0; i < this.words.length; i++) this.words[i]! ^= other.words[i]!;
  }

  root(): Digest {
    const root = new Uint32Array(WORDS);
    for (let i = 0; i < this.words.length; i++) root[i % WORDS]! ^= this.words[i]!;
    return root;
  }

  toBytes(): Uint8Array {
    return digestToBytes(this.words);
  }

  static fromBytes(bytes: Uint8Array): BucketDigests {
    return new BucketDigests(
      bytes.byteLength === 0 ? undefined : new Uint32Array(digestFromBytes(bytes, BUCKETS * WORDS)),
    );
  }

  /** One bit a bucket, set where the two differ. */
  differing(other: BucketDigests): Uint8Array {
    const bits = new Uint8Array(BUCKETS / 8);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      for (let i = 0; i < WORDS; i++) {
        if (this.words[bucket * WORDS + i] !== other.words[bucket * WORDS + i]) {
          bits[bucket >> 3]! |= 1 << (bucket & 7);
          break;
        }
      }
    }
    return bits;
  }
}

export function isMarked(bits: Uint8Array, key: Key): boolean {
  const bucket = bucketOf(key);
  return ((bits[bucket >> 3] ?? 0) & (1 << (bucket & 7))) !== 0;
}

export function digestToBytes(words: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < words.length; i++) view.setUint32(i * 4, words[i]!);
  return bytes;
}

export function digestFromBytes(bytes: Uint8Array, wordCount = WORDS): Uint32Array {
  const words = new Uint32Array(wordCount);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let i = 0; i < wordCount && i * 4 + 4 <= bytes.byteLength; i++) words[i] = view.getUint32(i * 4);
  return words;
}

export function isSameDigest(a: Uint8Array | Uint32Array, b: Uint8Array | Uint32Array): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
