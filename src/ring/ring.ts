/**
 * One node's part in a Chord ring (Stoica et al., SIGCOMM 2001), kept valid by
 * Zave's operations. It answers who follows a point, who is alive nearby, and
 * where the next hop is; it decides nothing about data.
 *
 * Pure: its driver owns clock and network. Every call returns what is to be done
 * about it, in order.
 */
import { AddressBook } from "./address-book.ts";
import { clockwiseFrom, exponentBeyond } from "./arc.ts";
import { FailureDetector, type PeerView } from "./failure-detector.ts";
import { FingerTable } from "./finger-table.ts";
import { Healing } from "./healing.ts";
import type { NodeId } from "./identifier.ts";
import { IdentifierChoice } from "./identifier-choice.ts";
import { Joining } from "./joining.ts";
import type { Found } from "./lookup.ts";
import { type ContactRecord, isSameStart, type Member, type Sender } from "./member.ts";
import type { Answer, Question, RingMessage } from "./message.ts";
import { Requests } from "./requests.ts";
import { Reservations } from "./reservations.ts";
import { Routing } from "./routing.ts";
import { Stabilisation } from "./stabilisation.ts";

/** What callers tick at, or faster, unless they were told that they may rest. */
const TICK_MS_MAX = 50;
/** A gap between two calls from which on the node itself stood still. */
const STOOD_STILL_MS = 400;
const LATE_MS = 100;
const PROBE_TIMEOUT_MS = 350;
const FINGER_MS = 1000;
const FINGER_MS_FIRST = 100;
const LAST_RESORTS_MAX = 64;
const FORGET_MS = 60_000;

const NOTHING = new Uint8Array(0);
/** That an answer came is all that a ping is for. */
const ignore = () => {};

export interface RingSettings {
  /** Length of the successor list, L. */
  readonly successors: number;
  readonly suspectAfterMs: number;
  readonly contactsMax: number;
}

