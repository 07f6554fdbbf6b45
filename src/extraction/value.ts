/**
 * Texts of pages as values of a type.
 */
import { parseDate } from "./date.ts";
import { parseNumber } from "./number.ts";
import { collapse } from "./text.ts";

export type FieldValue =
  | string
  | number
  | boolean
  | null
  | readonly FieldValue[]
  | { readonly [field: string]: FieldValue };

/** There is a text, but it is none of the type that the rule names. */
export class ValueProblem extends Error {}

/**
 * @returns null for an empty text, of which only `text` is a value.
 * @throws {ValueProblem}
 */
export function convert(
  type: "text" | "number" | "integer" | "boolean" | "date" | "url",
  raw: string,
  locale: string | undefined,
  baseUrl: string,
): string | number | boolean | null {
  if (type === "text") return raw;
  if (type === "url") return toUrl(raw, baseUrl);
  const text = collapse(raw);
  if (text === "") return null;
  if (type === "boolean") return toBoolean(text);
  const where = locale === undefined ? "" : ` of the locale ${locale}`;
  if (type === "date") {
    const date = parseDate(text, locale);
    if (date === undefined) {
      const hint =
        locale === undefined && /\d[./-]\d/.test(text) ? ', or one of several: give the rule a "locale"' : "";
      throw new ValueProblem(`"${excerpt(text)}" has no date${where}${hint}`);
    }
    return date;
  }
  const value = parseNumber(text, locale);
  if (value === undefined) throw new ValueProblem(`"${excerpt(text)}" has no number${where}`);
  if (type === "integer" && !Number.isSafeInteger(value)) {
    throw new ValueProblem(`"${excerpt(text)}" is no whole number`);
  }
  return value;
}

/** Absolute; null: there is no text. @throws {ValueProblem} */
export function toUrl(text: string | null, baseUrl: string): string | null {
  if (text === null || text.trim() === "") return null;
  const url = URL.parse(text, baseUrl);
  if (url === null) throw new ValueProblem(`"${excerpt(text)}" is no URL`);
  return url.href;
}

function toBoolean(text: string): boolean {
  const word = text.toLowerCase();
  if (["true", "yes", "1", "on", "y"].includes(word)) return true;
  if (["false", "no", "0", "off", "n"].includes(word)) return false;
  throw new ValueProblem(`"${excerpt(word)}" is neither true nor false`);
}

/** Where an element's address stands, for rules of type `url` that name no attribute. */
export const URL_ATTRIBUTE: Readonly<Record<string, string>> = {
  __proto__: null as never,
  a: "href",
  area: "href",
  link: "href",
  base: "href",
  img: "src",
  script: "src",
  iframe: "src",
  frame: "src",
  source: "src",
  video: "src",
  audio: "src",
  embed: "src",
  track: "src",
  input: "src",
  object: "data",
  form: "action",
  blockquote: "cite",
  q: "cite",
  meta: "content",
};

export function excerpt(text: string, length = 60): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
