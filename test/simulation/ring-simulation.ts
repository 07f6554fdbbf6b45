/** `npm run simulate -- ring`: figures of one ring, and faults with what must hold after them. */
import { parseArgs } from "node:util";
import { CONVERGE_MS_MAX, churn, grow, largestArc, splitInTwo } from "./ring-churn.ts";
import { arcAfterJoins, observe, observeDeaths } from "./ring-figures.ts";
import { RING_RULES } from "./ring-rules.ts";
import { tryRule } from "./ring-schedule.ts";
import { RingSimulator } from "./ring-simulator.ts";
import { stand } from "./standing-ring.ts";

/** Rings up to this size live through random faults. */
const CHURNED_MAX = 50;
/** Larger ones are not grown by joins, but stand from the start. */
const GROWN_MAX = 200;
const LOOKUPS = 1000;
/** Rings that live through faults with fewer successors than servers have. */
const SMALL_BELOW = 24;
const SMALL_SUCCESSORS = 3;

export const RING_USAGE = `ring [--nodes 10] [--seed 1] [--seeds 1] [--minutes 0.5] [--successors 8] [--kill 0.2] [--split] [--arcs 1|20] [--rules]
  Figures of a ring of --nodes that lives for --minutes; --kill: that share then dies at once; --split: two halves
  for 15 s. Up to ${CHURNED_MAX} nodes, --seeds further rings, beginning with --seed, live through --minutes of random
  faults each, watched after each event (with ${SMALL_SUCCESSORS} successors when there are fewer than ${SMALL_BELOW} nodes); of larger rings the
  figures are printed for --seeds seeds.
  --arcs: only the largest arc, of rings whose nodes join one by one, or 20 at once.
  --rules: only the table of rules, each kept and each broken on purpose, with what showed it.
  Times are virtual. Exit code 1 when anything that must hold did not; its seed replays it.`;

interface Options {
  readonly nodes: number;
  readonly seed: number;
  readonly successors: number;
  readonly ms: number;
  readonly kill: number;
  readonly split: boolean;
}

/** @throws {Error} an argument is wrong; the message says which. */
export async function simulateRing(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      nodes: { type: "string", default: "10" },
      seed: { type: "string", default: "1" },
      seeds: { type: "string", default: "1" },
      minutes: { type: "string", default: "0.5" },
      successors: { type: "string" },
      kill: { type: "string", default: "0" },
      split: { type: "boolean", default: false },
      arcs: { type: "string", default: "0" },
      rules: { type: "boolean", default: false },
    },
  });
  const options: Options = {
    nodes: count("nodes", values.nodes, 1, 20_000),
    seed: count("seed", values.seed, 0, 2 ** 31),
    successors: count("successors", values.successors ?? "8", 1, 32),
    ms: number("minutes", values.minutes, 0, 24 * 60) * 60_000,
    kill: number("kill", values.kill, 0, 0.99),
    split: values.split,
  };
  const seeds = count("seeds", values.seeds, 1, 1_000_000);
  if (!["0", "1", "20"].includes(values.arcs))
    throw new Error("--arcs must be 1 or 20: so many join at once");
  const atOnce = Number(values.arcs);
  const each = (run: (seed: number) => boolean) => {
    let failures = 0;
    for (let seed = options.seed; seed < options.seed + seeds; seed++) if (!run(seed)) failures++;
    return failures;
  };

  if (values.rules) return rules(options.seed);
  if (atOnce > 0) {
    return each((seed) => {
      const largest = arcAfterJoins({ nodes: options.nodes, seed, atOnce });
      print(`largest arc, seed ${seed}`, `${largest.toFixed(2)} x the mean`);
      return largest <= 2.1;
    }) === 0
      ? 0
      : 1;
  }
  let failures: number;
  if (options.nodes > CHURNED_MAX) failures = each((seed) => figures({ ...options, seed }));
  else {
    failures = figures({ ...options, ms: Math.min(options.ms, 20_000) }) ? 0 : 1;
    // The ring's own invariants are promised while more nodes than successors stand still: few must be enough.
    const isSmall = values.successors === undefined && options.nodes < SMALL_BELOW;
    const successors = isSmall ? SMALL_SUCCESSORS : options.successors;
    if (options.ms > 0) failures += each((seed) => faults({ ...options, successors, seed }));
  }
  return failures === 0 ? 0 : 1;
}

async function rules(seed: number): Promise<number> {
  let failures = 0;
  for (const rule of RING_RULES) {
    const { kept, broken } = await tryRule(rule, seed);
    const isGood = kept === undefined && broken !== undefined;
    if (!isGood) failures++;
    process.stdout.write(
      `${rule.rule}\n  kept:   ${kept === undefined ? "passes" : `FAILED: ${kept}`}\n  broken: ${broken === undefined ? "NOT CAUGHT" : `caught: ${broken}`} (${rule.file})\n`,
    );
  }
  process.stdout.write(`${RING_RULES.length} rules, ${failures} not shown\n`);
  return failures === 0 ? 0 : 1;
}

