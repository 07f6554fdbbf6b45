/** What may go wrong in a simulated group: how often messages and disks fail, and what strikes. */
import type { Body } from "../../src/replication/message.ts";
import type { Habits } from "./replication-clients.ts";
import type { SimulatedNode } from "./replication-node.ts";
import type { ReplicationSimulator } from "./replication-simulator.ts";

export type Deed = "crashSender" | "crashReceiver" | "cut" | "late" | "double" | "drop";

const DEEDS: readonly Deed[] = ["crashSender", "crashReceiver", "cut", "late", "double", "drop"];
const TARGETS: readonly Body["kind"][] = [
  "canvass",
  "would",
  "prepare",
  "promise",
  "refused",
  "stopped",
  "lead",
  "append",
  "appended",
  "behind",
  "confirm",
  "confirmed",
  "offer",
  "pull",
  "listed",
  "fetched",
  "welcome",
  "forget",
];

/** `node`: preferably one that matters; `held`: all that hold a copy. */
export type Strike = readonly [
  weight: number,
  deed: (node: SimulatedNode, held: readonly SimulatedNode[]) => void,
];

export interface Weather extends Habits {
  lossRatio: number;
  doubleRatio: number;
  lateRatio: number;
  /** What befalls messages of chosen kinds. */
  mischief: { kinds: ReadonlySet<Body["kind"]>; deeds: readonly Deed[]; ratio: number };
  /** Of promises to another: how many are the last that their giver writes before it crashes. */
  crashOnPromiseRatio: number;
  /** Of crashes: how many take the disk with them. */
  memoryLossRatio: number;
  diskMs: number;
  /** Between two strikes, at most. */
  strikeMs: number;
}

export function inventWeather(random: () => number): Weather {
  const severity = random();
  return {
    lossRatio: severity < 0.3 ? 0 : random() * 0.15,
    doubleRatio: random() < 0.5 ? 0 : random() * 0.1,
    lateRatio: random() < 0.4 ? 0 : random() * 0.1,
    mischief: {
      kinds: new Set(TARGETS.filter(() => random() < 0.15)),
      deeds: DEEDS.filter(() => random() < 0.4),
      ratio: random() < 0.2 ? 0 : random() ** 2 * 0.3,
    },
    crashOnPromiseRatio: random() < 0.6 ? 0 : random() * 0.5,
    memoryLossRatio: 0.03,
    diskMs: random() < 0.5 ? 4 : random() * 60,
    strikeMs: 100 + random() * 600,
    thinkMs: 5 + random() * 60,
    clients: 6,
    keys: ["a", "b", "c", "d"],
    expiryRatio: 0.1,
    requestIdRatio: 0.3,
  };
}

/** Little goes wrong by itself. */
export function calmWeather(weather: Weather): void {
  weather.lossRatio = 0;
  weather.doubleRatio = 0;
  weather.lateRatio = 0;
  weather.mischief = { kinds: new Set(), deeds: [], ratio: 0 };
  weather.crashOnPromiseRatio = 0;
  weather.memoryLossRatio = 0;
  weather.diskMs = 4;
}

/** With weights, which a seed sets for itself: some are about crashes, some about leaders, some about members. */
export function inventStrikes(world: ReplicationSimulator): Strike[] {
  const { random } = world;
  const deeds: Strike[1][] = [
    (node) => world.crash(node),
    (node) => world.crash(node),
    (_, held) => {
      for (const one of held) world.crash(one);
    },
    (node) => {
      node.pausedUntilMs = world.nowMs() + random() * 1500;
    },
    (node) => {
      for (const one of world.nodes) world.cut(one.nodeId, node.nodeId, random() * 1500);
    },
    (node) => {
      for (const one of world.nodes) world.cut(node.nodeId, one.nodeId, random() * 1500);
    },
    () => {
      const ms = random() * 2000;
      world.split(new Set(world.nodeIds.filter(() => random() < 0.5)), ms, random() < 0.3);
    },
    (node) => world.suspectWrongly(node, random()),
    (node) => world.suspectWrongly(node, 1),
    (node) => world.isolate([node], 100 + random() * 1500),
    (node) => world.isolate([node], 100 + random() * 1500),
    (node) => node.within(() => node.replica?.handOver(node.nowMs())),
    (node) => node.within(() => node.replica?.compare(1, node.nowMs())),
    (node) => {
      if (world.slowDisks.has(node)) world.slowDisks.delete(node);
      else world.slowDisks.add(node);
    },
    (node) => {
      node.clock.epochMs = (random() - 0.5) * 20_000;
    },
    () => {
      world.nodes[Math.floor(random() * world.nodes.length)]!.wish = world.someNodes();
    },
    () => world.wish(world.someNodes()),
    () => world.wish(world.otherNodes()),
    (node) => world.damage(node),
    () => world.replay(),
  ];
  return deeds.map((deed) => [random() ** 3, deed] as const);
}
