/**
 * The frontier's entries in the registers of its partition: how they are written
 * and read back. All of it goes through the local replica, which leads the partition.
 */
import { canonicalUrl } from "../frontier/canonical-url.ts";
import type { FrontierWrite } from "../frontier/draft.ts";
import type { FlightRecord } from "../frontier/frontier-state.ts";
import { LOAD_LENGTH, type Place } from "../frontier/host-queue.ts";
import { type OutRecord, outRecordSchema } from "../frontier/host-spread.ts";
import { type ContentChunk, chunkPlace, contentChunkSchema } from "../frontier/known-contents.ts";
import {
  dueSchema,
  failureRecordSchema,
  type OfferedPage,
  type Page,
  pageSchema,
  type Size,
  sizeSchema,
} from "../frontier/page.ts";
import { type PaceRecord, paceRecordSchema } from "../frontier/politeness.ts";
import type { ListedFailure } from "../frontier/revival.ts";
import { type RobotsRecord, robotsRecordSchema } from "../frontier/robots-access.ts";
import { type TrapRecord, trapRecordSchema } from "../frontier/trap.ts";
import { type Counts, countsSchema } from "../job/counts.ts";
import type { Ballot, Change, Entry, Operation, Outcome } from "../replication/register.ts";
import { type KeyLayout, numberOfKey } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

/** Robots.txt files read back for one host. */
const ORIGINS_READ_MAX = 64;
const SCAN_LENGTH = 1024;
const DROP_LENGTH = 128;

export class FrontierStore {
  readonly #layout: KeyLayout;
  readonly #ballot: Ballot;
  readonly #operate: (operation: Operation) => Promise<Outcome>;

  constructor(layout: KeyLayout, ballot: Ballot, operate: (operation: Operation) => Promise<Outcome>) {
    this.#layout = layout;
    this.#ballot = ballot;
    this.#operate = operate;
  }

  /** One batch, under this leader's ballot or not at all. */
  async write(writes: readonly FrontierWrite[]): Promise<void> {
    await this.#batch(writes.map((write) => this.#change(write)));
  }

  async counts(jobId: string): Promise<Counts | undefined> {
    const entry = await this.#get(this.#layout.count(jobId));
    return entry && decodeRecord(countsSchema, entry.value);
  }

  /** Of all jobs that have ever had a page here. */
  async allCounts(): Promise<Counts[]> {
    const entries = await this.#scanAll(this.#layout.counts());
    return entries.map((entry) => decodeRecord(countsSchema, entry.value));
  }

  async sizes(jobId: string): Promise<Size[]> {
    const entries = await this.#scanAll(this.#layout.sizes(jobId));
    return entries.map((entry) => decodeRecord(sizeSchema, entry.value));
  }

  /** What the pages of a host said so far. */
  async contents(jobId: string, host: string): Promise<ContentChunk[]> {
    const entries = await this.#scanAll(this.#layout.contents(jobId, host));
    return entries.map((entry) => decodeRecord(contentChunkSchema, entry.value));
  }

  async traps(jobId: string): Promise<TrapRecord[]> {
    const entries = await this.#scanAll(this.#layout.traps(jobId));
    return entries.map((entry) => decodeRecord(trapRecordSchema, entry.value));
  }

  /** Pages under way that other partitions store. */
  async outs(jobId: string): Promise<OutRecord[]> {
    const entries = await this.#scanAll(this.#layout.outs(jobId));
    return entries.map((entry) => decodeRecord(outRecordSchema, entry.value));
  }

