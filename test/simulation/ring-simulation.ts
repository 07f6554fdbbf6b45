/** `npm run simulate -- ring`: figures of one ring, and faults with what must hold after them. */
import { parseArgs } from "node:util";
import { CONVERGE_MS_MAX, churn, grow, largestArc, lookUp, splitInTwo } from "./ring-churn.ts";
import { RingSimulator } from "./ring-simulator.ts";

export const RING_USAGE = `ring [--nodes 10] [--seed 1] [--seeds 1] [--minutes 0.5] [--successors 8] [--kill 0.2] [--split]
  grows a ring of --nodes and prints its figures; --kill: that share dies at once; --split: two halves for 15 s.
  Then --seeds rings (at most 50 nodes each) live through --minutes of random faults each, beginning with --seed.
  Times are virtual. Exit code 1 when anything that must hold did not.`;

/** @throws {Error} an argument is wrong; the message says which. */
export async function simulateRing(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      nodes: { type: "string", default: "10" },
      seed: { type: "string", default: "1" },
      seeds: { type: "string", default: "1" },
      minutes: { type: "string", default: "0.5" },
      successors: { type: "string", default: "8" },
      kill: { type: "string" },
      split: { type: "boolean", default: false },
    },
  });
  const nodes = count("nodes", values.nodes, 1, 20_000);
  const seed = count("seed", values.seed, 0, 2 ** 31);
  const seeds = count("seeds", values.seeds, 0, 1_000_000);
  const successors = count("successors", values.successors, 1, 32);
  const faultyMs = Number(values.minutes) * 60_000;
  if (!(faultyMs >= 0)) throw new Error("--minutes must be a number");
  const kill = values.kill === undefined ? 0 : Number(values.kill);
  if (!(kill >= 0 && kill < 1)) throw new Error("--kill must be a share, e.g. 0.2");

  let failures = figures({ nodes, seed, successors, kill, split: values.split });
  if (faultyMs > 0) {
    for (let i = 0; i < seeds; i++) {
      const result = churn({
        seed: seed + i,
        nodes: Math.min(nodes, 50),
        successors,
        faultyMs,
        splits: values.split,
      });
      if (result.problems.length > 0) failures++;
      const verdict = result.problems.length === 0 ? "ok" : `FAILED: ${result.problems.join("; ")}`;
      print(`faults, seed ${seed + i}`, `whole ${result.convergedMs ?? "never"} ms after calm, ${verdict}`);
    }
  }
  return failures === 0 ? 0 : 1;
}

function figures(options: {
  nodes: number;
  seed: number;
  successors: number;
  kill: number;
  split: boolean;
}): number {
  const { nodes, seed, successors, kill, split } = options;
  const simulator = new RingSimulator({ seed, successors });
  let failures = 0;
  const expectWhole = (what: string, msMax: number) => {
    const tookMs = simulator.runUntil(() => simulator.disorder() === undefined, msMax, 100);
    if (tookMs === undefined) failures++;
    print(what, tookMs === undefined ? `FAILED: ${simulator.disorder()}` : `${tookMs} ms`);
  };
  const settledMs = grow(simulator, nodes);
  if (settledMs === undefined) failures++;
  print("nodes, seed", `${nodes}, ${seed}`);
  print("whole after the last join", settledMs === undefined ? "FAILED" : `${settledMs} ms`);
  print("largest arc", `${largestArc(simulator).toFixed(2)} x the mean`);
  // Time for each finger to be fixed once more.
  simulator.run(20_000);
  traffic(simulator, "idle", 5000);
  failures += lookups(simulator, "lookups");
  if (kill > 0) {
    const doomed = simulator.members.filter(() => simulator.random() < kill);
    for (const node of doomed.slice(0, nodes - 1)) simulator.crash(node.member.nodeId);
    print("killed at once", `${doomed.length}`);
    traffic(simulator, "under change", 2000);
    expectWhole("whole again after", CONVERGE_MS_MAX);
    failures += lookups(simulator, "lookups after the deaths");
  }
  if (split) {
    splitInTwo(simulator);
    simulator.run(15_000);
    simulator.heal();
    expectWhole("whole again after a split", 60_000);
  }
  for (const violation of simulator.violations.slice(0, 5)) print("FAILED", violation);
  return failures + simulator.violations.length;
}

function traffic(simulator: RingSimulator, what: string, ms: number): void {
  const before = { ...simulator.counts };
  simulator.run(ms);
  const perNode = (simulator.counts.messages - before.messages) / simulator.members.length / (ms / 1000);
  const bytes =
    (simulator.counts.bytes - before.bytes) / Math.max(1, simulator.counts.sampled - before.sampled);
  print(
    `messages per node and second, ${what}`,
    `${perNode.toFixed(1)} (${((perNode * bytes) / 1024).toFixed(1)} KiB as JSON)`,
  );
}

function lookups(simulator: RingSimulator, what: string): number {
  const { hops, wrong } = lookUp(simulator, 1000);
  hops.sort((a, b) => a - b);
  const mean = hops.reduce((sum, n) => sum + n, 0) / Math.max(1, hops.length);
  const histogram = new Map<number, number>();
  for (const n of hops) histogram.set(n, (histogram.get(n) ?? 0) + 1);
  print(
    what,
    `${mean.toFixed(2)} hops in the mean, ${hops[Math.floor(hops.length * 0.99)] ?? 0} at p99; ` +
      [...histogram].map(([n, times]) => `${n}:${times}`).join(" "),
  );
  for (const line of wrong.slice(0, 5)) print("FAILED", line);
  return wrong.length;
}

function count(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new Error(`--${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}

function print(what: string, figure: string): void {
  process.stdout.write(`${what.padEnd(44)} ${figure}\n`);
}
