/**
 * What pages of a host have said so far in one job, as fingerprints: by them a page
 * is known that repeats another, byte for byte or nearly.
 *
 * A window over the last 4,096 different contents of the host: older ones are
 * forgotten, so a page may repeat one from long ago without being marked. It lies
 * in the store in 128 chunks which are written over in turn, each in the batch that
 * settles the page, so that a takeover forgets nothing. A look through the whole
 * window takes some 20 µs; no index is needed.
 */
import { z } from "zod";

/** Contents of one host and job. */
export const CONTENTS_MAX = 4096;
const CHUNK_LENGTH = 32;
/** In memory, over all hosts of a partition; beyond, the least recently used windows stay in the store alone. */
const CONTENTS_HELD_MAX = 32_768;
const TRIM_EVERY = 256;
/** Of a window, in contents. */
const WINDOW_COST = 8;
/** Bits of a simhash, of 256, in which near duplicates differ at most: some 2 % of the text. */
export const NEAR_BITS_MAX = 16;
/** Of 32 bits each, in a simhash. */
const WORDS = 8;
/** Hexadecimal digits of a SHA-256: 64 bits tell some thousand contents apart. */
const HASH_LENGTH = 16;

/** The key of the page that said it first, the first digits of its SHA-256, and its simhash. */
const printSchema = z.tuple([z.string(), z.string(), z.string().nullable()]).readonly();
type StoredPrint = z.output<typeof printSchema>;

interface ContentPrint {
  readonly key: string;
  readonly hash: string;
  readonly simhash: string | null;
}

export const contentChunkSchema = z.object({
  jobId: z.string(),
  host: z.string(),
  /** The number of its first content, counted from 0 over all that the host has had. */
  first: z.int().nonnegative(),
  prints: z.array(printSchema).max(CHUNK_LENGTH),
});
export type ContentChunk = z.output<typeof contentChunkSchema>;

/** Where a chunk lies in the store: over the oldest one. */
export function chunkPlace(first: number): number {
  return (first % CONTENTS_MAX) / CHUNK_LENGTH;
}

/** What a page repeats; neither: it is new. */
export interface Repetition {
  /** The key of the page that had the same bytes first. */
  readonly duplicateOf?: string;
  /** The key of the page that had nearly the same text first. */
  readonly nearDuplicateOf?: string;
}

export function isRepetition({ duplicateOf, nearDuplicateOf }: Repetition): boolean {
  return duplicateOf !== undefined || nearDuplicateOf !== undefined;
}

export class ContentWindow {
  readonly jobId: string;
  readonly host: string;
  // Contents by number modulo CONTENTS_MAX; the words of their simhashes beside them.
  readonly #prints: ContentPrint[] = [];
  #words = new Int32Array(0);
  readonly #byHash = new Map<string, ContentPrint>();
  /** How many contents there have been. */
  #total = 0;
  // Of pages that are being settled, by key.
  readonly #reserved = new Map<string, ContentPrint>();
  readonly #dirty = new Set<number>();

  constructor(jobId: string, host: string, chunks: readonly ContentChunk[] = []) {
    this.jobId = jobId;
    this.host = host;
    for (const { first, prints } of chunks.toSorted((a, b) => a.first - b.first)) {
      this.#total = first;
      for (const [key, hash, simhash] of prints) this.#add({ key, hash, simhash });
    }
  }

  get length(): number {
    return this.#prints.length;
  }

  /** May it be dropped from memory? */
  get isQuiet(): boolean {
    return this.#reserved.size === 0 && this.#dirty.size === 0;
  }

  /**
   * Whether the page repeats another. One that is new is compared with from now on:
   * of two that arrive together, the second is the duplicate. `settled` or `released` follows.
   */
  judge(key: string, sha256: string, simhash: string | null): Repetition {
    const hash = sha256.slice(0, HASH_LENGTH);
    const same = this.#byHash.get(hash);
    if (same !== undefined && same.key !== key) return { duplicateOf: same.key };
    let near: string | undefined;
    for (const print of this.#reserved.values()) {
      if (print.key === key) continue;
      if (print.hash === hash) return { duplicateOf: print.key };
      if (simhash !== null && print.simhash !== null) {
        const apart = bitsApart(wordsOf(print.simhash), 0, wordsOf(simhash), NEAR_BITS_MAX);
        if (apart <= NEAR_BITS_MAX) near ??= print.key;
      }
    }
    if (simhash !== null) near = this.#nearTo(simhash, key) ?? near;
    if (near !== undefined) return { nearDuplicateOf: near };
    this.#reserved.set(key, { key, hash, simhash });
    return {};
  }

