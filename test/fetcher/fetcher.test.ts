import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { test } from "tap";
import { AddressGuard } from "../../src/fetcher/address-guard.ts";
import { Fetcher, type FetchOutcome, type FetchRequest } from "../../src/fetcher/fetcher.ts";

const KiB = 1024;

const page = Buffer.from(`<h1>Hello</h1>${"<p>Some text that compresses. </p>".repeat(100)}`);
const bomb = Buffer.alloc(200 * KiB * KiB);

const answers: Record<string, (request: IncomingMessage, response: ServerResponse) => void> = {
  "/": (_, response) => html(response).end(page),
  "/echo": (request, response) => html(response).end(JSON.stringify(request.headers)),
  "/gzip": (_, response) => html(response, "gzip").end(gzipSync(page)),
  "/x-gzip": (_, response) => html(response, "X-GZIP").end(gzipSync(page)),
  "/br": (_, response) => html(response, "br").end(brotliCompressSync(page)),
  "/zstd": (_, response) => html(response, "zstd").end(zstdCompressSync(page)),
  "/deflate": (_, response) => html(response, "deflate").end(deflateSync(page)),
  "/deflate-raw": (_, response) => html(response, "deflate").end(deflateRawSync(page)),
  "/stacked": (_, response) => html(response, "gzip, br").end(brotliCompressSync(gzipSync(page))),
  "/identity": (_, response) => html(response, "identity").end(page),
  "/thrice": (_, response) => html(response, "gzip, gzip, gzip").end(gzipSync(gzipSync(gzipSync(page)))),
  "/unknown": (_, response) => html(response, "compress").end(page),
  "/not-gzip": (_, response) => html(response, "gzip").end(page),
  "/empty-gzip": (_, response) => html(response, "gzip").end(),
  "/junk-after": (_, response) =>
    html(response, "gzip").end(Buffer.concat([gzipSync(page), Buffer.from("junk")])),
  "/cut-gzip": (_, response) => html(response, "gzip").end(gzipSync(page).subarray(0, -20)),
  "/damaged-br": (_, response) => html(response, "br").end(Buffer.from("this is not brotli at all, is it?")),
  "/bomb-gzip": (_, response) => html(response, "gzip").end(gzipSync(bomb)),
  "/bomb-br": (_, response) => html(response, "br").end(brotliCompressSync(bomb.subarray(0, 20 * KiB * KiB))),
  "/bomb-zstd": (_, response) => html(response, "zstd").end(zstdCompressSync(bomb)),
  "/bomb-twice": (_, response) => html(response, "gzip, gzip").end(gzipSync(gzipSync(bomb))),
  "/long": (_, response) => html(response).end(Buffer.alloc(100 * KiB, "x")),
  "/long-chunked": (_, response) => {
    html(response);
    for (let n = 0; n < 20; n++) response.write(Buffer.alloc(10 * KiB, "x"));
    response.end();
  },
  "/cut": (_, response) => {
    html(response).setHeader("content-length", "40000");
    response.write(page);
    setImmediate(() => response.destroy());
  },
  "/silent": () => {},
  "/drip": (_, response) => {
    html(response);
    const timer = setInterval(() => response.write("x"), 20);
    response.on("close", () => clearInterval(timer));
  },
  "/stall": (_, response) => html(response).write("x"),
  "/reset": (request) => (request.socket as Socket).resetAndDestroy(),
  "/301": (_, response) => response.writeHead(301, { location: "/new" }).end("moved"),
  "/302-nowhere": (_, response) => response.writeHead(302).end(),
  "/304": (_, response) => response.writeHead(304).end(),
  "/300": (_, response) => response.writeHead(300, { location: "/x" }).end(),
  "/204": (_, response) => response.writeHead(204).end(),
  "/404": (_, response) => response.writeHead(404, { "content-type": "image/png" }).end("none"),
  "/503": (_, response) => response.writeHead(503, { "retry-after": "7" }).end("later"),
  "/503-long": (_, response) => response.writeHead(503).end(Buffer.alloc(5 * KiB * KiB)),
  "/429": (_, response) =>
    response.writeHead(429, { "retry-after": new Date(Date.now() + 60_000).toUTCString() }).end(),
  "/image": (_, response) => response.writeHead(200, { "content-type": "image/png" }).end("png"),
  "/json": (_, response) =>
    response.writeHead(200, { "content-type": "application/json; charset=utf-8" }).end("{}"),
  "/untyped": (_, response) => response.writeHead(200).end("x"),
  "/big-head": (_, response) => response.writeHead(200, { "x-large": "x".repeat(100 * KiB) }).end("x"),
  "/location-bytes": (_, response) =>
    response.writeHead(302, { location: Buffer.from("/é").toString("latin1") }).end(),
  "/robots-header": (_, response) =>
    html(response).setHeader("x-robots-tag", ["noindex", "nofollow"]).end("x"),
};

