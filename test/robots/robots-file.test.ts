import { test } from "tap";
import { productToken, RobotsFile } from "../../src/robots/robots-file.ts";

type Case = [name: string, text: string, path: string, isAllowed: boolean];

function check(
  t: { equal(a: unknown, b: unknown, name: string): void },
  cases: Case[],
  userAgent = "Bot/1.0",
): void {
  for (const [name, text, path, isAllowed] of cases) {
    t.equal(new RobotsFile(text, userAgent).isAllowed(`http://example.org${path}`), isAllowed, name);
  }
}

/** RFC 9309, 2.2.1. */
test("the groups that name the crawler apply, else those for all", async (t) => {
  check(t, [
    ["no file", "", "/x", true],
    ["for all", "User-agent: *\nDisallow: /x", "/x", false],
    ["own name", "User-agent: bot\nDisallow: /x", "/x", false],
    ["own name in any case", "user-AGENT: BOT\ndisALLOW: /x", "/x", false],
    ["another's", "User-agent: other\nDisallow: /x", "/x", true],
    ["own beats all", "User-agent: *\nDisallow: /\n\nUser-agent: Bot\nDisallow: /z", "/a", true],
    [
      "own beats all, in the other order",
      "User-agent: Bot\nDisallow: /z\n\nUser-agent: *\nDisallow: /",
      "/a",
      true,
    ],
    ["own group without rules beats all", "User-agent: *\nDisallow: /\n\nUser-agent: Bot", "/a", true],
    [
      "own groups are merged (first)",
      "User-agent: Bot\nDisallow: /a\n\nUser-agent: x\nDisallow: /\n\nUser-agent: Bot\nDisallow: /b",
      "/a",
      false,
    ],
    [
      "own groups are merged (second)",
      "User-agent: Bot\nDisallow: /a\n\nUser-agent: x\nDisallow: /\n\nUser-agent: Bot\nDisallow: /b",
      "/b",
      false,
    ],
    [
      "own groups are merged (other's)",
      "User-agent: Bot\nDisallow: /a\n\nUser-agent: x\nDisallow: /\n\nUser-agent: Bot\nDisallow: /b",
      "/c",
      true,
    ],
    [
      "groups for all are merged",
      "User-agent: *\nDisallow: /a\n\nUser-agent: x\nDisallow: /\n\nUser-agent: *\nDisallow: /b",
      "/b",
      false,
    ],
    ["several names share rules", "User-agent: a\nUser-agent: Bot\nUser-agent: c\nDisallow: /x", "/x", false],
    ["with blank lines between names", "User-agent: a\n\nUser-agent: Bot\n\nDisallow: /x", "/x", false],
    [
      "a sitemap does not part names",
      "User-agent: a\nSitemap: https://e/s.xml\nUser-agent: Bot\nDisallow: /x",
      "/x",
      false,
    ],
    [
      "a crawl-delay does not part names",
      "User-agent: Bot\nCrawl-delay: 1\nUser-agent: b\nDisallow: /x",
      "/x",
      false,
    ],
    [
      "an unknown line does not part names",
      "User-agent: Bot\nNoindex: /y\nUser-agent: b\nDisallow: /x",
      "/x",
      false,
    ],
    ["a rule parts names", "User-agent: Bot\nAllow: /y\nUser-agent: b\nDisallow: /x", "/x", true],
    ["a name with version", "User-agent: Bot/2.0\nDisallow: /x", "/x", false],
    ["part of the name is another name", "User-agent: Bo\nDisallow: /x", "/x", true],
    ["a longer name is another name", "User-agent: Bot-news\nDisallow: /x", "/x", true],
    ["star and more", "User-agent: *Bot\nDisallow: /x", "/x", false],
    ["rules before any name", "Disallow: /x\nUser-agent: *\nDisallow: /y", "/x", true],
  ]);
  check(
    t,
    [["a browser-like agent", "User-agent: Bot\nDisallow: /x", "/x", true]],
    "Mozilla/5.0 (compatible; Bot/1.0)",
  );
});

