/** Main content and Markdown, on pages whose right answers are known, and literally on small ones. */
import { test } from "tap";
import { parseDocument } from "../../src/extraction/document.ts";
import { allElements } from "../../src/extraction/links.ts";
import { contentText, findMainContent } from "../../src/extraction/main-content.ts";
import { toMarkdown } from "../../src/extraction/markdown.ts";
import { findTables } from "../../src/extraction/tables.ts";
import { CONTENTS, NOISE, SHELLS } from "./page-samples.ts";

const BASE = "http://e.example/d/";

function read(html: string): { markdown: string; text: string } {
  const content = findMainContent(parseDocument(html).root);
  return { markdown: toMarkdown(content, BASE, 1_000_000), text: contentText(content, 1_000_000) };
}

/** Letters of scripts without blanks count as words of their own. */
function wordsOf(text: string): string[] {
  return (
    text.toLowerCase().match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[\p{L}\p{M}\p{N}]+/gu) ??
    []
  );
}

/** Of words, each as often as it occurs. */
function f1(found: readonly string[], right: readonly string[]): number {
  const left = new Map<string, number>();
  for (const word of right) left.set(word, (left.get(word) ?? 0) + 1);
  let hits = 0;
  for (const word of found) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    hits++;
    left.set(word, count - 1);
  }
  return (2 * hits) / (found.length + right.length);
}

/** The words of Markdown, without its signs and addresses. */
function plain(markdown: string): string {
  return markdown
    .replace(/^```[\w#+.-]*$/gm, "")
    .replace(/\]\([^()\s]*\)/g, "]")
    .replace(/<br>/g, " ")
    .replace(/^(\s*)\d+\. /gm, "$1")
    .replace(/\\(?=[^\w\s])/g, "");
}

test("the content of sixty pages comes out whole, without what is around it", async (t) => {
  let pages = 0;
  for (const [shell, wrap] of Object.entries(SHELLS)) {
    for (const sample of CONTENTS) {
      const name = `${sample.name} in ${shell}`;
      const html = wrap(sample);
      const { markdown, text } = read(html);
      const right = wordsOf(sample.text);
      const alts = wordsOf([...sample.html.matchAll(/alt="([^"]*)"/g)].map(([, alt]) => alt).join(" "));
      pages++;

      const ofMarkdown = f1(wordsOf(plain(markdown)), right);
      t.ok(ofMarkdown >= 0.95, `${name}: F1 of Markdown ${ofMarkdown.toFixed(3)}`);
      const ofText = f1([...wordsOf(text), ...alts], right);
      t.ok(ofText >= 0.95, `${name}: F1 of text ${ofText.toFixed(3)}`);
      for (const noise of NOISE)
        t.notOk(markdown.includes(noise) || text.includes(noise), `${name}: ${noise}`);
      const lines = markdown.split("\n");
      for (const heading of sample.headings) t.ok(lines.includes(heading), `${name}: ${heading}`);
      for (const line of sample.code ?? []) {
        t.ok(lines.includes(line), `${name}: ${line}`);
        t.ok(text.split("\n").includes(line), `${name}: ${line}`);
      }
      if (sample.codeLanguage !== undefined) t.ok(lines.includes(`\`\`\`${sample.codeLanguage}`), name);
      const cells = lines
        .filter((line) => line.startsWith("|"))
        .flatMap((line) =>
          line.split(/(?<!\\)\|/).map((cell) =>
            cell
              .trim()
              .replace(/\*\*/g, "")
              .replace(/\\\|/g, "|")
              .replace(/(?:<br>)+/g, " "),
          ),
        );
      for (const cell of sample.cells ?? []) t.ok(cells.includes(cell), `${name}: cell ${cell}`);
      const tables = findTables(allElements(parseDocument(html).root)).flatMap(({ header, rows }) => [
        ...(header ?? []),
        ...rows.flat(),
      ]);
      for (const cell of sample.cells ?? []) t.ok(tables.includes(cell), `${name}: cell ${cell} of tables`);
    }
  }
  t.equal(pages, 60);
});