export type RingEffect =
  /** `led` of pings and pongs is empty: the driver fills it in. */
  | { readonly kind: "send"; readonly to: Sender; readonly message: RingMessage }
  /** It is silent, refuses connections, or said goodbye. */
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
  readonly #routing: Routing;
  readonly #healing: Healing;
  #effects: RingEffect[] = [];
  #nowMs: number;
  /** Until when the caller was told that it may rest. */
  #restMs = Number.NEGATIVE_INFINITY;
  #isMember = false;
  #hasLeft = false;
  #isJoinTold = false;
  #isWatchStale = false;
  #load = 0;
  #replicaPeers: ReadonlySet<NodeId> = new Set();
  #fingerDueMs = 0;
  #fingerNext = 159;
  #isFingersFirst = true;
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
    this.#requests = new Requests(
      Math.floor(random() * 2 ** 30),
      (to, message) => this.#send(to, message),
      (to, isAnswered, tookMs) => {
        if (isAnswered) this.#detector.answered(to, tookMs, this.#nowMs);
        else this.#detector.unanswered(to);
      },
    );
    this.#detector = new FailureDetector({
      self: self.nodeId,
      suspectAfterMs: settings.suspectAfterMs,
      random,
      detection: {
        ping: (to, timeoutMs) => this.#ask(to, this.#ping(), ignore, timeoutMs),
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
      askNeighbours: (to, done) => {
        this.#detector.pingAlong(to.nodeId, this.#nowMs);
        this.#ask(to, { kind: "neighbours" }, (answer) =>
          done(answer?.kind === "neighbourhood" ? answer : undefined, this.#nowMs),
        );
      },
      send: (to, message) => this.#send(to, message),
      isDead: (member) => this.#isDead(member),
      current: (member) => this.member(member.nodeId) ?? member,
      isReachable: (member) => this.#detector.isReachable(member.nodeId, this.#nowMs),
      isWatched: (member) => this.#detector.isWatched(member.nodeId),
      isPinged: (member) => member !== undefined && this.#detector.isPinged(member.nodeId, this.#nowMs),
      learn: (member) => this.#learn(member),
      lastResorts: () => [
        ...this.#detector.live(),
        ...this.#book.latest(() => true).slice(0, LAST_RESORTS_MAX),
      ],
      changed: () => this.#changed(),
    });
    this.#routing = new Routing({
      self,
      stabilisation: this.#stabilisation,
      fingers: this.#fingers,
      detector: this.#detector,
      lengthMax: settings.successors,
      isMember: () => this.#isMember,
      isDead: (member) => this.#isDead(member),
      current: (member) => this.member(member.nodeId) ?? member,
      nowMs: () => this.#nowMs,
      ask: (to, question, done, patience) =>
        this.#ask(to, question, done, this.#detector.roundTripOf(to.nodeId).timeoutMsOf(patience)),
    });
    this.#healing = new Healing(self, this.#book, this.#detector, {
      random,
      isAlone: () => this.successors.length === 0,
      strangers: () => this.#strangers(),
      lookupSelf: (contact, done) => this.#routing.lookupSelf(contact, done),
      met: (owner) => {
        if (this.#isMember) this.#stabilisation.consider(this.#learn(owner) ?? owner);
      },
      introduceTo: (to) => {
        if (this.#isMember) this.#send(to, { kind: "hint", node: self });
      },
    });
  }

  #strangers(): Member[] {
    if (!this.#isMember || this.successors.length >= this.#settings.successors) return [];
    const neighbours = new Set([...this.successors, this.predecessor].map((member) => member?.nodeId));
    return this.#detector
      .live()
      .filter(({ nodeId }) => !neighbours.has(nodeId) && nodeId !== this.self.nodeId);
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

  /** Each finger with the point that it should own, from the farthest. */
  fingerStarts(): [start: NodeId, finger: Member][] {
    return this.#fingers.starts();
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
    for (const contact of contacts) this.#learn(contact);
    this.#joining = new Joining({
      contacts,
      contactsMax: this.#settings.contactsMax,
      nowMs,
      aloneMs: nowMs + aloneAfterMs,
      routes: {
        random: this.#random,
        lookupSelf: (contact, done) => this.#routing.lookupSelf(contact, done),
        successorsOf: (owner, done) =>
          this.#ask(owner, { kind: "neighbours" }, (answer) =>
            done(answer?.kind === "neighbourhood" ? answer.successors : undefined),
          ),
        enter: (candidates) => this.#enter(candidates),
      },
    });
    this.#joining.tick(nowMs);
    return this.#taken();
  }

  /** Says goodbye. From then on it refuses all but pings. */
  leave(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#joining?.giveUp();
    this.#joining = undefined;
    if (this.#isMember) {
      const message: RingMessage = {
        kind: "leaving",
        predecessor: this.#stabilisation.livePredecessor ?? null,
        successors: this.#stabilisation.successors.chain.filter((member) => !this.#isDead(member)),
      };
      // Neighbours mend the ring; those that merely watch need not suspect it first.
      for (const peer of this.#detector.live()) this.#send(peer, message);
    }
    this.#isMember = false;
    this.#hasLeft = true;
    return this.#taken();
  }

  /**
   * When `tick` is wanted next, unless something happens before: no earlier tick
   * would do anything. In the past while much is going on: as often as usual then.
   */
  restUntil(): number {
    if (!this.#isMember || this.#joining !== undefined || this.#routing.isBusy) {
      this.#restMs = this.#nowMs;
    } else {
      this.#restMs = Math.min(
        this.#requests.dueMs,
        this.#detector.dueMs,
        this.#stabilisation.dueMs,
        this.#fingerDueMs,
        this.#healing.dueMs,
        this.#forgetDueMs,
      );
    }
    return this.#restMs;
  }

  /** Lets time pass. `nowMs` never goes backwards. */
  tick(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#requests.expire(nowMs);
    this.#routing.tick(nowMs);
    this.#joining?.tick(nowMs);
    if (this.#isMember) {
      this.#detector.tick(nowMs);
      this.#stabilisation.tick(nowMs);
      if (nowMs >= this.#fingerDueMs) this.#fixFinger();
      this.#healing.tick(nowMs);
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
    if (message.kind === "ping" || message.kind === "pong") this.#vitals(from, message);
    else this.#detector.heard(from.nodeId, nowMs);
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

  /** Ends in one `found` or `lost` effect that carries `request`, within four seconds. */
  lookup(request: number, point: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#routing.search(point, (found) => {
      this.#effects.push(found === undefined ? { kind: "lost", request } : { kind: "found", request, found });
    });
    return this.#taken();
  }

  /** Finds and reserves a point for a new node. Ends in one `chosen` or `notChosen` effect that carries `request`. */
  choose(request: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    const choice = new IdentifierChoice(
      8 + 4 * Math.ceil(Math.log2(this.#routing.sizeEstimate())),
      {
        random: this.#random,
        wholeRing: () => this.#routing.wholeRing(),
        lookup: (point, done) => this.#routing.lookup(point, done),
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

  /** Also of one that said goodbye. */
  isSuspected(nodeId: NodeId): boolean {
    return this.#detector.isSuspected(nodeId) || this.#book.isGone(nodeId);
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

  /** As `Routing.successorsOf`. */
  successorsOf(point: NodeId, count: number): Member[] | undefined {
    return this.#routing.successorsOf(point, count);
  }

  sizeEstimate(): number {
    return this.#routing.sizeEstimate();
  }

  #receive(from: Sender, message: RingMessage): void {
    switch (message.kind) {
      case "ping":
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
                successors: [...this.#stabilisation.successors.chain],
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
        if (node !== undefined) this.#stabilisation.hinted(node, this.#nowMs);
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
        const answer = this.#routing.closest(message.point, new Set(message.avoid), message.claimed);
        this.#send(
          from,
          answer === undefined
            ? { kind: "refusal", id: message.id }
            : { kind: "closer", id: message.id, ...answer },
        );
        // Whoever asks may be the way into the ring; it counts if it is a member.
        if (answer === undefined) {
          const asker = { ...from, zone: this.#book.get(from.nodeId)?.zone ?? "" };
          if (this.#isMember) this.#stabilisation.consider(asker);
          else this.#joining?.askedBy(asker);
        }
        return;
      }
      case "leaving":
        this.#book.left(from.nodeId, from.incarnation);
        if (this.#detector.isWatched(from.nodeId) && !this.#detector.isSuspected(from.nodeId)) {
          this.#effects.push({ kind: "suspected", nodeId: from.nodeId });
        }
        this.#fingers.drop(from.nodeId);
        this.#stabilisation.left(from.nodeId, message, this.#nowMs);
        this.#detector.forget(from.nodeId);
        this.#changed();
        return;
    }
  }

  /** A greater incarnation replaces what was believed of a smaller one; an equal one must be the same start. */
  #admit(from: Sender): boolean {
    const known = this.#book.get(from.nodeId);
    // No start that is on record has left.
    if (known !== undefined && isSameStart(known, from)) return true;
    if (this.#book.hasLeft(from.nodeId, from.incarnation)) return false;
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
    const wasGone = this.#book.isGone(member.nodeId);
    const known = this.#book.learn(member, this.#nowMs);
    if (known === undefined || known === before || known.nodeId === this.self.nodeId) return known;
    this.#effects.push({ kind: "contacts" });
    if (this.#replicaPeers.has(known.nodeId)) this.#isWatchStale = true;
    if (before === undefined) {
      // A later start of one that left.
      if (wasGone) this.#effects.push({ kind: "alive", nodeId: known.nodeId });
      return known;
    }
    this.#detector.renew(known);
    if (before.instance === "" || before.incarnation === known.incarnation) {
      this.#stabilisation.renew(known);
      this.#fingers.renew(known);
      return known;
    }
    // The earlier start is dead, and the later one has no place in the ring before it has joined.
    this.#fingers.drop(known.nodeId);
    this.#stabilisation.soon(this.#nowMs);
    this.#changed();
    return known;
  }

  #vitals(from: Sender, { load, zone }: { readonly load: number; readonly zone: string }): void {
    this.#detector.heard(from.nodeId, this.#nowMs, load);
    if (zone === "") return;
    const known = this.#book.get(from.nodeId);
    if (known !== undefined && known.zone === "") this.#learn({ ...known, zone });
  }

  #enter(candidates: readonly Member[]): void {
    this.#joining = undefined;
    this.#isMember = true;
    this.#healing.start(this.#nowMs);
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
      this.#ping(),
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
    this.#routing.lookup(this.#fingers.start(exponent), (found) => {
      if (found !== undefined && this.#fingers.set(exponent, this.#learn(found.owner) ?? found.owner)) {
        this.#changed();
      }
    });
  }

  #isDead(member: Member): boolean {
    return this.#detector.isSuspected(member.nodeId) || this.#book.isPast(member);
  }

  #ping(): Question {
    return { kind: "ping", load: this.#load, led: NOTHING, zone: this.self.zone };
  }

  #ask(
    to: Member,
    question: Question,
    done: (answer: Answer | undefined) => void,
    timeoutMs = this.#detector.roundTripOf(to.nodeId).timeoutMs,
  ): void {
    this.#requests.ask(to, question, this.#nowMs, timeoutMs, done);
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
    // To have rested as long as it was told to does not make a caller late.
    const gap = nowMs - Math.max(this.#nowMs, this.#restMs - TICK_MS_MAX);
    this.#nowMs = nowMs;
    if (gap <= LATE_MS) return;
    // Of a shorter delay only the excess is forgiven: a node that is always late must still suspect the dead.
    this.#detector.stoodStill(gap - LATE_MS, gap > STOOD_STILL_MS, nowMs);
    this.#requests.extend(gap - LATE_MS);
  }

  #taken(): RingEffect[] {
    if (this.#isWatchStale) {
      this.#isWatchStale = false;
      this.#rewatch();
    }
    const effects = this.#effects;
    if (effects.length > 0) this.#effects = [];
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
