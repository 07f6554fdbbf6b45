/** `npm run simulate -- replication`: replica groups under seeded faults, and what must hold. */
import { parseArgs } from "node:util";
import { BREAKS, type Break, loadBroken } from "../replication/broken-replication.ts";
import { ReplicationSimulator, type SimulationResult } from "./replication-simulator.ts";
import { STORIES, type Story } from "./replication-story.ts";

const USAGE = `replication [--seed 1] [--seeds 100] [--seconds S] [--story NAME] [--trace] [--breaks [--break TEXT] [--catches 3]]
  --seeds groups live through random faults, beginning with --seed; a seed always gives the same run.
  --seconds: stop beginning new ones after so long. --trace: print every message and write.
  --story: only that schedule; "all": each of them in turn, and in between whatever a seed invents; see below.
  --breaks: instead, each rule of the protocol is broken on purpose; prints how many seeds it took to notice,
  three times over (--catches); --break TEXT: only those whose name holds it.
  Times are virtual. Exit code 1 when anything that must hold did not.`;

/** @throws {Error} an argument is wrong; the message says which. */
export async function simulateReplication(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      seeds: { type: "string", default: "100" },
      seconds: { type: "string" },
      story: { type: "string", default: "" },
      trace: { type: "boolean", default: false },
      breaks: { type: "boolean", default: false },
      break: { type: "string", default: "" },
      catches: { type: "string", default: "3" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    const stories = STORIES.map(
      ({ name, row, text }) => `  ${name.padEnd(26)} ${row === undefined ? "" : `row ${row}`}\t${text}\n`,
    );
    process.stdout.write(`${USAGE}\nStories:\n${stories.join("")}`);
    return 0;
  }
  const [seed, seeds, seconds] = [values.seed, values.seeds, values.seconds ?? "1e9"].map(Number);
  if (!Number.isInteger(seed) || !Number.isInteger(seeds) || !(seconds! > 0))
    throw new Error("--seed, --seeds and --seconds must be numbers");
  const story = STORIES.find(({ name }) => name === values.story);
  if (story === undefined && values.story !== "" && values.story !== "all")
    throw new Error(`--story must be all or one of: ${STORIES.map(({ name }) => name).join(", ")}`);
  if (values.breaks) {
    const broken = BREAKS.filter(({ name }) => name.includes(values.break));
    return breakAll(broken, seed!, seeds!, Number(values.catches));
  }
  const untilMs = performance.now() + seconds! * 1000;
  const sums = {
    runs: 0,
    failed: 0,
    operations: 0,
    acknowledged: 0,
    leaders: 0,
    crashes: 0,
    watched: 0,
    staleReads: 0,
    undecided: 0,
    stuck: 0,
  };
  const wholeMs: number[] = [];
  for (let i = 0; i < seeds! && performance.now() < untilMs; i++) {
    const told = values.story === "all" ? storyFor(seed! + i) : story;
    const result = simulateOne(seed! + i, {
      ...(told === undefined ? {} : { story: told }),
      ...(values.trace ? { trace: (line: string) => process.stdout.write(`${line}\n`) } : {}),
    });
    sums.runs++;
    sums.operations += result.operations;
    sums.acknowledged += result.acknowledged;
    sums.leaders += result.leaders;
    sums.crashes += result.crashes;
    sums.watched += result.watched;
    sums.staleReads += result.staleReads;
    if (result.isUndecided) sums.undecided++;
    if (result.wholeMs === undefined) sums.stuck++;
    else wholeMs.push(result.wholeMs);
    if (result.problems.length === 0) continue;
    sums.failed++;
    process.stdout.write(
      `seed ${result.seed} ${told?.name ?? ""} FAILED\n  ${result.problems.join("\n  ")}\n`,
    );
  }
  wholeMs.sort((a, b) => a - b);
  const at = (share: number) => Math.round(wholeMs[Math.floor((wholeMs.length - 1) * share)] ?? 0);
  process.stdout.write(
    `${sums.runs} seeds from ${seed}: ${sums.failed} failed; ${sums.operations} operations (${sums.acknowledged} changes ` +
      `acknowledged), ${sums.watched} changes watched, ${sums.staleReads} stale reads, ${sums.leaders} leaders, ${sums.crashes} crashes; whole after ${at(0.5)} ms (p99 ${at(0.99)}, ` +
      `max ${at(1)}); ${sums.stuck} without a quorum, ${sums.undecided} undecided\n`,
  );
  return sums.failed === 0 ? 0 : 1;
}

/** A third of all seeds tell no story. */
export function storyFor(seed: number): Story | undefined {
  return seed % 3 === 0 ? undefined : STORIES[Math.floor(seed / 3) % STORIES.length];
}

/** @param options.trace hears of every message and write. */
export function simulateOne(
  seed: number,
  options: { story?: Story; trace?: (line: string) => void } = {},
): SimulationResult {
  return new ReplicationSimulator(seed, options).run();
}

/** A line a break: seeds until it was caught, once and again, and what was seen first. */
async function breakAll(
  breaks: readonly Break[],
  seed: number,
  seeds: number,
  catches: number,
): Promise<number> {
  let missed = 0;
  for (const broken of breaks) {
    const Broken = await loadBroken(broken);
    const beganMs = performance.now();
    const needed: number[] = [];
    let last = seed - 1;
    let problem = "";
    let i = 0;
    for (; i < seeds && needed.length < catches; i++) {
      const result = runBroken(Broken, broken, seed + i);
      if (result.problems.length === 0) continue;
      problem ||= result.problems[0]!;
      needed.push(seed + i - last);
      last = seed + i;
    }
    if (needed.length === 0) missed++;
    const found = needed.length === 0 ? `not in ${i} seeds` : `after ${needed.join(", ")}`;
    const msPerSeed = Math.round((performance.now() - beganMs) / Math.max(1, i));
    process.stdout.write(
      `${broken.name.padEnd(80)} ${(broken.story ?? "").padEnd(12)} ${found.padEnd(18)} ${msPerSeed} ms each; ${problem.replaceAll("\n", " ").slice(0, 110)}\n`,
    );
  }
  return missed === 0 ? 0 : 1;
}

function runBroken(
  Broken: typeof ReplicationSimulator,
  { story: name }: Break,
  seed: number,
): SimulationResult {
  const story = STORIES.find((one) => one.name === name);
  return new Broken(seed, story === undefined ? {} : { story }).run();
}

/** A seed that notices the break: the one known to, else the first from `seed` on. */
export async function findBreak(
  broken: Break,
  seed: number,
  seeds: number,
): Promise<SimulationResult | undefined> {
  const Broken = await loadBroken(broken);
  const known = broken.seed === undefined ? [] : [broken.seed];
  for (const one of [...known, ...Array.from({ length: seeds }, (_, i) => seed + i)]) {
    const result = runBroken(Broken, broken, one);
    if (result.problems.length > 0) return result;
  }
  return undefined;
}
