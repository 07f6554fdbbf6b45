/**
 * Keeps the fingers right: looks up one at a time, from the farthest, faster
 * after a join. Those that the successor list reaches need none.
 */
import { exponentBeyond } from "./arc.ts";
import type { FingerTable } from "./finger-table.ts";
import type { NodeId } from "./identifier.ts";
import type { Found } from "./lookup.ts";
import type { Member } from "./member.ts";
import type { Stabilisation } from "./stabilisation.ts";

const FINGER_MS = 1000;
const FINGER_MS_FIRST = 100;
const TOP = 159;

export interface FingerRepairRoutes {
  lookup(point: NodeId, done: (found: Found | undefined) => void): void;
  /** What is known of a start that somebody named; undefined when it is over. */
  learn(member: Member): Member | undefined;
  changed(): void;
}

export class FingerRepair {
  readonly #self: NodeId;
  readonly #fingers: FingerTable;
  readonly #stabilisation: Stabilisation;
  readonly #routes: FingerRepairRoutes;
  #dueMs = Number.POSITIVE_INFINITY;
  #next = TOP;
  #isFirstRound = true;
  /** The successor list was the whole ring: no finger is needed before that ends. */
  #isResting = false;

  constructor(self: NodeId, fingers: FingerTable, stabilisation: Stabilisation, routes: FingerRepairRoutes) {
    this.#self = self;
    this.#fingers = fingers;
    this.#stabilisation = stabilisation;
    this.#routes = routes;
  }

  start(nowMs: number): void {
    this.#dueMs = nowMs + FINGER_MS_FIRST;
  }

  /** Infinity while the ring is known as a whole: it is soon enough to look with the next ping whether that has ended. */
  get dueMs(): number {
    return this.#isResting ? Number.POSITIVE_INFINITY : this.#dueMs;
  }

  tick(nowMs: number): void {
    if (nowMs < this.#dueMs) return;
    const { last } = this.#stabilisation.successors;
    const { isWhole } = this.#stabilisation;
    this.#isResting = isWhole;
    const lowest = isWhole || last === undefined ? TOP + 1 : exponentBeyond(this.#self, last.nodeId);
    this.#fingers.dropBelow(lowest);
    this.#dueMs = nowMs + (this.#isFirstRound ? FINGER_MS_FIRST : FINGER_MS);
    if (this.#next < lowest) {
      this.#next = TOP;
      this.#isFirstRound = isWhole;
    }
    if (lowest > TOP) return;
    const exponent = this.#next--;
    this.#routes.lookup(this.#fingers.start(exponent), (found) => {
      if (found === undefined) return;
      const owner = this.#routes.learn(found.owner) ?? found.owner;
      if (this.#fingers.set(exponent, owner)) this.#routes.changed();
    });
  }
}
