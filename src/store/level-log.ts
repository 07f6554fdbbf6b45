/**
 * LevelDB drops damaged records of its log in silence when it opens, and goes on
 * with the later ones: acknowledged batches would be lost without a word. So the
 * logs are checked first. The format is LevelDB's (doc/log_format.md): blocks of
 * 32 KiB, filled with fragments, each with a masked CRC-32C, a length and a type.
 *
 * What a power cut tears off is no damage: nobody was told that it is durable. It
 * is the end of the newest log: cut short, or with sectors that were never written.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { DamagedError } from "../errors.ts";

const BLOCK_BYTES = 32_768;
const HEAD_BYTES = 7;
const SECTOR_BYTES = 512;
/** Fragment types: a record in one piece, or its first one. */
const FULL = 1;
const FIRST = 2;
const LAST_TYPE = 4;

/** @throws {DamagedError} names the file: a record that was durable can't be read any more. */
export async function checkLevelLogs(directory: string): Promise<void> {
  const logs = (await readdir(directory)).filter((name) => /^\d+\.log$/.test(name));
  for (const name of logs) {
    const at = firstDamage(await readFile(join(directory, name)));
    if (at !== undefined) {
      throw new DamagedError(
        `${join(directory, name)} is damaged at byte ${at}: acknowledged writes in it can't be read`,
      );
    }
  }
}

/** Where the first fragment lies that is neither whole nor a torn end. */
export function firstDamage(log: Buffer): number | undefined {
  let bad: number | undefined;
  for (let block = 0; block < log.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, log.length);
    for (let at = block; end - at >= HEAD_BYTES; ) {
      const length = log.readUInt16LE(at + 4);
      const type = log[at + 6]!;
      const next = at + HEAD_BYTES + length;
      // Space that was reserved and never written; the rest of the block is of the same kind.
      if (type === 0 && length === 0 && log.readUInt32LE(at) === 0) {
        bad ??= isZero(log, at, end) ? undefined : at;
        break;
      }
      // The file ends within a fragment: torn off, unless it is its length that was changed.
      if (next > end && end === log.length && bad === undefined) {
        return isWhole(log, at, end) || holdsRecord(log, at + HEAD_BYTES) ? at : undefined;
      }
      const whole = next <= end && type <= LAST_TYPE && isWhole(log, at, next);
      // A record that begins after a bad one was written later, so the bad one was durable.
      if (whole && bad !== undefined && (type === FULL || type === FIRST)) return bad;
      if (!whole) bad ??= at;
      if (next > end) break;
      at = next;
    }
  }
  return bad === undefined || hasUnwrittenSector(log, bad) ? undefined : bad;
}

function isWhole(log: Buffer, at: number, next: number): boolean {
  return unmask(log.readUInt32LE(at)) === crc32c(log, at + 6, next);
}

/** Whether a record begins anywhere in the rest of the last block. */
function holdsRecord(log: Buffer, from: number): boolean {
  for (let at = from; at + HEAD_BYTES <= log.length; at++) {
    const type = log[at + 6]!;
    const next = at + HEAD_BYTES + log.readUInt16LE(at + 4);
    if ((type === FULL || type === FIRST) && next <= log.length && isWhole(log, at, next)) return true;
  }
  return false;
}

/** LevelDB stores CRCs rotated and offset, so that a CRC of bytes that hold CRCs stays good. */
export function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

function isZero(log: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (log[at] !== 0) return false;
  return true;
}

function hasUnwrittenSector(log: Buffer, from: number): boolean {
  for (let at = Math.ceil(from / SECTOR_BYTES) * SECTOR_BYTES; at < log.length; at += SECTOR_BYTES) {
    if (isZero(log, at, Math.min(at + SECTOR_BYTES, log.length))) return true;
  }
  return false;
}

/** CRC-32C (Castagnoli), reflected; RFC 3720, B.4. */
const CRC_TABLE = new Uint32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f63b78;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array, from: number, to: number): number {
  let crc = 0xffffffff;
  for (let at = from; at < to; at++) crc = CRC_TABLE[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
