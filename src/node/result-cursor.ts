/**
 * How far a reader has come in the results of a job: for each participant, the
 * number of the last one read. As numbers in a participant have no gaps and only
 * grow, a reader of a running job misses and repeats nothing.
 */
import { InvalidInputError } from "../errors.ts";

const CURSOR_VERSION = 1;
const JOB_BYTES = 16;

/** By partition: the last number read, and whether that was the last one there will be. */
export type Progress = Map<number, { n: number; isOver: boolean }>;

/** `kind` keeps a cursor of one list from being used for another. */
export function encodeCursor(kind: number, jobId: string, progress: Progress): string {
  const bytes = [CURSOR_VERSION, kind, ...Buffer.from(jobId, "hex")];
  let last = 0;
  for (const [partition, { n, isOver }] of [...progress].sort(([a], [b]) => a - b)) {
    pushNumber(bytes, partition - last);
    pushNumber(bytes, n * 2 + (isOver ? 1 : 0));
    last = partition;
  }
  return Buffer.from(bytes).toString("base64url");
}

/** @throws {InvalidInputError} it is none, or one of another job. */
export function decodeCursor(kind: number, jobId: string, cursor: string): Progress {
  const bytes = Buffer.from(cursor, "base64url");
  const progress: Progress = new Map();
  const isOurs =
    bytes[0] === CURSOR_VERSION &&
    bytes[1] === kind &&
    bytes.subarray(2, 2 + JOB_BYTES).toString("hex") === jobId;
  let at = 2 + JOB_BYTES;
  const next = (): number => {
    let [value, scale] = [0, 1];
    while (at < bytes.length && scale < 2 ** 49) {
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    throw invalid();
  };
  if (!isOurs) throw invalid();
  let partition = 0;
  while (at < bytes.length) {
    partition += next();
    const value = next();
    progress.set(partition, { n: Math.floor(value / 2), isOver: value % 2 === 1 });
  }
  return progress;
}

function pushNumber(bytes: number[], value: number): void {
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}

function invalid(): InvalidInputError {
  return new InvalidInputError("the cursor does not belong to this list: begin without one", [
    { path: "cursor", message: "take it from nextCursor or Last-Event-ID of the same job" },
  ]);
}
