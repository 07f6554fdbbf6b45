/** Rules beyond CSS: XPath, JSONPath, regular expressions, defaults, transforms, and pages that are not what they say. */
import { test } from "tap";
import { parseDocument } from "../../src/extraction/document.ts";
import { type Extracted, extract } from "../../src/extraction/extract.ts";
import { compileRules, type Rule, type RuleSet, ruleIssues } from "../../src/extraction/rule.ts";
import type { FieldValue } from "../../src/extraction/value.ts";

const PAGE = `<html><head><title>Shop</title><script type="application/ld+json">{"name": "Lamp", "offers": [{"price": "12.50"}, {"price": "13"}], "tags": null}</script>
<script>var state = {"id": 42, "sku": "A-1"};</script></head><body><h1 data-j='{"a": [1, 2]}'>Lamp  <b>No. 7</b></h1>
<p class="price">1.234,50 €</p><p class="date">5. März 2026</p><p class="tags">red, green , blue</p><p class="empty"></p>
<pre>line 1
  line 2</pre><ul><li><a href="/a">A</a> (3)</li><li><a href="/b">B</a> (x)</li></ul><p class="none">-</p></body></html>`;

const JSON_PAGE = JSON.stringify({
  title: "List",
  total: "1 234,5",
  on: true,
  items: [
    { id: 1, name: "one", url: "/1", tags: ["a", "b"], at: "2026-03-05T10:00:00+01:00" },
    { id: 2, name: "two", url: "http://e.example/2", tags: [], at: "05/03/2026" },
    { id: 3, name: null, nested: { deep: [{ x: 1 }, { x: 2 }] } },
  ],
});

function run(rules: RuleSet, text = PAGE, type: "text/html" | "application/json" = "text/html"): Extracted {
  const root = type === "text/html" ? parseDocument(text).root : null;
  return extract({ root, text, type }, compileRules(rules), { baseUrl: "http://shop.example/x/" });
}

