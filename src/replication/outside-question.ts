/**
 * One that holds a state without being a member asks a leader now and then whether
 * it is to go: it may have been away when it was told.
 */
import type { ReplicaId } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { ReplicaState } from "./replica-state.ts";

const ASK_MS = 5_000;
const ASK_MS_MAX = 10 * 60_000;

export class OutsideQuestion {
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  #askAtMs: number | undefined;
  #askAfterMs = ASK_MS;

  constructor(options: { state: ReplicaState; effects: ReplicaEffect[] }) {
    this.#state = options.state;
    this.#effects = options.effects;
  }

  get nextTickMs(): number {
    return this.#askAtMs ?? Number.POSITIVE_INFINITY;
  }

  /** @param options.leaderSeen who was last known to lead. */
  tick(
    { isLeading, leaderSeen }: { isLeading: boolean; leaderSeen: ReplicaId | undefined },
    nowMs: number,
  ): void {
    const { isEmpty, isMember, config, promised, epoch, replicaId } = this.#state;
    if (isEmpty || isMember || isLeading) {
      this.#askAtMs = undefined;
      this.#askAfterMs = ASK_MS;
      return;
    }
    this.#askAtMs ??= nowMs + this.#askAfterMs;
    if (nowMs < this.#askAtMs) return;
    this.#askAfterMs = Math.min(this.#askAfterMs * 2, ASK_MS_MAX);
    this.#askAtMs = nowMs + this.#askAfterMs;
    const ids = new Set([...config.members, promised.replicaId, leaderSeen ?? ""]);
    ids.delete("");
    ids.delete(replicaId);
    for (const to of ids) {
      this.#effects.push({ kind: "send", to, body: { kind: "outside", ballot: promised, epoch } });
    }
  }
}
