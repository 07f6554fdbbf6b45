/** How a node comes in: by any contact that is a member, for as long as it takes; or alone. */
import type { Found } from "./lookup.ts";
import type { Member } from "./member.ts";

/** Contacts asked in one attempt: most of a long list may be gone. */
const AT_ONCE = 3;
const RETRY_MS = 200;
const RETRY_MS_MAX = 2000;

export interface JoiningRoutes {
  random(): number;
  /** Gives whether a member has taken part so far. */
  lookupSelf(contact: Member, done: (found: Found | undefined, isAnswered: boolean) => void): () => boolean;
  /** Undefined: no answer, or not a member. */
  successorsOf(owner: Member, done: (successors: readonly Member[] | undefined) => void): void;
  /** Becomes a member with these candidates as successors; with none, a ring of one. Called once. */
  enter(candidates: readonly Member[]): void;
}

export class Joining {
  readonly #routes: JoiningRoutes;
  readonly #contactsMax: number;
  #contacts: readonly Member[];
  #turn = 0;
  #dueMs: number;
  #delayMs = RETRY_MS;
  #aloneMs: number;
  #isOver = false;
  // Of the lookups under way: whether a member has answered.
  readonly #underWay = new Set<() => boolean>();

  /** @param options.aloneMs when it becomes a ring of one, unless a member has answered by then. */
  constructor(options: {
    contacts: readonly Member[];
    contactsMax: number;
    nowMs: number;
    aloneMs: number;
    routes: JoiningRoutes;
  }) {
    this.#contacts = options.contacts;
    this.#contactsMax = options.contactsMax;
    this.#dueMs = options.nowMs;
    this.#aloneMs = options.aloneMs;
    this.#routes = options.routes;
  }

  tick(nowMs: number): void {
    if (this.#isOver || nowMs < this.#dueMs) return;
    if (nowMs >= this.#aloneMs) {
      // A slow way into a ring is no reason to found another one beside it.
      if (![...this.#underWay].some((isAnswered) => isAnswered())) {
        this.#enter([]);
        return;
      }
      this.#aloneMs = Number.POSITIVE_INFINITY;
    }
    const atOnce = Math.min(AT_ONCE, this.#contacts.length);
    for (let i = 0; i < atOnce; i++) this.#tryBy(this.#contacts[this.#turn++ % this.#contacts.length]!);
    this.#dueMs = Math.min(this.#aloneMs, nowMs + this.#delayMs * (0.75 + this.#routes.random() / 2));
    // All contacts once before the next round has to wait longer.
    if (this.#turn >= this.#contacts.length) this.#delayMs = Math.min(RETRY_MS_MAX, this.#delayMs * 2);
  }

  /** Somebody asked this node as if it were a member: that one may be the way in. */
  askedBy(asker: Member): void {
    if (this.#isOver || this.#contacts.length >= this.#contactsMax) return;
    if (this.#contacts.some((contact) => contact.nodeId === asker.nodeId)) return;
    this.#contacts = [...this.#contacts, asker];
    this.#tryBy(asker);
  }

  giveUp(): void {
    this.#isOver = true;
  }

  #tryBy(contact: Member): void {
    const hasAnswer = this.#routes.lookupSelf(contact, (found, isAnswered) => {
      this.#underWay.delete(hasAnswer);
      if (isAnswered) this.#aloneMs = Number.POSITIVE_INFINITY;
      if (found === undefined || this.#isOver) return;
      // The whole list of the successor comes first, then this node becomes visible.
      this.#routes.successorsOf(found.owner, (successors) => {
        if (successors !== undefined) this.#enter([found.owner, ...successors]);
      });
    });
    this.#underWay.add(hasAnswer);
  }

  #enter(candidates: readonly Member[]): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#routes.enter(candidates);
  }
}