test("values of a page of HTML", async (t) => {
  const table: [rule: Rule, value: FieldValue][] = [
    ["//h1", "Lamp No. 7"],
    ["//h1/b", "No. 7"],
    ["//li[2]/a/@href", "/b"],
    ["./html/body/h1", "Lamp No. 7"],
    ["(//li)[1]/a", "A"],
    [{ xpath: "count(//li)" }, "2"],
    [{ xpath: "count(//li)", type: "integer" }, 2],
    [{ xpath: "//li[2]/a", attr: "href", type: "url" }, "http://shop.example/b"],
    [{ xpath: "//li[2]/a/@href", type: "url" }, "http://shop.example/b"],
    [{ xpath: "//li/a", all: true }, ["A", "B"]],
    [{ xpath: "//li/a/text()", all: true }, ["A", "B"]],
    [{ xpath: "//h1/b", type: "html" }, "<b>No. 7</b>"],
    [{ css: ".price", type: "html" }, '<p class="price">1.234,50 €</p>'],
    [{ xpath: "//nothing" }, null],
    [{ xpath: "//nothing", all: true }, []],
    [{ xpath: "boolean(//li)", type: "boolean" }, true],
    [
      { xpath: "//li", all: true, fields: { name: "./a", href: { xpath: "./a/@href" }, css: "a@href" } },
      [
        { name: "A", href: "/a", css: "/a" },
        { name: "B", href: "/b", css: "/b" },
      ],
    ],
    [{ css: "ul", fields: { items: { xpath: "li/a", all: true } } }, { items: ["A", "B"] }],
    [{ css: ".price", type: "number", locale: "de" }, 1234.5],
    [{ css: ".date", type: "date", locale: "de" }, "2026-03-05"],
    [{ css: ".none", type: "number", default: 0 }, 0],
    [{ css: ".empty", type: "number", default: -1 }, -1],
    [{ css: ".missing", default: "n/a" }, "n/a"],
    [{ css: ".missing", all: true, default: ["x"] }, ["x"]],
    [{ css: ".missing", required: true, default: null }, null],
    [{ css: ".tags", transform: [{ split: "," }, "trim"] }, ["red", "green", "blue"]],
    [{ css: ".tags", transform: [{ split: "," }, "trim", { join: "/" }] }, "red/green/blue"],
    [{ css: ".tags", transform: [{ replace: "/\\s*,\\s*/", with: ";" }] }, "red;green;blue"],
    [{ css: "li", all: true, transform: [{ join: " | " }] }, "A (3) | B (x)"],
    [
      { css: "li a", all: true, attr: "href", transform: [{ replace: "/" }] },
      ["/a", "/b"].map((text) => text.slice(1)),
    ],
    [{ css: "li", all: true, type: "integer", transform: [{ replace: "/\\D/" }] }, [3, null]],
    [{ css: "pre", keepSpace: true }, "line 1\n  line 2"],
    [{ css: "pre" }, "line 1 line 2"],
    [{ css: "pre", keepSpace: true, transform: [{ split: "\n" }, "trim"] }, ["line 1", "line 2"]],
    [{ css: "h1", regex: "No\\. (\\d+)" }, "7"],
    [{ css: "h1", regex: "No\\. (\\d+)", type: "integer" }, 7],
    [{ css: "h1", regex: "No\\. (\\d+)", group: 0 }, "No. 7"],
    [{ css: "h1", regex: "(?P<word>\\w+)\\s+No", group: "word" }, "Lamp"],
    [{ css: "h1", regex: "/NO\\. \\d/i" }, "No. 7"],
    [{ css: "h1", regex: "xyz" }, null],
    [{ css: "li", regex: "\\((\\d)\\)", all: true, type: "integer" }, [3]],
    [{ css: "li", regex: "\\((x)\\)" }, "x"],
    [{ regex: '"sku": "([^"]+)"' }, "A-1"],
    [
      { regex: '<a href="([^"]+)"', all: true, type: "url" },
      ["http://shop.example/a", "http://shop.example/b"],
    ],
    [{ css: "script[type='application/ld+json']", jsonPath: "$.name" }, "Lamp"],
    [
      { css: "script[type='application/ld+json']", jsonPath: "$.offers[*].price", all: true, type: "number" },
      [12.5, 13],
    ],
    [{ css: "script[type='application/ld+json']", jsonPath: "$.tags" }, null],
    [
      { css: "script[type='application/ld+json']", jsonPath: "$.offers", type: "json" },
      [{ price: "12.50" }, { price: "13" }],
    ],
    [{ css: "h1", attr: "data-j", jsonPath: "$.a[1]" }, 2],
    [{ css: "h1", attr: "constructor" }, null],
    [{ css: "h1", attr: "__proto__" }, null],
    ["h1@tostring", null],
  ];

  for (const [rule, value] of table) {
    const { data, errors } = run({ field: rule });
    t.strictSame(data.field, value, JSON.stringify(rule));
    if (!JSON.stringify(rule).match(/none|\\\\D/)) t.strictSame(errors, [], JSON.stringify(rule));
  }
});

