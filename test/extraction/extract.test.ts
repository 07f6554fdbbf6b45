import { test } from "tap";
import { NODES_MAX, parseDocument } from "../../src/extraction/document.ts";
import { extract, type FieldError } from "../../src/extraction/extract.ts";
import {
  allElements,
  documentBase,
  findLinks,
  isPageNofollow,
  resolveLink,
} from "../../src/extraction/links.ts";
import { findMetadata } from "../../src/extraction/metadata.ts";
import { parseNumber } from "../../src/extraction/number.ts";
import { compileRules, type Rule, type RuleSet, ruleIssues } from "../../src/extraction/rule.ts";
import { inlineText, pageText } from "../../src/extraction/text.ts";
import type { FieldValue } from "../../src/extraction/value.ts";

const SHOP = `<!DOCTYPE html><html lang="en"><head><title>Shop</title></head><body>
<h1 id=top> A  <b>Light</b>
 in the Attic </h1>
<p class="price_color">£51.77</p><p class=stock>In stock (22 available)</p>
<p class=empty> </p><p class=yes>Yes</p><p class=no>0</p><p class=maybe>perhaps</p>
<input type=checkbox checked name=a><input type=checkbox name=b data-on="false">
<img src="../cover.jpg" alt=cover><a class=bad href="http://[">bad</a>
<ul><li class=item data-id=" 7 "><a href="/one">One</a><span class=p>1,234.50 €</span></li>
<li class=item><a href="two#x">Two</a><ul><li>inner</li></ul></li></ul>
<script>var a = "<h1>no</h1>";</script><table><tr><td>1</td><td>2</td></tr></table>
<div>one<br>two</div><p>x &amp; y &lt;z&gt; &nbsp;ü</p></body></html>`;

function run(html: string, rules: RuleSet): { data: Record<string, FieldValue>; errors: FieldError[] } {
  const page = { root: parseDocument(html).root, text: html, type: "text/html" };
  return extract(page, compileRules(rules), { baseUrl: "http://shop.example/catalogue/page.html" });
}

test("a rule gives the value of its first match, of the type it names", async (t) => {
  const table: [rule: Rule, value: FieldValue][] = [
    ["h1", "A Light in the Attic"],
    ["h1::text", "A Light in the Attic"],
    ["h1 b", "Light"],
    ["h1@id", "top"],
    ["h1::attr(id)", "top"],
    ["h1 @id", "top"],
    [{ css: "h1", attr: "ID" }, "top"],
    [{ css: "h1", attr: "class" }, null],
    ["h2", null],
    ["h2@id", null],
    [".item@data-id", "7"],
    [".empty", ""],
    ["p:last-of-type", "x & y <z> ü"],
    ["script", 'var a = "<h1>no</h1>";'],
    ["tr", "1 2"],
    ["body > div", "one two"],
    ['a[href="/one"]', "One"],
    ['a[href*="@"], h1', "A Light in the Attic"],
    ["li:nth-child(2) > a", "Two"],
    ["li:has(ul) > a", "Two"],
    ["h1 + p", "£51.77"],
    [":scope > body > h1", "A Light in the Attic"],
    [{ css: ".price_color", type: "number" }, 51.77],
    [{ css: ".stock", type: "integer" }, 22],
    [{ css: ".stock", type: "number" }, 22],
    [{ css: ".item", attr: "data-id", type: "integer" }, 7],
    [{ css: ".empty", type: "number" }, null],
    [{ css: ".yes", type: "boolean" }, true],
    [{ css: ".no", type: "boolean" }, false],
    [{ css: ".empty", type: "boolean" }, null],
    [{ css: "[name=a]", attr: "checked", type: "boolean" }, true],
    [{ css: "[name=b]", attr: "checked", type: "boolean" }, false],
    [{ css: "[name=b]", attr: "data-on", type: "boolean" }, false],
    [{ css: "img", type: "url" }, "http://shop.example/cover.jpg"],
    [{ css: "img", attr: "src", type: "url" }, "http://shop.example/cover.jpg"],
    [{ css: "img@src", type: "url" }, "http://shop.example/cover.jpg"],
    ["img@src", "../cover.jpg"],
    [{ css: ".item:nth-child(2) a", type: "url" }, "http://shop.example/catalogue/two#x"],
    [
      { css: "h1", type: "url" },
      "http://shop.example/catalogue/A%20%20Light%20in%20the%20Attic".replace("%20%20", "%20"),
    ],
    [{ css: "h1 b", type: "html" }, "<b>Light</b>"],
    [{ css: "li", all: true }, ["One1,234.50 €", "Two inner", "inner"]],
    [{ css: "li a@href", all: true }, ["/one", "two#x"]],
    [
      { css: "li a", all: true, type: "url" },
      ["http://shop.example/one", "http://shop.example/catalogue/two#x"],
    ],
    [{ css: "h2", all: true }, []],
    [
      { css: "h1", fields: { id: "@id", bold: "b", self: "::text", none: "i" } },
      { id: "top", bold: "Light", self: "A Light in the Attic", none: null },
    ],
    [
      {
        css: ".item",
        all: true,
        fields: { name: "> a", url: { css: "> a", type: "url" }, price: { css: ".p", type: "number" } },
      },
      [
        { name: "One", url: "http://shop.example/one", price: 1234.5 },
        { name: "Two", url: "http://shop.example/catalogue/two#x", price: null },
      ],
    ],
    [
      { css: "ul", fields: { items: { css: ":scope > li", all: true, fields: { a: "a" } } } },
      { items: [{ a: "One" }, { a: "Two" }] },
    ],
    [{ css: "h2", fields: { a: "b" } }, null],
  ];

  for (const [rule, value] of table) {
    const { data, errors } = run(SHOP, { field: rule });
    t.strictSame(data.field, value, JSON.stringify(rule));
    t.strictSame(errors, [], JSON.stringify(rule));
  }
});

