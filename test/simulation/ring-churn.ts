/** Faults first, then calm, then what must hold: one seeded run over a ring. */
import { arcLength, randomPoint } from "../../src/ring/arc.ts";
import { RING_SIZE } from "../../src/ring/identifier.ts";
import type { Ring } from "../../src/ring/ring.ts";
import { type LookupOutcome, RingSimulator, type SimulatedNode } from "./ring-simulator.ts";
import { RingWitness } from "./ring-witness.ts";
import { firstAtOrAfter } from "./standing-ring.ts";

/** Within this virtual time after the last fault the ring is whole again. */
export const CONVERGE_MS_MAX = 15_000;
const BUDGET_MS = 5000;
const LOOKUP_EVERY_MS = 100;
/** After so many of the faults none follows for six seconds. */
const QUIET_RATIO = 0.1;

export interface ChurnOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly successors: number;
  /** Virtual time with faults. */
  readonly faultyMs: number;
  readonly splits: boolean;
  /** Another one than the servers', broken on purpose. */
  readonly ringClass?: typeof Ring;
}

export interface ChurnResult {
  /** Empty when all that must hold did. */
  readonly problems: readonly string[];
  readonly convergedMs: number | undefined;
  /** How often Zave's invariants were in force and looked at. */
  readonly checks: number;
  readonly answersJudged: number;
  readonly simulator: RingSimulator;
}

/** A ring that grows by a tenth at a time, each node placed and let in by a random member; then it settles. */
export function grow(simulator: RingSimulator, nodes: number): number | undefined {
  simulator.bootstrap(randomPoint(simulator.random));
  while (simulator.up.length < nodes) {
    const { members } = simulator;
    const batch = Math.min(nodes - simulator.up.length, Math.max(1, Math.floor(members.length / 10)));
    for (let i = 0; i < batch; i++) simulator.joinBy(simulator.pick(members));
    simulator.run(300);
  }
  return simulator.runUntil(() => simulator.disorder() === undefined, 60_000, 100);
}

/** Random joins, leaves, crashes, restarts, pauses, cuts, loss and delay, then calm. */
export function churn(options: ChurnOptions): ChurnResult {
  const { seed, nodes, successors, faultyMs } = options;
  const simulator = new RingSimulator({
    seed,
    successors,
    // Of both kinds: those that tick when something is due show that nothing is forgotten.
    isResting: seed % 4 < 2,
    ...(options.ringClass === undefined ? {} : { ringClass: options.ringClass }),
  });
  const witness = new RingWitness(simulator);
  const problems: string[] = [];
  if (grow(simulator, nodes) === undefined) problems.push(`never grew: ${simulator.disorder()}`);

  // At most L - 1 nodes are lost within five seconds, so that every list keeps a live one.
  let lostMs: number[] = [];
  const mayLose = () => {
    lostMs = lostMs.filter((ms) => simulator.nowMs - ms < BUDGET_MS);
    if (lostMs.length >= successors - 1 || simulator.members.length < 3) return false;
    lostMs.push(simulator.nowMs);
    return true;
  };
  const endMs = simulator.nowMs + faultyMs;
  while (simulator.nowMs < endMs) {
    // How the network is has to be seen also when nobody's view changes.
    simulator.onChange?.();
    fault(simulator, mayLose, options);
    simulator.onChange?.();
    let quietMs = 50 + Math.floor(simulator.random() * 900);
    if (simulator.random() < QUIET_RATIO) quietMs += 6000;
    for (; quietMs > 0; quietMs -= LOOKUP_EVERY_MS) {
      const { members } = simulator;
      if (members.length > 0) {
        const asker = simulator.pick(members);
        simulator.lookup(asker, randomPoint(simulator.random), (outcome) => witness.judge(outcome));
      }
      simulator.run(Math.min(quietMs, LOOKUP_EVERY_MS));
    }
  }

  simulator.calm();
  simulator.runUntil(() => simulator.up.every((node) => node.pausedUntilMs <= simulator.nowMs), 10_000);
  const disorders = () =>
    simulator
      .acquainted()
      // One that was let in by nodes that are all gone can only go on trying.
      .filter((group) => group.length > 1 || group[0]!.ring.isMember)
      .flatMap((group) => simulator.disorder(group) ?? []);
  const convergedMs = simulator.runUntil(() => disorders().length === 0, CONVERGE_MS_MAX);
  if (convergedMs === undefined) problems.push(`not whole after calm: ${disorders().join(", ")}`);
  const isOneGroup = simulator.acquainted().length === 1;
  if (isOneGroup && convergedMs !== undefined) witness.begin();
  simulator.run(4000);
  if (isOneGroup) {
    // A place that was asked for during the faults may still be taken now: the witness allows for it.
    const { failed } = lookUp(simulator, 100, (outcome) => witness.judge(outcome));
    if (failed > 0) problems.push(`${failed} lookups of 100 failed after calm`);
    const isFixed = simulator.runUntil(() => wrongFingers(simulator).length === 0, CONVERGE_MS_MAX, 200);
    if (isFixed === undefined) problems.push(...wrongFingers(simulator).slice(0, 3));
  }
  problems.push(...simulator.violations.slice(0, 3));
  const { checks, answersJudged } = witness;
  return { problems, convergedMs, checks, answersJudged, simulator };
}

