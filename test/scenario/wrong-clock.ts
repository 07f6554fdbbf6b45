/** Row 18: the clock of one server goes an hour ahead, then an hour behind. */
import { existsSync } from "node:fs";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import { allServed, type Ground, inSeconds, startGround, until } from "../cluster/ground.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { leaveOut } from "./scenario.ts";
import { nothingLost, untilLevel } from "./settled.ts";

/** Of Debian's package `faketime`: it lies about the wall clock, and may be told another lie at any time. */
const LIBRARIES = [
  "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
  "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
const HOUR_S = 3_600;
const NAMESPACE = "clock";
const KEYS = 40;
const LONG_MS = 600_000;
const SHORT_MS = 2_000;
const LEFT_MS_MAX = 60_000;

/** The fourth server's clock is the wrong one. */
export async function wrongClock(t: Test, flags: readonly string[]): Promise<void> {
  const library = LIBRARIES.find((path) => existsSync(path));
  if (library === undefined) return leaveOut(t, "libfaketime is not installed (Debian: faketime)");
  const folder = await mkdtemp(join(tmpdir(), "orbweaver-clock-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  /** @param seconds by which the clock of the server with that index is ahead. */
  const set = async (index: number, seconds: number) => {
    const path = join(folder, String(index));
    await writeFile(`${path}.new`, `${seconds < 0 ? "" : "+"}${seconds}\n`);
    await rename(`${path}.new`, path);
  };
  const all = [0, 1, 2, 3, 4];
  // Certificates are valid from a little before they were made: here, two hours ago.
  await Promise.all(all.map((index) => set(index, -2 * HOUR_S)));
  const ground = await startGround(t, {
    flags,
    place: (index) => ({
      environment: {
        LD_PRELOAD: library,
        FAKETIME_TIMESTAMP_FILE: join(folder, String(index)),
        FAKETIME_NO_CACHE: "1",
        FAKETIME_DONT_FAKE_MONOTONIC: "1",
        DONT_FAKE_MONOTONIC: "1",
      },
    }),
  });
  const { servers, client } = ground;
  await Promise.all(servers.map((server) => server.stop()));
  await Promise.all(all.map((index) => set(index, 0)));
  await Promise.all(servers.map((server) => server.restart()));
  await allServed(client(...servers), 5);

  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(one, two), client(three, five), client(four, one)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);
  await lieBy(t, ground, HOUR_S, () => set(3, HOUR_S));
  await lieBy(t, ground, -HOUR_S, () => set(3, -HOUR_S));
  await set(3, 0);
  const asked = ground.pinned(four);
  await until("it is ready again", LEFT_MS_MAX, async () => (await asked.cluster.status()).ready);
  const answers = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answers + 200);
  await load.stop();

  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await untilLevel(t, ground, load, performance.now());
  await nothingLost(t, ground, load);
}

async function lieBy(
  t: Test,
  { servers, client, pinned }: Ground,
  seconds: number,
  lie: () => Promise<void>,
) {
  const [one, two, , four] = servers;
  const asker = client(one, two);
  const keys = Array.from({ length: KEYS }, (_, n) => `${seconds} ${n}`);
  await Promise.all(keys.map((key) => asker.kv.set(NAMESPACE, key, key, { ttlMs: LONG_MS })));
  const lock = await asker.locks.acquire(`${seconds}`, { ttlMs: LONG_MS });

  const fromMs = performance.now();
  await lie();
  const short = keys.map((key) => `${key}, short`);
  await Promise.all(short.map((key) => asker.kv.set(NAMESPACE, key, key, { ttlMs: SHORT_MS })));
  const leftMs = await until("it leads nothing any more", LEFT_MS_MAX, async () => {
    const node = (await asker.cluster.nodes()).find(({ nodeId }) => nodeId === four.nodeId);
    return node?.leads === 0 && performance.now() - fromMs;
  });
  const { ready, reasons } = await pinned(four).cluster.status();
  await pause(2 * SHORT_MS);
  const read = (names: readonly string[]) =>
    Promise.all(names.map(async (key) => (await asker.kv.get(NAMESPACE, key))?.text()));

  t.comment(`${seconds / HOUR_S} h: led nothing any more after ${inSeconds(leftMs)}; ${reasons.join(", ")}`);
  t.equal(ready, false, "it is not ready");
  t.match(reasons.join(), /clock/);
  t.same(await read(keys), keys, "nothing is lost before its time");
  t.same(
    (await read(short)).filter((found) => found !== undefined),
    [],
    "nothing is there after its time",
  );
  await t.rejects(asker.locks.acquire(`${seconds}`, { ttlMs: 1_000 }), { code: "LOCK_HELD" });
  await lock.release();
}
