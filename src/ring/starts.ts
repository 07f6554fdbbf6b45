/**
 * Which start of each node speaks. A greater incarnation replaces what was
 * believed of a smaller one; of one incarnation only the instance heard first is
 * the node, and another process that claims it is not let in.
 */
import type { AddressBook } from "./address-book.ts";
import type { FailureDetector } from "./failure-detector.ts";
import type { FingerTable } from "./finger-table.ts";
import type { NodeId } from "./identifier.ts";
import { isSameStart, type Member, type Sender } from "./member.ts";
import type { Stabilisation } from "./stabilisation.ts";

export interface StartsParts {
  readonly self: NodeId;
  readonly book: AddressBook;
  readonly detector: FailureDetector;
  readonly stabilisation: Stabilisation;
  readonly fingers: FingerTable;
  nowMs(): number;
  /** The address book holds something new. */
  learnt(member: Member): void;
  /** One that left was started again. */
  returned(nodeId: NodeId): void;
  changed(): void;
}

export class Starts {
  readonly #parts: StartsParts;

  constructor(parts: StartsParts) {
    this.#parts = parts;
  }

  /** Whether a message from `from` counts. */
  admit(from: Sender): boolean {
    const { book } = this.#parts;
    const known = book.get(from.nodeId);
    // No start that is on record has left.
    if (known !== undefined && isSameStart(known, from)) return true;
    if (book.hasLeft(from.nodeId, from.incarnation)) return false;
    if (known === undefined) return true;
    if (from.incarnation < known.incarnation) return false;
    if (from.incarnation === known.incarnation && known.instance !== "") {
      return from.instance === "" || from.instance === known.instance;
    }
    this.learn({ ...from, zone: known.zone });
    return true;
  }

  /** Takes in what somebody said about `member`: what is known of this start of it, or undefined when it is over. */
  learn(member: Member): Member | undefined {
    const { self, book, detector, stabilisation, fingers } = this.#parts;
    const before = book.get(member.nodeId);
    const wasGone = book.isGone(member.nodeId);
    const known = book.learn(member, this.#parts.nowMs());
    if (known === undefined || known === before || known.nodeId === self) return known;
    this.#parts.learnt(known);
    if (before === undefined) {
      if (wasGone) this.#parts.returned(known.nodeId);
      return known;
    }
    detector.renew(known);
    if (before.instance === "" || before.incarnation === known.incarnation) {
      stabilisation.renew(known);
      fingers.renew(known);
      return known;
    }
    // The earlier start is dead, and the later one has no place in the ring before it has joined.
    fingers.drop(known.nodeId);
    stabilisation.soon(this.#parts.nowMs());
    this.#parts.changed();
    return known;
  }

  /** A node said itself where it stands. */
  standsIn(nodeId: NodeId, zone: string): void {
    if (zone === "") return;
    const known = this.#parts.book.get(nodeId);
    if (known === undefined || known.zone !== "") return;
    this.learn({ ...known, zone });
    // Copies may have to stand elsewhere.
    this.#parts.changed();
  }

  isDead(member: Member): boolean {
    return this.#parts.detector.isSuspected(member.nodeId) || this.#parts.book.isPast(member);
  }
}
