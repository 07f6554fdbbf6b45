/** The seeds of a job: in its record while they are short, in entries of their own otherwise. */
import { z } from "zod";
import type { Operation, Outcome } from "../replication/register.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

/** Characters of all seeds up to which they stand in the record. */
const INLINE_LENGTH_MAX = 16 * 1024;
const CHUNK_LENGTH_MAX = 256 * 1024;
const CHUNKS_MAX = 1024;

const seedsSchema = z.array(z.string());

export function areInline(seeds: readonly string[]): boolean {
  return seeds.reduce((sum, seed) => sum + seed.length, 0) <= INLINE_LENGTH_MAX;
}

/** One operation for each entry. */
export function writeSeeds(layout: KeyLayout, jobId: string, seeds: readonly string[]): Operation[] {
  const chunks: string[][] = [];
  let length = Number.POSITIVE_INFINITY;
  for (const seed of seeds) {
    if (length + seed.length > CHUNK_LENGTH_MAX) {
      chunks.push([]);
      length = 0;
    }
    chunks.at(-1)!.push(seed);
    length += seed.length;
  }
  return chunks.map((chunk, n) => ({
    kind: "batch",
    changes: [{ kind: "put", key: layout.seed(jobId, n), value: encodeRecord(chunk) }],
    conditions: [],
  }));
}

export async function readSeeds(
  layout: KeyLayout,
  jobId: string,
  operate: (operation: Operation) => Promise<Outcome>,
): Promise<string[]> {
  const outcome = await operate({ kind: "scan", prefix: layout.seeds(jobId), limit: CHUNKS_MAX });
  if (outcome.kind !== "scanned") return [];
  return outcome.entries.flatMap((entry) => decodeRecord(seedsSchema, entry.value));
}