function html(response: ServerResponse, coding?: string): ServerResponse {
  response.setHeader("content-type", "text/html");
  if (coding !== undefined) response.setHeader("content-encoding", coding);
  return response;
}

async function listen(
  server: Server | ReturnType<typeof createTcpServer>,
  host = "127.0.0.1",
): Promise<number> {
  server.listen(0, host);
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

const server = createServer((request, response) => answers[request.url ?? ""]?.(request, response));
const port = await listen(server);
const fetcher = new Fetcher();

function ask(path: string, changes: Partial<FetchRequest> = {}): Promise<FetchOutcome> {
  return fetcher.fetch({
    url: path.startsWith("http") ? path : `http://127.0.0.1:${port}${path}`,
    userAgent: "orbweaver-test/1.0",
    headers: {},
    timeoutMs: 10_000,
    maxBytes: 50 * KiB,
    cutsBody: false,
    accept: ["text/html", "application/json"],
    allowAddresses: ["127.0.0.0/8", "::1"],
    mayStart: () => undefined,
    onStart: () => {},
    ...changes,
  });
}

test("a body comes as the server meant it, whatever its coding", async (t) => {
  for (const path of [
    "/",
    "/gzip",
    "/x-gzip",
    "/br",
    "/zstd",
    "/deflate",
    "/deflate-raw",
    "/stacked",
    "/identity",
    "/not-gzip",
    "/junk-after",
  ]) {
    const outcome = await ask(path);
    t.equal(outcome.kind === "answer" && outcome.body.equals(page), true, path);
  }
  t.match(await ask("/empty-gzip"), { kind: "answer", body: Buffer.alloc(0) });
  const cut = await ask("/cut-gzip");
  t.ok(
    cut.kind === "answer" && cut.body.length > 100 && page.subarray(0, cut.body.length).equals(cut.body),
    "what there is of it",
  );
});

test("bombs, lies and long bodies end at the bound", async (t) => {
  const inflates = { kind: "broken", reason: "the body inflates to more than 51200 bytes", retryable: false };
  const larger = { kind: "broken", reason: "the body is larger than 51200 bytes", retryable: false };

  t.strictSame(await ask("/bomb-br"), inflates);
  t.strictSame(await ask("/bomb-zstd"), inflates);
  t.strictSame(await ask("/bomb-twice"), inflates);
  t.strictSame(await ask("/bomb-gzip", { maxBytes: 1024 * KiB }), {
    ...inflates,
    reason: "the body inflates to more than 1048576 bytes",
  });
  t.strictSame(await ask("/long"), larger);
  t.strictSame(await ask("/long-chunked"), larger);
  t.match(await ask("/thrice"), {
    kind: "broken",
    reason: "the body is encoded 3 times over",
    retryable: false,
  });
  t.match(await ask("/unknown"), {
    kind: "broken",
    reason: 'the body\'s encoding "compress" is not supported',
    retryable: false,
  });
  t.match(await ask("/damaged-br"), { kind: "broken", reason: "the body is no valid br", retryable: true });
  t.match(await ask("/big-head"), {
    kind: "broken",
    reason: "the answer's head is too large",
    retryable: false,
  });

  const cut = await ask("/long-chunked", { cutsBody: true });
  t.ok(cut.kind === "answer" && cut.body.length === 50 * KiB);
});

test("redirects are told, not followed; refusals come with their wait", async (t) => {
  t.match(await ask("/301"), { kind: "redirect", status: 301, location: "/new" });
  t.match(await ask("/302-nowhere"), { kind: "refused", status: 302, retryAfterMs: null });
  t.match(await ask("/304"), { kind: "refused", status: 304 });
  t.match(await ask("/300"), { kind: "refused", status: 300 });
  t.match(await ask("/204"), { kind: "answer", status: 204, body: Buffer.alloc(0) });
  t.match(await ask("/404"), { kind: "refused", status: 404, retryAfterMs: null });
  t.match(await ask("/503"), { kind: "refused", status: 503, retryAfterMs: 7_000 });
  t.match(await ask("/503-long"), { kind: "refused", status: 503, retryAfterMs: null });
  const limited = await ask("/429");
  t.ok(
    limited.kind === "refused" &&
      limited.retryAfterMs !== null &&
      Math.abs(limited.retryAfterMs - 59_500) <= 1_000,
  );
  const moved = await ask("/location-bytes");
  t.equal(moved.kind === "redirect" && new URL(moved.location, "http://e/").pathname, "/%C3%A9");
});

test("only what is asked for is read", async (t) => {
  t.match(await ask("/image"), {
    kind: "broken",
    reason: "its content type image/png is not among those to accept",
    retryable: false,
  });
  t.match(await ask("/image", { accept: ["image/*"] }), { kind: "answer", contentType: "image/png" });
  t.match(await ask("/image", { accept: ["*/*"] }), { kind: "answer" });
  t.match(await ask("/json"), { kind: "answer", contentType: "application/json; charset=utf-8" });
  t.match(await ask("/untyped"), { kind: "answer", contentType: undefined });
  t.match(await ask("/robots-header"), { kind: "answer", robotsHeader: "noindex, nofollow" });
});

test("the request carries what the job says, and keeps its connection", async (t) => {
  const read = (outcome: FetchOutcome) =>
    JSON.parse(outcome.kind === "answer" ? outcome.body.toString() : "{}");
  t.match(read(await ask("/echo", { headers: { "X-Custom": "1", Accept: "text/html;q=0.5" } })), {
    host: `127.0.0.1:${port}`,
    "user-agent": "orbweaver-test/1.0",
    accept: "text/html;q=0.5",
    "accept-encoding": "gzip, deflate, br, zstd",
    "x-custom": "1",
  });
  t.match(await ask("/echo", { headers: { "transfer-encoding": "x" } }), {
    kind: "broken",
    reason: "the request can't be sent: a header is not allowed",
    retryable: false,
  });

  let connections = 0;
  const count = () => connections++;
  server.on("connection", count);
  for (let n = 0; n < 5; n++) await ask(n % 2 === 0 ? "/" : "/503");
  server.off("connection", count);
  t.ok(connections <= 1, `${connections} new connections for five requests`);
});

test("time is bounded: silence, drips, stalls, cut bodies, broken connections", async (t) => {
  const late = { kind: "broken", reason: "no complete answer within 300 ms", retryable: true };

  const startedMs = performance.now();
  t.strictSame(await ask("/silent", { timeoutMs: 300 }), late);
  t.strictSame(await ask("/drip", { timeoutMs: 300 }), late);
  t.strictSame(await ask("/stall", { timeoutMs: 300 }), late);
  t.ok(performance.now() - startedMs < 5_000);
  t.match(await ask("/cut"), { kind: "broken", reason: /cut short|connection broken/, retryable: true });
  t.strictSame(await ask("/reset"), { kind: "broken", reason: "connection broken", retryable: true });

  const mute = createTcpServer(
    (socket) =>
      void socket
        .on("error", () => {})
        .resume()
        .end("220 smtp ready\r\n"),
  );
  const mutePort = await listen(mute);
  t.strictSame(await ask(`http://127.0.0.1:${mutePort}/`), {
    kind: "broken",
    reason: "the answer is no valid HTTP/1.1",
    retryable: false,
  });
  t.match(await ask(`https://127.0.0.1:${mutePort}/`), {
    kind: "broken",
    reason: /^TLS failed/,
    retryable: false,
  });
  mute.close();
  await once(mute, "close");
  t.strictSame(await ask(`http://127.0.0.1:${mutePort}/`), {
    kind: "broken",
    reason: "connection refused",
    retryable: true,
  });
  t.match(await ask("http://nowhere.invalid/"), { kind: "broken", reason: /DNS/, retryable: true });
});

test("the last word on starting is asked once, right before the connection", async (t) => {
  let connections = 0;
  const count = () => connections++;
  const steps: string[] = [];
  const quiet = createServer((_, response) => response.end("x"));
  quiet.on("connection", count);
  const quietPort = await listen(quiet);
  const conditions = (obstacle: string | undefined) => ({
    mayStart: () => {
      steps.push("may");
      return obstacle;
    },
    onStart: () => void steps.push("start"),
  });

  t.strictSame(await ask(`http://127.0.0.1:${quietPort}/`, conditions("too late")), {
    kind: "notStarted",
    reason: "too late",
  });
  t.strictSame([steps, connections], [["may"], 0]);
  t.match(await ask(`http://127.0.0.1:${quietPort}/`, { ...conditions(undefined), accept: ["*/*"] }), {
    kind: "answer",
  });
  t.strictSame([steps, connections], [["may", "may", "start"], 1]);

  const cancel = new AbortController();
  cancel.abort();
  t.strictSame(await ask(`http://127.0.0.1:${quietPort}/`, { signal: cancel.signal }), {
    kind: "notStarted",
    reason: "cancelled",
  });
  const later = new AbortController();
  t.strictSame(
    await ask("/silent", { signal: later.signal, onStart: () => setImmediate(() => later.abort()) }),
    {
      kind: "broken",
      reason: "cancelled",
      retryable: true,
    },
  );
  quiet.close();
  quiet.closeAllConnections();
});

test("no spelling of an inner address gets through", async (t) => {
  let reached = 0;
  const inner = createServer((_, response) => {
    reached++;
    response.end("secret");
  });
  let connections = 0;
  inner.on("connection", () => connections++);
  const innerPort = await listen(inner, "::");
  const hosts = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0x7f000001",
    "017700000001",
    "2130706433",
    "0177.0.0.1",
    "127.000.000.001",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fd00::1]",
    "[fec0::1]",
    "[ff02::1]",
    "１２７.0.0.1",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "ip6-localhost",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
    "[2001:db8::1]",
  ];

  for (const host of hosts) {
    const outcome = await ask(`http://${host}:${innerPort}/`, { allowAddresses: [], timeoutMs: 2_000 });
    t.match(outcome, { kind: "broken" }, host);
    if (outcome.kind === "broken") t.match(outcome.reason, /^blocked|DNS/, host);
  }
  t.strictSame([connections, reached], [0, 0]);

  // A kept connection of a request that may must not serve one that may not.
  t.match(await ask(`http://localhost:${innerPort}/`), { kind: "answer" });
  t.match(await ask(`http://localhost:${innerPort}/`, { allowAddresses: [] }), {
    kind: "broken",
    retryable: false,
  });
  t.match(await ask(`http://127.0.0.1:${innerPort}/`, { allowAddresses: ["10.0.0.0/8"] }), {
    kind: "broken",
    retryable: false,
  });
  t.equal(reached, 1);
  inner.close();
  inner.closeAllConnections();
});

