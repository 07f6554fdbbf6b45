/**
 * Writes the short form of messages. Numbers are big-endian, unsigned unless said
 * otherwise; `int` is a float64 that holds a safe integer; text is latin1 (keys are
 * binary strings, ids are ASCII).
 */

/** Gathers bytes; `take` gives them away and begins anew. */
export class BriefWriter {
  #buffer = Buffer.allocUnsafe(4096);
  #at = 0;

  byte(value: number): void {
    this.#need(1);
    this.#buffer[this.#at++] = value;
  }

  short(value: number): void {
    this.#need(2);
    this.#at = this.#buffer.writeUInt16BE(value, this.#at);
  }

  int(value: number): void {
    this.#need(8);
    this.#at = this.#buffer.writeDoubleBE(value, this.#at);
  }

  text(value: string): void {
    this.#need(2 + value.length);
    this.#at = this.#buffer.writeUInt16BE(value.length, this.#at);
    this.#at += this.#buffer.write(value, this.#at, value.length, "latin1");
  }

  bytes(value: Uint8Array): void {
    this.#need(4 + value.byteLength);
    this.#at = this.#buffer.writeUInt32BE(value.byteLength, this.#at);
    this.#buffer.set(value, this.#at);
    this.#at += value.byteLength;
  }

  /** Bytes so far. */
  get length(): number {
    return this.#at;
  }

  /** A part begins, to be read as `bytes`. @returns where, for `close`. */
  open(): number {
    this.#need(4);
    this.#at += 4;
    return this.#at;
  }

  /** The part that began at `from` ends here. */
  close(from: number): void {
    this.#buffer.writeUInt32BE(this.#at - from, from - 4);
  }

  /** As if the part that began at `from` had never begun. */
  undo(from: number): void {
    this.#at = from - 4;
  }

  take(): Uint8Array {
    const taken = Buffer.from(this.#buffer.subarray(0, this.#at));
    this.#at = 0;
    return taken;
  }

  #need(bytes: number): void {
    const size = this.#at + bytes;
    if (size <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(size, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }
}
