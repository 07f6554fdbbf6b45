import { test } from "tap";
import {
  compileScope,
  isInScope,
  type ScopePolicy,
  scopeHosts,
  scopeIssues,
  scopeRefusal,
} from "../../src/job/scope.ts";

const anywhere: ScopePolicy = { hosts: null, include: [], exclude: [] };

function hostOf(url: string): string {
  return new URL(url).hostname;
}

test("the scope's hosts come from the seeds, or are named", async (t) => {
  const seeds = ["www.example.co.uk", "shop.example.co.uk", "127.0.0.1", "::1", "a.github.io", "localhost"];

  t.strictSame(scopeHosts("same-host", ["b.example", "a.example", "b.example"]), ["b.example", "a.example"]);
  t.equal(scopeHosts("any", seeds), null);
  t.strictSame(scopeHosts("same-domain", seeds), [
    "example.co.uk",
    "*.example.co.uk",
    "127.0.0.1",
    "::1",
    // Users of a hosting suffix are strangers to each other.
    "a.github.io",
    "*.a.github.io",
    "localhost",
  ]);
  t.strictSame(scopeHosts(["A.Example", "*.MÜNCHEN.example", "[::1]", "c.example."], seeds), [
    "a.example",
    "*.xn--mnchen-3ya.example",
    "::1",
    "c.example",
  ]);
});

test("a host is in scope exactly, or below a wildcard", async (t) => {
  const table: [hosts: string[] | null, url: string, isIn: boolean][] = [
    [null, "http://anything.example/", true],
    [["a.example"], "http://a.example/", true],
    [["a.example"], "http://a.example:8080/x", true],
    [["a.example"], "http://b.a.example/", false],
    [["a.example"], "http://xa.example/", false],
    [["*.a.example"], "http://b.a.example/", true],
    [["*.a.example"], "http://c.b.a.example/", true],
    [["*.a.example"], "http://a.example/", false],
    [["*.a.example"], "http://xa.example/", false],
    [["a.example", "*.a.example"], "http://a.example/", true],
    [["127.0.0.1"], "http://127.0.0.1/", true],
    [["*.0.0.1"], "http://127.0.0.2/", false],
    [[], "http://a.example/", false],
  ];

  for (const [hosts, url, isIn] of table) {
    t.equal(isInScope(url, hostOf(url), { ...anywhere, hosts }), isIn, `${url} in ${hosts}`);
  }
});

test("patterns match the whole URL (globs) or any part of it (expressions)", async (t) => {
  const url = "https://books.example/catalogue/a-1.html?p=2";
  const table: [pattern: string, matches: boolean][] = [
    ["*", true],
    ["**", true],
    [url, true],
    ["https://books.example/catalogue/**", true],
    ["https://books.example/catalogue/*", true],
    ["https://books.example/catalogue", false],
    ["https://books.example/*/a-1.html*", true],
    ["*.html", false],
    ["*.html?p=2", true],
    ["*.html*", true],
    ["*catalogue*a-1*p=2", true],
    ["*a-1*catalogue*", false],
    ["books.example", false],
    ["*books.example", false],
    // A question mark, a point and brackets are just that.
    ["https://books.example/catalogue/a-1.html?p=?", false],
    ["https://booksXexample/*", false],
    ["https://books.example/catalogue/a-[0-9].html*", false],
    // Pieces can't overlap.
    ["https://books.example/catalogue/a-1.html?p=2*2", false],
    ["*p=2*p=2", false],
    ["/catalogue/", true],
    ["/^https:\\/\\/books\\.example\\/catalogue\\/[a-z]-\\d+\\.html/", true],
    ["/^catalogue/", false],
    ["/p=[013-9]$/", false],
    ["/(?i)CATALOGUE/", true],
  ];

  for (const [pattern, matches] of table) {
    t.equal(isInScope(url, "books.example", { ...anywhere, include: [pattern] }), matches, pattern);
    t.equal(isInScope(url, "books.example", { ...anywhere, exclude: [pattern] }), !matches, `not ${pattern}`);
  }
});