/** RFC 9309, 2.2.2 and 2.2.3. */
test("the longest rule that matches decides", async (t) => {
  const all = (rules: string) => `User-agent: *\n${rules}`;
  check(t, [
    ["prefix", all("Disallow: /a"), "/abc", false],
    ["prefix, not contained", all("Disallow: /a"), "/b/a", true],
    ["case matters in paths", all("Disallow: /A"), "/a", true],
    ["longest allows", all("Disallow: /a\nAllow: /a/b"), "/a/b/c", true],
    ["longest disallows", all("Allow: /a\nDisallow: /a/b"), "/a/b/c", false],
    ["the order does not matter", all("Allow: /a/b\nDisallow: /a"), "/a/b/c", true],
    ["a tie allows", all("Disallow: /a\nAllow: /a"), "/a", true],
    ["a tie allows, in the other order", all("Allow: /a\nDisallow: /a"), "/a", true],
    ["empty disallow", all("Disallow:"), "/a", true],
    ["empty disallow beside another", all("Disallow:\nDisallow: /a"), "/a", false],
    ["empty allow", all("Allow:\nDisallow: /a"), "/a", false],
    ["everything", all("Disallow: /"), "/a", false],
    ["everything but the start page", all("Disallow: /\nAllow: /$"), "/", true],
    ["everything but the start page: others", all("Disallow: /\nAllow: /$"), "/a", false],
    ["with the query", all("Disallow: /?a="), "/?a=1", false],
    ["with the query, another", all("Disallow: /?a="), "/?b=1", true],
    ["the fragment is not sent", all("Disallow: /a#b"), "/a", false],
    ["without leading slash", all("Disallow: a"), "/a", true],
    ["a folder", all("Disallow: /a/"), "/a", true],
    ["star in the middle", all("Disallow: /a*b"), "/axxbyy", false],
    ["star takes nothing too", all("Disallow: /a*b"), "/ab", false],
    ["star, no match", all("Disallow: /a*b"), "/axx", true],
    ["star at the start", all("Disallow: *.gif"), "/x/y.gif", false],
    ["star at the end", all("Disallow: /a*"), "/abc", false],
    ["stars in a row", all("Disallow: /a***b"), "/axb", false],
    ["dollar", all("Disallow: /*.gif$"), "/x.gif", false],
    ["dollar, query behind", all("Disallow: /*.gif$"), "/x.gif?y", true],
    ["dollar after a literal", all("Disallow: /a$"), "/a", false],
    ["dollar after a literal, longer", all("Disallow: /a$"), "/ab", true],
    ["dollar: the last occurrence counts", all("Disallow: /*a$"), "/aba", false],
    ["dollar: pieces can't overlap", all("Disallow: /ab*b$"), "/ab", true],
    ["dollar after a star", all("Disallow: /a*$"), "/abc", false],
    ["dollar in the middle is a dollar", all("Disallow: /a$b"), "/a$bc", false],
    ["longer by its wildcard", all("Allow: /page\nDisallow: /*.htm"), "/page.htm", false],
    ["robots.txt itself", all("Disallow: /"), "/robots.txt", true],
  ]);
});

test("escapes are compared by what they mean", async (t) => {
  const all = (rules: string) => `User-agent: *\n${rules}`;
  check(t, [
    ["escaped letters in the rule", all("Disallow: /foo/bar/%62%61%7A"), "/foo/bar/baz", false],
    ["escaped letters in the URL", all("Disallow: /foo/bar/baz"), "/foo/bar/%62%61%7A", false],
    ["unescaped text in the rule", all("Disallow: /foo/bar/ツ"), "/foo/bar/%E3%83%84", false],
    ["lower-case escapes", all("Disallow: /foo/bar/%e3%83%84"), "/foo/bar/ツ", false],
    ["an escaped slash is no slash", all("Disallow: /a%2Fb"), "/a/b", true],
    ["an escaped slash is itself", all("Disallow: /a%2fb"), "/a%2Fb", false],
    ["a blank", all("Disallow: /a b"), "/a%20b", false],
    ["an escaped star is a star", all("Disallow: /a%2Ab"), "/a*bc", false],
    ["an escaped star is no wildcard", all("Disallow: /a%2Ab"), "/axb", true],
    ["an escaped dollar is a dollar", all("Disallow: /a%24"), "/a$b", false],
    ["a stray percent sign", all("Disallow: /100%"), "/100%", false],
    ["half a character", all("Disallow: /\ud83d"), "/x", true],
  ]);
});

