/**
 * What happens to the values of a namespace, or to one of them: first those that
 * are there, then each change as it is committed, in order for each key.
 *
 * A namespace is spread over all partitions, so a watch is one long question per
 * partition, asked again and again from where the last answer ended. Nothing is
 * remembered here of what was told, save when it expires: when a partition can't
 * say what was missed, the watch begins anew, and its reader compares.
 */
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { BusyError, ClusterError } from "../errors.ts";
import type { Entry, Version } from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { type KeyValue, keyValueOf, type ValueName } from "./key-values.ts";
import type { Registers } from "./registers.ts";

/** `id` stands for the key: of what is deleted the name is not known any more. */
export type ValueEvent =
  | { readonly kind: "value"; readonly id: string; readonly value: KeyValue }
  | { readonly kind: "deleted"; readonly id: string }
  /** All that was there has been told. */
  | { readonly kind: "ready" }
  /** Something was missed: everything is told anew, and what is not until `ready` is gone. */
  | { readonly kind: "reset" };

/** How long one question waits for a change. */
const POLL_MS = 10_000;
const SCAN_ENTRIES = 256;
/** Partitions that are read at once in the beginning. */
const READ_AT_ONCE = 16;
const EVENTS_AHEAD_MAX = 64;
/** Between questions to a partition that nobody serves. */
const UNSERVED_MS = 500;
/** Entries whose end has come, in one question. */
const EXPIRED_MAX = 256;
/** An end that is told a moment after it has come. */
const EXPIRED_MS = 5;
const NAME_BYTES = 16;
/** Questions under way, over all watches of this server. */
const QUESTIONS_MAX = 4_096;

interface Place {
  readonly partition: number;
  /** Of its keys. */
  readonly prefix: string;
}

interface Reader {
  readonly write: (event: ValueEvent) => Promise<void>;
  readonly signal: AbortSignal;
  /** Called when a partition can't say what was missed. */
  readonly compacted: () => void;
  /** Ends the watch with that error. */
  readonly failed: (error: unknown) => void;
}

export class ValueWatch {
  readonly #registers: Registers;
  readonly #layout: KeyLayout;
  #questions = 0;

  constructor(options: { registers: Registers; layout: KeyLayout }) {
    this.#registers = options.registers;
    this.#layout = options.layout;
  }

