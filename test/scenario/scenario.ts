/** One row of what may happen to a cluster, and must then hold: run with real processes, sockets and disks. */
import type { Test } from "tap";

export interface Scenario {
  readonly row: number;
  readonly name: string;
  /** Something hangs when it takes longer. */
  readonly secondsMax: number;
  /** Makes its own servers. What `t.comment` says is what was seen. */
  run(t: Test): Promise<void>;
}

const NOT_RUN = "not run: ";

/** Ends a row that can't be run here; the reason is shown, and it counts neither as passed nor as failed. */
export function leaveOut(t: Test, reason: string): void {
  t.comment(`${NOT_RUN}${reason}`);
}

/** Of a comment: why the row was not run; undefined: it says something else. */
export function reasonOf(comment: string): string | undefined {
  return comment.startsWith(NOT_RUN) ? comment.slice(NOT_RUN.length) : undefined;
}
