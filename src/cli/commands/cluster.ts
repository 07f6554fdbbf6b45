/** `cluster`: the ring, where things are in it, and how to let a server in. */
import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { UnavailableError, UsageError } from "../../errors.ts";
import type { Client, ClusterStatus, LookupTrace } from "../../sdk/client.ts";
import { type ClientFlags, clientCommand, withClient } from "../client-command.ts";
import { DONE, PARTLY_FAILED, type Runner } from "../exit-code.ts";
import { note, printable, say, sayJson, shortNode, table } from "../terminal.ts";
import { addClusterAdministration } from "./cluster-administration.ts";

/** Whoever asks how the cluster is wants to hear it before long, above all when it is not well. */
const STATUS_MS_MAX = 10_000;

interface JoinTokenFlags extends ClientFlags {
  readonly output?: string;
}

export function addCluster(program: Command, run: Runner): void {
  const cluster = program
    .command("cluster")
    .description("the ring: look at it, let servers in and out, let lost partitions go on");
  const sub = (usage: string, description: string) => clientCommand(cluster, usage, description);
  const act = (flags: ClientFlags, work: (client: Client) => Promise<number>) =>
    run(() => withClient(flags, work));

  sub("status", "members, copies, health; exit code 3 when a partition is not served").action(
    (flags: ClientFlags) =>
      run(() =>
        withClient(
          flags,
          async (client) => {
            let status: ClusterStatus;
            try {
              status = await client.cluster.status();
            } catch (error) {
              if (!(error instanceof UnavailableError)) throw error;
              return notServed(client, error, flags.json === true);
            }
            if (flags.json === true) sayJson(status);
            else say(statusText(status));
            return status.partitions.unserved === 0 ? DONE : PARTLY_FAILED;
          },
          { timeoutMs: STATUS_MS_MAX },
        ),
      ),
  );
  sub("lookup <key>", "where a key is, e.g. host/example.org or job/ID").action(
    (key: string, flags: ClientFlags) =>
      act(flags, async (client) => {
        const trace = await client.cluster.lookup(key);
        if (flags.json === true) sayJson(trace);
        else {
          say(`${printable(trace.key)} falls on ${shortNode(trace.point)}…, partition ${trace.partition}`);
          say(`  led by   ${trace.leader === null ? "nobody at the moment" : shortNode(trace.leader)}`);
          say(`  kept by  ${trace.members.map(shortNode).join(" ")}`);
          say(`  found    ${wayText(trace)}`);
        }
        return DONE;
      }),
  );
  addClusterAdministration(cluster, program, run);
  sub("join-token", "a token that lets one server in, for an hour")
    .option("-o, --output <file>", "write it to a file that only you can read")
    .action((flags: JoinTokenFlags) =>
      act(flags, async (client) => {
        const { token, expiresAt } = await client.cluster.createJoinToken();
        if (flags.output !== undefined) await writeSecret(flags.output, token);
        if (flags.json === true) sayJson(flags.output === undefined ? { token, expiresAt } : { expiresAt });
        else {
          if (flags.output === undefined) say(token);
          note(
            `good for one server until ${expiresAt}: orbweaver server --join HOST:PORT --join-token-file FILE`,
          );
        }
        return DONE;
      }),
    );
}

/** Without its accounts the cluster lets nobody in, but each server says how it is to anybody. */
async function notServed(client: Client, cause: UnavailableError, isJson: boolean): Promise<number> {
  const servers = await client.cluster.readiness();
  if (servers.every(({ readiness }) => readiness === null)) throw cause;
  if (isJson) sayJson({ ready: false, servers });
  else {
    const rows = servers.map(({ server, readiness }) => [
      server,
      readiness === null
        ? "no answer"
        : readiness.ready
          ? "ready"
          : readiness.reasons.map(printable).join("; "),
    ]);
    say(table(["server", "says"], rows));
    note(
      `the cluster can't tell more: ${printable(cause.message)}. When most copies of something are lost for ever, \`orbweaver cluster recover\` shows it`,
    );
  }
  return PARTLY_FAILED;
}

async function writeSecret(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, `${text}\n`, { mode: 0o600, flag: "wx" });
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const why = code === "EEXIST" ? "is there already" : `can't be written (${code})`;
    throw new UsageError(`${path}: ${why}; name another file`, { cause });
  }
}

function wayText({ hops, path }: LookupTrace): string {
  if (hops === 0) return "at once: the server that answered knows the place by itself";
  return `in ${hops} ${hops === 1 ? "hop" : "hops"}: ${path.map(shortNode).join(" > ")}`;
}

/** Since the servers started; undefined while none was made. */
function callsText(status: ClusterStatus): string | undefined {
  const sum = { made: 0, redirects: 0, lookups: 0 };
  for (const { calls } of status.nodes) {
    if (calls === null) continue;
    sum.made += calls.made;
    sum.redirects += calls.redirects;
    sum.lookups += calls.lookups;
  }
  if (sum.made === 0) return undefined;
  const share = (count: number) =>
    count > sum.made
      ? `${(count / sum.made).toFixed(1)} a call`
      : `${((100 * count) / sum.made).toFixed(1)} %`;
  return `calls:      ${sum.made} to leaders; redirects ${share(sum.redirects)}, lookups ${share(sum.lookups)}`;
}

function lossText({ nodes }: ClusterStatus): string {
  if (nodes.length === 1) return "there is one copy of everything";
  return "some data has fewer than three copies";
}

function statusText(status: ClusterStatus): string {
  const { full, degraded, unserved, complete } = status.partitions;
  const hasZones = status.nodes.some(({ zone }) => zone !== "");
  const rows = status.nodes.map((node) => [
    `${shortNode(node.nodeId)}${node.self ? " *" : ""}`,
    ...(hasZones ? [node.zone === "" ? "-" : printable(node.zone)] : []),
    node.membership === "draining" ? `${node.state}, draining` : node.state,
    node.edge ?? "?",
    node.peer,
    node.arcShare === null ? "?" : `${(node.arcShare * 100).toFixed(1)} %`,
    node.leads === null ? "?" : String(node.leads),
    node.replicas === null ? "?" : String(node.replicas),
    node.load === null || node.state !== "alive" ? "?" : node.load.toFixed(1),
  ]);
  const calls = callsText(status);
  const away = status.nodes.filter(({ state }) => state === "away").length;
  const health = status.ready ? "ready" : `not ready: ${status.reasons.map(printable).join("; ")}`;
  return [
    `cluster ${status.clusterId}  ${health}`,
    `durability: ${status.durability}${status.durability === "full" ? "" : `: ${lossText(status)}`}`,
    `partitions: ${full} with three copies or more, ${degraded} with fewer, ${unserved} not served`,
    `copies:     ${complete} of ${status.partitionCount} partitions have all; ${status.replicationFactor} wanted, one a server${away === 0 ? "" : `, ${away} of which ${away === 1 ? "is" : "are"} away`}`,
    ...(calls === undefined ? [] : [calls]),
    "",
    table(
      [
        "node",
        ...(hasZones ? ["zone"] : []),
        "state",
        "edge",
        "peer",
        "of the ring",
        "leads",
        "copies",
        "load",
      ],
      rows,
    ),
    "",
    ...status.nodes.flatMap(({ nodeId, problem }) =>
      problem === null ? [] : [`  ${shortNode(nodeId)}: ${printable(problem)}`],
    ),
    ...(away === 0 ? [] : ["  away: stopped, or dead for long; it takes its place again when it is started"]),
    "  * answered; in ring order from there. load: pages running and waiting per scraping thread",
  ].join("\n");
}
