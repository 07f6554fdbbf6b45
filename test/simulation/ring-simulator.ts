/**
 * Rings in virtual time: the very state machines of the servers, a seeded random
 * source, and a network that drops, delays, duplicates, reorders and splits.
 *
 * Events wait in one bucket per millisecond, so that ten thousand nodes cost no
 * heap operations. The order of events depends on the seed alone.
 */
import { between } from "../../src/ring/arc.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Found } from "../../src/ring/lookup.ts";
import type { ContactRecord, Member, Sender } from "../../src/ring/member.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import { Ring } from "../../src/ring/ring.ts";
import type { RingEffect } from "../../src/ring/ring-effect.ts";
import { randomFrom } from "./random.ts";
import { RingTraffic } from "./ring-traffic.ts";

const TICK_MS = 50;
/** Between two ticks of a node that rests while nothing is due: as servers do. */
const TICK_MS_MIN = 25;

export interface Network {
  delayMsMin: number;
  delayMsMax: number;
  /** Of all messages. */
  lossRatio: number;
  duplicateRatio: number;
  /** Whether the system of a dead process answers for it. */
  isRefusing: boolean;
}

export interface SimulatedNode {
  readonly member: Member;
  readonly sender: Sender;
  readonly ring: Ring;
  isUp: boolean;
  /** Of the next tick, and the last one. */
  tickDueMs: number;
  tickedMs: number;
  pausedUntilMs: number;
  /** When others first saw it as a member. */
  joinedMs: number | undefined;
  /** When it crashed, or said goodbye. */
  diedMs: number | undefined;
  /** For the rule that a predecessor never moves back past a live one. */
  predecessor: Member | undefined;
}

/** One message on its way. */
class Delivery {
  readonly from: SimulatedNode;
  readonly to: NodeId;
  readonly message: RingMessage;

  constructor(from: SimulatedNode, to: NodeId, message: RingMessage) {
    this.from = from;
    this.to = to;
    this.message = message;
  }
}

/** The frequent ones need no closure each: a message arrives, a node has its tick. */
type Event = Delivery | SimulatedNode | (() => void);

export interface LookupOutcome {
  readonly asker: NodeId;
  readonly point: NodeId;
  readonly startedMs: number;
  readonly endedMs: number;
  readonly found: Found | undefined;
}

export class RingSimulator {
  readonly network: Network = {
    delayMsMin: 1,
    delayMsMax: 2,
    lossRatio: 0,
    duplicateRatio: 0,
    isRefusing: false,
  };
  readonly random: () => number;
  readonly nodes = new Map<NodeId, SimulatedNode>();
  readonly suspicions: { readonly by: NodeId; readonly of: NodeId; readonly ms: number }[] = [];
  /** What must never happen. */
  readonly violations: string[] = [];
  readonly traffic = new RingTraffic();
  nowMs = 0;
  /** Called after each event that changed what some node knows, or which nodes there are. */
  onChange: (() => void) | undefined;
  /** While set, it answers at once in the place of every receiver. */
  oracle: ((to: NodeId, message: RingMessage) => RingMessage | undefined) | undefined;
  readonly #ringClass: typeof Ring;
  /** Length of the successor lists, L. */
  readonly successors: number;
  readonly #contactsMax: number;
  readonly #suspectAfterMs: number;
  readonly #isResting: boolean;
  readonly #events = new Map<number, Event[]>();
  /** Direction `from>to` is cut. */
  readonly #cuts = new Set<string>();
  #sideOf: ((nodeId: NodeId) => unknown) | undefined;
  readonly #lookups = new Map<number, (found: Found | undefined) => void>();
  readonly #choices = new Map<number, (point: NodeId | undefined) => void>();
  #nextRequest = 1;

  constructor(options: {
    seed: number;
    successors?: number;
    contactsMax?: number;
    suspectAfterMs?: number;
    network?: Partial<Network>;
    /** Nodes tick when something is due, as servers do; else each 50 ms, which is cheaper for large rings. */
    isResting?: boolean;
    /** Another one than the servers', broken on purpose. */
    ringClass?: typeof Ring;
  }) {
    this.#ringClass = options.ringClass ?? Ring;
    this.random = randomFrom(options.seed);
    this.successors = options.successors ?? 8;
    this.#contactsMax = options.contactsMax ?? 64;
    this.#suspectAfterMs = options.suspectAfterMs ?? 1200;
    this.#isResting = options.isResting ?? false;
    Object.assign(this.network, options.network);
  }

