/**
 * Loaded into each server of a benchmark before its program (`--import`): tells by
 * the channel to the benchmark what the server has spent so far, and profiles it
 * while asked to. The server knows nothing of it.
 */
import { subscribe } from "node:diagnostics_channel";
import { writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { Socket } from "node:net";
import { ClassicLevel } from "classic-level";
import { z } from "zod";

export const askedSchema = z.discriminatedUnion("probe", [
  z.object({ probe: z.literal("spent"), id: z.int() }),
  /** Samples for so long, then writes a `.cpuprofile`. */
  z.object({ probe: z.literal("profile"), id: z.int(), ms: z.number(), file: z.string() }),
]);

export const toldSchema = z.object({
  probe: z.int(),
  /** User and system time of the whole process, microseconds. */
  cpuUs: z.number(),
  /** Write batches that were synced; each is one fdatasync of the log. */
  fsyncs: z.number(),
  /** Bytes of keys and values in those batches. */
  storedBytes: z.number(),
  /** From all connections, of either direction. */
  receivedBytes: z.number(),
});

const spent = { fsyncs: 0, storedBytes: 0 };
const sockets = new Set<Socket>();
/** From connections that are closed. */
let receivedBefore = 0;

// What the server starts is not to be watched, and may not even read this file.
delete process.env.NODE_OPTIONS;
if (process.send !== undefined) watch();

function watch(): void {
  const { batch } = ClassicLevel.prototype;
  const counted = function (this: unknown, operations: unknown, options: unknown): unknown {
    if (Array.isArray(operations)) {
      spent.fsyncs++;
      for (const { key, value } of operations) spent.storedBytes += key.length + (value?.length ?? 0);
    }
    return Reflect.apply(batch, this, [operations, options]);
  };
  Object.defineProperty(ClassicLevel.prototype, "batch", { value: counted });
  subscribe("net.client.socket", connected);
  subscribe("net.server.socket", connected);
  process.on("message", (message) => {
    const asked = askedSchema.safeParse(message);
    if (!asked.success) return;
    const { id } = asked.data;
    if (asked.data.probe === "spent") tell(id);
    else void profile(asked.data.ms, asked.data.file).then(() => tell(id));
  });
  process.channel?.unref();
}

function connected(message: unknown): void {
  const socket = (message as { readonly socket?: unknown }).socket;
  if (!(socket instanceof Socket)) return;
  sockets.add(socket);
  socket.once("close", () => {
    sockets.delete(socket);
    receivedBefore += socket.bytesRead;
  });
}

function tell(id: number): void {
  const { user, system } = process.cpuUsage();
  let receivedBytes = receivedBefore;
  for (const { bytesRead } of sockets) receivedBytes += bytesRead;
  process.send?.({ probe: id, cpuUs: user + system, ...spent, receivedBytes });
}

async function profile(ms: number, file: string): Promise<void> {
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 400 });
  await session.post("Profiler.start");
  await new Promise((resolve) => setTimeout(resolve, ms));
  const { profile } = await session.post("Profiler.stop");
  session.disconnect();
  await writeFile(file, JSON.stringify(profile));
}
