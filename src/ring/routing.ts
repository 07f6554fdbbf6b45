/**
 * Who follows a point: from the own lists where they reach, else by a lookup.
 * Answers one step of other nodes' lookups from the same knowledge.
 */
import { arcLength, between, inArc } from "./arc.ts";
import type { FailureDetector } from "./failure-detector.ts";
import type { FingerTable } from "./finger-table.ts";
import { type NodeId, RING_SIZE } from "./identifier.ts";
import { type Found, type LocalAnswer, Lookup } from "./lookup.ts";
import type { Member } from "./member.ts";
import type { Answer, Question } from "./message.ts";
import { placementOf } from "./placement.ts";
import type { Stabilisation } from "./stabilisation.ts";

/** An owner that spoke so recently needs no confirmation. */
const CONFIRMED_MS = 250;
const LOOKUPS_MAX = 1024;
/** How long a point is searched for: the ring mends itself within this time. */
const SEARCH_MS = 4000;
const RETRY_MS = 200;
const STEPS_MIN = 16;
const NEXT_MAX = 3;

export interface RoutingState {
  readonly self: Member;
  readonly stabilisation: Stabilisation;
  readonly fingers: FingerTable;
  readonly detector: FailureDetector;
  /** Length of the successor list, L. */
  readonly lengthMax: number;
  isMember(): boolean;
  isDead(member: Member): boolean;
  /** The start of the node that speaks now. */
  current(member: Member): Member;
  nowMs(): number;
  /** @param patience how many times as long as usual the answer is waited for. */
  ask(to: Member, question: Question, done: (answer: Answer | undefined) => void, patience: number): void;
}

/** One lookup after another, until an owner answers. */
interface Search {
  readonly point: NodeId;
  readonly deadlineMs: number;
  readonly done: (found: Found | undefined) => void;
  /** When the next lookup starts; never, while one is under way. */
  retryMs: number;
}

export class Routing {
  readonly #state: RoutingState;
  readonly #lookups = new Set<Lookup>();
  readonly #searches = new Set<Search>();

  constructor(state: RoutingState) {
    this.#state = state;
  }

  /** Whether something is under way that `tick` looks after. */
  get isBusy(): boolean {
    return this.#searches.size > 0 || this.#lookups.size > 0;
  }

  /** Asks a second one beside whoever is slow; tries again what failed. */
  tick(nowMs: number): void {
    for (const search of this.#searches) {
      if (nowMs >= search.deadlineMs) this.#end(search, undefined);
      else if (nowMs >= search.retryMs) this.#attempt(search);
    }
    for (const lookup of this.#lookups) {
      if (lookup.isDone) this.#lookups.delete(lookup);
      else lookup.tick(nowMs);
    }
  }

