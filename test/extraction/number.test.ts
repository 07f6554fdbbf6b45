/** Numbers of a locale, dates and transforms: what people write, and what it means. */
import { test } from "tap";
import { Budget } from "../../src/extraction/budget.ts";
import { parseDate } from "../../src/extraction/date.ts";
import { isLocale, parseNumber } from "../../src/extraction/number.ts";
import {
  compileTransform,
  StepIssue,
  TextTooLong,
  type TransformStep,
} from "../../src/extraction/transform.ts";

test("numbers are read with the signs of their locale", async (t) => {
  const table: [text: string, locale: string, value: number | undefined][] = [
    ["1.234,56 €", "de", 1234.56],
    ["1.500", "de", 1500],
    ["1.5", "de", undefined],
    ["1,5", "de", 1.5],
    ["0,5 %", "de", 0.5],
    ["1.234.567", "de", 1234567],
    ["1.23.4", "de", undefined],
    ["ab 12.000 Stück", "de", 12000],
    ["1’234.50", "de-CH", 1234.5],
    ["CHF 1'234.50", "de-CH", 1234.5],
    ["€ 1.234,50", "de-AT", 1234.5],
    ["1 234,56", "fr", 1234.56],
    ["1\u202f234,56 €", "fr", 1234.56],
    ["1\u00a0234", "fr", 1234],
    ["5 10", "fr", 5],
    ["2 500 000", "fr", 2500000],
    ["1,234", "en", 1234],
    ["1.234", "en", 1.234],
    ["$1,234.00", "en-US", 1234],
    ["-$3.50", "en-US", -3.5],
    ["1e3", "en", 1000],
    ["£51.77", "en-GB", 51.77],
    ["1,5", "en", undefined],
    ["12,34,567.8", "en-IN", 1234567.8],
    ["₹1,00,000", "hi", 100000],
    ["१२३.५", "hi", 123.5],
    ["1.234,5", "es", 1234.5],
    ["1.234", "es", 1234],
    ["R$ 1.234,50", "pt-BR", 1234.5],
    ["1.234,5", "it", 1234.5],
    ["1 234,5", "ru", 1234.5],
    ["1 234,5 zł", "pl", 1234.5],
    ["-3,5 °C", "sv", -3.5],
    ["−5", "sv", -5],
    ["1 234,5", "nb", 1234.5],
    ["1.234,5", "nl", 1234.5],
    ["1.234,5", "tr", 1234.5],
    ["1 234,5", "cs", 1234.5],
    ["1.234,5", "id", 1234.5],
    ["１２３", "ja", 123],
    ["￥1,234", "ja", 1234],
    ["1,234.5", "ko", 1234.5],
    ["1,234.5元", "zh", 1234.5],
    ["١٬٢٣٤٫٥", "ar-EG", 1234.5],
    ["\u200f-٥", "ar-EG", -5],
    ["۱۲۳", "fa", 123],
    ["১২৩", "bn", 123],
    ["๑๒๓", "th", 123],
    ["1.234,5", "el", 1234.5],
    ["1,234.5", "he", 1234.5],
    ["abc", "de", undefined],
    ["", "de", undefined],
  ];

  for (const [text, locale, value] of table) t.equal(parseNumber(text, locale), value, `${text} ${locale}`);
  for (const known of ["de", "fr-CH", "zh-Hant", "ar-EG"]) t.equal(isLocale(known), true, known);
  for (const unknown of ["zz", "german", "de_DE", "", "-"]) t.equal(isLocale(unknown), false, unknown);
});

