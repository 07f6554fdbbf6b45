/**
 * One node's part in a Chord ring (Stoica et al., SIGCOMM 2001), kept valid by
 * Zave's operations. It answers who follows a point, who is alive nearby, and
 * where the next hop is; it decides nothing about data.
 *
 * Pure: its driver owns clock and network. Every call returns what is to be done
 * about it, in order.
 */
import { clockwiseFrom } from "./arc.ts";
import type { PeerView } from "./failure-detector.ts";
import type { NodeId } from "./identifier.ts";
import { IdentifierChoice } from "./identifier-choice.ts";
import { Joining } from "./joining.ts";
import type { ContactRecord, Member, Sender } from "./member.ts";
import type { RingMessage } from "./message.ts";
import { OwnClock } from "./own-clock.ts";
import type { RingEffect } from "./ring-effect.ts";
import { RingParts, type RingSettings } from "./ring-parts.ts";

/** What is kept for the next start is at most so much older than what is known. Who is new is kept at once. */
const FORGET_MS = 300_000;

export class Ring {
  readonly self: Member;
  readonly #settings: RingSettings;
  readonly #random: () => number;
  readonly #parts: RingParts;
  readonly #clock: OwnClock;
  #effects: RingEffect[] = [];
  #isMember = false;
  #hasLeft = false;
  #isJoinTold = false;
  #isWatchStale = false;
  #load = 0;
  #replicaPeers: ReadonlySet<NodeId> = new Set();
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
    this.#clock = new OwnClock(nowMs);
    this.#parts = new RingParts(
      {
        self,
        settings,
        random,
        nowMs: () => this.#nowMs,
        isMember: () => this.#isMember,
        load: () => this.#load,
        isReplicaPeer: (nodeId) => this.#replicaPeers.has(nodeId),
        tell: (effect) => this.#effects.push(effect),
        watchOthers: () => {
          this.#isWatchStale = true;
        },
        notified: () => this.#tellJoined(),
        askedBy: (asker) => this.#joining?.askedBy(asker),
      },
      options.contacts,
    );
  }

  /** Whether others may count on it as a node of the ring. */
  get isMember(): boolean {
    return this.#isMember;
  }

  get successors(): readonly Member[] {
    return this.#parts.stabilisation.successors.members;
  }

  get predecessor(): Member | undefined {
    return this.#parts.stabilisation.predecessor;
  }

  get fingers(): readonly Member[] {
    return this.#parts.fingers.distinct();
  }

  /** Each finger with the point that it should own, from the farthest. */
  fingerStarts(): [start: NodeId, finger: Member][] {
    return this.#parts.fingers.starts();
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
    for (const contact of contacts) this.#parts.starts.learn(contact);
    this.#joining = new Joining({
      contacts,
      contactsMax: this.#settings.contactsMax,
      nowMs,
      aloneMs: nowMs + aloneAfterMs,
      routes: {
        random: this.#random,
        lookupSelf: (contact, done) => this.#parts.routing.lookupSelf(contact, done),
        successorsOf: (owner, done) =>
          this.#parts.ask(owner, { kind: "neighbours" }, (answer) =>
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
        predecessor: this.#parts.stabilisation.livePredecessor ?? null,
        successors: this.#parts.stabilisation.successors.chain.filter(
          (member) => !this.#parts.starts.isDead(member),
        ),
      };
      // Neighbours mend the ring; those that merely watch need not suspect it first.
      for (const peer of this.#parts.detector.live()) this.#parts.send(peer, message);
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
    if (!this.#isMember || this.#joining !== undefined || this.#parts.routing.isBusy) {
      return this.#clock.rest(this.#nowMs);
    }
    const pingMs = this.#parts.detector.dueMs;
    return this.#clock.rest(
      Math.min(
        this.#parts.requests.dueMs,
        pingMs,
        this.#parts.stabilisation.dueMs,
        this.#parts.fingerRepair.dueMs,
        // These have time until the next ping, which is never far.
        pingMs < Number.POSITIVE_INFINITY
          ? Number.POSITIVE_INFINITY
          : Math.min(this.#parts.healing.dueMs, this.#forgetDueMs),
      ),
    );
  }

  /** Lets time pass. `nowMs` never goes backwards. */
  tick(nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#parts.requests.expire(nowMs);
    this.#parts.routing.tick(nowMs);
    this.#joining?.tick(nowMs);
    if (this.#isMember) {
      this.#parts.detector.tick(nowMs);
      this.#parts.stabilisation.tick(nowMs);
      this.#parts.fingerRepair.tick(nowMs);
      this.#parts.healing.tick(nowMs);
    }
    if (nowMs >= this.#forgetDueMs) {
      this.#forgetDueMs = nowMs + FORGET_MS;
      this.#parts.book.dropUnseen(nowMs);
      this.#effects.push({ kind: "contacts" });
    }
    return this.#taken();
  }

  /** Takes in one message. Stale or repeated ones are harmless. */
  step(from: Sender, message: RingMessage, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    if (from.nodeId === this.self.nodeId || !this.#parts.starts.admit(from)) return this.#taken();
    if (message.kind === "ping" || message.kind === "pong") {
      this.#parts.detector.heard(from.nodeId, nowMs, message.load);
      this.#parts.starts.standsIn(from.nodeId, message.zone);
      this.#parts.stabilisation.told(from, message.around, nowMs);
    } else {
      this.#parts.detector.heard(from.nodeId, nowMs);
    }
    this.#parts.reception.receive(from, message);
    if (message.kind === "ping") this.#pinged(from.nodeId, nowMs);
    return this.#taken();
  }

  #pinged(by: NodeId, nowMs: number): void {
    const { detector, stabilisation } = this.#parts;
    detector.pingedUs(by, nowMs);
    if (this.#isMember && detector.pingAlso(nowMs)) stabilisation.tick(nowMs);
  }

  /** A sign of life on another way. */
  heard(nodeId: NodeId, incarnation: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    const known = this.#parts.book.get(nodeId);
    if (known === undefined || incarnation >= known.incarnation) this.#parts.detector.heard(nodeId, nowMs);
    return this.#taken();
  }

  /** A connection to this node ended: it may have died. It is pinged at the next tick. */
  closed(nodeId: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    if (this.#isMember) this.#parts.detector.closed(nodeId, nowMs);
    return this.#taken();
  }

  /** A connection to this node was refused: nothing listens there. */
  refused(nodeId: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#parts.requests.refused(nodeId, nowMs);
    if (this.#isMember) this.#parts.detector.refused(nodeId, nowMs);
    return this.#taken();
  }

  /** Ends in one `found` or `lost` effect that carries `request`, within four seconds. */
  lookup(request: number, point: NodeId, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#parts.routing.search(point, (found) => {
      this.#effects.push(found === undefined ? { kind: "lost", request } : { kind: "found", request, found });
    });
    return this.#taken();
  }

  /** Finds and reserves a point for a new node. Ends in one `chosen` or `notChosen` effect that carries `request`. */
  choose(request: number, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    const choice = new IdentifierChoice(
      8 + 4 * Math.ceil(Math.log2(this.#parts.routing.sizeEstimate())),
      {
        random: this.#random,
        wholeRing: () => this.#parts.routing.wholeRing(),
        lookup: (point, done) => this.#parts.routing.lookup(point, done),
        reserve: (owner, point, known, done) => {
          if (owner.nodeId === this.self.nodeId)
            done({ kind: "reserved", id: 0, ...this.#parts.reserve(point, known) });
          else this.#parts.ask(owner, { kind: "reserve", point, known }, done);
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

  /** One that shares a replica group with this one, and may lie out of its sight: from now on it is known where it is. */
  meet(member: Member, nowMs: number): RingEffect[] {
    this.#observe(nowMs);
    this.#parts.starts.learn(member);
    return this.#taken();
  }

  /** What is told with pings has changed: all watched peers hear it at the next tick. */
  tellAll(): void {
    this.#parts.detector.tellAll();
  }

  set load(load: number) {
    this.#load = load;
    this.#parts.detector.load = load;
  }

  loadOf(nodeId: NodeId): number | undefined {
    return nodeId === this.self.nodeId ? this.#load : this.#parts.detector.loadOf(nodeId);
  }

  /** Also of one that said goodbye. */
  isSuspected(nodeId: NodeId): boolean {
    return this.#parts.detector.isSuspected(nodeId) || this.#parts.book.isGone(nodeId);
  }

  isReachable(nodeId: NodeId): boolean {
    return this.#parts.detector.isReachable(nodeId, this.#nowMs);
  }

  member(nodeId: NodeId): Member | undefined {
    return this.#parts.member(nodeId);
  }

  /** Self and everyone in lists, fingers and groups that is not dead, in ring order from self. */
  members(): Member[] {
    const live = this.#parts.detector.live().filter((member) => !this.#parts.starts.isDead(member));
    const order = clockwiseFrom(this.self.nodeId);
    return [this.self, ...live.sort((a, b) => order(a.nodeId, b.nodeId))];
  }

  contacts(): ContactRecord[] {
    return this.#parts.book.records();
  }

  watched(nowMs: number): PeerView[] {
    return this.#parts.detector.view(nowMs);
  }

  /** As `Routing.placement`. */
  placement(point: NodeId, count: number, except: ReadonlySet<string>): Member[] | undefined {
    return this.#parts.routing.placement(point, count, except);
  }

  /** As `Routing.successorsOf`. */
  successorsOf(point: NodeId, count: number): Member[] | undefined {
    return this.#parts.routing.successorsOf(point, count);
  }

  sizeEstimate(): number {
    return this.#parts.routing.sizeEstimate();
  }

  #enter(candidates: readonly Member[]): void {
    this.#joining = undefined;
    this.#isMember = true;
    this.#parts.healing.start(this.#nowMs);
    this.#parts.fingerRepair.start(this.#nowMs);
    this.#parts.stabilisation.enter(candidates, this.#nowMs);
    this.#parts.changed();
    if (candidates.length === 0) this.#tellJoined();
  }

  /** Visible once a predecessor has come, or alone. */
  #tellJoined(): void {
    if (this.#isJoinTold) return;
    this.#isJoinTold = true;
    this.#effects.push({ kind: "joined" });
  }

  get #nowMs(): number {
    return this.#clock.nowMs;
  }

  /** Notes the time, and whether this process itself stood still since the last call. */
  #observe(nowMs: number): void {
    const delay = this.#clock.called(nowMs);
    if (delay === undefined) return;
    this.#parts.detector.stoodStill(delay.excessMs, delay.isStandstill, nowMs);
    this.#parts.requests.extend(delay.excessMs);
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
      for (const nodeId of this.#replicaPeers) add(this.#parts.book.get(nodeId));
      for (const member of this.#parts.fingers.distinct()) add(member);
      for (const member of this.successors) add(member);
      add(this.predecessor);
    }
    this.#parts.detector.watch(watched, this.#nowMs);
  }
}
