/**
 * A node's neighbours on the ring and how they stay right: Chord's operations as
 * corrected by Zave (arXiv 1610.01140), each one atomic local step.
 *
 * A time-out only moves a round on to the next candidate; what is dropped is
 * dead and has a successor that answered. A list without a live node is rescued
 * from whoever answers, else the node stands alone until healing finds others.
 */
import { between } from "./arc.ts";
import { isSameStart, type Member, type Sender } from "./member.ts";
import type { Neighbourhood, RingMessage } from "./message.ts";
import { SuccessorList } from "./successor-list.ts";

const STABILISE_MS = 500;
const STABILISE_MS_MIN = 50;
/**
 * So often the first successor is asked even though it says with its pings that nothing has changed:
 * well before answers have to be right again, 4 s after a fault.
 */
const STABILISE_MS_MAX = 2000;
/** A round that is due so soon goes with the ping to the first successor: its question needs no frame of its own. */
const TOGETHER_MS = 75;
/** The same of one that nothing but its age makes due: the next ping that could take it along is two turns away. */
const TOGETHER_MS_OLD = 800;
/** Rounds started within `STABILISE_MS`. */
const ROUNDS_MAX = 4;

/** What the neighbourhood needs from its node. */
export interface StabilisationRoutes {
  /** Undefined: no answer, or not a member. */
  askNeighbours(to: Member, done: (answer: Neighbourhood | undefined, nowMs: number) => void): void;
  send(to: Sender, message: RingMessage): void;
  /** Suspected, left, or started again since: a later start has no place before it has joined. */
  isDead(member: Member): boolean;
  /** The start of the node that speaks now. */
  current(member: Member): Member;
  isReachable(member: Member): boolean;
  isWatched(member: Member): boolean;
  /** Whether a ping goes there now. */
  isPinged(member: Member | undefined): boolean;
  /** What is known of a start that somebody named; undefined when it is over. */
  learn(member: Member): Member | undefined;
  /** Fingers, nodes heard recently, contacts: asked when nobody in the list lives. */
  lastResorts(): readonly Member[];
  changed(nowMs: number): void;
}

export class Stabilisation {
  readonly successors: SuccessorList;
  readonly #self: Member;
  readonly #routes: StabilisationRoutes;
  #predecessor: Member | undefined;
  #dueMs = Number.POSITIVE_INFINITY;
  /** Nothing but time makes the next round due. */
  #isRegular = false;
  // Starts of the last rounds, newest last.
  #startedMs: number[] = [];
  #isRunning = false;
  #isRescuing = false;
  readonly #considered = new Set<string>();
  /** The picture of its neighbours that others get, and how many came before it. */
  #picture: { readonly predecessor: Member | undefined; chain: readonly Member[]; readonly number: number } =
    {
      predecessor: undefined,
      chain: [],
      number: 0,
    };
  /** The last answer of the first successor, with this node as its predecessor and taken in whole, and what was made of it. */
  #known:
    | { readonly of: Member; readonly around: number; readonly chain: readonly Member[]; readonly ms: number }
    | undefined;

  constructor(self: Member, lengthMax: number, routes: StabilisationRoutes) {
    this.#self = self;
    this.#routes = routes;
    this.successors = new SuccessorList(self, lengthMax);
  }

  get predecessor(): Member | undefined {
    return this.#predecessor;
  }

  get livePredecessor(): Member | undefined {
    const predecessor = this.#predecessor;
    return predecessor === undefined || this.#routes.isDead(predecessor) ? undefined : predecessor;
  }

