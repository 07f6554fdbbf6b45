/**
 * One replica of a partition: follows, stands, leads. The structure is Zab's
 * (Junqueira 2011: discovery, synchronisation, broadcast) with the partition's
 * entries in place of a log; one leader a ballot, members changed one at a time.
 *
 * Pure and synchronous: messages, ticks, operations, and what the store says go
 * in; effects come out, to be performed in order. Safety rests on what is
 * persisted and promised alone, never on clocks or on who is thought to live.
 */
import { digestToBytes, EntryDigester, isSameDigest } from "./anti-entropy.ts";
import {
  type Claim,
  compareBallots,
  compareClaims,
  compareVersions,
  isSameBallot,
  nodeOf,
  type ReplicaId,
} from "./ballot.ts";
import { Candidate, type CandidateStep } from "./candidate.ts";
import { CanvassBook } from "./canvass-book.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import { Leader } from "./leader.ts";
import type { Body, Config } from "./message.ts";
import { OutsideQuestion } from "./outside-question.ts";
import { PendingOperations } from "./pending-operations.ts";
import type { Survivor } from "./recovery.ts";
import type { AgeMs, Ballot, Operation } from "./register.ts";
import type { ReplicaPorts, ReplicaSettings } from "./replica-port.ts";
import { type EntryStore, type ReplicaMeta, ReplicaState } from "./replica-state.ts";
import { StaleReads } from "./stale-reads.ts";
import { Transfers } from "./transfers.ts";

const RANK_MS = 100;
/** At the first attempt ranks keep the members apart; at later ones they were not enough. */
const FIRST_JITTER = 0.2;
/** Weeks of elections; who has been away for longer is told again and again, and each time gets nearer. */
const ROUNDS_AHEAD_MAX = 1_000_000;
const PATIENCE_MAX = 20;
/** Who has just opened does not know yet who leads. */
const OPENED_MS = 1_000;
const HEARD_AGAIN_MS = 250;
/** Too many wait for it to serve. */
const STANDING_BUSY_MS = 50;

const NO_EFFECTS: readonly ReplicaEffect[] = [];

const PROPOSER_KINDS: ReadonlySet<Body["kind"]> = new Set([
  "canvass",
  "prepare",
  "stopped",
  "lead",
  "yield",
  "append",
  "offer",
  "confirm",
  "invite",
  "compare",
  "differs",
  "forget",
]);

export class Replica {
  readonly state: ReplicaState;
  readonly #ports: ReplicaPorts;
  readonly #settings: ReplicaSettings;
  readonly #effects: ReplicaEffect[] = [];
  #leader: Leader | undefined;
  #candidate: Candidate | undefined;
  /** Members that promised the state which the candidate pulls. */
  #pullSources: ReplicaId[] = [];
  /** The candidate has told another to stand, which holds the best state, and fetches it after that moment. */
  #passed: { readonly claim: Claim; untilMs: number } | undefined;
  readonly #transfers: Transfers;
  readonly #outside: OutsideQuestion;
  readonly #staleReads: StaleReads;
  /** When this replica last knew that it was level with its leader. */
  #levelMs: number | undefined;
  readonly #pending: PendingOperations;
  #nextNumber = 1;
  #lastNowMs = 0;
  /** When this member tries to lead, unless it hears a leader before. */
  #tryAtMs: number | undefined;
  #patience = 1;
  readonly #canvasses = new CanvassBook();
  /** Ballots below this round were seen by somebody: the next one is greater. */
  #roundSeen = 0;
  /** Who was last known to lead; a hint. */
  #leaderSeen: ReplicaId | undefined;
  /** Who leads a greater ballot than any promised here, by others' word. */
  #leaderElsewhere: ReplicaId | undefined;
  /** Why this replica takes no part: its memory is in doubt, or its disk refuses. */
  #quarantine: string | undefined;

