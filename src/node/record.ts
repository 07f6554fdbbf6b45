/**
 * How values are written: one byte for the version of the schema, then msgpack.
 * What comes out of a store is parsed with the schema of what it should be.
 */
import { Packr } from "msgpackr";
import type { z } from "zod";
import { DamagedError } from "../errors.ts";

/** Raised when a schema changes in a way that readers of the one before can't take. */
export const RECORD_VERSION = 1;

// No shared structures: each value must be readable by itself.
const packr = new Packr({ useRecords: false, copyBuffers: true });

export function encodeRecord(value: unknown): Uint8Array {
  const packed = packr.pack(value);
  const record = new Uint8Array(packed.byteLength + 1);
  record[0] = RECORD_VERSION;
  record.set(packed, 1);
  return record;
}

/** @throws {DamagedError} these bytes are no such record, or one of a later version. */
export function decodeRecord<T>(schema: z.ZodType<T>, bytes: Uint8Array): T {
  if (bytes[0] !== RECORD_VERSION) {
    throw new DamagedError(
      `a record has version ${bytes[0]}, this server reads ${RECORD_VERSION}: upgrade it`,
    );
  }
  let value: unknown;
  try {
    value = packr.unpack(bytes.subarray(1));
  } catch (cause) {
    throw new DamagedError("a record can't be decoded", { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    throw new DamagedError(`a record has not the expected form: ${parsed.error.issues[0]?.message ?? ""}`, {
      cause: parsed.error,
    });
  }
  return parsed.data;
}
