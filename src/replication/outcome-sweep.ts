/** Finds outcomes of requests that are not kept any longer, a page at a time, while there are any at all. */
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { Change, Key } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import { type HeldEntry, OUTCOME_PREFIX, type ReplicaState } from "./replica-state.ts";

const SWEEP_ENTRIES = 256;
const SWEEP_PAGE_MS = 200;
const SWEEP_MS = 60_000;

export class OutcomeSweep {
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  /** When the next page is due; Infinity: there are no outcomes. */
  #atMs: number;
  #snapshot: number | undefined;
  #after: Key | undefined;
  #found = 0;

  constructor(options: {
    state: ReplicaState;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
    nowMs: number;
  }) {
    this.#state = options.state;
    this.#effects = options.effects;
    this.#limits = options.limits;
    this.#atMs = options.nowMs + SWEEP_MS;
  }

  get nextTickMs(): number {
    return this.#atMs;
  }

  /** What is being read at the moment. */
  get snapshot(): number | undefined {
    return this.#snapshot;
  }

  /** There is an outcome now that will not be kept for ever. */
  recorded(nowMs: number): void {
    if (this.#atMs === Number.POSITIVE_INFINITY && this.#snapshot === undefined)
      this.#atMs = nowMs + SWEEP_MS;
  }

  /** @param snapshot a number of its own. */
  begin(snapshot: number): void {
    if (this.#snapshot !== undefined) return;
    this.#atMs = Number.POSITIVE_INFINITY;
    this.#snapshot = snapshot;
    this.#effects.push({ kind: "snapshot", snapshot });
    this.#effects.push({
      kind: "scan",
      snapshot,
      generation: this.#state.generation,
      prefix: OUTCOME_PREFIX,
      after: this.#after,
      limit: SWEEP_ENTRIES,
      bytesMax: this.#limits.messageBytes,
      isTransfer: true,
    });
  }

  /** @param batch takes deletions when it has room for them; `read` gives what stands there now. */
  scanned(
    { entries, isLast }: Scanned,
    batch: { read(key: Key): HeldEntry | undefined; take(changes: readonly Change[]): boolean },
    nowMs: number,
    epochMs: number,
  ): void {
    this.stop();
    const deletes = entries
      .filter(
        ({ key, version, expiresAtMs }) =>
          expiresAtMs !== undefined && expiresAtMs <= epochMs && batch.read(key)?.version === version,
      )
      .map(({ key }): Change => ({ kind: "delete", key }));
    // A page for which there is no room now is read again.
    if (deletes.length > 0 && !batch.take(deletes)) {
      this.#atMs = nowMs + SWEEP_PAGE_MS;
      return;
    }
    this.#found += entries.length;
    if (!isLast) {
      this.#after = entries.at(-1)?.key;
      this.#atMs = nowMs + SWEEP_PAGE_MS;
      return;
    }
    if (this.#found > 0) this.#atMs = nowMs + SWEEP_MS;
    this.#found = 0;
    this.#after = undefined;
  }

  stop(): void {
    if (this.#snapshot !== undefined) this.#effects.push({ kind: "release", snapshot: this.#snapshot });
    this.#snapshot = undefined;
  }
}
