/**
 * A large ring that stands already. Every node is the servers' own and asks its
 * own questions, but an oracle that sees the whole circle answers them: who is
 * not there yet, nobody has to wait for. Ten thousand joins would take longer
 * than what is to be watched.
 */
import { randomPoint } from "../../src/ring/arc.ts";
import { identifierOf, type NodeId, nodeIdOf, RING_SIZE, wrap } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import type { RingSimulator } from "./ring-simulator.ts";

/** Time for the first pass over the fingers, one each 100 ms. */
const FINGERS_MS = 2500;

/**
 * Stands `nodes` nodes at points that split the circle as joins would, the
 * largest arc less than twice the mean, and lets them settle.
 */
export function stand(simulator: RingSimulator, nodes: number): void {
  const order = places(nodes, simulator.random);
  const members = order.map((nodeId): Member => ({ ...unknown, nodeId }));
  const indexOf = new Map(order.map((nodeId, i) => [nodeId, i]));
  const neighbour = (at: number, by: number) => members[(at + by + nodes) % nodes]!;
  const followers = (at: number) =>
    Array.from({ length: Math.min(simulator.successors, nodes - 1) }, (_, k) => neighbour(at, k + 1));

  simulator.oracle = (to, message): RingMessage | undefined => {
    const at = indexOf.get(to)!;
    switch (message.kind) {
      case "ping":
        return { kind: "pong", id: message.id, load: 0, led: NOTHING, zone: "", around: 0 };
      case "neighbours":
        return {
          kind: "neighbourhood",
          id: message.id,
          around: 0,
          predecessor: neighbour(at, -1),
          successors: followers(at),
        };
      case "closest": {
        const { id, point, avoid } = message;
        let index = firstAtOrAfter(order, point);
        if (avoid.includes(order[index]!)) index = (index + 1) % nodes;
        const successors = followers(index);
        const predecessor = neighbour(index, -1);
        return {
          kind: "closer",
          id,
          owner: members[index]!,
          successors,
          predecessor,
          next: [],
          unsettled: false,
        };
      }
      default:
        return undefined;
    }
  };
  if (nodes === 1) simulator.bootstrap(order[0]!);
  for (let at = 0; nodes > 1 && at < nodes; at++) simulator.join(order[at]!, [neighbour(at, 1)]);
  simulator.run(10);
  for (let at = 0; nodes > 1 && at < nodes; at++) {
    // The starts that speak, not the addresses alone.
    const { member } = simulator.node(order[(at + nodes - 1) % nodes]!);
    simulator.tell(member, order[at]!, { kind: "notify", node: member });
  }
  simulator.run(FINGERS_MS);
  simulator.oracle = undefined;
}

const NOTHING = new Uint8Array(0);
const unknown = { address: { host: "127.0.0.1", port: 7443 }, zone: "", incarnation: 1, instance: "1" };

/** Arcs are halved as joiners would: each is one or half of an equal share, which of them by lot. */
function places(nodes: number, random: () => number): NodeId[] {
  const whole = 2 ** Math.floor(Math.log2(nodes));
  const share = RING_SIZE / BigInt(whole);
  const start = identifierOf(randomPoint(random));
  const halved = Array.from({ length: whole }, (_, i) => i);
  for (let i = whole - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [halved[i], halved[j]] = [halved[j]!, halved[i]!];
  }
  const points: NodeId[] = [];
  for (let i = 0; i < whole; i++) points.push(nodeIdOf(wrap(start + share * BigInt(i))));
  for (const i of halved.slice(0, nodes - whole)) {
    points.push(nodeIdOf(wrap(start + share * BigInt(i) + share / 2n)));
  }
  return points.sort();
}

/** Index in `order`, sorted, of the owner of `point`. */
export function firstAtOrAfter(order: readonly NodeId[], point: NodeId): number {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle]! < point) low = middle + 1;
    else high = middle;
  }
  return low === order.length ? 0 : low;
}
