/**
 * The ring at scale, in virtual time: the servers' own state machines. Limits are
 * in hops, shares and virtual milliseconds, so they hold on any machine; only the
 * rows on the simulator's own pace, and those of the crawl, are of real time.
 */
import { arcAfterJoins, observe, observeDeaths, observeDetector } from "../simulation/ring-figures.ts";
import { RingSimulator } from "../simulation/ring-simulator.ts";
import { stand } from "../simulation/standing-ring.ts";
import type { BenchmarkOptions, Figure } from "./figure.ts";
import { idleRing } from "./idle-ring.ts";
import { observeCalls } from "./partition-cache.ts";

const CRAWLED_PAGES = 1000;
const HOUR_MS = 3_600_000;

type Report = (figure: Figure) => void;

const PARTS: Readonly<Record<string, (report: Report, seed: number) => void | Promise<void>>> = {
  hops: (report, seed) => hops(seed, report),
  deaths: (report, seed) => {
    for (const nodes of [100, 1000]) for (const share of [0.2, 0.5]) deaths(seed, nodes, share, report);
  },
  arcs: (report, seed) => arcs(seed, report),
  machines: (report, seed) => idle(seed, report),
  detector: (report, seed) => detector(seed, report),
  calls: (report) => calls(report),
  idle: (report) => idleRing(report),
};

export async function benchmark(report: Report, { parts }: BenchmarkOptions): Promise<void> {
  const seed = Number(process.env.SEED ?? 1);
  const names = Object.keys(PARTS);
  const unknown = parts.filter((part) => !names.includes(part));
  if (unknown.length > 0) throw new Error(`no such part: ${unknown.join()}; parts are ${names.join(", ")}`);
  for (const name of parts.length === 0 ? names : parts) await PARTS[name]!(report, seed);
}

/** Not simulated: real servers that crawl. */
async function calls(report: (figure: Figure) => void): Promise<void> {
  const { made, redirects, lookups } = await observeCalls(CRAWLED_PAGES);
  const what = "five servers crawl";
  report({ name: `${what}: calls`, value: made, unit: "" });
  report({ name: `${what}: calls without lookup`, value: 100 * (1 - lookups / made), unit: "%", min: 99 });
  report({ name: `${what}: redirects`, value: (100 * redirects) / made, unit: "%" });
}

function hops(seed: number, report: (figure: Figure) => void): void {
  for (const [nodes, ms, lookups] of [
    [100, 10_000, 2000],
    [1000, 120_000, 5000],
    [10_000, 10_000, 2000],
  ] as const) {
    const simulator = new RingSimulator({ seed });
    stand(simulator, nodes);
    const problem = simulator.disorder() ?? simulator.invalidity();
    if (problem !== undefined) throw new Error(`the ring of ${nodes} does not stand: ${problem}`);
    const startMs = performance.now();
    const cpu = process.cpuUsage();
    const found = observe(simulator, { ms, lookups });
    const { user, system } = process.cpuUsage(cpu);
    const seconds = (performance.now() - startMs) / 1000;
    const what = `N = ${nodes}`;
    report({ name: `${what}: hops, mean`, value: found.hopsMean, unit: "hops", max: Math.log2(nodes) / 2 });
    report({ name: `${what}: hops, p99`, value: found.hopsP99, unit: "hops", max: Math.log2(nodes) });
    report({ name: `${what}: lookups failed or wrong`, value: found.failed + found.wrong, unit: "", max: 0 });
    report({ name: `${what}: idle, per node and second`, value: found.traffic.messages, unit: "messages" });
    report({ name: `${what}: idle, per node and second (bytes)`, value: found.traffic.bytes, unit: "bytes" });
    if (nodes >= 1000) {
      const took = `${what}: ${ms / 1000} virtual s take`;
      report({ name: took, value: (user + system) / 1e6, unit: "s of a core", max: 120 });
      report({ name: `${took} (beside whatever else runs)`, value: seconds, unit: "s" });
    }
  }
}

