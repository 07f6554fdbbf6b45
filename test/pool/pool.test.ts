import { createHash } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import { test } from "tap";
import { pageKey } from "../../src/frontier/canonical-url.ts";
import { createLog } from "../../src/log.ts";
import { Pool } from "../../src/pool/pool.ts";
import { type Task, type TaskEnd, taskMsMax } from "../../src/pool/task.ts";
import { onSite, openSite } from "./page-site.ts";

const log = createLog({ level: "silent", text: false });

const catalogue = `<!DOCTYPE html><html lang="en"><head><title>Books</title><base href="/books/"></head><body><h1>All <i>books</i></h1>
<a href="one?b=1&a=2">1</a><a href="./x/../one?b=1&amp;a=2#top">1 again</a><a href="/books/one?b=1&a=2">and again</a><a href="/other/two">2</a>
<a rel="nofollow" href="three">3</a><a href="private/four">4</a><a href="http://elsewhere.example/">5</a><a href="mailto:a@b.example">6</a><a href="/start">self</a></body></html>`;

const hop = (status: number, location: string) => ({ status, location });
const robotsAskedMs: number[] = [];
let robotsAnswer: { status: number; location?: string; text?: string } = { status: 200, text: "" };

const site = await openSite({
  "/start": (_, response) => response.end(catalogue),
  "/moved": (_, response) => response.writeHead(302, { location: "a/../b?#x" }).end(),
  "/lost": (_, response) => response.writeHead(302, { location: "mailto:x@y.example" }).end(),
  "/gone": (_, response) => response.writeHead(410).end(),
  "/busy": (_, response) => response.writeHead(503, { "retry-after": "3" }).end(),
  "/json": (_, response) => response.setHeader("content-type", "application/json").end('{"a":1}'),
  "/latin1": (_, response) =>
    response
      .setHeader("content-type", "text/html; charset=iso-8859-1")
      .end(Buffer.from("<h1>caf\xe9</h1>", "latin1")),
  "/nofollow": (_, response) => response.setHeader("x-robots-tag", "nofollow").end("<a href=x>x</a>"),
  "/silent": () => {},
  "/robots.txt": (_, response) => {
    robotsAskedMs.push(performance.now());
    const { status, location, text } = robotsAnswer;
    response.writeHead(status, location === undefined ? {} : { location }).end(text);
  },
  "/robots-too": (_, response) => {
    robotsAskedMs.push(performance.now());
    response.end("User-agent: *\nDisallow: /y");
  },
  "/robots-chain": (request, response) => {
    const n = Number(request.url!.split("?")[1]);
    if (n === 5) response.end("User-agent: *\nDisallow: /five");
    else response.writeHead(301, { location: `/robots-chain?${n + 1}` }).end();
  },
  "/robots-loop": (_, response) => response.writeHead(301, { location: "/robots-loop" }).end(),
});
const pool = new Pool({ threads: 2, log });
await pool.start();

function run(
  task: Task,
  options: {
    alone?: boolean;
    startWithinMs?: number;
    signal?: AbortSignal;
    onStarted?: (agoMs: number) => void;
  } = {},
): Promise<TaskEnd> {
  const { alone = false, startWithinMs = 10_000, ...rest } = options;
  return pool.run(task, { startBefore: performance.now() + startWithinMs, alone, ...rest });
}

test("a robots.txt behind redirects may take as long as its host's pace makes it, and ends at once when given up", async (t) => {
  t.equal(taskMsMax(site.robots({ timeoutMs: 5000, delayMs: 0 })), 30_000);
  t.equal(taskMsMax(site.robots({ timeoutMs: 5000, delayMs: 60_000 })), 390_000);
  t.equal(taskMsMax(site.page("/start")), 20_000);

  robotsAnswer = { status: 301, location: "/robots-too" };
  const asked = robotsAskedMs.length;
  const given = new AbortController();
  const ended = run(site.robots({ delayMs: 60_000 }), { signal: given.signal });
  await site.askedFor("/robots.txt");
  given.abort();

  // Nothing is known of the file, whether the first answer had come by then or not.
  const end = await ended;
  if (end.kind !== "notStarted") t.match(end, { kind: "report", report: { kind: "robots", status: 0 } });
  t.equal(robotsAskedMs.length, asked + 1);
  robotsAnswer = { status: 200, text: "" };
});

