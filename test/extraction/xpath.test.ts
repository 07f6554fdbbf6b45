/** XPath 1.0 by its sections, on a page; expected values are literal. */
import { test } from "tap";
import { Budget, StepsExceeded } from "../../src/extraction/budget.ts";
import { parseDocument } from "../../src/extraction/document.ts";
import { inlineText } from "../../src/extraction/text.ts";
import { TooManyNodes, XPath } from "../../src/extraction/xpath.ts";
import { AttributeNode } from "../../src/extraction/xpath-node.ts";

const PAGE = `<html lang="en-GB"><body><h1 id="a" class="x y">T <b>u</b></h1><!--note-->
<ul id="l"><li>1</li><li class="s">2</li><li>3</li></ul><p>a</p><p><a href="/q">q</a><a href="/r" rel="next">r</a></p>
<dl><dt>k</dt><dd>v</dd><dt>m</dt><dd>w</dd></dl><svg:g xlink:href="z"></svg:g><p lang="de">drei</p></body></html>`;

function evaluate(expression: string, html = PAGE): unknown {
  const value = new XPath(expression, new Budget()).evaluate(parseDocument(html).root);
  if (!Array.isArray(value)) return value;
  return value.map((node) => {
    if (node instanceof AttributeNode) return `@${node.value}`;
    return "data" in node
      ? node.data
      : `${"name" in node ? node.name : "/"}:${inlineText(node).slice(0, 12)}`;
  });
}

test("expressions have the value that the recommendation gives them", async (t) => {
  const table: [expression: string, value: unknown][] = [
    ["//h1", ["h1:T u"]],
    ["//H1", ["h1:T u"]],
    ["/html/body/ul/li[3]", ["li:3"]],
    ["//li[2]", ["li:2"]],
    ["//li[last()]", ["li:3"]],
    ["//li[last()-1]", ["li:2"]],
    ["//li[position()>1]", ["li:2", "li:3"]],
    ["//li[position() mod 2 = 1]", ["li:1", "li:3"]],
    ["(//li)[2]", ["li:2"]],
    ["//p[a]/a[1]", ["a:q"]],
    ["//a/@href", ["@/q", "@/r"]],
    ["//@href", ["@/q", "@/r"]],
    ["//a[@rel]/@*", ["@/r", "@next"]],
    ["//a[not(@rel)]", ["a:q"]],
    ["//a[@href and not(@x)]", ["a:q", "a:r"]],
    ["//a[@href='/q' or @href='/r']", ["a:q", "a:r"]],
    ["//li[.='2']", ["li:2"]],
    ["//li[.=2]", ["li:2"]],
    ["//li[.>1]", ["li:2", "li:3"]],
    ["//li[.!='2']", ["li:1", "li:3"]],
    ["//li[.>=2 and .<=2]", ["li:2"]],
    ["//li[@class='s']/following-sibling::li", ["li:3"]],
    ["//li[@class='s']/preceding-sibling::li/text()", ["1"]],
    ["//li[3]/preceding-sibling::li[1]", ["li:2"]],
    ["//dt[.='m']/following-sibling::dd[1]", ["dd:w"]],
    ["//b/ancestor::h1", ["h1:T u"]],
    ["//b/ancestor::*[1]", ["h1:T u"]],
    ["//b/ancestor-or-self::*[1]", ["b:u"]],
    ["//b/parent::h1", ["h1:T u"]],
    ["//b/..", ["h1:T u"]],
    ["//li/..", ["ul:1 2 3"]],
    ["//b/following::a", ["a:q", "a:r"]],
    ["//a[1]/preceding::li[1]", ["li:3"]],
    ["//ul/descendant::li[2]", ["li:2"]],
    ["//ul/child::*", ["li:1", "li:2", "li:3"]],
    ["//ul/descendant-or-self::ul", ["ul:1 2 3"]],
    ["//h1/self::h1", ["h1:T u"]],
    ["//h1/self::p", []],
    ["//h1/attribute::id", ["@a"]],
    ["//comment()", ["note"]],
    ["//h1/text()", ["T "]],
    ["//h1/node()", ["T ", "b:u"]],
    ["//h1//text()", ["T ", "u"]],
    ["//dd | //dt", ["dt:k", "dd:v", "dt:m", "dd:w"]],
    ["//b | //b | //h1", ["h1:T u", "b:u"]],
    ["id('a')", ["h1:T u"]],
    ["id('l a')", ["h1:T u", "ul:1 2 3"]],
    ["//svg:g", ["svg:g:"]],
    ["//svg:*", ["svg:g:"]],
    ["//*[local-name()='g']", ["svg:g:"]],
    ["//*[name()='svg:g']", ["svg:g:"]],
    ["//@xlink:href", ["@z"]],
    ["//*[@id='a']/b", ["b:u"]],
    ["//*[contains(concat(' ', @class, ' '), ' y ')]", ["h1:T u"]],
    ["//p[lang('de')]", ["p:drei"]],
    ["//h1[lang('en')]", ["h1:T u"]],
    ["//p[count(a)=2]/a[2]", ["a:r"]],
    ["//p[a[@rel='next']]/a", ["a:q", "a:r"]],
    ["//nothing", []],
    ["count(//li)", 3],
    ["count(//li[position()<3])", 2],
    ["sum(//li)", 6],
    ["sum(//h1)", Number.NaN],
    ["string(//h1)", "T u"],
    ["string(//nothing)", ""],
    ["string(1)", "1"],
    ["string(1.50)", "1.5"],
    ["string(-0)", "0"],
    ["string(1 div 0)", "Infinity"],
    ["string(true())", "true"],
    ["concat('a', //b, 1)", "au1"],
    ["starts-with('abc', 'ab')", true],
    ["contains('abc', 'd')", false],
    ["substring-before('1999/04', '/')", "1999"],
    ["substring-after('1999/04', '/')", "04"],
    ["substring-after('a', 'x')", ""],
    ["substring('12345', 2, 3)", "234"],
    ["substring('12345', 2)", "2345"],
    ["substring('12345', 1.5, 2.6)", "234"],
    ["substring('12345', 0, 3)", "12"],
    ["substring('12345', 0 div 0, 3)", ""],
    ["string-length('ab😀')", 3],
    ["normalize-space('  a   b ')", "a b"],
    ["normalize-space(//h1)", "T u"],
    ["translate('bar', 'abc', 'AB')", "BAr"],
    ["boolean(//li)", true],
    ["boolean(0)", false],
    ["boolean('')", false],
    ["not(//nothing)", true],
    ["true() and false()", false],
    ["number(' -1.5 ')", -1.5],
    ["number('1e3')", Number.NaN],
    ["number(true())", 1],
    ["floor(-1.5)", -2],
    ["ceiling(1.2)", 2],
    ["round(2.5)", 3],
    ["round(-2.5)", -2],
    ["1 + 2 * 3", 7],
    ["(1 + 2) * 3", 9],
    ["7 mod 3", 1],
    ["-7 mod 3", -1],
    ["6 div 4", 1.5],
    ["--1", 1],
    ["-(1)", -1],
    ["5 - 3", 2],
    ["//li = 2", true],
    ["//li = //dd", false],
    ["//li != //li", true],
    ["1 < 2 and 2 < 3", true],
    ["'a' = 'a'", true],
    ["//li > 2", true],
    ["name(//h1)", "h1"],
    ["name(//h1/@id)", "id"],
    ["namespace-uri(//h1)", ""],
    ["//h1/@id = 'a'", true],
    ["'it''s'", undefined],
  ];

  for (const [expression, value] of table) {
    if (value === undefined) t.throws(() => evaluate(expression), expression);
    else t.strictSame(evaluate(expression), value, expression);
  }
});

