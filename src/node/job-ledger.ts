/**
 * What is durable about a job that is led here: its record, and the account of
 * credits of each participant. One batch is under way at a time, the next one
 * forms meanwhile; all that changes while it is on its way shares the next one,
 * and so do all reads that ask in the meantime.
 *
 * Nobody else writes these entries, so what is held here is never behind them.
 */
import { NotLeaderError } from "../errors.ts";
import type { Account } from "../job/budget.ts";
import { type JobRecord, jobRecordSchema } from "../job/job-record.ts";
import {
  BATCH_CHANGES_MAX,
  type Ballot,
  type Change,
  type Operation,
  type Outcome,
} from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

export interface JobLedgerPorts {
  readonly layout: KeyLayout;
  /** At the local replica. */
  operate(operation: Operation): Promise<Outcome>;
  /** A write failed: what is here may not be what is durable. */
  failed(error: unknown): void;
}

export class JobLedger {
  readonly #partition: number;
  readonly #ballot: Ballot;
  readonly #ports: JobLedgerPorts;
  readonly #record: JobRecord;
  readonly #accounts: Map<number, Account>;
  // What the next batch writes, and who waits for it.
  #isRecordDirty = false;
  readonly #dirtyAccounts = new Set<number>();
  #saving: Promise<void> | undefined;
  // The linearizable read that has not left yet: all who ask until then share it.
  #nextRead: Promise<{ version: string; record: JobRecord } | undefined> | undefined;
  #reading: Promise<unknown> = Promise.resolve();
  #decoded: { version: string; record: JobRecord } | undefined;
  #isEnded = false;

  constructor(
    partition: number,
    ballot: Ballot,
    record: JobRecord,
    accounts: Map<number, Account>,
    ports: JobLedgerPorts,
  ) {
    this.#partition = partition;
    this.#ballot = ballot;
    this.#record = record;
    this.#accounts = accounts;
    this.#ports = ports;
  }

  /** As changed so far; the same object for as long as the job is led. */
  get record(): Readonly<JobRecord> {
    return this.#record;
  }

  /** By participant. */
  get accounts(): ReadonlyMap<number, Account> {
    return this.#accounts;
  }

  /** Durable with the next `save`. */
  change(to: Partial<JobRecord>): void {
    Object.assign(this.#record, to);
    this.#isRecordDirty = true;
  }

  setAccount(partition: number, account: Account): void {
    this.#accounts.set(partition, account);
    this.#dirtyAccounts.add(partition);
  }

  /** It has nothing of the job any more. */
  strike(partition: number): void {
    this.#accounts.delete(partition);
    this.#dirtyAccounts.add(partition);
  }

  /** Resolves when everything changed so far is durable. */
  async save(): Promise<void> {
    while (!this.#isEnded) {
      if (this.#saving !== undefined) {
        await this.#saving;
        continue;
      }
      if (!this.#isRecordDirty && this.#dirtyAccounts.size === 0) return;
      this.#saving = this.#write().finally(() => {
        this.#saving = undefined;
      });
      await this.#saving;
      return;
    }
    throw new NotLeaderError(this.#partition);
  }

  /** The job's entry, read after the call: what was acknowledged before is in it, and we still lead. */
  read(): Promise<{ version: string; record: JobRecord } | undefined> {
    if (this.#nextRead !== undefined) return this.#nextRead;
    const begin = this.#reading;
    const read = (async () => {
      await begin;
      this.#nextRead = undefined;
      if (this.#isEnded) throw new NotLeaderError(this.#partition);
      const key = this.#ports.layout.job(this.#record.jobId);
      const outcome = await this.#ports.operate({ kind: "get", keys: [key] });
      const entry = outcome.kind === "entries" ? outcome.entries[0] : undefined;
      if (entry === undefined) return undefined;
      if (this.#decoded?.version !== entry.version) {
        this.#decoded = { version: entry.version, record: decodeRecord(jobRecordSchema, entry.value) };
      }
      return this.#decoded;
    })();
    this.#nextRead = read;
    this.#reading = read.catch(() => {});
    return read;
  }

  /** Deletes the record and what else of the job stands beside it; the accounts are struck before. */
  async close(seedKeys: readonly string[]): Promise<void> {
    const keys = [...seedKeys, this.#ports.layout.job(this.#record.jobId)];
    await this.#ports.operate({
      kind: "batch",
      changes: keys.map((key) => ({ kind: "delete", key })),
      conditions: [],
      onlyUnder: this.#ballot,
    });
  }

  end(): void {
    this.#isEnded = true;
  }

  /** All that is changed by now, in as many batches as it needs. */
  async #write(): Promise<void> {
    const { layout } = this.#ports;
    const { jobId } = this.#record;
    const changes: Change[] = [];
    if (this.#isRecordDirty) {
      changes.push({ kind: "put", key: layout.job(jobId), value: encodeRecord(this.#record) });
    }
    for (const partition of this.#dirtyAccounts) {
      const account = this.#accounts.get(partition);
      const key = layout.participant(jobId, partition);
      changes.push(
        account === undefined
          ? { kind: "delete", key }
          : { kind: "put", key, value: encodeRecord({ partition, ...account }) },
      );
    }
    this.#isRecordDirty = false;
    this.#dirtyAccounts.clear();
    try {
      for (let n = 0; n < changes.length; n += BATCH_CHANGES_MAX) {
        const batch = changes.slice(n, n + BATCH_CHANGES_MAX);
        await this.#ports.operate({
          kind: "batch",
          changes: batch,
          conditions: [],
          onlyUnder: this.#ballot,
        });
      }
    } catch (error) {
      if (!this.#isEnded) this.#ports.failed(error);
      throw error;
    }
  }
}
