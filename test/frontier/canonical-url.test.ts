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
    // Scheme, host and port.
    ["hTTp://a.example:0080/", "http://a.example/"],
    ["https://a.example:0443/x", "https://a.example/x"],
    ["http://a.example:0/", "http://a.example:0/"],
    ["http://a.example:65535/", "http://a.example:65535/"],
    ["http:/a.example/x", "http://a.example/x"],
    ["http:////a.example//x", "http://a.example//x"],
    ["http:\\/a.example/x", "http://a.example/x"],
    ["https://user:p%40ss:word@a.example/", "https://a.example/"],
    ["https://user@name@a.example/", "https://a.example/"],
    ["http://a_b.example/", "http://a_b.example/"],
    ["http://-a.example/", "http://-a.example/"],
    ["http://a..example/", "http://a..example/"],
    ["http://faß.example/", "http://xn--fa-hia.example/"],
    ["http://FASS.example/", "http://fass.example/"],
    ["http://日本語.example/", "http://xn--wgv71a119e.example/"],
    ["http://例え。テスト/", "http://xn--r8jz45g.xn--zckzah/"],
    ["http://a%2eexample/", "http://a.example/"],
    ["http://%41.example/", "http://a.example/"],
    ["http://a.example%2F/", undefined],
    ["http://a%00b.example/", undefined],
    ["http://a<b.example/", undefined],
    ["http://0300.0250.1/", "http://192.168.0.1/"],
    ["http://1.2.3/", "http://1.2.0.3/"],
    ["http://1.2.3.4.5/", undefined],
    ["http://1.2.3.4./", "http://1.2.3.4/"],
    ["http://0xffffffff/", "http://255.255.255.255/"],
    ["http://4294967296/", undefined],
    ["http://[2001:DB8::0:1]/", "http://[2001:db8::1]/"],
    ["http://[2001:db8:0:0:1:0:0:1]/", "http://[2001:db8::1:0:0:1]/"],
    ["http://[::127.0.0.1]/", "http://[::7f00:1]/"],
    ["http://[fe80::1%25eth0]/", undefined],
    ["http://::1/", undefined],
    ["http://a.example:-1/", undefined],
    ["http://a.example:x/", undefined],
    ["http://a.example:8080:/", undefined],
    ["//a.example/", undefined],
    ["a.example/x", undefined],
    ["ws://a.example/", undefined],
    ["file:///etc/passwd", undefined],
    ["blob:http://a.example/1", undefined],
    ["tel:+4312345", undefined],
    ["about:blank", undefined],
    ["http", undefined],
    ["http:", undefined],
    ["#top", undefined],
    // White space and controls.
    ["\u0000\u001f http://a.example/x \u0001", "http://a.example/x"],
    ["ht\ttp://a.example/x\r\n/y", "http://a.example/x/y"],
    ["http://a.example/x\u0000y", "http://a.example/x%00y"],
    ["http://a.example/\u00a0x", "http://a.example/%C2%A0x"],
    ["http://a.example/x\u3000", "http://a.example/x%E3%80%80"],
    // Dot segments.
    ["http://a.example/./././x", "http://a.example/x"],
    ["http://a.example/a/b/../../../c", "http://a.example/c"],
    ["http://a.example/a/b/..", "http://a.example/a/"],
    ["http://a.example/a/../", "http://a.example/"],
    ["http://a.example/a/.%2E/b", "http://a.example/b"],
    ["http://a.example/a/%2E./b", "http://a.example/b"],
    ["http://a.example/a/%252e%252e/b", "http://a.example/a/%252e%252e/b"],
    ["http://a.example/a/..;/b", "http://a.example/a/..;/b"],
    ["http://a.example/a//../b", "http://a.example/a/b"],
    ["http://a.example/.well-known/x", "http://a.example/.well-known/x"],
    ["http://a.example/?x=/../y", "http://a.example/?x=/../y"],
    // Escapes.
    ["http://a.example/%30%39%5A%7a", "http://a.example/09Zz"],
    [
      "http://a.example/%21%24%26%27%28%29%2a%2b%2c%3b%3d",
      "http://a.example/%21%24%26%27%28%29%2A%2B%2C%3B%3D",
    ],
    ["http://a.example/!$&'()*+,;=:@", "http://a.example/!$&'()*+,;=:@"],
    ["http://a.example/[x]|y", "http://a.example/[x]|y"],
    ["http://a.example/{x}`y^", "http://a.example/%7Bx%7D%60y%5E"],
    ['http://a.example/"x"<y>', "http://a.example/%22x%22%3Cy%3E"],
    ["http://a.example/%5bx%5d", "http://a.example/%5Bx%5D"],
    ["http://a.example/%3f%23", "http://a.example/%3F%23"],
    ["http://a.example/%E2%82%AC€", "http://a.example/%E2%82%AC%E2%82%AC"],
    ["http://a.example/%ff%fe", "http://a.example/%FF%FE"],
    ["http://a.example/%e9", "http://a.example/%E9"],
    ["http://a.example/😀", "http://a.example/%F0%9F%98%80"],
    ["http://a.example/\ud800x", "http://a.example/%EF%BF%BDx"],
    ["http://a.example/%u0041", "http://a.example/%u0041"],
    ["http://a.example/%%", "http://a.example/%%"],
    ["http://a.example/%2", "http://a.example/%2"],
    ["http://a.example/%25%37%65", "http://a.example/%257e"],
    ["http://a.example/%25%32%35", "http://a.example/%2525"],
    // Queries.
    ["http://a.example?x", "http://a.example/?x"],
    ["http://a.example/x?y?z", "http://a.example/x?y?z"],
    ["http://a.example/?x=1&x=1", "http://a.example/?x=1&x=1"],
    ["http://a.example/?B=1&a=2", "http://a.example/?B=1&a=2"],
    ["http://a.example/?x= y", "http://a.example/?x=%20y"],
    ["http://a.example/?x=<y>&z='", "http://a.example/?x=%3Cy%3E&z=%27"],
    ["http://a.example/?x=%2b+%20", "http://a.example/?x=%2B+%20"],
    ["http://a.example/?%2E%2E/%7E", "http://a.example/?../~"],
    ["http://a.example/?x=[1]|2^3`{4}", "http://a.example/?x=[1]|2^3`{4}"],
    ["http://a.example/x;jsessionid=1?y", "http://a.example/x;jsessionid=1?y"],
    ["http://a.example/?#?x", "http://a.example/"],
    ["http://a.example/x#a#b", "http://a.example/x"],
    ["http://a.example/#!/x", "http://a.example/"],
    ["http://a.example/x#:~:text=y", "http://a.example/x"],
    // What is another page stays one.
    ["http://a.example/INDEX.html", "http://a.example/INDEX.html"],
    ["http://www.a.example/", "http://www.a.example/"],
    ["http://a.example/index.html", "http://a.example/index.html"],
    ["http://a.example/?utm_source=x", "http://a.example/?utm_source=x"],
    ["http://a.example/?PHPSESSID=1", "http://a.example/?PHPSESSID=1"],
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
    [{ sortQuery: true }, "http://a/?", "http://a/"],
    [{ sortQuery: true }, "http://a/?z", "http://a/?z"],
    [{ sortQuery: true }, "http://a/?a=2&a=1", "http://a/?a=2&a=1"],
    [{ sortQuery: true }, "http://a/?A=1&a=2&B=3", "http://a/?A=1&B=3&a=2"],
    [{ sortQuery: true }, "http://a/?a10=1&a9=2", "http://a/?a10=1&a9=2"],
    [{ sortQuery: true }, "http://a/?=x&a=1", "http://a/?=x&a=1"],
    [{ sortQuery: true }, "http://a/?b=a=1&a==", "http://a/?a==&b=a=1"],
    [{ sortQuery: true }, "http://a/?%C3%A9=1&e=2", "http://a/?%C3%A9=1&e=2"],
    [{ sortQuery: true }, "http://a/?x;y=1&a", "http://a/?a&x;y=1"],
    [{ dropTracking: true }, "http://a/?utm_source", "http://a/"],
    [{ dropTracking: true }, "http://a/?a&utm_campaign=x&&b", "http://a/?a&&b"],
    [{ dropTracking: true }, "http://a/?GCLID=1&dclid=2&wbraid=3&gbraid=4", "http://a/"],
    [{ dropTracking: true }, "http://a/?ref=x&source=y&campaign=z", "http://a/?ref=x&source=y&campaign=z"],
    [{ dropTracking: true }, "http://a/utm_source=x?fbclids=1", "http://a/utm_source=x?fbclids=1"],
    [{ dropTracking: true }, "http://a/?q=utm_source=x", "http://a/?q=utm_source=x"],
    [{ dropTracking: true }, "http://a/?_ga=1&_gl=2&yclid=3&igshid=4&srsltid=5&id=6", "http://a/?id=6"],
    [{ mergeSlashes: true }, "http://a//", "http://a/"],
    [{ mergeSlashes: true }, "http://a///..//b", "http://a/b"],
    [{ mergeSlashes: true }, "http://a/b//../c", "http://a/b/c"],
    [{ mergeSlashes: true }, "http://a/https://b/", "http://a/https:/b/"],
    [
      { mergeSlashes: true, sortQuery: true, dropTracking: true },
      "http://a//?z&utm_id=1&b=//",
      "http://a/?b=//&z",
    ],
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

