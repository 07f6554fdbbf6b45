/**
 * Reads what the participants of a job have stored, in their order, behind one cursor.
 */
import { hash } from "node:crypto";
import { z } from "zod";
import { NotFoundError } from "../errors.ts";
import {
  type FailureRecord,
  failureRecordSchema,
  type ResultRecord,
  resultRecordSchema,
} from "../frontier/page.ts";
import type { Failure, Result } from "../job/job-spec.ts";
import type { Operation, Outcome } from "../replication/register.ts";
import { participantSchema } from "./job-driver.ts";
import { type KeyLayout, numberOfKey } from "./key-layout.ts";
import { decodeRecord } from "./record.ts";
import { decodeCursor, encodeCursor, type Progress } from "./result-cursor.ts";
import type { BlobsLike } from "./runner.ts";

/** Results read at once: they must fit into one frame between peers. */
const RESULTS_READ = 64;
const FAILURES_READ = 1024;
const PARTICIPANTS_READ = 4096;
/** Of contents, in one answer. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
const RESULTS = 0;
const FAILURES = 1;
/** Longer ones are kept for the reader, and a short one is given out. */
const CURSOR_LENGTH_MAX = 2048;
const CURSOR_KEPT_MS = 24 * 3_600_000;
const KEPT = "@";

const fieldSchema: z.ZodType<Result["data"][string]> = z.lazy(() =>
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.null(),
    z.array(fieldSchema),
    z.record(z.string(), fieldSchema),
  ]),
);

const nullable = z.string().nullable();
/** Results of earlier versions have less. */
const later = nullable.default(null);
const contentSchema = z.object({
  data: z.record(z.string(), fieldSchema),
  fieldErrors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  metadata: z
    .object({
      title: nullable,
      description: nullable,
      language: nullable,
      canonical: nullable,
      author: later,
      publishedAt: later,
      modifiedAt: later,
      siteName: later,
      image: later,
    })
    .optional(),
  text: z.string().optional(),
  content: z.string().optional(),
  markdown: z.string().optional(),
  links: z.array(z.object({ url: z.string(), text: z.string(), rel: z.string() })).optional(),
  tables: z
    .array(
      z.object({
        caption: nullable,
        header: z.array(z.string()).nullable(),
        rows: z.array(z.array(z.string())),
      }),
    )
    .optional(),
  structured: z
    .object({
      jsonLd: z.array(fieldSchema),
      microdata: z.array(fieldSchema),
      rdfa: z.array(fieldSchema),
      openGraph: z.record(z.string(), z.union([z.string(), z.array(z.string())])),
    })
    .optional(),
  html: z.string().optional(),
});

/** One participant, with how many entries it is known to have; undefined: look. */
export interface Participant {
  readonly partition: number;
  readonly results: number | undefined;
  readonly failures: number | undefined;
}

export interface ListPage<Item> {
  readonly items: Item[];
  readonly progress: Progress;
  /** All participants are read to the end that they will have. */
  readonly isOver: boolean;
}

export class ResultReader {
  readonly #layout: KeyLayout;
  readonly #operate: (partition: number, operation: Operation) => Promise<Outcome>;
  readonly #blobs: BlobsLike | undefined;
  readonly #now: () => number;

  constructor(options: {
    layout: KeyLayout;
    operate(partition: number, operation: Operation): Promise<Outcome>;
    blobs: BlobsLike | undefined;
    /** Unix time. */
    now(): number;
  }) {
    this.#layout = options.layout;
    this.#operate = options.operate;
    this.#blobs = options.blobs;
    this.#now = options.now;
  }

  async participants(jobId: string): Promise<Participant[]> {
    const found: Participant[] = [];
    let after: string | undefined;
    while (true) {
      const outcome = await this.#operate(this.#layout.jobPartition(jobId), {
        kind: "scan",
        prefix: this.#layout.participants(jobId),
        limit: PARTICIPANTS_READ,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") return found;
      for (const entry of outcome.entries) {
        const { partition } = decodeRecord(participantSchema, entry.value);
        found.push({ partition, results: undefined, failures: undefined });
      }
      after = outcome.entries.at(-1)?.key;
      if (!outcome.more) return found;
    }
  }

