import { createHash } from "node:crypto";
import fc from "fast-check";
import { test } from "tap";
import { type CanonicalSettings, canonicalUrl, pageKey } from "../../src/frontier/canonical-url.ts";

const asWritten: CanonicalSettings = { sortQuery: false, dropTracking: false, mergeSlashes: false };

test("the same page in many spellings has one canonical URL", async (t) => {
  const table: [text: string, url: string | undefined][] = [
    ["http://example.org", "http://example.org/"],
    ["http://example.org/", "http://example.org/"],
    ["HTTP://EXAMPLE.ORG/", "http://example.org/"],
    ["hTTps://Example.Org/Path", "https://example.org/Path"],
    ["http://example.org:80/", "http://example.org/"],
    ["https://example.org:443/", "https://example.org/"],
    ["http://example.org:443/", "http://example.org:443/"],
    ["https://example.org:80/", "https://example.org:80/"],
    ["http://example.org:/", "http://example.org/"],
    ["http://example.org:8080/", "http://example.org:8080/"],
    ["http://example.org:08080/", "http://example.org:8080/"],
    ["http://example.org/#top", "http://example.org/"],
    ["http://example.org/a#", "http://example.org/a"],
    ["http://example.org/?q#f?g", "http://example.org/?q"],
    ["http://user:secret@example.org/", "http://example.org/"],
    ["http://user@example.org/a", "http://example.org/a"],
    ["http://@example.org/", "http://example.org/"],
    ["http://example.org/?", "http://example.org/"],
    ["http://example.org?", "http://example.org/"],
    ["http://example.org/a?#", "http://example.org/a"],
    ["http://example.org?q=1", "http://example.org/?q=1"],
    ["http://example.org/?q=", "http://example.org/?q="],
    ["http://example.org/?&", "http://example.org/?&"],
    ["http://example.org/a/./b", "http://example.org/a/b"],
    ["http://example.org/a/../b", "http://example.org/b"],
    ["http://example.org/../../a", "http://example.org/a"],
    ["http://example.org/a/..", "http://example.org/"],
    ["http://example.org/a/.", "http://example.org/a/"],
    ["http://example.org/a/%2e%2E/b", "http://example.org/b"],
    ["http://example.org/a/%2e/b", "http://example.org/a/b"],
    ["http://example.org/a/.../b", "http://example.org/a/.../b"],
    ["http://example.org\\a\\b", "http://example.org/a/b"],
    ["http:\\\\example.org\\", "http://example.org/"],
    ["http:example.org", "http://example.org/"],
    ["http:///example.org/", "http://example.org/"],
    ["  http://example.org/a\t", "http://example.org/a"],
    ["http://exa\nmple.org/a\nb", "http://example.org/ab"],
    ["http://example.org/%7Euser", "http://example.org/~user"],
    ["http://example.org/%41%62%2D%2e%5f", "http://example.org/Ab-._"],
    ["http://example.org/a%2fb", "http://example.org/a%2Fb"],
    ["http://example.org/a%2Fb", "http://example.org/a%2Fb"],
    ["http://example.org/%c3%a9", "http://example.org/%C3%A9"],
    ["http://example.org/é", "http://example.org/%C3%A9"],
    ["http://example.org/a b", "http://example.org/a%20b"],
    ["http://example.org/a%20b", "http://example.org/a%20b"],
    ["http://example.org/a+b", "http://example.org/a+b"],
    ["http://example.org/?q=a+b", "http://example.org/?q=a+b"],
    ["http://example.org/?q=%e2%82%ac", "http://example.org/?q=%E2%82%AC"],
    ["http://example.org/?q=€", "http://example.org/?q=%E2%82%AC"],
    ["http://example.org/?%71=%7e", "http://example.org/?q=~"],
    ["http://example.org/?q=%26%3D", "http://example.org/?q=%26%3D"],
    ["http://example.org/?q='x'", "http://example.org/?q=%27x%27"],
    ["http://example.org/100%", "http://example.org/100%"],
    ["http://example.org/%zz%4", "http://example.org/%zz%4"],
    ["http://example.org/%%34%31", "http://example.org/%%341"],
    ["http://example.org/%4%31", "http://example.org/%4%31"],
    ["http://example.org/%25%41", "http://example.org/%25A"],
    ["http://example.org/a//b", "http://example.org/a//b"],
    ["http://example.org/a/", "http://example.org/a/"],
    ["http://example.org/a", "http://example.org/a"],
    ["http://example.org./a", "http://example.org/a"],
    ["http://example.org.:8080/a", "http://example.org:8080/a"],
    ["http://MÜNCHEN.example/", "http://xn--mnchen-3ya.example/"],
    ["http://xn--mnchen-3ya.example/", "http://xn--mnchen-3ya.example/"],
    ["http://ｅｘａｍｐｌｅ.org/", "http://example.org/"],
    ["http://ex%61mple.org/", "http://example.org/"],
    ["http://127.1/", "http://127.0.0.1/"],
    ["http://0x7f.0.0.1/", "http://127.0.0.1/"],
    ["http://2130706433/", "http://127.0.0.1/"],
    ["http://[::1]:80/", "http://[::1]/"],
    ["http://[0:0:0:0:0:0:0:1]/a", "http://[::1]/a"],
    ["http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"],
    // None at all.
    ["ftp://example.org/", undefined],
    ["mailto:a@example.org", undefined],
    ["javascript:alert(1)", undefined],
    ["data:text/html,x", undefined],
    ["/relative", undefined],
    ["", undefined],
    ["http://", undefined],
    ["http://./", undefined],
    ["http://example.org../", undefined],
    ["http://exa mple.org/", undefined],
    ["http://example.org:99999/", undefined],
    ["http://256.256.256.256/", undefined],
    ["http://[::1/", undefined],
  ];

  for (const [text, url] of table) t.equal(canonicalUrl(text)?.url, url, JSON.stringify(text));
});

