/** Which URL a page says it is a form of. */
import { test } from "tap";
import { parseDocument } from "../../src/extraction/document.ts";
import { allElements, documentBase, findCanonical } from "../../src/extraction/links.ts";

const PAGE = "https://a.example/shop/p?ref=1";

function canonical(html: string, header?: string): string | undefined {
  const elements = allElements(parseDocument(html).root);
  return findCanonical(elements, documentBase(elements, PAGE), header);
}

test("a canonical link is read as it is written, in the page or in its header", async (t) => {
  const table: [html: string, header: string | undefined, url: string | undefined][] = [
    ["", undefined, undefined],
    ['<link rel="canonical" href="/shop/p">', undefined, "https://a.example/shop/p"],
    ["<link href=p rel=Canonical>", undefined, "https://a.example/shop/p"],
    ['<link rel="next canonical" href=" p ">', undefined, "https://a.example/shop/p"],
    ['<base href="https://b.example/x/"><link rel=canonical href=p>', undefined, "https://b.example/x/p"],
    ['<link rel="canonicalised" href="p">', undefined, undefined],
    ['<a rel="canonical" href="p">p</a>', undefined, undefined],
    ["<link rel=canonical>", undefined, undefined],
    ["<link rel=canonical href=mailto:a@b>", undefined, undefined],
    ['<link rel=canonical href="http://">', undefined, undefined],
    // Said twice is said once; two different ones say nothing.
    ["<link rel=canonical href=p><link rel=canonical href=/shop/p>", undefined, "https://a.example/shop/p"],
    ["<link rel=canonical href=p><link rel=canonical href=q>", undefined, undefined],
    ["<link rel=canonical href=p>", "</q>; rel=canonical", undefined],
    ["", "</p>; rel=canonical", "https://a.example/p"],
    ["", '<https://a.example/p>; rel="canonical"', "https://a.example/p"],
    ["", '</x>; rel=next, </p>; type="text/html"; rel="alternate canonical"', "https://a.example/p"],
    ["", "</p>; rel=next; title=canonical", undefined],
    ["", "</p>; rel=canonicalised", undefined],
    ["", `${"<".repeat(20_000)}>; rel=canonical`, undefined],
  ];
  for (const [html, header, url] of table)
    t.equal(canonical(html, header), url, `${html} ${header ?? ""}`.slice(0, 80));
});

test("no header makes reading slow", async (t) => {
  const startedMs = performance.now();
  canonical("", `</p>${"; a".repeat(20_000)}`);
  canonical("", "<a>;".repeat(15_000));
  canonical("", `</p>; rel="${"x ".repeat(30_000)}`);
  t.ok(performance.now() - startedMs < 1_000);
});