test("a rule that can't be applied costs its own field only", async (t) => {
  const table: [rule: Rule, error: string][] = [
    [{ css: "h2", required: true }, 'is required, but nothing matches "h2"'],
    [{ css: "h2", required: true, all: true }, 'is required, but nothing matches "h2"'],
    [{ css: "h1@class", required: true }, 'is required, but has no "class"'],
    [{ css: ".empty", required: true, type: "number" }, "is required, but empty"],
    [{ css: "h1", type: "number" }, '"A Light in the Attic" has no number'],
    [{ css: ".price_color", type: "integer" }, '"£51.77" is no whole number'],
    [{ css: ".maybe", type: "boolean" }, '"perhaps" is neither true nor false'],
    [{ css: ".bad", type: "url" }, '"http://[" is no URL'],
  ];

  for (const [rule, message] of table) {
    const { data, errors } = run(SHOP, { bad: rule, good: "h1" });
    t.strictSame(errors, [{ field: "bad", message }]);
    t.strictSame(data, {
      bad: typeof rule !== "string" && rule.all ? [] : null,
      good: "A Light in the Attic",
    });
  }
  t.strictSame(
    run(SHOP, {
      items: { css: ".item", all: true, fields: { price: { css: ".p", type: "number", required: true } } },
    }).errors,
    [{ field: "items[1].price", message: 'is required, but nothing matches ".p"' }],
  );
});

test("a wrong rule is told at submission, with its path", async (t) => {
  const nested = (depth: number): Rule =>
    depth === 0 ? "a" : { css: "a", fields: { f: nested(depth - 1) } };
  const table: [rules: RuleSet, path: string | undefined][] = [
    [{ a: "h1", b: { css: "p", fields: { c: "@id" } } }, undefined],
    [{ a: "h1[" }, "extract.a"],
    [{ a: { css: "h1[" } }, "extract.a.css"],
    [{ a: "" }, "extract.a"],
    [{ a: "@href" }, "extract.a"],
    [{ a: "::text" }, "extract.a"],
    [{ a: "p:unknown" }, "extract.a"],
    [{ a: "p::before" }, "extract.a"],
    [{ a: "p > > b" }, "extract.a"],
    [{ a: { css: "p@id", attr: "class" } }, "extract.a.css"],
    [{ a: { css: "p", type: "number", fields: { b: "i" } } }, "extract.a"],
    [{ a: { css: "p@id", fields: { b: "i" } } }, "extract.a"],
    [{ a: { css: "p", fields: { b: { css: "p", fields: { c: "((" } } } } }, "extract.a.fields.b.fields.c"],
    [{ a: nested(8) }, undefined],
    [{ a: nested(9) }, `extract.a${".fields.f".repeat(8)}.fields`],
    [
      { a: { css: "p", fields: Object.fromEntries(Array.from({ length: 600 }, (_, n) => [`f${n}`, "b"])) } },
      "extract.a.fields",
    ],
  ];

  for (const [rules, path] of table)
    t.equal(ruleIssues(rules)[0]?.path, path, JSON.stringify(rules).slice(0, 60));
  t.throws(() => compileRules({ a: "h1[" }), /extract\.a/);
});