test("a relative link is resolved against the page, or the base it names", async (t) => {
  const table: [text: string, base: string, url: string][] = [
    ["b", "http://example.org/a/", "http://example.org/a/b"],
    ["b", "http://example.org/a", "http://example.org/b"],
    ["/b", "http://example.org/a/c", "http://example.org/b"],
    ["../b", "http://example.org/a/c/d", "http://example.org/a/b"],
    ["?q=1", "http://example.org/a?z", "http://example.org/a?q=1"],
    ["#f", "http://example.org/a?z", "http://example.org/a?z"],
    ["", "http://example.org/a?z#f", "http://example.org/a?z"],
    ["//other.example/x", "https://example.org/a", "https://other.example/x"],
    ["http:x", "http://example.org/a/b", "http://example.org/a/x"],
    ["https://other.example", "http://example.org/", "https://other.example/"],
  ];

  for (const [text, base, url] of table) t.equal(canonicalUrl(text, base)?.url, url, `${text} at ${base}`);
});

test("what changes the meaning on some sites is done on request only", async (t) => {
  const table: [settings: Partial<CanonicalSettings>, text: string, url: string][] = [
    [{ sortQuery: true }, "http://a/?b=1&a=2", "http://a/?a=2&b=1"],
    [{ sortQuery: true }, "http://a/?b=2&a&b=1", "http://a/?a&b=2&b=1"],
    [{ sortQuery: true }, "http://a/?b&&a&", "http://a/?a&b"],
    [{ sortQuery: true }, "http://a/?%62=1&a=2", "http://a/?a=2&b=1"],
    [{ sortQuery: true }, "http://a/?&", "http://a/"],
    [{ dropTracking: true }, "http://a/?utm_source=x&id=1&UTM_Medium=y", "http://a/?id=1"],
    [{ dropTracking: true }, "http://a/?fbclid=x", "http://a/"],
    [{ dropTracking: true }, "http://a/?gclid=1&msclkid=2&mc_eid=3&q=4", "http://a/?q=4"],
    [{ dropTracking: true }, "http://a/?%75tm_source=x&b&a", "http://a/?b&a"],
    [{ dropTracking: true }, "http://a/?utm=1&source=2", "http://a/?utm=1&source=2"],
    [{ mergeSlashes: true }, "http://a//b///c//?d=//e", "http://a/b/c/?d=//e"],
    [{ mergeSlashes: true }, "http://a/b%2F%2Fc", "http://a/b%2F%2Fc"],
    [{}, "http://a//b?b&a&utm_source=x", "http://a//b?b&a&utm_source=x"],
  ];

  for (const [settings, text, url] of table) {
    t.equal(canonicalUrl(text, undefined, { ...asWritten, ...settings })?.url, url, text);
  }
});

