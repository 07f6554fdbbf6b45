/**
 * Numbers as people write them: `£51.77`, `1.234,56 €`, `1 234,56`, `CHF 1'234.50`, `1,23,456.7`.
 *
 * With a locale, its own signs are what counts (CLDR, by way of Intl), and a text that uses
 * them differently has no number: `1.5` in German is a mistake of somebody, not 15. Digits
 * may then be those of any script.
 *
 * Without one: where both `.` and `,` occur, the later one is the decimal sign. One that
 * occurs several times groups. A single comma before exactly three digits groups as well
 * (`1,234` is 1234), a single point does not (`1.234` is 1.234): a convention, not knowledge.
 */

/** Thousands, and lakhs as in India. */
const GROUPED = /^\d{1,3}(?:[.,]\d{2,3})*[.,]\d{3}$/;

/** @param locale as `isLocale` takes it. @returns the first number in `text`; undefined when there is none. */
export function parseNumber(text: string, locale?: string): number | undefined {
  if (locale !== undefined) return parseLocalNumber(text, locale);
  const found =
    /([-+\u2212]?)[^\S\n]?(?:\p{Sc}[^\S\n]?)?((?:\d|[.,](?=\d))(?:\d|[.,'\u2019 \u00a0\u202f](?=\d))*)(e[+-]?\d{1,3})?/iu.exec(
      text,
    );
  if (found === null) return undefined;
  const [, sign, written = "", exponent = ""] = found;
  const groups = firstNumber(written);
  return signed(sign!, plainDigits(groups) + (groups === written ? exponent.toLowerCase() : ""));
}

/** Whether `text` is a locale whose data is at hand, e.g. "de" or "fr-CH". */
export function isLocale(text: string): boolean {
  try {
    return Intl.NumberFormat.supportedLocalesOf(text).length > 0;
  } catch {
    return false;
  }
}

function signed(sign: string, digits: string): number | undefined {
  const value = Number(digits);
  if (!Number.isFinite(value)) return undefined;
  return sign !== "" && "-\u2212\uff0d".includes(sign) ? -value : value;
}

/** Blanks group only before three digits: `5 10` are two numbers. */
function firstNumber(text: string): string {
  const blank = /[ \u00a0\u202f](?!\d{3}(?!\d))/.exec(text);
  return blank === null ? text : text.slice(0, blank.index);
}

function plainDigits(text: string): string {
  const compact = text.replace(/['\u2019 \u00a0\u202f]/g, "");
  const point = compact.lastIndexOf(".");
  const comma = compact.lastIndexOf(",");
  if (point !== -1 && comma !== -1) {
    const decimal = Math.max(point, comma);
    return `${compact.slice(0, decimal).replace(/[.,]/g, "")}.${compact.slice(decimal + 1)}`;
  }
  const sign = point !== -1 ? "." : ",";
  const at = Math.max(point, comma);
  if (at === -1) return compact;
  if (compact.indexOf(sign) !== at) {
    // Versions and dates have several points too: of `1.2.3`, take `1.2`.
    if (GROUPED.test(compact)) return compact.replaceAll(sign, "");
    const [whole = "", fraction = ""] = compact.split(sign);
    return `${whole}.${fraction}`;
  }
  if (sign === "," && /^[1-9]\d{0,2},\d{3}$/.test(compact)) return compact.replace(",", "");
  return `${compact.slice(0, at)}.${compact.slice(at + 1)}`;
}

interface Signs {
  /** A class of characters, for a regular expression. */
  readonly group: string;
  readonly decimal: string;
}

const LOCALES_KEPT = 64;
const signsByLocale = new Map<string, Signs>();

function signsOf(locale: string): Signs {
  let signs = signsByLocale.get(locale);
  if (signs === undefined) {
    // Sums of money are grouped by other signs in some countries, Austria for one.
    const plain = partsOf(locale, {});
    const money = partsOf(locale, { style: "currency", currency: "EUR" });
    const decimal = plain("decimal", ".");
    const groups = new Set([plain("group", ","), money("group", ",")]);
    groups.delete(decimal);
    signs = { group: [...groups].map(lookalikes).join(""), decimal: lookalikes(decimal) };
    if (signsByLocale.size === LOCALES_KEPT) signsByLocale.clear();
    signsByLocale.set(locale, signs);
  }
  return signs;
}

function partsOf(
  locale: string,
  options: Intl.NumberFormatOptions,
): (type: "group" | "decimal", usual: string) => string {
  const parts = new Intl.NumberFormat(locale, { ...options, maximumFractionDigits: 2 }).formatToParts(
    1_234_567.5,
  );
  return (type, usual) => parts.find((part) => part.type === type)?.value ?? usual;
}

/** Blanks of any width and all apostrophes are typed for one another; Arabic text has both kinds of signs. */
function lookalikes(sign: string): string {
  if (/\s/.test(sign)) return " \u00a0\u2009\u202f";
  if (/['\u2019]/.test(sign)) return "'\u2019\u02bc";
  if (sign === "\u066c") return "\u066c,";
  if (sign === "\u066b") return "\u066b.";
  return sign;
}

function parseLocalNumber(text: string, locale: string): number | undefined {
  const { group, decimal } = signsOf(locale);
  const plain = latinDigits(text);
  const run = new RegExp(
    `([-+\u2212\uff0d]?)[^\\S\\n]?(?:\\p{Sc}[^\\S\\n]?)?((?:\\d|[${decimal}](?=\\d))(?:\\d|[.,${group}${decimal}](?=\\d))*)(e[+-]?\\d{1,3})?`,
    "iu",
  ).exec(plain);
  if (run === null) return undefined;
  const [, sign, written = "", exponent = ""] = run;
  // Two numbers beside each other are not one with a blank between.
  const first = group.includes(" ") ? firstNumber(written.replace(/[\u2009]/g, "\u202f")) : written;
  const groups = new RegExp(
    `^(?:\\d{1,3}(?:[${group}]\\d{2,3})*[${group}]\\d{3}|\\d*)(?:[${decimal}]\\d+)?$`,
    "u",
  );
  if (!groups.test(first)) return undefined;
  const digits = first
    .replace(new RegExp(`[${group}]`, "gu"), "")
    .replace(new RegExp(`[${decimal}]`, "u"), ".");
  return signed(sign!, digits + (first === written ? exponent.toLowerCase() : ""));
}

/** Zeros of the scripts that have digits of their own; the other nine follow in each. */
const ZEROS = [
  0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0e50,
  0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0xff10,
];

/** With the digits that everybody can calculate with, and without the marks that only turn the direction of text. */
export function latinDigits(text: string): string {
  if (/^[\u0000-\u05ff]*$/.test(text)) return text;
  return text
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")
    .replace(/(?![0-9])\p{Nd}/gu, (digit) => {
      const code = digit.codePointAt(0)!;
      const zero = ZEROS.find((first) => code >= first && code < first + 10);
      return zero === undefined ? digit : String(code - zero);
    })
    .replace(/\uff0e/g, ".")
    .replace(/\uff0c/g, ",");
}
