/**
 * How long writes wait when the server that leads their partition is killed, falls
 * silent, or goes in good order: 64 writers, each on a partition of its own, ask
 * another server when one does not answer within 300 ms. They hold a connection to
 * each: how long it takes to make one is another figure.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { ServerProcess } from "../fixture/cluster.ts";
import type { Figure } from "./figure.ts";
import { Edges } from "./kv-edges.ts";
import { Ground } from "./kv-ground.ts";
import { HttpCaller, quantile } from "./kv-load.ts";

const RUNS = 10;
const WRITERS = 64;
const VALUE_BYTES = 256;
/** Unlike the servers' time-outs and no divisor of them. */
const DEADLINE_MS = 300;
const BEFORE_MS = 1_000;
/** Writes go on for so long after each partition was written again: a second gap would count. */
const AFTER_MS = 500;
const GAP_MS_MAX = 8_000;
const CONNECT_MS_MAX = 10_000;
const LOOK_MS = 20;
const BACK_MS_MAX = 30_000;
const NAMESPACE = "takeover";

/** What happens to a server, and how it comes back. */
interface Event {
  readonly name: string;
  readonly medianMsMax: number;
  readonly maxMsMax: number;
  happen(server: ServerProcess): Promise<void>;
  end(server: ServerProcess): Promise<void>;
}

export const killed: Event = {
  name: "kill -9",
  medianMsMax: 1_000,
  maxMsMax: 2_000,
  happen: (server) => server.kill(),
  end: (server) => server.restart(),
};

export const silenced: Event = {
  name: "silence",
  medianMsMax: 2_000,
  maxMsMax: 3_000,
  happen: async (server) => server.freeze(),
  end: async (server) => server.wake(),
};

export const handedOver: Event = {
  name: "hand-over",
  medianMsMax: 100,
  maxMsMax: 100,
  happen: (server) => server.stop(),
  end: (server) => server.restart(),
};

export async function takeoverFigures(
  event: Event,
  report: (figure: Figure) => void,
  progress: (text: string) => void,
): Promise<void> {
  progress("starting five servers");
  const ground = await Ground.start(5);
  const gapsMs: number[] = [];
  try {
    const writers = new Writers(
      await Edges.signedIn(ground),
      (await ground.client.cluster.partitions()).length,
    );
    for (let run = 1; run <= RUNS; run++) {
      const gapMs = await oneRun(ground, event, writers);
      gapsMs.push(gapMs);
      progress(`${event.name}, run ${run} of ${RUNS}: ${gapMs.toFixed(0)} ms without a write`);
    }
    await writers.close();
  } finally {
    await ground.stop();
  }
  gapsMs.sort((a, b) => a - b);
  report({
    name: `${event.name}: longest gap of a run, median`,
    value: quantile(gapsMs, 0.5),
    unit: "ms",
    max: event.medianMsMax,
  });
  report({
    name: `${event.name}: longest gap of a run, greatest`,
    value: gapsMs.at(-1) ?? Number.NaN,
    unit: "ms",
    max: event.maxMsMax,
  });
}

async function oneRun(ground: Ground, event: Event, writers: Writers): Promise<number> {
  const leaders = new Map(
    (await ground.client.cluster.partitions()).map(({ partition, leader }) => [partition, leader] as const),
  );
  const ledBy = ({ nodeId }: ServerProcess) => writers.partitions.filter((p) => leaders.get(p) === nodeId);
  const victim = ground.servers.toSorted((a, b) => ledBy(b).length - ledBy(a).length)[0]!;
  const partitions = ledBy(victim);
  await writers.connect();
  writers.start();
  await pause(BEFORE_MS);
  const happenedMs = performance.now();
  const happening = event.happen(victim);
  while (performance.now() - happenedMs < GAP_MS_MAX) {
    await pause(LOOK_MS);
    if (partitions.every((partition) => writers.ackedMs(partition) > happenedMs + LOOK_MS)) break;
  }
  await pause(AFTER_MS);
  const gapMs = Math.max(...partitions.map((partition) => writers.gapMs(partition, happenedMs - LOOK_MS)));
  await writers.stop();
  await happening;
  await event.end(victim);
  await leadsAgain(ground, victim);
  await ground.settled();
  return gapMs;
}

/** The ring wants it to lead what it led: the next run is to find the same cluster. */
async function leadsAgain(ground: Ground, { nodeId }: ServerProcess): Promise<void> {
  const deadline = performance.now() + BACK_MS_MAX;
  for (;;) {
    const partitions = await ground.client.cluster.partitions();
    if (partitions.some(({ leader }) => leader === nodeId)) return;
    if (performance.now() > deadline) throw new Error(`${nodeId} does not lead again`);
    await pause(LOOK_MS * 5);
  }
}

class Writers {
  readonly partitions: readonly number[];
  readonly #edges: Edges;
  readonly #keys: readonly string[];
  readonly #acks = new Map<number, number[]>();
  readonly #callers: Map<string, HttpCaller>[];
  #running: Promise<unknown> = Promise.resolve();
  #isOver = false;

  constructor(edges: Edges, partitionCount: number) {
    this.#edges = edges;
    const keys = new Map<number, string>();
    for (let n = 0; keys.size < Math.min(WRITERS, partitionCount); n++) {
      const key = `key-${n}`;
      const partition = edges.partitionOf(NAMESPACE, key, partitionCount);
      if (!keys.has(partition)) keys.set(partition, key);
    }
    this.partitions = [...keys.keys()];
    this.#keys = [...keys.values()];
    this.#callers = this.#keys.map(() => new Map());
  }

  /** Makes the connections that are missing. */
  async connect(): Promise<void> {
    const { edges } = this.#edges;
    await Promise.all(
      this.#keys.map(async (key, i) => {
        for (const edge of edges)
          await this.#caller(i, edge).call(this.#edges.read(NAMESPACE, key), CONNECT_MS_MAX);
      }),
    );
  }

  start(): void {
    this.#isOver = false;
    for (const partition of this.partitions) this.#acks.set(partition, [performance.now()]);
    this.#running = Promise.all(this.#keys.map((key, i) => this.#write(key, i)));
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#running;
  }

  /** When the partition was written last. */
  ackedMs(partition: number): number {
    return this.#acks.get(partition)!.at(-1)!;
  }

  /** The longest time between two acknowledgements that ends after `fromMs`; up to now after the last one. */
  gapMs(partition: number, fromMs: number): number {
    const acks = [...this.#acks.get(partition)!, performance.now()];
    return Math.max(...acks.map((ms, i) => (i > 0 && ms > fromMs ? ms - acks[i - 1]! : 0)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#callers.flatMap((callers) => [...callers.values()].map((one) => one.close())));
  }

  #caller(writer: number, edge: string): HttpCaller {
    const callers = this.#callers[writer]!;
    let caller = callers.get(edge);
    if (caller === undefined) callers.set(edge, (caller = new HttpCaller(edge, this.#edges.ca)));
    return caller;
  }

  async #write(key: string, i: number): Promise<void> {
    const request = this.#edges.write(NAMESPACE, key, randomBytes(VALUE_BYTES));
    const { edges } = this.#edges;
    for (let server = i; !this.#isOver; ) {
      const edge = edges[server % edges.length]!;
      const isDone = await this.#caller(i, edge)
        .call(request, DEADLINE_MS)
        .then(
          ({ status }) => status === 200,
          () => false,
        );
      if (isDone) this.#acks.get(this.partitions[i]!)!.push(performance.now());
      else {
        server++;
        // Who refuses at once is not to be asked without a pause.
        await pause(LOOK_MS);
      }
    }
  }
}
