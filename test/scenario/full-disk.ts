/** Row 14: the disk of one server is full, and has room again later. */
import { execFile } from "node:child_process";
import { appendFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import type { Test } from "tap";
import { type Ground, inSeconds, startGround, until } from "../cluster/ground.ts";
import { isAlive } from "../cluster/lan.ts";
import { ValueLoad } from "../cluster/value-load.ts";
import { leaveOut } from "./scenario.ts";
import { nothingLost, untilLevel } from "./settled.ts";

const run = promisify(execFile);
/** Before the process id and what makes it unique. */
const PREFIX = "orbweaver-disk-";
const DISK_BYTES = 64 * 1024 * 1024;
const CHUNK = Buffer.alloc(64 * 1024, 7);
const FULL_MS = 5_000;
const NOTICED_MS_MAX = 20_000;
const BACK_MS_MAX = 90_000;

/** The fourth server's data lies on a small disk of its own; needs the right to mount one. */
export async function fullDisk(t: Test, flags: readonly string[]): Promise<void> {
  await sweep();
  const parent = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  const disk = join(parent, "server-4");
  await mkdir(disk);
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "tmpfs", disk]);
  } catch (error) {
    await rm(parent, { recursive: true });
    return leaveOut(t, `no disk can be mounted here: ${error instanceof Error ? error.message : error}`);
  }
  t.teardown(async () => {
    await run("umount", ["-l", disk]);
    if (t.passing()) await rm(parent, { recursive: true, force: true });
    else t.comment(`the log of the server with the small disk is left in ${parent}`);
  });
  const ground = await startGround(t, {
    flags,
    place: (index) => (index === 3 ? { dataDirectory: disk } : {}),
  });
  await fillAndFree(t, ground, join(disk, "junk"));
}

async function fillAndFree(t: Test, ground: Ground, junk: string): Promise<void> {
  const { servers, client } = ground;
  const [one, two, three, four, five] = servers;
  const load = new ValueLoad([client(four, one), client(two, three), client(five, four)]);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.answers >= 200);
  const asker = client(one);
  const problemOfFour = async () =>
    (await asker.cluster.nodes()).find(({ nodeId }) => nodeId === four.nodeId)?.problem;

  const fullMs = performance.now();
  // What is freed by tidying up is filled as well.
  const filling = (async () => {
    while (performance.now() - fullMs < FULL_MS) {
      await fill(junk);
      await pause(100);
    }
  })();
  const problem = await until("the others see it", NOTICED_MS_MAX, async () => {
    await fill(junk);
    return (await problemOfFour()) ?? undefined;
  });
  const noticedMs = performance.now() - fullMs;
  await filling;
  const answersWhileFull = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersWhileFull + 200);
  t.ok(four.isRunning, "the server goes on");
  await rm(junk);
  const freedMs = performance.now();
  await until("it is well again", BACK_MS_MAX, async () => (await problemOfFour()) === null);
  const backMs = performance.now() - freedMs;
  const answersAfter = load.answers;
  await until("the load goes on", 20_000, () => load.answers >= answersAfter + 200);
  await load.stop();

  t.comment(`seen by the others after ${inSeconds(noticedMs)}: ${problem}`);
  t.comment(`well again ${inSeconds(backMs)} after there was room`);
  t.comment(`longest of ${load.answers} calls ${inSeconds(load.longestMs)}, ${load.failed.length} failed`);
  t.match(problem, /the disk refuses writes/);
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  await untilLevel(t, ground, load, freedMs);
  await nothingLost(t, ground, load);
}

/** Disks of processes that were killed before they could clean up. */
async function sweep(): Promise<void> {
  const start = join(tmpdir(), PREFIX);
  const mounts = (await readFile("/proc/self/mounts", "utf8").catch(() => "")).split("\n");
  for (const place of mounts.map((line) => line.split(" ")[1] ?? "")) {
    const pid = place.startsWith(start) ? /^(\d+)-/.exec(place.slice(start.length))?.[1] : undefined;
    if (pid === undefined || isAlive(Number(pid))) continue;
    await run("umount", ["-l", place]).catch(() => {});
    await rm(dirname(place), { recursive: true, force: true });
  }
}

/** Until there is no room for one more byte. */
async function fill(junk: string): Promise<void> {
  for (let size = CHUNK.length; size >= 1; ) {
    try {
      await appendFile(junk, CHUNK.subarray(0, size));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
      size = Math.floor(size / 16);
    }
  }
}
