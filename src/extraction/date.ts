/**
 * Dates as people and machines write them, as ISO 8601.
 *
 * Without a locale only what can mean one day: ISO 8601 and RFC 3339, RFC 2822 and its kin,
 * English names of months, `2026年3月5日`, and seconds or milliseconds since 1970. `03/05/2026`
 * is two days, so it needs a locale, which gives the order and the names of the months.
 *
 * `Date.parse` is of no use: what it makes of other forms is up to the engine, and it
 * takes `05.03.2026` for a day in May.
 */
import { latinDigits } from "./number.ts";

const LENGTH_MAX = 300;

interface Day {
  readonly year: number;
  readonly month: number;
  /** Null: a month. */
  readonly day: number | null;
  /** Where in the text it ends. */
  readonly end: number;
}

/**
 * The first date in `text`: `2026-03-05`, `2026-03`, `2026-03-05T14:30:00` where no zone is named,
 * else `2026-03-05T13:30:00Z`. Undefined: there is none, or it may mean several days.
 */
export function parseDate(text: string, locale?: string): string | undefined {
  const plain = latinDigits(text.slice(0, LENGTH_MAX))
    .replace(/[\s\u00a0\u202f]+/g, " ")
    .trim();
  const epoch = fromEpoch(plain);
  if (epoch !== undefined) return epoch;
  const words = plain.toLowerCase();
  const written =
    isoDay(words) ?? ideographicDay(words) ?? namedDay(words, monthNames("en")) ?? localDay(words, locale);
  const day =
    written === undefined || locale === undefined ? written : calendarOf(locale).toGregorian(written);
  if (day === undefined || !exists(day)) return undefined;
  const date = `${String(day.year).padStart(4, "0")}-${two(day.month)}`;
  if (day.day === null) return date;
  const time = timeAfter(words.slice(day.end));
  if (time === undefined) return `${date}-${two(day.day)}`;
  const { hour, minute, second, zoneMinutes } = time;
  if (zoneMinutes === undefined) return `${date}-${two(day.day)}T${two(hour)}:${two(minute)}:${two(second)}`;
  const at = Date.UTC(day.year, day.month - 1, day.day, hour, minute, second) - zoneMinutes * 60_000;
  return isoOf(at);
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/** From 1973 on, so that years and prices are no dates. */
function fromEpoch(text: string): string | undefined {
  if (!/^\d{9,13}(?:\.\d+)?$/.test(text)) return undefined;
  const value = Number(text);
  if (value >= 1e8 && value < 1e11) return isoOf(value * 1000);
  return value >= 1e11 && value < 1e14 ? isoOf(value) : undefined;
}

function isoDay(text: string): Day | undefined {
  const found =
    /(?<![\d./-])(\d{4})-(\d{2})(?:-(\d{2}))?(?![\d-])/.exec(text) ??
    /(?<![\d./-])(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?!\d)/.exec(text) ??
    /^(\d{4})(\d{2})(\d{2})(?=$|t\d{4})/.exec(text);
  return found === null ? undefined : dayAt(found, found[1]!, found[2]!, found[3]);
}

function ideographicDay(text: string): Day | undefined {
  const found = /(\d{4}) ?[年년] ?(\d{1,2}) ?[月월](?: ?(\d{1,2}) ?[日号號일])?/.exec(text);
  return found === null ? undefined : dayAt(found, found[1]!, found[2]!, found[3]);
}

/** A day and a year around the name of a month, in any order that leaves no doubt. */
function namedDay(text: string, names: ReadonlyMap<string, number>): Day | undefined {
  for (const found of text.matchAll(/[\p{L}\p{M}]+(?: [\p{L}\p{M}]+)?/gu)) {
    const [whole] = found;
    const word = [whole, ...whole.split(" ")].find((part) => names.has(part));
    if (word === undefined) continue;
    const at = found.index + whole.indexOf(word);
    const before = text.slice(Math.max(0, at - 24), at);
    const rest = text.slice(at + word.length);
    const month = String(names.get(word)!);
    const end = (match: RegExpExecArray) => at + word.length + match[0].length;
    const yearAfter = /^\.?,?(?: (?:de|del|di|do))?[ .,'\u2019-]*(\d{4})(?!\d)/.exec(rest);
    const dayBefore = /(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|\u00ba|\u00aa|\.)?(?: (?:of|de|den))?[ .,-]*$/.exec(
      before,
    );
    const dayYearAfter =
      /^\.?[ -]*(\d{1,2})(?:st|nd|rd|th|er|\.)?(?:,? |, ?|-)(?:(?:at )?\d{1,2}:\d{2}(?::\d{2})? )?(?:[a-z]{3,4} )?(\d{4})(?!\d)/.exec(
        rest,
      );
    const yearBefore = /(?<!\d)(\d{4})[ .,-]*$/.exec(before);
    if (dayBefore !== null && yearAfter !== null)
      return fields(yearAfter[1]!, month, dayBefore[1]!, end(yearAfter));
    if (dayYearAfter !== null) {
      // `Thu Mar 5 14:30:00 2026` has its time in the middle.
      const time = /\d{1,2}:\d{2}/.exec(dayYearAfter[0]);
      const after = time === null ? end(dayYearAfter) : at + word.length + time.index;
      return fields(dayYearAfter[2]!, month, dayYearAfter[1]!, after);
    }
    const dayAfter = /^\.?[ -]*(\d{1,2})(?!\d)/.exec(rest);
    if (yearBefore !== null && dayAfter !== null)
      return fields(yearBefore[1]!, month, dayAfter[1]!, end(dayAfter));
    const shortYear = /^[ .-]*(\d{2})(?= \d{1,2}:\d{2})/.exec(rest);
    if (dayBefore !== null && shortYear !== null)
      return fields(shortYear[1]!, month, dayBefore[1]!, end(shortYear));
    if (yearAfter !== null) return fields(yearAfter[1]!, month, undefined, end(yearAfter));
  }
  return undefined;
}

function localDay(text: string, locale: string | undefined): Day | undefined {
  if (locale === undefined) return undefined;
  const calendar = calendarOf(locale);
  const named = namedDay(text, calendar.names);
  if (named !== undefined) return named;
  const found = /(?<![\d./-])(\d{1,4})(?:\. ?|[/-])(\d{1,2})(?:\. ?|[/-])(\d{1,4})(?!\d)/.exec(text);
  if (found === null) return undefined;
  const numbers = {
    [calendar.order[0]!]: found[1]!,
    [calendar.order[1]!]: found[2]!,
    [calendar.order[2]!]: found[3]!,
  };
  const { year, month, day } = numbers;
  if (
    year === undefined ||
    month === undefined ||
    day === undefined ||
    day.length > 2 ||
    year.length % 2 === 1
  )
    return undefined;
  return dayAt(found, year, month, day);
}

function dayAt(found: RegExpExecArray, year: string, month: string, day: string | undefined): Day {
  return fields(year, month, day, found.index + found[0].length);
}

function fields(year: string, month: string, day: string | undefined, end: number): Day {
  const written = Number(year);
  const whole = year.length > 2 ? written : written + (written < 70 ? 2000 : 1900);
  return { year: whole, month: Number(month), day: day === undefined ? null : Number(day), end };
}

function exists({ year, month, day }: Day): boolean {
  if (year < 1 || month < 1 || month > 12) return false;
  if (day === null) return true;
  return day >= 1 && day <= new Date(Date.UTC(2000 + (year % 400), month, 0)).getUTCDate();
}

interface Time {
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
  /** East of Greenwich; undefined: not told. */
  readonly zoneMinutes: number | undefined;
}

/** RFC 2822, 4.3. */
const ZONE_HOURS: Readonly<Record<string, number>> = {
  __proto__: null as never,
  z: 0,
  ut: 0,
  utc: 0,
  gmt: 0,
  est: -5,
  edt: -4,
  cst: -6,
  cdt: -5,
  mst: -7,
  mdt: -6,
  pst: -8,
  pdt: -7,
  cet: 1,
  cest: 2,
};

function timeAfter(text: string): Time | undefined {
  const compact = /^t(\d{2})(\d{2})(\d{2})?(z|[+-]\d{4})?$/.exec(text);
  const found =
    compact ??
    /^[^\d]{0,24}(?<!\d)(\d{1,2})(?:[:h\u6642\u65f6\uc2dc] ?|\.(?=\d\d (?:uhr|klo)))(\d{2})\u5206?(?:[:.](\d{2}))?(?:[.,]\d{1,9})? ?((?:[ap]\.?m\.?(?![a-z])) ?)?(z(?![a-z])|(?:utc|gmt)?[+\u2212-]\d{1,2}(?::?\d{2})?|[a-z]{2,4}(?![a-z]))?/.exec(
      text,
    );
  if (found === null) return undefined;
  const half = compact === null ? found[4]?.[0] : undefined;
  const zone = compact === null ? found[5] : found[4];
  let hour = Number(found[1]);
  if (half !== undefined) hour = (hour % 12) + (half === "p" ? 12 : 0);
  const minute = Number(found[2]);
  const second = Math.min(59, Number(found[3] ?? 0));
  if (hour > 23 || minute > 59) return undefined;
  return { hour, minute, second, zoneMinutes: zoneOf(zone) };
}

function zoneOf(zone: string | undefined): number | undefined {
  if (zone === undefined) return undefined;
  const offset = /([+\u2212-])(\d{1,2}):?(\d{2})?$/.exec(zone);
  if (offset === null) {
    const hours = ZONE_HOURS[zone];
    return hours === undefined ? undefined : hours * 60;
  }
  const minutes = Number(offset[2]) * 60 + Number(offset[3] ?? 0);
  return offset[1] === "+" ? minutes : -minutes;
}

interface LocalCalendar {
  readonly names: ReadonlyMap<string, number>;
  /** Of `day`, `month` and `year` in a date of numbers alone. */
  readonly order: readonly string[];
  /** Undefined: the year belongs to a calendar whose months are others. */
  toGregorian(day: Day): Day | undefined;
}

const LOCALES_KEPT = 64;
const calendarByLocale = new Map<string, LocalCalendar>();
const namesByLocale = new Map<string, ReadonlyMap<string, number>>();

function calendarOf(locale: string): LocalCalendar {
  let calendar = calendarByLocale.get(locale);
  if (calendar === undefined) {
    const parts = new Intl.DateTimeFormat(locale, {
      ...GREGORIAN,
      year: "numeric",
      month: "numeric",
      day: "numeric",
    }).formatToParts(0);
    const order = parts.map(({ type }) => type).filter((type) => ["day", "month", "year"].includes(type));
    const usual = new Intl.DateTimeFormat(locale).resolvedOptions().calendar;
    calendar = { names: monthNames(locale), order, toGregorian: (day) => toGregorian(day, usual) };
    if (calendarByLocale.size === LOCALES_KEPT) calendarByLocale.clear();
    calendarByLocale.set(locale, calendar);
  }
  return calendar;
}

/** Years of Buddha are 543 ahead and have the same months; those of Persia and of the Hijra do not. */
function toGregorian(day: Day, calendar: string): Day | undefined {
  if (calendar === "buddhist" && day.year > 2400) return { ...day, year: day.year - 543 };
  if (calendar !== "gregory" && calendar !== "buddhist" && day.year < 1600) return undefined;
  return day;
}

const GREGORIAN = { calendar: "gregory", timeZone: "UTC", numberingSystem: "latn" } as const;

/** In lower case, without the point of an abbreviation: alone, and as they stand beside a day (in Slavic languages another case). */
function monthNames(locale: string): ReadonlyMap<string, number> {
  const known = namesByLocale.get(locale);
  if (known !== undefined) return known;
  const names = new Map<string, number>();
  for (const month of ["long", "short"] as const) {
    for (const day of [{}, { day: "numeric" as const }]) {
      const format = new Intl.DateTimeFormat(locale, { ...GREGORIAN, ...day, month });
      for (let n = 1; n <= 12; n++) {
        const parts = format.formatToParts(Date.UTC(2025, n - 1, 15));
        const name = parts
          .find(({ type }) => type === "month")!
          .value.toLowerCase()
          .replace(/\.$/, "");
        if (/\p{L}/u.test(name) && !names.has(name)) names.set(name, n);
      }
    }
  }
  if (locale === "en") names.set("sept", 9);
  if (namesByLocale.size === LOCALES_KEPT) namesByLocale.clear();
  namesByLocale.set(locale, names);
  return names;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
