/**
 * Watches a simulated ring from above, after each event that changed any node's
 * view: Zave's invariants (arXiv 1610.01140), lists in order, and answers to
 * lookups that four seconds after a fault name a live node, the next one.
 *
 * Her invariants are promised while each node kept a live member in its true
 * list of successors for five seconds, in a ring of more than L nodes with a
 * whole network. When that was not so, nothing is promised before the ring has
 * healed; that it heals is for the calm after the faults to show.
 */
import { between } from "../../src/ring/arc.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { LookupOutcome, RingSimulator, SimulatedNode } from "./ring-simulator.ts";
import { firstAtOrAfter } from "./standing-ring.ts";

const BASE_MS = 5000;
/** After a fault, answers may still name who was right before it. */
const GRACE_MS = 4000;
const DELAY_MS_MAX = 200;

/** Who could be asked, in order of place, until the next snapshot. */
interface Snapshot {
  readonly sinceMs: number;
  readonly order: readonly NodeId[];
}

export class RingWitness {
  readonly #simulator: RingSimulator;
  // Oldest first; the last one is the present, the first began before what still counts.
  readonly #snapshots: Snapshot[] = [];
  // When each node could last be asked for the first time, and no longer.
  readonly #cameMs = new Map<NodeId, number>();
  readonly #goneMs = new Map<NodeId, number>();
  /** When the promise was last out of force. */
  #brokenMs = 0;
  #roughMs = 0;
  #calmMs = Number.POSITIVE_INFINITY;
  #isHealed = false;
  /** How often the invariants were in force and checked. */
  checks = 0;
  answersJudged = 0;

  constructor(simulator: RingSimulator) {
    this.#simulator = simulator;
    simulator.onChange = () => this.#look();
  }

  /** The ring was seen to be whole, on a network without faults: all is promised from now on, right answers soon. */
  begin(): void {
    this.#look();
    this.#isHealed = true;
    this.#brokenMs = Number.NEGATIVE_INFINITY;
    this.#roughMs = this.#simulator.nowMs;
    this.#calmMs = this.#simulator.nowMs;
  }

  /** Looks at an answer when it arrives. */
  judge({ asker, point, startedMs, endedMs, found }: LookupOutcome): void {
    if (found === undefined) return;
    this.#look();
    const named = found.owner.nodeId;
    const node = this.#simulator.nodes.get(named);
    const name = named.slice(0, 6);
    const diedMs = node === undefined || node.isUp ? undefined : node.diedMs;
    if (diedMs !== undefined && startedMs - diedMs >= GRACE_MS) {
      this.#violated(`${asker.slice(0, 6)} was told ${name}, dead for ${startedMs - diedMs} ms`);
    }
    // In calm, small rings give right answers too.
    const isCalm = endedMs - this.#calmMs >= GRACE_MS;
    const isSettled = this.#isPromised && endedMs - Math.max(this.#brokenMs, this.#roughMs) >= GRACE_MS;
    if (!isCalm && !isSettled) return;
    this.answersJudged++;
    if (this.#mayBeNamed(named, point, startedMs - GRACE_MS)) return;
    const { order } = this.#snapshots.at(-1)!;
    const owner = order[firstAtOrAfter(order, point)];
    this.#violated(
      `${asker.slice(0, 6)} was told ${name} as owner of ${point.slice(0, 6)}, not ${owner?.slice(0, 6)}`,
    );
  }

  /** Whether `named` is the owner, but for what came or went after `fromMs`. */
  #mayBeNamed(named: NodeId, point: NodeId, fromMs: number): boolean {
    const { order } = this.#snapshots.at(-1)!;
    const wasThere = order.includes(named) || (this.#goneMs.get(named) ?? Number.NEGATIVE_INFINITY) >= fromMs;
    return (
      wasThere &&
      order.every((nodeId) => !isNearer(nodeId, named, point) || (this.#cameMs.get(nodeId) ?? 0) >= fromMs)
    );
  }

  get #isPromised(): boolean {
    return this.#isHealed && this.#simulator.nowMs - this.#brokenMs >= BASE_MS;
  }

  #look(): void {
    const { nowMs, network, isDivided } = this.#simulator;
    if (isDivided) this.#broken();
    if (network.lossRatio > 0 || network.delayMsMax > DELAY_MS_MAX) this.#roughMs = nowMs;
    this.#snapshot();
    if (!this.#hasBase()) this.#broken();
    for (const node of this.#simulator.members) this.#checkList(node);
    if (this.#isPromised) {
      this.checks++;
      const invalid = this.#simulator.invalidity();
      if (invalid === undefined) return;
      this.#violated(invalid);
      this.#broken();
    } else if (!this.#isHealed && nowMs - this.#brokenMs >= BASE_MS) {
      this.#isHealed = this.#simulator.invalidity() === undefined;
      if (!this.#isHealed) return;
      // What the ring forgot while nothing was promised may take as long again to come back.
      this.#brokenMs = nowMs;
    }
  }

  #broken(): void {
    this.#brokenMs = this.#simulator.nowMs;
    this.#isHealed = false;
  }

  #snapshot(): void {
    const { nowMs, members } = this.#simulator;
    const order = members
      .filter((node) => !this.#simulator.isPaused(node))
      .map((node) => node.member.nodeId)
      .sort();
    const last = this.#snapshots.at(-1)?.order;
    if (last?.length === order.length && last.every((nodeId, i) => nodeId === order[i])) return;
    for (const nodeId of order) if (last?.includes(nodeId) !== true) this.#cameMs.set(nodeId, nowMs);
    for (const nodeId of last ?? []) if (!order.includes(nodeId)) this.#goneMs.set(nodeId, nowMs);
    this.#snapshots.push({ sinceMs: nowMs, order });
    while (this.#snapshots.length > 1 && this.#snapshots[1]!.sinceMs < nowMs - 2 * BASE_MS) {
      this.#snapshots.shift();
    }
  }

  /** Whether in each snapshot that still counts, everybody's true list holds one that lives now. */
  #hasBase(): boolean {
    const { successors, nowMs } = this.#simulator;
    const live = new Set(this.#snapshots.at(-1)!.order);
    return this.#snapshots.every(({ order }, at) => {
      const endMs = this.#snapshots[at + 1]?.sinceMs ?? nowMs;
      if (endMs < nowMs - BASE_MS) return true;
      if (order.length <= successors) return false;
      let dead = 0;
      // Twice round, for runs that go over the start.
      for (let i = 0; i < order.length + successors; i++) {
        dead = live.has(order[i % order.length]!) ? 0 : dead + 1;
        if (dead >= successors) return false;
      }
      return true;
    });
  }

  #checkList({ member, ring }: SimulatedNode): void {
    let previous = member.nodeId;
    for (const { nodeId } of ring.successors) {
      if (!between(nodeId, previous, member.nodeId)) {
        this.#violated(`the list of ${member.nodeId.slice(0, 6)} is out of order at ${nodeId.slice(0, 6)}`);
      }
      previous = nodeId;
    }
    if (ring.successors.length > this.#simulator.successors) {
      this.#violated(`the list of ${member.nodeId.slice(0, 6)} is too long`);
    }
  }

  #violated(what: string): void {
    this.#simulator.violations.push(`${this.#simulator.nowMs}: ${what}`);
  }
}

/** Whether one that walks clockwise from `point` meets `nodeId` before `other`. */
function isNearer(nodeId: NodeId, other: NodeId, point: NodeId): boolean {
  return nodeId !== other && (nodeId === point || between(nodeId, point, other)) && other !== point;
}
