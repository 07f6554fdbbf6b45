/** Blobs that come in pieces, because one frame does not hold them: each until it is whole, all within a bound. */
import { BusyError, InvalidInputError, TooLargeError } from "../errors.ts";

/** Of one blob: the largest page that a job may ask for, in the widest encoding of its text. */
export const BLOB_BYTES_MAX = 128 * 1024 * 1024;
/** Of one piece: a frame with other things beside it. */
export const PIECE_BYTES = 4 * 1024 * 1024;

/** Of all that are not whole yet. */
const WAITING_BYTES_MAX = 256 * 1024 * 1024;
const IDLE_MS_MAX = 30_000;
const BUSY_MS = 500;

export interface BlobPiece {
  /** Of the whole blob. */
  readonly size: number;
  /** Where in it this piece begins. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

interface Waiting {
  readonly whole: Buffer;
  received: number;
  heardMs: number;
}

export class BlobAssembly {
  readonly #waiting = new Map<string, Waiting>();
  #bytes = 0;

  /** In order, for whoever sends them. */
  static *piecesOf(bytes: Uint8Array): Generator<BlobPiece> {
    let offset = 0;
    do {
      yield { size: bytes.length, offset, bytes: bytes.subarray(offset, offset + PIECE_BYTES) };
      offset += PIECE_BYTES;
    } while (offset < bytes.length);
  }

  /**
   * The whole blob, once its last piece has come.
   *
   * @param key of one sender and one blob: a piece at 0 begins anew.
   * @throws {BusyError} too much is waiting. @throws {InvalidInputError} a piece is missing before this one.
   * @throws {TooLargeError}
   */
  add(key: string, { size, offset, bytes }: BlobPiece, nowMs: number): Uint8Array | undefined {
    if (size > BLOB_BYTES_MAX) throw new TooLargeError(`a blob has at most ${BLOB_BYTES_MAX} bytes`);
    if (offset === 0 && bytes.length === size) {
      this.#drop(key);
      return bytes;
    }
    for (const [other, { heardMs }] of this.#waiting) if (nowMs - heardMs > IDLE_MS_MAX) this.#drop(other);
    if (offset === 0) this.#begin(key, size, nowMs);
    const waiting = this.#waiting.get(key);
    const isNext =
      waiting?.received === offset &&
      waiting.whole.length === size &&
      bytes.length > 0 &&
      offset + bytes.length <= size;
    if (waiting === undefined || !isNext) {
      this.#drop(key);
      throw new InvalidInputError("the pieces of a blob came out of order; begin again");
    }
    waiting.whole.set(bytes, offset);
    waiting.received += bytes.length;
    waiting.heardMs = nowMs;
    if (waiting.received < size) return undefined;
    this.#drop(key);
    return waiting.whole;
  }

  #begin(key: string, size: number, nowMs: number): void {
    this.#drop(key);
    if (this.#bytes + size > WAITING_BYTES_MAX) throw new BusyError("the space for blobs in pieces", BUSY_MS);
    this.#bytes += size;
    this.#waiting.set(key, { whole: Buffer.alloc(size), received: 0, heardMs: nowMs });
  }

  #drop(key: string): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    this.#waiting.delete(key);
    this.#bytes -= waiting.whole.length;
  }
}
