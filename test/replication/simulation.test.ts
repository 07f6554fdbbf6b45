/**
 * A share of the simulation that fits into a test: fresh seeds each time, unless
 * SEED is set, and the rules broken one by one to see that it would notice.
 * `npm run simulate -- replication` runs as many as one likes, `--breaks` the
 * breaks that need more seeds than there is time for here.
 */
import { test } from "tap";
import { findBreak, simulateOne, storyFor } from "../simulation/replication-simulation.ts";
import { BREAKS, loadBroken } from "./broken-replication.ts";

const first = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
const SHARE_MS = 6_000;

test(`groups keep their promises under faults and become whole in calm (SEED=${first})`, (t) => {
  const untilMs = performance.now() + SHARE_MS;
  let seed = first;
  let operations = 0;
  let leaders = 0;
  for (; performance.now() < untilMs; seed++) {
    const story = storyFor(seed);
    const result = simulateOne(seed, story === undefined ? {} : { story });
    operations += result.operations;
    leaders += result.leaders;
    if (result.problems.length > 0)
      t.fail(`SEED=${seed} ${story?.name ?? ""}: ${result.problems.join("; ")}`);
  }
  t.comment(`seeds ${first} to ${seed - 1}: ${operations} operations under ${leaders} leaders`);
  t.ok(operations > 0);
  t.end();
});

test("a seed always gives the same run", (t) => {
  const trace = () => {
    const lines: string[] = [];
    simulateOne(42, { trace: (line) => lines.push(line) });
    return lines;
  };

  const once = trace();

  t.ok(once.length > 100);
  t.same(trace(), once);
  t.end();
});

for (const broken of BREAKS) {
  const { name, seedsMax } = broken;
  if (seedsMax === undefined) {
    test(`the text that "${name}" replaces still stands`, async (t) => {
      await loadBroken(broken);
      t.end();
    });
    continue;
  }
  test(`it is noticed when ${name}`, async (t) => {
    const found = await findBreak(broken, 1, seedsMax);
    t.ok(found !== undefined, `within ${seedsMax} seeds`);
    t.comment(`seed ${found?.seed}: ${found?.problems[0]}`);
    t.end();
  });
}
