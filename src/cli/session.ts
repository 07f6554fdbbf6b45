/**
 * The cluster that `crawl` and `scrape` work with: the one that is configured, or
 * one server in this process for the time of the call.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { readServerSettings } from "../config.ts";
import { UsageError } from "../errors.ts";
import type { Client } from "../sdk/client.ts";
import { commaList } from "./flag.ts";
import { type ConnectionFlags, findConnection, readProfile, withConnectionFlags } from "./profile.ts";
import { note } from "./terminal.ts";

export interface SessionFlags extends ConnectionFlags {
  readonly allowAddresses?: string[];
  readonly data?: string;
}

export function withSessionFlags(command: Command): Command {
  return withConnectionFlags(command).option(
    "--allow-addresses <cidrs>",
    "also reach these addresses, e.g. 127.0.0.0/8, by a server of this command's own",
    commaList,
  );
}

export interface Session {
  readonly client: Client;
  /** This command's own server; it ends with the command. */
  readonly isEmbedded: boolean;
  close(): Promise<void>;
}

/** Enough for one server, and quick to make. */
const EMBEDDED_PARTITIONS = 32;

export async function openSession(flags: SessionFlags): Promise<Session> {
  const wantsOwn = flags.data !== undefined || flags.allowAddresses !== undefined;
  const connection = wantsOwn ? undefined : findConnection(flags);
  if (wantsOwn && (flags.servers !== undefined || flags.profile !== undefined)) {
    throw new UsageError(
      "--data and --allow-addresses are for a server of this command's own; leave them out, or leave out --servers and --profile",
    );
  }
  if (connection === undefined) return openEmbedded(flags);
  const { createClient } = await import("../sdk/client.ts");
  const client = createClient(connection.options);
  if (connection.isFound) {
    const { NoConnectionError } = await import("../sdk/edge-error.ts");
    try {
      await client.jobs.list({ limit: 1 });
    } catch (error) {
      await client.close();
      if (!(error instanceof NoConnectionError)) throw error;
      note(`no server of ${connection.source} is running: this crawl gets one of its own`);
      return openEmbedded(flags);
    }
  }
  return { client, isEmbedded: false, close: () => client.close() };
}

async function openEmbedded({ data, allowAddresses }: SessionFlags): Promise<Session> {
  const directory = data ?? (await mkdtemp(join(tmpdir(), "orbweaver-crawl-")));
  const removeAfter = async () => {
    if (data === undefined) await rm(directory, { recursive: true, force: true });
  };
  try {
    const settings = readServerSettings({
      data: directory,
      bootstrap: true,
      edgePort: 0,
      peerPort: 0,
      edgeAddress: "127.0.0.1",
      peerAddress: "127.0.0.1",
      partitions: EMBEDDED_PARTITIONS,
      logLevel: "silent",
      allowAddresses,
    });
    // Only here, since a command that speaks to a running cluster needs none of it.
    const { startServerProcess } = await import("./server-process.ts");
    const { createLog } = await import("../log.ts");
    const server = await startServerProcess(settings, createLog({ level: "silent", text: false }));
    try {
      await server.ready;
      const { createClient } = await import("../sdk/client.ts");
      const known = readProfile(join(directory, "client.json"));
      const client = createClient({ ...known?.content, servers: [server.edge] });
      const close = async () => {
        await client.close();
        await server.stop();
        await removeAfter();
      };
      return { client, isEmbedded: true, close };
    } catch (error) {
      await server.stop();
      throw error;
    }
  } catch (error) {
    await removeAfter();
    throw error;
  }
}
