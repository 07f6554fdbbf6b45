/**
 * AES-256-GCM under the server's data keys. The key in use was made at this start
 * and no earlier process had it, so a counter makes every nonce fresh (SP 800-38D,
 * 8.2.1); the random first half guards against a machine that was copied while
 * it ran. Older keys only open.
 *
 * A sealed value: format (1 byte), key id (uint32), nonce (12), ciphertext, tag (16).
 */
import assert from "node:assert/strict";
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from "node:crypto";
import { DamagedError, UnavailableError } from "../errors.ts";

const FORMAT = 1;
const NONCE_AT = 5;
const NONCE_BYTES = 12;
const HEAD_BYTES = NONCE_AT + NONCE_BYTES;
const TAG_BYTES = 16;
const SEALING = { authTagLength: TAG_BYTES };

export interface DataKey {
  /** uint32, never given out twice. */
  readonly id: number;
  readonly key: KeyObject;
}

export class DataCipher {
  readonly #keys: Map<number, KeyObject>;
  #current: DataKey;
  #sealed = 0;
  #noncePrefix = randomBytes(NONCE_BYTES - 4);
  readonly #valuesMax: number;
  readonly #nextKey: () => Promise<DataKey>;
  #changing = false;

  /**
   * @param options.current never used before.
   * @param options.valuesMax how many values one key seals, at most 2^31.
   * @param options.nextKey a new key that is kept durably already.
   */
  constructor(options: {
    readonly keys: Iterable<DataKey>;
    readonly current: DataKey;
    readonly valuesMax: number;
    readonly nextKey: () => Promise<DataKey>;
  }) {
    assert(options.valuesMax >= 2 && options.valuesMax <= 2 ** 31);
    this.#keys = new Map([...options.keys].map(({ id, key }) => [id, key]));
    this.#current = options.current;
    this.#keys.set(options.current.id, options.current.key);
    this.#valuesMax = options.valuesMax;
    this.#nextKey = options.nextKey;
  }

  /**
   * @param room bytes that are left free before what is sealed.
   * @throws {UnavailableError} this key has sealed its share, and the next one is not kept yet.
   */
  seal(plain: Uint8Array, associated: Uint8Array, room = 0): Uint8Array {
    // Half a share early: the next key has to be on disk before its first value.
    if (this.#sealed >= this.#valuesMax / 2) this.#changeKey();
    if (this.#sealed >= this.#valuesMax) {
      throw new UnavailableError("the next data key could not be kept in vault.json; check the disk");
    }
    const sealed = Buffer.allocUnsafe(room + HEAD_BYTES + plain.length + TAG_BYTES);
    const nonceAt = room + NONCE_AT;
    const plainAt = room + HEAD_BYTES;
    sealed[room] = FORMAT;
    sealed.writeUInt32BE(this.#current.id, room + 1);
    this.#noncePrefix.copy(sealed, nonceAt);
    sealed.writeUInt32BE(this.#sealed++, plainAt - 4);
    const nonce = sealed.subarray(nonceAt, plainAt);
    const cipher = createCipheriv("aes-256-gcm", this.#current.key, nonce, SEALING);
    cipher.setAAD(associated);
    // GCM is a stream: `update` returns all, `final` only computes the tag.
    sealed.set(cipher.update(plain), plainAt);
    cipher.final();
    sealed.set(cipher.getAuthTag(), plainAt + plain.length);
    return sealed;
  }

  /** @throws {DamagedError} sealed by another vault, for another place, or changed since. */
  open(sealed: Uint8Array, associated: Uint8Array): Uint8Array {
    if (sealed.length < HEAD_BYTES + TAG_BYTES || sealed[0] !== FORMAT) {
      throw new DamagedError("it is cut short or of an unknown format");
    }
    const id = new DataView(sealed.buffer, sealed.byteOffset).getUint32(1);
    const key = this.#keys.get(id);
    if (key === undefined) throw new DamagedError(`data key ${id} is not in vault.json`);
    const end = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(NONCE_AT, HEAD_BYTES), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(associated);
    decipher.setAuthTag(sealed.subarray(end));
    const plain = decipher.update(sealed.subarray(HEAD_BYTES, end));
    try {
      decipher.final();
    } catch (cause) {
      throw new DamagedError("it was changed, or belongs elsewhere", { cause });
    }
    return plain;
  }

  #changeKey(): void {
    if (this.#changing) return;
    this.#changing = true;
    this.#nextKey().then(
      (next) => {
        this.#keys.set(next.id, next.key);
        this.#current = next;
        this.#sealed = 0;
        this.#noncePrefix = randomBytes(NONCE_BYTES - 4);
        this.#changing = false;
      },
      () => {
        // Tried again with the next value; the limit above holds until it works.
        this.#changing = false;
      },
    );
  }
}
