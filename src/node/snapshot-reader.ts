/** Reads parts of snapshots: by size, and for other replicas no more than their share of the disk. */
import { setTimeout as pause } from "node:timers/promises";
import type { ReplicaEffect, Scanned } from "../replication/effect.ts";
import { RESERVED } from "../replication/replica-state.ts";
import type { Store, StoredEntry, StoreSnapshot } from "../store/store.ts";

const SCAN_FIRST = 64;
const COUNT_AT_ONCE = 500;
/** 64 MiB a second. */
const TRANSFER_BYTES_PER_MS = (64 * 1024 * 1024) / 1000;
const TRANSFER_BURST_MS = 100;

type Part = Extract<ReplicaEffect, { kind: "scan" }>;

export class SnapshotReader {
  /** When the bytes that were read for transfers so far will have been paid for. */
  #transfersPaidMs = 0;

  async read(snapshot: StoreSnapshot, partition: number, part: Part): Promise<Scanned> {
    if (!part.isTransfer) return scanPart(snapshot, partition, part);
    const earlyMs = this.#transfersPaidMs - performance.now();
    if (earlyMs > 0) await pause(earlyMs);
    const scanned = await scanPart(snapshot, partition, part);
    const bytes = scanned.entries.reduce((sum, { key, value }) => sum + key.length + value.byteLength, 0);
    const sinceMs = Math.max(this.#transfersPaidMs, performance.now() - TRANSFER_BURST_MS);
    this.#transfersPaidMs = sinceMs + bytes / TRANSFER_BYTES_PER_MS;
    return scanned;
  }
}

/** The store counts entries only: sizes are learnt from what was read so far. */
async function scanPart(
  snapshot: StoreSnapshot,
  partition: number,
  { generation, prefix, after, limit, bytesMax }: Part,
): Promise<Scanned> {
  const entries: (StoredEntry & { key: string })[] = [];
  let bytes = 0;
  for (let count = Math.min(limit, SCAN_FIRST); ; ) {
    const from = entries.at(-1)?.key ?? after;
    const found = await snapshot.scan(partition, generation, { prefix, after: from, limit: count });
    for (const entry of found) {
      entries.push(entry);
      bytes += entry.key.length + entry.value.byteLength;
    }
    if (found.length < count) return { entries, isLast: true };
    if (entries.length >= limit || bytes >= bytesMax) return { entries, isLast: false };
    const likely = Math.ceil(((bytesMax - bytes) * entries.length) / Math.max(1, bytes));
    count = Math.max(1, Math.min(limit - entries.length, likely, entries.length * 8));
  }
}

/** Of users: those of the replica itself are none of theirs. */
export async function countEntries(store: Store, partition: number, generation: number): Promise<number> {
  const snapshot = store.snapshot();
  try {
    let count = 0;
    for (let after: string | undefined, isLast = false; !isLast; ) {
      const found = await snapshot.scan(partition, generation, { prefix: "", after, limit: COUNT_AT_ONCE });
      count += found.filter(({ key }) => !key.startsWith(RESERVED)).length;
      isLast = found.length < COUNT_AT_ONCE;
      after = found.at(-1)?.key;
    }
    return count;
  } finally {
    await snapshot.close();
  }
}
