/** `npm run simulate -- replication`: replica groups under seeded faults, and what must hold. */
import { parseArgs } from "node:util";
import { BREAKS, loadBroken } from "../replication/broken-replication.ts";
import { type Focus, ReplicationSimulator, type SimulationResult } from "./replication-simulator.ts";

const USAGE = `replication [--seed 1] [--seeds 100] [--seconds S] [--focus promises|reads|members] [--trace] [--breaks]
  --seeds groups live through random faults, beginning with --seed; a seed always gives the same run.
  --seconds: stop beginning new ones after so long. --trace: print every message and write.
  --focus: three members, of whom mostly one kind of thing goes wrong.
  --breaks: instead, each rule of the protocol is broken on purpose; prints how many seeds it took to notice.
  Times are virtual. Exit code 1 when anything that must hold did not.`;

/** @throws {Error} an argument is wrong; the message says which. */
export async function simulateReplication(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      seeds: { type: "string", default: "100" },
      seconds: { type: "string" },
      focus: { type: "string" },
      trace: { type: "boolean", default: false },
      breaks: { type: "boolean", default: false },
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
  const { focus } = values;
  if (focus !== undefined && focus !== "promises" && focus !== "reads" && focus !== "members")
    throw new Error("--focus must be promises, reads or members");
  if (values.breaks) return breakAll(seed!, seeds!);
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
    const result = simulateOne(seed! + i, {
      ...(focus === undefined ? {} : { focus }),
      ...(values.trace ? { trace: (line: string) => process.stdout.write(`${line}\n`) } : {}),
    });
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

/** @param options.trace hears of every message and write. */
export function simulateOne(
  seed: number,
  options: { focus?: Focus; trace?: (line: string) => void } = {},
): SimulationResult {
  return new ReplicationSimulator(seed, options).run();
}

async function breakAll(seed: number, seeds: number): Promise<number> {
  let missed = 0;
  for (const one of BREAKS) {
    const found = await findBreak(one, seed, seeds);
    if (found === undefined) missed++;
    const verdict =
      found === undefined ? `not found in ${seeds} seeds` : `seed ${found.seed}: ${found.problems[0]}`;
    process.stdout.write(`${one.name.padEnd(64)} ${verdict.slice(0, 160)}\n`);
  }
  return missed === 0 ? 0 : 1;
}

/** The first seed that notices the break. */
export async function findBreak(
  broken: (typeof BREAKS)[number],
  seed: number,
  seeds: number,
): Promise<SimulationResult | undefined> {
  const Broken = await loadBroken(broken);
  for (let i = 0; i < seeds; i++) {
    const { focus } = broken;
    const result = new Broken(seed + i, focus === undefined ? {} : { focus }).run();
    if (result.problems.length > 0) return result;
  }
  return undefined;
}
