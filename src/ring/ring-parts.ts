/**
 * The parts of one node of the ring, and how they hang together: what one of
 * them finds out, the others act on within the same step.
 */
import { AddressBook } from "./address-book.ts";
import { FailureDetector } from "./failure-detector.ts";
import { FingerRepair } from "./finger-repair.ts";
import { FingerTable } from "./finger-table.ts";
import { Healing } from "./healing.ts";
import type { NodeId } from "./identifier.ts";
import type { ContactRecord, Member, Sender } from "./member.ts";
import { type Answer, pingOf, type Question, type RingMessage } from "./message.ts";
import { Reception } from "./reception.ts";
import { Requests } from "./requests.ts";
import { Reservations } from "./reservations.ts";
import type { RingEffect } from "./ring-effect.ts";
import { Routing } from "./routing.ts";
import { Stabilisation } from "./stabilisation.ts";
import { Starts } from "./starts.ts";

const LAST_RESORTS_MAX = 64;

/** That an answer came is all that a ping is for. */
const ignore = () => {};

export interface RingSettings {
  /** Length of the successor list, L. */
  readonly successors: number;
  readonly suspectAfterMs: number;
  readonly contactsMax: number;
}

/** The node that they are parts of. */
export interface RingOwner {
  readonly self: Member;
  readonly settings: RingSettings;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  nowMs(): number;
  isMember(): boolean;
  load(): number;
  /** Shares a replica group with this node. */
  isReplicaPeer(nodeId: NodeId): boolean;
  tell(effect: RingEffect): void;
  /** Others are to be watched from now on. */
  watchOthers(): void;
  /** Somebody takes this node for its successor. */
  notified(): void;
  /** A node asked this one, which is none yet, as if it were a member. */
  askedBy(asker: Member): void;
}

export class RingParts {
  readonly book: AddressBook;
  readonly fingers: FingerTable;
  readonly detector: FailureDetector;
  readonly requests: Requests;
  readonly stabilisation: Stabilisation;
  readonly reservations: Reservations;
  readonly routing: Routing;
  readonly healing: Healing;
  readonly fingerRepair: FingerRepair;
  readonly starts: Starts;
  readonly reception: Reception;
  readonly #owner: RingOwner;

  constructor(owner: RingOwner, contacts: readonly ContactRecord[]) {
    const { self, settings, random } = owner;
    const nowMs = () => owner.nowMs();
    const isMember = () => owner.isMember();
    const isDead = (member: Member) => this.starts.isDead(member);
    const current = (member: Member) => this.member(member.nodeId) ?? member;
    const learn = (member: Member) => this.starts.learn(member);
    const changed = () => this.changed();
    const send = (to: Sender, message: RingMessage) => this.send(to, message);
    this.#owner = owner;
    this.book = new AddressBook(self.nodeId, settings.contactsMax);
    for (const { seenMs, ...member } of contacts) this.book.learn(member, seenMs);
    this.fingers = new FingerTable(self.nodeId);
    this.reservations = new Reservations(self.nodeId);
    this.requests = new Requests(Math.floor(random() * 2 ** 30), send, (to, isAnswered, tookMs) => {
      if (isAnswered) this.detector.answered(to, tookMs, owner.nowMs());
      else this.detector.unanswered(to);
    });
    this.detector = new FailureDetector({
      self: self.nodeId,
      suspectAfterMs: settings.suspectAfterMs,
      random,
      detection: {
        ping: (to, timeoutMs) =>
          this.ask(to, pingOf(self, owner.load(), this.stabilisation.around), ignore, timeoutMs),
        probe: (prober, target) =>
          this.ask(prober, { kind: "probe", target }, (answer) => {
            if (answer?.kind === "opinion") {
              this.detector.opinion(target.nodeId, answer.alive, owner.nowMs());
            }
          }),
        suspected: (nodeId) => this.#suspected(nodeId),
        alive: (nodeId) => {
          owner.tell({ kind: "alive", nodeId });
          this.stabilisation.soon(owner.nowMs());
        },
      },
    });
    this.stabilisation = new Stabilisation(self, settings.successors, {
      askNeighbours: (to, done) => {
        this.detector.pingAlong(to.nodeId, owner.nowMs());
        this.ask(to, { kind: "neighbours" }, (answer) =>
          done(answer?.kind === "neighbourhood" ? answer : undefined, owner.nowMs()),
        );
      },
      send,
      isDead,
      current,
      isReachable: (member) => this.detector.isReachable(member.nodeId, owner.nowMs()),
      isWatched: (member) => this.detector.isWatched(member.nodeId),
      isPinged: (member) => member !== undefined && this.detector.isPinged(member.nodeId, owner.nowMs()),
      learn,
      lastResorts: () => [
        ...this.detector.live(),
        ...this.book.latest(() => true).slice(0, LAST_RESORTS_MAX),
      ],
      changed,
    });
    this.routing = new Routing({
      self,
      stabilisation: this.stabilisation,
      fingers: this.fingers,
      detector: this.detector,
      lengthMax: settings.successors,
      isMember,
      isDead,
      current,
      nowMs,
      ask: (to, question, done, patience) =>
        this.ask(to, question, done, this.detector.roundTripOf(to.nodeId).timeoutMsOf(patience)),
    });
    this.fingerRepair = new FingerRepair(self.nodeId, this.fingers, this.stabilisation, {
      lookup: (point, done) => this.routing.lookup(point, done),
      learn,
      changed,
    });
    this.starts = new Starts({
      self: self.nodeId,
      book: this.book,
      detector: this.detector,
      stabilisation: this.stabilisation,
      fingers: this.fingers,
      nowMs,
      learnt: ({ nodeId }) => {
        owner.tell({ kind: "contacts" });
        if (owner.isReplicaPeer(nodeId)) owner.watchOthers();
      },
      returned: (nodeId) => owner.tell({ kind: "alive", nodeId }),
      changed,
    });
    this.reception = new Reception({
      self,
      book: this.book,
      detector: this.detector,
      requests: this.requests,
      stabilisation: this.stabilisation,
      routing: this.routing,
      isMember,
      nowMs,
      load: () => owner.load(),
      reserve: (point, known) => this.reserve(point, known),
      learn,
      ask: (to, question, done, timeoutMs) => this.ask(to, question, done, timeoutMs),
      send,
      notified: () => owner.notified(),
      askedBy: (asker) => owner.askedBy(asker),
      saidGoodbye: (from, message) => this.#saidGoodbye(from, message),
    });
    this.healing = new Healing(self, this.book, this.detector, {
      random,
      isAlone: () => this.stabilisation.successors.members.length === 0,
      strangers: () => this.#strangers(),
      lookupSelf: (contact, done) => this.routing.lookupSelf(contact, done),
      met: (follower) => {
        if (isMember()) this.stabilisation.consider(learn(follower) ?? follower);
      },
      introduceTo: (to) => {
        if (isMember()) send(to, { kind: "hint", node: self });
      },
    });
  }

