/**
 * What is done to a value's text before it becomes a number, a date or whatever its rule asks
 * for. A step takes a text or a list of texts: `split` makes a list, `join` ends it, the others
 * work on each item.
 */
import type { Budget } from "./budget.ts";
import { RegularExpression, readSlashed } from "./regular-expression.ts";

export type TransformStep =
  | "trim"
  /** Runs of white space become one blank. */
  | "collapse"
  /** Text, or a regular expression in slashes; in `with`, `$1` and `$<name>` are its groups. */
  | { readonly replace: string; readonly with?: string | undefined }
  | { readonly split: string }
  | { readonly join: string };

export const STEPS_OF_RULE_MAX = 20;
/** Of the pieces of one `split`. */
const PIECES_MAX = 10_000;
const REPLACEMENTS_MAX = 10_000;
/** Characters of all texts after a step. */
const TEXT_LENGTH_MAX = 1_000_000;

export class TextTooLong extends Error {}

export type Transform = (texts: string | readonly string[]) => string | readonly string[];

/**
 * The steps as one function, which throws `TextTooLong`, `StepsExceeded` and `TooMuchWork`.
 *
 * @throws {StepIssue} for a step that can't be done.
 */
export function compileTransform(steps: readonly TransformStep[], budget: Budget): Transform {
  const compiled = steps.map((step, n) => {
    try {
      return compileStep(step, budget);
    } catch (cause) {
      throw new StepIssue(n, cause instanceof Error ? cause.message : String(cause));
    }
  });
  return (texts) => compiled.reduce((present, step) => bounded(step(present)), texts);
}

export class StepIssue extends Error {
  readonly step: number;

  constructor(step: number, message: string) {
    super(message);
    this.step = step;
  }
}

function compileStep(step: TransformStep, budget: Budget): Transform {
  if (step === "trim") return each((text) => text.trim());
  if (step === "collapse") return each((text) => text.replace(/\s+/g, " ").trim());
  if ("join" in step) return (texts) => (typeof texts === "string" ? texts : texts.join(step.join));
  if ("split" in step) {
    const split = splitter(step.split, budget);
    return (texts) => (typeof texts === "string" ? split(texts) : texts.flatMap(split));
  }
  return each(replacer(step.replace, step.with ?? "", budget));
}

function each(change: (text: string) => string): Transform {
  return (texts) => (typeof texts === "string" ? change(texts) : texts.map(change));
}

function splitter(written: string, budget: Budget): (text: string) => string[] {
  const slashed = readSlashed(written);
  if (slashed === undefined) {
    if (written === "") throw new Error("needs something to split at");
    return (text) => text.split(written, PIECES_MAX);
  }
  const expression = new RegularExpression(slashed.source, slashed.flags);
  return (text) => {
    const pieces: string[] = [];
    let from = 0;
    for (const { start, end } of expression.matches(text, PIECES_MAX - 1, budget)) {
      if (end === 0 || start === text.length) continue;
      pieces.push(text.slice(from, start));
      from = end;
    }
    return [...pieces, text.slice(from)];
  };
}

function replacer(written: string, by: string, budget: Budget): (text: string) => string {
  const slashed = readSlashed(written);
  if (slashed === undefined) {
    if (written === "") throw new Error("needs something to replace");
    return (text) => replaced(text, literalMatches(text, written), () => by);
  }
  const expression = new RegularExpression(slashed.source, slashed.flags);
  const parts = replacementParts(by, expression);
  return (text) =>
    replaced(text, expression.matches(text, REPLACEMENTS_MAX, budget), (match) =>
      parts.map((part) => (typeof part === "string" ? part : (match.groups![part] ?? ""))).join(""),
    );
}

interface Place {
  readonly start: number;
  readonly end: number;
  readonly groups?: readonly (string | null)[];
}

function* literalMatches(text: string, part: string): Generator<Place> {
  let count = 0;
  for (
    let at = text.indexOf(part);
    at !== -1 && count < REPLACEMENTS_MAX;
    at = text.indexOf(part, at + part.length)
  ) {
    count++;
    yield { start: at, end: at + part.length };
  }
}

function replaced(text: string, places: Iterable<Place>, by: (place: Place) => string): string {
  let out = "";
  let from = 0;
  for (const place of places) {
    out += text.slice(from, place.start) + by(place);
    from = place.end;
    if (out.length > TEXT_LENGTH_MAX) throw new TextTooLong();
  }
  return out + text.slice(from);
}

/** Texts and numbers of groups. `$$` is a dollar. */
function replacementParts(by: string, expression: RegularExpression): (string | number)[] {
  const parts: (string | number)[] = [];
  let from = 0;
  for (const found of by.matchAll(/\$(?:\$|(\d{1,2})|<([^<>]+)>)/g)) {
    const [whole, digits, name] = found;
    parts.push(by.slice(from, found.index));
    from = found.index + whole.length;
    if (whole === "$$") {
      parts.push("$");
      continue;
    }
    const group = name === undefined ? Number(digits) : expression.groupNumbers.get(name);
    if (group === undefined || group > expression.groupCount) {
      throw new Error(`"${whole}" is no group of the expression, which has ${expression.groupCount}`);
    }
    parts.push(group);
  }
  return [...parts, by.slice(from)].filter((part) => part !== "");
}

function bounded(texts: string | readonly string[]): string | readonly string[] {
  const list = typeof texts === "string" ? [texts] : texts;
  if (list.length > PIECES_MAX) throw new TextTooLong();
  let length = 0;
  for (const text of list) length += text.length;
  if (length > TEXT_LENGTH_MAX) throw new TextTooLong();
  return texts;
}
