/**
 * Remembers what was looked up last, up to a bound: two halves, of which the older is
 * forgotten as a whole when the younger is full. What is asked for stays.
 */
export class RecentMap<Value> {
  readonly #halfMax: number;
  #young = new Map<string, Value>();
  #old = new Map<string, Value>();

  /** @param max entries, of both halves together. */
  constructor(max: number) {
    this.#halfMax = Math.ceil(max / 2);
  }

  get(key: string): Value | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  set(key: string, value: Value): void {
    if (this.#young.size >= this.#halfMax) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }
}