test("dear selectors end on their own, cheap ones go on", async (t) => {
  const page = `<h1>t</h1>${"<div>".repeat(400)}${"<p></p>".repeat(20_000)}`;
  const startedMs = performance.now();

  for (const css of [
    "div div div div p:nth-child(odd)",
    "div *:not(:has(~ p))",
    "p ~ p ~ p ~ p",
    "div:has(div div div i)",
    ":contains(foo)",
  ]) {
    const { data, errors } = run(page, { title: "h1", dear: { css, all: true } });
    t.equal(data.title, "t");
    t.ok(
      errors.every(({ field }) => field === "dear"),
      css,
    );
  }
  t.strictSame(run(page, { dear: { css: "div *:not(:has(~ p))", all: true } }), {
    data: { dear: [] },
    errors: [{ field: "dear", message: '"div *:not(:has(~ p))" takes too long on this page' }],
  });

  t.ok(performance.now() - startedMs < 10_000);
});

test("what a page gives is bounded", async (t) => {
  const many = run("<i>x</i>".repeat(20_000), { i: { css: "i", all: true } });
  t.equal((many.data.i as string[]).length, 10_000);
  t.match(many.errors, [{ field: "i", message: /20000 elements/ }]);

  const long = run(`<p>${"x".repeat(700_000)}</p><b>y</b>`, { a: "p", b: "p", c: "b" });
  t.equal((long.data.a as string).length, 700_000);
  t.strictSame([long.data.b, long.data.c], [null, "y"]);
  t.strictSame(long.errors, [{ field: "b", message: "gives too much data on this page" }]);

  t.equal(run("<i>x</i>".repeat(500), { i: { css: "i", all: true, type: "number" } }).errors.length, 100);
});

test("a page of any shape becomes a tree", async (t) => {
  const deep = parseDocument(`${"<div>".repeat(1_000)}<h1>deep</h1>`);
  t.equal(deep.isCut, false);
  t.equal(inlineText(deep.root), "deep");
  t.equal(
    extract({ root: deep.root, text: "", type: undefined }, compileRules({ h: "div div h1" }), {
      baseUrl: "http://e/",
    }).data.h,
    "deep",
  );

  const closed = parseDocument(`${"<div>".repeat(1_000)}x${"</div>".repeat(1_000)}<h1>after</h1>`);
  t.equal(
    extract({ root: closed.root, text: "", type: undefined }, compileRules({ h: ":scope > h1, h1" }), {
      baseUrl: "http://e/",
    }).data.h,
    "after",
  );
  t.equal((closed.root.children.at(-1) as { name?: string }).name, "h1", "depth is kept account of");

  const bottomless = parseDocument(`<h1>x</h1>${"<div>".repeat(1_000_000)}`);
  t.equal(bottomless.isCut, true);
  t.equal(pageText(bottomless.root, 100), "x");

  const endless = parseDocument("<p>x".repeat(300_000));
  t.equal(endless.isCut, true);
  t.equal(allElements(endless.root).length, NODES_MAX / 2);

  for (const html of [
    "",
    "<",
    "<!",
    "</",
    "<a",
    "<a href",
    "text",
    "<!--",
    "<![CDATA[x",
    "</b></p>",
    "<p></b>",
    "\0",
    "&#x110000;",
    "<svg><title>",
  ]) {
    t.doesNotThrow(() => run(html, { a: "p" }), JSON.stringify(html));
  }
});

test("numbers as people write them", async (t) => {
  const table: [text: string, value: number | undefined][] = [
    ["£51.77", 51.77],
    ["1.234,56 €", 1234.56],
    ["1 234,56", 1234.56],
    ["1\u00a0234,56 kr", 1234.56],
    ["CHF 1'234.50", 1234.5],
    ["1,23,456.7", 123456.7],
    ["1,234", 1234],
    ["1.234", 1.234],
    ["0,500", 0.5],
    ["1,2", 1.2],
    ["12,50 zł", 12.5],
    ["1.000.000", 1_000_000],
    ["1,000,000", 1_000_000],
    ["-5", -5],
    ["−5 °C", -5],
    ["-$3", -3],
    ["$-3.5", -3.5],
    ["12.5%", 12.5],
    ["1e5", 100_000],
    ["1E-3 m", 0.001],
    [".5", 0.5],
    ["v1.2.3", 1.2],
    ["5 10", 5],
    ["10-20", 10],
    ["page 3 of 7", 3],
    ["3.", 3],
    ["1,5,", 1.5],
    ["abc", undefined],
    ["", undefined],
    ["-", undefined],
    ["٣", undefined],
  ];

  for (const [text, value] of table) t.equal(parseNumber(text), value, text);
});

