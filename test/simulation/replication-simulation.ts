/** `npm run simulate -- replication`: replica groups under seeded faults, and what must hold. */
import { parseArgs } from "node:util";
import { ReplicationSimulator, type SimulationResult } from "./replication-simulator.ts";

const USAGE = `replication [--seed 1] [--seeds 100] [--seconds S] [--trace]
  --seeds groups live through random faults, beginning with --seed; a seed always gives the same run.
  --seconds: stop beginning new ones after so long. --trace: print every message and write.
  Times are virtual. Exit code 1 when anything that must hold did not.`;

/** @throws {Error} an argument is wrong; the message says which. */
export async function simulateReplication(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      seeds: { type: "string", default: "100" },
      seconds: { type: "string" },
      trace: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const [seed, seeds, seconds] = [values.seed, values.seeds, values.seconds ?? "1e9"].map(Number);
  if (!Number.isInteger(seed) || !Number.isInteger(seeds) || !(seconds! > 0))
    throw new Error("--seed, --seeds and --seconds must be numbers");
  const untilMs = performance.now() + seconds! * 1000;
  const sums = {
    runs: 0,
    failed: 0,
    operations: 0,
    acknowledged: 0,
    leaders: 0,
    crashes: 0,
    undecided: 0,
    stuck: 0,
  };
  const wholeMs: number[] = [];
  for (let i = 0; i < seeds! && performance.now() < untilMs; i++) {
    const result = simulateOne(
      seed! + i,
      values.trace ? (line) => process.stdout.write(`${line}\n`) : undefined,
    );
    sums.runs++;
    sums.operations += result.operations;
    sums.acknowledged += result.acknowledged;
    sums.leaders += result.leaders;
    sums.crashes += result.crashes;
    if (result.isUndecided) sums.undecided++;
    if (result.wholeMs === undefined) sums.stuck++;
    else wholeMs.push(result.wholeMs);
    if (result.problems.length === 0) continue;
    sums.failed++;
    process.stdout.write(`seed ${result.seed} FAILED\n  ${result.problems.join("\n  ")}\n`);
  }
  wholeMs.sort((a, b) => a - b);
  const at = (share: number) => Math.round(wholeMs[Math.floor((wholeMs.length - 1) * share)] ?? 0);
  process.stdout.write(
    `${sums.runs} seeds from ${seed}: ${sums.failed} failed; ${sums.operations} operations (${sums.acknowledged} changes ` +
      `acknowledged), ${sums.leaders} leaders, ${sums.crashes} crashes; whole after ${at(0.5)} ms (p99 ${at(0.99)}, ` +
      `max ${at(1)}); ${sums.stuck} without a quorum, ${sums.undecided} undecided\n`,
  );
  return sums.failed === 0 ? 0 : 1;
}

/** @param trace hears of every message and write. */
export function simulateOne(seed: number, trace?: (line: string) => void): SimulationResult {
  return new ReplicationSimulator(seed, trace === undefined ? {} : { trace }).run();
}
