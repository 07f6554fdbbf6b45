/** A few crawls under faults with each run of the tests; `npm run simulate -- crawl` runs many, `--breaks` all breaks. */
import { t as tap, test } from "tap";
import { CRAWL_BREAKS, findCrawlBreak } from "./broken-crawl.ts";
import { simulateOne } from "./crawl-simulation.ts";

tap.setTimeout(180_000);

test("nothing is lost or doubled, nothing too fast, and every crawl ends, whatever dies", {
  timeout: 120_000,
}, async (t) => {
  const first = Number(process.env.SEED ?? 1);
  for (let seed = first; seed < first + 60; seed++) {
    const { violations } = await simulateOne(seed);
    if (violations.length > 0) t.fail(`SEED=${seed}: ${violations.join("; ")}`);
  }
  t.pass(`seeds ${first} to ${first + 59}`);
});

/** Quickly found; the others take some hundred crawls when the code has changed. */
const QUICK = [
  "pages are handed out without a credit",
  "a page is settled before the owners of its links have them",
  "the pace is not stored",
  "a new leader does not wait as long as the one before might have",
  "a hand-out whose start is unknown counts from its decision",
  "a part of a large host takes in links by itself",
];
for (const broken of CRAWL_BREAKS.filter(({ name }) => QUICK.includes(name))) {
  test(`it is noticed when ${broken.name}`, async (t) => {
    const found = await findCrawlBreak(broken, 1, 40);
    t.ok(found !== undefined, `within 40 seeds`);
    t.comment(`seed ${found?.seed}: ${found?.violation.slice(0, 200)}`);
  });
}