function deaths(seed: number, nodes: number, share: number, report: (figure: Figure) => void): void {
  const simulator = new RingSimulator({ seed });
  stand(simulator, nodes);
  simulator.run(2000);
  const { seconds, wrongLate, deadLate, wholeMs } = observeDeaths(simulator, {
    share,
    seconds: 10,
    perSecond: 200,
  });
  const what = `N = ${nodes}, ${share * 100} % dead`;
  const failed = (from: number, to: number) => {
    const counted = seconds.slice(from, to);
    const sum = (of: "begun" | "failed") => counted.reduce((total, second) => total + second[of], 0);
    return (100 * sum("failed")) / sum("begun");
  };
  report({
    name: `${what}: failed of the 1st second`,
    value: failed(0, 1),
    unit: "%",
    max: share < 0.5 ? 2 : 10,
  });
  report({ name: `${what}: failed of seconds 2 to 5`, value: failed(1, 5), unit: "%" });
  report({ name: `${what}: failed from second 6 on`, value: failed(5, 10), unit: "%", max: 0 });
  report({ name: `${what}: wrong answers later than 4 s`, value: wrongLate, unit: "", max: 0 });
  report({ name: `${what}: dead nodes named after 1.5 s`, value: deadLate, unit: "", max: 0 });
  report({
    name: `${what}: whole again after`,
    value: wholeMs ?? Number.POSITIVE_INFINITY,
    unit: "ms (virtual)",
    max: 15_000,
  });
}

/** One by one is the slow one: two seeds here, as many as wanted by `npm run simulate -- ring --arcs 1`. */
function arcs(seed: number, report: (figure: Figure) => void): void {
  for (const [atOnce, seeds] of [
    [20, 5],
    [1, 2],
  ] as const) {
    let largest = 0;
    for (let i = 0; i < seeds; i++) {
      largest = Math.max(largest, arcAfterJoins({ nodes: 1000, seed: seed + i, atOnce }));
    }
    report({
      name: `N = 1000, ${atOnce} at once: largest arc of ${seeds} seeds`,
      value: largest,
      unit: "x the mean",
      max: 2.1,
    });
  }
}

function idle(seed: number, report: (figure: Figure) => void): void {
  const simulator = new RingSimulator({ seed, isResting: true });
  stand(simulator, 5);
  const startUs = process.cpuUsage().user;
  const { traffic } = observe(simulator, { ms: 60_000, lookups: 1 });
  const core = (process.cpuUsage().user - startUs) / 60e6;
  report({ name: "N = 5: idle, per node and second", value: traffic.messages, unit: "messages" });
  report({ name: "N = 5: idle, per node and second (bytes)", value: traffic.bytes, unit: "bytes" });
  report({ name: "N = 5: state machines of all five", value: 100 * core, unit: "% of a core", max: 3 });
}

function detector(seed: number, report: (figure: Figure) => void): void {
  const silent = { seed, jitterMs: 2, lossRatio: 0, isRefusing: false, calmMs: 0 };
  let detectedMs = 0;
  let refusedMs = 0;
  for (let i = 0; i < 50; i++) {
    detectedMs = Math.max(detectedMs, observeDetector({ ...silent, seed: seed + i }).detectedMsMax);
    refusedMs = Math.max(
      refusedMs,
      observeDetector({ ...silent, isRefusing: true, seed: seed + i }).detectedMsMax,
    );
  }
  report({
    name: "N = 5: silent death suspected by all within",
    value: detectedMs,
    unit: "ms (virtual)",
    max: 1500,
  });
  report({
    name: "N = 5: refusing death suspected by all within",
    value: refusedMs,
    unit: "ms (virtual)",
    max: 450,
  });
  const rough = observeDetector({ seed, jitterMs: 200, lossRatio: 0.05, isRefusing: false, calmMs: HOUR_MS });
  report({
    name: "N = 5, 200 ms jitter, 5 % loss: false suspicions an hour",
    value: rough.falseSuspicions,
    unit: "",
    max: 0,
  });
  report({
    name: "N = 5, 200 ms jitter, 5 % loss: death suspected within",
    value: rough.detectedMsMax,
    unit: "ms (virtual)",
  });
}
