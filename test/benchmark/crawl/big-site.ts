/**
 * The web that the crawl benchmarks read: `--pages N` pages of about 60 KB, each of
 * its own words, no robots.txt, no delay. They are lists as shops have them: some 50
 * articles of 20 elements, 180 links. A process of its own, which counts what it is
 * asked for; it answers its parent's messages.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { SeededRandom } from "../../fixture/site/seeded-random.ts";

export interface SiteCounts {
  readonly requests: number;
  /** Pages that were asked for at least once. */
  readonly distinct: number;
  /** Unix time of the first and the last request for a page; 0: there was none. */
  readonly firstMs: number;
  readonly lastMs: number;
}

const PAGE_BYTES = 60_000;
const CHILDREN = 10;
const MENU_LINKS = 80;
const SECTIONS = 40;
const DESCRIPTIONS = 2_000;

const { values } = parseArgs({ options: { pages: { type: "string" } } });
const pages = Number(values.pages);

const random = new SeededRandom("paragraphs");
const vocabulary = [...Array(8000).keys()].map(() => {
  const length = random.between(2, 11);
  return [...Array(length).keys()].map(() => String.fromCharCode(97 + random.between(0, 25))).join("");
});
const descriptions = [...Array(DESCRIPTIONS).keys()].map(() =>
  [...Array(random.between(20, 45)).keys()].map(() => random.pick(vocabulary)).join(" "),
);

function pathOf(page: number): string {
  return `/section-${page % SECTIONS}/page-${page}.html`;
}

function article(own: SeededRandom, page: number): string {
  const name = `${own.pick(vocabulary)} ${own.pick(vocabulary)}`;
  const stars = `<i class="icon icon-star"></i>\n`.repeat(5);
  return `<li class="col col-${own.between(1, 4)}"><article class="product" data-id="${own.between(1, 99_999)}">
<div class="image"><a href="${pathOf(page)}"><img src="/media/${own.between(1, 9999)}.jpg" alt="${name}" class="thumbnail"></a></div>
<p class="rating stars-${own.between(1, 5)}">${stars}</p>
<h3><a href="${pathOf(page)}" title="${name}">${name}</a></h3>
<p class="description">${own.pick(descriptions)}</p>
<div class="buy"><p class="cost">${own.between(100, 9999) / 100} €</p>
<p class="stock"><i class="icon icon-ok"></i> <span>${own.pick(vocabulary)}</span></p>
<form><button type="submit" class="button" data-text="${own.pick(vocabulary)}">${own.pick(vocabulary)}</button></form></div>
</article></li>
`;
}

/** Children in a tree, so that all are reached; the rest at random, as menus and cross references are. */
function render(page: number): string {
  const own = new SeededRandom(`page ${page}`);
  const title = `${own.pick(vocabulary)} ${own.pick(vocabulary)} ${page}`;
  const linked = [...Array(CHILDREN).keys()].map((n) => page * CHILDREN + n + 1).filter((n) => n < pages);
  while (linked.length < MENU_LINKS) linked.push(own.between(0, pages - 1));
  const parts = [
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title></head><body><h1>${title}</h1>`,
    `<div id="offer"><span class="price">${own.between(100, 99_999) / 100} €</span></div><ul class="tags">`,
    ...[1, 2, 3].map(() => `<li>${own.pick(vocabulary)}</li>`),
    `</ul><nav><ul>`,
    ...linked.map((n) => `<li><a href="${pathOf(n)}">${own.pick(vocabulary)} ${n}</a></li>\n`),
    `</ul></nav><ol class="products">`,
  ];
  let bytes = parts.reduce((sum, part) => sum + part.length, 0);
  while (bytes < PAGE_BYTES) {
    const next = article(own, own.between(0, pages - 1));
    parts.push(next);
    bytes += next.length;
  }
  return `${parts.join("")}</ol></body></html>`;
}

let seen = new Uint8Array(pages);
let counts = { requests: 0, distinct: 0, firstMs: 0, lastMs: 0 };

const server = createServer((request, response) => {
  const page = Number(/^\/section-\d+\/page-(\d+)\.html$/.exec(request.url ?? "")?.[1] ?? "NaN");
  if (!(page < pages) || request.url !== pathOf(page)) {
    response.writeHead(404).end();
    return;
  }
  const nowMs = Date.now();
  counts.requests++;
  counts.firstMs ||= nowMs;
  counts.lastMs = nowMs;
  if (seen[page] === 0) {
    seen[page] = 1;
    counts.distinct++;
  }
  response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(render(page));
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => {
  process.send?.({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${pathOf(0)}` });
});
process.on("message", () => {
  process.send?.(counts);
  seen = new Uint8Array(pages);
  counts = { requests: 0, distinct: 0, firstMs: 0, lastMs: 0 };
});
process.on("disconnect", () => process.exit(0));
