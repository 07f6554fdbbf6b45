/** What a simulated ring costs and achieves, in numbers. */
import { randomPoint } from "../../src/ring/arc.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import { grow, largestArc } from "./ring-churn.ts";
import { RingSimulator } from "./ring-simulator.ts";
import { firstAtOrAfter } from "./standing-ring.ts";

/** Suspicion takes so long at most, on a network like a LAN. */
const DETECTED_MS = 1500;
const SETTLED_MS = 4000;
const LOOKUP_MS_MAX = 4000;
const CURVE_STEP_MS = 250;
/** A lookup that takes longer met a node that is dead. */
const PROMPT_MS = 40;

export interface LookupFigures {
  readonly begun: number;
  readonly failed: number;
  /** Named another than the live owner. */
  readonly wrong: number;
  readonly hopsMean: number;
  readonly hopsP99: number;
  /** How many lookups took so many hops. */
  readonly histogram: readonly number[];
}

export interface TrafficFigures {
  /** Per node and second; bytes as servers pack messages, without frame heads and TLS. */
  readonly messages: number;
  readonly bytes: number;
}

/** `lookups` random ones, spread over `ms` of a ring that changes no more, and what was sent meanwhile. */
export function observe(
  simulator: RingSimulator,
  options: { readonly ms: number; readonly lookups: number },
): LookupFigures & { readonly traffic: TrafficFigures } {
  const { members } = simulator;
  const order = members.map((node) => node.member.nodeId).sort();
  const hops: number[] = [];
  let failed = 0;
  let wrong = 0;
  const endMs = simulator.nowMs + options.ms;
  simulator.traffic.clear();
  for (let i = 0; i < options.lookups; i++) {
    simulator.at(simulator.nowMs + (i * options.ms) / options.lookups, () => {
      simulator.lookup(simulator.pick(members), randomPoint(simulator.random), ({ point, found }) => {
        if (found === undefined) failed++;
        else {
          hops.push(found.hops);
          if (found.owner.nodeId !== order[firstAtOrAfter(order, point)]) wrong++;
        }
      });
    });
  }
  simulator.run(endMs - simulator.nowMs);
  const perNode = (count: number) => count / members.length / (options.ms / 1000);
  const traffic = { messages: perNode(simulator.traffic.messages), bytes: perNode(simulator.traffic.bytes) };
  simulator.runUntil(() => hops.length + failed === options.lookups, LOOKUP_MS_MAX + 100, 10);

  hops.sort((a, b) => a - b);
  const histogram: number[] = [];
  for (const n of hops) histogram[n] = (histogram[n] ?? 0) + 1;
  return {
    begun: options.lookups,
    failed,
    wrong,
    hopsMean: hops.reduce((sum, n) => sum + n, 0) / Math.max(1, hops.length),
    hopsP99: hops[Math.floor(hops.length * 0.99)] ?? 0,
    histogram: Array.from(histogram, (count) => count ?? 0),
    traffic,
  };
}

export interface SecondFigures {
  begun: number;
  /** No owner within the four seconds that a lookup has. */
  failed: number;
  /** When the answer came, another was the live owner. */
  wrong: number;
  /** Of the wrong, those that named a dead node. */
  dead: number;
}

export interface DeathFigures {
  readonly dead: number;
  /** By the second after the deaths in which the lookups began. */
  readonly seconds: readonly SecondFigures[];
  /** Share of the lookups begun in each quarter of a second that had no answer at the first try, within 40 ms. */
  readonly curve: readonly number[];
  /** Answers given later than four seconds after. */
  readonly wrongLate: number;
  /** Answers given when all dead were detected. */
  readonly deadLate: number;
  /** Until lists and predecessors were right again; undefined: not within 15 s. */
  readonly wholeMs: number | undefined;
}

