/**
 * A split leaves two valid rings; each node keeps asking contacts outside its
 * view who follows it over there, and the rings grow together from where any two
 * have met. It asks one contact in turn among the latest, and one at random; and
 * in a small ring one of those it hears, as members of its replica groups, but
 * does not find among its neighbours: being heard doesn't put a node in the ring.
 */
import type { AddressBook } from "./address-book.ts";
import type { FailureDetector } from "./failure-detector.ts";
import type { Found } from "./lookup.ts";
import type { Member } from "./member.ts";

const HEAL_MS = 2000;
const HEAL_MS_ALONE = 500;
const SILENT_MS = 5000;
const LATEST = 16;
/** How many are asked in turn. */
const TURNS = 1;
const TURNS_ALONE = 8;

export interface HealingRoutes {
  random(): number;
  isAlone(): boolean;
  /**
   * Live nodes that are heard for other reasons than their place in the ring, while
   * the own lists have room: in one ring they would stand in them.
   */
  strangers(): readonly Member[];
  lookupSelf(contact: Member, done: (found: Found | undefined, isAnswered: boolean) => void): void;
  /** `owner` follows this node over there. */
  met(owner: Member): void;
  /** Tells `to` that this node may be its successor. */
  introduceTo(to: Member): void;
}

export class Healing {
  readonly #self: Member;
  readonly #book: AddressBook;
  readonly #detector: FailureDetector;
  readonly #routes: HealingRoutes;
  #dueMs = Number.POSITIVE_INFINITY;
  #turn = 0;

  constructor(self: Member, book: AddressBook, detector: FailureDetector, routes: HealingRoutes) {
    this.#self = self;
    this.#book = book;
    this.#detector = detector;
    this.#routes = routes;
  }

  start(nowMs: number): void {
    this.#dueMs = nowMs + HEAL_MS_ALONE;
  }

  get dueMs(): number {
    return this.#dueMs;
  }

  tick(nowMs: number): void {
    if (nowMs < this.#dueMs) return;
    const isAlone = this.#routes.isAlone();
    this.#dueMs = nowMs + (isAlone ? HEAL_MS_ALONE : HEAL_MS);
    for (const peer of this.#detector.live()) {
      if (this.#detector.hasSpokenWithin(peer.nodeId, HEAL_MS, nowMs)) this.#book.seen(peer.nodeId, nowMs);
    }
    for (const contact of this.#targets(isAlone, nowMs)) this.#ask(contact, nowMs);
  }

  #targets(isAlone: boolean, nowMs: number): ReadonlySet<Member> {
    const silent = this.#book.latest(
      (nodeId, seenMs) =>
        (!this.#detector.isWatched(nodeId) || this.#detector.isSuspected(nodeId)) &&
        (isAlone || nowMs - seenMs >= SILENT_MS),
    );
    const targets = new Set<Member>();
    const latest = Math.min(LATEST, silent.length);
    const turns = Math.min(isAlone ? TURNS_ALONE : TURNS, latest);
    for (let i = 0; i < turns; i++) targets.add(silent[this.#turn++ % latest]!);
    const strangers = this.#routes.strangers();
    const stranger = strangers[this.#turn % Math.max(1, strangers.length)];
    if (stranger !== undefined) targets.add(stranger);
    this.#turn++;
    const drawn = silent[Math.floor(this.#routes.random() * silent.length)];
    return drawn === undefined ? targets : targets.add(drawn);
  }

  #ask(contact: Member, nowMs: number): void {
    this.#routes.lookupSelf(contact, (found, isAnswered) => {
      if (isAnswered) this.#book.seen(contact.nodeId, nowMs);
      if (found === undefined) return;
      this.#routes.met(found.owner);
      // Those over there may not know of this side: the one before this node there gets it as a successor.
      const before = found.predecessor ?? (found.successors.length === 0 ? found.owner : undefined);
      if (before !== undefined && before.nodeId !== this.#self.nodeId) this.#routes.introduceTo(before);
    });
  }
}
