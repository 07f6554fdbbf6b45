/**
 * Numbers as people write them: `£51.77`, `1.234,56 €`, `1 234,56`, `CHF 1'234.50`, `1,23,456.7`.
 *
 * Where both `.` and `,` occur, the later one is the decimal sign. One that occurs several
 * times groups. A single comma before exactly three digits groups as well (`1,234` is 1234),
 * a single point does not (`1.234` is 1.234): without a locale this is a convention, not knowledge.
 */

/** Thousands, and lakhs as in India. */
const GROUPED = /^\d{1,3}(?:[.,]\d{2,3})*[.,]\d{3}$/;

/** @returns the first number in `text`; undefined when there is none. */
export function parseNumber(text: string): number | undefined {
  const found =
    /([-+\u2212]?)[^\S\n]?(?:\p{Sc}[^\S\n]?)?((?:\d|[.,](?=\d))(?:\d|[.,'\u2019 \u00a0\u202f](?=\d))*)(e[+-]?\d{1,3})?/iu.exec(
      text,
    );
  if (found === null) return undefined;
  const [, sign, written = "", exponent = ""] = found;
  const groups = firstNumber(written);
  const value = Number(plainDigits(groups) + (groups === written ? exponent.toLowerCase() : ""));
  if (!Number.isFinite(value)) return undefined;
  return sign === "-" || sign === "\u2212" ? -value : value;
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
