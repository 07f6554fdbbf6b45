/** A server was away while half of all entries changed: how much moves until it is level, and whether anyone notices. */
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { ServerProcess } from "../fixture/cluster.ts";
import type { Figure } from "./figure.ts";
import { Edges } from "./kv-edges.ts";
import { Ground } from "./kv-ground.ts";
import { HttpCaller, quantile } from "./kv-load.ts";
import { PeerAsker } from "./kv-peer.ts";

const ENTRIES = 200_000;
const CHANGED = 100_000;
const VALUE_BYTES = 1024;
const KEY_BYTES = 16;
const ENTRIES_PER_BATCH = 64;
const BATCHES_AT_ONCE = 24;
const CLIENTS = 8;
const CALL_MS_MAX = 10_000;
const LEVEL_MS_MAX = 120_000;
const LOOK_MS = 250;
/** It must come back before its place is given to another. */
const FLAGS = ["--replace-after-ms", "600000"];

export async function catchupFigures(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
): Promise<void> {
  progress("starting five servers");
  const ground = await Ground.start(5, FLAGS);
  try {
    const asker = await PeerAsker.admitted(ground);
    const entries = new NumberedEntries(asker);
    progress(`writing ${ENTRIES} entries of ${VALUE_BYTES} bytes`);
    await entries.write(ENTRIES);
    const away = ground.servers[2]!;
    await away.kill();
    await ground.settled();
    progress(`changing ${CHANGED} of them while one server is away`);
    await entries.write(CHANGED);

    progress("it comes back, under reads and writes of clients");
    const clients = new Clients(await Edges.signedIn(ground));
    clients.start();
    const startMs = performance.now();
    await away.restart();
    await levelEverywhere(asker, ground.servers, away);
    const levelMs = performance.now() - startMs;
    const { receivedBytes, readBytes } = await ground.spent(away);
    const latenciesMs = await clients.stop();
    for (const failure of clients.failures.slice(0, 5)) progress(`a client's call failed: ${failure}`);
    const changedBytes = CHANGED * (VALUE_BYTES + KEY_BYTES);
    report({ name: "catch-up: level in all groups after", value: levelMs / 1000, unit: "s" });
    report({
      name: "catch-up: bytes received by the server since its start",
      value: receivedBytes / changedBytes,
      unit: "x what changed",
      max: 2,
    });
    report({
      name: "catch-up: the same, with all that it read of its own files",
      value: readBytes / changedBytes,
      unit: "x what changed",
    });
    report({
      name: "catch-up: errors of clients meanwhile",
      value: clients.failures.length,
      unit: "",
      max: 0,
    });
    report({ name: "catch-up: calls of clients meanwhile", value: latenciesMs.length, unit: "" });
    report({ name: "catch-up: calls of clients, p99", value: quantile(latenciesMs, 0.99), unit: "ms" });
    await asker.close();
  } finally {
    await ground.stop();
  }
}

/** Entry n lies in partition n mod the number of partitions. */
class NumberedEntries {
  readonly #asker: PeerAsker;

  constructor(asker: PeerAsker) {
    this.#asker = asker;
  }

  /** The first `count`, each with a new value. */
  async write(count: number): Promise<void> {
    const { partitionCount } = this.#asker;
    const batches: { partition: number; from: number }[] = [];
    const perPartition = Math.ceil(count / partitionCount);
    for (let from = 0; from < perPartition; from += ENTRIES_PER_BATCH) {
      for (let partition = 0; partition < partitionCount; partition++) batches.push({ partition, from });
    }
    const work = async () => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        const { partition, from } = batch;
        const size = Math.min(ENTRIES_PER_BATCH, perPartition - from);
        const numbers = Array.from({ length: size }, (_, i) => (from + i) * partitionCount + partition);
        const changes = numbers
          .filter((n) => n < count)
          .map((n) => {
            const key = `e${String(n).padStart(KEY_BYTES - 1, "0")}`;
            return { kind: "put" as const, key, value: randomBytes(VALUE_BYTES) };
          });
        if (changes.length === 0) continue;
        // An outcome that is not known is asked again: the same values once more change nothing.
        await this.#asker.operate(partition, {
          kind: "batch",
          changes,
          conditions: [],
          requestId: randomBytes(16).toString("hex"),
        });
      }
    };
    await Promise.all(Array.from({ length: BATCHES_AT_ONCE }, work));
  }
}

/** Each replica of `one` claims what its leader claims, twice the same or more: the leaders' states go on meanwhile. */
async function levelEverywhere(
  asker: PeerAsker,
  servers: readonly ServerProcess[],
  one: ServerProcess,
): Promise<void> {
  const deadline = performance.now() + LEVEL_MS_MAX;
  const led = new Map<number, { round: number; seq: number }>();
  for (const server of servers) {
    for (const { partition, role, ballot, seq } of await asker.partitions(server.nodeId)) {
      if (role === "leader" && ballot !== null) led.set(partition, { round: ballot.round, seq });
    }
  }
  for (;;) {
    const held = await asker.partitions(one.nodeId);
    const behind = held.filter(({ partition, ballot, seq }) => {
      const leader = led.get(partition);
      if (leader === undefined || ballot === null) return true;
      return ballot.round < leader.round || (ballot.round === leader.round && seq < leader.seq);
    });
    if (held.length > 0 && behind.length === 0) return;
    if (performance.now() > deadline) throw new Error(`${behind.length} groups in which it is not level yet`);
    await pause(LOOK_MS);
  }
}

/** A few people at work, at all servers that were there all the time. */
class Clients {
  readonly #edges: Edges;
  readonly #latenciesMs: number[] = [];
  /** What was answered or met instead of a success. */
  readonly failures: string[] = [];
  #isOver = false;
  #running: Promise<unknown> = Promise.resolve();

  constructor(edges: Edges) {
    this.#edges = edges;
  }

  start(): void {
    this.#running = Promise.all(Array.from({ length: CLIENTS }, (_, i) => this.#work(i)));
  }

  /** @returns how long the successful calls took, ascending. */
  async stop(): Promise<number[]> {
    this.#isOver = true;
    await this.#running;
    return this.#latenciesMs.sort((a, b) => a - b);
  }

  async #work(i: number): Promise<void> {
    const { edges, ca } = this.#edges;
    const caller = new HttpCaller(edges[i % 2]!, ca);
    for (let n = 0; !this.#isOver; n++) {
      const key = `key-${i}-${(n >> 1) % 500}`;
      const request =
        n % 2 === 0
          ? this.#edges.write("catch-up", key, randomBytes(VALUE_BYTES))
          : this.#edges.read("catch-up", key);
      const askedMs = performance.now();
      await caller.call(request, CALL_MS_MAX).then(
        ({ status, body }) => {
          if (status === 200) this.#latenciesMs.push(performance.now() - askedMs);
          else this.failures.push(`${status} ${body.toString()}`);
        },
        (error: unknown) => this.failures.push(String(error)),
      );
      await pause(5);
    }
    await caller.close();
  }
}