test("files are read leniently", async (t) => {
  check(t, [
    ["byte order mark", "\uFEFFUser-agent: *\nDisallow: /x", "/x", false],
    ["CR LF", "User-agent: *\r\nDisallow: /x\r\n", "/x", false],
    ["CR alone", "User-agent: *\rDisallow: /x", "/x", false],
    ["comments", "User-agent: * # all\n# Allow: /x\nDisallow: /x # no", "/x", false],
    ["blanks", "  User-agent  :   *  \n\tDisallow\t:\t/x  ", "/x", false],
    ["no colon", "User-agent *\nDisallow /x", "/x", false],
    ["prose is no rule", "User-agent: *\nDisallow everything in /x please", "/x", true],
    ["misspelt", "Useragent: *\nDissallow: /x", "/x", false],
    ["a colon in the path", "User-agent: *\nDisallow: /a:b", "/a:b", false],
    ["HTML instead", "<!DOCTYPE html><html><body>User-agent: *<br>Disallow: /</body>", "/x", true],
    ["binary", "\u0000\u0001\u0002User-agent\u0000", "/x", true],
    ["names of Object's own", "User-agent: *\nconstructor: /x\n__proto__: /x\ntoString /x", "/x", true],
  ]);
});

test("delay and sitemaps", async (t) => {
  const delay = (text: string) => new RobotsFile(text, "Bot").crawlDelayMs;

  t.equal(delay("User-agent: *\nCrawl-delay: 2"), 2000);
  t.equal(delay("User-agent: *\nCrawl-delay: 0.5 # half"), 500);
  t.equal(delay("User-agent: *\nCrawl-delay: .25"), 250);
  t.equal(delay("User-agent: *\nCrawl-delay: soon"), undefined);
  t.equal(delay("User-agent: *\nCrawl-delay: -1"), undefined);
  t.equal(delay("User-agent: *\nCrawl-delay: 1e9999"), 1000);
  t.equal(delay("User-agent: *\nCrawl-delay: 999999999"), 86_400_000);
  t.equal(delay("User-agent: x\nCrawl-delay: 2"), undefined);
  t.equal(delay("User-agent: *\nCrawl-delay: 2\n\nUser-agent: Bot\nDisallow: /x"), undefined);
  t.equal(delay("User-agent: x\nCrawl-delay: 9\nUser-agent: *\nDisallow: /x"), undefined);
  t.strictSame(
    new RobotsFile(
      "Sitemap: http://e/1.xml\nUser-agent: x\nDisallow: /\nsitemap:http://e/2.xml\nSitemap:",
      "Bot",
    ).sitemaps,
    ["http://e/1.xml", "http://e/2.xml"],
  );
});

test("the product token is the agent's first word", async (t) => {
  t.equal(productToken("Orbweaver/1.0 (+https://example.org)"), "orbweaver");
  t.equal(productToken("my-crawler_x 2"), "my-crawler_x");
  t.equal(productToken("  Bot"), "bot");
  t.equal(productToken("007"), "");
  t.ok(
    new RobotsFile("User-agent: \nDisallow: /", "007").isAllowed("http://example.org/x"),
    "no token, no group",
  );
});

test("large and hostile files are read and asked in linear time", async (t) => {
  const startedMs = performance.now();
  const hostile = new RobotsFile(`User-agent: *\nDisallow: /${"*a".repeat(3000)}$`, "Bot");
  const large = new RobotsFile(
    `User-agent: *\n${Array.from({ length: 20_000 }, (_, n) => `Disallow: /p${n}/*x`).join("\n")}`,
    "Bot",
  );

  t.ok(hostile.isAllowed(`http://example.org/${"a".repeat(2000)}b`));
  for (let n = 0; n < 100; n++) large.isAllowed(`http://example.org/zzz${n}`);
  t.notOk(large.isAllowed("http://example.org/p19999/ax"));
  t.ok(
    new RobotsFile(`${"x".repeat(600_000)}\nUser-agent: *\nDisallow: /`, "Bot").isAllowed(
      "http://example.org/x",
    ),
    "what is beyond 500 KiB is not read",
  );

  t.ok(performance.now() - startedMs < 3_000);
});
