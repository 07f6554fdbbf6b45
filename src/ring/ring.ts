/**
 * One node's part in a Chord ring (Stoica et al., SIGCOMM 2001), kept valid by
 * Zave's operations. It answers who follows a point, who is alive nearby, and
 * where the next hop is; it decides nothing about data.
 *
 * Pure: its driver owns clock and network. Every call returns what is to be done
 * about it, in order.
 */
import { AddressBook } from "./address-book.ts";
import { arcLength, between, clockwiseFrom, exponentBeyond, inArc } from "./arc.ts";
import { FailureDetector, type PeerView } from "./failure-detector.ts";
import { FingerTable } from "./finger-table.ts";
import { type NodeId, RING_SIZE } from "./identifier.ts";
import { IdentifierChoice } from "./identifier-choice.ts";
import { type Found, type LocalAnswer, Lookup, type LookupRoutes } from "./lookup.ts";
import type { ContactRecord, Member, Sender } from "./member.ts";
import type { Answer, Question, RingMessage } from "./message.ts";
import { Requests } from "./requests.ts";
import { Reservations } from "./reservations.ts";
import { Stabilisation } from "./stabilisation.ts";

/** A gap between two calls from which on the node itself stood still. Callers tick every 50 ms or faster. */
const STOOD_STILL_MS = 400;
const LATE_MS = 100;
const PROBE_TIMEOUT_MS = 350;
const FINGER_MS = 1000;
const FINGER_MS_FIRST = 100;
const HEAL_MS = 2000;
const HEAL_MS_ALONE = 500;
const HEAL_SILENT_MS = 5000;
const HEAL_LATEST = 16;
const HEAL_TARGETS_ALONE = 8;
const LAST_RESORTS_MAX = 64;
/** Contacts asked in one attempt: most of a long list may be gone. */
const JOIN_AT_ONCE = 3;
const JOIN_RETRY_MS = 200;
const JOIN_RETRY_MS_MAX = 2000;
const FORGET_MS = 60_000;
/** An owner that spoke so recently needs no confirmation. */
const CONFIRMED_MS = 250;
const LOOKUPS_MAX = 1024;
const STEPS_MIN = 16;

const NOTHING = new Uint8Array(0);

export interface RingSettings {
  /** Length of the successor list, L. */
  readonly successors: number;
  readonly suspectAfterMs: number;
  readonly contactsMax: number;
}

export type RingEffect =
  /** `led` of pings and pongs is empty: the driver fills it in. */
  | { readonly kind: "send"; readonly to: Sender; readonly message: RingMessage }
  | { readonly kind: "suspected"; readonly nodeId: NodeId }
  | { readonly kind: "alive"; readonly nodeId: NodeId }
  /** Neighbours, fingers or members are others than before. */
  | { readonly kind: "changed" }
  /** Others see this node as a member. */
  | { readonly kind: "joined" }
  | { readonly kind: "found"; readonly request: number; readonly found: Found }
  | { readonly kind: "lost"; readonly request: number }
  | { readonly kind: "chosen"; readonly request: number; readonly point: NodeId }
  | { readonly kind: "notChosen"; readonly request: number }
  /** The address book is worth persisting again. */
  | { readonly kind: "contacts" };

interface Joining {
  contacts: readonly Member[];
  turn: number;
  dueMs: number;
  delayMs: number;
  aloneMs: number;
}

export class Ring {
  readonly self: Member;
  readonly #settings: RingSettings;
  readonly #random: () => number;
  readonly #book: AddressBook;
  readonly #fingers: FingerTable;
  readonly #detector: FailureDetector;
  readonly #requests: Requests;
  readonly #stabilisation: Stabilisation;
  readonly #reservations: Reservations;
  readonly #lookups = new Set<Lookup>();
  #effects: RingEffect[] = [];
  #nowMs: number;
  #isMember = false;
  #hasLeft = false;
  #isJoinTold = false;
  #isWatchStale = false;
  #load = 0;
  #replicaPeers: ReadonlySet<NodeId> = new Set();
  #fingerDueMs = 0;
  #fingerNext = 159;
  #isFingersFirst = true;
  #healDueMs = 0;
  #healTurn = 0;
  #forgetDueMs = 0;
  #joining: Joining | undefined;

