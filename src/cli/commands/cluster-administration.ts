/** `cluster drain`, `remove`, `recover` and `audit`: what operators do, with what they see of it. */
import { createInterface } from "node:readline/promises";
import { setTimeout as pause } from "node:timers/promises";
import type { Command } from "commander";
import { UsageError } from "../../errors.ts";
import type { Client, Loss, NodeStatus } from "../../sdk/client.ts";
import { type ClientFlags, clientCommand, withClient } from "../client-command.ts";
import { DONE, FAILED, type Runner } from "../exit-code.ts";
import { interruption, whenAborted } from "../interrupt.ts";
import { signInOf } from "../profile.ts";
import { note, printable, say, sayJson, shortNode, table } from "../terminal.ts";

interface DrainFlags extends ClientFlags {
  /** Commander's name for --no-wait. */
  readonly wait: boolean;
  readonly undo?: true;
}
interface RemoveFlags extends ClientFlags {
  readonly yes?: true;
}

interface RecoverFlags extends ClientFlags {
  readonly yes?: true;
}

const LOOK_MS = 500;
const SURVIVORS_SHOWN_MAX = 50;
const AUDIT_PAGE = 1000;

/** @param cluster the command that they are part of. */
export function addClusterAdministration(cluster: Command, program: Command, run: Runner): void {
  const act = (flags: ClientFlags, work: (client: Client) => Promise<number>) =>
    run(() => withClient(flags, work));

  clientCommand(cluster, "drain <node>", "move a server's leaderships and copies away, so that it may stop")
    .option("--no-wait", "don't wait until nothing is left on it")
    .option("--undo", "let it keep its share again")
    .action((name: string, flags: DrainFlags) =>
      act(flags, async (client) => {
        const node = await nodeNamed(client, name);
        if (flags.undo === true) {
          await client.cluster.keep(node.nodeId);
          if (flags.json === true) sayJson({ nodeId: node.nodeId, membership: "active" });
          else say(`server ${shortNode(node.nodeId)} keeps its share again`);
          return DONE;
        }
        await client.cluster.drain(node.nodeId);
        if (flags.wait) return drained(client, node.nodeId, flags.json === true);
        if (flags.json === true) sayJson({ nodeId: node.nodeId, membership: "draining" });
        else note(`server ${shortNode(node.nodeId)} is being drained; \`cluster status\` shows what is left`);
        return DONE;
      }),
    );
  clientCommand(
    cluster,
    "remove <node>",
    "strike a server off for good: it is refused, and its copies are replaced",
  )
    .option("--yes", "also one that is up and was not drained")
    .action((name: string, flags: RemoveFlags) =>
      act(flags, async (client) => {
        const { nodeId, state, membership, replicas } = await nodeNamed(client, name);
        if (state === "alive" && (membership !== "draining" || replicas !== 0) && flags.yes !== true) {
          throw new UsageError(
            `server ${shortNode(nodeId)} is up and keeps ${replicas ?? "some"} copies, which would be gone at once: first \`orbweaver cluster drain ${shortNode(nodeId)}\`, or say --yes`,
          );
        }
        await client.cluster.remove(nodeId);
        if (flags.json === true) sayJson({ nodeId, membership: "removed" });
        else say(`server ${shortNode(nodeId)} is removed: its certificate is refused everywhere within 5 s`);
        return DONE;
      }),
    );
  clientCommand(
    cluster,
    "recover",
    "let partitions go on that lost their majority for ever; asks before it does",
  )
    .option("--yes", "don't ask")
    .action((flags: RecoverFlags) => act(flags, (client) => recover(client, flags)));
  clientCommand(program, "audit", "what was done to the cluster, and by whom").action((flags: ClientFlags) =>
    act(flags, async (client) => {
      for (let cursor: string | undefined; ; ) {
        const { items, nextCursor } = await client.cluster.audit({ limit: AUDIT_PAGE, cursor });
        for (const event of items) {
          if (flags.json === true) sayJson(event);
          else {
            say(
              `${event.n}  ${event.at}  ${printable(event.actor)}  ${printable(event.action)}  ${printable(event.subject)}`,
            );
          }
        }
        if (nextCursor === null) return DONE;
        cursor = nextCursor;
      }
    }),
  );
}

/** @throws {UsageError} none or several have an id that begins so. */
async function nodeNamed(client: Client, name: string): Promise<NodeStatus> {
  const nodes = await client.cluster.nodes();
  const found = nodes.filter(({ nodeId, edge, peer }) => {
    return (/^[0-9a-f]{1,40}$/.test(name) && nodeId.startsWith(name)) || edge === name || peer === name;
  });
  const [node] = found;
  if (node !== undefined && found.length === 1) return node;
  const known = nodes.map(({ nodeId }) => shortNode(nodeId)).join(" ");
  throw new UsageError(
    `${printable(name)}: ${found.length === 0 ? "no server has an id that begins so" : "several servers have ids that begin so"}; there are ${known}`,
  );
}