test("Markdown says what the page says", async (t) => {
  const table: [html: string, markdown: string][] = [
    ["<p>a <b>b</b> <i>c</i> <s>d</s> <code>e</code></p>", "a **b** *c* ~~d~~ `e`"],
    ["<p>a<b> b </b>c</p>", "a **b** c"],
    ["<p>one<br>two</p>", "one  \ntwo"],
    ["<p>2 * 3 [x] `y` _z_ a_b</p>", "2 \\* 3 \\[x\\] \\`y\\` \\_z\\_ a_b"],
    [
      "<p># no heading</p><p>- no list</p><p>1. no number</p><p>&gt; no quote</p>",
      "\\# no heading\n\n\\- no list\n\n1\\. no number\n\n\\> no quote",
    ],
    ["<p>&lt;b&gt; &amp;amp; 1 &lt; 2</p>", "\\<b> \\&amp; 1 < 2"],
    ["<p><a href='x?a=1&amp;b=(2)'>link</a></p>", "[link](http://e.example/d/x?a=1&b=%282%29)"],
    ["<p><a href='javascript:x'>link</a><a>none</a></p>", "linknone"],
    [
      "<p><a href=/x><img src=i.png alt='A [b]'></a></p>",
      "[![A \\[b\\]](http://e.example/d/i.png)](http://e.example/x)",
    ],
    ["<h2>Head <a href='#head'>¶</a></h2>", "## Head"],
    ["<h1>A<br>B</h1>", "# A B"],
    ["<ul><li>a<li>b<ul><li>c<ul><li>d</ul></ul></ul>", "- a\n- b\n  - c\n    - d"],
    ["<ol start=9><li>a<li>b<ul><li>c</ul></ol>", "9. a\n10. b\n    - c"],
    ["<ul><li><input type=checkbox>a<li><input type=checkbox checked>b</ul>", "- [ ] a\n- [x] b"],
    ["<ul><li><p>a</p><p>b</p></li><li>c</li></ul>", "- a\n\n  b\n\n- c"],
    ["<ul><li>a<pre>b\n c</pre></ul>", "- a\n\n  ```\n  b\n   c\n  ```"],
    ["<blockquote>a<blockquote>b</blockquote></blockquote>", "> a\n>\n> > b"],
    ["<pre>a\n\n  b</pre>", "```\na\n\n  b\n```"],
    ["<pre>a ``` b</pre>", "````\na ``` b\n````"],
    ["<pre lang=ts>a</pre>", "```ts\na\n```"],
    ["<pre><code class='hljs language-c++'>a</code></pre>", "```c++\na\n```"],
    ["<pre><span class=lineno>1 </span>a\n<span class=lineno>2 </span>b</pre>", "```\na\nb\n```"],
    ["<pre data-lang=sql>a</pre>", "```sql\na\n```"],
    ["<pre>a<br>b<div>c</div><div>d</div></pre>", "```\na\nb\nc\nd\n```"],
    ["<p><code>a`b</code></p>", "``a`b``"],
    ["<table><tr><th>a<th>b<tr><td>1<td>2</table>", "| a | b |\n| --- | --- |\n| 1 | 2 |"],
    ["<table><tr><td>1<td>2<tr><td>3</table>", "|  |  |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"],
    [
      "<table><tr><th>a<th style='text-align:center'>b<tr><td>1|2<td><ul><li>x<li>y</ul></table>",
      "| a | b |\n| --- | :---: |\n| 1\\|2 | - x<br>- y |",
    ],
    ["<table><tr><td>only</table>", "only"],
    ["<dl><dt>a<dd>b<dd>c</dl>", "**a**\n- b\n- c"],
    ["<details><summary>More</summary><p>text</p></details>", "**More**\n\ntext"],
    ["<p>a</p><hr><p>b</p>", "a\n\n---\n\nb"],
    ["a<div>b</div>c", "a\n\nb\n\nc"],
    ["<a href=/x><div>card</div></a>", "card"],
    ["<p>a<script>x</script><style>y</style><svg><title>z</title></svg></p>", "a"],
    ["<p> </p><h2></h2><ul><li></ul><pre></pre><table></table>", ""],
    ["", ""],
  ];

  for (const [html, markdown] of table) t.equal(read(html).markdown, markdown, html);
});

test("tables are rows of equal length, with spans filled", async (t) => {
  const tables = (html: string) => findTables(allElements(parseDocument(html).root));

  t.strictSame(tables("<table><caption>C</caption><tr><th>a<th>b<tr><td rowspan=2>1<td>2<tr><td>3</table>"), [
    {
      caption: "C",
      header: ["a", "b"],
      rows: [
        ["1", "2"],
        ["1", "3"],
      ],
    },
  ]);
  t.strictSame(
    tables(
      "<table><thead><tr><th colspan=2>ab<tr><th>a<th>b</thead><tfoot><tr><td>x<td>y</tfoot><tr><td>1<td>2</table>",
    ),
    [
      {
        caption: null,
        header: ["ab a", "ab b"],
        rows: [
          ["1", "2"],
          ["x", "y"],
        ],
      },
    ],
  );
  t.strictSame(tables("<table><tr><td>a <table><tr><td>in</table> b</table>"), [
    { caption: null, header: null, rows: [["a b"]] },
    { caption: null, header: null, rows: [["in"]] },
  ]);
  t.strictSame(tables("<table></table><table><tr></table><table><tr><td></table>"), []);
  t.equal(tables(`<table><tr>${"<td colspan=100000>x".repeat(50)}</table>`)[0]!.rows[0]!.length, 1_000);
  const wide = tables(`<table>${"<tr><td rowspan=65534 colspan=1000>x".repeat(2_000)}</table>`);
  t.ok(wide.every(({ rows }) => rows.flat().length <= 1_000_000));
});

test("pages that are made to hurt cost little", async (t) => {
  const startedMs = performance.now();
  for (const html of [
    "<div>".repeat(100_000),
    `${"<ul><li>".repeat(100_000)}x`,
    `${"<b>".repeat(100_000)}x`,
    `${"<blockquote>".repeat(100_000)}x`,
    `${"<table><tr><td>".repeat(50_000)}x`,
    "<p>x".repeat(100_000),
    `<p ${"a=b ".repeat(100_000)}>x</p>`,
    `<p title="${"x".repeat(10_000_000)}">x</p>`,
    `<a href="${"x".repeat(10_000_000)}">x</a>`,
    `<p>${"[*_`\\".repeat(200_000)}</p>`,
    `<p>${" ".repeat(1_000_000)}x</p>`,
    `<pre>${"\n ".repeat(500_000)}x</pre>`,
    `<pre>${"`".repeat(1_000_000)}</pre>`,
    "\0<p>\0x</p>\0",
    "<p>\u0001x</p>",
    '{"a": "<p>x</p>"}',
    "",
  ]) {
    const { root } = parseDocument(html);
    const elements = allElements(root);
    const content = findMainContent(root);
    t.ok(toMarkdown(content, BASE, 1_000_000).length <= 1_000_000, html.slice(0, 20));
    t.ok(contentText(content, 1_000_000).length <= 1_000_000);
    t.ok(findTables(elements).length <= 1_000);
  }
  t.ok(performance.now() - startedMs < 20_000, `${performance.now() - startedMs} ms`);
});
