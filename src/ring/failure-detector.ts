/**
 * Who is alive nearby. Watched are the neighbours on the ring, the fingers in
 * use and those that share a replica group, never everybody.
 *
 * Silence alone suspects nobody: up to three others are asked for a second
 * opinion from a fresh ping, as in SWIM (Das, Gupta, Motivala, DSN 2002). Alive
 * (it speaks) and reachable (it answers us) are kept apart: a cable that is cut
 * in one direction must neither kill a node nor freeze the ring around it.
 */
import type { NodeId } from "./identifier.ts";
import type { Member } from "./member.ts";
import { RoundTrip } from "./round-trip.ts";

/** A ping goes to those silent, or not spoken to, for this long: while there is a load to tell of, and at rest. */
const PING_MS_BUSY = 250;
const PING_MS = 400;
/**
 * Two that watch each other ping in turn: one exchange serves both, and each asks often enough to see whether
 * it is answered. Whoever has the turn is this much earlier than the other.
 */
const TURN_MS = 25;
/** Pings so near to one another have crossed: then the turn is the lower node's. */
const CROSSED_MS = 100;
/** Who has not pinged for this long does not take turns. */
const TURN_LOST_MS = 1000;
/** Until it speaks, one that was pinged is pinged again. */
const PING_AGAIN_MS = 225;
/** How long an answer is waited for at least: by then the next ping is almost due. */
const PING_TIMEOUT_MS_MIN = 200;
/** Silence counts from this long before the first ping that stays without any sign of life. */
const ASKED_AFTER_MS = 250;
/**
 * Pings that are due within this part of the time between two go with one that is due now, or with the answer to
 * one: what a node has to do at rest it does at once, and those around it in the same moments, since each ping
 * wakes the next. Half of the time brings any two rhythms together, after which nothing is early any more.
 */
const TOGETHER_PART = 0.5;
const SUSPECTED_PING_MS = 1000;
const SILENT_MS = 800;
const PROBING_MS = 400;
/** Above this many watched, suspicion takes a quarter longer. */
const WATCHED_FEW = 16;
const WATCHED_MANY_FACTOR = 1.25;
const PROBERS = 3;
const REFUSALS_WITHIN_MS = 250;
/** Who closes connections all the time is not pinged more often for it than this. */
const CLOSED_AGAIN_MS = 250;
const UNREACHABLE_MS = 2000;
const UNREACHABLE_FAILURES = 4;
/** How long a verdict outlives watching. */
const VERDICT_MS = 2000;

interface Probing {
  readonly sinceMs: number;
  /** How many said that they can't reach it either. */
  denials: number;
}

interface Times {
  readonly suspectAfterMs: number;
  readonly silentMs: number;
  readonly probingMs: number;
}

class Peer {
  member: Member;
  /** Last sign of life, its own or by a second opinion. */
  heardMs: number;
  /** Last message of its own. */
  spokeMs = Number.NEGATIVE_INFINITY;
  answeredMs: number;
  failures = 0;
  isSuspected = false;
  isWatched = true;
  lapsesMs = Number.POSITIVE_INFINITY;
  pingedMs = Number.NEGATIVE_INFINITY;
  /** When its last ping came. */
  pingedUsMs = Number.NEGATIVE_INFINITY;
  /** The first ping after `heardMs`; not later than that while there was none. */
  askedMs = Number.NEGATIVE_INFINITY;
  /** When a ping or a pong last went there. */
  toldMs = Number.NEGATIVE_INFINITY;
  load: number | undefined;
  refusedMs = Number.NEGATIVE_INFINITY;
  closedMs = Number.NEGATIVE_INFINITY;
  isDead = false;
  probing: Probing | undefined;
  readonly roundTrip = new RoundTrip();

  constructor(member: Member, nowMs: number) {
    this.member = member;
    this.heardMs = nowMs;
    this.answeredMs = nowMs;
  }

  get isAsked(): boolean {
    return this.askedMs > this.heardMs;
  }

