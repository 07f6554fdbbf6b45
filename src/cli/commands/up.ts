/** `up`: a whole ring on this machine, one process a server, until Ctrl-C. */
import { existsSync, readFileSync } from "node:fs";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join, normalize } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../../errors.ts";
import { LOG_LEVELS } from "../../log.ts";
import { openRingFolder } from "../../node/ring-folder.ts";
import { DONE, type Runner } from "../exit-code.ts";
import { wholeNumber } from "../flag.ts";
import { interruption, whenAborted } from "../interrupt.ts";
import { type Profile, profileSchema, readProfile } from "../profile.ts";
import { type RingPorts, ringPorts } from "../ring-ports.ts";
import { ServerChild, type ServerReady } from "../server-child.ts";
import { note, printable, say, sayJson, shortNode, table } from "../terminal.ts";

interface UpFlags {
  readonly nodes: number;
  readonly data: string;
  readonly edgePort: number;
  readonly peerPort: number;
  readonly allowAddresses?: string;
  readonly scrapeThreads?: number;
  readonly logLevel: string;
  readonly json?: true;
}

const NODES_MAX = 64;
/** Fresh copies of an empty ring take seconds; those of a large one may go on behind the banner. */
const COPIES_MS_MAX = 20_000;
const COPIES_LOOK_MS = 200;

const outcastSchema = z.object({ stale: z.literal(true) });

export function addUp(program: Command, run: Runner): void {
  program
    .command("up")
    .description("a whole ring on this machine; prints where it is and how to sign in")
    .option("--nodes <n>", "servers", wholeNumber(1, NODES_MAX), 5)
    .option("--data <dir>", "where their data is kept, one folder each", "./data")
    .option(
      "--edge-port <n>",
      "of the first server; each next one has the next port",
      wholeNumber(0, 65_535),
      8443,
    )
    .option(
      "--peer-port <n>",
      "of the first server; each next one has the next port",
      wholeNumber(0, 65_535),
      7443,
    )
    .option("--allow-addresses <cidrs>", "also scrape these addresses, e.g. 127.0.0.0/8")
    .option("--scrape-threads <n>", "per server", wholeNumber(1, 64))
    .option("--log-level <level>", `what the servers say: ${LOG_LEVELS.join(", ")}`, "warn")
    .option("--json", "print one line of JSON when all are ready")
    .action((flags: UpFlags) => run(() => up(flags)));
}

async function up(flags: UpFlags): Promise<number> {
  const interrupted = interruption();
  const known = await knownServers(flags.data);
  const count = Math.max(flags.nodes, known);
  if (known > flags.nodes) note(`${flags.data} has ${known} servers: all of them are started`);
  const { ports, isOther } = await ringPorts(
    flags.data,
    { edge: flags.edgePort, peer: flags.peerPort },
    count,
    (n) => isServer(join(flags.data, folderOf(n))),
  );
  if (isOther) {
    note(
      `the servers in ${flags.data} keep the ports by which they know each other (edges from ${ports[0]?.edge}, peers from ${ports[0]?.peer}); give another folder with --data for other ports`,
    );
  }
  const all = ports.map((own, n) => {
    const name = folderOf(n);
    const directory = join(flags.data, name);
    const logFile = join(flags.data, `${name}.log`);
    return {
      directory,
      child: new ServerChild(name, serverFlags(flags, own, count, directory), { logFile, print: note }),
    };
  });
  const servers = all.filter(({ directory }) => !isOutcast(directory));
  for (const { directory } of all.filter((one) => !servers.includes(one))) {
    note(
      `${directory} is left out: the cluster takes nothing of it any more; delete the folder, and a new server takes its place`,
    );
  }
  const stop = () => Promise.all(servers.map(({ child }) => child.stop()));
  try {
    const starting = startAll(servers, flags);
    // When Ctrl-C wins, its end is nobody's concern any more: the servers under it are stopped.
    starting.catch(() => {});
    const ready = await Promise.race([starting, whenAborted(interrupted).then(() => undefined)]);
    if (ready !== undefined) {
      const profile = await writeProfile(flags.data, ready);
      const late = ready.filter(({ event }) => event === "waiting").length;
      if (late > 0) {
        note(
          `${late} of ${ready.length} servers wait for others and go on trying; \`orbweaver cluster recover --profile ${profile}\` shows whether most copies of something are lost`,
        );
      }
      const copies = late > 0 ? undefined : await awaitCopies(profile, interrupted);
      if (flags.json === true) sayJson({ event: "ready", servers: ready, profile, ...copies });
      else
        say(
          welcome(
            flags.data,
            profile,
            ready.map((one, n) => [basename(servers[n]!.directory), one]),
            copies,
          ),
        );
      await whenAborted(interrupted);
      if (flags.json !== true) note("stopping; what is under way is finished first");
    }
  } finally {
    await stop();
  }
  return DONE;
}