function fault(simulator: RingSimulator, mayLose: () => boolean, options: ChurnOptions): void {
  const { random } = simulator;
  const steady = simulator.members.filter((node) => node.pausedUntilMs <= simulator.nowMs);
  if (steady.length === 0) return;
  const node = simulator.pick(steady);
  const other = simulator.pick(simulator.members);
  const draw = random();
  if (draw < 0.2) {
    if (simulator.up.length < options.nodes * 1.5) simulator.joinBy(node);
  } else if (draw < 0.3) {
    if (mayLose()) simulator.leave(node.member.nodeId);
  } else if (draw < 0.5) {
    simulator.network.isRefusing = random() < 0.5;
    if (mayLose()) simulator.crash(node.member.nodeId);
  } else if (draw < 0.65) {
    const down = [...simulator.nodes.values()].filter((candidate) => !candidate.isUp);
    if (down.length > 0) simulator.restart(simulator.pick(down).member.nodeId);
  } else if (draw < 0.75) {
    if (mayLose()) simulator.pause(node.member.nodeId, random() * 4000);
  } else if (draw < 0.85) {
    simulator.network.lossRatio = random() < 0.5 ? 0 : random() * 0.3;
    simulator.network.duplicateRatio = random() < 0.5 ? 0 : 0.2;
    simulator.network.delayMsMax = random() < 0.5 ? 2 : 2 + Math.floor(random() * 300);
  } else if (draw < 0.95) {
    // With one cable cut somewhere nothing is promised: every other ring has none.
    if (node !== other && options.seed % 2 === 1) simulator.cut(node.member.nodeId, other.member.nodeId);
  } else {
    simulator.heal();
    if (options.splits && random() < 0.5) splitInTwo(simulator);
  }
}

/** By lot, not by place: both halves are everywhere on the circle. Neither is empty. */
export function splitInTwo(simulator: RingSimulator): void {
  const up = simulator.up.map((node) => node.member.nodeId);
  const sides = new Map(up.map((nodeId, i) => [nodeId, i < 2 ? i === 0 : simulator.random() < 0.5]));
  simulator.split((nodeId) => sides.get(nodeId) ?? false);
}

/** Random points, one each 5 ms; what was answered goes to `judge`. */
export function lookUp(
  simulator: RingSimulator,
  count: number,
  judge: (outcome: LookupOutcome) => void,
): { readonly hops: number[]; readonly failed: number } {
  const hops: number[] = [];
  for (let i = 0; i < count; i++) {
    const asker: SimulatedNode = simulator.pick(simulator.members);
    simulator.lookup(asker, randomPoint(simulator.random), (outcome) => {
      if (outcome.found !== undefined) hops.push(outcome.found.hops);
      judge(outcome);
    });
    simulator.run(5);
  }
  simulator.run(5000);
  return { hops, failed: count - hops.length };
}

/** Fingers that are not the owner of the point where they start. */
export function wrongFingers(simulator: RingSimulator): string[] {
  const order = simulator.members.map((node) => node.member.nodeId).sort();
  const wrong: string[] = [];
  for (const { member, ring } of simulator.members) {
    for (const [start, finger] of ring.fingerStarts()) {
      const owner = order[firstAtOrAfter(order, start)]!;
      if (finger.nodeId !== owner) {
        wrong.push(
          `a finger of ${member.nodeId.slice(0, 6)} to ${start.slice(0, 6)} is ${finger.nodeId.slice(0, 6)}, not ${owner.slice(0, 6)}`,
        );
      }
    }
  }
  return wrong;
}

/** The largest arc, as a multiple of the mean one. */
export function largestArc(simulator: RingSimulator): number {
  const order = simulator.members.map((node) => node.member.nodeId).sort();
  let largest = 0;
  for (let i = 0; i < order.length; i++) {
    const length = arcLength(order[(i + order.length - 1) % order.length]!, order[i]!);
    largest = Math.max(largest, Number((length * 1_000_000_000n) / RING_SIZE) / 1_000_000_000);
  }
  return largest * order.length;
}
