/** What its users let end is cleared away though nobody reads it: in virtual time, on registers in memory. */
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { ExpirySweep } from "../../src/node/expiry-sweep.ts";
import { KeyValues } from "../../src/node/key-values.ts";
import { layout } from "../edge/edge-ground.ts";
import { MemoryRegisters } from "../edge/memory-registers.ts";
import { VirtualTime } from "../simulation/virtual-clock.ts";

const MINUTE_MS = 60_000;
const VALUES = 1000;

async function setUp(leads: (partition: number) => boolean) {
  const time = new VirtualTime();
  const clock = time.clock(0, 0, () => false);
  const registers = new MemoryRegisters();
  registers.nowMs = clock.wall;
  const values = new KeyValues({ registers, layout });
  const write = (key: string, ttlMs: number | undefined) =>
    values.put(
      { user: "ann", namespace: "n", key },
      {
        bytes: Buffer.from(key),
        contentType: "text/plain",
        expiresAtMs: ttlMs === undefined ? undefined : clock.wall() + ttlMs,
      },
      { condition: { kind: "any" }, requestId: undefined },
    );
  for (let i = 0; i < VALUES; i++) await write(`ends ${i}`, 1000);
  await write("ends later", 1000 * MINUTE_MS);
  await write("stays", undefined);
  let scans = 0;
  const sweep = new ExpirySweep({
    layout,
    leads,
    operate: (partition, operation) => {
      scans++;
      return registers.operate(partition, operation);
    },
    clock,
    log: createLog({ level: "silent", text: false }),
  });
  sweep.start();
  const pass = (minutes: number) => time.run(() => false, time.nowMs + minutes * MINUTE_MS);
  return { registers, values, sweep, pass, scans: () => scans };
}

test("a led partition a minute is swept; what has not ended stays", async (t) => {
  const { registers, sweep, pass } = await setUp(() => true);
  t.equal(registers.size, VALUES + 2);
  await pass(2);
  t.ok(registers.size < VALUES + 2, "something has gone");
  t.ok(registers.size > VALUES / 2, "but not all at once");
  await pass(layout.partitionCount);
  t.equal(registers.size, 2);
  sweep.stop();
});

test("only where this server leads, and no more when it stops", async (t) => {
  const led = layout.valuePartition("ann", "n", "stays");
  const { registers, sweep, pass, scans } = await setUp((partition) => partition === led);
  await pass(5);
  const gone = VALUES + 2 - registers.size;
  t.ok(gone < VALUES / 10, "other partitions are as they were");
  const before = scans();
  t.ok(before >= 8, "five minutes, values and locks");
  sweep.stop();
  await pass(5);
  t.equal(scans(), before);
});

test("a partition that can't be read does not end the sweep", async (t) => {
  const { registers, sweep, pass } = await setUp(() => true);
  registers.isDown = true;
  await pass(5);
  t.equal(registers.size, VALUES + 2);
  registers.isDown = false;
  await pass(layout.partitionCount + 1);
  t.equal(registers.size, 2);
  sweep.stop();
});