test("the text of a page has a line per block, and none of its scripts", async (t) => {
  const { root } = parseDocument(
    "<head><title>T</title><style>a{}</style></head><h1>A <i>b</i>\n c</h1>x<p>one<p>two<br>three<script>no</script><ul><li>1<li>2</ul><table><tr><td>a<td>b<tr><td>c</table><noscript>js</noscript>",
  );

  t.equal(pageText(root, 1_000), "A b c\nx\none\ntwo\nthree\n1\n2\na b\nc");
  t.equal(pageText(root, 7), "A b c\nx");
});

test("links are absolute, in order, with what their page says of them", async (t) => {
  const links = (html: string) => {
    const elements = allElements(parseDocument(html).root);
    const base = documentBase(elements, "http://e.example/a/b");
    return findLinks(
      elements,
      (href) => resolveLink(href, base),
      isPageNofollow(elements, "orbweaver", undefined),
    );
  };

  t.strictSame(
    links(
      `<a href="c">C <b>c</b></a><map><area href="/d" alt="D d"></map><a>none</a><a name=x>n</a><a href="mailto:a@b">m</a><a href="javascript:x">j</a><link rel=stylesheet href=s.css><a href="http://[">bad</a><a rel="Nofollow  ugc" href="//f.example/#x">F</a>`,
    ),
    [
      { url: "http://e.example/a/c", text: "C c", rel: "", isNofollow: false },
      { url: "http://e.example/d", text: "D d", rel: "", isNofollow: false },
      { url: "http://f.example/#x", text: "F", rel: "nofollow ugc", isNofollow: true },
    ],
  );
  const urls = (html: string) => links(html).map(({ url }) => url);
  t.strictSame(urls("<base href=/z/><base href=/y/><a href=c>c</a>"), ["http://e.example/z/c"]);
  t.strictSame(urls("<base href='http://['><a href=c>c</a>"), ["http://e.example/a/c"]);
  t.strictSame(urls("<base href='data:,'><a href=c>c</a>"), ["http://e.example/a/c"]);
  t.strictSame(urls("<base target=_top><a href=' \n c '>c</a>"), ["http://e.example/a/c"]);
  t.match(links("<meta name=robots content=nofollow><a href=x>x</a>"), [{ isNofollow: true }]);
  t.equal(links("<a href=x>x</a>".repeat(20_000)).length, 10_000);
});

test("a page may ask that its links not be followed", async (t) => {
  const table: [html: string, header: string | undefined, isNofollow: boolean][] = [
    ["", undefined, false],
    ["<meta name=robots content='index,follow'>", undefined, false],
    ["<meta name=robots content=noindex>", undefined, false],
    ["<meta name=Robots content='NoIndex, NoFollow'>", undefined, true],
    ["<meta name=robots content=none>", undefined, true],
    ["<meta name=orbweaver content=nofollow>", undefined, true],
    ["<meta name=otherbot content=nofollow>", undefined, false],
    ["", "noindex, nofollow", true],
    ["", "orbweaver: nofollow", true],
    ["", "otherbot: nofollow", false],
    ["", "unavailable_after: 25 Jun 2030 15:00:00 PST", false],
  ];

  for (const [html, header, isNofollow] of table) {
    t.equal(
      isPageNofollow(allElements(parseDocument(html).root), "orbweaver", header),
      isNofollow,
      html + header,
    );
  }
});

test("metadata comes from the head, and falls back on Open Graph", async (t) => {
  const metadata = (html: string) =>
    findMetadata(allElements(parseDocument(html).root), "http://e.example/a/");
  const more = { author: null, publishedAt: null, modifiedAt: null, siteName: null, image: null };
  const none = { title: null, description: null, language: null, canonical: null, ...more };

  t.strictSame(metadata(""), none);
  t.strictSame(
    metadata(
      "<html lang=en-GB><title> A\n &amp; b </title><meta name=Description content=' d '><link rel='x Canonical' href='../c#f'><svg><title>s</title></svg>",
    ),
    { title: "A & b", description: "d", language: "en-GB", canonical: "http://e.example/c#f", ...more },
  );
  t.strictSame(
    metadata(
      "<svg><title>shape</title></svg><meta property=og:title content=og><meta property=og:description content=ogd><meta http-equiv=content-language content=de>",
    ),
    {
      title: "og",
      description: "ogd",
      language: "de",
      canonical: null,
      ...more,
    },
  );
  t.strictSame(
    metadata(
      "<title></title><meta name=description content=''><link rel=canonical><link rel=canonical href='ftp://x/'>",
    ),
    none,
  );
});
