/**
 * Those who wait for changes at a serving leader. Answered from the leader's
 * window, committed batches only, so nothing is kept for anybody: who is too slow
 * finds its version compacted.
 */
import { type Claim, claimOf, compareClaims, isSameBallot, versionOf } from "./ballot.ts";
import type { BatchWindow } from "./batch-window.ts";
import type { Refusal, ReplicaEffect } from "./effect.ts";
import type { Asked } from "./operations.ts";
import type { Ballot, Key, Outcome, Version, WatchedChange } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import { RESERVED } from "./replica-state.ts";

const WATCHERS_MAX = 1024;
const BUSY_MS = 250;
const ENTRY_BYTES = 64;
const CHANGES_MAX = 1024;

interface Watcher {
  readonly asked: Asked;
  readonly prefix: Key;
  /** Told, or seen to be none of its concern, up to this batch. */
  seq: number;
  readonly untilMs: number;
}

export class WatchList {
  readonly #ballot: Ballot;
  readonly #bases: readonly Claim[];
  readonly #window: BatchWindow;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  #waiting: Watcher[] = [];
  #committed = 0;

  /** @param options.bases all known names of the state that became the base of `ballot`. */
  constructor(options: {
    ballot: Ballot;
    bases: readonly Claim[];
    window: BatchWindow;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
  }) {
    this.#ballot = options.ballot;
    this.#bases = options.bases;
    this.#window = options.window;
    this.#effects = options.effects;
    this.#limits = options.limits;
  }

  /** When the next one is to be told that nothing has changed. */
  get nextTickMs(): number {
    return this.#waiting.reduce((min, { untilMs }) => Math.min(min, untilMs), Number.POSITIVE_INFINITY);
  }

  start(asked: Asked, prefix: Key, from: Version, waitMs: number): void {
    const seq = this.#seqOf(from);
    if (seq === undefined) return this.#answer(asked, { kind: "compacted" });
    const watcher = { asked, prefix, seq, untilMs: asked.nowMs + waitMs };
    if (this.#tell(watcher)) return;
    if (this.#waiting.length < WATCHERS_MAX) this.#waiting.push(watcher);
    else this.#answer(asked, { code: "BUSY", retryAfterMs: BUSY_MS });
  }

  committed(seq: number): void {
    this.#committed = Math.max(this.#committed, seq);
    if (this.#waiting.length > 0) this.#waiting = this.#waiting.filter((watcher) => !this.#tell(watcher));
  }

  /** Takes those whose time is up; up to `version` nothing has changed for them. */
  takeExpired(nowMs: number): { readonly asked: Asked; readonly version: Version }[] {
    if (nowMs < this.nextTickMs) return [];
    const expired = this.#waiting.filter(({ untilMs }) => untilMs <= nowMs);
    this.#waiting = this.#waiting.filter(({ untilMs }) => untilMs > nowMs);
    return expired.map(({ asked, seq }) => ({ asked, version: versionOf(this.#ballot, seq) }));
  }

  stop(): void {
    for (const { asked } of this.#waiting) this.#answer(asked, { code: "NOT_LEADER" });
    this.#waiting = [];
  }

  /** The batch of this ballot after which the watch begins; undefined: before this ballot's base. */
  #seqOf(version: Version): number | undefined {
    const claim = claimOf(version);
    if (isSameBallot(claim.accepted, this.#ballot)) return claim.seq;
    return this.#bases.some((base) => compareClaims(claim, base) === 0) ? 0 : undefined;
  }

  /** False when there is nothing to tell. */
  #tell(watcher: Watcher): boolean {
    if (watcher.seq >= this.#committed) return false;
    if (!this.#window.reaches(watcher.seq + 1)) {
      this.#answer(watcher.asked, { kind: "compacted" });
      return true;
    }
    const changes: WatchedChange[] = [];
    let bytes = 0;
    for (const batch of this.#window.from(watcher.seq + 1, this.#committed - watcher.seq)) {
      if (batch.seq > this.#committed) break;
      if (bytes > 0 && (bytes + batch.bytes > this.#limits.answerBytes || changes.length >= CHANGES_MAX))
        break;
      watcher.seq = batch.seq;
      for (const change of batch.changes) {
        const { key } = change;
        if (!key.startsWith(watcher.prefix) || key.startsWith(RESERVED)) continue;
        const version = versionOf(this.#ballot, batch.seq, change.step);
        bytes += key.length + ENTRY_BYTES;
        if (change.kind === "delete") changes.push({ kind: "delete", key, version });
        else {
          const { value, expiresAtMs } = change;
          bytes += value.byteLength;
          changes.push({ kind: "put", entry: { key, version, value, expiresAtMs } });
        }
      }
    }
    if (changes.length === 0) return false;
    const version = versionOf(this.#ballot, watcher.seq);
    this.#answer(watcher.asked, { kind: "changed", changes, version });
    return true;
  }

  #answer({ operation }: Asked, outcome: Outcome | Refusal): void {
    this.#effects.push({ kind: "answer", operation, outcome });
  }
}
