/**
 * What the rules of one page may cost. Rules come from users and pages from strangers:
 * nested `:has`, `//*/ /*` and filters within filters take quadratic time and more. Rather
 * than guess the cost of a rule from its looks, each step through the page is counted, and
 * the count is bounded. What can't be counted, the insides of a regular expression, is
 * bounded by the clock of the caller, looked at between matches.
 */

/** Steps through the page for all of its rules: about half a second. */
export const STEPS_MAX = 100_000_000;

export class StepsExceeded extends Error {}

/** The steps that rules may still take on the present page. */
export class Budget {
  #left = STEPS_MAX;
  #isLate: () => boolean = () => false;

  /** @param isLate whether the time for the rules of this page is over. */
  reset(isLate: () => boolean = () => false): void {
    this.#left = STEPS_MAX;
    this.#isLate = isLate;
  }

  /** @throws {StepsExceeded} */
  spend(steps: number): void {
    if ((this.#left -= steps) < 0) throw new StepsExceeded();
  }

  /** @throws {StepsExceeded} */
  lookAtClock(): void {
    if (this.#isLate()) throw new StepsExceeded();
  }
}
