/** What pages say for machines: JSON-LD, microdata, RDFa, Open Graph, and the metadata made of them. */
import { test } from "tap";
import { parseDocument } from "../../src/extraction/document.ts";
import { allElements } from "../../src/extraction/links.ts";
import { findMetadata } from "../../src/extraction/metadata.ts";
import { findStructuredData } from "../../src/extraction/structured-data.ts";

const elementsOf = (html: string) => allElements(parseDocument(html).root);
const structured = (html: string) => findStructuredData(elementsOf(html), "http://e.example/d/");
const metadata = (html: string) => findMetadata(elementsOf(html), "http://e.example/d/");
const script = (json: string) => `<script type="application/ld+json">${json}</script>`;

test("JSON-LD is read as browsers' helpers read it, and what is broken is passed over", async (t) => {
  const table: [html: string, items: unknown[]][] = [
    [script('{"@type":"A"}'), [{ "@type": "A" }]],
    [script('[{"a":1},{"b":2}]') + script('{"c":3}'), [{ a: 1 }, { b: 2 }, { c: 3 }]],
    [script('<!-- {"a":1} -->'), [{ a: 1 }]],
    [script('//<![CDATA[\n{"a":1}\n//]]>'), [{ a: 1 }]],
    [script('{"a":"x\ny"}'), [{ a: "x y" }]],
    [script('{"a":[1,2,],}'), [{ a: [1, 2] }]],
    [script("{broken") + script('{"a":1}'), [{ a: 1 }]],
    [script(""), []],
    [script("[".repeat(100_000)), []],
    [script('{"__proto__":{"x":1},"a":1}'), [{ a: 1 }]],
    ['<script type="text/javascript">{"a":1}</script>', []],
    ['<script type="application/ld+json; charset=utf-8">{"a":1}</script>', [{ a: 1 }]],
  ];

  for (const [html, items] of table)
    t.strictSame(JSON.stringify(structured(html).jsonLd), JSON.stringify(items), html.slice(0, 60));
  const startedMs = performance.now();
  structured(script(`{"a":${" ".repeat(400_000)}`));
  structured(script(",".repeat(200_000)));
  t.ok(performance.now() - startedMs < 2_000);
});

test("microdata and RDFa become items with lists of values", async (t) => {
  t.strictSame(
    structured(
      `<div itemscope itemtype="http://schema.org/Product" itemid="/p/1" itemref="more"><span itemprop="name">Lamp</span><a itemprop="url sameAs" href="/lamp">x</a><img itemprop=image src="i.png"><meta itemprop=sku content="A1"><time itemprop=date datetime="2026-03-05">5 March</time><div itemprop=offers itemscope itemtype="http://schema.org/Offer"><data itemprop=price value="12.5">12,50</data></div></div><p id=more itemprop=note>N</p>`,
    ).microdata,
    [
      {
        type: ["http://schema.org/Product"],
        id: "http://e.example/p/1",
        properties: {
          name: ["Lamp"],
          url: ["http://e.example/lamp"],
          sameAs: ["http://e.example/lamp"],
          image: ["http://e.example/d/i.png"],
          sku: ["A1"],
          date: ["2026-03-05"],
          offers: [{ type: ["http://schema.org/Offer"], properties: { price: ["12.5"] } }],
          note: ["N"],
        },
      },
    ],
  );
  t.strictSame(
    structured(
      `<div vocab="http://schema.org/" typeof="Person" resource="#me"><span property="name">Ann</span><a property="url" href="/ann">x</a><div property="address" typeof="PostalAddress"><span property="city">Bern</span></div></div>`,
    ).rdfa,
    [
      {
        type: ["http://schema.org/Person"],
        id: "http://e.example/d/#me",
        properties: {
          name: ["Ann"],
          url: ["http://e.example/ann"],
          address: [{ type: ["http://schema.org/PostalAddress"], properties: { city: ["Bern"] } }],
        },
      },
    ],
  );
  const loop = `<div itemscope itemref="a" id="a"><p itemprop=x itemscope itemref="a"></p></div>`;
  t.ok(JSON.stringify(structured(loop)).length < 10_000_000);
  t.ok(structured(`<div itemscope itemprop=a>`.repeat(100_000)).microdata.length <= 1_000);
});

test("Open Graph keeps what a page repeats", async (t) => {
  t.strictSame(
    structured(
      `<meta property=og:title content=" A  b "><meta property=og:image content=1><meta property=og:image content=2><meta name=twitter:card content=summary><meta property=other content=x><meta property=og:x>`,
    ).openGraph,
    { "og:title": "A b", "og:image": ["1", "2"], "twitter:card": "summary" },
  );
});

test("author, dates, site and image come from whoever says them first", async (t) => {
  const table: [html: string, part: string, value: string | null][] = [
    ["<meta name=author content=Ann>", "author", "Ann"],
    [script('{"author":{"name":"Ann"}}'), "author", "Ann"],
    [script('{"author":[{"name":"Ann"},"Bob"]}'), "author", "Ann, Bob"],
    [script('{"@graph":[{"@type":"WebSite"},{"author":"Ann"}]}'), "author", "Ann"],
    ["<a rel=author href=/ann>Ann</a>", "author", "Ann"],
    ["<meta property=article:author content='http://e.example/ann'>", "author", null],
    [
      "<meta property=article:published_time content='2026-03-05T10:00:00+01:00'>",
      "publishedAt",
      "2026-03-05T09:00:00Z",
    ],
    [script('{"datePublished":"2026-03-05"}'), "publishedAt", "2026-03-05"],
    ["<meta name=date content='March 5, 2026'>", "publishedAt", "2026-03-05"],
    ["<time itemprop=datePublished datetime=2026-03-05>x</time>", "publishedAt", "2026-03-05"],
    ["<time pubdate>5 March 2026</time>", "publishedAt", "2026-03-05"],
    ["<meta name=date content='soon'>", "publishedAt", null],
    [script('{"dateModified":"2026-03-06"}'), "modifiedAt", "2026-03-06"],
    ["<meta property=og:site_name content=S>", "siteName", "S"],
    [script('{"publisher":{"name":"P"}}'), "siteName", "P"],
    ["<meta property=og:image content=/i.png>", "image", "http://e.example/i.png"],
    [script('{"image":[{"url":"j.png"}]}'), "image", "http://e.example/d/j.png"],
    ["<meta property=og:image content='data:image/png,x'>", "image", null],
    [script('{"headline":"H","inLanguage":"de"}'), "title", "H"],
    [script('{"inLanguage":"de"}'), "language", "de"],
    ["<meta property=og:locale content=pt_BR>", "language", "pt-BR"],
    ["<meta name=twitter:description content=D>", "description", "D"],
  ];

  for (const [html, part, value] of table) {
    t.equal(Object.entries(metadata(html)).find(([name]) => name === part)?.[1], value, html);
  }
});
