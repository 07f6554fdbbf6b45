/**
 * Settings of a server: flag `--kebab-case`, variable `ORBWEAVER_UPPER_SNAKE`, or
 * key in the JSON file named by `--config`. A flag wins over a variable, a
 * variable over the file. The only file that reads the environment.
 */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { availableParallelism } from "node:os";
import { z } from "zod";
import { UsageError } from "./errors.ts";
import { LOG_LEVELS } from "./log.ts";

const whole = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z.coerce.number(error).int(error).min(min, error).max(max, error);
};
const port = whole(0, 65_535);
/** No longer than timers reach. */
const ms = whole(1, 2_147_483_647);
const flag = z.union([
  z.boolean(),
  z.enum(["true", "false", "1", "0", ""]).transform((v) => v === "true" || v === "1"),
]);
const list = z.union([z.string(), z.array(z.string())]).transform((v) =>
  typeof v === "string"
    ? v
        .split(",")
        .map((s) => s.trim())
        .filter((s) => s !== "")
    : v,
);
/** CIDRs, or single addresses. */
const addressRanges = list.refine((ranges) => ranges.every(isAddressRange), {
  error: "must be address ranges, e.g. 127.0.0.0/8,fd00::/8",
});
/** `host:port`, `[v6]:port` */
const hostPort = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$/, "must be HOST:PORT, e.g. 10.0.0.5:7443");

export const serverSettingsSchema = z
  .strictObject({
    data: z.string().min(1).default("./data"),
    edgePort: port.default(8443),
    peerPort: port.default(7443),
    edgeAddress: z.string().default("127.0.0.1"),
    peerAddress: z.string().default("127.0.0.1"),
    /** What others are told to connect to, when it differs from the bound address. */
    advertiseEdge: hostPort.optional(),
    advertisePeer: hostPort.optional(),
    bootstrap: flag.default(false),
    join: hostPort.optional(),
    joinTokenFile: z.string().optional(),
    asNew: flag.default(false),
    zone: z.string().max(64).default(""),
    partitions: whole(1, 65_536)
      .refine((n) => (n & (n - 1)) === 0, "must be a power of two")
      .default(256),
    replicationFactor: whole(1, 9).default(5),
    /** Nodes kept as fallback successors; survives this many crashes at once. */
    ringSuccessors: whole(1, 32).default(8),
    suspectAfterMs: ms.default(1200),
    leaderTimeoutMs: ms.default(500),
    replaceAfterMs: ms.default(60_000),
    /** Everything that is kept is read and compared this often, so that damage is found while there are other copies. */
    scrubIntervalMs: ms.default(7 * 24 * 3_600_000),
    requestTimeoutMs: ms.default(5000),
    masterKeyFile: z.string().optional(),
    masterKey: z.string().optional(),
    masterKeyCommand: z.string().optional(),
    adminPasswordFile: z.string().optional(),
    edgeCertFile: z.string().optional(),
    edgeKeyFile: z.string().optional(),
    allowAddresses: addressRanges.default([]),
    scrapeThreads: whole(1, 64).default(Math.max(1, availableParallelism() - 1)),
    logLevel: z.enum(LOG_LEVELS).default("info"),
  })
  .refine((s) => s.ringSuccessors >= s.replicationFactor, {
    path: ["ringSuccessors"],
    error: "must be at least --replication-factor (5, if not given): copies live on the successors",
  })
  .refine((s) => !(s.bootstrap && s.join !== undefined), {
    path: ["bootstrap"],
    error: "a server either makes a new cluster (--bootstrap) or joins one (--join), not both",
  })
  .refine((s) => s.bootstrap || s.join === undefined || s.joinTokenFile !== undefined, {
    path: ["joinTokenFile"],
    error: "is needed to join: `orbweaver cluster join-token` on a member prints a token",
  })
  .refine((s) => (s.edgeCertFile === undefined) === (s.edgeKeyFile === undefined), {
    path: ["edgeCertFile"],
    error: "edgeCertFile and edgeKeyFile belong together",
  });

export type ServerSettings = z.output<typeof serverSettingsSchema>;

function isAddressRange(text: string): boolean {
  const [address = "", prefix, ...more] = text.split("/");
  const version = isIP(address);
  if (version === 0 || more.length > 0) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128));
}

const PREFIX = "ORBWEAVER_";
/** Variables with our prefix that are not settings of a server: they tell clients where to go. */
const CLIENT_VARIABLES = new Set([
  "SERVERS",
  "CA_FILE",
  "API_KEY",
  "TOKEN",
  "USERNAME",
  "PASSWORD",
  "PROFILE",
]);

const kebab = (name: string) => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
const snake = (name: string) => name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase();

/**
 * @param flags by setting name, only those given.
 * @throws {UsageError} names each wrong setting, where it came from, and what it should be.
 */
export function readServerSettings(
  flags: Readonly<Record<string, unknown>>,
  configFile?: string,
): ServerSettings {
  const names = Object.keys(serverSettingsSchema.shape);
  const values: Record<string, unknown> = {};
  const sources = new Map<string, string>();
  const take = (name: string, value: unknown, source: string) => {
    values[name] = value;
    sources.set(name, source);
  };

  if (configFile !== undefined) {
    for (const [name, value] of Object.entries(readConfigFile(configFile))) {
      if (name === "masterKey")
        throw new UsageError(`${configFile}: masterKey may only be given as ${PREFIX}MASTER_KEY`);
      take(name, value, `${configFile}: ${name}`);
    }
  }
  for (const [variable, value] of Object.entries(process.env)) {
    if (!variable.startsWith(PREFIX) || CLIENT_VARIABLES.has(variable.slice(PREFIX.length))) continue;
    const name = names.find((n) => PREFIX + snake(n) === variable);
    if (name === undefined) throw new UsageError(`${variable}: there is no such setting`);
    take(name, value, variable);
  }
  for (const [name, value] of Object.entries(flags)) {
    if (value !== undefined) take(name, value, `--${kebab(name)}`);
  }

  const parsed = serverSettingsSchema.safeParse(values);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((issue) => {
    const name = String(issue.path[0] ?? "");
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => `${sources.get(key) ?? key}: there is no such setting`).join("\n");
    }
    return `${sources.get(name) ?? `--${kebab(name)}`}: ${issue.message}`;
  });
  throw new UsageError(lines.join("\n"), { cause: parsed.error });
}

function readConfigFile(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new UsageError(`--config ${path}: can't be read; give the path of a JSON file`, { cause });
  }
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (cause) {
    throw new UsageError(`--config ${path}: is not a JSON object`, { cause });
  }
}

/** Where a client finds servers and what it signs in with, as far as the environment tells. */
export interface ClientEnvironment {
  readonly servers: readonly string[] | undefined;
  readonly caFile: string | undefined;
  readonly apiKey: string | undefined;
  readonly token: string | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly profile: string | undefined;
}

export function readClientEnvironment(): ClientEnvironment {
  const read = (name: string) => process.env[PREFIX + name] || undefined;
  return {
    servers: read("SERVERS")
      ?.split(",")
      .map((s) => s.trim())
      .filter((s) => s !== ""),
    caFile: read("CA_FILE"),
    apiKey: read("API_KEY"),
    token: read("TOKEN"),
    username: read("USERNAME"),
    password: read("PASSWORD"),
    profile: read("PROFILE"),
  };
}