  /** Since when its silence counts: never, unless it was asked. */
  get silentSinceMs(): number {
    return this.isAsked ? Math.max(this.heardMs, this.askedMs - ASKED_AFTER_MS) : Number.POSITIVE_INFINITY;
  }
}

export interface PeerView {
  readonly nodeId: NodeId;
  readonly suspected: boolean;
  readonly reachable: boolean;
  readonly lastHeardMsAgo: number;
  readonly rttMs: number | undefined;
}

/** What the detector asks of its ring. */
export interface Detection {
  /** @param timeoutMs how long the answer is waited for. */
  ping(to: Member, timeoutMs: number): void;
  /** Asks `prober` for its opinion on `target`; the answer comes back through `opinion`. */
  probe(prober: Member, target: Member): void;
  suspected(nodeId: NodeId): void;
  alive(nodeId: NodeId): void;
}

export class FailureDetector {
  readonly #self: NodeId;
  readonly #suspectAfterMs: number;
  readonly #random: () => number;
  readonly #detection: Detection;
  readonly #peers = new Map<NodeId, Peer>();
  #watchedCount = 0;
  /** What is told of this node's own. */
  #load = 0;
  /** No tick before it does anything. What is heard only postpones; all else that matters resets it. */
  #idleUntilMs = Number.NEGATIVE_INFINITY;
  /** Of all peers, for those never measured. */
  readonly #roundTrip = new RoundTrip();

  constructor(options: {
    self: NodeId;
    suspectAfterMs: number;
    random: () => number;
    detection: Detection;
  }) {
    this.#self = options.self;
    this.#suspectAfterMs = options.suspectAfterMs;
    this.#random = options.random;
    this.#detection = options.detection;
  }

  /** Replaces the set of watched nodes. One that is new to it gets the full time to speak. */
  watch(members: ReadonlyMap<NodeId, Member>, nowMs: number): void {
    this.#reset();
    for (const [nodeId, peer] of this.#peers) {
      if (!peer.isWatched || members.has(nodeId)) continue;
      peer.isWatched = false;
      peer.probing = undefined;
      peer.lapsesMs = nowMs + VERDICT_MS;
    }
    for (const [nodeId, member] of members) {
      const peer = this.#peers.get(nodeId);
      if (peer === undefined) {
        this.#peers.set(nodeId, new Peer(member, nowMs));
      } else if (!peer.isWatched) {
        peer.isWatched = true;
        peer.lapsesMs = Number.POSITIVE_INFINITY;
        peer.heardMs = nowMs;
        peer.answeredMs = nowMs;
        peer.failures = 0;
      }
    }
    this.#watchedCount = members.size;
  }

  isWatched(nodeId: NodeId): boolean {
    return this.#peers.get(nodeId)?.isWatched === true;
  }

  isSuspected(nodeId: NodeId): boolean {
    return this.#peers.get(nodeId)?.isSuspected === true;
  }

  /** False when it answered none of our last questions, though it may well be alive. */
  isReachable(nodeId: NodeId, nowMs: number): boolean {
    const peer = this.#peers.get(nodeId);
    return peer === undefined || isReachable(peer, nowMs);
  }

  loadOf(nodeId: NodeId): number | undefined {
    return this.#peers.get(nodeId)?.load;
  }

  /** This node's own, told with pings. */
  set load(load: number) {
    if (load > 0 && this.#load === 0) this.#reset();
    this.#load = load;
  }

  roundTripOf(nodeId: NodeId): RoundTrip {
    const peer = this.#peers.get(nodeId);
    return peer === undefined ? this.#roundTrip : this.#roundTripOf(peer);
  }

  /** Whether it spoke itself within the last `ms`. */
  hasSpokenWithin(nodeId: NodeId, ms: number, nowMs: number): boolean {
    const peer = this.#peers.get(nodeId);
    return peer !== undefined && nowMs - peer.spokeMs <= ms;
  }

  /** Any message is a sign of life. */
  heard(nodeId: NodeId, nowMs: number, load?: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    peer.spokeMs = nowMs;
    if (load !== undefined) peer.load = load;
    this.#lives(peer, nowMs);
  }

  /** A question of ours was answered. */
  answered(nodeId: NodeId, tookMs: number, nowMs: number): void {
    this.#roundTrip.measured(tookMs);
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    peer.roundTrip.measured(tookMs);
    peer.answeredMs = nowMs;
    peer.failures = 0;
  }

  unanswered(nodeId: NodeId): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    peer.failures++;
    peer.roundTrip.missed();
    this.#reset();
  }

