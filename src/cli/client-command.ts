/** Commands that speak to a cluster: their flags, and a client that ends with them. */
import type { Command } from "commander";
import type { Client, ClientOptions } from "../sdk/client.ts";
import { type ConnectionFlags, connect, withConnectionFlags } from "./profile.ts";

export interface ClientFlags extends ConnectionFlags {
  readonly json?: true;
}

/** @param usage the name below `parent`, and arguments. */
export function clientCommand(parent: Command, usage: string, description: string): Command {
  return withConnectionFlags(parent.command(usage).description(description)).option("--json", "print JSON");
}

/** The client is closed however `work` ends. @throws {UsageError} there is no cluster to speak to. */
export async function withClient<T>(
  flags: ConnectionFlags,
  work: (client: Client) => Promise<T>,
  options: Pick<ClientOptions, "timeoutMs"> = {},
): Promise<T> {
  const client = await connect(flags, options);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}
