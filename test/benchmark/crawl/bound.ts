/**
 * What a crawl costs at least: a loop by hand without any durability, politeness or
 * limit, written as one would write it for this one site. undici fetches, htmlparser2
 * and css-select read, in a Piscina pool of two; the loop knows which URLs it has had.
 * `node bound.ts URL`: prints `{pages, seconds}`.
 */
import { Piscina } from "piscina";
import type { BoundPage } from "./bound-page.ts";

const THREADS = 2;
const AT_ONCE = 16;

const [start = ""] = process.argv.slice(2);
const pool = new Piscina<string, BoundPage>({
  filename: new URL("./bound-page.ts", import.meta.url).href,
  minThreads: THREADS,
  maxThreads: THREADS,
  concurrentTasksPerWorker: AT_ONCE / THREADS,
  atomics: "disabled",
});
const known = new Set([start]);
const results: BoundPage["fields"][] = [];
const startedMs = performance.now();
await new Promise<void>((resolve, reject) => {
  const visit = (url: string) => {
    pool.run(url).then(({ fields, links }) => {
      results.push(fields);
      for (const link of links) {
        if (known.has(link)) continue;
        known.add(link);
        visit(link);
      }
      if (results.length === known.size) resolve();
    }, reject);
  };
  visit(start);
});
const seconds = (performance.now() - startedMs) / 1000;
await pool.destroy();
process.stdout.write(`${JSON.stringify({ pages: results.length, seconds })}\n`);
