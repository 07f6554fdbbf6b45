/** Sitemaps, feeds and lists as sites write them. */
import { test } from "tap";
import { readSitemap } from "../../src/robots/sitemap.ts";

const all = { from: 0, limit: 10_000, charactersMax: 1_000_000 };
const urls = (text: string) => readSitemap(text, all).pages.map(({ url }) => url);
const HEAD = '<?xml version="1.0" encoding="UTF-8"?>';

test("a sitemap lists pages, with what the site thinks of them", async (t) => {
  const text = `${HEAD}
    <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"
        xmlns:image="http://www.google.com/schemas/sitemap-image/1.1" xmlns:xhtml="http://www.w3.org/1999/xhtml">
      <url><loc> http://a.example/?a=1&amp;b=2 </loc><lastmod>2026-01-01</lastmod><priority>0.8</priority></url>
      <url><loc><![CDATA[http://a.example/cdata?x&y]]></loc>
        <image:image><image:loc>http://a.example/picture.png</image:loc></image:image>
        <xhtml:link rel="alternate" hreflang="de" href="http://a.example/de"/></url>
      <url><priority>7</priority><loc>http://a.example/%C3%A9</loc></url>
      <url><lastmod>2026-01-01</lastmod></url>
      <url><loc></loc></url>
    </urlset>`;
  t.strictSame(
    { ...readSitemap(text, all) },
    {
      pages: [
        { url: "http://a.example/?a=1&b=2", priority: 0.8 },
        { url: "http://a.example/cdata?x&y", priority: null },
        { url: "http://a.example/%C3%A9", priority: null },
      ],
      sitemaps: [],
      next: null,
    },
  );
});

test("an index lists sitemaps; prefixes, case and byte order marks make no difference", async (t) => {
  const index = `\uFEFF${HEAD}<sm:sitemapindex xmlns:sm="x"><sm:sitemap><sm:loc>http://a.example/1.xml.gz</sm:loc></sm:sitemap>
    <sm:sitemap><sm:loc>http://a.example/2.xml</sm:loc><sm:lastmod>x</sm:lastmod></sm:sitemap></sm:sitemapindex>`;
  t.strictSame(readSitemap(index, all).sitemaps, ["http://a.example/1.xml.gz", "http://a.example/2.xml"]);
  t.strictSame(urls("<URLSET><URL><LOC>http://a.example/</LOC></URL></URLSET>"), ["http://a.example/"]);
});

test("feeds list their entries, not themselves", async (t) => {
  t.strictSame(
    urls(`<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><link>http://a.example/</link>
      <atom:link href="http://a.example/feed" rel="self"/>
      <item><title>x</title><link>http://a.example/1</link><guid>g</guid><atom:link href="http://a.example/no"/></item>
      <item><link><![CDATA[http://a.example/2]]></link></item><item><title>none</title></item></channel></rss>`),
    ["http://a.example/1", "http://a.example/2"],
  );
  t.strictSame(
    urls(`<rdf:RDF xmlns:rdf="x" xmlns="http://purl.org/rss/1.0/"><channel><link>http://a.example/</link></channel>
      <item rdf:about="u"><link>http://a.example/3</link></item></rdf:RDF>`),
    ["http://a.example/3"],
  );
  t.strictSame(
    urls(`<feed xmlns="http://www.w3.org/2005/Atom" xml:base="/"><link rel="self" href="http://a.example/atom"/>
      <entry><link rel="edit" href="/e"/><link rel="alternate" href="/4?a=1&amp;b"/><link href="/other"/></entry>
      <entry><link href="/5"/><content type="html">&lt;a href="/no"&gt;</content></entry></feed>`),
    ["/4?a=1&b", "/5"],
  );
});

test("a plain list has a URL a line", async (t) => {
  t.strictSame(
    urls("\uFEFFhttp://a.example/1\r\nhttps://a.example/2\n\n# no\n/relative\nHTTP://a.example/3"),
    ["http://a.example/1", "https://a.example/2", "HTTP://a.example/3"],
  );
});

test("what is no sitemap lists nothing", async (t) => {
  for (const text of [
    "",
    "   ",
    "\uFEFF",
    "Not found",
    "<html><head><link href='x'></head><body><a href='/a'>a</a><item>",
    "<urlset><loc>http://a.example/</loc></urlset>",
    "<url",
    "<<<<>>>>",
    `<!DOCTYPE x [<!ENTITY a "http://evil.example/">]><urlset><url><loc></loc></url></urlset>`,
    "<item>".repeat(10_000),
  ]) {
    t.strictSame(urls(text), [], text.slice(0, 30));
  }
});

test("a file cut short gives what stands before the cut", async (t) => {
  const text = `<urlset>${"<url><loc>http://a.example/x</loc></url>".repeat(3)}<url><loc>http://a.exam`;
  t.equal(urls(text).slice(0, 3).join(" "), "http://a.example/x http://a.example/x http://a.example/x");
});

test("a long file is read part by part, and the parts are the whole", async (t) => {
  const listed = Array.from({ length: 2_500 }, (_, n) => `http://a.example/${n}`);
  const text = `<urlset>${listed.map((url) => `<url><loc>${url}</loc></url>`).join("\n")}</urlset>`;
  const table: [limit: number, charactersMax: number, parts: number][] = [
    [1_000, 1_000_000, 3],
    [1_250, 1_000_000, 2],
    [2_500, 1_000_000, 1],
    [3_000, 1_000_000, 1],
    [1_000, 20_500, 3],
    [1_000, 2_050, 26],
    [1_000, 1, 2_500],
  ];
  for (const [limit, charactersMax, wanted] of table) {
    const read: string[] = [];
    let parts = 0;
    for (let from: number | null = 0; from !== null; parts++) {
      const part = readSitemap(text, { from, limit, charactersMax });
      read.push(...part.pages.map(({ url }) => url));
      from = part.next;
    }
    t.strictSame(read, listed);
    t.equal(parts, wanted, `at most ${limit} of ${charactersMax} characters`);
  }
});

test("no file is too deep or too odd to read in a moment", async (t) => {
  const startedMs = performance.now();
  urls(`<a>${"<b>".repeat(200_000)}`);
  urls(`<urlset><url><loc>${"x".repeat(5_000_000)}</loc></url></urlset>`);
  urls(`<${"a ".repeat(500_000)}>`);
  urls("&".repeat(1_000_000));
  t.ok(performance.now() - startedMs < 3_000);
});