  /** Pages of a host that were handed out and are not settled. */
  async flights(jobId: string, host: string): Promise<FlightRecord[]> {
    const entries = await this.#scanAll(this.#layout.dueFlying(jobId, host));
    const dues = entries.map((entry) => decodeRecord(dueSchema, entry.value));
    const pages = await this.#pages(
      jobId,
      dues.map((due) => ({ host, key: due.key })),
    );
    return dues.flatMap(({ key, flight }) => {
      const page = pages.get(key);
      return page === undefined || flight === null ? [] : [{ page, host, ...flight }];
    });
  }

  /** The next due pages behind `end`, in order. */
  async due(
    jobId: string,
    host: string,
    end: Place | undefined,
    limit = LOAD_LENGTH,
  ): Promise<{ pages: Page[]; more: boolean }> {
    const after =
      end === undefined
        ? `${this.#layout.dueFlying(jobId, host)}${"\xff".repeat(8)}`
        : this.#layout.due(jobId, host, { band: "waiting", ...end });
    const outcome = await this.#operate({
      kind: "scan",
      prefix: this.#layout.dues(jobId, host),
      after,
      limit,
    });
    if (outcome.kind !== "scanned") return { pages: [], more: false };
    const keys = outcome.entries.map((entry) => decodeRecord(dueSchema, entry.value).key);
    const pages = await this.#pages(
      jobId,
      keys.map((key) => ({ host, key })),
    );
    return { pages: keys.flatMap((key) => pages.get(key) ?? []), more: outcome.more };
  }

  /** Those of the offered pages that the partition has, by key. */
  pages(jobId: string, offered: readonly Pick<OfferedPage, "host" | "key">[]): Promise<Map<string, Page>> {
    return this.#pages(jobId, offered);
  }

  async host(name: string): Promise<{ pace: PaceRecord | undefined; robots: RobotsRecord[] }> {
    const [pace, robots] = await Promise.all([
      this.#get(this.#layout.pace(name)),
      this.#operate({ kind: "scan", prefix: this.#layout.robotsOf(name), limit: ORIGINS_READ_MAX }),
    ]);
    return {
      pace: pace && decodeRecord(paceRecordSchema, pace.value),
      robots:
        robots.kind === "scanned"
          ? robots.entries.map((entry) => decodeRecord(robotsRecordSchema, entry.value))
          : [],
    };
  }

  /** The first failures that are listed, at most `limit`. */
  async failures(jobId: string, limit: number): Promise<ListedFailure[]> {
    const prefix = this.#layout.failures(jobId);
    const outcome = await this.#operate({ kind: "scan", prefix, limit });
    if (outcome.kind !== "scanned") return [];
    return outcome.entries.map(({ key, value }) => {
      const record = decodeRecord(failureRecordSchema, value);
      return { n: numberOfKey(key), host: canonicalUrl(record.url)?.host ?? "", record };
    });
  }

  /** Deletes everything of a job, in bounded batches. */
  async drop(jobId: string): Promise<void> {
    for (const prefix of this.#layout.ofJob(jobId)) {
      while (true) {
        const outcome = await this.#operate({ kind: "scan", prefix, limit: DROP_LENGTH });
        if (outcome.kind !== "scanned" || outcome.entries.length === 0) break;
        await this.#batch(outcome.entries.map((entry) => ({ kind: "delete", key: entry.key })));
      }
    }
  }

  async #batch(changes: Change[]): Promise<void> {
    await this.#operate({ kind: "batch", changes, conditions: [], onlyUnder: this.#ballot });
  }

  async #get(key: string): Promise<Entry | undefined> {
    const outcome = await this.#operate({ kind: "get", keys: [key] });
    return outcome.kind === "entries" ? outcome.entries[0] : undefined;
  }

  async #pages(jobId: string, refs: readonly { host: string; key: string }[]): Promise<Map<string, Page>> {
    const found = new Map<string, Page>();
    for (let at = 0; at < refs.length; at += SCAN_LENGTH) {
      const keys = refs
        .slice(at, at + SCAN_LENGTH)
        .map(({ host, key }) => this.#layout.page(jobId, host, key));
      const outcome = await this.#operate({ kind: "get", keys });
      if (outcome.kind !== "entries") continue;
      for (const entry of outcome.entries) {
        if (entry === undefined) continue;
        const page = decodeRecord(pageSchema, entry.value);
        found.set(page.key, page);
      }
    }
    return found;
  }

  async #scanAll(prefix: string): Promise<Entry[]> {
    const entries: Entry[] = [];
    while (true) {
      const after = entries.at(-1)?.key;
      const outcome = await this.#operate({
        kind: "scan",
        prefix,
        limit: SCAN_LENGTH,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") return entries;
      entries.push(...outcome.entries);
      if (!outcome.more) return entries;
    }
  }

  #change(write: FrontierWrite): Change {
    const layout = this.#layout;
    switch (write.kind) {
      case "page":
        return put(layout.page(write.jobId, write.host, write.page.key), write.page);
      case "due": {
        const key = layout.due(write.jobId, write.host, write.place);
        return write.due === null ? { kind: "delete", key } : put(key, write.due);
      }
      case "out": {
        const key = layout.out(write.jobId, write.out.host, write.out.key);
        return write.isUnderWay ? put(key, write.out) : { kind: "delete", key };
      }
      case "result":
        return put(layout.result(write.jobId, write.n), write.result);
      case "failure": {
        const key = layout.failure(write.jobId, write.n);
        return write.failure === null ? { kind: "delete", key } : put(key, write.failure);
      }
      case "counts":
        return put(layout.count(write.counts.jobId), write.counts);
      case "contents": {
        const { jobId, host, first } = write.chunk;
        return put(layout.content(jobId, host, chunkPlace(first)), write.chunk);
      }
      case "traps":
        return put(layout.trap(write.record.jobId, write.record.host), write.record);
      case "size":
        return put(layout.size(write.size.jobId, write.size.host), write.size);
      case "pace":
        return put(layout.pace(write.record.host), write.record);
      case "robots":
        return put(layout.robots(write.record.host, write.record.origin), write.record);
    }
  }
}

function put(key: string, record: object): Change {
  return { kind: "put", key, value: encodeRecord(record) };
}
