/** The leader's last batches, for replicas that missed some. */
import type { DecidedChange } from "./message.ts";

export interface Batch {
  readonly seq: number;
  readonly changes: readonly DecidedChange[];
  readonly bytes: number;
}

export class BatchWindow {
  readonly #limits: { readonly windowBatches: number; readonly windowBytes: number };
  #batches: Batch[] = [];
  #bytes = 0;

  constructor(limits: { readonly windowBatches: number; readonly windowBytes: number }) {
    this.#limits = limits;
  }

  /** The newest batch stays, whatever its size. */
  push(batch: Batch): void {
    this.#batches.push(batch);
    this.#bytes += batch.bytes;
    let drop = 0;
    while (
      this.#batches.length - drop > 1 &&
      (this.#batches.length - drop > this.#limits.windowBatches || this.#bytes > this.#limits.windowBytes)
    ) {
      this.#bytes -= this.#batches[drop]!.bytes;
      drop++;
    }
    if (drop > 0) this.#batches = this.#batches.slice(drop);
  }

  /** Bytes of the batches after `seq`. */
  bytesAfter(seq: number): number {
    return this.from(seq + 1, this.#batches.length).reduce((sum, batch) => sum + batch.bytes, 0);
  }

  /** The oldest batch from which on all are here; undefined when there are none. */
  get first(): number | undefined {
    return this.#batches[0]?.seq;
  }

  /** Whether all batches from `seq` to the newest are here. */
  reaches(seq: number): boolean {
    const first = this.#batches[0];
    return first !== undefined && seq >= first.seq;
  }

  /** Of the batches after `seq` up to `last`, as far as they are here. */
  bytesBetween(seq: number, last: number): number {
    const first = this.#batches[0];
    if (first === undefined) return 0;
    let bytes = 0;
    for (let at = Math.max(0, seq + 1 - first.seq); at <= last - first.seq; at++) {
      bytes += this.#batches[at]?.bytes ?? 0;
    }
    return bytes;
  }

  /** Batches from `seq` on, at most `count`, as long as those before take less than `bytesMax`. */
  from(seq: number, count: number, bytesMax = Number.POSITIVE_INFINITY): readonly Batch[] {
    const first = this.#batches[0];
    if (first === undefined || count <= 0) return [];
    const start = Math.max(0, seq - first.seq);
    if (bytesMax === Number.POSITIVE_INFINITY) return this.#batches.slice(start, start + count);
    let end = start;
    let bytes = 0;
    while (end < this.#batches.length && end < start + count && bytes < bytesMax) {
      bytes += this.#batches[end]!.bytes;
      end++;
    }
    return this.#batches.slice(start, end);
  }
}
