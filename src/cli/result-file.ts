/**
 * Results as a file, written as they come, one after another: NDJSON, one JSON
 * array, or CSV (RFC 4180). Closed at any moment it is complete for what is in it.
 */
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { access, constants, stat } from "node:fs/promises";
import { dirname, extname } from "node:path";
import type { Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { UsageError } from "../errors.ts";
import type { FieldValue } from "../extraction/value.ts";
import type { Result } from "../job/job-spec.ts";

export type ResultFormat = "ndjson" | "json" | "csv";

const FORMATS: Readonly<Record<string, ResultFormat>> = {
  ".ndjson": "ndjson",
  ".jsonl": "ndjson",
  ".json": "json",
  ".csv": "csv",
};

/** @throws {UsageError} the name says no format that there is. */
export function formatOf(path: string): ResultFormat {
  const format = FORMATS[extname(path).toLowerCase()];
  if (format === undefined) {
    throw new UsageError(`${path}: the name must end in .ndjson, .json or .csv, which says how to write it`);
  }
  return format;
}

/** Before anything is begun that would be in vain. @throws {UsageError} */
export async function requireWritable(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw new UsageError(`${path}: is a folder; name a file`);
  try {
    await access(found === undefined ? dirname(path) : path, constants.W_OK);
  } catch (cause) {
    throw new UsageError(`${path}: can't be written there; name a file in a folder that is yours`, { cause });
  }
}

export class ResultFile {
  readonly #out: Writable;
  readonly #format: ResultFormat;
  readonly #fields: readonly string[];
  #count = 0;
  #failure: Error | undefined;

  /** @param fields names of extracted fields: the columns of CSV behind the fixed ones. */
  constructor(out: Writable, format: ResultFormat, fields: readonly string[]) {
    this.#out = out;
    this.#format = format;
    this.#fields = fields;
    out.on("error", (error) => {
      this.#failure = error;
    });
  }

  static async create(path: string, fields: readonly string[]): Promise<ResultFile> {
    const out = createWriteStream(path, { mode: 0o644 });
    await once(out, "open");
    return new ResultFile(out, formatOf(path), fields);
  }

  get count(): number {
    return this.#count;
  }

  /** Waits while the disk or the reader is slower. */
  async write(result: Result): Promise<void> {
    await this.#put(this.#frame(result));
    this.#count++;
  }

  /** Ends the file so that it can be read; standard output stays open. */
  async close(): Promise<void> {
    if (this.#format === "json") await this.#put(this.#count === 0 ? "[]\n" : "\n]\n");
    if (this.#format === "csv" && this.#count === 0) await this.#put(csvHead(this.#fields));
    if (this.#out === process.stdout) return;
    this.#out.end();
    await finished(this.#out);
  }

  #frame(result: Result): string {
    switch (this.#format) {
      case "ndjson":
        return `${JSON.stringify(result)}\n`;
      case "json":
        return `${this.#count === 0 ? "[\n" : ",\n"}${JSON.stringify(result)}`;
      case "csv":
        return (this.#count === 0 ? csvHead(this.#fields) : "") + csvRow(result, this.#fields);
    }
  }

  async #put(text: string): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#out.write(text)) await once(this.#out, "drain");
  }
}

const COLUMNS = [
  "url",
  "finalUrl",
  "status",
  "contentType",
  "fetchedAt",
  "depth",
  "parent",
  "bytes",
] as const;

function csvHead(fields: readonly string[]): string {
  return csvLine([...COLUMNS, "title", ...fields.map((field) => `data.${field}`)]);
}

function csvRow(result: Result, fields: readonly string[]): string {
  const fixed = COLUMNS.map((column) => result[column]);
  return csvLine([
    ...fixed,
    result.metadata?.title ?? null,
    ...fields.map((field) => result.data[field] ?? null),
  ]);
}

function csvLine(cells: readonly FieldValue[]): string {
  return `${cells.map(csvCell).join(",")}\r\n`;
}

function csvCell(value: FieldValue): string {
  if (value === null) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  // A spreadsheet would run what begins like a formula; pages are written by strangers.
  const inert = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}
