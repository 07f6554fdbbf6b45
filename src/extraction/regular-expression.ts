/**
 * Regular expressions of users on texts of strangers: RE2's syntax and automaton, whose time
 * is linear in the text, with a bound on the product of both sizes.
 *
 * Linear holds for each match, not for all of them: `a[^b]*b|a` reads to the end of the text
 * before each. So the number of matches is bounded too, and the clock is looked at between.
 */
import { RE2JS } from "re2js";
import type { Budget } from "./budget.ts";

/** Instructions of one expression; matching takes at most this many steps per character. */
const PROGRAM_SIZE_MAX = 500;
export const PATTERN_LENGTH_MAX = 1_024;
/** Characters of a text; what is behind them is not looked at. */
export const TEXT_LENGTH_MAX = 262_144;
/** Instructions times characters: about a second at worst. */
const WORK_MAX = 30_000_000;

export class TooMuchWork extends Error {}

export interface Match {
  /** Of the whole match, then of each group; a group that took no part is null. */
  readonly groups: readonly (string | null)[];
  readonly start: number;
  readonly end: number;
}

export class RegularExpression {
  readonly #expression: RE2JS;
  readonly #size: number;
  readonly groupCount: number;
  /** Number of each named group. */
  readonly groupNumbers: ReadonlyMap<string, number>;

  /**
   * @param flags `i`: letters of both cases are the same; `s`: `.` is a line break too; `m`: `^` and `$` are those of each line.
   * @throws {Error} with a message for the author of the pattern.
   */
  constructor(source: string, flags = "") {
    if (source.length > PATTERN_LENGTH_MAX) {
      throw new Error(`has more than ${PATTERN_LENGTH_MAX} characters`);
    }
    if (!/^(?!.*(.).*\1)[ims]*$/.test(flags))
      throw new Error(`"${flags}" are no flags: i, m and s are, once each`);
    const bits =
      (flags.includes("i") ? RE2JS.CASE_INSENSITIVE : 0) |
      (flags.includes("s") ? RE2JS.DOTALL : 0) |
      (flags.includes("m") ? RE2JS.MULTILINE : 0);
    try {
      this.#expression = RE2JS.compile(source, bits);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Error(
        `is no regular expression of the RE2 syntax, which has no back references and no look-around (${reason})`,
        { cause },
      );
    }
    this.#size = this.#expression.programSize();
    if (this.#size > PROGRAM_SIZE_MAX) {
      throw new Error(
        `is too large: ${this.#size} steps per character, at most ${PROGRAM_SIZE_MAX}; repeat fewer times`,
      );
    }
    this.groupCount = this.#expression.groupCount();
    this.groupNumbers = new Map(Object.entries(this.#expression.namedGroups()));
  }

  /**
   * @throws {StepsExceeded}
   * @throws {TooMuchWork} the expression is too large for a text of this length.
   */
  matches(text: string, limit: number, budget: Budget): Match[] {
    const within = text.length > TEXT_LENGTH_MAX ? text.slice(0, TEXT_LENGTH_MAX) : text;
    this.#enter(within.length, budget);
    const matcher = this.#expression.matcher(within);
    const found: Match[] = [];
    while (found.length < limit && matcher.find()) {
      const groups = Array.from({ length: this.groupCount + 1 }, (_, n) => matcher.group(n));
      found.push({ groups, start: matcher.start(0), end: matcher.end(0) });
      budget.spend(16 + groups.length);
      budget.lookAtClock();
    }
    return found;
  }

  /** @throws as `matches` */
  test(text: string, budget: Budget): boolean {
    const within = text.length > TEXT_LENGTH_MAX ? text.slice(0, TEXT_LENGTH_MAX) : text;
    this.#enter(within.length, budget);
    return this.#expression.matcher(within).find();
  }

  #enter(length: number, budget: Budget): void {
    budget.lookAtClock();
    if (this.#size * length > WORK_MAX) throw new TooMuchWork();
    budget.spend(length * Math.min(8, this.#size));
  }
}

/** `/…/` with perhaps flags behind it; undefined: the text is not written as one. */
export function readSlashed(text: string): { source: string; flags: string } | undefined {
  const found = /^\/(.+)\/([a-z]*)$/s.exec(text);
  return found === null ? undefined : { source: found[1]!, flags: found[2]! };
}
