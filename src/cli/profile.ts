/**
 * Which cluster a command speaks to, and as whom: flags, else `ORBWEAVER_*`, else
 * a profile: the file that is named, `./data/client.json`, or
 * `~/.config/orbweaver/client.json`.
 */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { readClientEnvironment } from "../config.ts";
import { UsageError } from "../errors.ts";
import type { Client, ClientOptions } from "../sdk/client.ts";
import { commaList } from "./flag.ts";

export const profileSchema = z.object({
  servers: z.array(z.string()).min(1),
  /** PEM. */
  ca: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  apiKey: z.string().optional(),
  token: z.string().optional(),
});
export type Profile = z.output<typeof profileSchema>;

export interface ConnectionFlags {
  readonly servers?: string[];
  readonly caFile?: string;
  readonly apiKey?: string;
  readonly token?: string;
  readonly profile?: string;
}

export function withConnectionFlags(command: Command): Command {
  return command
    .option(
      "--servers <urls>",
      "edges of the cluster, e.g. https://10.0.0.5:8443,https://10.0.0.6:8443",
      commaList,
    )
    .option("--ca-file <file>", "the cluster's root certificate (ca.crt of a server's data directory)")
    .option("--api-key <key>", "sign in with an API key")
    .option("--token <token>", "sign in with an access token")
    .option("--profile <file>", "a file with servers, ca and credentials (else ./data/client.json)");
}

export interface Connection {
  readonly options: ClientOptions;
  /** Found, not asked for: it may be of a cluster that does not run any more. */
  readonly isFound: boolean;
  /** For messages: where this was read. */
  readonly source: string;
}

/**
 * Undefined: nothing says where to connect to.
 *
 * @throws {UsageError} what is said can't be read, or isn't enough.
 */
export function findConnection(flags: ConnectionFlags): Connection | undefined {
  const environment = readClientEnvironment();
  const named = flags.profile ?? environment.profile;
  const servers = flags.servers ?? environment.servers;
  const profile = servers !== undefined && named === undefined ? undefined : readProfile(named);
  if (servers === undefined && profile === undefined) {
    const stray = Object.keys(flags).find((name) => ["caFile", "apiKey", "token"].includes(name));
    if (stray !== undefined) throw new UsageError("name the servers too: --servers https://HOST:PORT");
    return undefined;
  }
  const caFile = flags.caFile ?? environment.caFile;
  const given = {
    apiKey: flags.apiKey ?? environment.apiKey,
    token: flags.token ?? environment.token,
    username: environment.username,
    password: environment.password,
  };
  const isGiven = Object.values(given).some((value) => value !== undefined);
  // Credentials come from one place only: those of a profile don't fit the user of a flag.
  const { apiKey, token, username, password } = isGiven ? given : (profile?.content ?? {});
  const source = profile?.path ?? "--servers";
  if ((apiKey ?? token ?? username ?? password) === undefined) {
    throw new UsageError(
      `${source} does not say who signs in: add --api-key KEY or --token TOKEN, or set ORBWEAVER_USERNAME and ORBWEAVER_PASSWORD; a --profile FILE holds servers and credentials together`,
    );
  }
  const options: ClientOptions = {
    servers: servers ?? profile?.content.servers ?? [],
    ca: caFile === undefined ? profile?.content.ca : readText("--ca-file", caFile),
    ...(flags.apiKey !== undefined
      ? { apiKey }
      : flags.token !== undefined
        ? { token }
        : { apiKey, token, username, password }),
  };
  return {
    options,
    isFound: servers === undefined && named === undefined,
    source,
  };
}

/** @throws {UsageError} there is no cluster to speak to. */
export async function connect(
  flags: ConnectionFlags,
  options: Pick<ClientOptions, "timeoutMs"> = {},
): Promise<Client> {
  const connection = findConnection(flags);
  if (connection === undefined) {
    throw new UsageError(
      "no cluster is known here: start one with `npm start`, or name one with --servers https://HOST:PORT or --profile FILE",
    );
  }
  const { createClient } = await import("../sdk/client.ts");
  return createClient({ ...connection.options, ...options });
}

/**
 * Name and password, for what is asked when nobody can sign in.
 *
 * @throws {UsageError} there are none.
 */
export function signInOf(flags: ConnectionFlags): { readonly username: string; readonly password: string } {
  const { username, password } = findConnection(flags)?.options ?? {};
  if (username !== undefined && password !== undefined) return { username, password };
  throw new UsageError(
    "this takes a user name and a password: give a profile that has them with --profile FILE, or ORBWEAVER_USERNAME and ORBWEAVER_PASSWORD",
  );
}

/** @param named undefined: the usual places, where there may be none. */
export function readProfile(named: string | undefined): { path: string; content: Profile } | undefined {
  const paths =
    named === undefined
      ? [join("data", "client.json"), join(homedir(), ".config", "orbweaver", "client.json")]
      : [named];
  for (const path of paths) {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (cause) {
      const isAbsent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
      if (named === undefined && isAbsent) continue;
      throw new UsageError(
        `${path}: can't be read; give a profile that is there with --profile FILE (up and server --bootstrap write client.json into their data directory)`,
        { cause },
      );
    }
    return { path, content: parseProfile(path, text) };
  }
  return undefined;
}

function parseProfile(path: string, text: string): Profile {
  try {
    return profileSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UsageError(
      `${path}: is no profile; it must be JSON like {"servers": ["https://127.0.0.1:8443"], "ca": "…", "username": "…", "password": "…"}`,
      { cause },
    );
  }
}

function readText(flag: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new UsageError(`${flag} ${path}: can't be read`, { cause });
  }
}