test("public unicast is open, other ranges only as far as they are opened", async (t) => {
  const table: [address: string, open: string[], isAllowed: boolean][] = [
    ["93.184.215.14", [], true],
    ["8.8.8.8", [], true],
    ["2606:4700::1111", [], true],
    ["::ffff:8.8.8.8", [], true],
    ["64:ff9b::8.8.8.8", [], true],
    ["64:ff9b::10.0.0.1", [], false],
    ["10.1.2.3", [], false],
    ["10.1.2.3", ["10.0.0.0/8"], true],
    ["11.1.2.3", ["10.0.0.0/8"], true],
    ["10.1.2.3", ["10.1.2.3"], true],
    ["10.1.2.4", ["10.1.2.3"], false],
    ["10.1.2.4", ["10.1.2.3/32"], false],
    ["::ffff:10.1.2.3", ["10.0.0.0/8"], true],
    ["fd00::1", ["10.0.0.0/8"], false],
    ["fd00::1", ["fd00::/8"], true],
    ["::1", ["127.0.0.0/8"], false],
    ["4000::1", [], false],
    ["fe80::1%eth0", [], false],
    ["not an address", [], false],
    ["", ["0.0.0.0/0", "::/0"], false],
  ];

  for (const [address, open, isAllowed] of table) {
    t.equal(new AddressGuard(open).isAllowed(address), isAllowed, `${address} with ${open}`);
  }
  for (const range of ["10.0.0.0/33", "ten", "10.0.0.0/", "::/200"])
    t.throws(() => new AddressGuard([range]), /is no address range/, range);
  t.match(await ask("/", { allowAddresses: ["ten"] }), {
    kind: "broken",
    reason: /"ten" is no address range/,
  });
});

test("afterwards nothing is left open", async (t) => {
  await fetcher.close();
  server.close();
  server.closeAllConnections();
  await once(server, "close");
  t.pass();
});