  /** @param isFinal the job was over before this call: what is read now is all there will be. */
  async results(
    jobId: string,
    participants: readonly Participant[],
    progress: Progress,
    limit: number,
    isFinal: boolean,
  ): Promise<ListPage<{ result: Result; partition: number; n: number }>> {
    const page = await this.#read(
      participants.map(({ partition, results }) => ({ partition, known: results })),
      progress,
      limit,
      isFinal,
      RESULTS_READ,
      (n) => this.#layout.result(jobId, n),
      this.#layout.results(jobId),
      (value) => decodeRecord(resultRecordSchema, value),
      (record) => (record.content.kind === "bytes" ? record.content.bytes.byteLength : 128 * 1024),
    );
    const items = await Promise.all(
      page.items.map(async ({ item, partition, n }) => ({
        result: await this.#resultOf(jobId, item),
        partition,
        n,
      })),
    );
    return { items, progress: page.progress, isOver: page.isOver };
  }

  async failures(
    jobId: string,
    participants: readonly Participant[],
    progress: Progress,
    limit: number,
    isFinal: boolean,
  ): Promise<ListPage<Failure>> {
    const page = await this.#read(
      participants.map(({ partition, failures }) => ({ partition, known: failures })),
      progress,
      limit,
      isFinal,
      FAILURES_READ,
      (n) => this.#layout.failure(jobId, n),
      this.#layout.failures(jobId),
      (value) => decodeRecord(failureRecordSchema, value),
      () => 256,
    );
    return { ...page, items: page.items.map(({ item }) => failureOf(item)) };
  }

  resultCursor(jobId: string, progress: Progress): Promise<string> {
    return this.#cursor(RESULTS, jobId, progress);
  }

  failureCursor(jobId: string, progress: Progress): Promise<string> {
    return this.#cursor(FAILURES, jobId, progress);
  }

  resultProgress(jobId: string, cursor: string | undefined): Promise<Progress> {
    return this.#progressOf(RESULTS, jobId, cursor);
  }

  failureProgress(jobId: string, cursor: string | undefined): Promise<Progress> {
    return this.#progressOf(FAILURES, jobId, cursor);
  }

  async #cursor(kind: number, jobId: string, progress: Progress): Promise<string> {
    const cursor = encodeCursor(kind, jobId, progress);
    if (cursor.length <= CURSOR_LENGTH_MAX) return cursor;
    const id = hash("sha256", cursor, "base64url");
    await this.#operate(this.#layout.jobPartition(jobId), {
      kind: "batch",
      changes: [
        {
          kind: "put",
          key: this.#layout.cursor(jobId, id),
          value: Buffer.from(cursor),
          expiresAtMs: this.#now() + CURSOR_KEPT_MS,
        },
      ],
      conditions: [],
    });
    return KEPT + id;
  }

  async #progressOf(kind: number, jobId: string, cursor: string | undefined): Promise<Progress> {
    if (cursor === undefined) return new Map();
    if (!cursor.startsWith(KEPT)) return decodeCursor(kind, jobId, cursor);
    const id = cursor.slice(KEPT.length);
    const outcome = await this.#operate(this.#layout.jobPartition(jobId), {
      kind: "get",
      keys: [this.#layout.cursor(jobId, id)],
    });
    const kept = outcome.kind === "entries" ? outcome.entries[0] : undefined;
    if (kept === undefined) throw new NotFoundError("the cursor is older than a day: begin without one");
    return decodeCursor(kind, jobId, Buffer.from(kept.value).toString());
  }

  async #read<Item>(
    participants: readonly { partition: number; known: number | undefined }[],
    from: Progress,
    limit: number,
    isFinal: boolean,
    readMax: number,
    keyOf: (n: number) => string,
    prefix: string,
    decode: (value: Uint8Array) => Item,
    bytesOf: (item: Item) => number,
  ): Promise<ListPage<{ item: Item; partition: number; n: number }>> {
    const progress: Progress = new Map([...from].map(([partition, at]) => [partition, { ...at }]));
    const items: { item: Item; partition: number; n: number }[] = [];
    let bytes = 0;
    let isOver = isFinal;
    const isFull = () => items.length >= limit || bytes >= ANSWER_BYTES_MAX;
    for (const { partition, known } of [...participants].sort((a, b) => a.partition - b.partition)) {
      const at = progress.get(partition) ?? { n: 0, isOver: false };
      if (at.isOver && isFinal) continue;
      // Another run has begun since.
      at.isOver = false;
      if (!isFinal && known !== undefined && known <= at.n) continue;
      let more = true;
      while (more && !isFull()) {
        const outcome = await this.#operate(partition, {
          kind: "scan",
          prefix,
          limit: Math.min(readMax, limit - items.length),
          ...(at.n === 0 ? {} : { after: keyOf(at.n) }),
        });
        if (outcome.kind !== "scanned") break;
        ({ more } = outcome);
        for (const entry of outcome.entries) {
          const item = decode(entry.value);
          // Failures that were tried again leave gaps.
          at.n = numberOfKey(entry.key);
          bytes += bytesOf(item);
          items.push({ item, partition, n: at.n });
        }
      }
      if (isFinal && !more) at.isOver = true;
      if (more) isOver = false;
      if (at.n > 0 || at.isOver) progress.set(partition, at);
      if (isFull() && !at.isOver) break;
    }
    if (isOver) {
      isOver = participants.every(({ partition }) => progress.get(partition)?.isOver === true);
    }
    return { items, progress, isOver };
  }

  async #resultOf(jobId: string, record: ResultRecord): Promise<Result> {
    const { content, fetchedAtMs, ...rest } = record;
    let bytes: Uint8Array;
    if (content.kind === "bytes") {
      ({ bytes } = content);
    } else {
      if (this.#blobs === undefined) throw new NotFoundError("this server keeps no blobs");
      bytes = await this.#blobs.get(jobId, content.sha256);
    }
    const { data, fieldErrors, metadata, ...formats } = decodeRecord(contentSchema, bytes);
    return {
      ...rest,
      fetchedAt: new Date(fetchedAtMs).toISOString(),
      data,
      ...(fieldErrors === undefined ? {} : { fieldErrors }),
      ...(metadata === undefined ? {} : { metadata }),
      ...withoutMissing(formats),
    };
  }
}

type Present<T> = { [Name in keyof T]: Exclude<T[Name], undefined> };

function withoutMissing<T extends object>(parts: T): Partial<Present<T>> {
  return Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined)) as Partial<
    Present<T>
  >;
}

function failureOf(record: FailureRecord): Failure {
  const { failedAtMs, ...rest } = record;
  return { ...rest, failedAt: new Date(failedAtMs).toISOString() };
}