test("a page's report says all that was asked for, and only that", async (t) => {
  const started: number[] = [];
  const rich = await run(
    site.page("/start", {
      extract: { title: "h1", first: { css: "a", type: "url" }, bad: { css: "h1", type: "number" } },
      formats: ["metadata", "text", "links", "html"],
      links: { ...onSite, exclude: ["*/private/*"] },
      keepBody: true,
    }),
    { onStarted: (agoMs) => started.push(agoMs) },
  );

  if (rich.kind !== "report" || rich.report.kind !== "page") return t.fail(JSON.stringify(rich));
  const { body, links, durationMs, latencyMs, found, ...report } = rich.report;
  t.strictSame(report, {
    kind: "page",
    status: 200,
    finalUrl: `${site.origin}/start`,
    contentType: "text/html",
    bytes: Buffer.byteLength(catalogue),
    sha256: createHash("sha256").update(catalogue).digest("hex"),
    simhash: null,
    canonical: null,
    data: { title: "All books", first: `${site.origin}/books/one?b=1&a=2`, bad: null },
    fieldErrors: [{ field: "bad", message: '"All books" has no number' }],
    metadata: {
      title: "Books",
      description: null,
      language: "en",
      canonical: null,
      author: null,
      publishedAt: null,
      modifiedAt: null,
      siteName: null,
      image: null,
    },
    text: "All books\n11 againand again2 3456self",
    html: catalogue,
  });
  t.strictSame(
    found.map(({ url, host }) => [url, host]),
    [
      [`${site.origin}/books/one?b=1&a=2`, "127.0.0.1"],
      [`${site.origin}/other/two`, "127.0.0.1"],
      [`${site.origin}/start`, "127.0.0.1"],
    ],
  );
  t.equal(links?.length, 8);
  t.equal(zstdDecompressSync(body ?? Buffer.alloc(0)).toString(), catalogue);
  t.ok(durationMs >= latencyMs && latencyMs > 0);
  t.ok(started.length === 1 && started[0]! < 10_000, "told once that it started");

  const bare = await run(site.page("/start"));
  t.match(bare, { kind: "report", report: { data: { title: "All books" }, found: [] } });
  for (const part of ["metadata", "text", "links", "html", "body"])
    t.notOk(part in (bare.kind === "report" ? bare.report : {}), part);
});

test("links follow the job's policy", async (t) => {
  const found = async (path: string, changes: object) => {
    const end = await run(site.page(path, { key: "other", links: { ...onSite, ...changes } }));
    return end.kind === "report" && end.report.kind === "page"
      ? end.report.found.map(({ url }) => url.replace(site.origin, ""))
      : end;
  };

  t.strictSame(await found("/start", { followNofollow: true, sortQuery: true, include: ["*/books/*"] }), [
    "/books/one?a=2&b=1",
    "/books/three",
    "/books/private/four",
  ]);
  t.strictSame(await found("/start", { hosts: null, include: ["/elsewhere/"] }), [
    "http://elsewhere.example/",
  ]);
  t.strictSame(await found("/start", { hosts: [] }), []);
  t.strictSame(await found("/start", { include: ["*/start"] }), ["/start"]);
  const own = await run(
    site.page("/start", {
      key: pageKey("GET", `${site.origin}/start`),
      links: { ...onSite, include: ["*/start"] },
    }),
  );
  t.match(own, { report: { found: [] } }, "a page does not find itself");
  t.strictSame(await found("/nofollow", {}), []);
  t.strictSame(await found("/nofollow", { followNofollow: true }), ["/x"]);
});

test("what is no page is told for what it is", async (t) => {
  t.match(await run(site.page("/moved")), {
    report: { kind: "redirect", status: 302, target: { url: `${site.origin}/b`, host: "127.0.0.1" } },
  });
  t.match(await run(site.page("/lost")), {
    report: { kind: "refused", status: 302, reason: "HTTP 302 Found, to no usable address" },
  });
  t.match(await run(site.page("/gone")), {
    report: { kind: "refused", status: 410, reason: "HTTP 410 Gone", retryAfterMs: null },
  });
  t.match(await run(site.page("/busy")), { report: { kind: "refused", status: 503, retryAfterMs: 3_000 } });
  t.match(await run(site.page("/json")), { report: { kind: "broken", retryable: false } });
  t.match(await run(site.page("/json", { accept: ["application/json"], formats: ["text"] })), {
    report: {
      kind: "page",
      data: { title: null },
      text: '{"a":1}',
      fieldErrors: [{ field: "title", message: "looks for elements, and the page is application/json" }],
    },
  });
  t.match(await run(site.page("/latin1")), { report: { kind: "page", data: { title: "café" } } });
  t.match(await run(site.page("/start", { allowAddresses: [] })), {
    report: { kind: "broken", reason: /^blocked/, retryable: false },
  });
  t.match(await run(site.page("/start", { extract: { a: "((" } })), {
    report: { kind: "broken", reason: /extract\.a/, retryable: false },
  });
});