test("values of a page of JSON", async (t) => {
  const table: [rule: Rule, value: FieldValue][] = [
    ["$.title", "List"],
    ["$.on", true],
    ["$.items[0].id", 1],
    ["$.items[-1].name", null],
    ["$['items'][1]['name']", "two"],
    ["$..x", 1],
    ["$.nothing", null],
    ["$.__proto__", null],
    ["$.constructor", null],
    [{ jsonPath: "$..x", all: true }, [1, 2]],
    [{ jsonPath: "$.items[*].id", all: true }, [1, 2, 3]],
    [{ jsonPath: "$.items[?@.id > 1].name", all: true }, ["two", null]],
    [{ jsonPath: "$.items[?match(@.name, 't.o')].id" }, 2],
    [{ jsonPath: "$.items[?search(@.name, 'n')].id", all: true }, [1]],
    [{ jsonPath: "$.items[?length(@.tags) == 2].id" }, 1],
    [{ jsonPath: "$.items[0:2].id", all: true }, [1, 2]],
    [{ jsonPath: "$.items[0].id", type: "text" }, "1"],
    [{ jsonPath: "$.total", type: "number", locale: "fr" }, 1234.5],
    [{ jsonPath: "$.items[0].url", type: "url" }, "http://shop.example/1"],
    [{ jsonPath: "$.items[0].at", type: "date" }, "2026-03-05T09:00:00Z"],
    [{ jsonPath: "$.items[1].at", type: "date", locale: "en-GB" }, "2026-03-05"],
    [{ jsonPath: "$.on", type: "boolean" }, true],
    [{ jsonPath: "$.items[0].tags" }, ["a", "b"]],
    [{ jsonPath: "$.items[0].tags[*]", all: true, transform: [{ join: "+" }] }, "a+b"],
    [{ jsonPath: "$.items[2].nested" }, { deep: [{ x: 1 }, { x: 2 }] }],
    [{ jsonPath: "$.missing", default: 5 }, 5],
    [
      {
        jsonPath: "$.items[:2]",
        all: true,
        fields: { n: "$.name", first: "$.tags[0]", link: { jsonPath: "$.url", type: "url" } },
      },
      [
        { n: "one", first: "a", link: "http://shop.example/1" },
        { n: "two", first: null, link: "http://e.example/2" },
      ],
    ],
    [
      { jsonPath: "$", fields: { inner: { jsonPath: "$.items[2]", fields: { x: "$.nested.deep[1].x" } } } },
      { inner: { x: 2 } },
    ],
    [{ regex: '"id":(\\d)', all: true, type: "integer" }, [1, 2, 3]],
  ];

  for (const [rule, value] of table) {
    const { data, errors } = run({ field: rule }, JSON_PAGE, "application/json");
    t.strictSame(data.field, value, JSON.stringify(rule));
    t.strictSame(errors, [], JSON.stringify(rule));
  }
  const hostile = run(
    { all: "$" },
    '{"__proto__":{"polluted":1},"constructor":2,"a":[{"__proto__":3}]}',
    "application/json",
  );
  t.strictSame(JSON.stringify(hostile.data), '{"all":{"constructor":2,"a":[{}]}}');
  t.equal(Object.getPrototypeOf(hostile.data.all), Object.prototype, "nobody's prototype is changed");
});

test("a rule that can't be applied is told, and costs its own field only", async (t) => {
  const table: [rule: Rule, message: RegExp, text?: string, type?: "application/json"][] = [
    [{ xpath: "//nothing", required: true }, /^is required, but nothing matches "\/\/nothing"$/],
    [{ css: ".price", type: "number", locale: "en" }, /^"1\.234,50 €" has no number of the locale en$/],
    [{ css: ".date", type: "date" }, /has no date/],
    [{ css: "h1", type: "date", locale: "de" }, /has no date of the locale de$/],
    [{ css: ".empty", type: "date", required: true }, /^is required, but empty$/],
    [{ css: "h1", jsonPath: "$.a" }, /is no JSON/],
    ["$.a", /^the page is no JSON/],
    ["h1", /^looks for elements, and the page is application\/json$/, "{}", "application/json"],
    ["$.a", /^the page is no JSON/, "", "application/json"],
    ["$.a", /^the page is no JSON/, "<h1>x</h1>", "application/json"],
    [{ jsonPath: "$.a", type: "text" }, /^an object is no text$/, '{"a":{}}', "application/json"],
    [{ jsonPath: "$.a", type: "number" }, /^an array is no number$/, '{"a":[1]}', "application/json"],
    [{ jsonPath: "$.a", required: true }, /nothing matches "\$\.a"/, "{}", "application/json"],
    ["$.a", /nested more than 256/, `${"[".repeat(100_000)}${"]".repeat(100_000)}`, "application/json"],
    [
      { css: "p", xpath: undefined, transform: [{ replace: "e", with: "x".repeat(1_000) }], all: true },
      /too much data/,
      "<p>eeeeeeeeee</p>".repeat(1_000),
    ],
  ];

  for (const [rule, message, text, type] of table) {
    const { data, errors } = run({ bad: rule, good: { regex: "^" } }, text, type ?? "text/html");
    t.match(errors[0]?.message ?? "", message, JSON.stringify(rule).slice(0, 80));
    t.equal(errors[0]?.field.split("[")[0], "bad");
    t.equal(data.good, "");
  }
});