test("dates become ISO 8601, and what may be two days is none", async (t) => {
  const table: [text: string, locale: string | undefined, value: string | undefined][] = [
    ["2026-03-05", undefined, "2026-03-05"],
    ["2026-03", undefined, "2026-03"],
    ["on 2026-03-05.", undefined, "2026-03-05"],
    ["2026/03/05", undefined, "2026-03-05"],
    ["20260305", undefined, "2026-03-05"],
    ["20260305T143000Z", undefined, "2026-03-05T14:30:00Z"],
    ["2026-03-05 14:30", undefined, "2026-03-05T14:30:00"],
    ["2026-03-05T14:30:00Z", undefined, "2026-03-05T14:30:00Z"],
    ["2026-03-05T14:30:00+01:00", undefined, "2026-03-05T13:30:00Z"],
    ["2026-03-05T14:30:00.123-0500", undefined, "2026-03-05T19:30:00Z"],
    ["2026-03-05T23:30:00-02:00", undefined, "2026-03-06T01:30:00Z"],
    ["Thu, 05 Mar 2026 14:30:00 GMT", undefined, "2026-03-05T14:30:00Z"],
    ["Thu, 5 Mar 2026 14:30:00 +0200", undefined, "2026-03-05T12:30:00Z"],
    ["Thursday, 05-Mar-26 14:30:00 GMT", undefined, "2026-03-05T14:30:00Z"],
    ["Thu Mar  5 14:30:00 2026", undefined, "2026-03-05T14:30:00"],
    ["March 5, 2026", undefined, "2026-03-05"],
    ["5 March 2026", undefined, "2026-03-05"],
    ["28 Sept 2026", undefined, "2026-09-28"],
    ["March 2026", undefined, "2026-03"],
    ["Mar 5th, 2026 at 3:05 pm", undefined, "2026-03-05T15:05:00"],
    ["Mar 5, 2026 12:00 AM EST", undefined, "2026-03-05T05:00:00Z"],
    ["Updated: 12 May 2026 09:00 UTC+2", undefined, "2026-05-12T07:00:00Z"],
    ["2026年3月5日", undefined, "2026-03-05"],
    ["2026年3月5日 14:30", undefined, "2026-03-05T14:30:00"],
    ["2026년 3월 5일", undefined, "2026-03-05"],
    ["1772721000", undefined, "2026-03-05T14:30:00Z"],
    ["1772721000000", undefined, "2026-03-05T14:30:00Z"],
    ["03/05/2026", undefined, undefined],
    ["05.03.2026", undefined, undefined],
    ["03/05/2026", "en-US", "2026-03-05"],
    ["03/05/2026", "en-GB", "2026-05-03"],
    ["05.03.2026", "de", "2026-03-05"],
    ["5.3.26", "de", "2026-03-05"],
    ["5. März 2026, 14:30 Uhr", "de", "2026-03-05T14:30:00"],
    ["5 mars 2026", "fr", "2026-03-05"],
    ["1er août 2026", "fr", "2026-08-01"],
    ["5/3/26", "fr", "2026-03-05"],
    ["5 de marzo de 2026", "es", "2026-03-05"],
    ["5 de março de 2026 às 14h30", "pt", "2026-03-05T14:30:00"],
    ["5 mar 2026", "it", "2026-03-05"],
    ["5 maart 2026", "nl", "2026-03-05"],
    ["5 marca 2026", "pl", "2026-03-05"],
    ["5 марта 2026 г.", "ru", "2026-03-05"],
    ["5 března 2026", "cs", "2026-03-05"],
    ["5. maaliskuuta 2026", "fi", "2026-03-05"],
    ["5 Mart 2026", "tr", "2026-03-05"],
    ["5 Μαρτίου 2026", "el", "2026-03-05"],
    ["2026. március 5.", "hu", "2026-03-05"],
    ["2026. 3. 5.", "ko", "2026-03-05"],
    ["٥ مارس ٢٠٢٦", "ar-EG", "2026-03-05"],
    ["5 มีนาคม 2569", "th", "2026-03-05"],
    ["۱۴۰۴/۱۲/۱۴", "fa", undefined],
    ["31.02.2026", "de", undefined],
    ["2026-02-29", undefined, undefined],
    ["2024-02-29", undefined, "2024-02-29"],
    ["2026-13-01", undefined, undefined],
    ["2026-03-05T25:00", undefined, "2026-03-05"],
    ["no date", undefined, undefined],
    ["", undefined, undefined],
    ["1.2.3", undefined, undefined],
  ];

  for (const [text, locale, value] of table)
    t.equal(parseDate(text, locale), value, `${text} ${locale ?? ""}`);
  t.equal(parseDate("9".repeat(1_000_000)), undefined);
});

