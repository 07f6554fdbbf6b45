/**
 * Writes until it is killed. Batch n puts the same number under both keys of its
 * row, and `n` with all earlier ones implied; a line on standard output says
 * that batch n is durable.
 *
 * Arguments: data directory, first n.
 */
import { writeSync } from "node:fs";
import { openPlace } from "./place.ts";

const [directory, first] = process.argv.slice(2) as [string, string];
const { store } = await openPlace(directory);

/** Values of some length, so that a batch spans several of LevelDB's blocks now and then. */
function contentOf(n: number): Buffer {
  const value = Buffer.alloc(4 + ((n * 977) % 3_000), n & 0xff);
  value.writeUInt32BE(n);
  return value;
}

let next = Number(first);
async function writeOn(): Promise<void> {
  for (;;) {
    const n = next++;
    const entry = { version: `v${n}`, value: contentOf(n) };
    await store.write({
      partition: n % 16,
      generation: 1,
      changes: [
        { kind: "put", key: `left${n}`, entry },
        { kind: "put", key: `right${n}`, entry },
      ],
      meta: contentOf(n),
      claim: Buffer.alloc(24, contentOf(n).subarray(0, 4)),
    });
    // Synchronous, so that no acknowledgement is lost in a buffer of this process.
    writeSync(1, `${n}\n`);
  }
}
await Promise.all(Array.from({ length: 32 }, writeOn));