  /** In ring order from self, without the dead; undefined unless list and predecessor are the whole ring. */
  wholeRing(): Member[] | undefined {
    const { self, stabilisation, isDead } = this.#state;
    if (!this.#state.isMember() || !stabilisation.isWhole) return undefined;
    const predecessor = stabilisation.livePredecessor;
    const ring = [self, ...stabilisation.successors.chain];
    if (predecessor !== undefined && !ring.some((m) => m.nodeId === predecessor.nodeId)) {
      ring.push(predecessor);
    }
    return ring.filter((member) => !isDead(member));
  }

  /** How many nodes the ring has: exact when the own view is the whole ring, else from the density of the list. */
  sizeEstimate(): number {
    const whole = this.wholeRing();
    if (whole !== undefined) return whole.length;
    const { chain, last } = this.#state.stabilisation.successors;
    if (last === undefined) return 1;
    const length = arcLength(this.#state.self.nodeId, last.nodeId);
    return Math.max(2, Number((RING_SIZE * BigInt(chain.length)) / length));
  }

  /**
   * The first `count` distinct live nodes at or after `point`, or all when the
   * ring has fewer. Undefined when the own view does not reach so far.
   */
  successorsOf(point: NodeId, count: number): Member[] | undefined {
    const seen = this.#liveFrom(point);
    return seen === undefined || (seen.members.length < count && !seen.isAll)
      ? undefined
      : seen.members.slice(0, count);
  }

  /**
   * Who should keep the copies of what stands at `point`, nobody of `except`;
   * see `placementOf`. Undefined when the own view does not reach so far.
   */
  placement(point: NodeId, count: number, except: ReadonlySet<string>): Member[] | undefined {
    const seen = this.#liveFrom(point);
    if (seen === undefined) return undefined;
    const order = seen.members.filter(({ nodeId }) => !except.has(nodeId));
    if (order.length < count && !seen.isAll) return undefined;
    return placementOf(
      order.map((member) => this.#state.current(member)),
      count,
    );
  }

  /** Live nodes at and after `point` in ring order, as far as they are in sight; `isAll`: that is the whole ring. */
  #liveFrom(point: NodeId): { readonly members: Member[]; readonly isAll: boolean } | undefined {
    if (!this.#state.isMember()) return undefined;
    const whole = this.wholeRing();
    if (whole !== undefined) {
      const at = whole.findIndex((member, i) =>
        inArc(point, whole[(i + whole.length - 1) % whole.length]!.nodeId, member.nodeId),
      );
      return { members: [...whole.slice(at), ...whole.slice(0, at)], isAll: true };
    }
    const { self, stabilisation } = this.#state;
    const live = this.#liveSuccessors();
    const predecessor = stabilisation.livePredecessor;
    const isOwn = predecessor !== undefined && inArc(point, predecessor.nodeId, self.nodeId);
    if (isOwn) live.unshift(self);
    const at = isOwn ? 0 : live.findIndex((member) => inArc(point, self.nodeId, member.nodeId));
    return at < 0 ? undefined : { members: live.slice(at), isAll: false };
  }

  /** One step of somebody's lookup; undefined when this node can't help. */
  closest(point: NodeId, avoid: ReadonlySet<NodeId>, claimed: boolean): LocalAnswer | undefined {
    const { self, stabilisation, fingers, isDead } = this.#state;
    if (!this.#state.isMember() || !stabilisation.hasLiveSuccessor) return undefined;
    const none = { owner: null, successors: [], predecessor: null, next: [], unsettled: false };
    const isUsable = (member: Member) => !avoid.has(member.nodeId) && !isDead(member);
    const live = stabilisation.successors.chain.filter(isUsable);
    const predecessor = stabilisation.livePredecessor;
    const before = predecessor !== undefined && !avoid.has(predecessor.nodeId) ? predecessor : undefined;
    // Of a ring known as a whole, of which the asker can use nobody else, this node is the rest.
    const isLast = live.length === 0 && stabilisation.isWhole;
    const isOwner = before === undefined ? claimed || isLast : inArc(point, before.nodeId, self.nodeId);
    if (isOwner && !avoid.has(self.nodeId)) {
      return { ...none, owner: self, successors: live, predecessor: before ?? null };
    }
    if (claimed && before !== undefined) return { ...none, predecessor: before, unsettled: true };

    const at = live.findIndex((member) => inArc(point, self.nodeId, member.nodeId));
    if (at >= 0) return { ...none, owner: live[at]!, successors: live.slice(at + 1) };
    const next = this.#nextBefore(point, avoid);
    const finger = fingers.ownerOf(point);
    if (finger !== undefined && isUsable(finger)) return { ...none, owner: finger, next };
    return next.length === 0 ? undefined : { ...none, next };
  }

  /**
   * Looks `point` up until an owner answers.
   *
   * @param done may be called at once; gets undefined when none did within four
   * seconds, or this node is no member.
   */
  search(point: NodeId, done: (found: Found | undefined) => void): void {
    if (!this.#state.isMember() || this.#searches.size >= LOOKUPS_MAX) {
      done(undefined);
      return;
    }
    const search = { point, done, deadlineMs: this.#state.nowMs() + SEARCH_MS, retryMs: 0 };
    this.#searches.add(search);
    this.#attempt(search);
  }

  /** Once. @param done may be called at once; gets undefined when no owner answered. */
  lookup(point: NodeId, done: (found: Found | undefined) => void): void {
    const known = this.#confirmed(point);
    if (known !== undefined) done(known);
    else if (!this.#state.isMember() || this.#lookups.size >= LOOKUPS_MAX) done(undefined);
    else this.#newLookup(point, [], done).start(this.#state.self, this.#state.nowMs());
  }

  /**
   * Who follows this node in the ring of `contact`, this node itself left out.
   *
   * @param done `isAnswered`: a member took part, even if nothing was found. Never called at once.
   * @returns whether a member has taken part so far.
   */
  lookupSelf(contact: Member, done: (found: Found | undefined, isAnswered: boolean) => void): () => boolean {
    const { nodeId } = this.#state.self;
    const lookup = this.#newLookup(nodeId, [nodeId], (found) => done(found, lookup.isAnswered));
    lookup.startWith(contact, this.#state.nowMs());
    return () => lookup.isAnswered;
  }

  #attempt(search: Search): void {
    search.retryMs = Number.POSITIVE_INFINITY;
    this.lookup(search.point, (found) => {
      if (found === undefined && this.#state.isMember()) search.retryMs = this.#state.nowMs() + RETRY_MS;
      else this.#end(search, found);
    });
  }

  #end(search: Search, found: Found | undefined): void {
    // A lookup that was under way at the deadline may still find something.
    if (this.#searches.delete(search)) search.done(found);
  }

  /** Without asking: the own view knows owner and followers, and the owner has just spoken. */
  #confirmed(point: NodeId): Found | undefined {
    const { self, stabilisation, detector, lengthMax } = this.#state;
    const owner = this.successorsOf(point, 1)?.[0];
    if (owner === undefined) return undefined;
    if (owner === self) {
      const predecessor = stabilisation.livePredecessor;
      return { owner, successors: this.#liveSuccessors(), predecessor, hops: 0, path: [] };
    }
    const whole = this.wholeRing();
    if (whole === undefined) return undefined;
    if (!detector.hasSpokenWithin(owner.nodeId, CONFIRMED_MS, this.#state.nowMs())) return undefined;
    const at = whole.findIndex((member) => member.nodeId === owner.nodeId);
    const successors = [...whole.slice(at + 1), ...whole.slice(0, at)].slice(0, lengthMax);
    return { owner, successors, predecessor: whole.at(at - 1), hops: 0, path: [] };
  }

  #newLookup(point: NodeId, avoid: NodeId[], done: (found: Found | undefined) => void): Lookup {
    const { detector, lengthMax } = this.#state;
    const lookup = new Lookup({
      point,
      avoid,
      stepsMax: Math.max(STEPS_MIN, 2 * Math.ceil(Math.log2(this.sizeEstimate())) + lengthMax),
      routes: {
        ask: (to, question, answered, patience) => {
          this.#state.ask(to, question, (answer) => answered(answer, this.#state.nowMs()), patience);
          return { slowMs: detector.roundTripOf(to.nodeId).slowMs };
        },
        local: (avoided) => this.closest(point, avoided, false),
      },
      // It has just answered: whatever start was asked for, it is the present one.
      done: (found) => done(found && { ...found, owner: this.#state.current(found.owner) }),
    });
    this.#lookups.add(lookup);
    return lookup;
  }

  #liveSuccessors(): Member[] {
    return this.#state.stabilisation.successors.chain.filter((member) => !this.#state.isDead(member));
  }

  /** Live nodes between here and `point`, the closest before it first. */
  #nextBefore(point: NodeId, avoid: ReadonlySet<NodeId>): Member[] {
    const { self, detector } = this.#state;
    const nowMs = this.#state.nowMs();
    const best: Member[] = [];
    for (const member of detector.live()) {
      if (!between(member.nodeId, self.nodeId, point) || avoid.has(member.nodeId)) continue;
      if (!detector.isReachable(member.nodeId, nowMs)) continue;
      let at = best.length;
      while (at > 0 && between(member.nodeId, best[at - 1]!.nodeId, point)) at--;
      if (at < NEXT_MAX) best.splice(at, 0, member);
      if (best.length > NEXT_MAX) best.pop();
    }
    return best;
  }
}
