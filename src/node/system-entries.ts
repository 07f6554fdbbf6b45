/**
 * Entries of `system` that say who may do what: users, sessions, API keys, and
 * the keys that sign access tokens. One partition holds them all.
 */
import type { z } from "zod";
import { DamagedError } from "../errors.ts";
import { type ApiKey, apiKeySchema } from "../identity/api-key.ts";
import { type Session, sessionSchema } from "../identity/session.ts";
import { type SigningKey, signingKeySchema } from "../identity/token.ts";
import { type User, userSchema } from "../identity/user.ts";
import type { Change, Version } from "../replication/register.ts";
import { type KeyLayout, NAMESPACE } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import type { Registers } from "./registers.ts";

interface Records {
  /** By name. */
  user: User;
  /** By id. */
  session: Session;
  /** By id. */
  apiKey: ApiKey;
  /** By `kid`. */
  signing: SigningKey;
}
export type SystemKind = keyof Records;

const SCHEMAS: { readonly [K in SystemKind]: z.ZodType<Records[K]> } = {
  user: userSchema,
  session: sessionSchema,
  apiKey: apiKeySchema,
  signing: signingKeySchema,
};

const SCAN_LIMIT = 1024;

/** The write of one such entry, for a batch of `system`. */
export function systemChange<K extends SystemKind>(
  layout: KeyLayout,
  kind: K,
  name: string,
  record: Records[K],
  expiresAtMs?: number,
): Change {
  return {
    kind: "put",
    key: layout.system(NAMESPACE[kind], name),
    value: encodeRecord(record),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
  };
}

export class SystemEntries {
  readonly #registers: Registers;
  readonly #layout: KeyLayout;

  constructor(registers: Registers, layout: KeyLayout) {
    this.#registers = registers;
    this.#layout = layout;
  }

  /** Linearizable, unless a copy of any age will do. @throws {UnavailableError} */
  async read<K extends SystemKind>(
    kind: K,
    name: string,
    { isStale = false, ...options }: { readonly isStale?: boolean; readonly timeoutMs?: number } = {},
  ): Promise<{ readonly record: Records[K]; readonly version: Version } | undefined> {
    const keys = [this.#layout.system(NAMESPACE[kind], name)];
    const outcome = await this.#operate({ kind: "get", keys, ...(isStale ? { stale: true } : {}) }, options);
    if (outcome.kind !== "entries") throw unexpected(outcome.kind);
    const [entry] = outcome.entries;
    if (entry === undefined) return undefined;
    return { record: decode(kind, entry.value), version: entry.version };
  }

  /**
   * All entries of one kind that there are, in no order of meaning.
   *
   * @throws {UnavailableError}
   */
  async list<K extends SystemKind>(kind: K): Promise<Records[K][]> {
    const prefix = String.fromCharCode(NAMESPACE[kind]);
    const records: Records[K][] = [];
    for (let after: string | undefined, more = true; more; ) {
      const outcome = await this.#operate({
        kind: "scan",
        prefix,
        limit: SCAN_LIMIT,
        ...(after === undefined ? {} : { after }),
      });
      if (outcome.kind !== "scanned") throw unexpected(outcome.kind);
      for (const entry of outcome.entries) records.push(decode(kind, entry.value));
      after = outcome.entries.at(-1)?.key;
      more = outcome.more && after !== undefined;
    }
    return records;
  }

  /**
   * False when the entry is not as `is` says; nothing is written then.
   *
   * @throws {OutcomeUnknownError} it may have been written.
   */
  async put<K extends SystemKind>(
    kind: K,
    name: string,
    record: Records[K],
    is: "absent" | Version,
    expiresAtMs?: number,
  ): Promise<boolean> {
    const change = systemChange(this.#layout, kind, name, record, expiresAtMs);
    const outcome = await this.#operate({
      kind: "batch",
      changes: [change],
      conditions: [{ key: change.key, is }],
    });
    return outcome.kind === "written";
  }

  /** As `put`: false when the entry has changed since. */
  async remove(kind: SystemKind, name: string, is: Version): Promise<boolean> {
    const key = this.#layout.system(NAMESPACE[kind], name);
    const outcome = await this.#operate({
      kind: "batch",
      changes: [{ kind: "delete", key }],
      conditions: [{ key, is }],
    });
    return outcome.kind === "written";
  }

  #operate(operation: Parameters<Registers["operate"]>[1], options?: { readonly timeoutMs?: number }) {
    return this.#registers.operate(this.#layout.systemPartition(), operation, options);
  }
}

function decode<K extends SystemKind>(kind: K, value: Uint8Array): Records[K] {
  return decodeRecord(SCHEMAS[kind], value);
}

function unexpected(kind: string): DamagedError {
  return new DamagedError(`a register answered a read with "${kind}"`);
}