/** Shows what is left until nothing is, or Ctrl-C: draining goes on without us. */
async function drained(client: Client, nodeId: string, isJson: boolean): Promise<number> {
  const interrupted = interruption();
  let shown = "";
  while (!interrupted.aborted) {
    const node = (await client.cluster.nodes()).find((one) => one.nodeId === nodeId);
    if (node === undefined || node.replicas === null || node.leads === null) {
      const text = `server ${shortNode(nodeId)} does not answer; if it is gone for good: orbweaver cluster remove ${shortNode(nodeId)}`;
      if (text !== shown) note(text);
      shown = text;
    } else {
      const { leads, replicas } = node;
      // Not counted yet: looked at again.
      const blobs = node.blobs ?? Number.NaN;
      const text = `left on ${shortNode(nodeId)}: ${leads} leaderships, ${replicas} copies${node.blobs === null ? "" : `, ${blobs} blobs`}`;
      if (text !== shown) note(text);
      shown = text;
      if (leads + replicas + blobs === 0) {
        if (isJson) sayJson({ nodeId, membership: "draining", leads, replicas, blobs });
        else {
          say(
            `nothing is left on server ${shortNode(nodeId)}: stop it, then run: orbweaver cluster remove ${shortNode(nodeId)}`,
          );
        }
        return DONE;
      }
    }
    await Promise.race([pause(LOOK_MS), whenAborted(interrupted)]);
  }
  note("draining goes on; the same command shows it again");
  return FAILED;
}

async function recover(client: Client, flags: RecoverFlags): Promise<number> {
  const credentials = signInOf(flags);
  const losses = await client.cluster.losses(credentials);
  const possible = losses.filter(({ best }) => best !== null);
  const isJson = flags.json === true;
  if (losses.length === 0) {
    if (isJson) sayJson({ losses, recovered: [], failed: [] });
    else
      say("every partition has a majority of its copies, or will lead again by itself: nothing to recover");
    return DONE;
  }
  if (!isJson) for (const line of lossLines(losses)) note(line);
  if (possible.length === 0) {
    if (isJson) sayJson({ losses, recovered: [], failed: [] });
    else note("no survivor holds anything of them: start one of the lost servers with its data");
    return FAILED;
  }
  if (flags.yes !== true && !(await isConfirmed(possible.length))) {
    note("nothing was changed");
    return FAILED;
  }
  const { recovered, failed } = await client.cluster.recover(credentials, possible);
  if (isJson) sayJson({ losses, recovered, failed });
  else {
    say(`${recovered.length} partitions go on; the audit log says so (orbweaver audit)`);
    if (failed.length > 0) note(`not recovered: ${failed.join(" ")}: look again with the same command`);
  }
  return failed.length === 0 && possible.length === losses.length ? DONE : FAILED;
}

async function isConfirmed(count: number): Promise<boolean> {
  if (process.stdin.isTTY !== true) {
    throw new UsageError(
      "recovering loses data for good and asks before: run it in a terminal, or give --yes",
    );
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(
      `What only the lost servers held of these ${count} partitions is gone for good, also if they come back.\nType "recover" to go on: `,
    );
    return answer.trim() === "recover";
  } finally {
    terminal.close();
  }
}

function lossLines(losses: readonly Loss[]): string[] {
  const lines = [`${losses.length} partitions have no majority of their copies:`, ""];
  const rows = losses.slice(0, SURVIVORS_SHOWN_MAX).flatMap(({ partition, survivors, lost, best }) => {
    const shown = survivors.map(({ nodeId, accepted, seq, entries, ageMs }) => [
      String(partition),
      `${shortNode(nodeId)}${nodeId === best ? " <- goes on from here" : ""}`,
      shortBallot(accepted),
      String(seq),
      String(entries ?? "?"),
      ageMs === null ? "not since its start" : `${Math.round(ageMs / 1000)} s ago`,
    ]);
    const gone = lost.map((replica) => [String(partition), `${shortNode(replica)} lost`, "", "", "", ""]);
    return [...shown, ...gone];
  });
  lines.push(table(["partition", "server", "accepted", "batches", "entries", "was level"], rows));
  if (losses.length > SURVIVORS_SHOWN_MAX) {
    lines.push(`  and ${losses.length - SURVIVORS_SHOWN_MAX} more partitions; --json shows all`);
  }
  return [...lines, ""];
}

/** `7.<node>/<serial>` as `7.<short node>`. */
function shortBallot(ballot: string): string {
  const [round = "", replica = ""] = ballot.split(".");
  return `${round}.${shortNode(replica)}`;
}