test(`however a URL is respelled, its canonical form is the same; what is reserved stays as it is (SEED=${seed})`, async (t) => {
  const unreserved = [..."abyzAZ019-._~"];
  const reserved = [
    "%2F",
    "%3F",
    "%23",
    "%25",
    "%C3%A9",
    "%20",
    "!",
    "$",
    "&",
    "'",
    "(",
    ")",
    "*",
    "+",
    ",",
    ";",
    "=",
  ];
  const segment = fc.array(fc.constantFrom(...unreserved, ...reserved), { minLength: 1, maxLength: 8 });
  const page = fc.record({
    segments: fc.array(segment, { maxLength: 4 }),
    query: fc.option(
      fc.array(fc.constantFrom(...unreserved, "%26", "%C3%A9", "&", "=", "/", "?"), { minLength: 1 }),
    ),
    port: fc.constantFrom("", ":8080"),
  });
  const choices = fc.infiniteStream(fc.nat(5));
  const respell = (pieces: readonly string[], next: () => number) =>
    pieces
      .map((piece) => {
        if (piece.startsWith("%")) return next() < 3 ? piece.toLowerCase() : piece;
        if (!/[\w.~-]/.test(piece) || next() < 3) return piece;
        return `%${piece.charCodeAt(0).toString(16)}`;
      })
      .join("");

  fc.assert(
    fc.property(page, choices, ({ segments, query, port }, stream) => {
      const next = () => stream.next().value as number;
      // A segment of dots alone is none.
      const names = segments.filter((pieces) => !/^\.{1,2}$/.test(pieces.join("")));
      const plain = `http://host.example${port}/${names.map((pieces) => pieces.join("")).join("/")}${query === null ? "" : `?${query.join("")}`}`;
      const path = names
        .map((pieces) => `${["", "./", "x/../", "x/%2e%2E/"][next() % 4]}${respell(pieces, next)}`)
        .join("/");
      const respelled = `${["http", "HTTP", "Http"][next() % 3]}://${["", "u@", "u:p@"][next() % 3]}${
        ["host.example", "HOST.Example", "h%6Fst.example", "host.example."][next() % 4]
      }${port === "" ? ["", ":", ":80"][next() % 3] : port}/${path}${
        query === null ? ["", "?"][next() % 2] : `?${respell(query, next)}`
      }${["", "#", "#f?x"][next() % 3]}`;

      const [a, b] = [canonicalUrl(plain), canonicalUrl(respelled)];
      // An apostrophe in a query is escaped by the URL parser alone.
      const expected = query === null ? plain : plain.replace(/\?.*$/, (text) => text.replaceAll("'", "%27"));
      if (a?.url !== expected || b?.url !== a.url || b.key !== a.key) {
        throw new Error(`${plain} -> ${a?.url}; ${respelled} -> ${b?.url}`);
      }
    }),
    { seed, numRuns: 2_000 },
  );
  t.pass();
});

test(`a canonical URL is short, ASCII, and without fragment and user; settings don't disturb one another (SEED=${seed})`, async (t) => {
  const text = fc.oneof(
    fc.webUrl({ withQueryParameters: true, withFragments: true }),
    fc.string({ unit: "binary" }).map((tail) => `https://u:p@host.example/${tail}`),
  );
  fc.assert(
    fc.property(text, (url) => {
      const plain = canonicalUrl(url);
      if (plain === undefined) return;
      if (
        !/^https?:\/\/[\x21-\x7e]+$/.test(plain.url) ||
        /#|^https?:\/\/[^/]*@/.test(plain.url) ||
        plain.url.length > 2048
      ) {
        throw new Error(plain.url);
      }
      const all = { sortQuery: true, dropTracking: true, mergeSlashes: true };
      const stepwise = [
        { ...asWritten, mergeSlashes: true },
        { ...asWritten, dropTracking: true },
        { ...asWritten, sortQuery: true },
      ].reduce((form, settings) => canonicalUrl(form, undefined, settings)!.url, plain.url);
      if (canonicalUrl(url, undefined, all)!.url !== stepwise) throw new Error(`${url}: ${stepwise}`);
    }),
    { seed, numRuns: 2_000 },
  );
  t.pass();
});