  /** Alone, a node is its own successor. */
  get hasLiveSuccessor(): boolean {
    const { members } = this.successors;
    return members.length === 0 || members.some((member) => !this.#routes.isDead(member));
  }

  /** Whether list and predecessor are the whole ring. */
  get isWhole(): boolean {
    return this.successors.isWhole(this.livePredecessor, this.#routes.isDead);
  }

  /** Takes the whole list of the successor that a join found, and makes itself known. */
  enter(candidates: readonly Member[], nowMs: number): void {
    this.#adopt(candidates, nowMs);
    this.#notifyFirst();
    this.soon(nowMs);
  }

  /** Something changed: the next round starts as early as its limits allow. */
  soon(nowMs: number): void {
    const last = this.#startedMs.at(-1) ?? Number.NEGATIVE_INFINITY;
    const burst = this.#startedMs.length < ROUNDS_MAX ? Number.NEGATIVE_INFINITY : this.#startedMs[0]!;
    const earliest = Math.max(nowMs, last + STABILISE_MS_MIN, burst + STABILISE_MS);
    // A round that is due anyway is no longer one that could be put off: it is wanted.
    this.#isRegular = false;
    this.#dueMs = Math.min(this.#dueMs, earliest);
  }

  /** Numbers the pictures that `neighbours` is answered with, one after another. */
  get around(): number {
    const { predecessor, chain, number } = this.#picture;
    const now = { predecessor: this.#predecessor, chain: this.successors.chain };
    if (now.predecessor === predecessor && now.chain === chain) return number;
    const isSame =
      isSameOrNone(now.predecessor, predecessor) &&
      now.chain.length === chain.length &&
      now.chain.every((member, i) => isSameStart(member, chain[i]!));
    this.#picture = { ...now, number: isSame ? number : number + 1 };
    return this.#picture.number;
  }

  /** A node says which of its pictures holds. The first successor's known one need not be asked for again. */
  told(from: Sender, around: number, nowMs: number): void {
    const known = this.#known;
    if (known === undefined || !isSameStart(from, known.of)) return;
    if (known.around !== around) {
      this.#known = undefined;
      this.soon(nowMs);
      return;
    }
    if (!this.#isRegular || known.chain !== this.successors.chain) return;
    this.#dueMs = Math.max(this.#dueMs, Math.min(nowMs + STABILISE_MS, known.ms + STABILISE_MS_MAX));
  }

  /** When the next round starts. */
  get dueMs(): number {
    return this.#dueMs;
  }

  tick(nowMs: number): void {
    if (nowMs < this.#dueMs && !this.#isEarlyEnough(nowMs)) return;
    this.#dueMs = nowMs + STABILISE_MS;
    this.#isRegular = true;
    if (this.#isRunning) return;
    this.#startedMs.push(nowMs);
    if (this.#startedMs.length > ROUNDS_MAX) this.#startedMs.shift();

    const { members } = this.successors;
    if (members.length === 0) {
      this.#alone(nowMs);
      return;
    }
    const live = members.filter((member) => !this.#routes.isDead(member));
    if (live.length === 0) {
      this.#rescue();
      return;
    }
    this.#isRunning = true;
    this.#askInTurn(
      [
        ...live.filter((member) => this.#routes.isReachable(member)),
        ...live.filter((member) => !this.#routes.isReachable(member)),
      ],
      0,
    );
  }

  /** Rectify: `candidate` itself believes that it is the predecessor. A predecessor never moves back past a live one. */
  rectify(candidate: Member, nowMs: number): void {
    const before = this.#predecessor;
    if (before?.nodeId === candidate.nodeId) {
      this.#predecessor = candidate;
      return;
    }
    const isBeforeDead = before === undefined || this.#routes.isDead(before);
    if (!isBeforeDead && !between(candidate.nodeId, before.nodeId, this.#self.nodeId)) return;
    this.#predecessor = candidate;
    // The one that stood here has a new successor; told, it need not wait for its next round.
    if (!isBeforeDead) this.#routes.send(before, { kind: "hint", node: candidate });
    if (this.successors.chain.length > 0) this.successors.endWith(candidate);
    else this.soon(nowMs);
    this.#routes.changed(nowMs);
  }

  /** Somebody thinks that `candidate` follows here. The first successor names itself when its list has changed. */
  hinted(candidate: Member, nowMs: number): void {
    if (candidate.nodeId === this.successors.first?.nodeId) this.soon(nowMs);
    else this.consider(candidate);
  }

  /** A node that may stand between here and the first successor: it counts once it has answered. */
  consider(candidate: Member): void {
    if (!this.#isNearer(candidate) || this.#considered.has(candidate.nodeId)) return;
    if (this.#routes.isDead(candidate)) return;
    this.#considered.add(candidate.nodeId);
    this.#routes.askNeighbours(candidate, (answer, answeredMs) => {
      this.#considered.delete(candidate.nodeId);
      if (answer === undefined || !this.#isNearer(candidate)) return;
      this.#adopt([this.#routes.current(candidate), ...this.successors.candidates()], answeredMs);
      this.#notifyFirst();
      this.soon(answeredMs);
    });
  }

  /** A node said goodbye and told who stood around it. */
  left(
    nodeId: string,
    around: { predecessor: Member | null; successors: readonly Member[] },
    nowMs: number,
  ): void {
    const { chain } = this.successors;
    const at = chain.findIndex((member) => member.nodeId === nodeId);
    let isChanged = false;
    if (this.#predecessor?.nodeId === nodeId) {
      const next = around.predecessor === null ? undefined : this.#routes.learn(around.predecessor);
      const isLive =
        next !== undefined &&
        next.nodeId !== this.#self.nodeId &&
        this.#routes.isWatched(next) &&
        !this.#routes.isDead(next);
      this.#predecessor = isLive ? next : undefined;
      isChanged = true;
    }
    if (at >= 0) this.#adopt([...chain.slice(0, at), ...around.successors], nowMs);
    else if (isChanged) {
      this.#adopt(this.successors.candidates(), nowMs);
      this.#routes.changed(nowMs);
    }
    this.soon(nowMs);
  }

  /** Replaces what is known of a node that stands here already. */
  renew(member: Member): void {
    this.successors.renew(member);
    if (this.#predecessor?.nodeId === member.nodeId) this.#predecessor = member;
  }

  #isEarlyEnough(nowMs: number): boolean {
    if (!this.#isRegular) return false;
    const isOld = this.#known !== undefined && nowMs >= this.#known.ms + STABILISE_MS_MAX - TOGETHER_MS_OLD;
    if (!isOld && nowMs < this.#dueMs - TOGETHER_MS) return false;
    return this.#routes.isPinged(this.successors.first);
  }

  #isNearer(candidate: Member): boolean {
    const first = this.successors.first;
    return between(candidate.nodeId, this.#self.nodeId, first?.nodeId ?? this.#self.nodeId);
  }

  #alone(nowMs: number): void {
    const predecessor = this.#predecessor;
    if (predecessor === undefined) return;
    if (!this.#routes.isDead(predecessor)) {
      this.consider(predecessor);
      return;
    }
    this.#predecessor = undefined;
    this.#routes.changed(nowMs);
  }

  #askInTurn(targets: readonly Member[], at: number): void {
    const target = targets[at];
    if (target === undefined) {
      this.#isRunning = false;
      return;
    }
    this.#routes.askNeighbours(target, (answer, nowMs) => {
      if (answer === undefined) this.#askInTurn(targets, at + 1);
      else this.#answered(target, answer, nowMs);
    });
  }

  #answered(successor: Member, answer: Neighbourhood, nowMs: number): void {
    this.#isRunning = false;
    // Those in front that merely kept silent in this round, or came meanwhile, keep their places.
    const ahead = this.successors.members.filter(
      (member) => between(member.nodeId, this.#self.nodeId, successor.nodeId) && !this.#routes.isDead(member),
    );
    // Who stands between those and the reserve is not known.
    const isAdopted =
      (ahead.length === 0 || !this.successors.isReserve(successor)) &&
      this.#adopt([...ahead, this.#routes.current(successor), ...answer.successors], nowMs);
    const named = answer.predecessor === null ? undefined : this.#routes.learn(answer.predecessor);
    if (named !== undefined) this.consider(named);
    // Where this node stands as the predecessor already, to say so again changes nothing.
    const isKnown = named !== undefined && isSameStart(named, this.#self);
    const isFirst = this.successors.first?.nodeId === successor.nodeId;
    if (!isKnown || !isFirst) this.#notifyFirst();
    // One that was left out as dead may turn out to live, and the picture that names it keeps its number.
    this.#known =
      isKnown && isFirst && isAdopted
        ? {
            of: this.#routes.current(successor),
            around: answer.around,
            chain: this.successors.chain,
            ms: nowMs,
          }
        : undefined;
  }

  /** Nobody in the list lives: the nearest member that answers, with its list; none: alone. */
  #rescue(): void {
    if (this.#isRescuing) return;
    const targets = new Map<string, Member>();
    for (const member of [
      ...(this.#predecessor === undefined ? [] : [this.#predecessor]),
      ...this.#routes.lastResorts(),
      ...this.successors.members,
    ]) {
      if (member.nodeId !== this.#self.nodeId) targets.set(member.nodeId, member);
    }
    const waiting = new Set(targets.values());
    let isOver = false;
    let best: { member: Member; answer: Neighbourhood } | undefined;
    this.#isRescuing = true;
    for (const member of targets.values()) {
      this.#routes.askNeighbours(member, (answer, answeredMs) => {
        waiting.delete(member);
        if (
          answer !== undefined &&
          (best === undefined || between(member.nodeId, this.#self.nodeId, best.member.nodeId))
        ) {
          best = { member, answer };
        }
        if (isOver) return;
        // Once one has answered, those that are dead by all accounts keep nobody waiting.
        if ([...waiting].some((one) => best === undefined || !this.#routes.isDead(one))) return;
        isOver = true;
        this.#isRescuing = false;
        const isStillLost = this.successors.members.every((m) => this.#routes.isDead(m));
        if (best !== undefined) {
          if (isStillLost)
            this.#adopt([this.#routes.current(best.member), ...best.answer.successors], answeredMs);
          else this.consider(best.member);
          this.#notifyFirst();
          this.soon(answeredMs);
        } else if (isStillLost) {
          this.#adopt([], answeredMs);
          this.soon(answeredMs);
        }
      });
    }
  }

  /** True when no candidate had to be left out as dead. */
  #adopt(candidates: readonly Member[], nowMs: number): boolean {
    const fresh: Member[] = [];
    for (const candidate of candidates) {
      const member = this.#routes.learn(candidate);
      if (member !== undefined && !this.#routes.isDead(member)) fresh.push(member);
    }
    const isComplete = fresh.length === candidates.length;
    const predecessor = this.livePredecessor;
    const wasWhole = this.isWhole;
    if (!this.successors.adopt(fresh, predecessor)) {
      // The same nodes, now known to be all there are: who asks for the whole ring gets another answer.
      if (this.isWhole !== wasWhole) this.#routes.changed(nowMs);
      return isComplete;
    }
    this.soon(nowMs);
    // A change has to reach the L nodes before this one: in steps of a whole round it would take seconds.
    if (predecessor !== undefined) this.#routes.send(predecessor, { kind: "hint", node: this.#self });
    this.#routes.changed(nowMs);
    return isComplete;
  }

  #notifyFirst(): void {
    const first = this.successors.first;
    if (first !== undefined) this.#routes.send(first, { kind: "notify", node: this.#self });
  }
}

function isSameOrNone(a: Member | undefined, b: Member | undefined): boolean {
  return a === undefined || b === undefined ? a === b : isSameStart(a, b);
}
