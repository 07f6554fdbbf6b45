/**
 * Operations whose leader was refused while they were pending: they go on under
 * the next ballot of the same replica, if it gets so far; none is answered before
 * it is known what became of it, and none waits for ever.
 */
import { type Claim, isSameBallot } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Asked, Unanswered } from "./operations.ts";
import type { Ballot } from "./register.ts";

const NOTHING: Unanswered = { handed: [], open: [] };

export class PendingOperations {
  readonly #effects: ReplicaEffect[];
  /** In batches of `ballot`, or in its base: batch 0. */
  #pending: (Unanswered & { readonly ballot: Ballot }) | undefined;

  constructor(effects: ReplicaEffect[]) {
    this.#effects = effects;
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
    if (this.#pending === undefined) return;
    const { handed, open } = this.#pending;
    this.#pending = undefined;
    for (const { asked, outcome } of handed)
      this.#effects.push({ kind: "answer", operation: asked.operation, outcome });
    for (const asked of open) operate({ ...asked, nowMs, epochMs: asked.epochMs + nowMs - asked.nowMs });
  }

  /** There is no next ballot. @param more what was pending last of all. */
  deny(more: Unanswered = NOTHING): void {
    for (const { handed, open } of [this.#pending ?? NOTHING, more]) {
      for (const { asked } of handed) this.#deny(asked, "OUTCOME_UNKNOWN");
      for (const asked of open) this.#deny(asked, "NOT_LEADER");
    }
    this.#pending = undefined;
  }

  #deny({ operation }: Asked, code: "OUTCOME_UNKNOWN" | "NOT_LEADER"): void {
    this.#effects.push({ kind: "answer", operation, outcome: { code } });
  }
}