  /**
   * Goes on until `signal` is aborted. What its reader does not take is not asked for.
   *
   * @param what.key only this one.
   * @throws {BusyError} too much is being watched here.
   */
  async *watch(
    what: Omit<ValueName, "key"> & { readonly key: string | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<ValueEvent, void, void> {
    const places = this.#placesOf(what);
    if (this.#questions + places.length > QUESTIONS_MAX)
      throw new BusyError("the watches of this server", 1_000);
    this.#questions += places.length;
    try {
      for (let isFirst = true; !signal.aborted; isFirst = false) {
        if (!isFirst) yield { kind: "reset" };
        yield* this.#untilCompacted(places, signal);
      }
    } finally {
      this.#questions -= places.length;
    }
  }

  #placesOf({ user, namespace, key }: Omit<ValueName, "key"> & { key: string | undefined }): Place[] {
    if (key !== undefined) {
      const partition = this.#layout.valuePartition(user, namespace, key);
      return [{ partition, prefix: this.#layout.value(user, namespace, key) }];
    }
    const prefix = this.#layout.values(user, namespace);
    return Array.from({ length: this.#layout.partitionCount }, (_, partition) => ({ partition, prefix }));
  }

  async *#untilCompacted(places: readonly Place[], signal: AbortSignal): AsyncGenerator<ValueEvent> {
    const over = new AbortController();
    const events = new PassThrough({ objectMode: true, highWaterMark: EVENTS_AHEAD_MAX });
    const both = AbortSignal.any([signal, over.signal]);
    const reader: Reader = {
      signal: both,
      write: async (event) => {
        if (!both.aborted && !events.write(event)) await once(events, "drain", { signal: both });
      },
      compacted: () => over.abort(),
      failed: (error) => {
        if (!both.aborted) events.destroy(error instanceof Error ? error : new Error(String(error)));
      },
    };
    const end = () => events.end();
    both.addEventListener("abort", end, { once: true });
    if (both.aborted) end();
    const told = this.#tellAll(places, reader).catch(reader.failed);
    try {
      yield* events as AsyncIterable<ValueEvent>;
    } finally {
      over.abort();
      await told;
    }
  }

  async #tellAll(places: readonly Place[], reader: Reader): Promise<void> {
    const waiting = [...places];
    const watched: Promise<void>[] = [];
    const readSome = async () => {
      for (let place = waiting.shift(); place !== undefined; place = waiting.shift()) {
        const ends = new Map<string, number>();
        const from = await this.#asked(reader, () => this.#tellPresent(place, reader, ends));
        if (from === undefined) return;
        // Other partitions may be read for long yet: an error is nobody's until then, and would end the process.
        watched.push(this.#tellChanges(place, from, reader, ends).catch(reader.failed));
      }
    };
    await Promise.all(Array.from({ length: Math.min(READ_AT_ONCE, places.length) }, readSome));
    await reader.write({ kind: "ready" });
    await Promise.all(watched);
  }

  /** Returns the version from which on changes are to be told. */
  async #tellPresent(
    { partition, prefix }: Place,
    reader: Reader,
    ends: Map<string, number>,
  ): Promise<Version | undefined> {
    let from: Version | undefined;
    let after: string | undefined;
    for (;;) {
      const outcome = await this.#registers.operate(partition, {
        kind: "scan",
        prefix,
        limit: SCAN_ENTRIES,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") return undefined;
      from ??= outcome.version;
      for (const entry of outcome.entries) await this.#tell(entry, reader, ends);
      if (!outcome.more) return from;
      after = outcome.entries.at(-1)?.key;
    }
  }

  async #tellChanges(
    place: Place,
    version: Version,
    reader: Reader,
    ends: Map<string, number>,
  ): Promise<void> {
    const { partition, prefix } = place;
    let from = version;
    while (!reader.signal.aborted) {
      const nextEndMs = Math.min(...ends.values()) - Date.now() + EXPIRED_MS;
      const waitMs = Math.max(0, Math.min(POLL_MS, Math.ceil(nextEndMs)));
      const outcome = await this.#asked(reader, () =>
        this.#registers.operate(partition, { kind: "watch", prefix, from, waitMs }),
      );
      if (outcome === undefined) return;
      if (outcome.kind !== "changed") return reader.compacted();
      from = outcome.version;
      for (const change of outcome.changes) {
        if (change.kind === "put") await this.#tell(change.entry, reader, ends);
        else {
          ends.delete(change.key);
          await reader.write({ kind: "deleted", id: idOf(change.key) });
        }
      }
      if (ends.size > 0) await this.#asked(reader, () => this.#endExpired(partition, ends));
    }
  }

  async #tell(entry: Entry, reader: Reader, ends: Map<string, number>): Promise<void> {
    if (entry.expiresAtMs === undefined) ends.delete(entry.key);
    else ends.set(entry.key, entry.expiresAtMs);
    await reader.write({ kind: "value", id: idOf(entry.key), value: keyValueOf(entry) });
  }

  /** An entry that has expired goes when somebody asks for it: then the watch tells of it like of any other. */
  async #endExpired(partition: number, ends: Map<string, number>): Promise<true> {
    const nowMs = Date.now();
    const keys = [...ends].filter(([, endMs]) => endMs <= nowMs).map(([key]) => key);
    if (keys.length === 0) return true;
    const asked = keys.slice(0, EXPIRED_MAX);
    const outcome = await this.#registers.operate(partition, { kind: "get", keys: asked });
    asked.forEach((key, i) => {
      // By the leader's clock it may live on for a moment.
      if (outcome.kind === "entries" && outcome.entries[i] === undefined) ends.delete(key);
      else ends.set(key, nowMs + UNSERVED_MS);
    });
    return true;
  }

  /** Until it is answered; undefined: the watch is over. */
  async #asked<T>(reader: Reader, ask: () => Promise<T>): Promise<T | undefined> {
    while (!reader.signal.aborted) {
      try {
        return await ask();
      } catch (error) {
        if (reader.signal.aborted) return undefined;
        if (!(error instanceof ClusterError) || error.remedy === "reject") throw error;
        await pause(UNSERVED_MS, undefined, { signal: reader.signal }).catch(() => {});
      }
    }
    return undefined;
  }
}

/** The last component of the key: the name of the user's key. */
function idOf(key: string): string {
  return Buffer.from(key.slice(-NAME_BYTES), "latin1").toString("base64url");
}
