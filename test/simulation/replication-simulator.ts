/**
 * A replica group on up to eight servers in virtual time, with everything going
 * wrong that a seed can think of; then calm, in which it has to become whole.
 *
 * Random loss alone is too weak to find what matters: crashes, cuts and lateness
 * also strike at chosen kinds of messages, and between a promise and its sync.
 */
import type { Body } from "../../src/replication/message.ts";
import type { ReplicaSettings } from "../../src/replication/replica-port.ts";
import { CONFIG_KEY, type ReplicaMeta } from "../../src/replication/replica-state.ts";
import { judge } from "./linearizability.ts";
import { randomFrom } from "./random.ts";
import { Clients } from "./replication-clients.ts";
import {
  type Deed,
  inventStrikes,
  inventWeather,
  type Strike,
  type Weather,
} from "./replication-misfortune.ts";
import { type Compared, type NodeWorld, type Packet, SimulatedNode } from "./replication-node.ts";
import { Onlookers } from "./replication-onlookers.ts";
import { beginStory, type Story } from "./replication-story.ts";
import { fingerprint, ReplicationWitness } from "./replication-witness.ts";

const NODES = 8;
const WHOLE_MS_MAX = 60_000;
/** No seed needs nearly as many. */
const EVENTS_MAX = 3_000_000;
const SENT_MAX = 300;

export interface SimulationResult {
  readonly seed: number;
  readonly problems: readonly string[];
  readonly operations: number;
  readonly acknowledged: number;
  readonly leaders: number;
  readonly crashes: number;
  /** Changes that watchers were told of. */
  readonly watched: number;
  readonly staleReads: number;
  readonly events: number;
  /** After the return of calm; undefined: no quorum could exist any more. */
  readonly wholeMs: number | undefined;
  /** The search for an order was given up. */
  readonly isUndecided: boolean;
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  /** Held back while that node is paused, void once it has lost power. */
  readonly node: SimulatedNode | undefined;
  readonly incarnation: number;
  readonly then: () => void;
}

export class ReplicationSimulator implements NodeWorld {
  readonly seed: number;
  readonly random: () => number;
  readonly nodeIds: readonly string[];
  readonly nodes: SimulatedNode[];
  readonly witness = new ReplicationWitness();
  readonly #clients: Clients;
  readonly #onlookers: Onlookers;
  readonly factor: number;
  /** Until calm returns. */
  faultyMs: number;
  readonly weather: Weather;
  strikes: readonly Strike[];
  /** What a story does to a message; undefined: what the weather does. */
  onSend: ((packet: Packet, kind: string) => Deed | { readonly lateMs: number } | undefined) | undefined;
  readonly #heap: Event[] = [];
  readonly #cuts = new Set<string>();
  readonly slowDisks = new Set<SimulatedNode>();
  readonly #syncing = new Set<SimulatedNode>();
  /** Messages that were sent, to be sent again at any time; bounded. */
  readonly sent: Packet[] = [];
  #nowMs = 0;
  #order = 0;
  #events = 0;
  #crashes = 0;
  isCalm = false;
  readonly #trace: ((line: string) => void) | undefined;
  readonly #story: Story | undefined;

