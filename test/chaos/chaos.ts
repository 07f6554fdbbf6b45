/**
 * `npm run chaos -- --minutes M --seed S [--history FILE] [--servers 5..7]`: real
 * servers that are killed, stopped, frozen, cut off and emptied while clients use
 * a few keys and locks. Exit code 1 when what the clients saw can't have come
 * from one copy of each value, when an acknowledged write is missing at the end,
 * or when a lock was held twice. Interrupted, it judges nothing and leaves nothing
 * behind.
 *
 * The seed fixes what is chosen; what the operating system makes of it differs
 * from run to run.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { z } from "zod";
import { interruption, whenAborted } from "../../src/cli/interrupt.ts";
import { Lan, lanObstacle } from "../cluster/lan.ts";
import { type Cluster, startCluster } from "../fixture/cluster.ts";
import { randomFrom } from "../simulation/random.ts";
import { EdgePorts } from "./edge-port.ts";
import { Faults } from "./faults.ts";
import { History } from "./history.ts";
import { LockClients } from "./lock-clients.ts";
import { ValueClients } from "./value-clients.ts";

const VALUE_CLIENTS = 10;
const LOCK_CLIENTS = 4;
/** For what each key says at the end, through each server. */
const READERS = 8;
/** What a shell is told of a program that was interrupted. */
const INTERRUPTED = 130;
const SIGN_IN_MS = 5 * 60_000;
const JUDGE_STEPS_MAX = 2_000_000;
const LISTED_MAX = 20;

const optionsSchema = z.object({
  minutes: z.coerce.number().positive().max(600).default(1),
  seed: z.coerce
    .number()
    .int()
    .min(0)
    .default(Math.floor(Math.random() * 2 ** 31)),
  servers: z.coerce.number().int().min(5).max(7).default(5),
  history: z.string().optional(),
});
type Options = z.output<typeof optionsSchema>;

const USAGE = `npm run chaos -- [--minutes 1] [--seed S] [--servers 5] [--history FILE]
  Real servers, 5 to 7, are killed, stopped, frozen, cut off and emptied while clients use a few keys and locks.
  --seed: fixes what is chosen; another one each time when left out. --history: what the clients saw, a line each.
  Exit code 1 when what they saw can't have come from one copy of each value, or a lock was held twice.`;

const startedMs = performance.now();
const options = readOptions();
if (options !== undefined) process.exitCode = (await run(options)) ? 0 : 1;

