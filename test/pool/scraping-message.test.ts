/** A page's links cross processes as one text and come out as they went in. */
import fc from "fast-check";
import { test } from "tap";
import { canonicalUrl } from "../../src/frontier/canonical-url.ts";
import { pack, type ScrapingEnd, unpack } from "../../src/pool/scraping-message.ts";

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

test("whatever links a page has", async (t) => {
  t.comment(`SEED=${seed}`);
  const link = fc.webUrl({ withQueryParameters: true, withFragments: true }).map((url) => canonicalUrl(url));
  fc.assert(
    fc.property(fc.array(link), (links) => {
      const found = links.filter((one) => one !== undefined);
      const end: ScrapingEnd = {
        kind: "report",
        report: {
          kind: "page",
          status: 200,
          finalUrl: "http://a.example/",
          contentType: null,
          bytes: 1,
          sha256: "",
          simhash: null,
          durationMs: 1,
          latencyMs: 1,
          data: {},
          fieldErrors: [],
          found,
          canonical: null,
        },
      };
      const copy = structuredClone(pack(end));
      t.strictSame(unpack(copy), end);
    }),
    { seed },
  );
  const odd = [
    "http://a.example/a b?c d",
    "http://a.example/%0A%20",
    "http://[::1]:8080/",
    "http://ü.example/é",
  ];
  for (const text of odd) {
    const canonical = canonicalUrl(text)!;
    t.notMatch(`${canonical.url}${canonical.key}${canonical.host}`, /\s/, canonical.url);
  }
});
