/** Three servers in one process, one of them on a small disk that fills up and gets room again. */
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Test, test } from "tap";
import { serverSettingsSchema } from "../../src/config.ts";
import { createLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/node/node.ts";

const PARTITIONS = 8;
const DISK_BYTES = 48 * 1024 * 1024;
const WAIT_MS = 20_000;

/** Where a small file system is mounted, or why none can be. */
async function smallDisk(t: Test, directory: string): Promise<string | { readonly skipped: string }> {
  await mkdir(directory);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES},mode=700`, "tmpfs", directory], {
      stdio: "pipe",
    });
  } catch (error) {
    return { skipped: `a small tmpfs can't be mounted here: ${String(error)}` };
  }
  t.teardown(() => execFileSync("umount", ["-l", directory]));
  return directory;
}

async function start(t: Test, data: string, more: object = {}): Promise<RunningServer> {
  const settings = serverSettingsSchema.parse({
    data,
    edgePort: 0,
    peerPort: 0,
    partitions: PARTITIONS,
    scrapeThreads: 1,
    ...more,
  });
  const server = await startServer(settings, createLog({ level: "silent", text: false }));
  t.teardown(() => server.stop());
  await server.ready;
  return server;
}

async function until<T>(what: string, ask: () => Promise<T | false> | T | false): Promise<T> {
  for (const endMs = performance.now() + WAIT_MS; performance.now() < endMs; await pause(25)) {
    const answer = await ask();
    if (answer !== false) return answer;
  }
  throw new Error(`not within ${WAIT_MS} ms: ${what}`);
}

test("a server whose disk is full stops acknowledging, says why, and goes on when there is room", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "orbweaver-disk-"));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const disk = await smallDisk(t, join(directory, "small"));
  if (typeof disk !== "string") {
    t.comment(disk.skipped);
    return;
  }
  const first = await start(t, join(directory, "a"), { bootstrap: true });
  const joined = async (data: string) => {
    const { token } = await first.backend.cluster.createJoinToken();
    const joinTokenFile = join(directory, "token");
    await writeFile(joinTokenFile, token, { mode: 0o600 });
    return start(t, data, { join: `127.0.0.1:${first.peerAddress.port}`, joinTokenFile });
  };
  const small = await joined(join(disk, "b"));
  await joined(join(directory, "c"));
  const copies = (n: number) =>
    until(`${n} copies of all`, async () =>
      (await first.backend.cluster.partitions()).every((one) => one.leader !== null && one.copies === n),
    );
  await copies(3);
  const { registers } = first.backend;
  const acknowledged = new Map<string, number>();
  let n = 0;
  const write = async () => {
    const key = `\x30key ${n}`;
    const value = Buffer.alloc(20_000, ++n);
    await registers.operate(
      n % PARTITIONS,
      { kind: "batch", changes: [{ kind: "put", key, value }], conditions: [] },
      { repeatable: true, timeoutMs: 10_000 },
    );
    acknowledged.set(key, n);
  };
  for (let k = 0; k < 20; k++) await write();

  // Somebody else fills the disk.
  const filler = await open(join(disk, "filler"), "w");
  let left = 1024 * 1024;
  while (left >= 4096) {
    await filler.write(Buffer.alloc(left)).catch(() => {
      left /= 2;
    });
  }
  await until("the small server says why it keeps nothing", async () => {
    await write();
    return small.readiness().reasons.some((reason) => reason.startsWith("the disk refuses writes"));
  });
  const full = small.readiness();
  const led = await until("the others lead all", async () => {
    const partitions = await first.backend.cluster.partitions();
    return partitions.every(({ leader }) => leader !== null && leader !== small.nodeId) && partitions;
  });
  for (let k = 0; k < 20; k++) await write();
  const members = led.map((one) => one.members.length);

  await filler.close();
  await rm(join(disk, "filler"));
  await until("it takes part again", () => small.readiness().ready);
  await copies(3);
  await write();

  t.equal(full.ready, false);
  t.match(full.reasons.join(), /goes on by itself once there is room/);
  t.same(new Set(members), new Set([3]), "it stays a member: a full disk is no lost memory");
  for (const [key, written] of acknowledged) {
    const outcome = await registers.operate(written % PARTITIONS, { kind: "get", keys: [key] });
    const value = outcome.kind === "entries" ? outcome.entries[0]?.value : undefined;
    if (value?.[0] !== (written & 0xff)) t.fail(`${key} was acknowledged and is ${value?.[0]}`);
  }
  const own = await until("it has caught up", async () => {
    const [key, written] = [...acknowledged].at(-1)!;
    const outcome = await small.backend.registers.operate(written % PARTITIONS, {
      kind: "get",
      keys: [key],
      stale: true,
    });
    return outcome.kind === "entries" && outcome.entries[0] !== undefined && outcome;
  });
  t.equal(own.kind, "entries");
});
