/**
 * What was done to the cluster, and by whom: entries of `system`, each with the
 * hash of the one before it, so that none can be changed or left out unseen. An
 * event is written in one batch with what it tells of.
 */
import { hash } from "node:crypto";
import { z } from "zod";
import { DamagedError, UnavailableError } from "../errors.ts";
import type { Change, Condition } from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import type { Registers } from "./registers.ts";

/** Older ones go. */
const ENTRIES_MAX = 100_000;
/** Where the number of the last one stands. */
const HEAD = 0;

const auditEventSchema = z.object({
  /** Counts from 1. */
  n: z.int().min(1),
  /** ISO 8601 */
  at: z.string(),
  /** User name. */
  actor: z.string(),
  action: z.string(),
  /** What it was done to: a node, a partition. */
  subject: z.string(),
  details: z.record(z.string(), z.json()),
  /** SHA-256 of the entry before, hex; empty for the first. */
  previous: z.string(),
});
export type AuditEvent = z.output<typeof auditEventSchema>;
/** What there is to tell before the event has its place in the log. */
export type AuditedAct = Pick<AuditEvent, "actor" | "action" | "subject" | "details">;

const headSchema = z.object({ n: z.int().min(0), previous: z.string() });

/** To be added to a batch of `system`. */
export interface AuditWrite {
  readonly changes: readonly Change[];
  readonly conditions: readonly Condition[];
}

export class AuditLog {
  readonly #registers: Pick<Registers, "operate">;
  readonly #layout: KeyLayout;

  constructor(registers: Pick<Registers, "operate">, layout: KeyLayout) {
    this.#registers = registers;
    this.#layout = layout;
  }

  /**
   * The next entry, for a batch that fails when another one was written meanwhile.
   *
   * @throws {UnavailableError}
   */
  async next(event: AuditedAct): Promise<AuditWrite> {
    const headKey = this.#layout.audit(HEAD);
    const outcome = await this.#operate({ kind: "get", keys: [headKey] });
    if (outcome.kind !== "entries") throw new UnavailableError("the audit log can't be read now");
    const [entry] = outcome.entries;
    const head = entry === undefined ? { n: 0, previous: "" } : decodeRecord(headSchema, entry.value);
    const n = head.n + 1;
    const at = new Date().toISOString();
    const value = encodeRecord({ ...event, n, at, previous: head.previous } satisfies AuditEvent);
    const changes: Change[] = [
      { kind: "put", key: this.#layout.audit(n), value },
      { kind: "put", key: headKey, value: encodeRecord({ n, previous: hash("sha256", value, "hex") }) },
    ];
    if (n > ENTRIES_MAX) changes.push({ kind: "delete", key: this.#layout.audit(n - ENTRIES_MAX) });
    return { changes, conditions: [{ key: headKey, is: entry?.version ?? "absent" }] };
  }

  /** An event by itself. @throws {UnavailableError} @throws {OutcomeUnknownError} it may have been written. */
  async append(event: AuditedAct): Promise<void> {
    for (let attempt = 1; attempt <= 5; attempt++) {
      const { changes, conditions } = await this.next(event);
      const outcome = await this.#operate({
        kind: "batch",
        changes: [...changes],
        conditions: [...conditions],
      });
      if (outcome.kind === "written") return;
    }
    throw new UnavailableError("the audit log is too busy; try again");
  }

  /**
   * In the order in which they happened, after number `after`.
   *
   * @throws {DamagedError} an entry does not follow from the one before.
   */
  async list(after: number, limit: number): Promise<AuditEvent[]> {
    const outcome = await this.#operate({
      kind: "scan",
      prefix: this.#layout.auditPrefix(),
      after: this.#layout.audit(Math.max(HEAD, after)),
      limit,
    });
    if (outcome.kind !== "scanned") throw new UnavailableError("the audit log can't be read now");
    const events: AuditEvent[] = [];
    let previous: string | undefined;
    for (const { value } of outcome.entries) {
      const event = decodeRecord(auditEventSchema, value);
      if (previous !== undefined && event.previous !== previous) {
        throw new DamagedError(`entry ${event.n} of the audit log does not follow from the one before it`);
      }
      previous = hash("sha256", value, "hex");
      events.push(event);
    }
    return events;
  }

  #operate(operation: Parameters<Registers["operate"]>[1]) {
    return this.#registers.operate(this.#layout.systemPartition(), operation);
  }
}
