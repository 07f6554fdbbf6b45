import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { zstdCompressSync } from "node:zlib";
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { Pool } from "../../src/pool/pool.ts";
import type { Task, TaskEnd } from "../../src/pool/task.ts";
import { onSite, openSite } from "./page-site.ts";

const log = createLog({ level: "silent", text: false });
const MiB = 1024 * 1024;

/** What a pattern of a user and the links of a stranger can do together: minutes of work. */
const endlessLinks = Array.from(
  { length: 3_000 },
  (_, n) => `<a href="/${n}${"a".repeat(1_900)}">x</a>`,
).join("");
const dearPattern = "/(.{0,300}){2}[!#]$/";

const site = await openSite({
  "/": (_, response) => response.end("<h1>well</h1>"),
  "/silent": () => {},
  "/endless": (_, response) => response.end(`<h1>x</h1>${endlessLinks}`),
  // Twenty million words of one character: a thread's heap can't hold their parts.
  "/wide": (_, response) =>
    response
      .setHeader("content-encoding", "zstd")
      .end(zstdCompressSync(Buffer.from("\u20ac ".repeat(20 * MiB)))),
  // Some kilobytes that become 90 MiB.
  "/swollen": (_, response) =>
    response.setHeader("content-encoding", "zstd").end(zstdCompressSync(Buffer.alloc(90 * MiB, "a "))),
});

function run(pool: Pool, task: Task, alone = false): Promise<TaskEnd> {
  return pool.run(task, { startBefore: performance.now() + 10_000, alone });
}

async function withPool(
  options: Partial<ConstructorParameters<typeof Pool>[0]>,
  use: (pool: Pool) => Promise<void>,
): Promise<void> {
  const pool = new Pool({ threads: 1, log, ...options });
  await pool.start();
  try {
    await use(pool);
  } finally {
    await pool.stop();
  }
}

test("a killed scraping process takes its tasks along, and comes back", async (t) => {
  await withPool({}, async (pool) => {
    const ends = [1, 2, 3].map((n) => run(pool, site.page(`/silent?${n}`)));
    await Promise.all([1, 2, 3].map((n) => site.askedFor(`/silent?${n}`)));
    const { pid } = pool;

    process.kill(pid!, "SIGKILL");

    t.strictSame(await Promise.all(ends), Array(3).fill({ kind: "died", alone: false }));
    const killedMs = performance.now();
    t.match(await run(pool, site.page("/")), { kind: "report", report: { data: { title: "well" } } });
    t.comment(`first report of the next process after ${Math.round(performance.now() - killedMs)} ms`);
    t.not(pool.pid, pid);

    const only = run(pool, site.page("/silent?only"));
    await site.askedFor("/silent?only");
    process.kill(pool.pid!, "SIGKILL");
    t.strictSame(await only, { kind: "died", alone: true });
  });
});

test("a page that makes its process too large is found out alone, while others go on", async (t) => {
  await withPool({ memoryBytesMax: 300 * MiB }, async (pool) => {
    const hostile = site.page("/swollen", { maxBytes: 100 * MiB, formats: ["text"] });
    const neighbour = run(pool, site.page("/silent?neighbour"));
    await site.askedFor("/silent?neighbour");

    t.strictSame(await run(pool, hostile), { kind: "died", alone: false });
    t.strictSame(await neighbour, { kind: "died", alone: false });

    const inQuarantine = run(pool, hostile, true);
    t.match(await run(pool, site.page("/")), { kind: "report", report: { kind: "page" } });
    t.strictSame(await inQuarantine, { kind: "died", alone: true });
    t.match(await run(pool, site.page("/"), true), { kind: "report", report: { kind: "page" } });
  });
});

test("a page that needs more heap than a thread has costs that thread at most", async (t) => {
  await withPool({ memoryBytesMax: 4096 * MiB }, async (pool) => {
    const { pid } = pool;
    const wide = site.page("/wide", { maxBytes: 100 * MiB, formats: ["text"] });

    const end = await run(pool, wide);

    // V8 may also give up the whole process, which is why there is one to give up.
    if (end.kind === "died") t.strictSame(end, { kind: "died", alone: true });
    else {
      t.strictSame(end, {
        kind: "report",
        report: { kind: "broken", reason: "needed too much memory to process", retryable: false },
      });
      t.equal(pool.pid, pid);
    }
    t.match(await run(pool, site.page("/")), { kind: "report", report: { kind: "page" } });
  });
});

test("a page that takes too long to process is given up, its neighbours are to be tried again", async (t) => {
  await withPool({ processingMsMax: 500 }, async (pool) => {
    const { pid } = pool;
    const neighbour = run(pool, site.page("/silent?beside"));
    await site.askedFor("/silent?beside");

    t.strictSame(await run(pool, site.page("/endless", { links: { ...onSite, include: [dearPattern] } })), {
      kind: "report",
      report: { kind: "broken", reason: "took longer than 500 ms to process", retryable: false },
    });
    t.strictSame(await neighbour, {
      kind: "report",
      report: { kind: "broken", reason: "another page ended its scraping thread", retryable: true },
    });
    t.match(await run(pool, site.page("/")), { kind: "report", report: { kind: "page" } });
    t.equal(pool.pid, pid, "the process lived on");
  });
});

test("nothing starts when the server itself was silent", async (t) => {
  await withPool({}, async (pool) => {
    const before = site.asked.length;
    process.kill(pool.pid!, "SIGSTOP");
    const end = run(pool, site.page("/"));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

    // This thread gives no sign of life, while the process that got the task goes on.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600);
    process.kill(pool.pid!, "SIGCONT");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);

    t.strictSame(await end, { kind: "notStarted", reason: "the server was too busy to watch over it" });
    t.equal(site.asked.length, before);
    t.match(await run(pool, site.page("/")), { kind: "report" });
  });
});

test("the scraping process ends with its server", async (t) => {
  const script = `
    import { createLog } from "./src/log.ts";
    import { Pool } from "./src/pool/pool.ts";
    const pool = new Pool({ threads: 1, log: createLog({ level: "silent", text: false }) });
    await pool.start();
    console.log(pool.pid);
    setInterval(() => {}, 1000);`;
  const server = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [text] = (await once(server.stdout, "data")) as [Buffer];
  const scrapingPid = Number(text.toString());
  t.ok(isAlive(scrapingPid));

  server.kill("SIGKILL");
  await once(server, "exit");

  const untilMs = performance.now() + 10_000;
  while (isAlive(scrapingPid) && performance.now() < untilMs)
    await new Promise((resolve) => setTimeout(resolve, 10));
  t.notOk(isAlive(scrapingPid));
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test("afterwards the site closes", async (t) => {
  await site.close();
  t.pass();
});