  /** It pinged this node. */
  pingedUs(nodeId: NodeId, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer !== undefined) peer.pingedUsMs = nowMs;
  }

  /** A ping or a pong goes there now. */
  told(nodeId: NodeId, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer !== undefined) peer.toldMs = nowMs;
  }

  renew(member: Member): void {
    const peer = this.#peers.get(member.nodeId);
    if (peer !== undefined) peer.member = member;
  }

  /** A connection to it ended, as when its process dies: the next tick pings it, to be answered or refused. */
  closed(nodeId: NodeId, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined || !peer.isWatched || peer.isSuspected) return;
    if (nowMs - peer.closedMs < CLOSED_AGAIN_MS) return;
    peer.closedMs = nowMs;
    this.#reset();
    peer.pingedMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * A connection was refused: nothing listens there. Twice within 250 ms means
   * that the process died; one outside opinion then suffices.
   */
  refused(nodeId: NodeId, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined || !peer.isWatched || peer.isSuspected) return;
    this.#reset();
    const isSecond = nowMs - peer.refusedMs <= REFUSALS_WITHIN_MS;
    peer.refusedMs = nowMs;
    // The next tick pings again, to be refused again or to learn that it was a hiccup.
    if (!isSecond) peer.pingedMs = Number.NEGATIVE_INFINITY;
    else if (!peer.isDead) {
      peer.isDead = true;
      if (peer.probing === undefined) this.#startProbing(peer, nowMs);
      else if (peer.probing.denials > 0) this.#suspect(peer);
    }
  }

  /** What a prober found out about `target`. */
  opinion(target: NodeId, isAlive: boolean, nowMs: number): void {
    const peer = this.#peers.get(target);
    if (peer === undefined || !peer.isWatched) return;
    if (isAlive) {
      this.#lives(peer, nowMs);
      return;
    }
    if (peer.probing === undefined) return;
    peer.probing.denials++;
    if (peer.isDead && !peer.isSuspected) this.#suspect(peer);
  }

  /** It said goodbye: watched no more, and no verdict is kept. */
  forget(nodeId: NodeId): void {
    this.#peers.delete(nodeId);
  }

  /** This process itself stood still: what it did not hear in the meantime says nothing. */
  stoodStill(ms: number, isLong: boolean, nowMs: number): void {
    this.#reset();
    for (const peer of this.#peers.values()) {
      if (peer.isAsked) peer.askedMs = Math.min(nowMs, peer.askedMs + ms);
      peer.heardMs = isLong ? Math.max(peer.heardMs, nowMs) : Math.min(nowMs, peer.heardMs + ms);
      if (isLong) {
        peer.answeredMs = nowMs;
        peer.failures = 0;
        peer.probing = undefined;
      }
    }
  }

  /** What is told with pings has changed: each watched peer gets one at the next tick. */
  tellAll(): void {
    this.#reset();
    for (const peer of this.#peers.values()) {
      if (peer.isWatched && !peer.isSuspected) peer.pingedMs = Number.NEGATIVE_INFINITY;
    }
  }

  /** Whether a ping was sent there at `nowMs`. */
  isPinged(nodeId: NodeId, nowMs: number): boolean {
    return this.#peers.get(nodeId)?.pingedMs === nowMs;
  }

  /** Another message goes there now: if the last ping was a while ago, the next one goes with it. */
  pingAlong(nodeId: NodeId, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined || !peer.isWatched || peer.isSuspected) return;
    if (nowMs - peer.pingedMs < this.#pingMs / 2) return;
    this.#ping(peer, nowMs);
  }

  /** When `tick` has something to do. */
  get dueMs(): number {
    const times = this.#times;
    let dueMs = Number.POSITIVE_INFINITY;
    for (const peer of this.#peers.values()) {
      const ms = this.#dueMsOf(peer, times);
      if (ms < dueMs) dueMs = ms;
    }
    return dueMs;
  }

  tick(nowMs: number): void {
    if (nowMs < this.#idleUntilMs) return;
    const { dueMs } = this;
    // Being heard postpones a ping, but may also make it this node's turn.
    this.#idleUntilMs = dueMs - TURN_MS;
    if (nowMs < dueMs) return;
    this.#reset();
    const { suspectAfterMs, silentMs, probingMs } = this.#times;
    if (this.#isAnyPingDue(nowMs)) this.#pingTogether(nowMs);
    for (const [nodeId, peer] of this.#peers) {
      if (!peer.isWatched) {
        if (nowMs >= peer.lapsesMs) this.#peers.delete(nodeId);
        continue;
      }
      if (peer.isSuspected) continue;
      const silence = nowMs - peer.silentSinceMs;
      if (peer.probing === undefined) {
        if (silence >= silentMs) this.#startProbing(peer, nowMs);
      } else if (silence >= suspectAfterMs && nowMs - peer.probing.sinceMs >= probingMs) {
        this.#suspect(peer);
      }
    }
  }

  /** A ping came, and this node is awake: what it is about to do itself it does now. True when it pings. */
  pingAlso(nowMs: number): boolean {
    const withinMs = this.#pingMs * TOGETHER_PART;
    if (nowMs < this.#idleUntilMs - withinMs || nowMs < this.dueMs - withinMs) return false;
    return this.#pingTogether(nowMs);
  }

  /** Of the watched. */
  view(nowMs: number): PeerView[] {
    return [...this.#peers.values()]
      .filter((peer) => peer.isWatched)
      .map((peer) => ({
        nodeId: peer.member.nodeId,
        suspected: peer.isSuspected,
        reachable: isReachable(peer, nowMs),
        lastHeardMsAgo: nowMs - peer.heardMs,
        rttMs: peer.roundTrip.meanMs,
      }));
  }

  /** Watched members that are not suspected. */
  live(): Member[] {
    const live: Member[] = [];
    for (const peer of this.#peers.values()) {
      if (peer.isWatched && !peer.isSuspected) live.push(peer.member);
    }
    return live;
  }

  get #times(): Times {
    return {
      suspectAfterMs:
        this.#watchedCount > WATCHED_FEW ? this.#suspectAfterMs * WATCHED_MANY_FACTOR : this.#suspectAfterMs,
      silentMs: Math.min(SILENT_MS, (this.#suspectAfterMs * 2) / 3),
      probingMs: Math.min(PROBING_MS, this.#suspectAfterMs / 3),
    };
  }

  #dueMsOf(peer: Peer, { suspectAfterMs, silentMs, probingMs }: Times): number {
    if (!peer.isWatched) return peer.lapsesMs;
    const pingMs = this.#pingDueMs(peer);
    if (peer.isSuspected) return pingMs;
    const { probing, silentSinceMs } = peer;
    const verdictMs =
      probing === undefined
        ? silentSinceMs + silentMs
        : Math.max(silentSinceMs + suspectAfterMs, probing.sinceMs + probingMs);
    return Math.min(pingMs, verdictMs);
  }

  /** The next tick looks at everybody again. */
  #reset(): void {
    this.#idleUntilMs = Number.NEGATIVE_INFINITY;
  }

  #isAnyPingDue(nowMs: number): boolean {
    for (const peer of this.#peers.values()) {
      if (peer.isWatched && this.#pingDueMs(peer) <= nowMs) return true;
    }
    return false;
  }

  /** Those that are due, and those that soon will be while nobody else has the turn. True when there are any. */
  #pingTogether(nowMs: number): boolean {
    const untilMs = nowMs + this.#pingMs * TOGETHER_PART;
    let isAny = false;
    for (const peer of this.#peers.values()) {
      if (!peer.isWatched) continue;
      const dueMs = this.#pingDueMs(peer);
      if (dueMs > nowMs && (dueMs > untilMs || !this.#hasTurn(peer))) continue;
      this.#ping(peer, nowMs);
      isAny = true;
    }
    return isAny;
  }

  #pingDueMs(peer: Peer): number {
    if (peer.isSuspected) return peer.pingedMs + SUSPECTED_PING_MS;
    if (peer.failures > 0 || peer.isAsked) return peer.pingedMs + PING_AGAIN_MS;
    if (peer.pingedMs === Number.NEGATIVE_INFINITY) return peer.pingedMs;
    const lastMs = Math.max(peer.pingedMs, Math.min(peer.heardMs, peer.toldMs));
    return lastMs + this.#pingMs - (this.#hasTurn(peer) ? TURN_MS : 0);
  }

  /** Of the two it is this node that pings next. */
  #hasTurn(peer: Peer): boolean {
    const { pingedMs, pingedUsMs } = peer;
    if (Math.abs(pingedMs - pingedUsMs) < CROSSED_MS) return this.#self < peer.member.nodeId;
    return pingedUsMs > pingedMs || peer.heardMs - pingedUsMs >= TURN_LOST_MS;
  }

  /** Peers hear of a load, and of its end, more often than of none. */
  get #pingMs(): number {
    return this.#load > 0 ? PING_MS_BUSY : PING_MS;
  }

  #ping(peer: Peer, nowMs: number): void {
    peer.pingedMs = nowMs;
    peer.toldMs = nowMs;
    if (!peer.isAsked) peer.askedMs = nowMs;
    this.#reset();
    this.#detection.ping(peer.member, Math.max(PING_TIMEOUT_MS_MIN, this.#roundTripOf(peer).timeoutMs));
  }

  #roundTripOf(peer: Peer): RoundTrip {
    return peer.roundTrip.isKnown ? peer.roundTrip : this.#roundTrip;
  }

  #startProbing(peer: Peer, nowMs: number): void {
    peer.probing = { sinceMs: nowMs, denials: 0 };
    const others: Peer[] = [];
    for (const other of this.#peers.values()) {
      if (other !== peer && other.isWatched && !other.isSuspected && isReachable(other, nowMs)) {
        others.push(other);
      }
    }
    // Those just heard first: a prober that is dead as well has no opinion.
    others.sort((a, b) => Math.floor((nowMs - a.heardMs) / 500) - Math.floor((nowMs - b.heardMs) / 500));
    const fresh = others.filter((other) => nowMs - other.heardMs < 500);
    const pool = fresh.length >= PROBERS ? fresh : others;
    for (let i = 0; i < PROBERS && pool.length > 0; i++) {
      const at = fresh.length >= PROBERS ? Math.floor(this.#random() * pool.length) : 0;
      const [prober] = pool.splice(at, 1);
      this.#detection.probe(prober!.member, peer.member);
    }
  }

  #lives(peer: Peer, nowMs: number): void {
    if (peer.isSuspected || peer.probing !== undefined) this.#reset();
    peer.heardMs = nowMs;
    peer.probing = undefined;
    peer.isDead = false;
    if (!peer.isSuspected) return;
    peer.isSuspected = false;
    this.#detection.alive(peer.member.nodeId);
  }

  #suspect(peer: Peer): void {
    peer.isSuspected = true;
    peer.probing = undefined;
    this.#detection.suspected(peer.member.nodeId);
  }
}

function isReachable(peer: Peer, nowMs: number): boolean {
  return peer.failures < UNREACHABLE_FAILURES || nowMs - peer.answeredMs < UNREACHABLE_MS;
}