  /** Up, and a member by its own view. */
  get members(): SimulatedNode[] {
    return [...this.nodes.values()].filter((node) => node.isUp && node.ring.isMember);
  }

  get up(): SimulatedNode[] {
    return [...this.nodes.values()].filter((node) => node.isUp);
  }

  node(nodeId: NodeId): SimulatedNode {
    const node = this.nodes.get(nodeId);
    if (node === undefined) throw new Error(`no node ${nodeId}`);
    return node;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)]!;
  }

  bootstrap(nodeId: NodeId): SimulatedNode {
    const node = this.#start(nodeId, 1, []);
    this.#perform(node, node.ring.bootstrap(this.nowMs));
    return node;
  }

  /** @param known what the contact tells a newcomer of others. */
  join(nodeId: NodeId, contacts: readonly Member[], known: ContactRecord[] = []): SimulatedNode {
    const node = this.#start(nodeId, 1, known);
    this.#perform(node, node.ring.join(contacts, Number.POSITIVE_INFINITY, this.nowMs));
    return node;
  }

  /** As a server does: a member chooses the place, then the new node joins through it. */
  joinBy(contact: SimulatedNode): void {
    const request = this.#nextRequest++;
    this.#choices.set(request, (point) => {
      if (point === undefined || this.nodes.has(point)) return;
      const known = contact.ring.contacts();
      this.join(point, [contact.member, ...known.slice(0, 16)], known);
    });
    this.#perform(contact, contact.ring.choose(request, this.nowMs));
  }

  choose(by: SimulatedNode, done: (point: NodeId | undefined) => void): void {
    const request = this.#nextRequest++;
    this.#choices.set(request, done);
    this.#perform(by, by.ring.choose(request, this.nowMs));
  }

  crash(nodeId: NodeId): void {
    const node = this.node(nodeId);
    node.isUp = false;
    node.diedMs = this.nowMs;
    if (this.network.isRefusing) this.#closeConnections(nodeId);
    this.onChange?.();
  }

  /** A system that refuses connections to a dead process has ended those that it had. */
  #closeConnections(nodeId: NodeId): void {
    for (const node of this.up) {
      this.at(this.nowMs + this.network.delayMsMin, () => {
        if (node.isUp && !this.#isCut(nodeId, node.member.nodeId)) {
          this.#perform(node, node.ring.closed(nodeId, this.nowMs));
        }
      });
    }
  }

  /** With the address book it had, a greater incarnation, and nothing else. */
  restart(nodeId: NodeId): SimulatedNode {
    const before = this.node(nodeId);
    const contacts = before.ring.contacts().sort((a, b) => b.seenMs - a.seenMs);
    const node = this.#start(nodeId, before.member.incarnation + 1, contacts);
    this.#perform(node, node.ring.join(contacts, 3000, this.nowMs));
    return node;
  }

  leave(nodeId: NodeId): void {
    const node = this.node(nodeId);
    this.#perform(node, node.ring.leave(this.nowMs));
    this.at(this.nowMs + 100, () => {
      node.isUp = false;
    });
    node.diedMs = this.nowMs;
    this.onChange?.();
  }

  pause(nodeId: NodeId, ms: number): void {
    this.node(nodeId).pausedUntilMs = this.nowMs + Math.round(ms);
    this.onChange?.();
    this.at(this.node(nodeId).pausedUntilMs, () => this.onChange?.());
  }

  /** Lets `to` hear `message` from `from` now, whatever the network is like. */
  tell(from: Sender, to: NodeId, message: RingMessage): void {
    const node = this.node(to);
    this.#perform(node, node.ring.step(from, message, this.nowMs));
  }

  isPaused(node: SimulatedNode): boolean {
    return node.pausedUntilMs > this.nowMs;
  }

  /** Whether any message can't pass, whatever its luck. */
  get isDivided(): boolean {
    return this.#sideOf !== undefined || this.#cuts.size > 0;
  }

  /** One direction only. */
  cut(from: NodeId, to: NodeId): void {
    this.#cuts.add(`${from}>${to}`);
    this.onChange?.();
  }

  /** Nothing passes between nodes for which `sideOf` differs. */
  split(sideOf: (nodeId: NodeId) => unknown): void {
    this.#sideOf = sideOf;
    this.onChange?.();
  }

  heal(): void {
    this.onChange?.();
    this.#sideOf = undefined;
    this.#cuts.clear();
  }

  calm(): void {
    this.heal();
    Object.assign(this.network, { lossRatio: 0, duplicateRatio: 0, delayMsMin: 1, delayMsMax: 2 });
  }

  lookup(asker: SimulatedNode, point: NodeId, done: (outcome: LookupOutcome) => void): void {
    const request = this.#nextRequest++;
    const startedMs = this.nowMs;
    this.#lookups.set(request, (found) =>
      done({ asker: asker.member.nodeId, point, startedMs, endedMs: this.nowMs, found }),
    );
    this.#perform(asker, asker.ring.lookup(request, point, this.nowMs));
  }

  at(ms: number, event: () => void): void {
    this.#plan(Math.max(Math.round(ms), this.nowMs), event);
  }

  #plan(due: number, event: Event): void {
    const bucket = this.#events.get(due);
    if (bucket === undefined) this.#events.set(due, [event]);
    else bucket.push(event);
  }

  run(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const bucket = this.#events.get(this.nowMs);
      // A bucket may grow while it runs.
      if (bucket !== undefined) for (let i = 0; i < bucket.length; i++) this.#happen(bucket[i]!);
      this.#events.delete(this.nowMs);
      if (this.nowMs >= endMs) return;
      this.nowMs++;
    }
  }

  #happen(event: Event): void {
    if (typeof event === "function") event();
    else if (event instanceof Delivery) this.#arrive(event);
    else this.#tick(event);
  }

  /** Virtual milliseconds until `holds`; undefined when it does not within `msMax`. */
  runUntil(holds: () => boolean, msMax: number, everyMs = 50): number | undefined {
    const startMs = this.nowMs;
    while (!holds()) {
      if (this.nowMs - startMs >= msMax) return undefined;
      this.run(everyMs);
    }
    return this.nowMs - startMs;
  }

  /** Nodes that are up, grouped by who has ever heard of whom: nothing can bring strangers together. */
  acquainted(): SimulatedNode[][] {
    const groupOf = new Map<SimulatedNode, Set<SimulatedNode>>();
    for (const node of this.up) groupOf.set(node, new Set([node]));
    for (const node of this.up) {
      for (const contact of node.ring.contacts()) {
        const other = this.nodes.get(contact.nodeId);
        const [a, b] = [groupOf.get(node), other && groupOf.get(other)];
        if (a === undefined || b === undefined || a === b) continue;
        for (const member of b) groupOf.set(member, a.add(member));
      }
    }
    return [...new Set(groupOf.values())].map((group) => [...group]);
  }

  /** Why `among`, all that are up by default, are not one ring in order with full lists; undefined when they are. */
  disorder(among: readonly SimulatedNode[] = this.up): string | undefined {
    const up = among.filter((node) => node.pausedUntilMs <= this.nowMs);
    const order = up.map((node) => node.member.nodeId).sort();
    for (let i = 0; i < order.length; i++) {
      const { ring } = this.node(order[i]!);
      const name = order[i]!.slice(0, 6);
      if (!ring.isMember) return `${name} has not joined`;
      const predecessor = order.length === 1 ? undefined : order[(i + order.length - 1) % order.length];
      if (ring.predecessor?.nodeId !== predecessor) {
        return `${name} has predecessor ${ring.predecessor?.nodeId.slice(0, 6)}, not ${predecessor?.slice(0, 6)}`;
      }
      const length = Math.min(this.successors, order.length - 1);
      for (let k = 0; k < Math.max(length, ring.successors.length); k++) {
        const expected = k < length ? order[(i + 1 + k) % order.length] : undefined;
        if (ring.successors[k]?.nodeId !== expected) {
          return `${name} has ${ring.successors[k]?.nodeId.slice(0, 6)} as successor ${k}, not ${expected?.slice(0, 6)}`;
        }
      }
    }
    return undefined;
  }

  /** The live member that owns `point`, seen from above. */
  ownerOf(point: NodeId, among: readonly SimulatedNode[] = this.members): NodeId | undefined {
    const order = among.map((node) => node.member.nodeId).sort();
    return order.find((nodeId) => nodeId >= point) ?? order[0];
  }

  /**
   * Zave's invariants over the first live successors of all members: exactly one
   * cycle, in order, that everybody leads to. Undefined when they hold. One that
   * has no live successor is no ring, unless it is the only member.
   */
  invalidity(): string | undefined {
    const next = new Map<NodeId, NodeId>();
    const { members } = this;
    for (const node of members) {
      const live = node.ring.successors.find((member) => this.#isLive(member));
      if (live !== undefined) next.set(node.member.nodeId, live.nodeId);
      else if (members.length > 1) return `${node.member.nodeId.slice(0, 6)} has no live successor`;
    }
    const start = [...next.keys()].sort()[0];
    if (start === undefined) return undefined;
    const ring = cycleFrom(start, next);
    for (const nodeId of next.keys()) {
      const other = cycleFrom(nodeId, next);
      if (!other.includes(ring[0]!)) return `${nodeId.slice(0, 6)} leads to another ring`;
    }
    const turns = ring.filter((nodeId, i) => ring[(i + 1) % ring.length]! <= nodeId).length;
    return turns === 1 ? undefined : `the ring goes round ${turns} times`;
  }

  #isLive(member: Member): boolean {
    const node = this.nodes.get(member.nodeId);
    return node?.isUp === true && node.ring.isMember && node.member.incarnation === member.incarnation;
  }

  #start(nodeId: NodeId, incarnation: number, contacts: ContactRecord[]): SimulatedNode {
    const member: Member = {
      nodeId,
      address: { host: "127.0.0.1", port: 7443 },
      zone: "",
      incarnation,
      instance: `${incarnation}`,
    };
    const node: SimulatedNode = {
      member,
      sender: member,
      ring: new this.#ringClass({
        self: member,
        settings: {
          successors: this.successors,
          suspectAfterMs: this.#suspectAfterMs,
          contactsMax: this.#contactsMax,
        },
        random: this.random,
        contacts,
        nowMs: this.nowMs,
      }),
      isUp: true,
      tickDueMs: this.nowMs + Math.floor(this.random() * TICK_MS),
      tickedMs: this.nowMs,
      pausedUntilMs: 0,
      joinedMs: undefined,
      diedMs: undefined,
      predecessor: undefined,
    };
    const before = this.nodes.get(nodeId);
    if (before !== undefined) before.isUp = false;
    this.nodes.set(nodeId, node);
    this.#plan(node.tickDueMs, node);
    return node;
  }

  #tick(node: SimulatedNode): void {
    if (!node.isUp || node.tickDueMs !== this.nowMs) return;
    if (node.pausedUntilMs > this.nowMs) {
      this.#tickAt(node, node.pausedUntilMs);
      return;
    }
    node.tickedMs = this.nowMs;
    node.tickDueMs = Number.POSITIVE_INFINITY;
    this.#perform(node, node.ring.tick(this.nowMs));
    if (!this.#isResting) this.#tickAt(node, this.nowMs + TICK_MS);
  }

  #tickAt(node: SimulatedNode, ms: number): void {
    if (node.tickDueMs === ms) return;
    node.tickDueMs = ms;
    this.#plan(ms, node);
  }

  #perform(node: SimulatedNode, effects: readonly RingEffect[]): void {
    let isChanged = false;
    for (const effect of effects) {
      switch (effect.kind) {
        case "send":
          this.#send(node, effect.to.nodeId, effect.message);
          break;
        case "suspected":
          this.suspicions.push({ by: node.member.nodeId, of: effect.nodeId, ms: this.nowMs });
          break;
        case "joined":
          node.joinedMs = this.nowMs;
          isChanged = true;
          break;
        case "changed":
          isChanged = true;
          this.#checkPredecessor(node);
          break;
        case "found":
          this.#settle(this.#lookups, effect.request, effect.found);
          break;
        case "lost":
          this.#settle(this.#lookups, effect.request, undefined);
          break;
        case "chosen":
          this.#settle(this.#choices, effect.request, effect.point);
          break;
        case "notChosen":
          this.#settle(this.#choices, effect.request, undefined);
          break;
        case "alive":
        case "contacts":
          break;
      }
    }
    if (this.#isResting) {
      const dueMs = Math.max(node.tickedMs + TICK_MS_MIN, Math.ceil(node.ring.restUntil()));
      this.#tickAt(node, Math.max(this.nowMs, dueMs));
    }
    if (isChanged) this.onChange?.();
  }

  #settle<T>(waiting: Map<number, (result: T) => void>, request: number, result: T): void {
    const done = waiting.get(request);
    waiting.delete(request);
    done?.(result);
  }

  #send(from: SimulatedNode, to: NodeId, message: RingMessage): void {
    this.traffic.sent(message);
    if (this.oracle !== undefined) {
      const answer = this.oracle(to, message);
      if (answer !== undefined) {
        this.at(this.nowMs + 2, () => this.tell(this.node(to).sender, from.member.nodeId, answer));
      }
      return;
    }
    const { lossRatio, duplicateRatio } = this.network;
    if (this.#isCut(from.member.nodeId, to)) return;
    if (lossRatio === 0 || this.random() >= lossRatio) this.#carry(from, to, message);
    if (duplicateRatio > 0 && this.random() < duplicateRatio) this.#carry(from, to, message);
  }

  #isCut(from: NodeId, to: NodeId): boolean {
    if (this.#sideOf !== undefined && this.#sideOf(from) !== this.#sideOf(to)) return true;
    return this.#cuts.size > 0 && this.#cuts.has(`${from}>${to}`);
  }

  #carry(from: SimulatedNode, to: NodeId, message: RingMessage): void {
    const { delayMsMin, delayMsMax } = this.network;
    const delay = delayMsMin + Math.floor(this.random() * (delayMsMax - delayMsMin + 1));
    this.#plan(this.nowMs + delay, new Delivery(from, to, message));
  }

  #arrive(delivery: Delivery): void {
    const { from, to, message } = delivery;
    const node = this.nodes.get(to);
    if (node === undefined || !node.isUp) {
      if (!this.network.isRefusing || !from.isUp) return;
      this.at(this.nowMs + this.network.delayMsMin, () => {
        if (from.isUp) this.#perform(from, from.ring.refused(to, this.nowMs));
      });
      return;
    }
    if (node.pausedUntilMs > this.nowMs) {
      this.#plan(node.pausedUntilMs, delivery);
      return;
    }
    this.#perform(node, node.ring.step(from.sender, message, this.nowMs));
  }

  #checkPredecessor(node: SimulatedNode): void {
    const now = node.ring.predecessor?.nodeId;
    const start = node.predecessor;
    node.predecessor = node.ring.predecessor;
    if (start === undefined || now === start.nodeId) return;
    const before = start.nodeId;
    const old = this.nodes.get(before);
    if (old === undefined || !old.isUp || !old.ring.isMember || node.ring.isSuspected(before)) return;
    // A later start of it has not come to this place yet.
    if (old.member.incarnation !== start.incarnation) return;
    if (now === undefined || !between(now, before, node.member.nodeId)) {
      this.violations.push(
        `${this.nowMs}: predecessor of ${node.member.nodeId.slice(0, 6)} moved back from live ${before.slice(0, 6)} to ${now?.slice(0, 6)}`,
      );
    }
  }
}

/** The cycle that one comes to from `start`, beginning anywhere on it. */
function cycleFrom(start: NodeId, next: ReadonlyMap<NodeId, NodeId>): NodeId[] {
  const seen = new Set<NodeId>();
  let at = start;
  while (!seen.has(at)) {
    seen.add(at);
    at = next.get(at) ?? at;
  }
  const cycle = [at];
  for (let step = next.get(at)!; step !== at; step = next.get(step)!) cycle.push(step);
  return cycle;
}