interface LocalServer {
  readonly directory: string;
  readonly child: ServerChild;
}

/** The first one makes the cluster and lets the others in; those that were members just start. */
async function startAll(servers: readonly LocalServer[], flags: UpFlags): Promise<ServerReady[]> {
  const [first, ...others] = servers;
  if (first === undefined) {
    throw new UsageError(`${flags.data} holds no server that may start: give another folder with --data`);
  }
  const members = others.filter(({ directory }) => isServer(directory));
  const [made, ...back] = await Promise.all([
    first.child.start(isServer(first.directory) ? [] : ["--bootstrap"]),
    ...members.map(({ child }) => child.start()),
  ]);
  const ready = new Map<LocalServer, ServerReady>([[first, made]]);
  for (const [n, member] of members.entries()) ready.set(member, back[n]!);
  const joiners = others.filter((server) => !members.includes(server));
  if (joiners.length > 0) {
    const tokens = await joinTokens(first.directory, made, flags.data, joiners.length);
    await Promise.all(
      joiners.map(async (server, n) => {
        const more = ["--join", made.peer, "--join-token-file", tokens[n]!];
        ready.set(server, await server.child.start(more));
        await rm(tokens[n]!, { force: true });
      }),
    );
  }
  return servers.map((server) => ready.get(server)!);
}

interface Copies {
  readonly durability: "full" | "degraded";
  /** Groups that have all the copies that so many servers can keep, of all. */
  readonly complete: number;
  readonly partitions: number;
  /** Servers of the cluster that are not in the ring. */
  readonly away: number;
}

/** Waits, for as long as a person would, until the groups have all their copies; undefined when nobody told. */
async function awaitCopies(profile: string, interrupted: AbortSignal): Promise<Copies | undefined> {
  const { createClient } = await import("../../sdk/client.ts");
  const client = createClient({ servers: [], ...readProfile(profile)?.content });
  const untilMs = performance.now() + COPIES_MS_MAX;
  let copies: Copies | undefined;
  try {
    for (;;) {
      const { durability, partitions, partitionCount, nodes } = await client.cluster.status();
      const away = nodes.filter(({ state }) => state === "away").length;
      copies = { durability, complete: partitions.complete, partitions: partitionCount, away };
      // Copies on servers that are not started can't be waited for.
      const isOver = copies.complete === partitionCount || away > 0 || performance.now() > untilMs;
      if (isOver || interrupted.aborted) return copies;
      await pause(COPIES_LOOK_MS, undefined, { signal: interrupted });
    }
  } catch {
    // The servers are up all the same: what is not known is not claimed.
    return copies;
  } finally {
    await client.close();
  }
}

/** Files with one token each, readable by this user only. */
async function joinTokens(
  firstDirectory: string,
  first: ServerReady,
  data: string,
  count: number,
): Promise<string[]> {
  const { createClient } = await import("../../sdk/client.ts");
  const own = join(data, "client.json");
  const profile = readProfile(existsSync(own) ? own : join(firstDirectory, "client.json"));
  const client = createClient({ ...profile?.content, servers: [first.edge] });
  try {
    const files: string[] = [];
    for (let n = 0; n < count; n++) {
      const { token } = await client.cluster.createJoinToken();
      const file = join(data, `join-token-${n + 1}`);
      await writeFile(file, token, { mode: 0o600 });
      files.push(file);
    }
    return files;
  } finally {
    await client.close();
  }
}

