/** What tells a trap from a large site, and how a page is known that repeats another. */
import { hash } from "node:crypto";
import fc from "fast-check";
import { test } from "tap";
import { canonicalUrl } from "../../src/frontier/canonical-url.ts";
import {
  bitsApart,
  CONTENTS_MAX,
  type ContentChunk,
  ContentWindow,
  chunkPlace,
  contentChunkSchema,
  KnownContents,
  wordsOf,
} from "../../src/frontier/known-contents.ts";
import { TrapScores, trapRecordSchema, urlPattern } from "../../src/frontier/trap.ts";
import { repeatsItself } from "../../src/job/path-repetition.ts";

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);

const sha = (text: string) => hash("sha256", text);

test("URLs made by the same rule have one pattern", async (t) => {
  const table: [path: string, pattern: string][] = [
    ["/", "/"],
    ["/a/b.html", "/a/b.html"],
    ["/calendar/2024/05", "/calendar/{n}/{n}"],
    ["/calendar/2024-05-31", "/calendar/{n}-{n}-{n}"],
    ["/item-17.html", "/item-{n}.html"],
    ["/page2/x", "/page{n}/x"],
    ["/s/a8f3c2d91b/list", "/s/{id}/list"],
    ["/s/550e8400-e29b-41d4-a716-446655440000/list", "/s/{id}/list"],
    ["/list;jsessionid=AB12/x", "/list;jsessionid/x"],
    ["/mp3/x", "/mp{n}/x"],
    ["/caf%C3%A9/12", "/caf%C3%A9/{n}"],
    ["/shop?size=m&color=red", "/shop?color&size"],
    ["/shop?color=blue&size=xl&size=s", "/shop?color&size"],
    ["/shop?f%5B0%5D=a&f%5B1%5D=b", "/shop?f%{n}B{n}%{n}D"],
    ["/shop?f0=a&f17=b", "/shop?f{n}"],
    ["/q?", "/q"],
    ["/q?&&x", "/q?x"],
  ];
  for (const [path, pattern] of table) {
    const { url } = canonicalUrl(`http://a.example:8080${path}`)!;
    if (path.includes("%5B")) continue;
    t.equal(urlPattern(url), pattern, path);
  }
  t.equal(
    urlPattern("http://a.example/shop?f%5B0%5D=a"),
    urlPattern("http://a.example/shop?f%5B7%5D=x&f%5B8%5D=y"),
    "indexed parameters are one",
  );
  t.ok(urlPattern(`http://a.example/${"a".repeat(2_000)}`).length <= 300);
});

test("paths that go in circles are known", async (t) => {
  const table: [path: string, repeats: boolean][] = [
    ["/", false],
    ["/a/b/c", false],
    ["/a/a", false],
    ["/a/a/a", true],
    ["/a/b/a/b", false],
    ["/a/b/a/b/a/b", true],
    ["/x/a/b/a/b/a/b/y", true],
    ["/a/b/a/b/a/c", false],
    ["/a//b/a/b/a/b/", true],
    ["/1/1/1", false],
    ["/2024/11/11/11", false],
    ["/1/a/1/a/1/a", true],
    ["/a/b/c/d/e/f/g/h/a/b/c/d/e/f/g/h/a/b/c/d/e/f/g/h", true],
    ["/a/b/c/d/e/f/g/h/i/a/b/c/d/e/f/g/h/i/a/b/c/d/e/f/g/h/i", false],
    ["/q?x=/a/a/a/", false],
  ];
  for (const [path, repeats] of table) t.equal(repeatsItself(`http://a.example${path}`), repeats, path);
});

test("parameters and ids: each page that repeats and leads on counts; new content takes one back", async (t) => {
  const scores = new TrapScores();
  const facet = (n: number) => `http://a.example/shop?sort=${n}`;
  t.ok(scores.isEmpty);
  for (let n = 1; n <= 3; n++) t.equal(scores.repeated(facet(n), 0, 5), undefined);
  t.ok(scores.renewed(facet(9)));
  t.equal(scores.repeated(facet(4), 0, 5), undefined);
  t.equal(scores.repeated(facet(5), 0, 5), undefined, "four of five");
  t.notOk(scores.isTrapped(facet(1)));

  t.strictSame(scores.repeated(facet(6), 0, 5), {
    pattern: "/shop?sort",
    score: 5,
    pages: 6,
    example: "http://a.example/shop?sort=6",
    isTrapped: true,
  });
  t.ok(scores.isTrapped(facet(77)));
  t.notOk(scores.isTrapped("http://a.example/shop"));
  t.notOk(scores.isTrapped("http://a.example/shop?sort=1&page=2"), "another rule");
  t.equal(scores.repeated(facet(7), 0, 5), undefined, "told once");
  t.notOk(scores.renewed(facet(8)), "a trap stays one");

  const again = new TrapScores(
    trapRecordSchema.parse({ jobId: "j", host: "a.example", patterns: scores.entries() }).patterns,
  );
  t.ok(again.isTrapped(facet(1)), "also after a takeover");
});

