/** A few crawls under faults with each run of the tests; `npm run simulate -- crawl` runs many. */
import { test } from "tap";
import { simulateOne } from "./crawl-simulation.ts";

test("nothing is lost or doubled, nothing too fast, and every crawl ends, whatever dies", async (t) => {
  const first = Number(process.env.SEED ?? 1);
  for (let seed = first; seed < first + 60; seed++) {
    const { violations } = await simulateOne(seed);
    if (violations.length > 0) t.fail(`SEED=${seed}: ${violations.join("; ")}`);
  }
  t.pass(`seeds ${first} to ${first + 59}`);
});
