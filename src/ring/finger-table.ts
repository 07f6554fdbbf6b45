/**
 * Short cuts across the circle (Chord): finger i is the owner of `self + 2^i`.
 *
 * Only exponents whose start lies beyond the successor list are held, from 159
 * downwards: about log2(N / L) of them. The rest are answered by the list.
 */
import { between, fingerStart, inArc } from "./arc.ts";
import type { NodeId } from "./identifier.ts";
import type { Member } from "./member.ts";

const TOP = 159;

export class FingerTable {
  readonly #self: NodeId;
  // Index 0 is finger 159. Holes are fingers not found yet, or lost.
  readonly #fingers: (Member | undefined)[] = [];
  // Starts are needed on each step of a lookup and cost a bigint each.
  readonly #starts: NodeId[] = [];

  constructor(self: NodeId) {
    this.#self = self;
  }

  /** Where finger `exponent` starts. */
  start(exponent: number): NodeId {
    const at = TOP - exponent;
    for (let i = this.#starts.length; i <= at; i++) this.#starts.push(fingerStart(this.#self, TOP - i));
    return this.#starts[at]!;
  }

  /** True when it was another node before. One that lies before the finger's start owns nothing there: no finger. */
  set(exponent: number, member: Member): boolean {
    const { nodeId } = member;
    if (nodeId === this.#self || between(nodeId, this.#self, this.start(exponent))) {
      return this.#clear(TOP - exponent);
    }
    const at = TOP - exponent;
    const before = this.#fingers[at]?.nodeId;
    while (this.#fingers.length <= at) this.#fingers.push(undefined);
    this.#fingers[at] = member;
    return before !== member.nodeId;
  }

  /** Forgets the fingers below `exponent`: the successor list reaches that far. */
  dropBelow(exponent: number): void {
    const length = Math.max(0, TOP - exponent + 1);
    if (this.#fingers.length > length) this.#fingers.length = length;
  }

  /**
   * A dead finger leaves a hole until it is fixed: lookups take the neighbour in
   * the table, which must not be named as the owner of what the dead one owned.
   */
  drop(nodeId: NodeId): void {
    for (let i = 0; i < this.#fingers.length; i++) {
      if (this.#fingers[i]?.nodeId === nodeId) this.#fingers[i] = undefined;
    }
  }

  renew(member: Member): void {
    for (let i = 0; i < this.#fingers.length; i++) {
      if (this.#fingers[i]?.nodeId === member.nodeId) this.#fingers[i] = member;
    }
  }

  /** Each node once, from the farthest. */
  distinct(): Member[] {
    const members: Member[] = [];
    for (const finger of this.#fingers) {
      if (finger !== undefined && finger.nodeId !== members[members.length - 1]?.nodeId) members.push(finger);
    }
    return members;
  }

  /** Each with the point where it starts, from the farthest. */
  starts(): [start: NodeId, finger: Member][] {
    return this.#fingers.flatMap((finger, i): [NodeId, Member][] =>
      finger === undefined ? [] : [[this.start(TOP - i), finger]],
    );
  }

  /** The finger that owns `point` as far as this table knows: the point lies between its start and itself. */
  ownerOf(point: NodeId): Member | undefined {
    for (let i = 0; i < this.#fingers.length; i++) {
      const finger = this.#fingers[i];
      if (finger === undefined) continue;
      const start = this.start(TOP - i);
      if (point === start || (start !== finger.nodeId && inArc(point, start, finger.nodeId))) return finger;
    }
    return undefined;
  }

  #clear(at: number): boolean {
    const had = this.#fingers[at] !== undefined;
    if (had) this.#fingers[at] = undefined;
    return had;
  }
}
