/**
 * What a record says once it is opened, and what it is bound to: its place is the
 * cipher's associated data, version and expiry lie inside, so a record can't be
 * read as another one's, nor with another version or expiry.
 *
 * A record rolled back to an earlier one of the same key is authentic; the root
 * digest that each replica keeps in its meta shows it.
 */
import { DamagedError } from "../errors.ts";
import type { StoredEntry } from "./store.ts";

/** Authenticated encryption with the server's own data keys. */
export interface StoreCipher {
  /**
   * A fresh nonce each time: two calls never give the same bytes.
   *
   * @param room bytes that are left free before what is sealed.
   */
  seal(plain: Uint8Array, associated: Uint8Array, room?: number): Uint8Array;

  /** @throws {DamagedError} not sealed by this cipher with this associated data, or changed since. */
  open(sealed: Uint8Array, associated: Uint8Array): Uint8Array;
}

const EXPIRES = 1;
const HEAD_BYTES = 3;
const EXPIRY_BYTES = 8;

/** @param place where the record lies, as a binary string: its key on disk. @param room as of `StoreCipher.seal`. */
export function sealEntry(cipher: StoreCipher, place: string, entry: StoredEntry, room: number): Uint8Array {
  const { version, value, expiresAtMs } = entry;
  const versionBytes = Buffer.byteLength(version, "utf8");
  if (versionBytes > 0xffff) throw new RangeError("a version has at most 65,535 bytes");
  const expiryBytes = expiresAtMs === undefined ? 0 : EXPIRY_BYTES;
  const plain = Buffer.allocUnsafe(HEAD_BYTES + expiryBytes + versionBytes + value.length);
  plain[0] = expiresAtMs === undefined ? 0 : EXPIRES;
  plain.writeUInt16BE(versionBytes, 1);
  if (expiresAtMs !== undefined) plain.writeDoubleBE(expiresAtMs, HEAD_BYTES);
  plain.write(version, HEAD_BYTES + expiryBytes, versionBytes, "utf8");
  plain.set(value, HEAD_BYTES + expiryBytes + versionBytes);
  return cipher.seal(plain, Buffer.from(place, "latin1"), room);
}

/** @param what names the record in the error. @throws {DamagedError} */
export function openEntry(
  cipher: StoreCipher,
  place: string,
  record: Uint8Array,
  what: () => string,
): StoredEntry {
  const plain = open(cipher, place, record, what);
  const head = Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength);
  const hasExpiry = (head[0]! & EXPIRES) !== 0;
  const versionStart = HEAD_BYTES + (hasExpiry ? EXPIRY_BYTES : 0);
  const versionEnd = versionStart + head.readUInt16BE(1);
  const version = head.toString("utf8", versionStart, versionEnd);
  const value = plain.subarray(versionEnd);
  return hasExpiry ? { version, value, expiresAtMs: head.readDoubleBE(HEAD_BYTES) } : { version, value };
}

export function sealBytes(cipher: StoreCipher, place: string, bytes: Uint8Array, room = 0): Uint8Array {
  return cipher.seal(bytes, Buffer.from(place, "latin1"), room);
}

/** @param what names the record in the error. @throws {DamagedError} */
export function openBytes(
  cipher: StoreCipher,
  place: string,
  record: Uint8Array,
  what: () => string,
): Uint8Array {
  return open(cipher, place, record, what);
}

function open(cipher: StoreCipher, place: string, record: Uint8Array, what: () => string): Uint8Array {
  try {
    return cipher.open(record, Buffer.from(place, "latin1"));
  } catch (cause) {
    if (!(cause instanceof DamagedError)) throw cause;
    throw new DamagedError(`${what()} can't be authenticated: ${cause.message}`, { cause });
  }
}
