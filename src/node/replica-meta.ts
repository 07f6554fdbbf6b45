/**
 * What a replica keeps besides its entries, as it lies on disk: a meta record, its
 * schema's version and then msgpack, for what seldom changes, and a claim for what
 * each batch changes.
 */
import { Packr } from "msgpackr";
import type { z } from "zod";
import { DamagedError } from "../errors.ts";
import { type ReplicaMeta, replicaMetaSchema } from "../replication/replica-state.ts";
import { CLAIM_BYTES } from "../store/claim-pages.ts";

const VERSION = 2;
/** All in the meta record, and no claim. */
const VERSION_WHOLE = 1;
const packr = new Packr({ useRecords: false });

const lastingSchema = replicaMetaSchema.omit({ seq: true, root: true });
export type LastingMeta = z.output<typeof lastingSchema>;

/** Of a record that says the same, none is to be written. */
export function isSameLasting(a: LastingMeta | undefined, b: LastingMeta): boolean {
  return (
    a !== undefined &&
    a.replicaId === b.replicaId &&
    a.generation === b.generation &&
    isSame(a.promised, b.promised) &&
    isSame(a.accepted, b.accepted) &&
    a.leftovers.length === b.leftovers.length &&
    a.leftovers.every((generation, i) => generation === b.leftovers[i])
  );
}

function isSame(a: ReplicaMeta["promised"], b: ReplicaMeta["promised"]): boolean {
  return a === b || (a.round === b.round && a.replicaId === b.replicaId);
}

export function encodeMeta({
  replicaId,
  promised,
  accepted,
  generation,
  leftovers,
}: LastingMeta): Uint8Array {
  const lasting: LastingMeta = { replicaId, promised, accepted, generation, leftovers };
  return Buffer.concat([Buffer.of(VERSION), packr.pack(lasting)]);
}

export function encodeClaim({ seq, root }: Pick<ReplicaMeta, "seq" | "root">): Uint8Array {
  const claim = Buffer.allocUnsafe(CLAIM_BYTES);
  let at = claim.writeDoubleBE(seq, 0);
  for (const word of root) at = claim.writeUInt32BE(word, at);
  return claim;
}

/**
 * @param claimOf asked only where there must be one.
 * @throws {DamagedError} not a meta record of this version, or its claim is gone.
 */
export function decodeMeta(bytes: Uint8Array, claimOf: () => Uint8Array | undefined): ReplicaMeta {
  try {
    const value: unknown = packr.unpack(bytes.subarray(1));
    if (bytes[0] === VERSION_WHOLE) return replicaMetaSchema.parse(value);
    if (bytes[0] !== VERSION) throw new DamagedError(`replica meta has version ${bytes[0]}, not ${VERSION}`);
    return replicaMetaSchema.parse({ ...lastingSchema.parse(value), ...decodeClaim(claimOf()) });
  } catch (cause) {
    if (cause instanceof DamagedError) throw cause;
    throw new DamagedError("a replica's meta record can't be read", { cause });
  }
}

function decodeClaim(claim: Uint8Array | undefined): Pick<ReplicaMeta, "seq" | "root"> {
  if (claim?.byteLength !== CLAIM_BYTES) throw new DamagedError("a replica's claim is gone");
  const words = Buffer.from(claim.buffer, claim.byteOffset, claim.byteLength);
  return { seq: words.readDoubleBE(0), root: [8, 12, 16, 20].map((at) => words.readUInt32BE(at)) };
}
