/**
 * Who runs the next page: this server while its threads have room, else the least
 * loaded other one whose load is lower. To hand a page to another server its
 * clock must have been heard of a moment ago, since the time within which it may
 * start counts on that.
 * Peers decide likewise by the load that this server tells.
 */
import type { Runner } from "../frontier/frontier-state.ts";
import type { NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { Clock } from "./clock.ts";
import type { PoolLike } from "./runner.ts";

export interface SharingRing {
  readonly self: Member;
  members(): Member[];
  isSuspected(nodeId: NodeId): boolean;
  /** Tasks running and waiting per scrape thread. */
  loadOf(nodeId: NodeId): number | undefined;
  setLoad(load: number): void;
}

/** Tasks per thread that keep it busy: fetches overlap. */
const BUSY_PER_THREAD = 4;
/** Beyond this a page would wait longer for a thread than it may. */
const FULL_PER_THREAD = 24;
/** How old the newest word of another's clock may be. */
const CLOCK_AGE_MS = 150;
/** How old it may be for a page that was meant for it a while ago. */
const CLOCK_KEPT_MS = 400;
/** A peer that does not answer is not asked all the time. */
const CLOCK_RETRY_MS = 500;

const LOAD_MS = 100;

interface Peer {
  timeMs: number;
  heardAtMs: number;
  isAsked: boolean;
  askedAtMs: number;
  /** Handed to it by this node and not reported. */
  outstanding: number;
}

export class WorkSharing {
  readonly #ring: SharingRing;
  readonly #pool: PoolLike;
  readonly #clock: Clock;
  readonly #askClock: (member: Member) => Promise<number>;
  readonly #isRunning: () => boolean;
  readonly #onRoom: () => void;
  readonly #peers = new Map<string, Peer>();
  // Decided and not yet with the pool.
  #reserved = 0;
  // There is no timer while nothing is under way.
  #loadTimer: (() => void) | undefined;
  #isStopped = false;

  constructor(options: {
    ring: SharingRing;
    pool: PoolLike;
    clock: Clock;
    /** The time on the member's clock. */
    askClock(member: Member): Promise<number>;
    /** Pages are under way on this server, for whomever. */
    isRunning(): boolean;
    /** Another server has become able to take pages. */
    onRoom(): void;
  }) {
    this.#ring = options.ring;
    this.#pool = options.pool;
    this.#clock = options.clock;
    this.#askClock = options.askClock;
    this.#isRunning = options.isRunning;
    this.#onRoom = options.onRoom;
  }

  get load(): number {
    return (this.#pool.running + this.#pool.waiting + this.#reserved) / this.#pool.threads;
  }

  /** There may be a load: what peers hear of it follows it closely while there is one. */
  tellLoad(): void {
    if (this.#isStopped) return;
    this.#loadTimer ??= this.#clock.after(LOAD_MS, () => {
      this.#loadTimer = undefined;
      const { load } = this;
      this.#ring.setLoad(load);
      if (load > 0 || this.#isRunning()) this.tellLoad();
    });
  }

  stop(): void {
    this.#isStopped = true;
    this.#loadTimer?.();
  }

  /** Each answer is a place taken: give it back with `released`. */
  next(): Runner | undefined {
    this.tellLoad();
    const own = this.load;
    if (own >= BUSY_PER_THREAD) {
      const peer = this.#leastLoaded(own);
      if (peer !== undefined) return peer;
      if (own >= FULL_PER_THREAD) return undefined;
    }
    this.#reserved++;
    return { nodeId: this.#ring.self.nodeId, timeMs: this.#clock.now() };
  }

  /** Here: the page is with the pool now, which counts it, or will never be. Elsewhere: it is reported, or lost. */
  released(nodeId: string): void {
    if (nodeId === this.#ring.self.nodeId) {
      this.#reserved--;
      return;
    }
    const peer = this.#peers.get(nodeId);
    if (peer !== undefined && peer.outstanding > 0) peer.outstanding--;
  }

  /** The peer's clock showed `timeMs` at some moment before now. */
  heardClock(nodeId: string, timeMs: number): void {
    if (nodeId === this.#ring.self.nodeId) return;
    const peer = this.#peerOf(nodeId);
    if (timeMs <= peer.timeMs) return;
    peer.timeMs = timeMs;
    peer.heardAtMs = this.#clock.now();
  }

  /** The newest time heard of a server's clock; undefined: too long ago to hand it a page. */
  timeOf(nodeId: string): number | undefined {
    if (nodeId === this.#ring.self.nodeId) return this.#clock.now();
    const peer = this.#peers.get(nodeId);
    const isFresh = peer !== undefined && this.#clock.now() - peer.heardAtMs <= CLOCK_KEPT_MS;
    return isFresh ? peer.timeMs : undefined;
  }

  /** It was away, or is another process now: its old clock says nothing. */
  forget(nodeId: string): void {
    this.#peers.delete(nodeId);
  }

  #leastLoaded(own: number): Runner | undefined {
    const nowMs = this.#clock.now();
    let best: { peer: Peer; nodeId: string; load: number } | undefined;
    for (const member of this.#ring.members()) {
      const { nodeId } = member;
      if (nodeId === this.#ring.self.nodeId || this.#ring.isSuspected(nodeId)) continue;
      const heard = this.#ring.loadOf(nodeId);
      if (heard === undefined) continue;
      const peer = this.#peerOf(nodeId);
      const load = Math.max(heard, peer.outstanding / this.#pool.threads);
      if (load + 1 >= own) continue;
      if (nowMs - peer.heardAtMs > CLOCK_AGE_MS) this.#refresh(member, peer, nowMs);
      else if (best === undefined || load < best.load) best = { peer, nodeId, load };
    }
    if (best === undefined) return undefined;
    best.peer.outstanding++;
    return { nodeId: best.nodeId, timeMs: best.peer.timeMs };
  }

  #refresh(member: Member, peer: Peer, nowMs: number): void {
    if (peer.isAsked || nowMs - peer.askedAtMs < CLOCK_RETRY_MS / 10) return;
    peer.isAsked = true;
    peer.askedAtMs = nowMs;
    this.#askClock(member).then(
      (timeMs) => {
        peer.isAsked = false;
        this.heardClock(member.nodeId, timeMs);
        this.#onRoom();
      },
      () => {
        peer.isAsked = false;
        peer.askedAtMs = this.#clock.now() + CLOCK_RETRY_MS;
      },
    );
  }

  #peerOf(nodeId: string): Peer {
    let peer = this.#peers.get(nodeId);
    if (peer === undefined) {
      peer = {
        timeMs: Number.NEGATIVE_INFINITY,
        heardAtMs: Number.NEGATIVE_INFINITY,
        isAsked: false,
        askedAtMs: Number.NEGATIVE_INFINITY,
        outstanding: 0,
      };
      this.#peers.set(nodeId, peer);
    }
    return peer;
  }
}
