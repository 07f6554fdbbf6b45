/**
 * Which node owns a point. Iterative, driven by the asking node, so that one
 * slow hop can't hold a chain of callers (Chord runs it recursively).
 *
 * Each step asks the candidate closest before the point; when it is slow, one
 * more runs beside it. A result counts only when the owner itself has answered:
 * unconfirmed, one lookup in nine would name a dead node just after a fifth of
 * the ring died.
 */
import { between } from "./arc.ts";
import type { NodeId } from "./identifier.ts";
import type { Member } from "./member.ts";
import { type Answer, AVOID_MAX, type Closer } from "./message.ts";

const IN_FLIGHT_MAX = 2;
/** How often one node is asked again, with what is to be avoided by then. */
const ASKED_MAX = 3;
/** A silent owner is waited for so many times longer each time: the network may just have become slower. */
const PATIENCE = 4;
/** How many predecessors are followed back from an owner that denied to be it. */
const UNSETTLED_MAX = 3;

export interface Found {
  readonly owner: Member;
  /** What follows the owner, from its own list. */
  readonly successors: readonly Member[];
  readonly predecessor: Member | undefined;
  /** Messages to others that lay on the way, the owner's confirmation included. */
  readonly hops: number;
  /** Those who answered on the way, the owner last. */
  readonly path: readonly NodeId[];
}

interface Step {
  readonly member: Member;
  readonly path: readonly NodeId[];
}

/** What a lookup needs from its node. */
export interface LookupRoutes {
  /** `slowMs`: after this long without an answer another one is asked beside it. */
  ask(
    to: Member,
    question: { kind: "closest"; point: NodeId; avoid: NodeId[]; claimed: boolean },
    done: (answer: Answer | undefined, nowMs: number) => void,
    /** How many times as long as usual the answer is waited for. */
    patience: number,
  ): { readonly slowMs: number };
  /** What the asking node itself knows; undefined when it is no member or has nobody to name. */
  local(avoid: ReadonlySet<NodeId>): LocalAnswer | undefined;
}

export type LocalAnswer = Omit<Closer, "id" | "kind">;

export class Lookup {
  readonly #point: NodeId;
  readonly #stepsMax: number;
  readonly #routes: LookupRoutes;
  readonly #done: (found: Found | undefined) => void;
  readonly #avoid: Set<NodeId>;
  readonly #asked = new Map<string, number>();
  // Owners that somebody named; the last one named is asked first.
  readonly #claims: Step[] = [];
  // Named as owners, and silent once or twice: one lost message must not pass their points on to the next node.
  readonly #silent: Step[] = [];
  // Named as owners, but denied it.
  readonly #unsettled = new Set<NodeId>();
  #candidates: Step[] = [];
  // Those who answered without being the owner, for asking again.
  #answered: Step[] = [];
  #self: Member | undefined;
  #locals = 0;
  #inFlight = 0;
  #slowAtMs = Number.POSITIVE_INFINITY;
  #steps = 0;
  #isDone = false;
  #isAnswered = false;

  /**
   * @param avoid nodes that may be neither owner nor way.
   * @param done gets undefined when no owner answered within `stepsMax` steps.
   */
  constructor(options: {
    point: NodeId;
    avoid: Iterable<NodeId>;
    stepsMax: number;
    routes: LookupRoutes;
    done: (found: Found | undefined) => void;
  }) {
    this.#point = options.point;
    this.#avoid = new Set(options.avoid);
    this.#stepsMax = options.stepsMax;
    this.#routes = options.routes;
    this.#done = options.done;
  }

