/** `server`: one member of a ring, until it is told to stop. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { readServerSettings, serverSettingsSchema } from "../../config.ts";
import { createLog } from "../../log.ts";
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
  bootstrap: "make a new cluster",
  join: "enter the cluster that this member belongs to, by its peer port",
  joinTokenFile: "what lets this server in",
  asNew: "set the old data aside and join as a new server",
  allowAddresses: "also scrape these addresses, e.g. 10.0.0.0/8",
};

export function addServer(program: Command, run: Runner): void {
  const command = program
    .command("server")
    .description("run one server (each flag is also a variable ORBWEAVER_… and a key of the --config file)")
    .option("--config <file>", "settings as JSON")
    .option("--json", "print one line of JSON when it is ready");
  for (const name of Object.keys(serverSettingsSchema.shape)) {
    // A key on the command line would be seen by every user of the machine.
    if (name === "masterKey") continue;
    const flag = `--${name.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`;
    const isSwitch = name === "bootstrap" || name === "asNew";
    command.addOption(new Option(isSwitch ? flag : `${flag} <${VALUE[name] ?? "n"}>`, TEXT[name] ?? ""));
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
  const isUp = await Promise.race([
    server.ready.then(
      () => true,
      () => false,
    ),
    isOver.then(() => false),
  ]);
  if (isUp) {
    const { edge, peer, nodeId } = server;
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
