/** A replica's meta record on disk: its schema's version, then msgpack. */
import { Packr } from "msgpackr";
import { DamagedError } from "../errors.ts";
import { type ReplicaMeta, replicaMetaSchema } from "../replication/replica-state.ts";

const VERSION = 1;
const packr = new Packr({ useRecords: false });

export function encodeMeta(meta: ReplicaMeta): Uint8Array {
  return Buffer.concat([Buffer.of(VERSION), packr.pack(meta)]);
}

/** @throws {DamagedError} not a meta record of this version. */
export function decodeMeta(bytes: Uint8Array): ReplicaMeta {
  try {
    if (bytes[0] !== VERSION) throw new DamagedError(`replica meta has version ${bytes[0]}, not ${VERSION}`);
    return replicaMetaSchema.parse(packr.unpack(bytes.subarray(1)));
  } catch (cause) {
    if (cause instanceof DamagedError) throw cause;
    throw new DamagedError("a replica's meta record can't be read", { cause });
  }
}
