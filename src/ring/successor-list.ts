/**
 * The next nodes in ring order, as corrected by Zave (arXiv 1610.01140): a list
 * of candidates is cut where it stops going forward. Merely removing the node
 * itself from it would let the list wrap round the ring.
 *
 * Besides the L entries it remembers whether the candidates came round to the
 * node itself, and the one entry past the cut: from these a node in a ring of
 * up to L + 2 knows that it knows everybody.
 */
import { between } from "./arc.ts";
import type { NodeId } from "./identifier.ts";
import type { Member } from "./member.ts";

export class SuccessorList {
  readonly #self: Member;
  readonly #lengthMax: number;
  // In ring order from self, without self, each strictly after the one before it.
  #members: readonly Member[] = [];
  #beyond: Member | undefined;
  #isRound = false;

  constructor(self: Member, lengthMax: number) {
    this.#self = self;
    this.#lengthMax = lengthMax;
  }

  get members(): readonly Member[] {
    return this.#members;
  }

  get first(): Member | undefined {
    return this.#members[0];
  }

  get last(): Member | undefined {
    return this.#members[this.#members.length - 1];
  }

  /** Everything needed to adopt the same list again, e.g. with another node in front. */
  candidates(): Member[] {
    const all = [...this.#members];
    if (this.#beyond !== undefined) all.push(this.#beyond);
    if (this.#isRound) all.push(this.#self);
    return all;
  }

  /**
   * Takes candidates up to, not including, the first that is the node itself or
   * does not follow the one before it clockwise. True when the list changed.
   */
  adopt(candidates: readonly Member[]): boolean {
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
    const before = this.#members;
    this.#members = taken;
    return before.length !== taken.length || before.some((m, i) => m.nodeId !== taken[i]!.nodeId);
  }

  /**
   * A short list ends with the live predecessor: in a ring of three a crash must
   * not strand the survivor. True when it was added.
   */
  endWith(predecessor: Member): boolean {
    if (this.#members.length >= this.#lengthMax) return false;
    const last = this.last?.nodeId ?? this.#self.nodeId;
    if (!between(predecessor.nodeId, last, this.#self.nodeId)) return false;
    this.#members = [...this.#members, predecessor];
    return true;
  }

  /** Replaces what is known of a node that stands here already. */
  renew(member: Member): void {
    if (this.#beyond?.nodeId === member.nodeId) this.#beyond = member;
    const at = this.#members.findIndex((m) => m.nodeId === member.nodeId);
    if (at >= 0) this.#members = this.#members.with(at, member);
  }

  /**
   * Whether list and predecessor are the whole ring: nobody can stand between the
   * last live entry and the live predecessor. Without one, the last answer decides,
   * which came round to this node.
   */
  isWhole(predecessor: Member | undefined, isDead: (member: Member) => boolean): boolean {
    if (predecessor === undefined) return this.#isRound || this.#members.length === 0;
    if (this.#beyond !== undefined && !isDead(this.#beyond))
      return this.#beyond.nodeId === predecessor.nodeId;
    return this.#members.findLast((member) => !isDead(member))?.nodeId === predecessor.nodeId;
  }
}