/** What signs this machine's commands in, with all edges in it. */
async function writeProfile(data: string, ready: readonly ServerReady[]): Promise<string> {
  const path = join(data, "client.json");
  const source = existsSync(path) ? path : join(data, folderOf(0), "client.json");
  const known = profileSchema.parse(JSON.parse(await readFile(source, "utf8")));
  const profile: Profile = { ...known, servers: ready.map(({ edge }) => edge) };
  await writeFile(`${path}.new`, `${JSON.stringify(profile, null, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
  return path;
}

function serverFlags(flags: UpFlags, own: RingPorts[number], count: number, directory: string): string[] {
  // The servers share the machine's cores.
  const threads = flags.scrapeThreads ?? Math.max(1, Math.floor((availableParallelism() - 1) / count));
  return [
    ...["--data", directory, "--edge-port", String(own.edge), "--peer-port", String(own.peer)],
    ...["--scrape-threads", String(threads), "--log-level", flags.logLevel],
    ...(flags.allowAddresses === undefined ? [] : ["--allow-addresses", flags.allowAddresses]),
  ];
}

function folderOf(n: number): string {
  return `server-${n + 1}`;
}

function isServer(directory: string): boolean {
  return existsSync(join(directory, "identity.json"));
}

/** Removed from the cluster, or an old copy: it never starts again. */
function isOutcast(directory: string): boolean {
  if (!isServer(directory)) return false;
  try {
    return outcastSchema.safeParse(JSON.parse(readFileSync(join(directory, "identity.json"), "utf8")))
      .success;
  } catch {
    return false; // What is wrong with the file is said by its server, with what to do.
  }
}

/** How many servers have their folder here. @throws {UsageError} the folder is of something else. */
async function knownServers(data: string): Promise<number> {
  if (isServer(data)) {
    throw new UsageError(
      `${data} holds one server: start it with \`orbweaver server --data ${data}\`, or give another folder with --data`,
    );
  }
  try {
    const names = await openRingFolder(data);
    const numbers = names.flatMap((name) => {
      const number = /^server-(\d+)$/.exec(name)?.[1];
      return number !== undefined && isServer(join(data, name)) ? [Number(number)] : [];
    });
    return Math.min(NODES_MAX, Math.max(0, ...numbers));
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    throw new UsageError(`${data}: can't be used (${code}); give a folder of yours with --data`, { cause });
  }
}

function copiesText(copies: Copies | undefined, servers: number): string {
  if (copies === undefined) return "durability: not known yet; `cluster status` tells";
  const { durability, complete, partitions, away } = copies;
  if (durability === "degraded" && servers < 3) {
    return `durability: degraded: with ${servers === 1 ? "one server" : "two servers"} there are fewer than three copies; five servers keep all data when two are lost`;
  }
  if (away > 0 && complete < partitions) {
    return `durability: ${durability}; ${away} ${away === 1 ? "server" : "servers"} of the cluster ${away === 1 ? "is" : "are"} away, and ${away === 1 ? "its" : "their"} copies with ${away === 1 ? "it" : "them"}`;
  }
  const all = complete === partitions;
  return `durability: ${durability}; ${all ? `all ${partitions} groups have` : `${complete} of ${partitions} groups have`} all their copies${all ? "" : ", the others are being copied"}`;
}

function welcome(
  data: string,
  profile: string,
  ready: readonly (readonly [name: string, server: ServerReady])[],
  copies: Copies | undefined,
): string {
  const isDefault = normalize(data) === "data";
  const run = (command: string) =>
    `  npm run orbweaver -- ${command}${isDefault ? "" : ` --profile ${profile}`}`;
  const { username = "admin" } = readProfile(profile)?.content ?? {};
  const rows = ready.map(([name, { edge, peer, nodeId }]) => [name, edge, peer, shortNode(nodeId)]);
  return [
    `Orbweaver is up: ${ready.length} ${ready.length === 1 ? "server" : "servers"}, data in ${data}`,
    "",
    table(["server", "edge", "peers", "node"], rows),
    "",
    copiesText(copies, ready.length),
    `Sign in as ${printable(username)}; the password is in ${profile}, which signs the command line in by itself.`,
    "",
    "Try, in another terminal:",
    run("cluster status"),
    run("crawl https://books.toscrape.com/ --max-pages 20 -o books.ndjson"),
    "",
    `Ctrl-C stops them all; the same command starts them again with their data. They log to ${join(data, "server-N.log")}.`,
  ].join("\n");
}