test("each hop of a redirected robots.txt, and the answer behind it, keep the host's pace", async (t) => {
  robotsAnswer = { status: 301, location: "/robots-too" };
  robotsAskedMs.length = 0;

  const end = await run(site.robots({ delayMs: 300 }));

  const endMs = performance.now();
  t.match(end, { kind: "report", report: { kind: "robots", status: 200 } });
  t.equal(robotsAskedMs.length, 2);
  const [first, second] = robotsAskedMs as [number, number];
  t.ok(second - first >= 299, `${second - first} ms between the two`);
  t.ok(endMs - second >= 299, `${endMs - second} ms until the answer`);
});

test("robots.txt comes with its redirects followed, or as unreachable", async (t) => {
  const ask = async (answer: typeof robotsAnswer) => {
    robotsAnswer = answer;
    const end = await run(site.robots());
    return end.kind === "report" && end.report.kind === "robots" ? [end.report.status, end.report.text] : end;
  };

  t.strictSame(await ask({ status: 200, text: "User-agent: *\nDisallow: /x" }), [
    200,
    "User-agent: *\nDisallow: /x",
  ]);
  t.strictSame(await ask({ status: 404, text: "none" }), [404, ""]);
  t.strictSame(await ask({ status: 503 }), [503, ""]);
  t.strictSame(await ask(hop(301, "/robots-too")), [200, "User-agent: *\nDisallow: /y"]);
  t.strictSame(await ask(hop(301, "/robots-loop")), [301, ""]);
  t.strictSame(await ask(hop(302, "http://10.0.0.1/robots.txt")), [0, ""]);
  const head = "User-agent: *\n".padEnd(500 * 1024 - 12, "#");
  const large = await ask({ status: 200, text: `${head}\nDisallow: /only/this\n` });
  t.equal(Array.isArray(large) && large[1], `${head}\n`, "half a line might forbid everything");
  t.strictSame(await ask(hop(301, "/robots-chain?1")), [200, "User-agent: *\nDisallow: /five"]);
  t.strictSame(await ask(hop(301, "/robots-chain?0")), [301, ""], "the sixth redirect");
  t.match(await run(site.robots({ origin: "http://127.0.0.1:1" })), {
    report: { kind: "robots", status: 0, text: "" },
  });
});

test("a task starts in time or not at all", async (t) => {
  const before = site.asked.length;

  t.match(await run(site.page("/start"), { startWithinMs: -1 }), { kind: "notStarted" });
  const cancelled = new AbortController();
  cancelled.abort();
  t.match(await run(site.page("/start"), { signal: cancelled.signal }), {
    kind: "notStarted",
    reason: "cancelled",
  });
  t.equal(site.asked.length, before, "nothing was asked");

  const later = new AbortController();
  const end = run(site.page("/silent"), { signal: later.signal });
  await site.askedFor("/silent");
  t.equal(pool.running, 1);
  later.abort();
  t.match(await end, { kind: "report", report: { kind: "broken", reason: "cancelled", retryable: true } });
  t.equal(pool.running, 0);
});

test("what exceeds the threads' capacity waits, within a bound", async (t) => {
  const giveUp = new AbortController();
  const ends = Array.from({ length: 32 }, () => run(site.page("/silent?full"), { signal: giveUp.signal }));
  await site.askedFor("/silent?full", 32);

  const waiting = run(site.page("/start"), { startWithinMs: 100 });
  t.strictSame([pool.running, pool.waiting], [32, 1]);
  t.match(await waiting, { kind: "notStarted", reason: "its time to start passed while it waited" });
  const queue = Array.from({ length: 512 }, () => run(site.page("/start"), { signal: giveUp.signal }));
  t.match(await run(site.page("/start")), { kind: "notStarted", reason: "too many tasks wait already" });

  giveUp.abort();
  for (const end of await Promise.all(ends)) t.match(end, { kind: "report", report: { kind: "broken" } });
  for (const end of await Promise.all(queue)) t.match(end, { kind: "notStarted", reason: "cancelled" });
  t.match(await run(site.page("/start")), { kind: "report", report: { kind: "page" } });
});

test("many pages at once come back each as itself", async (t) => {
  const ends = await Promise.all(Array.from({ length: 300 }, (_, n) => run(site.page(`/start?${n}`))));

  t.ok(
    ends.every(
      (end, n) =>
        end.kind === "report" &&
        end.report.kind === "page" &&
        end.report.finalUrl === `${site.origin}/start?${n}`,
    ),
  );
  t.equal(new Set(site.asked.filter((path) => path.startsWith("/start?"))).size, 300);
});

test("a stopped pool starts nothing", async (t) => {
  const running = run(site.page("/silent?stop"));
  await site.askedFor("/silent?stop");

  await pool.stop();

  t.match(await running, { kind: "died", alone: false });
  t.match(await run(site.page("/start")), { kind: "notStarted", reason: "the server is stopping" });
  await site.close();
});
