/**
 * Five real servers for one test file, and what its tests ask of them: conditions
 * with deadlines instead of pauses, load that never stops, everything taken down
 * also when a test fails.
 */
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import type { Failure, Job } from "../../src/job/job-spec.ts";
import { type Client, type ClientOptions, createClient } from "../../src/sdk/client.ts";
import { type Cluster, type Place, type ServerProcess, startCluster } from "../fixture/cluster.ts";

const LOOK_MS = 50;
const SETTLE_MS_MAX = 60_000;
const PINNED_MS_MAX = 15_000;

export type Five = readonly [ServerProcess, ServerProcess, ServerProcess, ServerProcess, ServerProcess];

export interface GroundOptions {
  /** Further settings of every server. */
  readonly flags?: readonly string[];
  readonly place?: (index: number) => Place;
  /** Loopback when left out. */
  readonly allowAddresses?: readonly string[];
}

export interface Ground {
  readonly cluster: Cluster;
  readonly servers: Five;
  readonly directory: string;
  /** Asks these servers, the first one first. Closed with the ground. */
  client(...servers: readonly ServerProcess[]): Client;
  /** Asks only this server, and tells of its failure after `timeoutMs`. Closed with the ground. */
  pinned(server: ServerProcess, timeoutMs?: number): Client;
}

/**
 * Resolves when each partition has its five copies: until then fewer servers may
 * die than promised. When a test of `t` fails, data and logs are left for a look.
 */
export async function startGround(t: Test, options: GroundOptions = {}): Promise<Ground> {
  const { flags = [], place, allowAddresses = ["127.0.0.0/8"] } = options;
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-cluster-"));
  const clients: Client[] = [];
  let cluster: Cluster | undefined;
  t.teardown(async () => {
    await Promise.allSettled(clients.map((client) => client.close()));
    await cluster?.stop();
    if (t.passing()) await rm(directory, { recursive: true, force: true });
    else t.comment(`data and logs of the servers are left in ${directory}`);
  });
  cluster = await startCluster({
    nodes: 5,
    dataDirectory: directory,
    allowAddresses,
    flags: ["--scrape-threads", "1", ...flags],
    place,
  });
  const { admin, ca, servers } = cluster;
  const make = (asked: readonly ServerProcess[], limits: Partial<ClientOptions>) => {
    const made = createClient({ servers: asked.map((server) => server.edge), ...admin, ca, ...limits });
    clients.push(made);
    return made;
  };
  const client = (...asked: readonly ServerProcess[]) => make(asked, {});
  const pinned = (server: ServerProcess, timeoutMs = PINNED_MS_MAX) =>
    make([server], { learnServers: false, timeoutMs });
  const [one, two, three, four, five] = servers;
  const ground = { cluster, directory, client, pinned, servers: [one!, two!, three!, four!, five!] as const };
  await allServed(client(...servers), 5);
  return ground;
}

/** Waits until each partition has a leader and at least so many members. */
export function allServed(client: Client, membersMin: number): Promise<unknown> {
  return until(`all partitions are led, by groups of ${membersMin}`, SETTLE_MS_MAX, async () => {
    const partitions = await client.cluster.partitions();
    return partitions.every(({ leader, members }) => leader !== null && members.length >= membersMin);
  });
}

/** Waits until so many servers stand in one ring: their arcs make one circle. Returns milliseconds. */
export async function untilOneRing(client: Client, members: number, deadlineMs: number): Promise<number> {
  const fromMs = performance.now();
  await until(`${members} servers stand in one ring`, deadlineMs, async () => {
    const shares = (await client.cluster.nodes()).map(({ arcShare }) => arcShare ?? 0);
    const whole = shares.reduce((sum, share) => sum + share, 0);
    return shares.length === members && Math.abs(whole - 1) < 0.001;
  });
  return performance.now() - fromMs;
}

/**
 * By how much longer than on a machine of its own something may take here: a
 * limit says what the servers may need, not what else the machine has to do.
 */
export function slowness(): number {
  // Five servers and a test keep twice as many busy as there are, by themselves.
  return Math.max(1, loadavg()[0]! / (2 * availableParallelism()));
}

/**
 * The first truthy answer of `ask`. An `ask` that throws ends the wait.
 *
 * @param deadlineMs on a machine that has nothing else to do.
 * @throws {Error} none by then.
 */
export async function until<T>(
  what: string,
  deadlineMs: number,
  ask: () => Promise<T | false | undefined> | T | false | undefined,
): Promise<T> {
  const startedMs = performance.now();
  for (;;) {
    const answer = await ask();
    if (answer !== false && answer !== undefined) return answer;
    if (performance.now() > startedMs + deadlineMs * slowness()) {
      throw new Error(`not within ${Math.round(performance.now() - startedMs)} ms: ${what}`);
    }
    await pause(LOOK_MS);
  }
}

export function inSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** Waits until the job is over. */
export function untilOver(client: Client, jobId: string, deadlineMs: number): Promise<Job> {
  return until(`job ${jobId} is over`, deadlineMs, async () => {
    const job = await client.jobs.get(jobId);
    return job.finishedAt !== null && job;
  });
}

/** Waits until somebody listens there. @param address `host:port` */
export function untilListening(address: string, deadlineMs: number): Promise<unknown> {
  const { hostname, port } = new URL(`https://${address}`);
  return until(`${address} listens`, deadlineMs, async () => {
    const socket = connect(Number(port), hostname);
    try {
      await once(socket, "connect");
      return true;
    } catch {
      return false;
    } finally {
      socket.destroy();
    }
  });
}

export async function allFailures(client: Client, jobId: string): Promise<Failure[]> {
  const failures: Failure[] = [];
  let cursor: string | undefined;
  for (;;) {
    const page = await client.jobs.failures(jobId, { limit: 1000, cursor });
    failures.push(...page.items);
    if (page.nextCursor === null || page.items.length === 0) return failures;
    cursor = page.nextCursor;
  }
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

export interface LogLine {
  readonly event: string;
  readonly level: string;
  readonly [field: string]: unknown;
}

/** What the server logged in all its lives; lines that are no JSON, such as a last word, come as events. */
export async function logOf(server: ServerProcess): Promise<LogLine[]> {
  const text = await readFile(server.logFile, "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      try {
        return JSON.parse(line) as LogLine;
      } catch {
        return { event: line, level: "text" };
      }
    });
}

/** What a process that ended by itself said to the person who started it; waits until it fits `pattern`. */
export async function lastWord(server: ServerProcess, pattern: RegExp): Promise<string> {
  const { event } = await until(`its last word fits ${pattern}`, 5_000, async () => {
    const word = (await logOf(server)).findLast(
      ({ level, event }) => level === "text" && event.startsWith("orbweaver: "),
    );
    return word !== undefined && pattern.test(word.event) && word;
  });
  return event;
}