function faults({ seed, nodes, successors, ms, split }: Options): boolean {
  const { problems, convergedMs, checks, answersJudged } = churn({
    seed,
    nodes,
    successors,
    faultyMs: ms,
    splits: split,
  });
  const isGood = problems.length === 0;
  print(
    `faults, seed ${seed}`,
    isGood
      ? `ok: whole ${convergedMs} ms after; ${checks === 0 ? "never calm enough for the ring's own invariants" : `invariants checked ${checks} times`}, ${answersJudged} answers`
      : `FAILED: ${problems.join("; ")}\n  replay: npm run simulate -- ring --nodes ${nodes} --successors ${successors} --minutes ${ms / 60_000}${split ? " --split" : ""} --seed ${seed}`,
  );
  return isGood;
}

function figures({ nodes, seed, successors, ms, kill, split }: Options): boolean {
  const simulator = new RingSimulator({ seed, successors });
  const problems: string[] = [];
  print("nodes, seed", `${nodes}, ${seed}`);
  if (nodes > GROWN_MAX) {
    stand(simulator, nodes);
    const problem = simulator.disorder() ?? simulator.invalidity();
    if (problem !== undefined) problems.push(`the ring does not stand: ${problem}`);
  } else {
    const settledMs = grow(simulator, nodes);
    print("whole after the last join", settledMs === undefined ? "FAILED" : `${settledMs} ms`);
    if (settledMs === undefined) problems.push(`never grew: ${simulator.disorder()}`);
    // Time for each finger to be fixed once more.
    simulator.run(20_000);
  }
  print("largest arc", `${largestArc(simulator).toFixed(2)} x the mean`);

  if (ms > 0) {
    const startMs = performance.now();
    const cpu = process.cpuUsage();
    const found = observe(simulator, { ms, lookups: LOOKUPS });
    const { user, system } = process.cpuUsage(cpu);
    const halfLog = Math.log2(nodes) / 2;
    print(
      "hops",
      `mean ${found.hopsMean.toFixed(2)} (1/2 log2 N = ${halfLog.toFixed(2)}), p99 ${found.hopsP99} (log2 N = ${(2 * halfLog).toFixed(1)}); by hops ${found.histogram.join(" ")}`,
    );
    print("lookups", `${found.begun} begun, ${found.failed} failed, ${found.wrong} wrong`);
    if (found.failed + found.wrong > 0) problems.push("lookups failed or went wrong in a calm ring");
    print(
      "idle traffic per node and second",
      `${found.traffic.messages.toFixed(1)} messages, ${Math.round(found.traffic.bytes)} bytes`,
    );
    print(
      `${ms / 1000} virtual seconds took`,
      `${((performance.now() - startMs) / 1000).toFixed(1)} s, ${((user + system) / 1e6).toFixed(1)} s of a core`,
    );
  }
  if (kill > 0) {
    const after = observeDeaths(simulator, { share: kill, seconds: 10, perSecond: 200 });
    print("killed at once", `${after.dead}`);
    after.seconds.forEach(({ begun, failed, wrong, dead }, i) => {
      print(
        `lookups begun in second ${i + 1}`,
        `${begun}: ${((100 * failed) / begun).toFixed(1)} % failed, ${wrong} wrong, ${dead} of them dead`,
      );
    });
    print(
      "without answer within 40 ms, % per 250 ms",
      after.curve.map((share) => (100 * share).toFixed(0)).join(" "),
    );
    print("wrong after 4 s, dead named after 1.5 s", `${after.wrongLate}, ${after.deadLate}`);
    if (after.wrongLate + after.deadLate > 0) problems.push("wrong answers after the deaths were detected");
    print("whole again after", after.wholeMs === undefined ? "FAILED" : `${after.wholeMs} ms`);
    if (after.wholeMs === undefined || after.wholeMs > CONVERGE_MS_MAX) {
      problems.push(`not whole again: ${simulator.disorder()}`);
    }
  }
  if (split) {
    splitInTwo(simulator);
    simulator.run(15_000);
    simulator.heal();
    const tookMs = simulator.runUntil(() => simulator.disorder() === undefined, 60_000, 100);
    print("whole again after a split", tookMs === undefined ? "FAILED" : `${tookMs} ms`);
    if (tookMs === undefined) problems.push(`still split: ${simulator.disorder()}`);
  }
  problems.push(...simulator.violations.slice(0, 5));
  for (const problem of problems) print("FAILED", `seed ${seed}: ${problem}`);
  return problems.length === 0;
}

function count(name: string, text: string, min: number, max: number): number {
  const value = number(name, text, min, max);
  if (!Number.isInteger(value)) throw new Error(`--${name} must be a whole number from ${min} to ${max}`);
  return value;
}

function number(name: string, text: string, min: number, max: number): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= min && value <= max)) throw new Error(`--${name} must be a number from ${min} to ${max}`);
  return value;
}

function print(what: string, figure: string): void {
  process.stdout.write(`${what.padEnd(44)} ${figure}\n`);
}