  constructor(options: {
    meta: ReplicaMeta;
    store: EntryStore;
    digestKey: Uint8Array;
    ports: ReplicaPorts;
    settings: ReplicaSettings;
    /** Never the same for two openings of this memory. */
    incarnation: number | string;
    nowMs: number;
  }) {
    this.#ports = options.ports;
    this.#settings = options.settings;
    this.state = new ReplicaState({
      meta: options.meta,
      store: options.store,
      digester: new EntryDigester(options.digestKey),
      effects: this.#effects,
    });
    this.#transfers = new Transfers({
      state: this.state,
      effects: this.#effects,
      limits: options.settings.limits,
      incarnation: options.incarnation,
      nextNumber: () => this.#nextNumber++,
    });
    this.#outside = new OutsideQuestion({ state: this.state, effects: this.#effects });
    this.#pending = new PendingOperations(this.#effects, options.settings.limits.pendingBytes);
    this.#staleReads = new StaleReads({
      state: this.state,
      effects: this.#effects,
      limits: options.settings.limits,
    });
    this.#roundSeen = options.meta.promised.round;
    this.#lastNowMs = options.nowMs;
    if (this.state.isMember) this.#tryAtMs = options.nowMs + OPENED_MS + options.ports.random() * RANK_MS;
    this.#considerAsking(options.nowMs);
    for (const generation of options.meta.leftovers) this.state.dropGeneration(generation);
  }

  get id(): ReplicaId {
    return this.state.replicaId;
  }

  /** The ballot under which operations are served now. */
  get servingBallot(): Ballot | undefined {
    return this.#leader?.takesOperations === true ? this.#leader.ballot : undefined;
  }

  /** The ballot that this replica leads or stands for. */
  get standingBallot(): Ballot | undefined {
    if (this.#leader !== undefined && !this.#leader.isOver) return this.#leader.ballot;
    return this.#candidate?.isStanding === true ? this.#candidate.ballot : undefined;
  }

  /** Whether operations are taken: what comes before it serves waits for that. */
  get takesOperations(): boolean {
    return this.#quarantine === undefined && this.standingBallot !== undefined && !this.#isGoing;
  }

  get #isGoing(): boolean {
    return this.#leader?.isGoing === true;
  }

  /** Whether it is about to give its leadership away. */
  get isHandingOver(): boolean {
    return this.#leader?.successor !== undefined;
  }

  /** As far as this replica knows; undefined: nobody, or itself while it does not serve. */
  get leaderHint(): ReplicaId | undefined {
    if (this.servingBallot !== undefined) return this.id;
    if (this.#isGoing) return this.#leader?.successor;
    return this.#leaderSeen === this.id ? undefined : this.#leaderSeen;
  }

  get config(): Config {
    return this.#leader?.isServing === true ? this.#leader.committedConfig : this.state.config;
  }

  get quarantine(): string | undefined {
    return this.#quarantine;
  }

  /** When `tick` wants to be called; Infinity when nothing is waited for. */
  get nextTickMs(): number {
    if (this.#quarantine !== undefined) return Number.POSITIVE_INFINITY;
    return Math.min(
      this.#tryAtMs ?? Number.POSITIVE_INFINITY,
      this.#leader?.nextTickMs ?? Number.POSITIVE_INFINITY,
      this.#candidate?.nextTickMs ?? Number.POSITIVE_INFINITY,
      this.#candidate === undefined
        ? Number.POSITIVE_INFINITY
        : (this.#passed?.untilMs ?? Number.POSITIVE_INFINITY),
      this.#transfers.nextTickMs(this.#lastNowMs),
      this.#outside.nextTickMs,
    );
  }

  /** Takes the effects that have gathered; to be performed in order. */
  take(): readonly ReplicaEffect[] {
    return this.#effects.length === 0 ? NO_EFFECTS : this.#effects.splice(0);
  }

  /**
   * The first server's replica of a new cluster: alone in its config, level at
   * `((1, itself), 0)`; never at "none", which empty replicas claim.
   */
  found(): void {
    this.state.found({ round: 1, replicaId: this.id }, { members: [this.id] });
    this.#roundSeen = 1;
    this.#tryAtMs = 0;
  }

  tick(nowMs: number): void {
    this.#lastNowMs = nowMs;
    if (this.#quarantine !== undefined) return;
    this.#transfers.tick(nowMs);
    const { target } = this.#transfers;
    if (target !== undefined) {
      this.#candidate?.progressed(target.heardMs);
      this.#afterTransfer(nowMs);
    }
    if (this.#leader !== undefined) {
      this.#leader.tick(nowMs);
      this.#dropLeaderIfOver(nowMs);
    }
    if (this.#candidate !== undefined) this.#follow(this.#candidate.tick(nowMs), nowMs);
    const passed = this.#passed;
    if (this.#candidate?.isPulling === true && passed !== undefined && nowMs >= passed.untilMs) {
      passed.untilMs = Number.POSITIVE_INFINITY;
      this.#pullFromNext(passed.claim, nowMs);
    }
    this.#considerStanding(nowMs);
    this.#considerAsking(nowMs);
  }

  /** Whether something waits for the end of the turn. */
  get isFlushWanted(): boolean {
    return this.#leader?.isFlushWanted === true;
  }

  /** At the end of each turn of the event loop in which it was wanted. */
  flush(nowMs: number): void {
    this.#leader?.flush(nowMs);
    this.#dropLeaderIfOver(nowMs);
  }

  /**
   * Answered by an effect with the same number; NOT_LEADER at once when this replica neither serves nor
   * stands. While it stands the operation waits until it serves, or stands no more.
   *
   * @param epochMs ms since the Unix epoch, by which entries expire.
   */
  operate(operation: number, op: Operation, nowMs: number, epochMs: number): void {
    const isWhole = this.#quarantine === undefined && !this.state.isEmpty;
    if (isWhole && op.kind === "get" && op.stale === true) {
      this.#staleReads.get(operation, op, epochMs, this.#ageMs(nowMs));
    } else if (isWhole && op.kind === "scan" && op.stale === true) {
      this.#staleReads.scan(operation, op, this.#nextNumber++, epochMs, this.#ageMs(nowMs));
    } else if (isWhole && this.#leader?.[op.kind === "batch" ? "takesBatches" : "takesOperations"] === true) {
      this.#leader.operate({ operation, op, nowMs, epochMs });
    } else if (isWhole && this.takesOperations) {
      const isKept = this.#pending.keep({ operation, op, nowMs, epochMs });
      if (!isKept)
        this.#effects.push({
          kind: "answer",
          operation,
          outcome: { code: "BUSY", retryAfterMs: STANDING_BUSY_MS },
        });
    } else {
      this.#effects.push({ kind: "answer", operation, outcome: { code: "NOT_LEADER" } });
    }
  }

  #ageMs(nowMs: number): AgeMs {
    const levelMs = this.#leader?.provenMs ?? this.#levelMs;
    return levelMs === undefined ? null : nowMs - levelMs;
  }

  /** Everything handed to the store up to `token` is durable. */
  persisted(token: number, nowMs: number): void {
    this.#lastNowMs = nowMs;
    this.state.persisted(token);
    this.#afterTransfer(nowMs);
    if (this.#candidate?.isStanding === true && !this.#candidate.isPulling) {
      this.#follow(this.#candidate.reconsider(nowMs), nowMs);
    }
    this.#leader?.advance(nowMs);
    this.#dropLeaderIfOver(nowMs);
  }

  /** Answer to a scan effect. */
  scanned(snapshot: number, scanned: Scanned, nowMs: number, epochMs: number): void {
    if (this.#quarantine !== undefined) return;
    if (this.#staleReads.scanned(snapshot, scanned)) return;
    if (this.#transfers.scanned(snapshot, scanned, nowMs)) return this.#afterTransfer(nowMs);
    this.#leader?.scanned(snapshot, scanned, nowMs, epochMs);
  }

  /** Answer to a dropGeneration effect. */
  dropped(generation: number): void {
    this.state.dropped(generation);
  }

  /** Whether all entries are known to have the root on record. */
  get isChecked(): boolean {
    return this.state.buckets !== undefined;
  }

  /** Whether a check is under way. */
  get isChecking(): boolean {
    return this.#transfers.isChecking;
  }

  /** Reads all entries and compares them with the root on record; `damaged` is the effect when they differ. */
  check(): void {
    if (this.#quarantine === undefined) this.#transfers.check();
  }

  /** The memory here can't be trusted or written any more: no vote, no answer, until an operator or a new memory mends it. */
  setAside(reason: string): void {
    if (this.#quarantine !== undefined) return;
    this.#quarantine = reason;
    this.#leader?.stop();
    this.#leader = undefined;
    this.#candidate = undefined;
    this.#pending.deny();
    this.#staleReads.stop();
    this.#transfers.endAll();
  }

  /** The node that proposed what is promised here has died, gives up, or is another start of itself. */
  leaderLost(nowMs: number): void {
    this.#lastNowMs = nowMs;
    this.#answerCanvass(nowMs);
    this.#considerStanding(nowMs);
  }

  /** The ring's wish, or who lives, may have changed. */
  ringChanged(nowMs: number): void {
    this.#leader?.reconsider(nowMs);
  }

  /** Gives leadership away, if it is held and somebody is level. */
  handOver(nowMs: number): void {
    this.#leader?.handOverAway(nowMs);
  }

  /**
   * Whether the others hold what is held here, by their roots: answered by a
   * `compared` effect within seconds. Only where it serves, one at a time.
   *
   * @returns false: not now.
   */
  compare(comparison: number, nowMs: number): boolean {
    return this.#leader?.compare(comparison, nowMs) === true;
  }

  /** What it can say of itself to whoever has to decide how a lost partition goes on. */
  get survivor(): Survivor {
    const { promised, claim } = this.state.durable;
    return { replicaId: this.id, promised, claim, members: this.state.config.members };
  }

  /**
   * Goes on alone, from what is held here: for a partition whose majority is lost
   * for ever. Whatever only others held is lost; members come as the ring wishes.
   *
   * @param options.claim what is held here, as the decision saw it.
   * @param options.round greater than any that a survivor has promised.
   * @returns false, with nothing changed, when the state is not that any more.
   */
  recover({ claim, round }: { claim: Claim; round: number }, nowMs: number): boolean {
    const { state } = this;
    const isAsSeen =
      this.#quarantine === undefined &&
      !state.isEmpty &&
      compareClaims(state.claim, claim) === 0 &&
      round > state.promised.round;
    if (!isAsSeen) return false;
    const ballot = { round, replicaId: this.id };
    this.#standDown(nowMs, ballot);
    this.#transfers.end();
    state.recover(ballot);
    this.#roundSeen = Math.max(this.#roundSeen, round);
    this.#leaderSeen = undefined;
    this.#tryAtMs = nowMs;
    return true;
  }

  step(from: ReplicaId, body: Body, nowMs: number): void {
    this.#lastNowMs = nowMs;
    if (this.#quarantine !== undefined) {
      const isLeading = body.kind === "append" || body.kind === "offer" || body.kind === "confirm";
      if (isLeading && !this.state.isEmpty) this.#send(from, { kind: "damaged", ballot: body.ballot });
      return;
    }
    // A ballot's own proposer speaks for it, nobody else.
    if (PROPOSER_KINDS.has(body.kind) && "ballot" in body && body.ballot.replicaId !== from) return;
    if ("ballot" in body && !this.#sawRound(body.ballot.round)) return;
    switch (body.kind) {
      case "canvass":
        return this.#canvassed(from, body.ballot);
      case "would":
        this.#sawRound(body.promised.round);
        if (this.#candidate !== undefined && isSameBallot(body.ballot, this.#candidate.ballot)) {
          if (!body.yes && compareBallots(body.promised, this.state.promised) > 0) {
            this.#leaderElsewhere = body.promised.replicaId;
          }
          this.#follow(this.#candidate.would(from, body.yes, nowMs), nowMs);
        }
        return;
      case "prepare":
        return this.#prepared(from, body.ballot, body.handOver, nowMs);
      case "promise":
        if (this.#isAgreed(body.ballot)) this.#stand(this.state.promised, nowMs, body.ballot);
        if (this.#candidate !== undefined && isSameBallot(body.ballot, this.#candidate.ballot)) {
          this.#follow(
            this.#candidate.promise(from, { claim: body.claim, config: body.config }, nowMs),
            nowMs,
          );
        }
        return;
      case "stopped":
        if (this.#leaderSeen === body.ballot.replicaId) this.#leaderSeen = undefined;
        this.#canvasses.release(from);
        return this.leaderLost(nowMs);
      case "lead":
        return this.#askedToLead(body, nowMs);
      case "yield":
        return this.#yielded(body, nowMs);
      case "append":
        return this.#append(from, body);
      case "offer":
        return this.#offered(from, body, nowMs);
      case "confirm":
        if (isSameBallot(body.ballot, this.state.promised)) {
          this.#heardLeader(body.ballot);
          const isLevel =
            isSameBallot(body.ballot, this.state.accepted) && this.state.seq >= (body.seq ?? Infinity);
          if (isLevel) this.#levelMs = nowMs;
          this.#send(from, { kind: "confirmed", ballot: body.ballot, round: body.round });
        } else if (compareBallots(this.state.promised, body.ballot) > 0) {
          this.#refuse(from, body.ballot);
        } else {
          this.#send(from, { kind: "behind", ballot: body.ballot, claim: this.state.durable.claim });
        }
        return;
      case "refused":
        this.#sawRound(body.promised.round);
        if (this.#candidate !== undefined && isSameBallot(body.ballot, this.#candidate.ballot)) {
          this.#follow(this.#candidate.refused(from, body.promised), nowMs);
          return;
        }
        this.#leader?.step(from, body, nowMs);
        return this.#dropLeaderIfOver(nowMs);
      case "appended":
      case "behind":
      case "confirmed":
      case "welcome":
      case "gone":
      case "damaged":
      case "compared":
        this.#leader?.step(from, body, nowMs);
        return this.#dropLeaderIfOver(nowMs);
      case "invite":
        this.#send(from, { kind: "welcome", ballot: body.ballot });
        return;
      case "pull":
        this.#leader?.pulledBy(from, nowMs);
        return this.#transfers.pulled(from, body, this.#leader?.ballot, nowMs);
      case "more":
      case "fetch":
        this.#leader?.pulledBy(from, nowMs);
        return this.#transfers.asked(from, body, nowMs);
      case "end":
        return this.#transfers.ended(from, body.transfer);
      case "listed":
      case "fetched":
        this.#transfers.answered(from, body, nowMs);
        return this.#afterTransfer(nowMs);
      case "compare":
        if (isSameBallot(body.ballot, this.state.promised)) {
          const { claim, root } = this.state;
          const { ballot, comparison } = body;
          this.#send(from, { kind: "compared", ballot, comparison, claim, root: digestToBytes(root) });
        }
        return;
      case "differs":
        if (isSameBallot(body.ballot, this.state.promised) && isSameBallot(body.ballot, this.state.accepted))
          this.#effects.push({ kind: "damaged", what: "a majority holds other entries in the same state" });
        return;
      case "forget":
        return this.#toldToForget(body);
      case "outside":
        this.#leader?.outsider(from, nowMs);
        return;
    }
  }

  /** False: so far ahead that no group can have come to it; rounds are never used up by one wrong message. */
  #sawRound(round: number): boolean {
    const isNear = round <= this.#roundSeen + ROUNDS_AHEAD_MAX;
    this.#roundSeen = isNear ? Math.max(this.#roundSeen, round) : this.#roundSeen + ROUNDS_AHEAD_MAX;
    return isNear;
  }

  // --- follower --------------------------------------------------------------

  #append(from: ReplicaId, body: Extract<Body, { kind: "append" }>): void {
    const { state } = this;
    const { ballot, seq, round } = body;
    if (compareBallots(state.promised, ballot) > 0) return this.#refuse(from, ballot);
    if (!isSameBallot(state.promised, ballot) || !isSameBallot(state.accepted, ballot)) {
      return this.#send(from, { kind: "behind", ballot, claim: state.durable.claim });
    }
    this.#heardLeader(ballot);
    this.#waitFor(ballot);
    if (seq > state.seq + 1) return this.#send(from, { kind: "behind", ballot, claim: state.durable.claim });
    this.#levelMs = this.#lastNowMs;
    if (seq === state.seq + 1) {
      state.append(seq, body.changes);
      this.#considerAsking(this.#lastNowMs);
    }
    const reached = state.seq;
    state.whenDurable(() => {
      // Claimed by this ballot still: a later one may have been accepted meanwhile.
      if (isSameBallot(state.accepted, ballot))
        this.#send(from, { kind: "appended", ballot, seq: reached, round });
    });
  }

  #offered(from: ReplicaId, body: Extract<Body, { kind: "offer" }>, nowMs: number): void {
    const { state } = this;
    const { ballot, seq, reach, root } = body;
    if (compareBallots(state.promised, ballot) > 0) return this.#refuse(from, ballot);
    // A leader or candidate that is offered a higher ballot stops at once.
    if (compareBallots(ballot, state.promised) > 0 || this.standingBallot !== undefined)
      this.#standDown(nowMs, ballot);
    if (this.standingBallot !== undefined) return;
    this.#heardLeader(ballot);
    this.#waitFor(ballot);
    if (isSameBallot(state.accepted, ballot) && state.seq >= reach) return this.#acknowledge(from, ballot);
    if (
      !state.isEmpty &&
      !isSameBallot(state.accepted, ballot) &&
      isSameDigest(digestToBytes(state.root), root)
    ) {
      this.#transfers.end();
      state.accept(ballot, seq);
      this.#levelMs = nowMs;
      this.#acknowledge(from, ballot);
      return;
    }
    const { target } = this.#transfers;
    if (target !== undefined && isSameBallot(target.ballot, ballot) && target.source === from) return;
    this.#transfers.begin({ source: from, ballot: ballot, claim: null }, nowMs);
  }

  #acknowledge(to: ReplicaId, ballot: Ballot): void {
    const reached = this.state.seq;
    this.state.whenDurable(() => {
      if (isSameBallot(this.state.accepted, ballot))
        this.#send(to, { kind: "appended", ballot, seq: reached, round: 0 });
    });
  }

  #canvassed(from: ReplicaId, ballot: Ballot): void {
    const yes = this.#favours(from, ballot);
    this.#send(from, { kind: "would", ballot, yes, promised: this.state.promised });
    if (yes) return this.#favour(from, ballot);
    this.#canvasses.refuse(from, ballot, this.#lastNowMs);
    this.#leader?.canvassedBy(from, this.#lastNowMs);
  }

  /** Whether a canvass is answered with yes; of two that canvass, the lesser gives way. */
  #favours(from: ReplicaId, ballot: Ballot): boolean {
    if (compareBallots(ballot, this.state.promised) <= 0 || this.#hearsOther(from)) return false;
    const candidate = this.#candidate;
    if (candidate === undefined) return this.#canvasses.isOpenTo(from, this.#lastNowMs);
    return !candidate.isStanding && compareBallots(ballot, candidate.ballot) > 0;
  }

  #favour(from: ReplicaId, ballot: Ballot): void {
    const untilMs = this.#lastNowMs + HEARD_AGAIN_MS * this.#patience;
    this.#canvasses.favour(from, ballot, untilMs);
    this.#giveWay();
    this.#tryAtMs = Math.max(this.#tryAtMs ?? untilMs, untilMs);
  }

  /** Canvasses no more: those that favoured it are free again. */
  #giveWay(): void {
    const candidate = this.#candidate;
    if (candidate === undefined || candidate.isStanding) return;
    this.#tellMembers({ kind: "stopped", ballot: candidate.ballot });
    this.#candidate = undefined;
  }

  /**
   * Who was told no a moment ago hears when it has become yes: members suspect a
   * dead leader one after the other, and the first to ask would else have to ask again.
   */
  #answerCanvass(nowMs: number): void {
    const canvass = this.#canvasses.takeRefused((from, ballot) => this.#favours(from, ballot), nowMs);
    if (canvass === undefined) return;
    const { from, ballot } = canvass;
    this.#send(from, { kind: "would", ballot, yes: true, promised: this.state.promised });
    this.#favour(from, ballot);
  }

  #prepared(from: ReplicaId, ballot: Ballot, handOver: Ballot | null, nowMs: number): void {
    const { state } = this;
    if (ballot.replicaId !== from) return;
    if (isSameBallot(ballot, state.promised)) {
      // A repeat; what was promised stands, unless this ballot's base has been taken over already.
      if (compareBallots(state.accepted, ballot) < 0) this.#sendPromise(from, ballot);
      return;
    }
    const isHandOver = handOver !== null && isSameBallot(handOver, state.promised);
    const mayLeave = isHandOver || this.#isUndecided || !this.#hearsOther(from);
    if (compareBallots(ballot, state.promised) <= 0 || !mayLeave) return this.#refuse(from, ballot);
    this.#promise(ballot, nowMs);
  }

  #promise(ballot: Ballot, nowMs: number): void {
    this.#giveWay();
    this.#standDown(nowMs, ballot);
    this.#transfers.end();
    this.state.promise(ballot);
    this.#leaderSeen = ballot.replicaId;
    this.#tryAtMs = nowMs + this.#patience * HEARD_AGAIN_MS;
    this.#sendPromise(ballot.replicaId, ballot);
  }

  /** The state is stated as of now, and leaves once all of it is durable. */
  #sendPromise(to: ReplicaId, ballot: Ballot): void {
    const { claim, config } = this.state;
    this.state.whenDurable(() => this.#send(to, { kind: "promise", ballot, claim, config }));
  }

  #askedToLead({ ballot, seq, next, claim }: Extract<Body, { kind: "lead" }>, nowMs: number): void {
    const { state } = this;
    const isLevel = compareClaims(state.claim, claim ?? { accepted: ballot, seq }) === 0;
    if (!isLevel || !isSameBallot(state.promised, ballot) || !state.isMember) return;
    if (this.#candidate !== undefined || this.#leader !== undefined) return;
    // Greater than what is promised here, it was never used: each ballot is promised here before it is.
    const isNew = next?.replicaId === this.id && next.round >= this.#roundSeen;
    this.#stand(ballot, nowMs, isNew ? next : undefined);
  }

  /**
   * Whether a promise is for a ballot of this replica that it never asked for: whatever it asks for is promised
   * here first. Its leader hands over, then, and the word of it is still on its way.
   */
  #isAgreed(ballot: Ballot): boolean {
    const isOpen = this.#candidate === undefined && this.#leader === undefined && this.state.isMember;
    return isOpen && ballot.replicaId === this.id && compareBallots(ballot, this.state.promised) > 0;
  }

  /** Its leader gives `ballot` up and speaks for the one to come, to save the asking. */
  #yielded({ ballot, next }: Extract<Body, { kind: "yield" }>, nowMs: number): void {
    const { state } = this;
    const isHeld = isSameBallot(state.promised, ballot) && state.config.members.includes(next.replicaId);
    if (!isHeld || next.replicaId === this.id || compareBallots(next, ballot) <= 0) return;
    if (!this.#sawRound(next.round)) return;
    this.#promise(next, nowMs);
  }

  /** An older config than the one here does not know that this replica was taken in again. */
  #toldToForget({ ballot, epoch }: Extract<Body, { kind: "forget" }>): void {
    const { state } = this;
    if (compareBallots(ballot, state.promised) < 0 || this.#leader !== undefined) return;
    const order = compareVersions(epoch, state.epoch);
    if (order < 0 || (order === 0 && state.isMember)) return;
    this.#transfers.end();
    this.#effects.push({ kind: "forget" });
  }

  /** One that holds a state without being a member asks a leader now and then whether it is to go. */
  #considerAsking(nowMs: number): void {
    this.#outside.tick({ isLeading: this.#leader !== undefined, leaderSeen: this.#leaderSeen }, nowMs);
  }

  /**
   * Whether what is promised here has come to nothing yet. Of two that were canvassed for at the same
   * time the greater wins then: else each would keep the other from a majority. A third is told no.
   */
  get #isUndecided(): boolean {
    const { accepted, promised } = this.state;
    const isMere = this.#leader === undefined && this.#transfers.target === undefined;
    return isMere && compareBallots(accepted, promised) < 0;
  }

  /** Whether a leader other than `except` is heard: its promise binds this replica to it. */
  #hearsOther(except: ReplicaId): boolean {
    const { promised } = this.state;
    if (this.#leader !== undefined && !this.#leader.isOver) return true;
    if (promised.replicaId === "" || promised.replicaId === except || promised.replicaId === this.id)
      return false;
    return this.#ports.hears(promised);
  }

  #heardLeader(ballot: Ballot): void {
    this.#leaderSeen = ballot.replicaId;
    this.#patience = 1;
  }

  /**
   * Its proposer has spoken: no attempt to lead meanwhile. One that is thought dead may have spoken last
   * before it died, and nobody tells of that death again: it is waited for a moment only.
   */
  #waitFor(ballot: Ballot): void {
    const isHeard = this.#ports.hears(ballot);
    this.#tryAtMs = isHeard ? undefined : this.#lastNowMs + this.#patience * HEARD_AGAIN_MS;
  }

  // --- candidate ------------------------------------------------------------------

  #considerStanding(nowMs: number): void {
    const { state } = this;
    if (!state.isMember || this.#leader !== undefined || this.#candidate !== undefined) {
      this.#tryAtMs = undefined;
      return;
    }
    // One that is being made level by a leader has a leader, though it has not promised it anything yet.
    const isPulling =
      this.#transfers.target !== undefined && this.#ports.hears(this.#transfers.target.ballot);
    if (isPulling || this.#hearsOther("")) {
      this.#tryAtMs = undefined;
      return;
    }
    if (this.#tryAtMs === undefined) {
      const rank = this.#ports.rank(state.config.members.map(nodeOf));
      const jitter = this.#ports.random() * (this.#patience > 1 ? 1 : FIRST_JITTER);
      const isAlone = state.config.members.length === 1;
      this.#tryAtMs = nowMs + (isAlone ? 0 : (rank + jitter) * RANK_MS * this.#patience);
    }
    if (nowMs < this.#tryAtMs) return;
    this.#tryAtMs = undefined;
    this.#stand(null, nowMs);
  }

  /** @param handOver whose leader asked for it. @param agreed at which ballot, if that was said. */
  #stand(handOver: Ballot | null, nowMs: number, agreed?: Ballot): void {
    this.#transfers.end();
    this.#passed = undefined;
    this.#candidate = new Candidate({
      state: this.state,
      effects: this.#effects,
      ballot: agreed ?? {
        round: Math.max(this.#roundSeen, this.state.promised.round) + 1,
        replicaId: this.id,
      },
      handOver,
      patience: this.#patience,
      nowMs,
    });
    this.#roundSeen = this.#candidate.ballot.round;
    this.#patience = Math.min(this.#patience * 1.6, PATIENCE_MAX);
    // A majority of one needs nobody's answer.
    if (this.#candidate.isStanding) this.#follow(this.#candidate.reconsider(nowMs), nowMs);
  }

  #follow(step: CandidateStep, nowMs: number): void {
    switch (step.kind) {
      case "wait":
        return;
      case "giveUp":
        return this.#giveUp(nowMs);
      case "pull":
        this.#pullSources = [...step.sources];
        if (!this.#passOn(step.claim, nowMs)) this.#pullFromNext(step.claim, nowMs);
        return;
      case "base":
        return this.#lead(step.level, nowMs);
    }
  }

  /**
   * Another stands where all would have to be: that it stands itself takes a round, to fetch what it holds takes
   * several and a look at every entry. If nothing comes of that, it is fetched all the same.
   */
  #passOn(claim: Claim, nowMs: number): boolean {
    const { ballot } = this.#candidate!;
    const { members } = this.state.config;
    const to = this.#pullSources.find((id) => members.includes(id) && this.#ports.isLive(nodeOf(id)));
    if (to === undefined || this.#passed !== undefined) return false;
    this.#passed = { claim, untilMs: nowMs + HEARD_AGAIN_MS };
    const next = { round: ballot.round + 1, replicaId: to };
    for (const member of members) {
      if (member === to) this.#send(to, { kind: "lead", ballot, seq: claim.seq, next, claim });
      else if (member !== this.id) this.#send(member, { kind: "yield", ballot, next });
    }
    return true;
  }

  #pullFromNext(claim: Claim, nowMs: number): void {
    const candidate = this.#candidate;
    const source = this.#pullSources.shift();
    if (candidate === undefined) return;
    if (source === undefined) return this.#giveUp(nowMs);
    this.#transfers.end();
    this.#transfers.begin({ source, ballot: candidate.ballot, claim }, nowMs);
  }

  #lead(level: readonly ReplicaId[], nowMs: number): void {
    const { ballot, isAsked } = this.#candidate!;
    this.#candidate = undefined;
    this.#transfers.end();
    if (!isSameBallot(this.state.promised, ballot)) {
      this.#pending.deny();
      return this.#retryLater(nowMs);
    }
    const base = this.state.claim;
    this.#pending.rebase(base, ballot);
    this.state.accept(ballot, 0);
    this.#leaderSeen = undefined;
    const leader = new Leader({
      state: this.state,
      ballot,
      ports: this.#ports,
      settings: this.#settings,
      effects: this.#effects,
      nextSnapshot: () => this.#nextNumber++,
      expected: isAsked ? level : [],
      nowMs,
    });
    this.#leader = leader;
    this.#effects.push({ kind: "standing" });
    leader.begin(nowMs);
    if (leader.takesBatches) this.#pending.beginBatches((asked) => leader.operate(asked));
  }

  #giveUp(nowMs: number): void {
    const candidate = this.#candidate;
    if (candidate === undefined) return;
    this.#candidate = undefined;
    this.#pending.deny();
    this.#transfers.end();
    if (candidate.isStanding) {
      this.#tellMembers({ kind: "stopped", ballot: candidate.ballot });
      this.#effects.push({ kind: "standing" });
    } else if (this.#leaderElsewhere !== undefined && this.#leaderElsewhere !== this.id) {
      // Others hear a leader whose ballot never came here: perhaps the group has changed.
      const { promised, epoch } = this.state;
      this.#send(this.#leaderElsewhere, { kind: "outside", ballot: promised, epoch });
    }
    this.#leaderElsewhere = undefined;
    this.#retryLater(nowMs);
  }

  #retryLater(nowMs: number): void {
    this.#tryAtMs = nowMs + RANK_MS * this.#patience * (0.5 + this.#ports.random());
  }

  /** Another ballot, greater than any of this replica's, is under way. */
  #standDown(nowMs: number, ballot: Ballot): void {
    if (this.#candidate !== undefined && compareBallots(ballot, this.#candidate.ballot) > 0) {
      const wasStanding = this.#candidate.isStanding;
      this.#candidate = undefined;
      this.#pending.deny();
      this.#transfers.end();
      if (wasStanding) this.#effects.push({ kind: "standing" });
    }
    if (this.#leader !== undefined && compareBallots(ballot, this.#leader.ballot) > 0) {
      this.#leader.stop();
      this.#dropLeaderIfOver(nowMs);
    }
  }

  #dropLeaderIfOver(nowMs: number): void {
    const leader = this.#leader;
    if (leader?.takesOperations === true) this.#pending.resume((asked) => leader.operate(asked), nowMs);
    else if (leader?.isGoing === true) this.#pending.denyEarly();
    if (leader?.isOver !== true) return;
    this.#leader = undefined;
    if (this.#leaderSeen === this.id) this.#leaderSeen = undefined;
    if (leader.hasServed) this.#patience = 1;
    this.#retryLater(nowMs);
    // Somebody promised more, and most still follow: a greater ballot of its own brings all together again.
    const { unanswered } = leader;
    const isFollowed = isSameBallot(this.state.promised, leader.ballot) && this.state.isMember;
    // Before it served another may have won: the two would hinder each other for ever.
    const isNeeded = leader.hasBegun || !this.#pending.isEmpty;
    if (unanswered === undefined || !isFollowed || !isNeeded || this.#candidate !== undefined) {
      this.#pending.deny(unanswered);
      return;
    }
    this.#pending.suspend(leader.ballot, unanswered);
    this.#stand(leader.ballot, nowMs);
  }

  #afterTransfer(nowMs: number): void {
    const { target } = this.#transfers;
    const result = target?.result;
    if (target === undefined || result === undefined) return;
    this.#transfers.end();
    if (this.#candidate?.isPulling === true && isSameBallot(this.#candidate.ballot, target.ballot)) {
      if (result.kind === "failed") {
        // Another with the same state serves as well.
        const next = this.#pullSources.length > 0 ? target.wanted : null;
        if (next !== null) return this.#pullFromNext(next, nowMs);
        return this.#follow(this.#candidate.dropPromise(target.source, nowMs), nowMs);
      }
      const candidate = this.#candidate;
      this.state.whenDurable(() => {
        if (this.#candidate === candidate)
          this.#follow(candidate.reconsider(this.#lastNowMs), this.#lastNowMs);
      });
      return;
    }
    if (result.kind === "identical") {
      this.#levelMs = nowMs;
      this.#acknowledge(target.source, target.ballot);
    } else this.#retryLater(nowMs);
  }

  #refuse(to: ReplicaId, ballot: Ballot): void {
    this.#send(to, { kind: "refused", ballot, promised: this.state.promised });
  }

  #tellMembers(body: Body): void {
    for (const member of this.state.config.members) if (member !== this.id) this.#send(member, body);
  }

  #send(to: ReplicaId, body: Body): void {
    this.#effects.push({ kind: "send", to, body });
  }
}
