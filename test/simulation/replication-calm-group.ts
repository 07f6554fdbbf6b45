/**
 * A replica group in virtual time to which nothing happens but what a test does
 * to it: messages take a millisecond, disks two.
 */
import type { Body } from "../../src/replication/message.ts";
import type { Operation } from "../../src/replication/register.ts";
import { REPLICA_LIMITS, type ReplicaLimits } from "../../src/replication/replica-port.ts";
import { randomFrom } from "./random.ts";
import {
  type Answer,
  type Compared,
  type NodeWorld,
  type Packet,
  SimulatedNode,
} from "./replication-node.ts";

interface Event {
  readonly atMs: number;
  readonly node: SimulatedNode | undefined;
  readonly incarnation: number;
  readonly then: () => void;
}

export class CalmGroup implements NodeWorld {
  readonly random = randomFrom(1);
  readonly nodeIds: readonly string[];
  readonly nodes: SimulatedNode[];
  readonly complaints: string[] = [];
  readonly answers = new Map<number, Answer>();
  comparisons: Compared[] = [];
  /** Swallows what it is true of. */
  isLost: (packet: Packet & { readonly body: Body | undefined }) => boolean = () => false;
  /** Disks that make nothing durable. */
  readonly stuckDisks = new Set<SimulatedNode>();
  #events: Event[] = [];
  #nowMs = 1000;
  #operation = 0;

  constructor(count: number, limits: Partial<ReplicaLimits> = {}) {
    this.nodeIds = Array.from({ length: count }, (_, i) => `n${i}`);
    const settings = {
      replicationFactor: count,
      leaderTimeoutMs: 500,
      replaceAfterMs: 5000,
      limits: { ...REPLICA_LIMITS, ...limits },
    };
    this.nodes = this.nodeIds.map((nodeId) => new SimulatedNode(nodeId, this, settings));
    for (const node of this.nodes) node.start();
    this.node(0).found();
    for (const node of this.nodes) node.wish = this.nodeIds;
    this.run(3000);
  }

  node(at: number): SimulatedNode {
    const node = this.nodes[at];
    if (node === undefined) throw new Error(`there is no node ${at}`);
    return node;
  }

  get leader(): SimulatedNode {
    const leaders = this.nodes.filter((node) => node.replica?.servingBallot !== undefined);
    if (leaders.length !== 1) throw new Error(`${leaders.length} serve`);
    return leaders[0]!;
  }

  /** Hands an operation in; its answer comes to `answers` under the number given back. */
  ask(node: SimulatedNode, operation: Operation): number {
    node.operate(++this.#operation, operation);
    return this.#operation;
  }

  /** Hands an operation in and lets time pass until it is answered. */
  answer(node: SimulatedNode, operation: Operation, withinMs = 1000): Answer | undefined {
    const number = this.ask(node, operation);
    this.run(withinMs, () => this.answers.has(number));
    return this.answers.get(number);
  }

  write(key: string, text: string, node = this.leader): Answer | undefined {
    return this.answer(node, put(key, text));
  }

  run(ms: number, isDone: () => boolean = () => false): void {
    const untilMs = this.#nowMs + ms;
    while (!isDone()) {
      const event = this.#events[0];
      if (event === undefined || event.atMs > untilMs) {
        this.#nowMs = untilMs;
        return;
      }
      this.#events.shift();
      this.#nowMs = event.atMs;
      const { node, incarnation, then } = event;
      if (node === undefined || (node.isUp && node.incarnation === incarnation)) then();
    }
  }

  /** All others notice that it is gone. */
  crash(node: SimulatedNode): void {
    node.crash();
    for (const other of this.nodes) if (other.isUp) other.suspect(node.nodeId);
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(node: SimulatedNode, ms: number, then: () => void): void {
    this.#at(ms, node, then);
  }

  send(_node: SimulatedNode, packet: Packet): void {
    const { content } = packet;
    if (this.isLost({ ...packet, body: content.kind === "body" ? content.body : undefined })) return;
    const receiver = this.nodes.find(({ nodeId }) => nodeId === packet.to)!;
    this.#at(1, undefined, () => {
      if (receiver.isUp) receiver.receive(packet);
    });
  }

  written(
    node: SimulatedNode,
    _before: unknown,
    write: Parameters<NodeWorld["written"]>[2],
    synced: () => void,
  ): void {
    node.disk.write(write, synced);
    this.sync(node);
  }

  sync(node: SimulatedNode): void {
    this.#at(2, node, () => {
      if (!this.stuckDisks.has(node)) node.disk.sync(node.disk.pending);
    });
  }

  answered(_node: SimulatedNode, operation: number, answer: Answer): void {
    this.answers.set(operation, answer);
  }

  serving(): void {}

  compared(_node: SimulatedNode, compared: Compared): void {
    this.comparisons.push(compared);
  }

  complain(problem: string): void {
    this.complaints.push(problem);
  }

  #at(ms: number, node: SimulatedNode | undefined, then: () => void): void {
    const event = { atMs: this.#nowMs + ms, node, incarnation: node?.incarnation ?? 0, then };
    let at = this.#events.length;
    while (at > 0 && this.#events[at - 1]!.atMs > event.atMs) at--;
    this.#events.splice(at, 0, event);
  }
}

export function put(key: string, text: string, more: { readonly expiresAtMs?: number } = {}): Operation {
  const change = { kind: "put", key, value: Buffer.from(text), ...more } as const;
  return { kind: "batch", changes: [change], conditions: [] };
}
