/** The leader's last batches, for replicas that missed some: 1,024 of them or 8 MiB. */
import type { Change } from "./register.ts";

export interface Batch {
  readonly seq: number;
  readonly changes: readonly Change[];
  readonly bytes: number;
}

const BATCHES_MAX = 1024;
const BYTES_MAX = 8 * 1024 * 1024;

export class BatchWindow {
  #batches: Batch[] = [];
  #bytes = 0;

  push(batch: Batch): void {
    this.#batches.push(batch);
    this.#bytes += batch.bytes;
    let drop = 0;
    while (
      this.#batches.length - drop > 1 &&
      (this.#batches.length - drop > BATCHES_MAX || this.#bytes > BYTES_MAX)
    ) {
      this.#bytes -= this.#batches[drop]!.bytes;
      drop++;
    }
    if (drop > 0) this.#batches = this.#batches.slice(drop);
  }

  /** Whether all batches from `seq` to the newest are here. */
  reaches(seq: number): boolean {
    const first = this.#batches[0];
    return first !== undefined && seq >= first.seq;
  }

  /** Batches from `seq` on, at most `count`. */
  from(seq: number, count: number): readonly Batch[] {
    const first = this.#batches[0];
    if (first === undefined) return [];
    const start = Math.max(0, seq - first.seq);
    return this.#batches.slice(start, start + count);
  }
}
