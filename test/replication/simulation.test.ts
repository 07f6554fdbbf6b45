/**
 * A share of the simulation that fits into a test: fresh seeds each time, unless
 * SEED is set, and the rules broken one by one to see that it would notice.
 * `npm run simulate -- replication` runs as many as one likes, `--breaks` how
 * soon each break is noticed.
 */
import { test } from "tap";
import { findBreak, simulateOne } from "../simulation/replication-simulation.ts";
import { STORIES, type Story } from "../simulation/replication-story.ts";
import { BREAKS } from "./broken-replication.ts";

const first = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
const SHARE_MS = 4_000;
/** Nearly all take less than twenty: schedules lead to where the rule matters. */
const BREAK_SEEDS_MAX = 200;

test(`groups keep their promises under faults and become whole in calm (SEED=${first})`, (t) => {
  const untilMs = performance.now() + SHARE_MS;
  let seed = first;
  let operations = 0;
  let leaders = 0;
  const live = (story: Story | undefined) => {
    const result = simulateOne(seed, story === undefined ? {} : { story });
    operations += result.operations;
    leaders += result.leaders;
    if (result.problems.length > 0)
      t.fail(`SEED=${seed} --story "${story?.name ?? ""}": ${result.problems.join("; ")}`);
    seed++;
  };
  for (const story of STORIES) live(story);
  while (performance.now() < untilMs) live(undefined);
  t.comment(`seeds ${first} to ${seed - 1}: ${operations} operations under ${leaders} leaders`);
  t.ok(operations > 0);
  t.end();
});

test("each agreed scenario about replicas has its story", (t) => {
  const rows = STORIES.flatMap(({ row }) => row ?? []);
  t.same(rows, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16, 18, 28]);
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
  test(`it is noticed when ${broken.name}`, async (t) => {
    const found = await findBreak(broken, 1, BREAK_SEEDS_MAX);
    t.ok(found !== undefined, `within ${BREAK_SEEDS_MAX} seeds`);
    t.comment(`seed ${found?.seed}: ${found?.problems[0]?.slice(0, 200)}`);
    t.end();
  });
}
