/**
 * Rings under random faults, with seeds that are new each time: `npm run simulate
 * -- ring` runs thousands, here as many as a few seconds allow. SEED replays one.
 */
import assert from "node:assert/strict";
import { test } from "tap";
import { churn } from "../simulation/ring-churn.ts";

const given = process.env.SEED === undefined ? undefined : Number(process.env.SEED);
/** Of each kind of ring. */
const SHARE_MS = 3000;
const RUNS_MAX = 60;

for (const kind of [
  { nodes: 5, successors: 8, splits: true },
  { nodes: 10, successors: 3, splits: true },
  { nodes: 12, successors: 2, splits: false },
  { nodes: 12, successors: 8, splits: true },
  { nodes: 25, successors: 8, splits: true },
]) {
  const { nodes, successors, splits } = kind;
  const first = given ?? Math.floor(Math.random() * 1_000_000_000);
  const title = `${nodes} nodes, L = ${successors}: faults${splits ? ", splits" : ""}, then calm, then one ring`;
  test(`${title} (SEED=${first} and on)`, async (t) => {
    const startMs = performance.now();
    let runs = 0;
    let checks = 0;
    let answers = 0;
    do {
      const result = churn({ ...kind, seed: first + runs, faultyMs: 20_000 });
      assert.deepEqual(result.problems, [], `SEED=${first + runs}`);
      checks += result.checks;
      answers += result.answersJudged;
      runs++;
    } while (given === undefined && runs < RUNS_MAX && performance.now() - startMs < SHARE_MS);
    t.comment(
      `seeds ${first} to ${first + runs - 1}: invariants held ${checks} times, ${answers} answers were right`,
    );
  });
}

test("a seed replays exactly", async () => {
  const run = () => {
    const { simulator, convergedMs, checks } = churn({
      seed: given ?? 7,
      nodes: 8,
      successors: 3,
      splits: true,
      faultyMs: 10_000,
    });
    const views = simulator.up.map(({ ring }) =>
      ring.contacts().map(({ nodeId, seenMs }) => `${nodeId} ${seenMs}`),
    );
    return { views, convergedMs, checks, messages: simulator.traffic.messages, nowMs: simulator.nowMs };
  };

  assert.deepEqual(run(), run());
});
