/** The store as the crawl uses it: batches of create-if-absent by the peer API, over all partitions in turn. */
import { randomBytes } from "node:crypto";
import { OutcomeUnknownError } from "../../src/errors.ts";
import type { Change, Condition } from "../../src/replication/register.ts";
import type { Figure } from "./figure.ts";
import { Ground, less } from "./kv-ground.ts";
import { PeerAsker } from "./kv-peer.ts";

const ENTRIES_PER_BATCH = 64;
const VALUE_BYTES = 256;
/** Batches under way at once: enough that each server always has some, too few to queue for long. */
const BATCHES_MAX = 20;
const WARM_MS = 3_000;
const MEASURED_MS = 12_000;

export async function insideFigures(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  profileFile?: string,
): Promise<void> {
  progress("starting five servers");
  const ground = await Ground.start(5);
  try {
    const asker = await PeerAsker.admitted(ground);
    const filler = new Filler(asker, { entries: ENTRIES_PER_BATCH, valueBytes: VALUE_BYTES });
    progress("warming up");
    await filler.run({ ms: WARM_MS, batchesAtOnce: BATCHES_MAX });
    progress("measuring");
    const before = await ground.spentByAll();
    const profiled =
      profileFile === undefined
        ? undefined
        : ground.profile(ground.servers[1]!, MEASURED_MS - 2_000, profileFile);
    const { entries, seconds, latenciesMs } = await filler.run({
      ms: MEASURED_MS,
      batchesAtOnce: BATCHES_MAX,
    });
    await profiled;
    const spent = less(await ground.spentByAll(), before);
    report({ name: "inside: acknowledged entries", value: entries / seconds, unit: "a second", min: 10_000 });
    latenciesMs.sort((a, b) => a - b);
    report({
      name: "inside: batch of 64, p50",
      value: latenciesMs[latenciesMs.length >> 1] ?? Number.NaN,
      unit: "ms",
    });
    report({ name: "inside: processor, all servers", value: spent.cpuUs / entries, unit: "us an entry" });
    report({
      name: "inside: written to disks and connections",
      value: spent.writtenBytes / entries,
      unit: "bytes an entry",
    });
    report({ name: "inside: batches of unknown outcome", value: filler.unknown, unit: "", max: 0 });
    report({ name: "inside: fsyncs, all servers", value: spent.fsyncs / seconds, unit: "a second" });
    await asker.close();
  } finally {
    await ground.stop();
  }
}

/** Creates new entries, always in the next partition. */
export class Filler {
  readonly #asker: PeerAsker;
  readonly #entries: number;
  readonly #value: Uint8Array;
  #batch = 0;
  /** Batches whose outcome was not known at first: the leader changed. */
  unknown = 0;

  constructor(asker: PeerAsker, options: { readonly entries: number; readonly valueBytes: number }) {
    this.#asker = asker;
    this.#entries = options.entries;
    this.#value = randomBytes(options.valueBytes);
  }

  /** Until `ms` have passed, or so many entries stand. */
  async run(options: {
    readonly ms: number;
    readonly batchesAtOnce: number;
    readonly entriesMax?: number;
  }): Promise<{ entries: number; seconds: number; latenciesMs: number[] }> {
    const startMs = performance.now();
    const entriesMax = options.entriesMax ?? Number.POSITIVE_INFINITY;
    const latenciesMs: number[] = [];
    let begun = 0;
    let entries = 0;
    const fill = async () => {
      while (performance.now() - startMs < options.ms && begun < entriesMax) {
        begun += this.#entries;
        const askedMs = performance.now();
        await this.#create();
        latenciesMs.push(performance.now() - askedMs);
        entries += this.#entries;
      }
    };
    await Promise.all(Array.from({ length: options.batchesAtOnce }, fill));
    return { entries, seconds: (performance.now() - startMs) / 1000, latenciesMs };
  }

  async #create(): Promise<void> {
    const changes: Change[] = [];
    const conditions: Condition[] = [];
    for (let i = 0; i < this.#entries; i++) {
      const key = `b${randomBytes(24).toString("latin1")}`;
      changes.push({ kind: "put", key, value: this.#value });
      conditions.push({ key, is: "absent" });
    }
    const partition = this.#batch++ % this.#asker.partitionCount;
    for (let attempt = 1; ; attempt++) {
      try {
        const outcome = await this.#asker.operate(partition, { kind: "batch", changes, conditions });
        // At the second attempt they may stand already: the keys are nobody else's.
        if (outcome.kind === "written" || (outcome.kind === "conflict" && attempt > 1)) return;
        throw new Error(`a batch of new entries was answered with ${outcome.kind}`);
      } catch (error) {
        if (!(error instanceof OutcomeUnknownError)) throw error;
        this.unknown++;
      }
    }
  }
}
