/** Sitemaps and canonical links as the scraping process reads them. */
import { gzipSync } from "node:zlib";
import { t as tap, test } from "tap";
import { canonicalUrl, sitemapKey } from "../../src/frontier/canonical-url.ts";
import { createLog } from "../../src/log.ts";
import { Pool } from "../../src/pool/pool.ts";
import { type ScrapeTask, SITEMAP_PART_LENGTH } from "../../src/pool/task.ts";
import { onSite, openSite } from "./page-site.ts";

const urlset = (...urls: string[]) =>
  `<urlset>${urls.map((url) => `<url><loc>${url}</loc></url>`).join("")}</urlset>`;
const long = Array.from({ length: SITEMAP_PART_LENGTH * 2 + 5 }, (_, n) => `http://127.0.0.1/long/${n}`);
const xml = { "content-type": "application/xml" };

const site = await openSite({
  "/map.xml": (_, response) =>
    response.writeHead(200, xml).end(
      `<urlset><url><loc>http://127.0.0.1/a?b=2&amp;a=1</loc><priority>1.0</priority></url>
         <url><loc>http://127.0.0.1/b</loc><priority>0.1</priority></url><url><loc>/c#x</loc></url>
         <url><loc>http://elsewhere.example/</loc></url><url><loc>http://127.0.0.1/private/d</loc></url>
         <url><loc>http://127.0.0.1/x/x/x/</loc></url><url><loc>http://127.0.0.1/b</loc></url></urlset>`,
    ),
  "/map.xml.gz": (_, response) =>
    response
      .writeHead(200, { "content-type": "application/x-gzip" })
      .end(gzipSync(urlset("http://127.0.0.1/z"))),
  "/cut.xml.gz": (_, response) =>
    response
      .writeHead(200, xml)
      .end(gzipSync(urlset("http://127.0.0.1/z", ...long.slice(0, 2_000))).subarray(0, 4_000)),
  "/bomb.xml.gz": (_, response) =>
    response.writeHead(200, xml).end(gzipSync(Buffer.alloc(60 * 1024 * 1024, 32))),
  "/long.xml": (_, response) => response.writeHead(200, xml).end(urlset(...long)),
  "/index.xml": (_, response) =>
    response
      .writeHead(200, xml)
      .end(
        "<sitemapindex><sitemap><loc>/map.xml</loc></sitemap><sitemap><loc>http://other.example/m.xml</loc></sitemap><sitemap><loc>ftp://x/</loc></sitemap></sitemapindex>",
      ),
  "/soft404": (_, response) => response.end("<h1>Not here</h1><a href='/a'>a</a>"),
  "/moved.xml": (_, response) => response.writeHead(301, { location: "/map.xml" }).end(),
  "/gone.xml": (_, response) => response.writeHead(404).end(),
  "/wide": (_, response) =>
    response.end(
      Array.from({ length: 4_000 }, (_, n) => `<a href="/${String(n).padStart(979, "x")}">${n}</a>`).join(""),
    ),
  "/wide.xml": (_, response) =>
    response
      .writeHead(200, xml)
      .end(
        urlset(
          ...Array.from({ length: 4_000 }, (_, n) => `http://127.0.0.1/${String(n).padStart(983, "x")}`),
        ),
      ),
  "/form": (request, response) =>
    response.end(
      `<link rel=canonical href="${new URL(request.url!, "http://x").searchParams.get("to")}"><h1>x</h1>`,
    ),
});
const pool = new Pool({ threads: 1, log: createLog({ level: "silent", text: false }) });
await pool.start();
tap.teardown(async () => {
  await pool.stop();
  await site.close();
});

const run = async (task: ScrapeTask) => {
  const end = await pool.run(task, { startBefore: performance.now() + 20_000, alone: false });
  return end.kind === "report" ? end.report : end;
};
const sitemap = (path: string, part = 0, changes: object = {}) =>
  run(site.page(path, { sitemapPart: part, links: { ...onSite, ...changes } }));

test("a sitemap gives what is in scope, canonical, once, with what the site thinks of it", async (t) => {
  const report = await sitemap("/map.xml", 0, { sortQuery: true, exclude: ["*/private/*"] });

  t.match(report, { kind: "sitemap", sitemaps: [] });
  if (report.kind !== "sitemap") return;
  t.strictSame(
    report.found.map(({ url, host, priority }) => [url.replace(site.origin, ""), host, priority]),
    [
      ["http://127.0.0.1/a?a=1&b=2", "127.0.0.1", 10],
      ["http://127.0.0.1/b", "127.0.0.1", 0],
      ["/c", "127.0.0.1", 0],
    ],
  );
  t.equal(
    report.found[1]!.key,
    canonicalUrl("http://127.0.0.1/b")!.key,
    "named as a page that a link leads to",
  );
});

