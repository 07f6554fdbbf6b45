/**
 * One line per event on standard error: JSON for machines, text on a terminal.
 * Fields hold ids and keys, never URLs, names of people, or tokens.
 */
import pino from "pino";

export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Log {
  debug(event: string, fields?: object): void;
  info(event: string, fields?: object): void;
  warn(event: string, fields?: object): void;
  /** `fields.error`, when given, is an Error: its message and stack are kept. */
  error(event: string, fields?: object): void;
  /** The same log with `fields` on every line. */
  child(fields: object): Log;
}

export function createLog(options: {
  level: LogLevel;
  /** Lines for people instead of JSON. */
  text: boolean;
  fields?: object;
  write?: (line: string) => void;
}): Log {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const logger = pino(
    {
      level: options.level,
      base: options.fields ?? {},
      messageKey: "event",
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    { write: options.text ? (line: string) => write(`${readableLine(line)?.text ?? line}\n`) : write },
  );
  return wrap(logger);
}

function wrap(logger: pino.Logger): Log {
  return {
    debug: (event, fields) => logger.debug(fields ?? {}, event),
    info: (event, fields) => logger.info(fields ?? {}, event),
    warn: (event, fields) => logger.warn(fields ?? {}, event),
    error: (event, fields) => logger.error(fields ?? {}, event),
    child: (fields) => wrap(logger.child(fields)),
  };
}

/** A JSON line of a log for people; undefined when it is none. */
export function readableLine(line: string): { readonly level: string; readonly text: string } | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof parsed !== "object" || parsed === null) return undefined;
  const { time, level, event, ...fields } = parsed as { time?: unknown; level?: unknown; event?: unknown };
  if (typeof time !== "string" || typeof level !== "string" || typeof event !== "string") return undefined;
  const rest = Object.entries(fields)
    .map(([name, value]) => `${name}=${text(value)}`)
    .join(" ");
  return {
    level,
    text: `${time.slice(11, 23)} ${level.padEnd(5)} ${event}${rest === "" ? "" : `  ${rest}`}`,
  };
}

function text(value: unknown): string {
  if (typeof value === "string") return /^[0-9a-f]{40}$/.test(value) ? value.slice(0, 8) : value;
  if (typeof value === "object" && value !== null && "message" in value) return String(value.message);
  return JSON.stringify(value);
}