/** Undefined: there is nothing to run, and why has been said. */
function readOptions(): Options | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: "string" },
        seed: { type: "string" },
        servers: { type: "string" },
        history: { type: "string" },
        help: { type: "boolean" },
      },
    });
    if (values.help === true) {
      console.log(USAGE);
      return undefined;
    }
    const parsed = optionsSchema.safeParse(values);
    if (parsed.success) return parsed.data;
    for (const { path, message } of parsed.error.issues) console.error(`--${path.join(".")}: ${message}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
  }
  process.exitCode = 2;
  return undefined;
}

async function run(options: Options): Promise<boolean> {
  say(`seed ${options.seed}: ${options.servers} servers for ${options.minutes} minutes`);
  const interrupted = interruption();
  const obstacle = await lanObstacle();
  const lan = obstacle === undefined ? await Lan.make(options.servers) : undefined;
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-chaos-"));
  if (obstacle !== undefined) say(`no server is cut off from the others: ${obstacle}`);
  let cluster: Cluster | undefined;
  let isRight = false;
  try {
    cluster = await startCluster({
      nodes: options.servers,
      dataDirectory: directory,
      allowAddresses: [],
      // So that a server that lost its disk is replaced while the run lasts.
      flags: ["--partitions", "32", "--scrape-threads", "1", "--replace-after-ms", "5000"],
      ...(lan === undefined ? {} : { place: (index: number) => lan.place(index) }),
    });
    const seeing = see(options, cluster, lan);
    isRight = await Promise.race([seeing, whenAborted(interrupted).then(() => false)]);
  } finally {
    await cluster?.stop();
    await lan?.close();
    if (isRight || interrupted.aborted) await rm(directory, { recursive: true, force: true });
    else console.log(`data and logs of the servers are left in ${directory}`);
  }
  // Clients and faults are still at it, and there is nothing left to be at.
  if (interrupted.aborted) process.exit(INTERRUPTED);
  return isRight;
}

async function see(options: Options, cluster: Cluster, lan: Lan | undefined): Promise<boolean> {
  const ports = new EdgePorts(cluster.admin, cluster.ca);
  await ports.signIn(cluster.servers[0]!.edge);
  const history = new History(VALUE_CLIENTS + READERS, options.history);
  const stream = (n: number) => randomFrom(options.seed * 31 + n);
  const clients = new ValueClients({
    clients: VALUE_CLIENTS,
    cluster,
    ports,
    history,
    random: stream(1),
  });
  const locks = new LockClients({ clients: LOCK_CLIENTS, cluster, ports, random: stream(2) });
  const faults = new Faults({ cluster, lan, random: stream(3), say });
  const signingIn = setInterval(() => {
    const server = cluster.servers.find((one) => one.isRunning && !one.isFrozen);
    // The one before is good for a while longer.
    if (server !== undefined) ports.signIn(server.edge).catch(() => {});
  }, SIGN_IN_MS);

  await pause(options.minutes * 60_000);
  say("everything comes back");
  await faults.stop();
  await Promise.all([clients.stop(), locks.stop()]);
  clearInterval(signingIn);
  const gapMs = clients.longestGapMs;
  const missing = await readAll(cluster, clients, history);
  ports.close();
  await history.close();

  say("judging");
  const judged = history.judge(JUDGE_STEPS_MAX);
  const violations = [
    ...judged
      .filter(({ verdict }) => verdict === "not linearizable")
      .map(({ key }) => `${key}: not linearizable`),
    ...missing,
    ...locks.violations(),
    ...faults.failed,
    ...clients.unexpected.map((text) => `unexpected answer: ${text}`),
  ];
  const undecided = judged.filter(({ verdict }) => verdict === "undecided").map(({ key }) => key);
  for (const [f, { ok, fail, info }] of [...history.counts].toSorted())
    console.log(`  ${f.padEnd(7)} ok ${ok}, fail ${fail}, unknown ${info}`);
  console.log(`  locks   granted ${locks.grants}`);
  console.log(`  faults  ${[...faults.counts].map(([fault, count]) => `${fault} ${count}`).join(", ")}`);
  console.log(`  longest gap between two acknowledged writes ${Math.round(gapMs)} ms`);
  console.log(`  whole again at most ${(faults.wholeMsMax / 1000).toFixed(1)} s after a fault ended`);
  console.log(`  ${judged.length} keys judged, ${clients.ledger.size} of them written once and still there`);
  if (undecided.length > 0) console.log(`  too long to be judged: ${undecided.join(", ")}`);
  for (const text of violations.slice(0, LISTED_MAX)) console.log(`  VIOLATION ${text}`);
  if (violations.length > LISTED_MAX) console.log(`  and ${violations.length - LISTED_MAX} more`);
  const isRight = violations.length === 0 && undecided.length === 0;
  console.log(`seed ${options.seed}: ${isRight ? "no violation" : "FAILED"}`);
  return isRight;
}

/** What each key says at the end, through one server or another, into the history. Returns what is missing, in words. */
async function readAll(cluster: Cluster, clients: ValueClients, history: History): Promise<string[]> {
  const { keys } = history;
  const missing: string[] = [];
  const read = async (reader: number) => {
    for (let i = reader; i < keys.length; i += READERS) {
      const key = keys[i]!;
      const server = cluster.servers[i % cluster.servers.length]!;
      const ending = await clients.read(VALUE_CLIENTS + reader, key, server);
      const wanted = clients.ledger.get(key);
      if (ending.type !== "ok") missing.push(`${key}: can't be read at the end: ${ending.error}`);
      else if (wanted !== undefined && ending.value !== wanted)
        missing.push(`${key}: ${ending.value} instead of ${wanted}, which was acknowledged`);
    }
  };
  await Promise.all(Array.from({ length: READERS }, (_, reader) => read(reader)));
  return missing;
}

function say(text: string): void {
  console.log(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)}  ${text}`);
}
