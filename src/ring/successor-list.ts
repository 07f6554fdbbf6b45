/**
 * The next nodes in ring order, as corrected by Zave (arXiv 1610.01140): a list
 * of candidates is cut where it stops going forward. Merely removing the node
 * itself from it would let the list wrap round the ring.
 *
 * Besides the L entries it remembers whether the candidates came round to the
 * node itself, and the one entry past the cut: from these a node in a ring of
 * up to L + 2 knows that it knows everybody.
 *
 * A short list ends with the predecessor. That one is a reserve, for whoever
 * loses all others: unknown nodes may stand before it, so it is never told to
 * others as if it followed the rest, nor does it make the list a whole ring.
 */
import { between } from "./arc.ts";
import type { NodeId } from "./identifier.ts";
import type { Member } from "./member.ts";

export class SuccessorList {
  readonly #self: Member;
  readonly #lengthMax: number;
  // In ring order from self, without self, each following the one before it.
  #chain: readonly Member[] = [];
  // Behind the chain; only of one shorter than L.
  #reserve: Member | undefined;
  #beyond: Member | undefined;
  #isRound = false;

  constructor(self: Member, lengthMax: number) {
    this.#self = self;
    this.#lengthMax = lengthMax;
  }

  /** The chain, and the reserve if there is one. */
  get members(): readonly Member[] {
    return this.#reserve === undefined ? this.#chain : [...this.#chain, this.#reserve];
  }

  /** Those that follow one another, as far as this node knows. */
  get chain(): readonly Member[] {
    return this.#chain;
  }

  get first(): Member | undefined {
    return this.#chain[0];
  }

  /** Of the chain. */
  get last(): Member | undefined {
    return this.#chain[this.#chain.length - 1];
  }

  isReserve(member: Member): boolean {
    return this.#reserve?.nodeId === member.nodeId;
  }

  /** Everything needed to adopt the same list again, e.g. with another node in front. */
  candidates(): Member[] {
    const all = [...this.#chain];
    if (this.#beyond !== undefined) all.push(this.#beyond);
    if (this.#isRound) all.push(this.#self);
    return all;
  }

  /**
   * Takes candidates up to, not including, the first that is the node itself or
   * does not follow the one before it clockwise. True when the list changed.
   *
   * @param reserve ends a short list.
   */
  adopt(candidates: readonly Member[], reserve: Member | undefined): boolean {
    const taken: Member[] = [];
    let previous: NodeId = this.#self.nodeId;
    this.#beyond = undefined;
    this.#isRound = false;
    for (const candidate of candidates) {
      if (candidate.nodeId === this.#self.nodeId) {
        this.#isRound = true;
        break;
      }
      if (!between(candidate.nodeId, previous, this.#self.nodeId)) break;
      if (taken.length === this.#lengthMax) {
        this.#beyond = candidate;
        break;
      }
      taken.push(candidate);
      previous = candidate.nodeId;
    }
    const before = this.members;
    this.#chain = taken;
    this.#reserve = undefined;
    if (reserve !== undefined && taken.length > 0) this.endWith(reserve);
    const after = this.members;
    return before.length !== after.length || before.some((m, i) => m.nodeId !== after[i]!.nodeId);
  }

  /** A short list ends with the live predecessor: in a ring of three a crash must not strand the survivor. */
  endWith(predecessor: Member): void {
    const last = this.last?.nodeId ?? this.#self.nodeId;
    const isBehind = between(predecessor.nodeId, last, this.#self.nodeId);
    this.#reserve = isBehind && this.#chain.length < this.#lengthMax ? predecessor : undefined;
  }

  /** Replaces what is known of a node that stands here already. */
  renew(member: Member): void {
    if (this.#beyond?.nodeId === member.nodeId) this.#beyond = member;
    if (this.#reserve?.nodeId === member.nodeId) this.#reserve = member;
    const at = this.#chain.findIndex((m) => m.nodeId === member.nodeId);
    if (at >= 0) this.#chain = this.#chain.with(at, member);
  }

  /**
   * Whether list and predecessor are the whole ring: nobody can stand between the
   * last live entry and the live predecessor. Without one, the last answer
   * decides, which came round to this node.
   */
  isWhole(predecessor: Member | undefined, isDead: (member: Member) => boolean): boolean {
    if (predecessor === undefined) return this.#isRound || this.#chain.length === 0;
    if (this.#beyond !== undefined && !isDead(this.#beyond))
      return this.#beyond.nodeId === predecessor.nodeId;
    return this.#chain.findLast((member) => !isDead(member))?.nodeId === predecessor.nodeId;
  }
}