test("one include pattern is enough, one exclude pattern too much", async (t) => {
  const isIn = compileScope({
    hosts: ["a.example"],
    include: ["*/b/*", "*/c/*"],
    exclude: ["*/b/x*", "/\\.pdf$/"],
  });

  t.ok(isIn("http://a.example/b/1", "a.example"));
  t.ok(isIn("http://a.example/c/1", "a.example"));
  t.notOk(isIn("http://a.example/d/1", "a.example"));
  t.notOk(isIn("http://a.example/b/x1", "a.example"));
  t.notOk(isIn("http://a.example/c/1.pdf", "a.example"));
  t.notOk(isIn("http://b.example/b/1", "b.example"));
});

test("what keeps a URL out is told by its place in the spec", async (t) => {
  const policy: ScopePolicy = {
    hosts: ["a.example", "*.b.example"],
    include: ["*/x/*", "*/y/*"],
    exclude: ["*/x/no*", "/\\.pdf$/"],
  };
  const table: [url: string, path: string | undefined, message?: RegExp][] = [
    ["http://a.example/x/1", undefined],
    ["http://c.b.example/y/1", undefined],
    ["http://b.example/x/1", "scope.hosts", /b\.example is none of a\.example, \*\.b\.example/],
    ["http://a.example/z/1", "scope.include", /none of \*\/x\/\*, \*\/y\/\*/],
    ["http://a.example/x/none", "scope.exclude.0", /\*\/x\/no\*/],
    ["http://a.example/y/1.pdf", "scope.exclude.1", /pdf/],
    ["http://a.example/x/a/b/a/b/a/b", "scope", /circles/],
  ];
  for (const [url, path, message = /^/] of table) {
    const refusal = scopeRefusal(url, hostOf(url), policy);
    t.equal(refusal?.path, path, url);
    t.match(refusal?.message ?? "", message);
    t.equal(isInScope(url, hostOf(url), policy), path === undefined, "as the crawl decides");
  }
  t.equal(scopeRefusal("http://any.example/", "any.example", anywhere), undefined);
});

test("wrong hosts and patterns are told with their place", async (t) => {
  const issues = scopeIssues({
    hosts: ["a.example", "http://b.example/", "c d", "e.example:80", "*", "f/g", "*.h.example", "::1"],
    include: ["*", "/(/", "/path/*", "/(?=x)y/", "/(a)\\1/"],
    exclude: ["/a{900}b{900}c{900}/", "/ok/"],
  });

  t.strictSame(
    issues.map(({ path }) => path),
    [
      "scope.hosts.1",
      "scope.hosts.2",
      "scope.hosts.3",
      "scope.hosts.4",
      "scope.hosts.5",
      "scope.include.1",
      "scope.include.2",
      "scope.include.3",
      "scope.include.4",
      "scope.exclude.0",
    ],
  );
  t.match(issues[0]?.message, /without scheme, port and path/);
  t.match(issues[5]?.message, /RE2/);
  t.strictSame(scopeIssues({ hosts: "any", include: [], exclude: [] }), []);
});

test("no pattern makes matching slow", async (t) => {
  const url = `http://a.example/${"a".repeat(2_030)}`;
  const startedMs = performance.now();

  for (const pattern of [
    `*${"a*".repeat(500)}b`,
    "/(a+)+$b/",
    "/(a|aa)+b/",
    "/(.*)(.*)(.*)(.*)b$/",
    `/${"a?".repeat(300)}${"a".repeat(300)}b/`,
  ]) {
    t.notOk(isInScope(url, "a.example", { ...anywhere, include: [pattern] }), pattern.slice(0, 30));
  }

  t.ok(performance.now() - startedMs < 3_000, "all of them together");
});
