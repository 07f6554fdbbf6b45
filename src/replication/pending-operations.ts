/**
 * Operations that wait for this replica to serve: those whose leader was refused
 * while they were pending go on under its next ballot, if it gets so far, and those
 * that came while it stood are begun then. None is answered before it is known what
 * became of it, and none waits for ever.
 */
import { type Claim, isSameBallot } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import { bytesOf } from "./open-batch.ts";
import type { Asked, Unanswered } from "./operations.ts";
import type { Ballot } from "./register.ts";

/** Of those that came before it serves. */
const EARLY_MAX = 1024;
const NOTHING: Unanswered = { handed: [], open: [] };

export class PendingOperations {
  readonly #effects: ReplicaEffect[];
  /** In batches of `ballot`, or in its base: batch 0. */
  #pending: (Unanswered & { readonly ballot: Ballot }) | undefined;
  /** Came before this replica served, in order of arrival: nothing was done about them. */
  #early: Asked[] = [];
  #earlyBytes = 0;
  readonly #bytesMax: number;

  /** @param bytesMax of changes that came before this replica served. */
  constructor(effects: ReplicaEffect[], bytesMax: number) {
    this.#effects = effects;
    this.#bytesMax = bytesMax;
  }

  /** Whether nothing is kept of an earlier ballot. */
  get isEmpty(): boolean {
    return this.#pending === undefined;
  }

  /** One that came while this replica does not serve, and may soon; false: there are too many of them. */
  keep(asked: Asked): boolean {
    const { op } = asked;
    const bytes = op.kind === "batch" ? bytesOf(op.changes) : 0;
    if (this.#early.length === EARLY_MAX || this.#earlyBytes + bytes > this.#bytesMax) return false;
    this.#early.push(asked);
    this.#earlyBytes += bytes;
    return true;
  }

  /** The leader of `ballot` was refused; what is kept already was in its base. */
  suspend(ballot: Ballot, { handed, open }: Unanswered): void {
    const before = this.#pending ?? NOTHING;
    this.#pending = { ballot, handed: [...before.handed, ...handed], open: [...before.open, ...open] };
  }

  /** `base` becomes that of `ballot`: what is not in it may not have happened, and may yet, elsewhere. */
  rebase(base: Claim, ballot: Ballot): void {
    if (this.#pending === undefined) return;
    const { ballot: old, handed, open } = this.#pending;
    const isInBase = ({ seq }: { seq: number }) => isSameBallot(old, base.accepted) && seq <= base.seq;
    for (const one of handed) if (!isInBase(one)) this.#deny(one.asked, "OUTCOME_UNKNOWN");
    const kept = handed.filter(isInBase).map(({ asked, outcome }) => ({ asked, outcome, seq: 0 }));
    this.#pending = { ballot, handed: kept, open };
  }

  /** A majority holds the base: what is in it is committed. @param operate begins the rest anew. */
  resume(operate: (asked: Asked) => void, nowMs: number): void {
    if (this.#pending === undefined && this.#early.length === 0) return;
    const { handed, open } = this.#pending ?? NOTHING;
    this.#pending = undefined;
    for (const { asked, outcome } of handed)
      this.#effects.push({ kind: "answer", operation: asked.operation, outcome });
    for (const asked of [...open, ...this.#takeEarly()])
      operate({ ...asked, nowMs, epochMs: asked.epochMs + nowMs - asked.nowMs });
  }

  /** The changes among those that came before it serves may begin. */
  beginBatches(operate: (asked: Asked) => void): void {
    const early = this.#takeEarly();
    for (const asked of early) {
      if (asked.op.kind === "batch") operate(asked);
      else this.keep(asked);
    }
  }

  /** There is no next ballot. @param more what was pending last of all. */
  deny(more: Unanswered = NOTHING): void {
    for (const { handed, open } of [this.#pending ?? NOTHING, more]) {
      for (const { asked } of handed) this.#deny(asked, "OUTCOME_UNKNOWN");
      for (const asked of open) this.#deny(asked, "NOT_LEADER");
    }
    this.#pending = undefined;
    this.denyEarly();
  }

  /** Another will serve. */
  denyEarly(): void {
    for (const asked of this.#takeEarly()) this.#deny(asked, "NOT_LEADER");
  }

  #takeEarly(): Asked[] {
    const early = this.#early;
    this.#early = [];
    this.#earlyBytes = 0;
    return early;
  }

  #deny({ operation }: Asked, code: "OUTCOME_UNKNOWN" | "NOT_LEADER"): void {
    this.#effects.push({ kind: "answer", operation, outcome: { code } });
  }
}
