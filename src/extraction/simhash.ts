/**
 * A fingerprint of what a page says: 256 bits, of which pages with nearly the same
 * text share nearly all (Charikar, STOC 2002; Manku, Jain and Das Sarma,
 * "Detecting near-duplicates for web crawling", WWW 2007). Theirs have 64 bits; of
 * two pages under one large menu, of which a seventh differs, these are by chance
 * within their 3 bits one time in 300, which is too often among thousands of pages
 * of a host. With 256 the same similarity is told a million times as surely.
 *
 * Each run of three neighbouring words votes on each bit; where words are not
 * parted by blanks (Chinese, Japanese), each run of six characters, since single
 * ones say little. Half of the runs are left out, the same ones on every page. The
 * votes of 32 bits are counted at once, four by four, in the planes of a binary
 * counter (the carry-save adders of Harley and Seal). Figures are words like
 * others: to those who scrape, pages that differ in numbers are different pages, as
 * long as the numbers are more than a trace in a long page.
 */

/** Fewer runs of words, of those that count, say nothing that could be compared. */
const RUNS_MIN = 8;
/** What comes after so many is not counted. */
const RUNS_MAX = 2 ** 17 - 4;
const PLANES = 17;
const WORDS = 8;
const AT_ONCE = 4;
/** From here on (CJK and its neighbours) a character is a word. */
const IDEOGRAPHS = 0x2e80;

const NONE = 0;
const SEED = 0x811c9dc5;
const FACTOR = 0x9e3779b1;
/** Odd; one for each 32 bits of the fingerprint. */
const FACTORS = Int32Array.of(
  0x9e3779b1,
  0x85ebca6b,
  0xc2b2ae35,
  0x27d4eb2f,
  0x165667b1,
  0xd3a2646d,
  0xfd7046c5,
  0xb55a4f09,
);

export class TextFingerprint {
  // For each 32 bits the planes of their counters.
  readonly #planes = new Int32Array(WORDS * PLANES);
  // Runs that are not counted yet; 0 votes for nothing.
  readonly #waiting = new Int32Array(AT_ONCE);
  #runs = 0;
  // Hash of the word that is being read; NONE between words.
  #word = NONE;
  // Hashes of the words before, the latest first; NONE: there was none.
  #last = [NONE, NONE, NONE, NONE, NONE];

  /** More of the text. A word may go on in the next piece. */
  text(data: string): void {
    let word = this.#word;
    for (let at = 0; at < data.length; at++) {
      let code = data.charCodeAt(at);
      if (code >= IDEOGRAPHS) {
        if (word !== NONE) this.#end(word, false);
        this.#end(mix(code), true);
        word = NONE;
        continue;
      }
      if (code >= 65 && code <= 90) code += 32;
      const isWord = (code >= 97 && code <= 122) || (code >= 48 && code <= 57) || code > 0xbf;
      if (isWord) {
        word = Math.imul((word === NONE ? SEED : word) ^ code, 0x01000193) || 1;
      } else if (word !== NONE) {
        this.#end(word, false);
        word = NONE;
      }
    }
    this.#word = word;
  }

  /** Words before and behind are different words. */
  gap(): void {
    if (this.#word !== NONE) this.#end(this.#word, false);
    this.#word = NONE;
  }

  /** 64 hexadecimal digits; null: there is too little text. */
  result(): string | null {
    this.gap();
    if (this.#runs < RUNS_MIN) return null;
    this.#count();
    let digits = "";
    for (let n = 0; n < WORDS; n++) digits += majority(this.#planes, n * PLANES, this.#runs);
    return digits;
  }

  #end(word: number, isIdeograph: boolean): void {
    const last = this.#last;
    const [first, second, third, fourth, fifth] = last as [number, number, number, number, number];
    last[4] = fourth;
    last[3] = third;
    last[2] = second;
    last[1] = first;
    last[0] = word;
    if (second === NONE || this.#runs === RUNS_MAX) return;
    let run = Math.imul(second, FACTOR) + first;
    if (isIdeograph) {
      const before = Math.imul(Math.imul(fifth, FACTOR) + fourth, FACTOR) + third;
      run = Math.imul(Math.imul(before, FACTOR) + second, FACTOR) + first;
    }
    const hash = mix(Math.imul(run, FACTOR) + word);
    if ((hash & 1) === 0) return;
    this.#waiting[this.#runs++ % AT_ONCE] = hash;
    if (this.#runs % AT_ONCE === 0) this.#count();
  }

  /** Adds four votes to each counter: two planes by carry-save adders, the rest by carrying. */
  #count(): void {
    const planes = this.#planes;
    const waiting = this.#waiting;
    const w = waiting[0]!;
    const x = waiting[1]!;
    const y = waiting[2]!;
    const z = waiting[3]!;
    for (let n = 0; n < WORDS; n++) {
      const factor = FACTORS[n]!;
      const from = n * PLANES;
      const a = spread(w, factor);
      const b = spread(x, factor);
      const c = spread(y, factor);
      const d = spread(z, factor);
      let ones = planes[from]!;
      const ab = a ^ b;
      const twosA = (ones & ab) | (a & b);
      ones ^= ab;
      const cd = c ^ d;
      const twosB = (ones & cd) | (c & d);
      planes[from] = ones ^ cd;
      const twos = planes[from + 1]!;
      const both = twosA ^ twosB;
      planes[from + 1] = twos ^ both;
      let carry = (twos & both) | (twosA & twosB);
      for (let at = from + 2; carry !== 0; at++) {
        const plane = planes[at]!;
        planes[at] = plane ^ carry;
        carry &= plane;
      }
    }
    waiting.fill(0);
  }
}

/** 32 other bits of the same run; of 0 none. */
function spread(run: number, factor: number): number {
  const product = Math.imul(run, factor);
  return product ^ (product >>> 16);
}

/** The last steps of MurmurHash3: every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let h = value ^ (value >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function majority(planes: Int32Array, from: number, votes: number): string {
  let bits = 0;
  for (let bit = 0; bit < 32; bit++) {
    let sum = 0;
    for (let n = 0; n < PLANES; n++) sum += ((planes[from + n]! >>> bit) & 1) << n;
    if (2 * sum > votes) bits |= 1 << bit;
  }
  return (bits >>> 0).toString(16).padStart(8, "0");
}
