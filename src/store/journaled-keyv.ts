/**
 * Any Keyv adapter as a table with atomic commits: a write-ahead journal under
 * one key. A commit is durable once its journal record is; then it is applied key
 * by key, and applied again when the table opens after a crash (redo; applying
 * twice is harmless). Order and synchronous reads come from a copy in memory,
 * read at opening, so this suits data that fits into memory.
 *
 * Keys are written in hexadecimal and values in base64: some backends fold case,
 * forbid zero bytes, or keep text only.
 */
import type { Keyv } from "keyv";
import { z } from "zod";
import { DamagedError, UnavailableError, UsageError } from "../errors.ts";
import { GroupCommit } from "./group-commit.ts";
import { OrderedMap } from "./ordered-map.ts";
import type { RecordChange, RecordSnapshot, RecordTable, SharedRecord } from "./record-table.ts";

const JOURNAL = "journal";
const RECORD = "record-";
/** Always there: an adapter whose listing lacks it can't list, and would pass for empty. */
const FORMAT = "format";
const FORMAT_VERSION = "1";

const journalSchema = z.array(z.tuple([z.string().startsWith(RECORD), z.base64().nullable()]));

export class JournaledKeyv implements RecordTable {
  readonly #keyv: Keyv<string>;
  readonly #records = new OrderedMap<Uint8Array>();
  readonly #commits: GroupCommit<RecordChange | SharedRecord>;
  // Keyv reports errors as events once anybody listens, and answers as if nothing were there.
  #lastError: { readonly cause: unknown } | undefined;
  readonly #onError = (cause: unknown) => {
    this.#lastError = { cause };
  };

  private constructor(keyv: Keyv<string>) {
    this.#keyv = keyv;
    keyv.on("error", this.#onError);
    this.#commits = new GroupCommit("the Keyv backend", (changes) => this.#write(changes));
  }

  /** @throws {UsageError} the backend can't list its keys. @throws {UnavailableError} it can't be read. */
  static async open(keyv: Keyv<string>): Promise<JournaledKeyv> {
    const table = new JournaledKeyv(keyv);
    await table.#redo();
    await table.#load();
    return table;
  }

  read(key: string): Uint8Array | undefined {
    return this.#records.get(key);
  }

  get failure(): UnavailableError | undefined {
    return this.#commits.failure;
  }

  get room(): number {
    return 0;
  }

  commit(changes: readonly RecordChange[], shared?: SharedRecord): Promise<void> {
    if (this.#commits.failure !== undefined) return Promise.reject(this.#commits.failure);
    let bytes = 0;
    for (const { key, record } of changes) {
      if (record === undefined) this.#records.delete(key);
      else this.#records.set(key, record);
      bytes += key.length + (record?.length ?? 0);
    }
    return this.#commits.commit(shared === undefined ? changes : [...changes, shared], bytes);
  }

  snapshot(): RecordSnapshot {
    const records = this.#records.copy();
    return {
      scan: async ({ from, until, limit }) => records.slice(from, until, limit),
      keys: async ({ from, until, limit }) => records.slice(from, until, limit).map(([key]) => key),
      close: async () => {},
    };
  }

  async close(): Promise<void> {
    await this.#commits.idle();
    this.#commits.close();
    await this.#keyv.disconnect();
    this.#keyv.off("error", this.#onError);
  }

  async #write(group: readonly (RecordChange | SharedRecord)[]): Promise<void> {
    const changes: RecordChange[] = [];
    const sharedByKey = new Map<string, SharedRecord>();
    for (const one of group) {
      if (!("apply" in one)) changes.push(one);
      else {
        one.apply();
        sharedByKey.set(one.key, one);
      }
    }
    for (const { key, record } of sharedByKey.values()) {
      const bytes = record();
      this.#records.set(key, bytes);
      changes.push({ key, record: bytes });
    }
    const journal = changes.map(({ key, record }): [string, string | null] => [
      RECORD + Buffer.from(key, "latin1").toString("hex"),
      record === undefined ? null : Buffer.from(record).toString("base64"),
    ]);
    await this.#checked(() => this.#keyv.set(JOURNAL, JSON.stringify(journal)));
    await this.#apply(journal);
  }

  /** The journal stays until the next one takes its place: to apply the last one again changes nothing. */
  async #apply(journal: [string, string | null][]): Promise<void> {
    // The newest change of each key, for several commits may share a journal.
    const last = new Map(journal);
    const entries = [...last].flatMap(([key, value]) => (value === null ? [] : [{ key, value }]));
    const deleted = [...last].flatMap(([key, value]) => (value === null ? [key] : []));
    if (entries.length > 0)
      await this.#checked(async () => (await this.#keyv.setMany(entries)).every(Boolean));
    // False only says that there was nothing to delete.
    if (deleted.length > 0)
      await this.#checked(async () => [await this.#keyv.deleteMany(deleted)].length === 1);
  }

  async #redo(): Promise<void> {
    let text: string | undefined;
    await this.#checked(async () => {
      text = await this.#keyv.get(JOURNAL);
      return true;
    });
    if (text === undefined) return;
    let journal: [string, string | null][];
    try {
      journal = journalSchema.parse(JSON.parse(text));
    } catch (cause) {
      throw new DamagedError("the journal of the Keyv backend can't be decoded", { cause });
    }
    await this.#apply(journal);
  }

  async #load(): Promise<void> {
    let format: string | undefined;
    await this.#checked(async () => {
      format = await this.#keyv.get(FORMAT);
      return format !== undefined || (await this.#keyv.set(FORMAT, FORMAT_VERSION));
    });
    if (format !== undefined && format !== FORMAT_VERSION) {
      throw new UsageError("the Keyv backend was written by a later version of this program");
    }
    let listed = false;
    await this.#checked(async () => {
      for await (const [key, value] of this.#keyv.iterator()) {
        if (key === FORMAT) listed = true;
        if (typeof key !== "string" || !key.startsWith(RECORD)) continue;
        if (typeof value !== "string")
          throw new DamagedError("the Keyv backend returned a value that is not text");
        const binary = Buffer.from(key.slice(RECORD.length), "hex").toString("latin1");
        this.#records.set(binary, Buffer.from(value, "base64"));
      }
      return true;
    });
    if (!listed) {
      throw new UsageError(
        "this Keyv adapter can't list its keys (no iterator), which a partition store needs",
      );
    }
  }

  async #checked(run: () => Promise<boolean>): Promise<void> {
    this.#lastError = undefined;
    const done = await run();
    const failed = this.#lastError as { readonly cause: unknown } | undefined;
    if (failed !== undefined) throw new UnavailableError("the Keyv backend failed", { cause: failed.cause });
    if (!done) throw new UnavailableError("the Keyv backend refused a write");
  }
}
