/**
 * A fingerprint of what a page says: 64 bits, of which pages with nearly the same
 * words share nearly all (Charikar, STOC 2002; Manku, Jain and Das Sarma,
 * "Detecting near-duplicates for web crawling", WWW 2007, who found 3 bits of
 * difference right for pages of the web).
 *
 * Each pair of neighbouring words votes on each bit. The votes of 32 bits are
 * counted at once, in the planes of a binary counter: several times as fast as 64
 * sums. Figures are words like others: to those who scrape, pages that differ in
 * numbers are different pages, as long as the numbers are more than a trace in a
 * long page.
 */

/** Fewer pairs of words say nothing that could be compared. */
const PAIRS_MIN = 16;
/** What comes after so many is not counted. */
const PAIRS_MAX = 2 ** 18 - 1;
const PLANES = 18;
/** From here on (CJK and its neighbours) a character is a word. */
const IDEOGRAPHS = 0x2e80;

const NONE = 0;
const SEED = 0x811c9dc5;

export class TextFingerprint {
  readonly #low = new Int32Array(PLANES);
  readonly #high = new Int32Array(PLANES);
  #pairs = 0;
  // Hash of the word that is being read, NONE between words; and of the one before.
  #word = NONE;
  #before = NONE;

  /** More of the text. A word may go on in the next piece. */
  text(data: string): void {
    let word = this.#word;
    for (let at = 0; at < data.length; at++) {
      let code = data.charCodeAt(at);
      if (code >= IDEOGRAPHS) {
        if (word !== NONE) this.#end(word);
        this.#end(mix(code));
        word = NONE;
        continue;
      }
      if (code >= 65 && code <= 90) code += 32;
      const isWord = (code >= 97 && code <= 122) || (code >= 48 && code <= 57) || code > 0xbf;
      if (isWord) {
        word = Math.imul((word === NONE ? SEED : word) ^ code, 0x01000193) || 1;
      } else if (word !== NONE) {
        this.#end(word);
        word = NONE;
      }
    }
    this.#word = word;
  }

  /** Words before and behind are different words. */
  gap(): void {
    if (this.#word !== NONE) this.#end(this.#word);
    this.#word = NONE;
  }

  /** 16 hexadecimal digits; null: there is too little text. */
  result(): string | null {
    this.gap();
    if (this.#pairs < PAIRS_MIN) return null;
    return majority(this.#high, this.#pairs) + majority(this.#low, this.#pairs);
  }

  #end(word: number): void {
    const before = this.#before;
    this.#before = word;
    if (before === NONE || this.#pairs === PAIRS_MAX) return;
    this.#pairs++;
    const low = mix(Math.imul(before, 0x9e3779b1) + word);
    count(this.#low, low);
    count(this.#high, mix(low ^ Math.imul(word, 0x85ebca6b)));
  }
}

/** The last steps of MurmurHash3: every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let h = value ^ (value >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** One vote more for each bit that is set. */
function count(planes: Int32Array, votes: number): void {
  let carry = votes;
  for (let n = 0; carry !== 0 && n < PLANES; n++) {
    const plane = planes[n]!;
    planes[n] = plane ^ carry;
    carry &= plane;
  }
}

function majority(planes: Int32Array, votes: number): string {
  let bits = 0;
  for (let bit = 0; bit < 32; bit++) {
    let sum = 0;
    for (let n = 0; n < PLANES; n++) sum += ((planes[n]! >>> bit) & 1) << n;
    if (2 * sum > votes) bits |= 1 << bit;
  }
  return (bits >>> 0).toString(16).padStart(8, "0");
}
