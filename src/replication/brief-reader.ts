/** Reads the short form of messages, as `BriefWriter` has written it, or anything. */
import { DamagedError } from "../errors.ts";

/** Every read is within the bytes and the bound that it is given, or throws DamagedError. */
export class BriefReader {
  readonly #buffer: Buffer;
  #at = 0;
  /** Of the part that is being read. */
  #end: number;

  /** Values that are read stay views of `bytes`. */
  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = bytes.byteLength;
  }

  byte(): number {
    return this.#buffer[this.#take(1)]!;
  }

  short(max: number): number {
    return within(this.#buffer.readUInt16BE(this.#take(2)), max);
  }

  /** Safe, and at least `min`. */
  int(min = 0): number {
    const value = this.#buffer.readDoubleBE(this.#take(8));
    if (!Number.isSafeInteger(value) || value < min) throw malformed("not an integer in its bounds");
    return value;
  }

  /** Any finite number. */
  number(): number {
    const value = this.#buffer.readDoubleBE(this.#take(8));
    if (!Number.isFinite(value)) throw malformed("not a finite number");
    return value;
  }

  text(min: number, max: number): string {
    const length = this.short(max);
    if (length < min) throw malformed("a text is too short");
    const at = this.#take(length);
    return this.#buffer.toString("latin1", at, at + length);
  }

  bytes(max: number): Uint8Array {
    const length = within(this.#buffer.readUInt32BE(this.#take(4)), max);
    const at = this.#take(length);
    return this.#buffer.subarray(at, at + length);
  }

  /** Goes on with the next part alone, as `BriefWriter.open` began it; false: there is none. */
  next(): boolean {
    this.#at = this.#end;
    if (this.#at === this.#buffer.length) return false;
    this.#end = this.#buffer.length;
    const length = this.#buffer.readUInt32BE(this.#take(4));
    if (this.#at + length > this.#end) throw malformed("ends too early");
    this.#end = this.#at + length;
    return true;
  }

  /** Reads parts only, from the start on. */
  parts(): this {
    this.#end = 0;
    return this;
  }

  /** Nothing may follow. */
  end(): void {
    if (this.#at !== this.#end) throw malformed("goes on after its end");
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#end) throw malformed("ends too early");
    this.#at = at + bytes;
    return at;
  }
}

export function malformed(what: string): DamagedError {
  return new DamagedError(`a brief message can't be read: ${what}`);
}

function within(value: number, max: number): number {
  if (value > max) throw malformed("over its bound");
  return value;
}
