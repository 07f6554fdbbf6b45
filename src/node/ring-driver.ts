/**
 * Runs this server's `Ring`: owns its clock, its timer and its randomness, and
 * turns its effects into messages, events and settled promises.
 */
import { EventEmitter } from "node:events";
import { UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import { type Identifier, isNodeId, type NodeId, nodeIdOf } from "../ring/identifier.ts";
import type { Found } from "../ring/lookup.ts";
import type { ContactRecord, Member } from "../ring/member.ts";
import type { RingMessage } from "../ring/message.ts";
import { placementOf } from "../ring/placement.ts";
import { Ring } from "../ring/ring.ts";
import type { RingEffect } from "../ring/ring-effect.ts";

/** Ticks are no nearer to one another, and farther apart only while nothing is due. */
const TICK_MS = 25;
/** What is put off by less leaves the timer as it is: set anew with each frame it would cost more than a wake for nothing. */
const PUT_OFF_MS = 50;
const CONTACTS_MAX = 1024;
const CONTACTS_MS = 1000;
const PINGS_MAX = 1024;
/** A restarted server that finds no member within this time stands alone; rings merge later. */
const ALONE_AFTER_MS = 3000;
const NOBODY: ReadonlySet<string> = new Set();

interface Waiting<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

export interface RingView {
  readonly predecessor: NodeId | null;
  readonly successors: readonly NodeId[];
  readonly fingers: readonly NodeId[];
  readonly watched: readonly {
    readonly nodeId: NodeId;
    readonly suspected: boolean;
    readonly reachable: boolean;
    readonly lastHeardMsAgo: number;
    readonly rttMs: number | undefined;
  }[];
}

interface RingEvents {
  suspected: [nodeId: NodeId];
  alive: [nodeId: NodeId];
  /** Neighbours or members are others than before. */
  changed: [];
}

export class RingDriver extends EventEmitter<RingEvents> {
  readonly self: Member;
  readonly #ring: Ring;
  readonly #send: (to: PeerRef, message: RingMessage) => void;
  readonly #onContacts: (list: ContactRecord[]) => void;
  readonly #led: Led;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #tickedMs = performance.now();
  #isArming = false;
  // The ring counts in this process's running time, records in time since the epoch.
  readonly #epochMs = Date.now() - performance.now();
  /** The last to each node, until it is answered. */
  readonly #pings = new Map<NodeId, { readonly id: number; readonly sentMs: number }>();
  readonly #lookups = new Map<number, Waiting<Found>>();
  readonly #choices = new Map<number, Waiting<NodeId>>();
  #joins: Waiting<void>[] = [];
  #nextRequest = 1;
  #contactsDueMs = 0;
  #areContactsStale = false;
  #isVisible = false;
  #isStopped = false;

  constructor(options: {
    self: Member;
    send(to: PeerRef, message: RingMessage): void;
    /** Numbers in [0, 1). */
    random: () => number;
    log: Log;
    settings: { ringSuccessors: number; suspectAfterMs: number };
    /** As `onContacts` gave them last; `seenMs` since the Unix epoch. */
    contacts: readonly ContactRecord[];
    /** Called at most once a second, with what is to be kept for the next start. */
    onContacts(list: ContactRecord[]): void;
    led: Led;
  }) {
    super();
    this.self = options.self;
    this.#send = options.send;
    this.#onContacts = options.onContacts;
    this.#led = options.led;
    this.#log = options.log;
    this.#ring = new Ring({
      self: options.self,
      settings: {
        successors: options.settings.ringSuccessors,
        suspectAfterMs: options.settings.suspectAfterMs,
        contactsMax: CONTACTS_MAX,
      },
      random: options.random,
      contacts: options.contacts.map((record) => ({ ...record, seenMs: record.seenMs - this.#epochMs })),
      nowMs: performance.now(),
    });
    this.#arm();
  }

  get isMember(): boolean {
    return this.#ring.isMember;
  }

  /** Ring of one: the first server of a cluster. */
  bootstrap(): void {
    this.#perform(this.#ring.bootstrap(performance.now()));
  }

  /**
   * A new server: resolves when others see it as a member of the ring. Tries
   * until it is, or `signal` aborts.
   *
   * @throws {UnavailableError} aborted, or this server stopped.
   */
  async join(contacts: readonly PeerRef[], signal?: AbortSignal): Promise<void> {
    const members = contacts
      .filter((contact) => contact.nodeId !== this.self.nodeId)
      .flatMap(({ nodeId, address }) =>
        isNodeId(nodeId) ? [{ nodeId, address, zone: "", incarnation: 0, instance: "" }] : [],
      );
    await this.#join(members, Number.POSITIVE_INFINITY, signal);
  }

  /** A restarted server: joins through the contacts that it kept; alone, when no member answers within 3 s. */
  async rejoin(): Promise<void> {
    const contacts = this.#ring.contacts().sort((a, b) => b.seenMs - a.seenMs);
    await this.#join(contacts, contacts.length === 0 ? 0 : ALONE_AFTER_MS);
  }

  receive(from: PeerSender, message: RingMessage): void {
    const { nodeId } = from;
    if (this.#isStopped || !isNodeId(nodeId)) return;
    const carriesLed = message.kind === "ping" || message.kind === "pong";
    if (carriesLed && message.led.byteLength > 0) {
      this.#led.incoming(nodeId, from.incarnation, message.led, this.#tookMs(nodeId, message));
    }
    this.#perform(this.#ring.step({ ...from, nodeId }, message, performance.now()));
  }

  /** A sign of life by a message that is not the ring's. */
  heard(nodeId: string, incarnation: number): void {
    if (this.#isStopped || !isNodeId(nodeId)) return;
    this.#perform(this.#ring.heard(nodeId, incarnation, performance.now()));
  }

  /** The connection to that node ended by itself. */
  closed(nodeId: string): void {
    if (this.#isStopped || !isNodeId(nodeId)) return;
    this.#perform(this.#ring.closed(nodeId, performance.now()));
  }

  /** A connection to that node's address was refused. */
  refused(nodeId: string): void {
    if (this.#isStopped || !isNodeId(nodeId)) return;
    this.#perform(this.#ring.refused(nodeId, performance.now()));
  }

  /** Everyone known and not suspected: self, neighbours, watched, fingers; in ring order from self. */
  members(): Member[] {
    return this.#ring.members();
  }

  /** Where a node ever heard of listens; says nothing about whether it lives. */
  member(nodeId: NodeId): Member | undefined {
    return this.#ring.member(nodeId);
  }

  /** Of a node that is not watched nothing is known: false. */
  isSuspected(nodeId: NodeId): boolean {
    return this.#ring.isSuspected(nodeId);
  }

  /** False when it answers none of our questions, though others may well reach it. */
  isReachable(nodeId: NodeId): boolean {
    return this.#ring.isReachable(nodeId);
  }

  /**
   * The first `count` distinct live nodes at or after `point`, from the own view;
   * all, when the ring has fewer. Undefined when the view does not reach so far.
   */
  successorsOfLocally(point: Identifier, count: number): Member[] | undefined {
    return this.#ring.successorsOf(nodeIdOf(point), count);
  }

  /**
   * Who should keep the `count` copies of what stands at `point`, in ring order,
   * nobody of `except`, no two of one zone while others are in sight; from the
   * own view. Undefined when that does not reach so far.
   */
  placementLocally(point: Identifier, count: number, except: ReadonlySet<string>): Member[] | undefined {
    return this.#ring.placement(nodeIdOf(point), count, except);
  }

  /**
   * The same, asking others. `hops`: messages that lay on the way; `path`: who answered.
   *
   * @throws {UnavailableError} no owner of `point` answered within 4 s.
   */
  async placement(
    point: Identifier,
    count: number,
    except: ReadonlySet<string> = NOBODY,
  ): Promise<{ members: Member[]; hops: number; path: NodeId[] }> {
    const found = await this.#lookup(nodeIdOf(point));
    const order = [found.owner, ...found.successors].filter(
      ({ nodeId }) => !this.isSuspected(nodeId) && !except.has(nodeId),
    );
    const members = placementOf(
      order.map((member) => this.#ring.member(member.nodeId) ?? member),
      count,
    );
    return { members, hops: found.hops, path: [...found.path] };
  }

  /**
   * A point for a new node: the middle of the largest arc in a sample of the
   * circle, reserved with its owner for 10 s. Run by a member on behalf of the
   * one that is to join; never gives one point twice within those 10 s.
   *
   * @throws {UnavailableError} this server is no member, or no owner answered.
   */
  chooseIdentifier(): Promise<NodeId> {
    return new Promise((resolve, reject) => {
      const request = this.#nextRequest++;
      this.#choices.set(request, { resolve, reject });
      this.#perform(this.#ring.choose(request, performance.now()));
    });
  }

  /** Replaces the set of nodes that share a replica group with this one. */
  watch(nodeIds: Iterable<NodeId>): void {
    this.#perform(this.#ring.watch(nodeIds, performance.now()));
  }

  /** One that speaks as a member of a group that is kept here, and that was not known. */
  meet({ nodeId, address, incarnation, instance }: PeerSender): void {
    if (this.#isStopped || !isNodeId(nodeId)) return;
    this.#perform(this.#ring.meet({ nodeId, address, incarnation, instance, zone: "" }, performance.now()));
  }

  /** What `led.outgoing` gives has changed: watched peers hear it with the next tick, not only with the next ping. */
  ledChanged(): void {
    this.#ring.tellAll();
    this.#arm();
  }

  /** @param load tasks running and waiting per scrape thread. */
  setLoad(load: number): void {
    this.#ring.load = load;
  }

  loadOf(nodeId: NodeId): number | undefined {
    return this.#ring.loadOf(nodeId);
  }

  /** Says goodbye to those around. What was sent may still be on its way. */
  async leave(): Promise<void> {
    this.#perform(this.#ring.leave(performance.now()));
  }

  view(): RingView {
    return {
      predecessor: this.#ring.predecessor?.nodeId ?? null,
      successors: this.#ring.successors.map((member) => member.nodeId),
      fingers: this.#ring.fingers.map((member) => member.nodeId),
      watched: this.#ring.watched(performance.now()),
    };
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearTimeout(this.#timer);
    if (this.#areContactsStale) this.#keepContacts();
    const error = new UnavailableError("this server is stopping; ask another one");
    for (const waiting of [...this.#lookups.values(), ...this.#choices.values(), ...this.#joins]) {
      waiting.reject(error);
    }
    this.#lookups.clear();
    this.#choices.clear();
    this.#joins = [];
  }

  async #join(contacts: readonly Member[], aloneAfterMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#isVisible) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#joins.push({ resolve, reject });
    const abort = () => {
      reject(new UnavailableError("joining the ring was given up", { cause: signal?.reason }));
    };
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#perform(this.#ring.join(contacts, aloneAfterMs, performance.now()));
      await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  #lookup(point: NodeId): Promise<Found> {
    return new Promise((resolve, reject) => {
      const request = this.#nextRequest++;
      this.#lookups.set(request, { resolve, reject });
      this.#perform(this.#ring.lookup(request, point, performance.now()));
    });
  }

  #tick(): void {
    const nowMs = performance.now();
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    // What was due when the timer was set may have been put off since.
    if (nowMs >= this.#dueMs()) {
      this.#tickedMs = nowMs;
      this.#perform(this.#ring.tick(nowMs));
      if (this.#areContactsStale && nowMs >= this.#contactsDueMs) {
        this.#contactsDueMs = nowMs + CONTACTS_MS;
        this.#keepContacts();
      }
    }
    this.#arm();
  }

  /** When the next tick is wanted. */
  #dueMs(): number {
    const contactsMs = this.#areContactsStale ? this.#contactsDueMs : Number.POSITIVE_INFINITY;
    return Math.max(this.#tickedMs + TICK_MS, Math.min(this.#ring.restUntil(), contactsMs));
  }

  /** Sets the timer for what is due next, once all that happens in this turn has happened. */
  #arm(): void {
    if (this.#isArming || this.#isStopped) return;
    this.#isArming = true;
    queueMicrotask(() => {
      this.#isArming = false;
      if (this.#isStopped) return;
      const dueMs = this.#dueMs();
      const byMs = dueMs - this.#timerDueMs;
      if (dueMs === Number.POSITIVE_INFINITY || (byMs >= 0 && byMs < PUT_OFF_MS)) return;
      this.#timerDueMs = dueMs;
      clearTimeout(this.#timer);
      // Timers count from the start of their turn: without the one more they are often too early, and set again.
      this.#timer = setTimeout(() => this.#tick(), Math.max(1, Math.ceil(dueMs - performance.now()) + 1));
    });
  }

  #keepContacts(): void {
    this.#areContactsStale = false;
    this.#onContacts(
      this.#ring
        .contacts()
        // One that has never spoken, nor been named by a member, is a hope and not a contact.
        .filter((record) => record.incarnation > 0)
        .map((record) => ({ ...record, seenMs: Math.round(record.seenMs + this.#epochMs) })),
    );
  }

  #perform(effects: readonly RingEffect[]): void {
    let isChanged = false;
    for (const effect of effects) {
      switch (effect.kind) {
        case "send":
          this.#deliver(effect.to, effect.message);
          break;
        case "suspected":
          this.#log.warn("ring.suspected", { peer: effect.nodeId });
          this.emit("suspected", effect.nodeId);
          break;
        case "alive":
          this.#log.info("ring.alive", { peer: effect.nodeId });
          this.emit("alive", effect.nodeId);
          break;
        case "changed":
          isChanged = true;
          break;
        case "joined":
          this.#isVisible = true;
          for (const waiting of this.#joins.splice(0)) waiting.resolve();
          break;
        case "found":
          this.#settle(this.#lookups, effect.request)?.resolve(effect.found);
          break;
        case "lost":
          this.#settle(this.#lookups, effect.request)?.reject(
            new UnavailableError("no owner of that point of the ring answered; try again"),
          );
          break;
        case "chosen":
          this.#settle(this.#choices, effect.request)?.resolve(effect.point);
          break;
        case "notChosen":
          this.#settle(this.#choices, effect.request)?.reject(
            new UnavailableError("no place on the ring could be reserved; try again"),
          );
          break;
        case "contacts":
          this.#areContactsStale = true;
          break;
      }
    }
    if (isChanged) this.emit("changed");
    this.#arm();
  }

  #settle<T>(waiting: Map<number, Waiting<T>>, request: number): Waiting<T> | undefined {
    const found = waiting.get(request);
    waiting.delete(request);
    return found;
  }

  /** Since the ping that `message` answers, if that is the last one. */
  #tookMs(from: NodeId, message: RingMessage): number | undefined {
    const ping = message.kind === "pong" ? this.#pings.get(from) : undefined;
    if (ping === undefined || message.kind !== "pong" || ping.id !== message.id) return undefined;
    this.#pings.delete(from);
    return performance.now() - ping.sentMs;
  }

  #deliver(to: PeerRef & { nodeId: NodeId }, message: RingMessage): void {
    if (message.kind === "ping") {
      if (this.#pings.size >= PINGS_MAX) this.#pings.clear();
      this.#pings.set(to.nodeId, { id: message.id, sentMs: performance.now() });
    }
    const carriesLed = message.kind === "ping" || message.kind === "pong";
    const whole = carriesLed ? { ...message, led: this.#led.outgoing(to.nodeId) } : message;
    this.#send({ nodeId: to.nodeId, address: to.address }, whole);
  }
}

/** Bytes that travel with pings and their answers; what they mean is their owner's business. */
interface Led {
  /** What `peer` should know now. May be empty. */
  outgoing(peer: NodeId): Uint8Array;
  /** @param tookMs since the ping that the bytes came in answer to; undefined: they came in no answer. */
  incoming(peer: NodeId, incarnation: number, bytes: Uint8Array, tookMs: number | undefined): void;
}
