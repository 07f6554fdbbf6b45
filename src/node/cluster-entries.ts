/**
 * The entries of `system` that make the cluster one: what it is, who belongs to
 * it, who may sign certificates, who may come in. One partition holds them, so
 * one batch changes several.
 */
import { z } from "zod";
import { UnavailableError } from "../errors.ts";
import { type IssuingAuthority, issuingAuthoritySchema } from "../identity/certificate-authority.ts";
import { joinTokenRecordSchema } from "../identity/join-token.ts";
import type { Change, Condition } from "../replication/register.ts";
import type { AuditWrite } from "./audit-log.ts";
import { type KeyLayout, NAMESPACE } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import type { RegisterOptions, Registers } from "./registers.ts";

/** Of what members say and store; raised when all of them can. */
export const CLUSTER_VERSION = "1.0";

const clusterRecordSchema = z.object({
  clusterId: z.string(),
  /** Q: into how many partitions the circle is cut; never changes. */
  partitions: z.int().min(1),
  /** R: how many replicas a partition wants. */
  replicationFactor: z.int().min(1),
  createdAt: z.number(),
  version: z.string(),
});
export type ClusterRecord = z.output<typeof clusterRecordSchema>;

const memberRecordSchema = z.object({
  nodeId: z.string(),
  /** `host:port` */
  addresses: z.object({ peer: z.string(), edge: z.string() }),
  zone: z.string(),
  /** Of its present node certificate, hex. */
  serial: z.string(),
  state: z.enum(["joining", "active", "draining", "removed"]),
});
export type MemberRecord = z.output<typeof memberRecordSchema>;

/** `nodeId`: whom the token let in, so that a repeat by the same key gets the same answer. */
const tokenRecordSchema = joinTokenRecordSchema.extend({ nodeId: z.string().optional() });
export type TokenRecord = z.output<typeof tokenRecordSchema>;

interface Records {
  /** Name: "". */
  cluster: ClusterRecord;
  /** By node id. */
  member: MemberRecord;
  /** Name: "". */
  authority: IssuingAuthority;
  /** By id. */
  token: TokenRecord;
}
export type ClusterEntryKind = keyof Records;

const SCHEMAS: { readonly [K in ClusterEntryKind]: z.ZodType<Records[K]> } = {
  cluster: clusterRecordSchema,
  member: memberRecordSchema,
  authority: issuingAuthoritySchema,
  token: tokenRecordSchema,
};

interface Write<K extends ClusterEntryKind> {
  readonly kind: K;
  readonly name: string;
  readonly record: Records[K];
  /** What must stand there: a version, or "absent". */
  readonly is: string;
  readonly expiresAtMs?: number;
}
export type ClusterEntryWrite = { [K in ClusterEntryKind]: Write<K> }[ClusterEntryKind];

const SCAN_LIMIT = 256;

export class ClusterEntries {
  readonly #registers: Pick<Registers, "operate">;
  readonly #layout: KeyLayout;

  constructor(registers: Pick<Registers, "operate">, layout: KeyLayout) {
    this.#registers = registers;
    this.#layout = layout;
  }

  /** Linearizable. @throws {UnavailableError} no leader answered. */
  async read<K extends ClusterEntryKind>(
    kind: K,
    name = "",
    options?: RegisterOptions,
  ): Promise<{ readonly record: Records[K]; readonly version: string } | undefined> {
    const outcome = await this.#registers.operate(
      this.#layout.systemPartition(),
      { kind: "get", keys: [this.#key(kind, name)] },
      options,
    );
    if (outcome.kind !== "entries") throw new UnavailableError("the cluster's entries can't be read now");
    const [entry] = outcome.entries;
    return entry === undefined
      ? undefined
      : { record: decodeRecord(SCHEMAS[kind], entry.value), version: entry.version };
  }

  /** Of all who were ever let in. */
  async members(): Promise<MemberRecord[]> {
    const found: MemberRecord[] = [];
    for (let after: string | undefined, more = true; more; ) {
      const outcome = await this.#registers.operate(this.#layout.systemPartition(), {
        kind: "scan",
        prefix: String.fromCharCode(NAMESPACE.member),
        after,
        limit: SCAN_LIMIT,
      });
      if (outcome.kind !== "scanned") throw new UnavailableError("the members can't be listed now");
      for (const entry of outcome.entries) found.push(decodeRecord(memberRecordSchema, entry.value));
      after = outcome.entries.at(-1)?.key;
      more = outcome.more && after !== undefined;
    }
    return found;
  }

  /**
   * All of them or none. False: an entry is not as its write says.
   *
   * @param beside written in the same batch.
   * @throws {OutcomeUnknownError} it may or may not have happened: read again.
   */
  async write(
    writes: readonly ClusterEntryWrite[],
    options?: RegisterOptions,
    beside: AuditWrite = { changes: [], conditions: [] },
  ): Promise<boolean> {
    const changes: Change[] = [...beside.changes];
    const conditions: Condition[] = [...beside.conditions];
    for (const { kind, name, record, is, expiresAtMs } of writes) {
      const key = this.#key(kind, name);
      conditions.push({ key, is });
      const value = encodeRecord(record);
      changes.push({ kind: "put", key, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) });
    }
    const outcome = await this.#registers.operate(
      this.#layout.systemPartition(),
      { kind: "batch", changes, conditions },
      options,
    );
    return outcome.kind === "written";
  }

  #key(kind: ClusterEntryKind, name: string): string {
    return kind === "cluster" ? this.#layout.cluster() : this.#layout.system(NAMESPACE[kind], name);
  }
}
