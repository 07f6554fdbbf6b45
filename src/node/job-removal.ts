/**
 * Clears a deleted job away: first what its participants keep, then its blobs, then
 * its entry in its owner's list, last its seeds and its record. As the record goes
 * last, whoever leads the job after a crash finds it and goes on.
 */
import type { Operation, Outcome } from "../replication/register.ts";
import { type Clock, pause } from "./clock.ts";
import type { JobLedger } from "./job-ledger.ts";
import { SEED_ENTRIES_MAX } from "./job-seeds.ts";
import type { KeyLayout } from "./key-layout.ts";

export interface JobRemovalPorts {
  readonly clock: Clock;
  readonly layout: KeyLayout;
  /** At the local replica. */
  operate(operation: Operation): Promise<Outcome>;
  /** At another partition's leader. */
  operateAt(partition: number, operation: Operation): Promise<Outcome>;
  /** Until the participant has dropped all of the job; false: nobody wants to know any more. */
  drop(partition: number): Promise<boolean>;
  /** Deletes the job's blobs wherever they are. */
  dropBlobs(): Promise<void>;
  /** The job is not led here any more. */
  isEnded(): boolean;
}

const RETRY_MS = 2_000;

/** False: somebody else has to go on. */
export async function removeJob(ledger: JobLedger, ports: JobRemovalPorts): Promise<boolean> {
  const { layout, clock } = ports;
  const { jobId, owner, createdAtMs } = ledger.record;
  await ledger.save();
  for (const partition of [...ledger.accounts.keys()]) {
    if (!(await ports.drop(partition))) return false;
    ledger.strike(partition);
    await ledger.save();
  }
  await ports.dropBlobs();
  const seeds = await ports.operate({ kind: "scan", prefix: layout.seeds(jobId), limit: SEED_ENTRIES_MAX });
  while (!ports.isEnded()) {
    try {
      await ports.operateAt(layout.ownerPartition(owner), {
        kind: "batch",
        changes: [{ kind: "delete", key: layout.jobIndex(owner, createdAtMs, jobId) }],
        conditions: [],
      });
      break;
    } catch {
      await pause(clock, RETRY_MS);
    }
  }
  if (ports.isEnded()) return false;
  await ledger.close(seeds.kind === "scanned" ? seeds.entries.map(({ key }) => key) : []);
  return true;
}