test("the host is named as its pages are placed: without port, brackets and final dot", async (t) => {
  const table: [text: string, host: string][] = [
    ["https://EXAMPLE.org:8443/x", "example.org"],
    ["http://example.org./", "example.org"],
    ["http://münchen.example/", "xn--mnchen-3ya.example"],
    ["http://127.1:81/", "127.0.0.1"],
    ["http://[FD00::1]:8080/", "fd00::1"],
    ["http://localhost:3000/", "localhost"],
  ];

  for (const [text, host] of table) t.equal(canonicalUrl(text)?.host, host, text);
});

test("a URL has at most 2,048 characters, counted in its canonical form", async (t) => {
  const start = "http://example.org/";

  t.equal(canonicalUrl(start + "a".repeat(2048 - start.length))?.url.length, 2048);
  t.equal(canonicalUrl(start + "a".repeat(2049 - start.length)), undefined);
  t.equal(canonicalUrl(start + "%61".repeat(2048 - start.length))?.url.length, 2048);
  t.equal(canonicalUrl(start + "é".repeat(400)), undefined);
  t.equal(canonicalUrl(start + "../".repeat(1_000_000)), undefined);
});

test("a page's key is 128 bits of the hash of method, URL and body", async (t) => {
  const bytes = createHash("sha256").update("GET\nhttp://example.org/\n").digest();

  t.equal(canonicalUrl("http://example.org")?.key, bytes.subarray(0, 16).toString("base64url"));
  t.equal(pageKey("GET", "http://example.org/"), "La7uGneoVtZb8nGmIeZX5w");
  t.not(pageKey("POST", "http://example.org/"), pageKey("GET", "http://example.org/"));
  t.not(pageKey("POST", "http://example.org/", "00"), pageKey("POST", "http://example.org/"));
});

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);

test(`a canonical URL is its own canonical URL (SEED=${seed})`, async (t) => {
  const piece = fc.constantFrom(
    "%",
    "%4",
    "%41",
    "%2f",
    "%25",
    "%%34%31",
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "a",
    "é",
    "?",
    "&",
    "=",
    "#",
    " ",
    "\\",
    ":",
    "@",
    "utm_a=1",
    "+",
    "'",
    "\ud800",
  );
  const text = fc.array(piece, { maxLength: 14 }).map((pieces) => `http://Host.example/${pieces.join("")}`);
  const settings = fc.record({
    sortQuery: fc.boolean(),
    dropTracking: fc.boolean(),
    mergeSlashes: fc.boolean(),
  });

  fc.assert(
    fc.property(
      fc.oneof(text, fc.webUrl({ withQueryParameters: true, withFragments: true })),
      settings,
      (url, how) => {
        const once = canonicalUrl(url, undefined, how);
        if (once === undefined) return;
        const twice = canonicalUrl(once.url, undefined, how);
        if (twice?.url !== once.url || twice.key !== once.key || twice.host !== once.host) {
          throw new Error(`${url} -> ${once.url} -> ${twice?.url}`);
        }
      },
    ),
    { seed, numRuns: 3000 },
  );
  t.pass();
});