test("a text goes through the steps of its transform", async (t) => {
  const table: [steps: TransformStep[], from: string | string[], to: string | string[]][] = [
    [["trim"], "  a  b ", "a  b"],
    [["collapse"], " a \n b ", "a b"],
    [["trim"], [" a", "b "], ["a", "b"]],
    [[{ replace: "a", with: "b" }], "banana", "bbnbnb"],
    [[{ replace: "a" }], "banana", "bnn"],
    [[{ replace: "." }], "1.2.3", "123"],
    [[{ replace: "/\\d+/", with: "#" }], "a1b22", "a#b#"],
    [[{ replace: "/(\\w+) (\\w+)/", with: "$2 $1" }], "one two", "two one"],
    [[{ replace: "/(?P<x>b)/", with: "[$<x>]" }], "abc", "a[b]c"],
    [[{ replace: "/B/i", with: "$$" }], "abc", "a$c"],
    [[{ replace: "/^x/m", with: "y" }], "x\nx", "y\ny"],
    [[{ replace: "/a.b/s", with: "-" }], "a\nb", "-"],
    [[{ replace: "/x*/", with: "-" }], "ab", "-a-b-"],
    [[{ replace: "$", with: "$1" }], "a$", "a$1"],
    [[{ split: "," }], "a,b,,c", ["a", "b", "", "c"]],
    [[{ split: "," }], "abc", ["abc"]],
    [[{ split: ", " }], ["a, b", "c"], ["a", "b", "c"]],
    [[{ split: "/\\s*[,;]\\s*/" }], "a , b;c", ["a", "b", "c"]],
    [[{ split: "," }, "trim"], "a, b ,c", ["a", "b", "c"]],
    [[{ split: "," }, { join: "|" }], "a,b", "a|b"],
    [[{ join: ", " }], ["a", "b"], "a, b"],
    [[{ join: "" }], "abc", "abc"],
    [[{ join: "-" }], [], ""],
    [[{ replace: "/[^0-9]/" }], "+1 (234) 5", "12345"],
    [[{ split: "/" }], "a/b", ["a", "b"]],
    [[], "a", "a"],
    [["collapse", { split: " " }, { join: "_" }], " a  b ", "a_b"],
    [[{ replace: "/\\p{Han}/", with: "x" }], "漢字a", "xxa"],
    [[{ replace: "é", with: "e" }], "café", "cafe"],
    [[{ split: "\n" }, "trim"], "a\n b", ["a", "b"]],
  ];

  for (const [steps, from, to] of table) {
    t.strictSame(compileTransform(steps, new Budget())(from), to, JSON.stringify(steps));
  }
});

test("a step that can't be done is told, and one that gives too much ends", async (t) => {
  const wrong: [steps: TransformStep[], step: number][] = [
    [[{ replace: "" }], 0],
    [["trim", { split: "" }], 1],
    [[{ replace: "/(/" }], 0],
    [[{ replace: "/a(?=b)/" }], 0],
    [[{ replace: "/a/x" }], 0],
    [[{ replace: "/a/ii" }], 0],
    [[{ replace: "/(a)/", with: "$2" }], 0],
    [[{ replace: "/a/", with: "$<n>" }], 0],
    [["trim", "trim", { split: "/[/" }], 2],
    [[{ replace: "/(?:a{1,100}){1,100}/" }], 0],
  ];

  for (const [steps, step] of wrong) {
    const error = thrown(() => compileTransform(steps, new Budget()));
    t.equal(error instanceof StepIssue && error.step, step, JSON.stringify(steps));
  }
  const long = "a".repeat(100_000);
  const endless = compileTransform([{ replace: "a", with: "b".repeat(1_000) }], new Budget());
  t.ok(thrown(() => endless(long)) instanceof TextTooLong);
  t.equal(compileTransform([{ split: "a" }], new Budget())(long).length, 10_000);
});

function thrown(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}