  constructor(options: {
    self: Member;
    settings: RingSettings;
    /** Numbers in [0, 1). */
    random: () => number;
    contacts: readonly ContactRecord[];
    nowMs: number;
  }) {
    const { self, settings, random, nowMs } = options;
    this.self = self;
    this.#settings = settings;
    this.#random = random;
    this.#nowMs = nowMs;
    this.#book = new AddressBook(self.nodeId, settings.contactsMax);
    for (const { seenMs, ...member } of options.contacts) this.#book.learn(member, seenMs);
    this.#fingers = new FingerTable(self.nodeId);
    this.#reservations = new Reservations(self.nodeId);
    this.#requests = new Requests(Math.floor(random() * 2 ** 48), (to, message) => this.#send(to, message));
    this.#detector = new FailureDetector({
      self: self.nodeId,
      suspectAfterMs: settings.suspectAfterMs,
      random,
      detection: {
        ping: (to) => this.#ping(to),
        probe: (prober, target) =>
          this.#ask(prober, { kind: "probe", target }, (answer) => {
            if (answer?.kind === "opinion") {
              this.#detector.opinion(target.nodeId, answer.alive, this.#nowMs);
            }
          }),
        suspected: (nodeId) => this.#suspected(nodeId),
        alive: (nodeId) => {
          this.#effects.push({ kind: "alive", nodeId });
          this.#stabilisation.soon(this.#nowMs);
        },
      },
    });
    this.#stabilisation = new Stabilisation(self, settings.successors, {
      askNeighbours: (to, done) =>
        this.#ask(to, { kind: "neighbours" }, (answer) =>
          done(answer?.kind === "neighbourhood" ? answer : undefined, this.#nowMs),
        ),
      send: (to, message) => this.#send(to, message),
      isDead: (member) => this.#isDead(member),
      isReachable: (member) => this.#detector.isReachable(member.nodeId, this.#nowMs),
      isWatched: (member) => this.#detector.isWatched(member.nodeId),
      learn: (member) => this.#learn(member),
      lastResorts: () => [
        ...this.#detector.live(),
        ...this.#book.latest(() => true).slice(0, LAST_RESORTS_MAX),
      ],
      changed: () => this.#changed(),
    });
  }

  /** Whether others may count on it as a node of the ring. */
  get isMember(): boolean {
    return this.#isMember;
  }

  get successors(): readonly Member[] {
    return this.#stabilisation.successors.members;
  }

  get predecessor(): Member | undefined {
    return this.#stabilisation.predecessor;
  }

  get fingers(): readonly Member[] {
    return this.#fingers.distinct();
  }

  /** Becomes a ring of one. */
  bootstrap(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#enter([]);
    return this.#taken();
  }

  /**
   * Joins through any of `contacts`, the first of them first, trying for as long as it takes.
   *
   * @param aloneAfterMs becomes a ring of one when no member has answered for so
   * long: only for a node that was a member before.
   */
  join(contacts: readonly Member[], aloneAfterMs: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#joining = {
      contacts,
      turn: 0,
      dueMs: nowMs,
      delayMs: JOIN_RETRY_MS,
      aloneMs: nowMs + aloneAfterMs,
    };
    for (const contact of contacts) this.#learn(contact);
    this.#tryJoin();
    return this.#taken();
  }

  /** Says goodbye. From then on it refuses all but pings. */
  leave(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#joining = undefined;
    if (this.#isMember) {
      const message: RingMessage = {
        kind: "leaving",
        predecessor: this.#stabilisation.livePredecessor ?? null,
        successors: this.successors.filter((member) => !this.#isDead(member)),
      };
      // Neighbours mend the ring; those that merely watch need not suspect it first.
      for (const peer of this.#detector.live()) this.#send(peer, message);
    }
    this.#isMember = false;
    this.#hasLeft = true;
    return this.#taken();
  }

  /** Lets time pass. `nowMs` never goes backwards. */
  tick(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#requests.expire(nowMs);
    for (const lookup of this.#lookups) {
      if (lookup.isDone) this.#lookups.delete(lookup);
      else lookup.tick(nowMs);
    }
    if (this.#joining !== undefined && nowMs >= this.#joining.dueMs) this.#tryJoin();
    if (this.#isMember) {
      this.#detector.tick(nowMs);
      this.#stabilisation.tick(nowMs);
      if (nowMs >= this.#fingerDueMs) this.#fixFinger();
      if (nowMs >= this.#healDueMs) this.#heal();
    }
    if (nowMs >= this.#forgetDueMs) {
      this.#forgetDueMs = nowMs + FORGET_MS;
      this.#book.dropUnseen(nowMs);
      this.#effects.push({ kind: "contacts" });
    }
    return this.#taken();
  }

  /** Takes in one message. Stale or repeated ones are harmless. */
  step(from: Sender, message: RingMessage, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    if (from.nodeId === this.self.nodeId || !this.#admit(from)) return this.#taken();
    this.#detector.heard(from.nodeId, nowMs);
    this.#receive(from, message);
    return this.#taken();
  }

  /** A sign of life on another way. */
  heard(nodeId: NodeId, incarnation: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    const known = this.#book.get(nodeId);
    if (known === undefined || incarnation >= known.incarnation) this.#detector.heard(nodeId, nowMs);
    return this.#taken();
  }

  /** A connection to this node was refused: nothing listens there. */
  refused(nodeId: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#requests.refused(nodeId, nowMs);
    if (this.#isMember) this.#detector.refused(nodeId, nowMs);
    return this.#taken();
  }

  /** Ends in one `found` or `lost` effect that carries `request`. */
  lookup(request: number, point: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#lookup(point, (found) => {
      this.#effects.push(found === undefined ? { kind: "lost", request } : { kind: "found", request, found });
    });
    return this.#taken();
  }

  /** Finds and reserves a point for a new node. Ends in one `chosen` or `notChosen` effect that carries `request`. */
  choose(request: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    const choice = new IdentifierChoice(
      8 + 4 * Math.ceil(Math.log2(this.sizeEstimate())),
      {
        random: this.#random,
        wholeRing: () => this.#wholeRing(),
        lookup: (point, done) => this.#lookup(point, done),
        reserve: (owner, point, known, done) => {
          if (owner.nodeId === this.self.nodeId)
            done({ kind: "reserved", id: 0, ...this.#reserve(point, known) });
          else this.#ask(owner, { kind: "reserve", point, known }, done);
        },
      },
      (point) => {
        this.#effects.push(
          point === undefined ? { kind: "notChosen", request } : { kind: "chosen", request, point },
        );
      },
    );
    if (this.#isMember) choice.start();
    else this.#effects.push({ kind: "notChosen", request });
    return this.#taken();
  }

  /** Nodes that share a replica group with this one: watched besides the neighbours. */
  watch(nodeIds: Iterable<NodeId>, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#replicaPeers = new Set(nodeIds);
    this.#isWatchStale = true;
    return this.#taken();
  }

  /** What is told with pings has changed: all watched peers hear it at the next tick. */
  tellAll(): void {
    this.#detector.tellAll();
  }

  set load(load: number) {
    this.#load = load;
  }

  loadOf(nodeId: NodeId): number | undefined {
    return nodeId === this.self.nodeId ? this.#load : this.#detector.loadOf(nodeId);
  }

  isSuspected(nodeId: NodeId): boolean {
    return this.#detector.isSuspected(nodeId);
  }

  isReachable(nodeId: NodeId): boolean {
    return this.#detector.isReachable(nodeId, this.#nowMs);
  }

  member(nodeId: NodeId): Member | undefined {
    return nodeId === this.self.nodeId ? this.self : this.#book.get(nodeId);
  }

  /** Self and everyone in lists, fingers and groups that is not dead, in ring order from self. */
  members(): Member[] {
    const live = this.#detector.live().filter((member) => !this.#isDead(member));
    const order = clockwiseFrom(this.self.nodeId);
    return [this.self, ...live.sort((a, b) => order(a.nodeId, b.nodeId))];
  }

  contacts(): ContactRecord[] {
    return this.#book.records();
  }

  watched(nowMs: number): PeerView[] {
    return this.#detector.view(nowMs);
  }

  /**
   * The first `count` distinct live nodes at or after `point`, or all when the
   * ring has fewer. Undefined when the own view does not reach so far.
   */
  successorsOf(point: NodeId, count: number): Member[] | undefined {
    if (!this.#isMember) return undefined;
    const whole = this.#wholeRing();
    if (whole !== undefined) {
      const at = whole.findIndex((member, i) =>
        inArc(point, whole[(i + whole.length - 1) % whole.length]!.nodeId, member.nodeId),
      );
      return Array.from({ length: Math.min(count, whole.length) }, (_, i) => whole[(at + i) % whole.length]!);
    }
    const live = this.successors.filter((member) => !this.#isDead(member));
    const predecessor = this.#stabilisation.livePredecessor;
    const isOwn = predecessor !== undefined && inArc(point, predecessor.nodeId, this.self.nodeId);
    if (isOwn) live.unshift(this.self);
    const at = isOwn ? 0 : live.findIndex((member) => inArc(point, this.self.nodeId, member.nodeId));
    return at < 0 || at + count > live.length ? undefined : live.slice(at, at + count);
  }

  /** How many nodes the ring has: exact when the own view is the whole ring, else from the density of the list. */
  sizeEstimate(): number {
    const whole = this.#wholeRing();
    if (whole !== undefined) return whole.length;
    const last = this.#stabilisation.successors.last;
    if (last === undefined) return 1;
    const length = arcLength(this.self.nodeId, last.nodeId);
    return Math.max(2, Number((RING_SIZE * BigInt(this.successors.length)) / length));
  }

  /** In ring order from self; undefined unless list and predecessor are the whole ring. */
  #wholeRing(): Member[] | undefined {
    if (!this.#isMember) return undefined;
    if (!this.#stabilisation.isWhole) return undefined;
    const predecessor = this.#stabilisation.livePredecessor;
    const ring = [this.self, ...this.successors];
    if (predecessor !== undefined && !ring.some((m) => m.nodeId === predecessor.nodeId))
      ring.push(predecessor);
    return ring.filter((member) => !this.#isDead(member));
  }

  #receive(from: Sender, message: RingMessage): void {
    switch (message.kind) {
      case "ping":
        this.#vitals(from, message.load, message.zone);
        this.#detector.told(from.nodeId, this.#nowMs);
        this.#send(from, {
          kind: "pong",
          id: message.id,
          load: this.#load,
          led: NOTHING,
          zone: this.self.zone,
        });
        return;
      case "pong":
        this.#vitals(from, message.load, message.zone);
        this.#requests.answered(from.nodeId, message, this.#nowMs);
        return;
      case "opinion":
      case "neighbourhood":
      case "reserved":
      case "closer":
      case "refusal":
        this.#requests.answered(from.nodeId, message, this.#nowMs);
        return;
      case "probe":
        if (this.#isMember) this.#probe(from, message.id, message.target);
        else this.#send(from, { kind: "refusal", id: message.id });
        return;
      case "neighbours":
        this.#send(
          from,
          this.#isMember
            ? {
                kind: "neighbourhood",
                id: message.id,
                predecessor: this.predecessor ?? null,
                successors: [...this.successors],
              }
            : { kind: "refusal", id: message.id },
        );
        return;
      case "notify":
        if (!this.#isMember || message.node.nodeId !== from.nodeId) return;
        this.#stabilisation.rectify(this.#learn(message.node) ?? message.node, this.#nowMs);
        this.#tellJoined();
        return;
      case "hint": {
        const node = this.#isMember ? this.#learn(message.node) : undefined;
        if (node !== undefined) this.#stabilisation.consider(node);
        return;
      }
      case "reserve":
        this.#send(
          from,
          this.#isMember && this.#stabilisation.hasLiveSuccessor
            ? { kind: "reserved", id: message.id, ...this.#reserve(message.point, message.known) }
            : { kind: "refusal", id: message.id },
        );
        return;
      case "closest": {
        const answer = this.#closest(message.point, new Set(message.avoid), message.claimed);
        this.#send(
          from,
          answer === undefined
            ? { kind: "refusal", id: message.id }
            : { kind: "closer", id: message.id, ...answer },
        );
        // Whoever asks may be the way into the ring; it counts if it is a member.
        if (answer === undefined) this.#takeUp({ ...from, zone: this.#book.get(from.nodeId)?.zone ?? "" });
        return;
      }
      case "leaving":
        this.#book.left(from.nodeId, from.incarnation);
        this.#fingers.drop(from.nodeId);
        this.#stabilisation.left(from.nodeId, message, this.#nowMs);
        this.#detector.forget(from.nodeId);
        this.#changed();
        return;
    }
  }

  /** A greater incarnation replaces what was believed of a smaller one; an equal one must be the same start. */
  #admit(from: Sender): boolean {
    if (this.#book.hasLeft(from.nodeId, from.incarnation)) return false;
    const known = this.#book.get(from.nodeId);
    if (known === undefined) return true;
    if (from.incarnation < known.incarnation) return false;
    if (from.incarnation === known.incarnation && known.instance !== "") {
      return from.instance === "" || from.instance === known.instance;
    }
    this.#learn({ ...from, zone: known.zone });
    return true;
  }

  #learn(member: Member): Member | undefined {
    const before = this.#book.get(member.nodeId);
    const known = this.#book.learn(member, this.#nowMs);
    if (known === undefined || known === before || known.nodeId === this.self.nodeId) return known;
    if (before !== undefined) {
      this.#stabilisation.renew(known);
      this.#fingers.renew(known);
      this.#detector.renew(known);
    }
    this.#effects.push({ kind: "contacts" });
    return known;
  }

  #vitals(from: Sender, load: number, zone: string): void {
    this.#detector.loaded(from.nodeId, load);
    const known = this.#book.get(from.nodeId);
    if (known !== undefined && known.zone === "" && zone !== "") this.#learn({ ...known, zone });
  }

  /** One step of somebody's lookup; undefined when this node can't help. */
  #closest(point: NodeId, avoid: ReadonlySet<NodeId>, claimed: boolean): LocalAnswer | undefined {
    if (!this.#isMember || !this.#stabilisation.hasLiveSuccessor) return undefined;
    const none = { owner: null, successors: [], predecessor: null, next: [], unsettled: false };
    const isUsable = (member: Member) => !avoid.has(member.nodeId) && !this.#isDead(member);
    const live = this.successors.filter(isUsable);
    const predecessor = this.#stabilisation.livePredecessor;
    const before = predecessor !== undefined && !avoid.has(predecessor.nodeId) ? predecessor : undefined;
    // Of a ring known as a whole, of which the asker can use nobody else, this node is the rest.
    const isLast = live.length === 0 && this.#stabilisation.isWhole;
    const isOwner = before === undefined ? claimed || isLast : inArc(point, before.nodeId, this.self.nodeId);
    if (isOwner && !avoid.has(this.self.nodeId)) {
      return { ...none, owner: this.self, successors: live, predecessor: before ?? null };
    }
    if (claimed && before !== undefined) return { ...none, predecessor: before, unsettled: true };

    const at = live.findIndex((member) => inArc(point, this.self.nodeId, member.nodeId));
    if (at >= 0) return { ...none, owner: live[at]!, successors: live.slice(at + 1) };
    const next = this.#nextBefore(point, avoid);
    const finger = this.#fingers.ownerOf(point);
    if (finger !== undefined && isUsable(finger)) return { ...none, owner: finger, next };
    return next.length === 0 ? undefined : { ...none, next };
  }

  /** Up to three live nodes between here and `point`, the closest before it first. */
  #nextBefore(point: NodeId, avoid: ReadonlySet<NodeId>): Member[] {
    const best: Member[] = [];
    for (const member of this.#detector.live()) {
      if (!between(member.nodeId, this.self.nodeId, point) || avoid.has(member.nodeId)) continue;
      if (!this.#detector.isReachable(member.nodeId, this.#nowMs)) continue;
      let at = best.length;
      while (at > 0 && between(member.nodeId, best[at - 1]!.nodeId, point)) at--;
      if (at < 3) best.splice(at, 0, member);
      if (best.length > 3) best.pop();
    }
    return best;
  }

  #lookup(point: NodeId, done: (found: Found | undefined) => void): void {
    const known = this.successorsOf(point, 1)?.[0];
    if (
      known !== undefined &&
      (known === this.self || this.#detector.hasSpokenWithin(known.nodeId, CONFIRMED_MS, this.#nowMs))
    ) {
      const followers = this.#followers(known);
      if (followers !== undefined) {
        const predecessor = known === this.self ? this.#stabilisation.livePredecessor : undefined;
        done({ owner: known, successors: followers, predecessor, hops: 0, path: [] });
        return;
      }
    }
    if (!this.#isMember || this.#lookups.size >= LOOKUPS_MAX) {
      done(undefined);
      return;
    }
    const lookup = this.#newLookup(point, [], done);
    lookup.start(this.self, this.#nowMs);
  }

  /** What follows `owner`, when the own view is the whole ring, or the owner is this node. */
  #followers(owner: Member): Member[] | undefined {
    if (owner === this.self) return this.successors.filter((member) => !this.#isDead(member));
    const whole = this.#wholeRing();
    if (whole === undefined) return undefined;
    const at = whole.findIndex((member) => member.nodeId === owner.nodeId);
    return [...whole.slice(at + 1), ...whole.slice(0, at)].slice(0, this.#settings.successors);
  }

  #newLookup(point: NodeId, avoid: NodeId[], done: (found: Found | undefined) => void): Lookup {
    const stepsMax = 2 * Math.ceil(Math.log2(this.sizeEstimate())) + this.#settings.successors;
    const routes: LookupRoutes = {
      ask: (to, question, answered) => {
        this.#ask(to, question, (answer) => answered(answer, this.#nowMs));
        return { slowMs: this.#detector.roundTripOf(to.nodeId).slowMs };
      },
      local: (avoided) => this.#closest(point, avoided, false),
    };
    const lookup = new Lookup({ point, avoid, stepsMax: Math.max(STEPS_MIN, stepsMax), routes, done });
    this.#lookups.add(lookup);
    return lookup;
  }

  #tryJoin(): void {
    const joining = this.#joining;
    if (joining === undefined) return;
    if (this.#nowMs >= joining.aloneMs) {
      this.#enter([]);
      return;
    }
    const { contacts } = joining;
    const atOnce = Math.min(JOIN_AT_ONCE, contacts.length);
    for (let i = 0; i < atOnce; i++) this.#tryJoinBy(contacts[joining.turn++ % contacts.length]!, joining);
    joining.dueMs = Math.min(joining.aloneMs, this.#nowMs + joining.delayMs * (0.75 + this.#random() / 2));
    // All contacts once before the next round has to wait longer.
    if (joining.turn >= contacts.length) joining.delayMs = Math.min(JOIN_RETRY_MS_MAX, joining.delayMs * 2);
  }

  #takeUp(asker: Member): void {
    if (this.#isMember) this.#stabilisation.consider(asker);
    else if (this.#joining !== undefined && !this.#joining.contacts.some((c) => c.nodeId === asker.nodeId)) {
      if (this.#joining.contacts.length >= this.#settings.contactsMax) return;
      this.#joining.contacts = [...this.#joining.contacts, asker];
      this.#tryJoinBy(asker, this.#joining);
    }
  }

  #tryJoinBy(contact: Member, joining: Joining): void {
    const lookup = this.#newLookup(this.self.nodeId, [this.self.nodeId], (found) => {
      if (lookup.isAnswered) joining.aloneMs = Number.POSITIVE_INFINITY;
      if (found === undefined || this.#joining !== joining) return;
      this.#ask(found.owner, { kind: "neighbours" }, (answer) => {
        if (answer?.kind !== "neighbourhood" || this.#joining !== joining) return;
        this.#enter([found.owner, ...answer.successors]);
      });
    });
    lookup.startWith(contact, this.#nowMs);
  }

  #enter(candidates: readonly Member[]): void {
    this.#joining = undefined;
    this.#isMember = true;
    this.#healDueMs = this.#nowMs + HEAL_MS_ALONE;
    this.#fingerDueMs = this.#nowMs + FINGER_MS_FIRST;
    this.#stabilisation.enter(candidates, this.#nowMs);
    this.#changed();
    if (candidates.length === 0) this.#tellJoined();
  }

  /** Visible once a predecessor has come, or alone. */
  #tellJoined(): void {
    if (this.#isJoinTold) return;
    this.#isJoinTold = true;
    this.#effects.push({ kind: "joined" });
  }

  #suspected(nodeId: NodeId): void {
    this.#fingers.drop(nodeId);
    this.#isWatchStale = true;
    this.#effects.push({ kind: "suspected", nodeId }, { kind: "changed" });
    this.#stabilisation.soon(this.#nowMs);
  }

  #probe(asker: Sender, id: number, target: Member): void {
    if (target.nodeId === this.self.nodeId) {
      this.#send(asker, { kind: "opinion", id, alive: true });
      return;
    }
    this.#detector.told(target.nodeId, this.#nowMs);
    this.#ask(
      this.#learn(target) ?? target,
      { kind: "ping", load: this.#load, led: NOTHING, zone: this.self.zone },
      (answer) => this.#send(asker, { kind: "opinion", id, alive: answer !== undefined }),
      PROBE_TIMEOUT_MS,
    );
  }

  #reserve(point: NodeId, known: readonly NodeId[]): { ok: boolean; taken: NodeId[] } {
    const predecessor = this.#stabilisation.livePredecessor?.nodeId;
    return this.#reservations.reserve(point, known, predecessor, this.#nowMs);
  }

  /** One finger at a time, from the farthest; those that the list reaches need none. */
  #fixFinger(): void {
    const last = this.#stabilisation.successors.last;
    const isWhole = this.#stabilisation.isWhole;
    const lowest = isWhole || last === undefined ? 160 : exponentBeyond(this.self.nodeId, last.nodeId);
    this.#fingers.dropBelow(lowest);
    this.#fingerDueMs = this.#nowMs + (this.#isFingersFirst ? FINGER_MS_FIRST : FINGER_MS);
    if (this.#fingerNext < lowest) {
      this.#fingerNext = 159;
      this.#isFingersFirst = isWhole;
    }
    if (lowest > 159) return;
    const exponent = this.#fingerNext--;
    this.#lookup(this.#fingers.start(exponent), (found) => {
      if (found !== undefined && this.#fingers.set(exponent, this.#learn(found.owner) ?? found.owner)) {
        this.#changed();
      }
    });
  }

  /** Splits heal: contacts outside the present view are asked who follows this node over there. */
  #heal(): void {
    const isAlone = this.successors.length === 0;
    this.#healDueMs = this.#nowMs + (isAlone ? HEAL_MS_ALONE : HEAL_MS);
    for (const peer of this.#detector.live()) {
      if (this.#detector.hasSpokenWithin(peer.nodeId, HEAL_MS, this.#nowMs)) {
        this.#book.seen(peer.nodeId, this.#nowMs);
      }
    }
    const silent = this.#book.latest(
      (nodeId, seenMs) =>
        (!this.#detector.isWatched(nodeId) || this.#detector.isSuspected(nodeId)) &&
        (isAlone || this.#nowMs - seenMs >= HEAL_SILENT_MS),
    );
    const targets = new Set<Member>();
    const turns = isAlone ? HEAL_TARGETS_ALONE : 1;
    const latest = Math.min(HEAL_LATEST, silent.length);
    for (let i = 0; i < Math.min(turns, latest); i++) targets.add(silent[this.#healTurn++ % latest]!);
    const drawn = silent[Math.floor(this.#random() * silent.length)];
    if (drawn !== undefined) targets.add(drawn);
    for (const target of targets) {
      const lookup = this.#newLookup(this.self.nodeId, [this.self.nodeId], (found) => {
        if (lookup.isAnswered) this.#book.seen(target.nodeId, this.#nowMs);
        if (found === undefined || !this.#isMember) return;
        this.#stabilisation.consider(this.#learn(found.owner) ?? found.owner);
        // Those over there may not know of this side: the one before this node there gets it as a successor.
        const before = found.predecessor ?? (found.successors.length === 0 ? found.owner : undefined);
        if (before !== undefined && before.nodeId !== this.self.nodeId) {
          this.#send(before, { kind: "hint", node: this.self });
        }
      });
      lookup.startWith(target, this.#nowMs);
    }
  }

  #isDead(member: Member): boolean {
    return this.#detector.isSuspected(member.nodeId) || this.#book.hasLeft(member.nodeId, member.incarnation);
  }

  #ping(to: Member): void {
    this.#detector.told(to.nodeId, this.#nowMs);
    this.#ask(to, { kind: "ping", load: this.#load, led: NOTHING, zone: this.self.zone }, () => {});
  }

  #ask(
    to: Member,
    question: Question,
    done: (answer: Answer | undefined) => void,
    timeoutMs = this.#detector.roundTripOf(to.nodeId).timeoutMs,
  ): void {
    this.#requests.ask(to, question, this.#nowMs, timeoutMs, (answer, tookMs) => {
      if (answer === undefined) this.#detector.unanswered(to.nodeId);
      else this.#detector.answered(to.nodeId, tookMs, this.#nowMs);
      done(answer);
    });
  }

  #send(to: Sender, message: RingMessage): void {
    this.#effects.push({ kind: "send", to, message });
  }

  #changed(): void {
    this.#isWatchStale = true;
    this.#effects.push({ kind: "changed" });
  }

  /** Notes the time, and whether this process itself stood still since the last call. */
  #observe(nowMs: number): void {
    const gap = nowMs - this.#nowMs;
    this.#nowMs = nowMs;
    if (gap <= LATE_MS) return;
    this.#detector.stoodStill(gap, gap > STOOD_STILL_MS, nowMs);
    this.#requests.extend(gap);
  }

  #taken(): RingEffect[] {
    if (this.#isWatchStale) {
      this.#isWatchStale = false;
      this.#rewatch();
    }
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  #rewatch(): void {
    const watched = new Map<NodeId, Member>();
    const add = (member: Member | undefined) => {
      if (member !== undefined && member.nodeId !== this.self.nodeId) watched.set(member.nodeId, member);
    };
    if (!this.#hasLeft) {
      for (const nodeId of this.#replicaPeers) add(this.#book.get(nodeId));
      for (const member of this.#fingers.distinct()) add(member);
      for (const member of this.successors) add(member);
      add(this.predecessor);
    }
    this.#detector.watch(watched, this.#nowMs);
  }
}
