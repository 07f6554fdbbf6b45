/**
 * Nodes ever heard of, with last seen: who is where, for healing and restart.
 * It says nothing about who is alive.
 *
 * A node that left is remembered by its incarnation, so that a list still going
 * round can't bring it back; only a later start of it can.
 */
import type { NodeId } from "./identifier.ts";
import type { ContactRecord, Member } from "./member.ts";

const UNSEEN_MS_MAX = 7 * 24 * 3_600_000;
const LEFT_MAX = 1024;

interface Contact {
  member: Member;
  seenMs: number;
}

export class AddressBook {
  readonly #self: NodeId;
  readonly #lengthMax: number;
  readonly #contacts = new Map<NodeId, Contact>();
  // The incarnation with which a node left; oldest first.
  readonly #left = new Map<NodeId, number>();

  constructor(self: NodeId, lengthMax: number) {
    this.#self = self;
    this.#lengthMax = lengthMax;
  }

  get size(): number {
    return this.#contacts.size;
  }

  get(nodeId: NodeId): Member | undefined {
    return this.#contacts.get(nodeId)?.member;
  }

  /**
   * Takes in what somebody said about `member`. What is known of this start of
   * it, or undefined when it has left, or started again, since.
   */
  learn(member: Member, seenMs: number): Member | undefined {
    const left = this.#left.get(member.nodeId);
    if (left !== undefined && left >= member.incarnation) return undefined;
    if (member.nodeId === this.#self) return member;
    const known = this.#contacts.get(member.nodeId);
    if (known === undefined) {
      if (this.#contacts.size >= this.#lengthMax) this.#dropOldest();
      this.#contacts.set(member.nodeId, { member, seenMs });
      return member;
    }
    // An address alone stands for whichever start answers there.
    if (member.instance !== "" && member.incarnation < known.member.incarnation) return undefined;
    const isFresher =
      member.incarnation > known.member.incarnation ||
      (member.incarnation === known.member.incarnation &&
        ((known.member.instance === "" && member.instance !== "") ||
          (known.member.instance === member.instance && known.member.zone === "" && member.zone !== "")));
    if (isFresher) {
      known.member = member;
      if (left !== undefined) this.#left.delete(member.nodeId);
    }
    return known.member;
  }

  seen(nodeId: NodeId, nowMs: number): void {
    const contact = this.#contacts.get(nodeId);
    if (contact !== undefined) contact.seenMs = nowMs;
  }

  left(nodeId: NodeId, incarnation: number): void {
    this.#contacts.delete(nodeId);
    this.#left.delete(nodeId);
    this.#left.set(nodeId, incarnation);
    if (this.#left.size > LEFT_MAX) this.#left.delete(this.#left.keys().next().value!);
  }

  /** Whether this start of the node has left. */
  hasLeft(nodeId: NodeId, incarnation: number): boolean {
    if (this.#left.size === 0) return false;
    const left = this.#left.get(nodeId);
    return left !== undefined && left >= incarnation;
  }

  /** Whether it said goodbye, and no later start of it has been heard of. */
  isGone(nodeId: NodeId): boolean {
    return this.#left.has(nodeId) && !this.#contacts.has(nodeId);
  }

  /** Whether this start of the node has left, or a later one is known. */
  isPast(member: Member): boolean {
    if (member.instance === "") return false;
    const known = this.#contacts.get(member.nodeId)?.member.incarnation ?? 0;
    return known > member.incarnation || this.hasLeft(member.nodeId, member.incarnation);
  }

  dropUnseen(nowMs: number): void {
    for (const [nodeId, contact] of this.#contacts) {
      if (nowMs - contact.seenMs > UNSEEN_MS_MAX) this.#contacts.delete(nodeId);
    }
  }

  /** Most recently seen first. */
  latest(isWanted: (nodeId: NodeId, seenMs: number) => boolean): Member[] {
    const wanted: Contact[] = [];
    for (const contact of this.#contacts.values()) {
      if (isWanted(contact.member.nodeId, contact.seenMs)) wanted.push(contact);
    }
    return wanted.sort((a, b) => b.seenMs - a.seenMs).map((contact) => contact.member);
  }

  records(): ContactRecord[] {
    return [...this.#contacts.values()].map(({ member, seenMs }) => ({ ...member, seenMs }));
  }

  #dropOldest(): void {
    let oldest: Contact | undefined;
    for (const contact of this.#contacts.values()) {
      if (oldest === undefined || contact.seenMs < oldest.seenMs) oldest = contact;
    }
    if (oldest !== undefined) this.#contacts.delete(oldest.member.nodeId);
  }
}
