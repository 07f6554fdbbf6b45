/**
 * The life of a job: queued, running, perhaps paused, and one of three ends.
 */
import type { JobStatus } from "./job-spec.ts";

const NEXT: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  queued: ["running", "paused", "cancelled"],
  running: ["paused", "completed", "failed", "cancelled"],
  paused: ["running", "cancelled"],
  completed: [],
  failed: [],
  cancelled: [],
};

/** Whether a job may go from one status to another; to the same one always (a repeat changes nothing). */
export function mayBecome(from: JobStatus, to: JobStatus): boolean {
  return from === to || NEXT[from].includes(to);
}

/** Whether what failed in it may be tried again, as a new run; a job that was cancelled stays so. */
export function mayRunAgain(status: JobStatus): boolean {
  return status === "completed" || status === "failed";
}

export function isOver(status: JobStatus): boolean {
  return NEXT[status].length === 0;
}

/** Offers are accepted and reports settled. */
export function isOpen(status: JobStatus): boolean {
  return status === "running" || status === "paused";
}