/** `share` of a standing ring falls silent at once; the others look up `perSecond` points for `seconds`. */
export function observeDeaths(
  simulator: RingSimulator,
  options: { readonly share: number; readonly seconds: number; readonly perSecond: number },
): DeathFigures {
  const everyone = simulator.members;
  const doomed = new Set<NodeId>();
  // Somebody has to be left to ask.
  while (doomed.size < Math.min(everyone.length - 1, Math.round(everyone.length * options.share))) {
    doomed.add(simulator.pick(everyone).member.nodeId);
  }
  const diedMs = simulator.nowMs;
  for (const nodeId of doomed) simulator.crash(nodeId);
  const { members } = simulator;
  const order = members.map((node) => node.member.nodeId).sort();
  const seconds = Array.from({ length: options.seconds }, () => ({ begun: 0, failed: 0, wrong: 0, dead: 0 }));
  const late = { wrong: 0, dead: 0 };
  const quarters = Array.from({ length: options.seconds * 4 }, () => ({ begun: 0, delayed: 0 }));
  const look = (figures: SecondFigures) => {
    figures.begun++;
    const quarter = quarters[Math.floor((simulator.nowMs - diedMs) / CURVE_STEP_MS)];
    if (quarter !== undefined) quarter.begun++;
    simulator.lookup(simulator.pick(members), randomPoint(simulator.random), (outcome) => {
      const { point, found, startedMs, endedMs } = outcome;
      const isDelayed = found === undefined || endedMs - startedMs > PROMPT_MS;
      if (isDelayed && quarter !== undefined) quarter.delayed++;
      if (found === undefined) figures.failed++;
      else if (found.owner.nodeId !== order[firstAtOrAfter(order, point)]) {
        figures.wrong++;
        const isDead = doomed.has(found.owner.nodeId);
        if (isDead) figures.dead++;
        if (endedMs - diedMs > SETTLED_MS) late.wrong++;
        if (isDead && endedMs - diedMs > DETECTED_MS) late.dead++;
      }
    });
  };
  const lookups = options.seconds * options.perSecond;
  for (let i = 0; i < lookups; i++) {
    const afterMs = (i * 1000) / options.perSecond;
    simulator.at(diedMs + afterMs, () => look(seconds[Math.floor(afterMs / 1000)]!));
  }
  let wholeMs = simulator.runUntil(() => simulator.disorder() === undefined, options.seconds * 1000, 50);
  simulator.run(diedMs + options.seconds * 1000 + LOOKUP_MS_MAX + 100 - simulator.nowMs);
  if (
    wholeMs === undefined &&
    simulator.runUntil(() => simulator.disorder() === undefined, 15_000) !== undefined
  ) {
    wholeMs = simulator.nowMs - diedMs;
  }
  const curve = quarters.map(({ begun, delayed }) => delayed / Math.max(1, begun));
  return { dead: doomed.size, seconds, curve, wrongLate: late.wrong, deadLate: late.dead, wholeMs };
}

/**
 * The largest arc, as a multiple of the mean one, of a ring in which each joiner
 * chose its own place.
 *
 * @param atOnce how many join at the same time.
 */
export function arcAfterJoins(options: {
  readonly nodes: number;
  readonly seed: number;
  readonly atOnce: number;
}): number {
  const simulator = new RingSimulator({ seed: options.seed });
  if (options.atOnce === 0) grow(simulator, options.nodes);
  else {
    simulator.bootstrap(randomPoint(simulator.random));
    while (simulator.up.length < options.nodes) {
      const { members } = simulator;
      const batch = Math.min(options.atOnce, options.nodes - simulator.up.length, members.length);
      for (let i = 0; i < batch; i++) simulator.joinBy(simulator.pick(members));
      simulator.run(options.atOnce === 1 ? 40 : 300);
    }
  }
  return largestArc(simulator);
}

/** Suspicions of `kill`ed and of live nodes in a ring of five whose members all watch one another. */
export function observeDetector(options: {
  readonly seed: number;
  readonly jitterMs: number;
  readonly lossRatio: number;
  readonly isRefusing: boolean;
  /** Time without faults but those of the network. */
  readonly calmMs: number;
}): { readonly falseSuspicions: number; readonly detectedMsMax: number; readonly detectedMsMedian: number } {
  const simulator = new RingSimulator({ seed: options.seed, network: { isRefusing: options.isRefusing } });
  grow(simulator, 5);
  for (const { ring } of simulator.up) {
    const others = [...simulator.nodes.keys()].filter((nodeId) => nodeId !== ring.self.nodeId);
    ring.watch(others, simulator.nowMs);
  }
  Object.assign(simulator.network, { delayMsMax: options.jitterMs, lossRatio: options.lossRatio });
  simulator.run(2000 + options.calmMs);
  const falseSuspicions = simulator.suspicions.length;
  const { nodeId } = simulator.pick(simulator.up).member;
  const diedMs = simulator.nowMs;
  simulator.crash(nodeId);
  simulator.run(3000);
  const tookMs = simulator.suspicions
    .filter(({ of, ms }) => of === nodeId && ms >= diedMs)
    .map(({ ms }) => ms - diedMs)
    .sort((a, b) => a - b);
  return {
    falseSuspicions,
    detectedMsMax: tookMs.length < 4 ? Number.POSITIVE_INFINITY : tookMs.at(-1)!,
    detectedMsMedian: tookMs[Math.floor(tookMs.length / 2)] ?? Number.POSITIVE_INFINITY,
  };
}
