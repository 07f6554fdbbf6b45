/** `server`: one member of a ring, until it is told to stop. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { readServerSettings, serverSettingsSchema } from "../../config.ts";
import { createLog, LOG_LEVELS } from "../../log.ts";
import { DONE, FAILED, type Runner } from "../exit-code.ts";
import { interruption, whenAborted } from "../interrupt.ts";
import { say, sayJson, shortNode } from "../terminal.ts";

interface ServerFlags {
  readonly config?: string;
  readonly json?: true;
  readonly [setting: string]: unknown;
}

/** A stop that takes longer than this is cut short. */
const STOP_MS_MAX = 20_000;
/** A server that takes longer to be ready says what it waits for, each time after so long. */
const WAITING_TOLD_MS = 15_000;

const VALUE: Readonly<Record<string, string>> = {
  data: "dir",
  join: "host:port",
  joinTokenFile: "file",
  masterKeyFile: "file",
  masterKeyCommand: "command",
  adminPasswordFile: "file",
  edgeCertFile: "file",
  edgeKeyFile: "file",
  advertiseEdge: "host:port",
  advertisePeer: "host:port",
  edgeAddress: "address",
  peerAddress: "address",
  allowAddresses: "cidrs",
  logLevel: "level",
  zone: "name",
};

const TEXT: Readonly<Record<string, string>> = {
  data: "where everything of this server is kept",
  edgePort: "of REST and tRPC, for clients",
  peerPort: "of the other servers",
  edgeAddress: "where the edge listens; 0.0.0.0: everywhere",
  peerAddress: "where the peer port listens",
  advertiseEdge: "where clients reach the edge, when it is elsewhere than it listens",
  advertisePeer: "where other servers reach this one",
  bootstrap: "make a new cluster",
  join: "enter the cluster that this member belongs to, by its peer port",
  joinTokenFile: "what lets this server in",
  asNew: "set the old data aside and join as a new server",
  zone: "what fails together with others of this name, e.g. a rack: copies are spread over zones",
  partitions: "of the cluster, fixed when it is made; a power of two",
  replicationFactor: "copies of everything, fixed when the cluster is made",
  ringSuccessors: "servers known behind this one: so many may die at once",
  suspectAfterMs: "silence after which a server is suspected",
  leaderTimeoutMs: "longest that a leader goes on without a majority",
  replaceAfterMs: "after so long the copies of a suspected server are made elsewhere",
  scrubIntervalMs: "all that is kept is read and compared this often",
  requestTimeoutMs: "how long a client's call is tried",
  masterKeyFile: "what the keys of the disk are wrapped with; without it: master.key beside the data",
  masterKeyCommand: "a command that prints the master key",
  adminPasswordFile: "of the first administrator; without it: a random one in client.json",
  edgeCertFile: "own certificate of the edge, PEM; without it: one of the cluster",
  edgeKeyFile: "its key, PEM",
  allowAddresses: "also scrape these addresses, e.g. 10.0.0.0/8",
  scrapeThreads: "threads that fetch and parse",
  logLevel: LOG_LEVELS.join(", "),
};

export function addServer(program: Command, run: Runner): void {
  const command = program
    .command("server")
    .description("run one server (each flag is also a variable ORBWEAVER_… and a key of the --config file)")
    .option("--config <file>", "settings as JSON")
    .option("--json", "print one line of JSON when it is ready");
  const defaults: Readonly<Record<string, unknown>> = serverSettingsSchema.parse({});
  for (const name of Object.keys(serverSettingsSchema.shape)) {
    // A key on the command line would be seen by every user of the machine.
    if (name === "masterKey") continue;
    const flag = `--${name.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`;
    const isSwitch = name === "bootstrap" || name === "asNew";
    const usual = defaults[name];
    const isTold = !isSwitch && (typeof usual === "number" || (typeof usual === "string" && usual !== ""));
    const text = `${TEXT[name] ?? ""}${isTold ? ` (usually ${usual})` : ""}`;
    command.addOption(new Option(isSwitch ? flag : `${flag} <${VALUE[name] ?? "n"}>`, text));
  }
  command.action((flags: ServerFlags) => run(() => serve(flags)));
}

async function serve({ config, json, ...flags }: ServerFlags): Promise<number> {
  const settings = readServerSettings(flags, config);
  const interrupted = interruption();
  const abandoned = new AbortController();
  // Whoever started this server is gone, and nobody would stop it any more.
  process.once("disconnect", () => abandoned.abort());
  const log = createLog({ level: settings.logLevel, text: process.stderr.isTTY === true });
  const { startServerProcess } = await import("../server-process.ts");
  const server = await startServerProcess(settings, log);
  const told = whenAborted(AbortSignal.any([interrupted, abandoned.signal]));
  const isOver = Promise.race([told, server.ended]);
  const { edge, peer, nodeId } = server;
  const waiting = setInterval(() => {
    const reasons = server.reasons();
    log.warn("not ready yet", { reasons });
    if (json === true) sayJson({ event: "waiting", edge, peer, nodeId, reasons });
  }, WAITING_TOLD_MS);
  const isUp = await Promise.race([
    server.ready.then(
      () => true,
      () => false,
    ),
    isOver.then(() => false),
  ]);
  clearInterval(waiting);
  if (isUp) {
    const durability = await server.durability();
    if (json === true) sayJson({ event: "ready", edge, peer, nodeId, durability });
    else {
      say(
        `server ${shortNode(nodeId)} is ready: edge ${edge}, peers ${peer}, data in ${resolve(settings.data)}`,
      );
      say(
        durability === "full"
          ? "durability: full"
          : "durability: degraded: some data has fewer than three copies until there are three servers and all is copied; `orbweaver cluster status` tells",
      );
    }
  }
  await isOver;
  const timer = setTimeout(() => {
    log.error("stopping took too long");
    process.exit(FAILED);
  }, STOP_MS_MAX);
  timer.unref();
  await server.stop();
  const failure = await server.ended;
  if (failure !== undefined) throw failure;
  return DONE;
}
