/** What one acknowledged write costs, as the store and the ring grow: it is to stay the same. */
import { randomBytes, randomInt } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { Figure } from "./figure.ts";
import { Edges } from "./kv-edges.ts";
import { Ground, less, type Spent } from "./kv-ground.ts";
import { Filler } from "./kv-inside.ts";
import { load } from "./kv-load.ts";
import { PeerAsker } from "./kv-peer.ts";

const FEW = 10_000;
const MANY = 1_000_000;
/** Small, because it is the number that counts here, and the disk is shared. */
const FILLED_VALUE_BYTES = 16;
const FILL_BATCH = 512;
const FILL_AT_ONCE = 12;
const FILL_MS_MAX = 150_000;
const SERVERS = [5, 15] as const;
const CLIENTS = 64;
const KEYS = 2_000;
const VALUE_BYTES = 256;
const IDLE_MS = 3_000;
const WARM_MS = 5_000;
/** What filling left to be merged is merged under the first writes that follow, and is none of their cost. */
const WARM_RUNS_MAX = 8;
/** Of two runs in a row, as a share: by then it is over. */
const STEADY = 0.15;
const MEASURED_MS = 10_000;
/** What grows with the logarithm of what is stored, and what measuring blurs, stay below this. */
const GROWTH_MAX = 1.5;

type Cost = { readonly [what in "cpuUs" | "writtenBytes" | "fsyncs"]: number };

/** Stored entries: from ten thousand to a million. */
export async function costOfEntriesFigures(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
): Promise<void> {
  progress("starting five servers");
  const ground = await Ground.start(5);
  try {
    const asker = await PeerAsker.admitted(ground);
    const filler = new Filler(asker, { entries: FILL_BATCH, valueBytes: FILLED_VALUE_BYTES });
    const fill = (entriesMax: number) =>
      filler.run({ ms: FILL_MS_MAX, batchesAtOnce: FILL_AT_ONCE, entriesMax });
    const stored = await fill(FEW);
    const few = await costOfWrite(ground, progress);
    progress(`storing ${MANY} entries`);
    const { entries } = await fill(MANY);
    report({ name: "cost: entries stored at the end", value: stored.entries + entries, unit: "", min: MANY });
    await pause(IDLE_MS);
    const many = await costOfWrite(ground, progress);
    reportGrowth(report, `${FEW} to ${MANY} entries`, few, many);
    await asker.close();
  } finally {
    await ground.stop();
  }
}

/** Servers: from five to fifteen. */
export async function costOfServersFigures(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
): Promise<void> {
  const costs: Cost[] = [];
  for (const servers of SERVERS) {
    progress(`starting ${servers} servers`);
    const ground = await Ground.start(servers);
    try {
      costs.push(await costOfWrite(ground, progress));
    } finally {
      await ground.stop();
    }
  }
  reportGrowth(report, `${SERVERS.join(" to ")} servers`, costs[0]!, costs[1]!);
}

/** Beyond what the servers spend without any writes. */
async function costOfWrite(ground: Ground, progress: (text: string) => void): Promise<Cost> {
  const edges = await Edges.signedIn(ground);
  progress("measuring the idle servers");
  const idle = await spentDuring(ground, () => pause(IDLE_MS));
  progress("measuring writes");
  const value = randomBytes(VALUE_BYTES);
  let acknowledged = 0;
  const run = (measuredMs: number) =>
    load({
      edges: edges.edges,
      ca: edges.ca,
      clients: CLIENTS,
      warmMs: 0,
      measuredMs,
      next: () => edges.write("cost", `key-${randomInt(KEYS)}`, value),
      isGood: ({ status }) => status === 200,
    });
  let before = Number.POSITIVE_INFINITY;
  for (let runs = 0; runs < WARM_RUNS_MAX; runs++) {
    let count = 0;
    const { writtenBytes } = await spentDuring(ground, async () => {
      count = (await run(WARM_MS)).count;
    });
    const each = writtenBytes / count;
    progress(`warming up: ${each.toFixed(0)} bytes written for each of ${count} writes`);
    if (Math.abs(each - before) < STEADY * each) break;
    before = each;
  }
  const spent = await spentDuring(ground, async () => {
    acknowledged = (await run(MEASURED_MS)).count;
  });
  progress(`${acknowledged} writes in ${MEASURED_MS / 1000} s`);
  const beyond = (of: keyof Cost) => (spent[of] - (idle[of] * MEASURED_MS) / IDLE_MS) / acknowledged;
  return { cpuUs: beyond("cpuUs"), writtenBytes: beyond("writtenBytes"), fsyncs: beyond("fsyncs") };
}

async function spentDuring(ground: Ground, run: () => Promise<unknown>): Promise<Spent> {
  const before = await ground.spentByAll();
  await run();
  return less(await ground.spentByAll(), before);
}

function reportGrowth(report: (figure: Figure) => void, what: string, before: Cost, after: Cost): void {
  const rows = [
    ["cpuUs", "processor", "us"],
    ["writtenBytes", "written to disks and connections", "bytes"],
    ["fsyncs", "fsyncs", ""],
  ] as const;
  for (const [of, name, unit] of rows) {
    report({ name: `cost of a write, ${what}: ${name} before`, value: before[of], unit });
    report({ name: `cost of a write, ${what}: ${name} after`, value: after[of], unit });
    report({
      name: `cost of a write, ${what}: ${name}`,
      value: after[of] / before[of],
      unit: "x",
      max: GROWTH_MAX,
    });
  }
}