  /** @param options.story what happens; of everything something, when left out. */
  constructor(seed: number, options: { story?: Story; trace?: (line: string) => void } = {}) {
    this.seed = seed;
    this.random = randomFrom(seed * 7919 + 13);
    this.#trace = options.trace;
    this.#story = options.story;
    const { random } = this;
    this.faultyMs = 2000 + random() * 6000;
    this.nodeIds = Array.from({ length: NODES }, (_, i) => `n${i}`).sort(() => random() - 0.5);
    this.factor = options.story?.factor ?? [1, 2, 3, 3, 3, 4, 5, 5][Math.floor(random() * 8)]!;
    const settings: ReplicaSettings = {
      replicationFactor: this.factor,
      leaderTimeoutMs: 500,
      replaceAfterMs: 1000 + random() * 2000,
      limits: {
        windowBatches: 4 + Math.floor(random() * 20),
        windowBytes: 400 + random() * 10_000,
        scanEntries: 1 + Math.floor(random() * 8),
        messageBytes: 100 + random() * 1000,
        atomicBytes: random() < 0.5 ? 100 + random() * 1000 : 1e6,
        answerBytes: 1200 + random() * 2000,
        pendingBytes: 20_000,
      },
    };
    this.nodes = this.nodeIds.map((nodeId) => new SimulatedNode(nodeId, this, settings));
    this.weather = inventWeather(random);
    this.strikes = inventStrikes(this);
    this.#clients = new Clients({
      random,
      habits: this.weather,
      nodes: () => this.nodes,
      later: (ms, then) => this.#at(this.#nowMs + ms, undefined, then),
      complain: (problem) => this.complain(problem),
      acknowledged: (version) => this.witness.acknowledged(version),
      denied: (values) => this.witness.denied(values),
    });
    this.#onlookers = new Onlookers({
      random,
      nodes: () => this.nodes,
      later: (ms, then) => this.#at(this.#nowMs + ms, undefined, then),
      complain: (problem) => this.complain(problem),
      acknowledged: (version) => this.witness.acknowledged(version),
      stateAt: (version) => this.witness.stateAt(version),
    });
  }

  run(): SimulationResult {
    for (const node of this.nodes) {
      node.clock = {
        offsetMs: Math.floor(this.random() * 1e6) + 1000,
        rate: 0.9 + this.random() * 0.2,
        epochMs: (this.random() - 0.5) * 2000,
      };
      node.start();
    }
    // Founding is not what is under test: it is durable before anything goes wrong.
    this.nodes[0]!.found();
    this.nodes[0]!.disk.sync(this.nodes[0]!.disk.pending);
    this.wish(this.nodeIds.slice(0, this.factor));
    for (const node of this.nodes) this.#ping(node);
    if (this.#story !== undefined) beginStory(this, this.#story);
    this.#clients.start();
    this.#onlookers.start();
    this.#misfortune();
    this.#runUntil(() => this.witness.problems.length > 0, this.faultyMs);
    const wholeMs = this.witness.problems.length > 0 ? 0 : this.#calm();
    const verdict = this.witness.problems.length > 0 ? "linearizable" : judge(this.#clients.history, 5_000);
    if (verdict === "not linearizable") this.complain("the history is not linearizable");
    return {
      seed: this.seed,
      problems: this.witness.problems,
      operations: this.#clients.calls.length,
      acknowledged: this.#clients.acknowledged,
      leaders: this.witness.leaders,
      crashes: this.#crashes,
      watched: this.#onlookers.changes,
      staleReads: this.#onlookers.staleReads,
      events: this.#events,
      wholeMs,
      isUndecided: verdict === "undecided",
    };
  }

  // --- what nodes ask of the world ------------------------------------------------------

  nowMs(): number {
    return this.#nowMs;
  }

  after(node: SimulatedNode, ms: number, then: () => void): void {
    this.#at(this.#nowMs + ms, node, then);
  }

  complain(problem: string): void {
    this.#trace?.(`${this.#nowMs.toFixed(1)} PROBLEM ${problem}`);
    this.witness.complain(`${problem} (at ${Math.round(this.#nowMs)} ms)`);
  }

  answered(node: SimulatedNode, operation: number, answer: Parameters<NodeWorld["answered"]>[2]): void {
    void node;
    if (!this.#onlookers.answered(operation, answer)) this.#clients.answered(operation, answer);
  }

  serving(node: SimulatedNode, ballot: Parameters<NodeWorld["serving"]>[1]): void {
    this.#trace?.(`${this.#nowMs.toFixed(1)} ${node.nodeId} serves ${ballot.round}`);
    this.witness.serving(ballot, `${node.nodeId}#${node.incarnation}`);
  }

  /** All hold the same in the same state: a witness sees to that as well, so nobody is ever told otherwise. */
  compared(node: SimulatedNode, { different }: Compared): void {
    for (const id of different) this.complain(`${id} does not hold what ${node.nodeId} holds`);
  }

  written(
    node: SimulatedNode,
    before: ReplicaMeta | undefined,
    write: Parameters<NodeWorld["written"]>[2],
    synced: () => void,
  ): void {
    node.disk.write(write, synced);
    this.witness.wrote(before, write, node.disk.current);
    const { meta } = write;
    const isPromise = meta !== undefined && meta.promised.round !== before?.promised.round;
    this.#trace?.(
      `${this.#nowMs.toFixed(1)} ${node.nodeId} writes ${meta === undefined ? "beside" : `promised ${meta.promised.round}.${meta.promised.replicaId} claim ${meta.accepted.round}.${meta.accepted.replicaId}.${meta.seq}`}`,
    );
    const isForAnother = meta?.promised.replicaId !== meta?.replicaId;
    if (isPromise && isForAnother && !this.isCalm && this.random() < this.weather.crashOnPromiseRatio) {
      this.#at(this.#nowMs, node, () => this.crash(node));
    }
    this.#sync(node);
  }

  send(node: SimulatedNode, packet: Packet): void {
    const { content } = packet;
    if (content.kind === "body" && content.body.kind === "append") this.witness.sent(content.body.changes);
    let delayMs = 0.5 + this.random() * (this.isCalm ? 2 : 8);
    let copies = 1;
    if (content.kind === "body") this.#traceBody("->", packet, content.body);
    if (!this.isCalm) {
      const { lossRatio, doubleRatio, lateRatio } = this.weather;
      if (this.random() < lossRatio) copies = 0;
      if (this.random() < doubleRatio) copies++;
      if (this.random() < lateRatio) delayMs += this.random() * 400;
      const deed = this.#deedFor(packet);
      if (typeof deed === "object") delayMs += deed.lateMs;
      switch (deed) {
        case "crashSender":
          this.#at(this.#nowMs, node, () => this.crash(node));
          break;
        case "crashReceiver": {
          const receiver = this.node(packet.to);
          this.#at(this.#nowMs + delayMs + (this.random() < 0.5 ? 0 : 0.01), receiver, () =>
            this.crash(receiver),
          );
          break;
        }
        case "cut":
          this.cut(packet.from, packet.to, 50 + this.random() * 1000);
          break;
        case "late":
          delayMs += this.random() * 2000;
          break;
        case "double":
          this.#deliver(packet, delayMs + this.random() * 2000);
          break;
        case "drop":
          copies = 0;
      }
      if (this.#cuts.has(`${packet.from}>${packet.to}`)) copies = 0;
      if (this.sent.length < SENT_MAX) this.sent.push(packet);
      else this.sent[Math.floor(this.random() * SENT_MAX)] = packet;
    }
    for (let copy = 0; copy < copies; copy++)
      this.#deliver(packet, delayMs * (1 + copy * this.random() * 10));
  }

  #deedFor(packet: Packet): Deed | { readonly lateMs: number } | undefined {
    if (packet.content.kind !== "body") return undefined;
    const { body } = packet.content;
    const isChange = body.kind === "append" && body.changes.some(({ key }) => key === CONFIG_KEY);
    const told = this.onSend?.(packet, isChange ? "change" : body.kind);
    if (told !== undefined) return told;
    const { kinds, deeds, ratio } = this.weather.mischief;
    if (!kinds.has(body.kind) || this.random() >= ratio) return undefined;
    return deeds[Math.floor(this.random() * deeds.length)];
  }

  /** Sends a message once more that was sent at any time before. */
  replay(): void {
    const packet = this.sent[Math.floor(this.random() * this.sent.length)];
    if (packet !== undefined) this.#deliver(packet, this.random() * 10);
  }

  #deliver(packet: Packet, delayMs: number): void {
    const receiver = this.node(packet.to);
    // Sent to whatever start of the receiver is up by then.
    this.#at(this.#nowMs + delayMs, undefined, () => {
      if (!receiver.isUp) return;
      this.#whenAwake(receiver, () => {
        const { content } = packet;
        if (content.kind === "body") this.#traceBody("=>", packet, content.body);
        receiver.receive(packet);
      });
    });
  }

  // --- time --------------------------------------------------------------------------------

  #at(atMs: number, node: SimulatedNode | undefined, then: () => void): void {
    const event: Event = {
      atMs: Math.max(atMs, this.#nowMs),
      order: this.#order++,
      node,
      incarnation: node?.incarnation ?? 0,
      then,
    };
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #next(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length > 0 && last !== undefined) {
      let at = 0;
      while (true) {
        let child = 2 * at + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
        if (!isBefore(heap[child]!, last)) break;
        heap[at] = heap[child]!;
        at = child;
      }
      heap[at] = last;
    }
    return first;
  }

  #runUntil(isDone: () => boolean, untilMs: number): boolean {
    while (!isDone()) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > untilMs) {
        this.#nowMs = untilMs;
        return isDone();
      }
      this.#next();
      if (++this.#events > EVENTS_MAX) {
        this.complain("it never comes to rest");
        return false;
      }
      this.#nowMs = event.atMs;
      const { node } = event;
      if (node === undefined) event.then();
      else if (node.isUp && node.incarnation === event.incarnation) this.#whenAwake(node, event.then);
    }
    return true;
  }

  #whenAwake(node: SimulatedNode, then: () => void): void {
    if (node.pausedUntilMs > this.#nowMs) this.#at(node.pausedUntilMs, node, then);
    else then();
  }

  // --- the world ----------------------------------------------------------------------------

  node(nodeId: string): SimulatedNode {
    return this.nodes.find((node) => node.nodeId === nodeId)!;
  }

  /** Writes that wait share one sync. */
  #sync(node: SimulatedNode): void {
    if (this.#syncing.has(node)) return;
    this.#syncing.add(node);
    const ms = this.random() * (this.isCalm ? 4 : this.slowDisks.has(node) ? 300 : this.weather.diskMs);
    const { incarnation } = node;
    this.#at(this.#nowMs + ms, undefined, () => {
      this.#syncing.delete(node);
      if (!node.isUp) return;
      if (node.incarnation !== incarnation) {
        if (node.disk.pending > 0) this.#sync(node);
        return;
      }
      this.#whenAwake(node, () => {
        const count = this.isCalm ? node.disk.pending : 1 + Math.floor(this.random() * node.disk.pending);
        node.disk.sync(count);
        if (node.disk.pending > 0) this.#sync(node);
      });
    });
  }

  /** @param downMs at random, when left out; Infinity: until calm returns. */
  crash(node: SimulatedNode, downMs?: number): void {
    if (!node.isUp) return;
    this.#crashes++;
    this.#trace?.(`${this.#nowMs.toFixed(1)} ${node.nodeId} crashes`);
    node.crash();
    this.#clients.crashed(node);
    if (!this.isCalm && this.random() < this.weather.memoryLossRatio) this.loseMemory(node);
    this.#noticed(node);
    const ms = downMs ?? this.random() * ([20, 20, 300, 300, 3000][Math.floor(this.random() * 5)] ?? 0);
    if (ms !== Number.POSITIVE_INFINITY) this.#at(this.#nowMs + ms, undefined, () => this.start(node));
  }

  start(node: SimulatedNode): void {
    if (node.isUp) return;
    this.#trace?.(`${this.#nowMs.toFixed(1)} ${node.nodeId} starts`);
    node.start();
    node.tellLed();
    this.#noticed(node);
    this.#ping(node);
  }

  /** Only where a quorum remains: what nobody holds any more, no protocol brings back. False: it does not. */
  loseMemory(node: SimulatedNode): boolean {
    if (!this.#isSpare(node)) return false;
    node.loseMemory();
    return true;
  }

  /** Something on its disk is not what was written any more. */
  damage(node: SimulatedNode): void {
    if (this.#isSpare(node) && this.nodes.every((other) => !other.disk.isDamaged)) node.damage();
  }

  /** It comes back from an old copy of its disk. */
  restoreOldCopy(node: SimulatedNode): void {
    if (!node.isUp || !this.#isSpare(node)) return;
    this.crash(node, Number.POSITIVE_INFINITY);
    node.restoreOldCopy();
    this.#at(this.#nowMs + this.random() * 300, undefined, () => this.start(node));
  }

  #isSpare(node: SimulatedNode): boolean {
    const id = node.disk.durable.meta?.replicaId;
    return id !== undefined && this.#hasQuorum(id);
  }

  /** Others learn that a node is up or down, some soon, some late, some wrongly. */
  #noticed(node: SimulatedNode): void {
    for (const other of this.nodes) {
      if (other === node) continue;
      this.#look(other, node);
      this.#look(node, other);
    }
  }

  #look(at: SimulatedNode, other: SimulatedNode): void {
    const ms = this.isCalm || this.random() < 0.5 ? this.random() * 50 : this.random() * 800;
    this.#at(this.#nowMs + ms, undefined, () => {
      if (!at.isUp) return;
      this.#whenAwake(at, () => {
        const isReached = other.isUp && !this.#cuts.has(`${other.nodeId}>${at.nodeId}`);
        if (isReached) at.trust(other.nodeId);
        else at.suspect(other.nodeId);
      });
    });
  }

  cut(from: string, to: string, ms: number): void {
    if (this.isCalm) return;
    this.#cuts.add(`${from}>${to}`);
    this.#look(this.node(to), this.node(from));
    this.#at(this.#nowMs + ms, undefined, () => {
      this.#cuts.delete(`${from}>${to}`);
      this.#look(this.node(to), this.node(from));
    });
  }

  #ping(node: SimulatedNode): void {
    // As seldom as servers at rest do: each change is told at once besides, and that may be lost.
    this.#at(this.#nowMs + 350 + this.random() * 100, node, () => {
      node.tellLed();
      this.#ping(node);
    });
  }

  /** What the ring wishes from now on; nodes see it one after the other. */
  wish(nodeIds: readonly string[], withinMs = 300): void {
    const { isCalm } = this;
    for (const node of this.nodes) {
      this.#at(this.#nowMs + (isCalm ? 0 : this.random() * withinMs), undefined, () => {
        if (this.isCalm !== isCalm) return;
        node.wish = nodeIds;
        node.ringChanged();
      });
    }
  }

  #misfortune(): void {
    this.#at(this.#nowMs + 20 + this.random() * this.weather.strikeMs, undefined, () => {
      if (this.isCalm) return;
      const { random } = this;
      // Misfortune prefers those who matter.
      const held = this.holders;
      const leaders = held.filter((node) => node.replica?.standingBallot !== undefined);
      const pool = random() < 0.5 && leaders.length > 0 ? leaders : held.length > 0 ? held : this.nodes;
      const node = pool[Math.floor(random() * pool.length)]!;
      let dice = random() * this.strikes.reduce((sum, [weight]) => sum + weight, 0);
      const strike = this.strikes.find(([weight]) => (dice -= weight) < 0);
      strike?.[1](node, held);
      this.#misfortune();
    });
  }

  /** Those that are up and count as members, as far as they know. */
  get holders(): SimulatedNode[] {
    return this.nodes.filter((node) => node.isUp && node.replica?.state.isMember === true);
  }

  /** One that serves; the one of the greatest ballot. */
  get leader(): SimulatedNode | undefined {
    const roundOf = (node: SimulatedNode) => node.replica?.servingBallot?.round ?? -1;
    const leader = this.nodes.reduce((a, b) => (roundOf(b) > roundOf(a) ? b : a));
    return roundOf(leader) < 0 ? undefined : leader;
  }

  /** Runs `then` after `ms`, unless calm has returned by then. */
  later(ms: number, then: () => void): void {
    this.#at(this.#nowMs + ms, undefined, () => {
      if (!this.isCalm) then();
    });
  }

  /** Somebody is to serve within `ms`; nothing else may go wrong meanwhile. */
  expectService(ms: number): void {
    let isServed = false;
    const look = () => {
      isServed ||= this.leader !== undefined;
      if (!isServed) this.#at(this.#nowMs + 50, undefined, look);
    };
    look();
    this.later(ms, () => {
      if (!isServed) this.complain(`nobody served for ${ms} ms`);
      isServed = true;
    });
  }

  someNodes(): string[] {
    return [...this.nodeIds].sort(() => this.random() - 0.5).slice(0, this.factor);
  }

  /** One of those wished last goes, another comes. */
  otherNodes(present = this.nodes[Math.floor(this.random() * NODES)]!.wish): string[] {
    const others = this.nodeIds.filter((id) => !present.includes(id));
    const newcomer = others[Math.floor(this.random() * others.length)];
    if (newcomer === undefined || present.length === 0) return this.someNodes();
    const at = Math.floor(this.random() * present.length);
    return present.map((id, i) => (i === at ? newcomer : id));
  }

  split(side: ReadonlySet<string>, ms: number, isOneWay = false): void {
    for (const a of this.nodeIds) {
      for (const b of this.nodeIds) {
        if (side.has(a) && !side.has(b)) {
          this.cut(a, b, ms);
          if (!isOneWay) this.cut(b, a, ms);
        }
      }
    }
  }

  /** A share of the others takes it for dead, for a while. */
  suspectWrongly(node: SimulatedNode, share: number): void {
    for (const other of this.nodes) {
      if (other === node || this.random() > share) continue;
      if (other.isUp) other.suspect(node.nodeId);
      this.#at(this.#nowMs + 100 + this.random() * 1500, undefined, () => this.#look(other, node));
    }
  }

  /** Cut off, and soon given up by all others: they may go on to believe that they lead. */
  isolate(nodes: readonly SimulatedNode[], ms: number, wayBackRatio = 0.9, isMutual = false): void {
    for (const other of this.nodes) {
      if (nodes.includes(other)) continue;
      for (const node of nodes) {
        this.cut(node.nodeId, other.nodeId, ms);
        if (this.random() < wayBackRatio) this.cut(other.nodeId, node.nodeId, ms);
        this.#at(this.#nowMs + this.random() * 30, undefined, () => {
          if (this.isCalm) return;
          if (other.isUp) other.suspect(node.nodeId);
          if (node.isUp && isMutual) node.suspect(other.nodeId);
        });
      }
    }
  }

  // --- calm --------------------------------------------------------------------------------

  /** How long it took to become whole; undefined when nothing can. */
  #calm(): number | undefined {
    this.isCalm = true;
    this.#cuts.clear();
    this.slowDisks.clear();
    this.onSend = undefined;
    this.weather.thinkMs = 400;
    const beganMs = this.#nowMs;
    this.#trace?.(`${this.#nowMs.toFixed(1)} CALM`);
    for (const node of this.nodes) {
      node.pausedUntilMs = 0;
      if (!node.isUp) this.start(node);
      this.#noticed(node);
    }
    // Whoever was wished last stays wished, unless nobody agrees.
    this.wish(this.someNodes());
    this.#runUntil(() => this.witness.problems.length > 0, beganMs + 1500);
    this.#clients.stop();
    this.#onlookers.stop();
    const isOver = () => this.witness.problems.length > 0 || this.#disorder() === undefined;
    if (!this.#runUntil(isOver, beganMs + WHOLE_MS_MAX) && this.witness.problems.length === 0) {
      if (!this.#hasQuorum()) return undefined;
      this.complain(`not whole after ${WHOLE_MS_MAX} ms of calm: ${this.#disorder()}`);
      return undefined;
    }
    const wholeMs = this.#nowMs - beganMs;
    let isRead: boolean | undefined;
    const leader = this.nodes.find((node) => node.replica?.servingBallot !== undefined);
    if (leader !== undefined && this.witness.problems.length === 0) {
      this.#clients.readAll(leader, (is) => {
        isRead = is;
      });
      this.#runUntil(() => isRead !== undefined || this.witness.problems.length > 0, this.#nowMs + 5000);
      if (isRead !== true) this.complain("a whole group did not answer a read");
    }
    return wholeMs;
  }

  /** What is not yet as it should be. */
  #disorder(): string | undefined {
    const leaders = this.nodes.filter((node) => node.replica?.servingBallot !== undefined);
    const leader = leaders[0];
    if (leader === undefined) return "nobody serves";
    if (leaders.length > 1) return "two serve";
    const wish = leader.wish;
    const { replica } = leader;
    const members = replica!.state.config.members.map((id) => id.slice(0, id.indexOf("/")));
    if (members.length !== wish.length || !wish.every((nodeId) => members.includes(nodeId)))
      return `members ${replica!.state.config.members}, wished ${wish}`;
    if (leader.nodeId !== wish[0]) return `${leader.nodeId} leads, not ${wish[0]}`;
    const state = fingerprint(leader.disk.durable);
    const { accepted, seq } = leader.disk.durable.meta!;
    for (const nodeId of wish) {
      const { disk, replica: other } = this.node(nodeId);
      const { meta } = disk.durable;
      if (other === undefined || !replica!.state.config.members.includes(other.id))
        return `${nodeId} holds another replica`;
      if (meta === undefined || meta.seq !== seq || meta.accepted.round !== accepted.round)
        return `${nodeId} is not level: ${meta?.accepted.round}.${meta?.seq} of ${accepted.round}.${seq}`;
      if (fingerprint(disk.durable) !== state) return `${nodeId} holds other entries`;
    }
    return undefined;
  }

  /** Whether the config of the best state has a majority of memories that are still there, without `lost`. */
  #hasQuorum(lost?: string): boolean {
    const metas = this.nodes
      .map((node) => node.disk.durable)
      .filter((image) => image.meta !== undefined && image.meta.accepted.round > 0)
      .sort((a, b) => {
        const [x, y] = [a.meta!, b.meta!];
        return (
          y.accepted.round - x.accepted.round ||
          (x.accepted.replicaId < y.accepted.replicaId ? 1 : -1) ||
          y.seq - x.seq
        );
      });
    const sound = this.nodes.filter(({ disk }) => !disk.isDamaged && disk.durable.meta !== undefined);
    const present = new Set(
      sound.map(({ disk }) => disk.durable.meta!.replicaId).filter((id) => id !== lost),
    );
    // The newest two configs: a change may be under way.
    const configs = new Set<string>();
    for (const image of metas) {
      const entry = image.entries.get("\x00config");
      if (entry !== undefined) configs.add(Buffer.from(entry.value).toString());
      if (configs.size === 2) break;
    }
    return [...configs].every((text) => {
      const { members } = JSON.parse(text) as { members: string[] };
      return members.filter((id) => present.has(id)).length > members.length / 2;
    });
  }

  #traceBody(arrow: string, { from, to }: Packet, body: Body): void {
    if (this.#trace === undefined) return;
    const text = JSON.stringify(body, (key, value: unknown) =>
      key === "value" || key === "digests" || key === "differing" || key === "root" ? undefined : value,
    );
    this.#trace(`${this.#nowMs.toFixed(1)} ${from} ${arrow} ${to} ${text}`);
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs !== b.atMs ? a.atMs < b.atMs : a.order < b.order;
}
