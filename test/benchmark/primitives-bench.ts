/**
 * What single steps of the work on a page cost: of a page of 60 KB, in ratios to the bare
 * libraries within one run.
 */
import { compile, selectAll, selectOne } from "css-select";
import type { AnyNode, Element } from "domhandler";
import { textContent } from "domutils";
import { parseDocument as parseBare } from "htmlparser2";
import { parseDocument } from "../../src/extraction/document.ts";
import { extract } from "../../src/extraction/extract.ts";
import { allElements, documentBase } from "../../src/extraction/links.ts";
import { contentText, findMainContent } from "../../src/extraction/main-content.ts";
import { toMarkdown } from "../../src/extraction/markdown.ts";
import { findMetadata } from "../../src/extraction/metadata.ts";
import { compileRules } from "../../src/extraction/rule.ts";
import { findStructuredData } from "../../src/extraction/structured-data.ts";
import { findTables } from "../../src/extraction/tables.ts";
import type { Benchmark } from "./figure.ts";

const ROUNDS = 40;
const CALLS = 10;
const BASE = "http://shop.example/list";

/** A catalogue: menus, 155 articles with a price, a link, a picture and a text, and a table. */
function catalogue(): string {
  const article = (n: number) =>
    `<article class="product" data-id="${n}"><h3><a href="/item/${n}" title="Item ${n}">Item number ${n}</a></h3><img src="/img/${n}.jpg" alt="Picture ${n}"><p class="price">£${n}.50</p><p class="text">A thing of some use to people who have ${n} others already, made of wood, and painted by hand in one of <b>seven colours</b>.</p><span class="stock">In stock (${n})</span></article>`;
  const rows = Array.from(
    { length: 60 },
    (_, n) => `<tr><td>Row ${n}</td><td>${n * 3}</td><td>note on ${n}</td></tr>`,
  );
  return `<!DOCTYPE html><html lang="en"><head><title>Catalogue</title><meta name="description" content="All things"></head><body><nav><ul>${'<li><a href="/x">Menu entry</a></li>'.repeat(40)}</ul></nav><main><h1>All things</h1>${Array.from({ length: 155 }, (_, n) => article(n)).join("\n")}<table>${rows.join("")}</table></main><footer>End</footer></body></html>`;
}

const RULES = {
  title: "h1",
  names: { css: ".product h3 a", all: true },
  links: { css: ".product h3 a@href", all: true },
  prices: { css: ".price", all: true },
} as const;

export const benchmark: Benchmark = async (report, { parts, progress }) => {
  if (parts.length > 0 && !parts.includes("extraction")) return;
  const html = catalogue();
  progress(`a page of ${Math.round(html.length / 1024)} KB`);
  const rules = compileRules(RULES);
  const { root } = parseDocument(html);
  const elements = allElements(root);
  const texts = (found: Element[]) => found.map((element) => textContent(element).trim());
  const title = compile<AnyNode, Element>("h1");
  const names = compile<AnyNode, Element>(".product h3 a");
  const prices = compile<AnyNode, Element>(".price");
  const works: Record<string, () => unknown> = {
    bare: () => {
      const document = parseBare(html);
      return {
        title: textContent(selectOne<AnyNode, Element>(title, document)!).trim(),
        names: texts(selectAll<AnyNode, Element>(names, document)),
        links: selectAll<AnyNode, Element>(names, document).map(({ attribs }) => attribs.href),
        prices: texts(selectAll<AnyNode, Element>(prices, document)),
      };
    },
    rules: () => {
      const document = parseDocument(html);
      const page = { root: document.root, text: html, type: "text/html" };
      return extract(page, rules, { baseUrl: documentBase(allElements(document.root), BASE) }).data;
    },
    parse: () => parseBare(html),
    metadata: () => findMetadata(elements, BASE),
    content: () => contentText(findMainContent(root), 1_000_000),
    markdown: () => toMarkdown(findMainContent(root), BASE, 1_000_000),
    tables: () => findTables(elements),
    structured: () => findStructuredData(elements, BASE),
  };
  const cost = new Map<string, number[]>(Object.keys(works).map((name) => [name, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, work] of Object.entries(works)) {
      const before = process.cpuUsage();
      for (let n = 0; n < CALLS; n++) work();
      const { user, system } = process.cpuUsage(before);
      cost.get(name)!.push((user + system) / 1000 / CALLS);
    }
  }
  // The first rounds warm the code up; of the others the least is nearest to the truth.
  const least = (name: string) => Math.min(...cost.get(name)!.slice(ROUNDS / 4));
  report({ name: "a page with its fields, by the bare libraries", value: least("bare"), unit: "ms CPU" });
  report({
    name: "a page with its fields, against that",
    value: least("rules") / least("bare"),
    unit: "x",
    max: 1.15,
  });
  for (const name of ["metadata", "content", "markdown", "tables", "structured"]) {
    report({
      name: `${name} of a parsed page, against parsing it`,
      value: least(name) / least("parse"),
      unit: "x",
    });
  }
};
