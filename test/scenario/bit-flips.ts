/** Row 15: bits of a store's files flip while its server is down. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Test } from "tap";
import { type Ground, inSeconds, logOf, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { SeededRandom } from "../fixture/site/seeded-random.ts";
import { nothingLost, untilLevel } from "./settled.ts";

/** One bit of each so many bytes. */
const BYTES_PER_FLIP = 4_096;
const HEALED_MS_MAX = 90_000;

/** Damages the store of the fourth server. */
export async function bitFlips(t: Test, ground: Ground): Promise<void> {
  const { servers, client, pinned } = ground;
  const [one, two, three, four, five] = servers;
  const others = [one, two, three, five];
  const load = new ValueLoad([client(one, two), client(three, five)], { keys: 150, everyMs: 0 });
  t.teardown(() => load.stop());
  await until("the load has written all its keys", 60_000, () => load.keys.length === 300);
  await four.stop();
  const seed = Number(process.env.SEED ?? 1);
  t.comment(`SEED=${seed}`);
  const { flips, files } = await flip(join(four.directory, "store"), new SeededRandom(`flips ${seed}`));
  t.ok(flips > 0, "there was something to damage");

  const startedMs = performance.now();
  const starting = four.restart();
  await starting;
  const readyMs = performance.now() - startedMs;
  const answers = load.answers;
  await until("the load goes on", 30_000, () => load.answers >= answers + 100);
  await load.stop();
  t.same(load.failed, [], `none of ${load.answers} calls of others failed or was wrong`);
  // Its own copies, as they are: the right value of some time, or none; never another one.
  await until("it keeps all copies again", HEALED_MS_MAX, async () => {
    const differing = await load.differing([pinned(one), pinned(four)]);
    return differing.length === 0;
  });
  const healedMs = performance.now() - startedMs;
  const told = (await logOf(four)).filter(({ level }) => level === "error" || level === "warn");
  const quarantine = await readdir(join(four.directory, "quarantine"));

  t.comment(
    `${flips} bits flipped in ${files} files; ready again after ${inSeconds(readyMs)}, all copies after ${inSeconds(healedMs)}`,
  );
  t.comment(
    `its log: ${[...new Set(told.map(({ event }) => event))].join(", ")}; set aside: ${quarantine.length}`,
  );
  t.ok(quarantine.length > 0, "what was damaged is kept for a look");
  await untilLevel(t, ground, load, startedMs);
  await nothingLost(t, ground, load, [...others, four]);
}

/** Flips bits all over the files that hold entries. */
async function flip(store: string, random: SeededRandom): Promise<{ flips: number; files: number }> {
  let flips = 0;
  let files = 0;
  for (const entry of await readdir(store, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.(ldb|log|sst)$/.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path);
    if (bytes.length === 0) continue;
    const count = Math.max(1, Math.floor(bytes.length / BYTES_PER_FLIP));
    for (let i = 0; i < count; i++) {
      const at = random.between(0, bytes.length - 1);
      bytes[at] = bytes[at]! ^ (1 << random.between(0, 7));
    }
    await writeFile(path, bytes);
    flips += count;
    files++;
  }
  return { flips, files };
}