test("what is no XPath 1.0 is refused with a reason", async (t) => {
  const table: [expression: string, message: RegExp][] = [
    ["", /empty/],
    ["//", /ends too early/],
    ["//h1[", /ends too early/],
    ["//h1]", /wrong place/],
    ["//h1[1", /"\]"/],
    ["h1 h2", /wrong place/],
    ["nope()", /no function "nope"/],
    ["contains('a')", /2 arguments, not 1/],
    ["$x", /no variables/],
    ["namespace::*", /no axis/],
    ["sideways::a", /no axis "sideways"/],
    ["'a", /not closed/],
    ["//a | 1", /joins nodes/],
    ["count(1)", /takes nodes/],
    ["'a'/b", /only nodes/],
    ["//a[#]", /can't be read/],
    ["(".repeat(100), /nested/],
    [`${"-".repeat(100)}1`, /nested/],
  ];

  for (const [expression, message] of table)
    t.throws(() => new XPath(expression, new Budget()), message, expression.slice(0, 20));
});

test("paths that would take for ever end", async (t) => {
  const page = `${"<div>".repeat(300)}${"<p>x</p>".repeat(5_000)}`;
  for (const expression of [
    "//*[count(//*) > count(//*//*)]",
    "//p[preceding::p[preceding::p]]/following::p/preceding::p",
    "//*[count(//*//*) = 1]",
    "//p[. = //p[. = //p]]/following::p/preceding::p",
  ]) {
    t.ok(isStopped(expression, page), expression);
  }
  t.equal(evaluate("count(//div//p)", page), 5_000);
});

function isStopped(expression: string, page: string): boolean {
  try {
    evaluate(expression, page);
  } catch (error) {
    return error instanceof StepsExceeded || error instanceof TooManyNodes;
  }
  return false;
}
