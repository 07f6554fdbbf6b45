/**
 * LevelDB's sorted tables, checked block by block: it reads them without looking
 * at their checksums, so a flipped bit in a key would pass for an absent entry.
 * The format is LevelDB's (doc/table_format.md): blocks, each followed by a type
 * and a masked CRC-32C; an index of them; a footer that says where the index is.
 */
import { open } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { isSystemError } from "./durable-file.ts";
import { crc32c, unmask } from "./level-log.ts";

const FOOTER_BYTES = 48;
const MAGIC = Buffer.from("57fb808b247547db", "hex");
const TRAILER_BYTES = 5;
/** LevelDB appends a sequence number and a kind to each key. */
const KEY_TRAILER_BYTES = 8;
const UNCOMPRESSED = 0;

/** Keys as binary strings: above `after` (from the start, when undefined), up to and with `last` (to the end). */
export interface KeyRange {
  readonly after: string | undefined;
  readonly last: string | undefined;
}

const EVERYTHING: KeyRange = { after: undefined, last: undefined };

interface BlockPlace {
  readonly offset: number;
  readonly bytes: number;
}

/**
 * Which keys of the table can't be trusted: empty when all is as it was written,
 * or when the file is gone, as those are that LevelDB has merged.
 *
 * @param until only blocks with keys below it, besides what leads to them; all, when left out.
 * @param paced called after each block with its size: waits as long as the caller likes.
 */
export async function damagedRanges(
  path: string,
  until?: string,
  paced: (bytes: number) => Promise<unknown> = () => nextTurn(),
): Promise<KeyRange[]> {
  const file = await open(path, "r").catch((error: unknown) => {
    if (isSystemError(error, "ENOENT")) return undefined;
    throw error;
  });
  if (file === undefined) return [];
  try {
    const { size } = await file.stat();
    const read = async ({ offset, bytes }: BlockPlace): Promise<Buffer | undefined> => {
      const length = bytes + TRAILER_BYTES;
      if (offset + length > size) return undefined;
      const block = Buffer.allocUnsafe(length);
      if ((await file.read(block, 0, length, offset)).bytesRead < length) return undefined;
      const isWhole = unmask(block.readUInt32LE(bytes + 1)) === crc32c(block, 0, bytes + 1);
      await paced(length);
      return isWhole && block[bytes] === UNCOMPRESSED ? block.subarray(0, bytes) : undefined;
    };
    if (size < FOOTER_BYTES) return [EVERYTHING];
    const footer = Buffer.alloc(FOOTER_BYTES);
    await file.read(footer, 0, FOOTER_BYTES, size - FOOTER_BYTES);
    if (!footer.subarray(FOOTER_BYTES - MAGIC.length).equals(MAGIC)) return [EVERYTHING];
    const reader = new Reader(footer);
    const metaIndex = await read(reader.place());
    const index = await read(reader.place());
    if (metaIndex === undefined || index === undefined) return [EVERYTHING];
    // Filters: a wrong one makes a key look absent.
    for (const { value } of entriesOf(metaIndex)) {
      if ((await read(new Reader(value).place())) === undefined) return [EVERYTHING];
    }
    const damaged: KeyRange[] = [];
    let after: string | undefined;
    for (const { key, value } of entriesOf(index)) {
      if (until !== undefined && after !== undefined && after >= until) break;
      const last = key.subarray(0, key.length - KEY_TRAILER_BYTES).toString("latin1");
      if ((await read(new Reader(value).place())) === undefined) damaged.push({ after, last });
      after = last;
    }
    return damaged;
  } catch (error) {
    // What leads to the blocks makes no sense, though its checksum is right.
    if (error instanceof RangeError) return [EVERYTHING];
    throw error;
  } finally {
    await file.close();
  }
}

/** Keys in a block share beginnings; the offsets at which one stands in full come last. */
function* entriesOf(block: Buffer): Generator<{ readonly key: Buffer; readonly value: Buffer }> {
  const restarts = block.readUInt32LE(block.length - 4);
  const end = block.length - 4 - restarts * 4;
  if (end < 0) throw new RangeError("a block is shorter than it says");
  const reader = new Reader(block.subarray(0, end));
  let key = Buffer.alloc(0);
  while (!reader.isAtEnd) {
    const shared = reader.varint();
    const own = reader.varint();
    const bytes = reader.varint();
    if (shared > key.length) throw new RangeError("a key shares more than there is");
    key = Buffer.concat([key.subarray(0, shared), reader.take(own)]);
    yield { key, value: reader.take(bytes) };
  }
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 49; factor *= 128) {
      const byte = this.#bytes.readUInt8(this.#at++);
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number is longer than there is need for");
  }

  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new RangeError("a block ends too early");
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  place(): BlockPlace {
    return { offset: this.varint(), bytes: this.varint() };
  }
}
