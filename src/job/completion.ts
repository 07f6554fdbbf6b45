/**
 * When is a crawl over? Counters that are read one after another can miss a page
 * on its way from one to the next, so one reading proves nothing. Two equal
 * readings, the second begun after the first had ended, with nobody entitled to
 * take on work in between, do (the two-wave idea of termination detection;
 * Mattern, "Algorithms for distributed termination detection", 1987).
 *
 * "Entitled" is what a confirmation of the job's state means: a participant takes
 * on pages, hands out and settles only with one, and forgets it when it answers a
 * round. So any confirmation given since the first round began voids it.
 */
import { type Counts, pendingOf, sameCounts } from "./counts.ts";

interface Reading {
  readonly disturbances: number;
  readonly counts: ReadonlyMap<number, Counts>;
}

export type RoundEnd =
  /** It may be over: read once more, at once. */
  | "again"
  /** Something is pending, or not all seeds are offered. */
  | "notYet"
  /** Two equal rounds: the caller finishes the job if `stillHolds` in the same turn. */
  | "finished";

export class Completion {
  readonly #maxPages: number;
  // Confirmations asked for and participants added so far: what voids a round.
  #disturbances = 0;
  #first: Reading | undefined;
  #begun: number | undefined;

  constructor(maxPages: number) {
    this.#maxPages = maxPages;
  }

  /** A confirmation was asked for, a participant was added, or pages came back to life. */
  disturb(): void {
    this.#disturbances++;
  }

  /** A round begins; it ends with `end`, or never. */
  begin(): void {
    this.#begun = this.#disturbances;
  }

  /** @param counts what each participant answered; all of them, as they were listed when the round began. */
  end(counts: ReadonlyMap<number, Counts>, seedsOffered: boolean): RoundEnd {
    const begun = this.#begun;
    this.#begun = undefined;
    const first = this.#first;
    this.#first = undefined;
    if (begun === undefined || !seedsOffered || !isQuiet(counts.values(), this.#maxPages)) return "notYet";
    if (begun !== this.#disturbances) return "again";
    if (first !== undefined && first.disturbances === this.#disturbances && same(first.counts, counts)) {
      this.#first = first;
      return "finished";
    }
    this.#first = { disturbances: begun, counts };
    return "again";
  }

  /** Whether nothing has happened since the first of the two equal rounds began. */
  get stillHolds(): boolean {
    return this.#first !== undefined && this.#first.disturbances === this.#disturbances;
  }
}

/** Nothing is pending, or what is pending can't become a result any more. */
export function isQuiet(counts: Iterable<Counts>, maxPages: number): boolean {
  let [pending, spent] = [0, 0];
  for (const c of counts) {
    pending += pendingOf(c);
    spent += c.spent;
  }
  return pending === 0 || spent >= maxPages;
}

function same(a: ReadonlyMap<number, Counts>, b: ReadonlyMap<number, Counts>): boolean {
  if (a.size !== b.size) return false;
  for (const [partition, counts] of a) {
    const other = b.get(partition);
    if (other === undefined || !sameCounts(counts, other)) return false;
  }
  return true;
}