test("files that are compressed, cut short or no sitemaps are read as far as they go", async (t) => {
  const paths = async (path: string) => {
    const report = await sitemap(path);
    return report.kind === "sitemap" ? report.found.map(({ url }) => new URL(url).pathname) : report;
  };
  t.strictSame(await paths("/map.xml.gz"), ["/z"]);
  t.match(await paths("/cut.xml.gz"), ["/z", "/long/0", "/long/1"]);
  t.strictSame(await paths("/soft404"), []);
  t.match(await sitemap("/gone.xml"), { kind: "refused", status: 404 });
  t.match(await sitemap("/bomb.xml.gz"), { kind: "broken", retryable: false });
});

test("a long sitemap is read in parts, each naming the next", async (t) => {
  const key = (part: number) => sitemapKey(`${site.origin}/long.xml`, part);
  const lengths: number[] = [];
  const next: unknown[] = [];
  for (const part of [0, 1, 2, 3].map((n) => n * SITEMAP_PART_LENGTH)) {
    const report = await sitemap("/long.xml", part);
    if (report.kind !== "sitemap") return t.fail(JSON.stringify(report));
    lengths.push(report.found.length);
    next.push(report.sitemaps.map((file) => [file.part, file.key]));
  }
  t.strictSame(lengths, [SITEMAP_PART_LENGTH, SITEMAP_PART_LENGTH, 5, 0]);
  t.strictSame(next, [[[10_000, key(10_000)]], [[20_000, key(20_000)]], [], []]);
  t.equal(new Set([key(0), key(10_000), key(20_000)]).size, 3);
});

test("what a page or a sitemap leads to fits into one report", async (t) => {
  const page = await run(site.page("/wide", { links: onSite }));
  t.match(page, {
    kind: "page",
    fieldErrors: [{ field: "(links)", message: /^are 4000: \d+ were followed$/ }],
  });
  if (page.kind !== "page") return;
  const characters = page.found.reduce((sum, { url }) => sum + url.length, 0);
  t.ok(characters <= 3_000_000 && characters > 2_990_000, `${characters} characters`);

  const first = await sitemap("/wide.xml");
  if (first.kind !== "sitemap") return t.fail(JSON.stringify(first));
  t.equal(first.found.length, 3_000);
  t.match(first.sitemaps, [{ part: 3_000 }]);
  const second = await sitemap("/wide.xml", 3_000);
  t.equal(second.kind === "sitemap" ? second.found.length : undefined, 1_000);
});

test("an index names files anywhere; where they may be is for the job to say", async (t) => {
  const report = await sitemap("/index.xml");
  t.match(report, {
    kind: "sitemap",
    found: [],
    sitemaps: [
      { url: `${site.origin}/map.xml`, key: sitemapKey(`${site.origin}/map.xml`, 0), part: 0 },
      { url: "http://other.example/m.xml", host: "other.example", part: 0 },
    ],
  });
  t.match(await sitemap("/moved.xml"), {
    kind: "redirect",
    target: { url: `${site.origin}/map.xml`, key: sitemapKey(`${site.origin}/map.xml`, 0) },
  });
});

test("a canonical link counts within the scope and the site, when the job wants it", async (t) => {
  const canonical = async (to: string, changes: object = {}) => {
    const path = `/form?to=${encodeURIComponent(to)}`;
    const { key } = canonicalUrl(site.origin + path)!;
    const report = await run(
      site.page(path, { key, links: { ...onSite, canonicalLinks: true, ...changes } }),
    );
    return report.kind === "page" ? (report.canonical?.url.replace(site.origin, "") ?? null) : report;
  };
  t.equal(await canonical("/p"), "/p");
  t.equal(await canonical("/p?b&a", { sortQuery: true }), "/p?a&b");
  t.equal(await canonical("/p", { follow: false }), "/p", "also at the greatest depth");
  t.equal(await canonical("/p", { canonicalLinks: false }), null);
  t.equal(await canonical("/p", { exclude: ["*/p"] }), null, "not in scope");
  t.equal(await canonical("http://elsewhere.example/", { hosts: null }), null, "another site");
  t.equal(await canonical("/form?to=%2Fform"), "/form?to=%2Fform");
  const path = "/form?to=";
  t.match(
    await run(
      site.page(path, {
        key: canonicalUrl(site.origin + path)!.key,
        links: { ...onSite, canonicalLinks: true },
      }),
    ),
    { kind: "page", canonical: null },
    "itself",
  );
});