  /** The page has a result. False: it repeats another, and there is nothing to note. */
  settled(key: string): boolean {
    const print = this.#reserved.get(key);
    if (print === undefined) return false;
    this.#reserved.delete(key);
    this.#dirty.add(this.#total - (this.#total % CHUNK_LENGTH));
    this.#add(print);
    return true;
  }

  /** The page gives no result now. */
  released(key: string): void {
    this.#reserved.delete(key);
  }

  /** Chunks that changed since the last call. */
  takeChanges(): ContentChunk[] {
    const chunks = [...this.#dirty].map((first) => {
      const at = first % CONTENTS_MAX;
      const length = Math.min(CHUNK_LENGTH, this.#total - first);
      const prints = this.#prints
        .slice(at, at + length)
        .map(({ key, hash, simhash }): StoredPrint => [key, hash, simhash]);
      return { jobId: this.jobId, host: this.host, first, prints };
    });
    this.#dirty.clear();
    return chunks;
  }

  get changes(): number {
    return this.#dirty.size;
  }

  #add(print: ContentPrint): void {
    const at = this.#total++ % CONTENTS_MAX;
    const old = this.#prints[at];
    if (old !== undefined && this.#byHash.get(old.hash) === old) this.#byHash.delete(old.hash);
    this.#prints[at] = print;
    this.#byHash.set(print.hash, print);
    while (at * WORDS >= this.#words.length) {
      const length = Math.max(CHUNK_LENGTH * WORDS, this.#words.length * 2);
      const larger = new Int32Array(Math.min(CONTENTS_MAX * WORDS, length));
      larger.set(this.#words);
      this.#words = larger;
    }
    if (print.simhash !== null) this.#words.set(wordsOf(print.simhash), at * WORDS);
  }

  #nearTo(simhash: string, ownKey: string): string | undefined {
    const words = wordsOf(simhash);
    const all = this.#words;
    const first = words[0]!;
    const second = words[1]!;
    const length = this.#prints.length;
    for (let at = 0; at < length; at++) {
      const from = at * WORDS;
      // Of other texts, the first words are enough to tell.
      if (ones(all[from]! ^ first) + ones(all[from + 1]! ^ second) > NEAR_BITS_MAX) continue;
      if (bitsApart(all, from, words, NEAR_BITS_MAX) > NEAR_BITS_MAX) continue;
      // Behind the newest content there may be a hole: what stood there was written over in the store.
      const print = this.#prints[at];
      if (print !== undefined && print.simhash !== null && print.key !== ownKey) return print.key;
    }
    return undefined;
  }
}

/** The windows in memory, least recently used first. */
export class KnownContents {
  readonly #windows = new Map<string, ContentWindow>();
  #uses = 0;
  // At least what they hold, as of the last count.
  #held = 0;

  /** Undefined: what the store has of it is not here. */
  windowOf(jobId: string, host: string): ContentWindow | undefined {
    const id = `${jobId}/${host}`;
    const window = this.#windows.get(id);
    if (window !== undefined) {
      this.#windows.delete(id);
      this.#windows.set(id, window);
      // They grow while they are used.
      if (++this.#uses % TRIM_EVERY === 0) this.#trim();
    }
    return window;
  }

  put(window: ContentWindow): void {
    this.#windows.set(`${window.jobId}/${window.host}`, window);
    this.#held += window.length + WINDOW_COST;
    if (this.#held > CONTENTS_HELD_MAX) this.#trim();
  }

  forgetJob(jobId: string): void {
    for (const [id, window] of this.#windows) if (window.jobId === jobId) this.#windows.delete(id);
  }

  #trim(): void {
    let held = 0;
    for (const window of this.#windows.values()) held += window.length + WINDOW_COST;
    // Somewhat below the bound, or each new host would have all counted again.
    const most = held > CONTENTS_HELD_MAX ? CONTENTS_HELD_MAX * 0.9 : held;
    for (const [id, window] of this.#windows) {
      if (held <= most) break;
      if (!window.isQuiet) continue;
      held -= window.length + WINDOW_COST;
      this.#windows.delete(id);
    }
    this.#held = held;
  }
}

/** How many bits of a simhash, whose words begin at `from`, differ from `words`; counted until there are more than `most`. */
export function bitsApart(all: Int32Array, from: number, words: Int32Array, most: number): number {
  let bits = 0;
  for (let n = 0; n < WORDS && bits <= most; n++) bits += ones(all[from + n]! ^ words[n]!);
  return bits;
}

function ones(bits: number): number {
  let n = bits - ((bits >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** @param simhash 64 hexadecimal digits. */
export function wordsOf(simhash: string): Int32Array {
  const words = new Int32Array(WORDS);
  for (let n = 0; n < WORDS; n++) words[n] = Number.parseInt(simhash.slice(8 * n, 8 * n + 8), 16);
  return words;
}
