/**
 * Which pages of a job a partition has, as far as memory goes. While nothing was
 * left out, absence here means that a page is new and no read is needed; past the
 * bound it is a cache, and what it does not know must be looked up.
 */

/** Depth of a pending page; `SETTLED` for one that is over. */
export const SETTLED = -1;

export class KnownPages {
  readonly #lengthMax: number;
  // By page key, oldest first.
  readonly #depths = new Map<string, number>();
  #isComplete: boolean;

  /** @param isComplete the partition has no page of the job yet. */
  constructor(isComplete: boolean, lengthMax = 50_000) {
    this.#isComplete = isComplete;
    this.#lengthMax = lengthMax;
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  depthOf(key: string): number | undefined {
    return this.#depths.get(key);
  }

  set(key: string, depth: number): void {
    this.#depths.set(key, depth);
  }

  /** Drops the oldest beyond the bound. Not while an answer from the store is awaited: what was added since would be missed. */
  trim(lengthMax = this.#lengthMax): void {
    const most = Math.min(lengthMax, this.#lengthMax);
    if (this.#depths.size <= most) return;
    this.#isComplete = false;
    const surplus = this.#depths.size - Math.floor(most * 0.75);
    let n = 0;
    for (const key of this.#depths.keys()) {
      if (n++ === surplus) break;
      this.#depths.delete(key);
    }
  }
}