  get point(): NodeId {
    return this.#point;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Whether any member took part, were it only to name others. */
  get isAnswered(): boolean {
    return this.#isAnswered;
  }

  /** Begins with what the asking node itself knows. */
  start(self: Member, nowMs: number): void {
    this.#self = self;
    this.#advance(nowMs);
  }

  /** Begins with any one node, e.g. the contact of one that has not joined yet. */
  startWith(contact: Member, nowMs: number): void {
    this.#askStep({ member: contact, path: [] }, false, nowMs);
  }

  tick(nowMs: number): void {
    if (this.#isDone || nowMs < this.#slowAtMs || this.#inFlight >= IN_FLIGHT_MAX) return;
    this.#slowAtMs = Number.POSITIVE_INFINITY;
    const step = this.#pick();
    if (step !== undefined) this.#askStep(step.step, step.claimed, nowMs);
  }

  #advance(nowMs: number): void {
    if (this.#isDone || this.#inFlight > 0) return;
    let picked = this.#pick() ?? this.#again();
    if (picked === undefined && this.#self !== undefined && this.#locals++ < ASKED_MAX) {
      const answer = this.#routes.local(this.#avoid);
      if (answer !== undefined) this.#take({ member: this.#self, path: [] }, answer);
      if (this.#isDone) return;
      picked = this.#pick();
    }
    if (picked === undefined) this.#finish(undefined);
    else this.#askStep(picked.step, picked.claimed, nowMs);
  }

  #askStep(step: Step, claimed: boolean, nowMs: number): void {
    if (++this.#steps > this.#stepsMax) {
      if (this.#inFlight === 0) this.#finish(undefined);
      return;
    }
    const nodeId = step.member.nodeId;
    const key = claimed ? `${nodeId}!` : nodeId;
    const asked = this.#asked.get(key) ?? 0;
    this.#asked.set(key, asked + 1);
    this.#inFlight++;
    const avoid = [...this.#avoid].slice(0, AVOID_MAX);
    const { slowMs } = this.#routes.ask(
      step.member,
      { kind: "closest", point: this.#point, avoid, claimed },
      (answer, answeredMs) => {
        this.#inFlight--;
        if (this.#isDone) return;
        if (answer?.kind === "closer") {
          this.#isAnswered = true;
          this.#take({ member: step.member, path: [...step.path, nodeId] }, answer);
        } else if (claimed && answer === undefined && asked + 1 < ASKED_MAX) {
          this.#silent.push(step);
        } else {
          this.#avoid.add(nodeId);
        }
        this.#advance(answeredMs);
      },
      claimed ? PATIENCE ** asked : 1,
    );
    this.#slowAtMs = nowMs + slowMs;
  }

  #take(step: Step, answer: LocalAnswer): void {
    if (answer.owner !== null) {
      if (answer.owner.nodeId === step.member.nodeId) {
        this.#finish({
          owner: step.member,
          successors: answer.successors,
          predecessor: answer.predecessor ?? undefined,
          hops: step.path.length,
          path: step.path,
        });
        return;
      }
      this.#claims.push({ member: answer.owner, path: step.path });
    } else if (answer.unsettled) {
      // A node that joined in front of it is found so; more steps back mean that the claim was wild.
      this.#unsettled.add(step.member.nodeId);
      if (answer.predecessor !== null && this.#unsettled.size <= UNSETTLED_MAX) {
        this.#claims.push({ member: answer.predecessor, path: step.path });
      }
      return;
    }
    if (step.path.length > 0) this.#answered.push(step);
    for (const member of answer.next) this.#candidates.push({ member, path: step.path });
  }

  #pick(): { step: Step; claimed: boolean } | undefined {
    for (let claim = this.#claims.pop(); claim !== undefined; claim = this.#claims.pop()) {
      if (this.#isOpen(claim, true, 1)) return { step: claim, claimed: true };
    }
    for (let step = this.#silent.pop(); step !== undefined; step = this.#silent.pop()) {
      if (this.#isOpen(step, true, ASKED_MAX)) return { step, claimed: true };
    }
    this.#candidates = this.#candidates.filter((step) => this.#isOpen(step, false, 1));
    const step = this.#closest(this.#candidates);
    return step && { step, claimed: false };
  }

  /** No candidate is left: whoever answered from closest by is asked again, now that more is to be avoided. */
  #again(): { step: Step; claimed: boolean } | undefined {
    this.#answered = this.#answered.filter((step) => this.#isOpen(step, false, ASKED_MAX));
    const step = this.#closest(this.#answered);
    return step && { step: { member: step.member, path: step.path.slice(0, -1) }, claimed: false };
  }

  #isOpen(step: Step, claimed: boolean, askedMax: number): boolean {
    const { nodeId } = step.member;
    if (nodeId === this.#self?.nodeId) return false;
    return !this.#avoid.has(nodeId) && (this.#asked.get(claimed ? `${nodeId}!` : nodeId) ?? 0) < askedMax;
  }

  #closest(steps: readonly Step[]): Step | undefined {
    let best: Step | undefined;
    for (const step of steps) {
      if (best === undefined || between(step.member.nodeId, best.member.nodeId, this.#point)) best = step;
    }
    return best;
  }

  #finish(found: Found | undefined): void {
    this.#isDone = true;
    this.#done(found);
  }
}