test("each wrong part of a rule is told at submission by its path", async (t) => {
  const table: [rule: Rule, path: string | undefined][] = [
    ["//h1[", "extract.a"],
    ["$.a[", "extract.a"],
    ["$x", "extract.a"],
    [{}, "extract.a"],
    [{ xpath: "//h1[" }, "extract.a.xpath"],
    [{ jsonPath: "a" }, "extract.a.jsonPath"],
    [{ regex: "(" }, "extract.a.regex"],
    [{ regex: "a(?!b)" }, "extract.a.regex"],
    [{ regex: "(?:a{500}){9}" }, "extract.a.regex"],
    [{ regex: "(a)", group: 2 }, "extract.a.group"],
    [{ regex: "(?P<n>a)", group: "m" }, "extract.a.group"],
    [{ css: "a", group: 1 }, "extract.a.group"],
    [{ css: "a", xpath: "//a" }, "extract.a.xpath"],
    [{ jsonPath: "$", regex: "a" }, "extract.a.regex"],
    [{ jsonPath: "$", attr: "a" }, "extract.a.attr"],
    [{ css: "a", type: "json" }, "extract.a.type"],
    [{ regex: "a", type: "html" }, "extract.a.type"],
    [{ css: "a", locale: "de" }, "extract.a.locale"],
    [{ css: "a", type: "number", locale: "xx" }, "extract.a.locale"],
    [{ css: "a", type: "number", keepSpace: true }, "extract.a.keepSpace"],
    [{ css: "a", transform: ["trim", { replace: "/(/" }] }, "extract.a.transform.1"],
    [{ css: "a", transform: ["trim"], fields: { b: "b" } }, "extract.a"],
    [{ jsonPath: "$", fields: { b: "h1" } }, "extract.a.fields.b"],
    [{ jsonPath: "$", fields: { b: { xpath: "//a" } } }, "extract.a.fields.b.xpath"],
    [{ css: "a", fields: { b: { css: "b", fields: { c: "//[" } } } }, "extract.a.fields.b.fields.c"],
    [{ css: "a", jsonPath: "$.x", fields: { b: "$.y" } }, undefined],
    [{ css: "a", fields: { b: "$.y" } }, undefined],
    [{ xpath: "//a", fields: { b: "@href", c: "./b" } }, undefined],
  ];

  for (const [rule, path] of table) t.equal(ruleIssues({ a: rule })[0]?.path, path, JSON.stringify(rule));
});

test("dear rules end, each at the cost of its own field", async (t) => {
  const page = `<h1>t</h1><p>${"a".repeat(200_000)}</p>${"<i>x</i>".repeat(20_000)}`;
  const wide = JSON.stringify({
    t: "t",
    a: Array.from({ length: 50_000 }, (_, n) => ({ n, s: "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!" })),
  });
  const startedMs = performance.now();
  const dear: [rule: Rule, text: string, type: "text/html" | "application/json"][] = [
    [{ css: "p", regex: "(a+)+$", all: true }, page, "text/html"],
    [{ css: "p", regex: "a[^b]*b|a", all: true }, page, "text/html"],
    ["//i[count(//i) = count(//i[. = //i])]", page, "text/html"],
    ["$..*..*..*", wide, "application/json"],
    ["$.a[?count($..*) > 1000000]", wide, "application/json"],
    ["$.a[?search(@.s, '(a+)+$')]", wide, "application/json"],
    ["$.a[?@.n == $.a[?@.n > 5].n]", wide, "application/json"],
  ];

  for (const [rule, text, type] of dear) {
    if (ruleIssues({ rule }).length > 0) continue;
    const isLate = (untilMs: number) => () => performance.now() > untilMs;
    const root = type === "text/html" ? parseDocument(text).root : null;
    const good: Rule = type === "text/html" ? "h1" : "$.t";
    const { data, errors } = extract({ root, text, type }, compileRules({ good, rule }), {
      baseUrl: "http://e.example/",
      isLate: isLate(performance.now() + 500),
    });
    t.equal(data.good, "t", JSON.stringify(rule));
    t.ok(
      errors.every(({ field }) => field === "rule"),
      JSON.stringify(rule),
    );
  }

  t.ok(performance.now() - startedMs < 30_000, `${performance.now() - startedMs} ms`);
});