test("paths: only how many lead from one to the next counts", async (t) => {
  const scores = new TrapScores();
  const month = (n: number) => `http://a.example/calendar/${2000 + n}/1`;
  for (let n = 0; n < 500; n++) t.equal(scores.repeated(month(n), n % 10, 20), undefined);
  t.match(scores.entries(), [{ score: 10, pages: 500 }], "uniform pages, well linked: no trap");
  t.match(scores.repeated(month(501), 19, 20), { score: 20, isTrapped: true });
  t.equal(new TrapScores().repeated(month(1), 1_000, 0), undefined, "0: never");
});

test("patterns that are kept account of have a bound", async (t) => {
  const scores = new TrapScores();
  for (let n = 0; n < 1_000; n++) scores.repeated(`http://a.example/${"x".repeat(n)}?q`, 0, 2);
  t.equal(scores.entries().length, 64);
  for (let n = 0; n < 1_000; n++) {
    scores.repeated(`http://a.example/t${"x".repeat(n)}?q`, 0, 1);
  }
  t.equal(scores.entries().length, 64);
  t.ok(scores.isTrapped("http://a.example/t?q"), "traps stay");
  t.equal(scores.repeated("http://a.example/other?q", 0, 1), undefined);
});

/** A simhash that ends with these digits. */
const sim = (digits: string) => digits.padStart(64, "0");

test("a page repeats the first one with its bytes, or with nearly its text", async (t) => {
  const window = new ContentWindow("j", "a.example");
  const judge = (key: string, body: string, digits: string | null) =>
    window.judge(key, sha(body), digits === null ? null : sim(digits));

  t.strictSame(judge("1", "one", "0"), {});
  t.strictSame(judge("2", "one", "0"), { duplicateOf: "1" }, "also while the first is being settled");
  t.ok(window.settled("1"));
  t.strictSame(judge("2", "one", "0"), { duplicateOf: "1" });
  t.notOk(window.settled("2"), "the window holds what was new");
  t.strictSame(judge("3", "three", "ffff"), { nearDuplicateOf: "1" }, "16 bits of 256");
  t.strictSame(judge("4", "four", "1ffff"), {}, "17 bits");
  t.strictSame(judge("5", "five", "1fffe"), { nearDuplicateOf: "1" });
  window.released("4");
  t.strictSame(judge("6", "four", "1ffff"), {}, "what gave no result is not repeated");
  t.strictSame(judge("7", "seven", null), {}, "without text, only bytes count");
  t.strictSame(judge("1", "one", "0"), {}, "never of itself");
  t.strictSame(judge("8", "eight", `8${"0".repeat(63)}`), { nearDuplicateOf: "1" });
});

test(`what the store holds of a window tells the same as the window (SEED=${seed})`, async (t) => {
  const random = fc.sample(fc.integer({ min: 0, max: 2 ** 31 }), { numRuns: 9_000, seed });
  const stored = new Map<number, ContentChunk>();
  const window = new ContentWindow("j", "a.example");
  const simhash = (n: number) => sha(`${n}`);
  const keep = () => {
    for (const chunk of window.takeChanges())
      stored.set(chunkPlace(chunk.first), contentChunkSchema.parse(chunk));
  };
  let fresh = 0;
  for (const [n, drawn] of random.entries()) {
    if (Object.keys(window.judge(`k${n}`, sha(`${n}`), simhash(drawn))).length === 0) fresh++;
    window.settled(`k${n}`);
    if (n % 7 === 0) keep();
  }
  keep();

  t.ok(fresh > CONTENTS_MAX, `${fresh} different contents`);
  t.equal(stored.size, 128);
  const again = new ContentWindow("j", "a.example", [...stored.values()]);
  let differ = 0;
  for (let n = 5_200; n < 9_000; n++) {
    const [a, b] = [window, again].map((w) => w.judge("new", sha(`${n}`), null));
    window.released("new");
    again.released("new");
    if (JSON.stringify(a) !== JSON.stringify(b)) differ++;
  }
  t.equal(differ, 0);
  t.ok(window.isQuiet);
  t.strictSame(window.judge("late", sha("0"), null), {}, "the oldest are forgotten");
});

test("memory is bounded over all hosts, and what is being settled stays", async (t) => {
  const known = new KnownContents();
  const busy = new ContentWindow("j", "busy");
  busy.judge("1", sha("x"), null);
  known.put(busy);
  for (let host = 0; host < 40; host++) {
    const window = new ContentWindow("j", `h${host}`);
    for (let n = 0; n < 1_000; n++) {
      window.judge(`${n}`, sha(`${n}`), null);
      window.settled(`${n}`);
    }
    window.takeChanges();
    known.put(window);
  }
  t.equal(known.windowOf("j", "busy"), busy);
  t.equal(known.windowOf("j", "h0"), undefined, "it lies in the store alone");
  t.type(known.windowOf("j", "h39"), ContentWindow);
  known.forgetJob("j");
  t.equal(known.windowOf("j", "h39"), undefined);
});

test("bits apart are counted in all words, until there are too many", async (t) => {
  const apart = (a: string, b: string, most = 256) => bitsApart(wordsOf(sim(a)), 0, wordsOf(sim(b)), most);
  t.equal(apart("0", "0"), 0);
  t.equal(apart("f".repeat(64), "0"), 256);
  t.equal(apart(`8${"0".repeat(62)}1`, "3"), 2);
  t.ok(apart("f".repeat(64), "0", 16) > 16);
});
