/** What a node does about each message that it lets in: one atomic step. Stale or repeated ones are harmless. */
import type { AddressBook } from "./address-book.ts";
import type { FailureDetector } from "./failure-detector.ts";
import type { NodeId } from "./identifier.ts";
import type { Member, Sender } from "./member.ts";
import { type Answer, pingOf, pongOf, type Question, type RingMessage } from "./message.ts";
import type { Requests } from "./requests.ts";
import type { Routing } from "./routing.ts";
import type { Stabilisation } from "./stabilisation.ts";

const PROBE_TIMEOUT_MS = 350;

/** The node that receives. */
export interface ReceptionParts {
  readonly self: Member;
  readonly book: AddressBook;
  readonly detector: FailureDetector;
  readonly requests: Requests;
  readonly stabilisation: Stabilisation;
  readonly routing: Routing;
  isMember(): boolean;
  nowMs(): number;
  load(): number;
  reserve(point: NodeId, known: readonly NodeId[]): { ok: boolean; taken: NodeId[] };
  /** What is known of a start that somebody named; undefined when it is over. */
  learn(member: Member): Member | undefined;
  ask(to: Member, question: Question, done: (answer: Answer | undefined) => void, timeoutMs: number): void;
  send(to: Sender, message: RingMessage): void;
  /** Somebody takes this node for its successor. */
  notified(): void;
  /** A node asked this one, which is none yet, as if it were a member. */
  askedBy(asker: Member): void;
  saidGoodbye(from: Sender, message: RingMessage & { readonly kind: "leaving" }): void;
}

export class Reception {
  readonly #parts: ReceptionParts;

  constructor(parts: ReceptionParts) {
    this.#parts = parts;
  }

  receive(from: Sender, message: RingMessage): void {
    const parts = this.#parts;
    switch (message.kind) {
      case "ping":
        parts.detector.told(from.nodeId, parts.nowMs());
        parts.send(from, pongOf(parts.self, parts.load(), parts.stabilisation.around, message.id));
        return;
      case "pong":
      case "opinion":
      case "neighbourhood":
      case "reserved":
      case "closer":
      case "refusal":
        parts.requests.answered(from.nodeId, message, parts.nowMs());
        return;
      case "probe":
        if (parts.isMember()) this.#probe(from, message.id, message.target);
        else this.#refuse(from, message.id);
        return;
      case "neighbours":
        if (parts.isMember()) this.#tellNeighbours(from, message.id);
        else this.#refuse(from, message.id);
        return;
      case "notify":
        if (!parts.isMember() || message.node.nodeId !== from.nodeId) return;
        parts.stabilisation.rectify(parts.learn(message.node) ?? message.node, parts.nowMs());
        parts.notified();
        return;
      case "hint": {
        const node = parts.isMember() ? parts.learn(message.node) : undefined;
        if (node !== undefined) parts.stabilisation.hinted(node, parts.nowMs());
        return;
      }
      case "reserve": {
        const { id, point, known } = message;
        if (parts.isMember() && parts.stabilisation.hasLiveSuccessor) {
          parts.send(from, { kind: "reserved", id, ...parts.reserve(point, known) });
        } else this.#refuse(from, id);
        return;
      }
      case "closest":
        this.#tellCloser(from, message);
        return;
      case "leaving":
        parts.saidGoodbye(from, message);
        return;
    }
  }

  #refuse(from: Sender, id: number): void {
    this.#parts.send(from, { kind: "refusal", id });
  }

  #tellNeighbours(from: Sender, id: number): void {
    const { stabilisation, send } = this.#parts;
    const { around, predecessor = null } = stabilisation;
    send(from, {
      kind: "neighbourhood",
      id,
      around,
      predecessor,
      successors: [...stabilisation.successors.chain],
    });
  }

  #tellCloser(from: Sender, { id, point, avoid, claimed }: RingMessage & { readonly kind: "closest" }): void {
    const parts = this.#parts;
    const answer = parts.routing.closest(point, new Set(avoid), claimed);
    if (answer !== undefined) {
      parts.send(from, { kind: "closer", id, ...answer });
      return;
    }
    this.#refuse(from, id);
    // Whoever asks may be the way into the ring; it counts if it is a member. Where the nearest of those that
    // answer is looked for, it will be asked as well: a stranger from far off, taken at once, would hide the rest.
    const asker = { ...from, zone: parts.book.get(from.nodeId)?.zone ?? "" };
    if (parts.isMember()) parts.stabilisation.consider(parts.learn(asker) ?? asker);
    else parts.askedBy(asker);
  }

  /** A second opinion, from a fresh ping. */
  #probe(asker: Sender, id: number, target: Member): void {
    const parts = this.#parts;
    const opine = (alive: boolean) => parts.send(asker, { kind: "opinion", id, alive });
    if (target.nodeId === parts.self.nodeId) {
      opine(true);
      return;
    }
    parts.detector.told(target.nodeId, parts.nowMs());
    parts.ask(
      parts.learn(target) ?? target,
      pingOf(parts.self, parts.load(), parts.stabilisation.around),
      (answer) => opine(answer !== undefined),
      PROBE_TIMEOUT_MS,
    );
  }
}