  member(nodeId: NodeId): Member | undefined {
    return nodeId === this.#owner.self.nodeId ? this.#owner.self : this.book.get(nodeId);
  }

  ask(
    to: Member,
    question: Question,
    done: (answer: Answer | undefined) => void,
    timeoutMs = this.detector.roundTripOf(to.nodeId).timeoutMs,
  ): void {
    this.requests.ask(to, question, this.#owner.nowMs(), timeoutMs, done);
  }

  send(to: Sender, message: RingMessage): void {
    this.#owner.tell({ kind: "send", to, message });
  }

  reserve(point: NodeId, known: readonly NodeId[]): { ok: boolean; taken: NodeId[] } {
    const predecessor = this.stabilisation.livePredecessor?.nodeId;
    return this.reservations.reserve(point, known, predecessor, this.#owner.nowMs());
  }

  /** Neighbours, fingers or members are others than before. */
  changed(): void {
    this.#owner.watchOthers();
    this.#owner.tell({ kind: "changed" });
  }

  #suspected(nodeId: NodeId): void {
    this.fingers.drop(nodeId);
    this.#owner.tell({ kind: "suspected", nodeId });
    this.changed();
    this.stabilisation.soon(this.#owner.nowMs());
  }

  #saidGoodbye(from: Sender, message: RingMessage & { readonly kind: "leaving" }): void {
    this.book.left(from.nodeId, from.incarnation);
    if (this.detector.isWatched(from.nodeId) && !this.detector.isSuspected(from.nodeId)) {
      this.#owner.tell({ kind: "suspected", nodeId: from.nodeId });
    }
    this.fingers.drop(from.nodeId);
    this.stabilisation.left(from.nodeId, message, this.#owner.nowMs());
    this.detector.forget(from.nodeId);
    this.changed();
  }

  /** Heard for other reasons than their place in the ring, while the own lists have room. */
  #strangers(): Member[] {
    const { self, settings } = this.#owner;
    const { members } = this.stabilisation.successors;
    if (!this.#owner.isMember() || members.length >= settings.successors) return [];
    const neighbours = new Set([...members, this.stabilisation.predecessor].map((member) => member?.nodeId));
    return this.detector.live().filter(({ nodeId }) => !neighbours.has(nodeId) && nodeId !== self.nodeId);
  }
}
