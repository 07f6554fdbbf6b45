/** Points of the own arc that are held for nodes about to join, for ten seconds each. */
import { between } from "./arc.ts";
import type { NodeId } from "./identifier.ts";

const HELD_MS = 10_000;
const HELD_MAX = 64;

export class Reservations {
  readonly #self: NodeId;
  // Until when each is held.
  readonly #held = new Map<NodeId, number>();

  constructor(self: NodeId) {
    this.#self = self;
  }

  /**
   * @param predecessor where the own arc begins; the whole circle is ours when undefined.
   * @param known points that the asker counts as nodes already.
   */
  reserve(
    point: NodeId,
    known: readonly NodeId[],
    predecessor: NodeId | undefined,
    nowMs: number,
  ): { readonly ok: boolean; readonly taken: NodeId[] } {
    for (const [held, untilMs] of this.#held) {
      if (untilMs <= nowMs) this.#held.delete(held);
    }
    const from = predecessor ?? this.#self;
    if (!between(point, from, this.#self)) return { ok: false, taken: [from, this.#self] };
    const unknown = [...this.#held.keys()].filter(
      (held) => between(held, from, this.#self) && (held === point || !known.includes(held)),
    );
    if (unknown.length > 0) return { ok: false, taken: unknown };
    if (this.#held.size >= HELD_MAX) return { ok: false, taken: [] };
    this.#held.set(point, nowMs + HELD_MS);
    return { ok: true, taken: [] };
  }
}
