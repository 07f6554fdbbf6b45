/**
 * A map in key order whose copies cost next to nothing: a B+ tree of two levels,
 * sorted chunks that copies share until one side writes (copy on write).
 *
 * What is written but not yet durable must be scanned together with what is on
 * disk, as it stood at one moment, while writes go on. A hash map would have to
 * be copied and sorted for each snapshot.
 */
const CHUNK_MAX = 256;

interface Chunk<V> {
  /** The map that may change this chunk in place. */
  owner: object;
  keys: string[];
  values: V[];
}

export class OrderedMap<V> {
  // Never holds an empty chunk; chunk i ends before chunk i + 1 begins.
  #chunks: Chunk<V>[] = [];
  #owner: object = {};
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: string): V | undefined {
    if (this.#size === 0) return undefined;
    const chunk = this.#chunks[this.#chunkOf(key)]!;
    const at = lowerBound(chunk.keys, key);
    return chunk.keys[at] === key ? chunk.values[at] : undefined;
  }

  set(key: string, value: V): void {
    if (this.#size === 0) {
      this.#chunks = [{ owner: this.#owner, keys: [key], values: [value] }];
      this.#size = 1;
      return;
    }
    const index = this.#chunkOf(key);
    const chunk = this.#own(index);
    const at = lowerBound(chunk.keys, key);
    if (chunk.keys[at] === key) {
      chunk.values[at] = value;
      return;
    }
    chunk.keys.splice(at, 0, key);
    chunk.values.splice(at, 0, value);
    this.#size++;
    if (chunk.keys.length > CHUNK_MAX) {
      // Keys often grow at the end: a full chunk then stays full.
      const cut = at === CHUNK_MAX ? CHUNK_MAX : CHUNK_MAX / 2;
      const upper = { owner: this.#owner, keys: chunk.keys.splice(cut), values: chunk.values.splice(cut) };
      this.#chunks.splice(index + 1, 0, upper);
    }
  }

  /** False when there was nothing under `key`. */
  delete(key: string): boolean {
    if (this.get(key) === undefined) return false;
    const index = this.#chunkOf(key);
    const chunk = this.#own(index);
    const at = lowerBound(chunk.keys, key);
    chunk.keys.splice(at, 1);
    chunk.values.splice(at, 1);
    this.#size--;
    if (chunk.keys.length === 0) this.#chunks.splice(index, 1);
    return true;
  }

  /** In key order, from `from` on, before `until`. The map must not change meanwhile: iterate a copy. */
  *range(from: string, until: string | undefined): Generator<[string, V]> {
    if (this.#size === 0) return;
    const first = this.#chunkOf(from);
    let at = lowerBound(this.#chunks[first]!.keys, from);
    for (let index = first; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index]!;
      for (; at < chunk.keys.length; at++) {
        const key = chunk.keys[at]!;
        if (until !== undefined && key >= until) return;
        yield [key, chunk.values[at]!];
      }
      at = 0;
    }
  }

  /** The first `limit` of `range`. */
  slice(from: string, until: string | undefined, limit: number): [string, V][] {
    const found: [string, V][] = [];
    if (limit <= 0) return found;
    for (const entry of this.range(from, until)) {
      found.push(entry);
      if (found.length === limit) break;
    }
    return found;
  }

  /** The same content; either side may change without the other. */
  copy(): OrderedMap<V> {
    const copy = new OrderedMap<V>();
    copy.#chunks = this.#chunks.slice();
    copy.#size = this.#size;
    // Nobody owns the shared chunks any more.
    this.#owner = {};
    return copy;
  }

  /** The chunk in which `key` is, or would be put. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#chunks[middle]!.keys[0]! <= key) low = middle;
      else high = middle;
    }
    return low;
  }

  #own(index: number): Chunk<V> {
    const chunk = this.#chunks[index]!;
    if (chunk.owner === this.#owner) return chunk;
    const own = { owner: this.#owner, keys: chunk.keys.slice(), values: chunk.values.slice() };
    this.#chunks[index] = own;
    return own;
  }
}

/** Index of the first key that is not below `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
