/**
 * Where a new node should stand: the middle of the largest arc that a sample of
 * the circle shows, so that arcs stay balanced without virtual nodes. The point
 * is reserved with its owner, which keeps simultaneous joins apart.
 */
import { arcLength, between, clockwiseFrom, middleOf, randomPoint } from "./arc.ts";
import type { NodeId } from "./identifier.ts";
import type { Found } from "./lookup.ts";
import type { Member } from "./member.ts";
import type { Answer } from "./message.ts";

const LOOKUPS_IN_FLIGHT_MAX = 4;
const ATTEMPTS_MAX = 64;
const KNOWN_MAX = 64;

/** `(from, to]`; `owner` stands at the end of the arc between two nodes that holds it. */
interface Arc {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly owner: Member;
}

export interface IdentifierChoiceRoutes {
  random(): number;
  /** All members in ring order, when the own view is the whole ring. */
  wholeRing(): readonly Member[] | undefined;
  lookup(point: NodeId, done: (found: Found | undefined) => void): void;
  reserve(owner: Member, point: NodeId, known: NodeId[], done: (answer: Answer | undefined) => void): void;
}

export class IdentifierChoice {
  readonly #routes: IdentifierChoiceRoutes;
  readonly #done: (chosen: NodeId | undefined) => void;
  // By the node at the arc's end.
  readonly #arcs = new Map<NodeId, Arc>();
  readonly #taken = new Set<NodeId>();
  #lookupsLeft: number;
  #inFlight = 0;
  #attempts = 0;

  /**
   * @param samples points looked up, when the ring is not known as a whole.
   * @param done gets undefined when no owner of a sampled arc answers.
   */
  constructor(samples: number, routes: IdentifierChoiceRoutes, done: (chosen: NodeId | undefined) => void) {
    this.#lookupsLeft = samples;
    this.#routes = routes;
    this.#done = done;
  }

  start(): void {
    const whole = this.#routes.wholeRing();
    if (whole !== undefined) {
      this.#addChain([whole[whole.length - 1]!, ...whole]);
      this.#reserve();
      return;
    }
    this.#sample();
  }

  #sample(): void {
    while (this.#lookupsLeft > 0 && this.#inFlight < LOOKUPS_IN_FLIGHT_MAX) {
      this.#lookupsLeft--;
      this.#inFlight++;
      this.#routes.lookup(randomPoint(this.#routes.random), (found) => {
        this.#inFlight--;
        if (found !== undefined) {
          const before = found.predecessor === undefined ? [] : [found.predecessor];
          this.#addChain([...before, found.owner, ...found.successors]);
        }
        if (this.#lookupsLeft > 0) this.#sample();
        else if (this.#inFlight === 0) this.#reserve();
      });
    }
  }

  #addChain(members: readonly Member[]): void {
    for (let i = 1; i < members.length; i++) {
      const from = members[i - 1]!.nodeId;
      const owner = members[i]!;
      const known = this.#arcs.get(owner.nodeId);
      // Of two pictures of one arc the one that knows of a node in between is the newer.
      if (known === undefined || between(from, known.from, owner.nodeId)) {
        this.#arcs.set(owner.nodeId, { from, to: owner.nodeId, owner });
      }
    }
  }

  #reserve(): void {
    const arc = this.#largest();
    if (arc === undefined || this.#attempts++ >= ATTEMPTS_MAX) {
      this.#done(undefined);
      return;
    }
    const point = middleOf(arc.from, arc.to);
    const whole = this.#arcs.get(arc.owner.nodeId)!;
    const known = this.#takenIn(whole).slice(0, KNOWN_MAX);
    this.#routes.reserve(arc.owner, point, known, (answer) => {
      if (answer?.kind === "reserved") {
        if (answer.ok) {
          this.#done(point);
          return;
        }
        for (const taken of answer.taken) this.#taken.add(taken);
        if (answer.taken.length === 0) this.#arcs.delete(arc.owner.nodeId);
      } else {
        this.#arcs.delete(arc.owner.nodeId);
      }
      this.#reserve();
    });
  }

  #takenIn(arc: Arc): NodeId[] {
    return [...this.#taken].filter((point) => between(point, arc.from, arc.to)).sort(clockwiseFrom(arc.from));
  }

  /** Points that are taken but belong to no known node count as nodes. */
  #largest(): Arc | undefined {
    let largest: Arc | undefined;
    let length = 1n; // An arc of one point has no middle of its own.
    for (const whole of this.#arcs.values()) {
      let from = whole.from;
      for (const to of [...this.#takenIn(whole), whole.to]) {
        const candidate = arcLength(from, to);
        if (candidate > length) {
          length = candidate;
          largest = { from, to, owner: whole.owner };
        }
        from = to;
      }
    }
    return largest;
  }
}
