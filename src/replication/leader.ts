/**
 * The leader of one ballot: makes a majority identical to its base state, then
 * serves; appends batches, commits what a majority has made durable, confirms
 * its leadership for reads, and moves members one at a time.
 */
import { digestFromBytes, digestToBytes } from "./anti-entropy.ts";
import { compareBallots, isSameBallot, nodeOf, type ReplicaId } from "./ballot.ts";
import { BatchWindow } from "./batch-window.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import { Membership } from "./membership.ts";
import type { Body, Config } from "./message.ts";
import { type Asked, Operations, type Unanswered } from "./operations.ts";
import { Progress } from "./progress.ts";
import { majorityOf, reachedByMajority } from "./quorum.ts";
import type { Ballot } from "./register.ts";
import type { ReplicaPorts, ReplicaSettings } from "./replica-port.ts";
import { CONFIG_KEY, encodeConfig, type ReplicaState } from "./replica-state.ts";
import { RootComparison } from "./root-comparison.ts";
import { WatchList } from "./watch-list.ts";

/** Batches that are handed over and not committed. */
const IN_FLIGHT_MAX = 8;
const RESEND_BATCHES = 16;
/** Of batches on their way to one replica: more would only wait there, and be repeated meanwhile. */
const UNDER_WAY_BYTES = 1024 * 1024;
const STEP_MS = 50;
const DEAD_REPEAT_MS = 1_000;
const HAND_OVER_MS = 500;
/** So long a moment is looked for at which nothing is under way, before it takes nothing new. */
const QUIET_MS = 100;
/** From this pass on the leader waits for one that is becoming identical. */
const PACED_PASS = 3;
/** A leader that was not called for so long stood still itself. */
const STANDSTILL_MS = 400;

type Phase = "synchronising" | "serving" | "handingOver";
type Answer = Extract<
  Body,
  { kind: "appended" | "behind" | "confirmed" | "refused" | "welcome" | "gone" | "damaged" | "compared" }
>;

export class Leader {
  readonly ballot: Ballot;
  readonly #state: ReplicaState;
  readonly #ports: ReplicaPorts;
  readonly #settings: ReplicaSettings;
  readonly #effects: ReplicaEffect[];
  readonly #operations: Operations;
  readonly #progress = new Map<ReplicaId, Progress>();
  readonly #window: BatchWindow;
  #phase: Phase = "synchronising";
  /** Whether a majority is soon level, as far as can be known: changes are begun before it is. */
  readonly #isExpected: boolean;
  #isOver = false;
  #unanswered: Unanswered | undefined;
  #committed = -1;
  /** A change of members in flight: the config before it, and its batch. */
  #configChange: { readonly seq: number; readonly before: Config } | undefined;
  #round = 0;
  #confirmedRound = 0;
  #roundSentMs = 0;
  /** When the present round was first sent. */
  #roundBegunMs = 0;
  /** When the newest round that a majority confirmed was first sent. */
  #confirmedMs: number | undefined;
  /** Since when something waits for others without a break. */
  #outstandingSinceMs: number | undefined;
  #handOver: { readonly to: ReplicaId; readonly stopAtMs: number; isSaid: boolean } | undefined;
  /** Until then the present hand-over has time, or the next one. */
  #handOverUntilMs = 0;
  #comparison: RootComparison | undefined;
  readonly #membership: Membership;
  #tickedMs: number;
  // Each answer is counted by these: made once, and without garbage.
  readonly #values: number[] = [];
  readonly #matchOf = (id: ReplicaId): number => {
    if (id !== this.#state.replicaId) return this.#progress.get(id)?.match ?? -1;
    const { claim } = this.#state.durable;
    return isSameBallot(claim.accepted, this.ballot) ? claim.seq : -1;
  };
  readonly #roundOf = (id: ReplicaId): number =>
    id === this.#state.replicaId ? this.#round : (this.#progress.get(id)?.confirmedRound ?? 0);

  constructor(options: {
    state: ReplicaState;
    ballot: Ballot;
    ports: ReplicaPorts;
    settings: ReplicaSettings;
    effects: ReplicaEffect[];
    nextSnapshot: () => number;
    /** Took over from a leader that asked for it, and these promised in the base state. */
    expected: readonly ReplicaId[];
    nowMs: number;
  }) {
    this.ballot = options.ballot;
    this.#isExpected = options.expected.length > 0;
    this.#state = options.state;
    this.#ports = options.ports;
    this.#settings = options.settings;
    this.#effects = options.effects;
    const { limits } = options.settings;
    this.#window = new BatchWindow(limits);
    const bases = this.#state.formerClaims;
    const watches = new WatchList({ ...options, bases, window: this.#window, limits });
    this.#operations = new Operations({ ...options, watches, limits });
    this.#tickedMs = options.nowMs;
    this.#membership = new Membership({
      ...options,
      progress: this.#progress,
      group: {
        changing: () => this.#configChange?.before,
        change: (members, nowMs) => this.#changeConfig(members, nowMs),
        offer: (progress, nowMs) => this.#offer(progress, nowMs),
        handOver: (to, nowMs) => {
          if (
            this.#handOver !== undefined ||
            nowMs < this.#handOverUntilMs ||
            !this.#ports.mayStep("handOver")
          )
            return false;
          this.#startHandOver(to, nowMs);
          return true;
        },
      },
    });
    for (const replicaId of this.#state.config.members) {
      if (replicaId !== this.#state.replicaId) {
        const isExpected = options.expected.includes(replicaId);
        const { nowMs } = options;
        this.#progress.set(replicaId, new Progress(replicaId, { isLearner: false, isExpected, nowMs }));
      }
    }
  }

  /** Over: another ballot, or no majority. The replica drops it. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Over because somebody has promised a greater ballot: what was pending may go on under a greater one of its own. */
  get unanswered(): Unanswered | undefined {
    return this.#unanswered;
  }

  /** When leadership was last proven by a majority; undefined: not yet. */
  get provenMs(): number | undefined {
    const { provenMs } = this.#operations;
    if (provenMs === undefined || this.#confirmedMs === undefined) return provenMs ?? this.#confirmedMs;
    return Math.max(provenMs, this.#confirmedMs);
  }

  get hasServed(): boolean {
    return this.#phase !== "synchronising";
  }

  get isServing(): boolean {
    return this.#phase !== "synchronising" && !this.#isOver;
  }

  get takesOperations(): boolean {
    return this.#phase === "serving" && !this.#isOver;
  }

  /** Whether batches are taken: answered once it serves, or lost with it. */
  get takesBatches(): boolean {
    return this.takesOperations || (this.#isExpected && !this.hasServed && !this.#isOver);
  }

  /** Whether something was done under its ballot: to be brought to an end, under whichever ballot. */
  get hasBegun(): boolean {
    return this.hasServed || (this.#unanswered?.handed.length ?? 0) > 0;
  }

  /** Whom it is to give its leadership to; before that it serves until nothing is under way. */
  get successor(): ReplicaId | undefined {
    return this.#isOver ? undefined : this.#handOver?.to;
  }

  /** Its successor was told to stand: whoever asks for the leader had better ask there. */
  get isGoing(): boolean {
    return !this.#isOver && this.#handOver?.isSaid === true;
  }

  /** Members that count for sure: a config is shown to others only once it is committed. */
  get committedConfig(): Config {
    return this.#configChange?.before ?? this.#state.config;
  }

  /** When `tick` wants to be called; Infinity: nothing is waited for. */
  get nextTickMs(): number {
    if (this.#isOver) return Number.POSITIVE_INFINITY;
    const isBusy =
      this.#phase !== "serving" ||
      this.#handOver !== undefined ||
      !this.#operations.isIdle ||
      this.#committed < this.#state.seq ||
      this.#comparison !== undefined ||
      this.#configChange !== undefined;
    if (isBusy) return this.#tickedMs + STEP_MS;
    return Math.min(
      this.#membership.nextTickMs(this.#tickedMs),
      this.#operations.nextTickMs,
      this.#repeatAtMs,
    );
  }

  /** When one that is there and not level is to be told again; a dead one is looked at when it is back. */
  get #repeatAtMs(): number {
    let atMs = Number.POSITIVE_INFINITY;
    for (const progress of this.#progress.values()) {
      const { replicaId, match } = progress;
      if (match >= this.#state.seq || this.#membership.isGone(replicaId)) continue;
      if (this.#ports.isLive(nodeOf(replicaId))) atMs = Math.min(atMs, progress.repeatAtMs);
    }
    return Math.max(atMs, this.#tickedMs + STEP_MS);
  }

  /** The base state stands, if not durably yet: brings the others level, and counts itself once it is durable. */
  begin(nowMs: number): void {
    for (const progress of this.#progress.values()) this.#offer(progress, nowMs);
    this.advance(nowMs);
  }

  operate(asked: Asked): void {
    const { operation, op, nowMs } = asked;
    if (op.kind === "batch" && op.onlyUnder !== undefined && !isSameBallot(op.onlyUnder, this.ballot)) {
      this.#effects.push({ kind: "answer", operation, outcome: { code: "NOT_LEADER" } });
      return;
    }
    if (this.#operations.start(asked)) return;
    if (this.#mayClose(nowMs)) {
      this.#closeBatch(nowMs);
      if (this.#operations.start(asked)) return;
    }
    this.#operations.refuseBusy(asked);
  }

  /** Whether `flush` has anything to do. */
  get isFlushWanted(): boolean {
    return !this.#isOver && (this.#operations.hasOpenBatch || this.#operations.isRoundWanted);
  }

  /** At the end of a turn: hands over what has gathered, asks for the confirmations that are wanted. */
  flush(nowMs: number): void {
    if (this.#isOver || (!this.hasServed && !this.#isExpected)) return;
    if (this.#operations.hasOpenBatch && this.#mayClose(nowMs)) this.#closeBatch(nowMs);
    if (this.hasServed && this.#operations.isRoundWanted && this.#confirmedRound === this.#round)
      this.#confirm(nowMs);
    this.advance(nowMs);
  }

  scanned(snapshot: number, scanned: Scanned, nowMs: number, epochMs: number): void {
    this.#operations.scanned(snapshot, scanned, nowMs, epochMs);
  }

  /** It is pulling: alive, and busy with becoming level. */
  pulledBy(from: ReplicaId, nowMs: number): void {
    this.#progress.get(from)?.answered(nowMs);
  }

  /** A member that hears no leader. */
  canvassedBy(from: ReplicaId, nowMs: number): void {
    const progress = this.#progress.get(from);
    // Its answer tells whether it has promised more than this ballot.
    if (progress === undefined || this.#phase === "synchronising") return;
    progress.asked(nowMs);
    progress.send(this.#effects, this.#confirmation(this.#confirmedRound));
  }

  /** Answered by an effect: whether the others hold what is held here. One at a time; false: not now. */
  compare(comparison: number, nowMs: number): boolean {
    if (!this.isServing || this.#comparison !== undefined) return false;
    const { seq, root } = this.#state;
    this.#comparison = new RootComparison({ comparison, seq, root, nowMs });
    this.#goOnComparing(nowMs);
    return true;
  }

  /** Who believes to be left out either is behind, or has been removed. */
  outsider(from: ReplicaId, nowMs: number): void {
    if (!this.isServing || this.#configChange !== undefined) return;
    const progress = this.#progress.get(from);
    if (progress !== undefined) this.#offer(progress, nowMs);
    else this.#membership.dismissStranger(from);
  }

  step(from: ReplicaId, body: Answer, nowMs: number): void {
    if (!isSameBallot(body.ballot, this.ballot) || this.#isOver) return;
    if (body.kind === "welcome") {
      this.#membership.welcome(from, nowMs);
      return;
    }
    if (body.kind === "gone" || body.kind === "damaged") {
      this.#membership.memoryLost(from, body.kind, nowMs);
      return;
    }
    const progress = this.#progress.get(from);
    if (progress === undefined) return;
    progress.answered(nowMs);
    switch (body.kind) {
      case "compared":
        return this.#compared(from, body, nowMs);
      case "appended":
        // What was never sent can't be durable anywhere: a defect there must not commit anything here.
        if (body.seq > this.#state.seq || body.round > this.#round) return;
        // Newly level: what came after the state that it took over is still to be sent.
        if (!progress.isLevel && !progress.isExpected) progress.sent = body.seq;
        progress.match = Math.max(progress.match, body.seq);
        progress.sent = Math.max(progress.sent, progress.match);
        progress.confirmedRound = Math.max(progress.confirmedRound, body.round);
        if (this.#window.reaches(progress.match + 1) || progress.match === this.#state.seq)
          progress.passes = 0;
        this.#sendBatches(progress, nowMs);
        break;
      case "confirmed":
        progress.confirmedRound = Math.max(progress.confirmedRound, body.round);
        break;
      case "behind":
        if (isSameBallot(body.claim.accepted, this.ballot)) {
          progress.match = Math.max(progress.match, body.claim.seq);
          if (progress.mayResend(body.claim.seq, nowMs)) this.#resend(progress, body.claim.seq, nowMs);
        } else {
          progress.match = -1;
          progress.isExpected = false;
          this.#offer(progress, nowMs);
        }
        break;
      case "refused":
        // Only its own ballot refused, for a greater one, ends a reign: not a prepare that was seen.
        if (compareBallots(body.promised, this.ballot) <= 0) break;
        this.#unanswered = this.#operations.suspend();
        this.stop();
        return;
    }
    this.advance(nowMs);
  }

  /** After anything that may move the commit: durability here, answers from others. */
  advance(nowMs: number): void {
    if (this.#isOver) return;
    let committed = this.#reached(this.#state.config, this.#matchOf);
    let confirmed = this.#reached(this.#state.config, this.#roundOf);
    if (this.#configChange !== undefined) {
      const { seq, before } = this.#configChange;
      if (committed < seq) committed = Math.min(this.#reached(before, this.#matchOf), seq - 1);
      confirmed = Math.min(confirmed, this.#reached(before, this.#roundOf));
    }

    if (committed > this.#committed) {
      this.#committed = committed;
      if (this.#phase === "synchronising" && committed >= 0) {
        this.#phase = "serving";
        this.#membership.reconsider(nowMs + STEP_MS);
        this.#effects.push({ kind: "leading", ballot: this.ballot });
      }
      if (this.#configChange !== undefined && committed >= this.#configChange.seq)
        this.#configCommitted(nowMs);
      this.#operations.committed(committed);
    }
    if (confirmed > this.#confirmedRound && this.#phase !== "synchronising") {
      if (confirmed === this.#round) this.#confirmedMs = this.#roundBegunMs;
      this.#confirmedRound = confirmed;
      this.#operations.confirmed(confirmed);
      if (this.#operations.isRoundWanted && this.#confirmedRound === this.#round) this.#confirm(nowMs);
    }
    if (this.#operations.hasOpenBatch && this.isServing && this.#mayClose(nowMs)) this.#closeBatch(nowMs);
    this.#watchHandOver(nowMs);
    const isWaiting =
      !this.#operations.isIdle || this.#committed < this.#state.seq || this.#phase === "synchronising";
    if (!isWaiting) this.#outstandingSinceMs = undefined;
    else this.#outstandingSinceMs ??= nowMs;
  }

  /** What a majority of its members has reached. */
  #reached({ members }: Config, reachedBy: (id: ReplicaId) => number): number {
    const values = this.#values;
    values.length = members.length;
    for (let i = 0; i < members.length; i++) values[i] = reachedBy(members[i]!);
    return reachedByMajority(values);
  }

  tick(nowMs: number): void {
    if (this.#isOver) return;
    // A leader that stood still itself has no right to blame the others.
    const stoodStill = nowMs - this.#tickedMs > STANDSTILL_MS + STEP_MS;
    this.#tickedMs = nowMs;
    if (stoodStill && this.#outstandingSinceMs !== undefined) this.#outstandingSinceMs = nowMs;
    if (this.#lostMajority(nowMs)) {
      this.stop();
      return;
    }
    for (const progress of this.#progress.values()) this.#repeat(progress, nowMs);
    if (this.#round > this.#confirmedRound && nowMs - this.#roundSentMs > 100) this.#confirm(nowMs);
    if (this.#phase === "serving") {
      if (this.#handOver === undefined) this.#membership.tick(nowMs);
      this.#operations.tick(nowMs);
    }
    this.#goOnComparing(nowMs);
    this.advance(nowMs);
  }

  /** The ring's wish, or who lives, has changed. */
  reconsider(nowMs: number): void {
    this.#membership.reconsider(nowMs);
  }

  /** Gives the leadership to the most suitable level member; the operator's or the server's wish to go. */
  handOverAway(nowMs: number): void {
    if (this.#phase !== "serving" || this.#configChange !== undefined || this.#handOver !== undefined) return;
    const members = this.#state.config.members.filter((id) => this.#progress.get(id)?.isLevel === true);
    const wish = this.#ports.wish() ?? [];
    const to =
      wish.map((nodeId) => members.find((id) => nodeOf(id) === nodeId)).find((id) => id !== undefined) ??
      members.find((id) => this.#ports.isLive(nodeOf(id)));
    if (to !== undefined) this.#startHandOver(to, nowMs);
  }

  stop(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#operations.stop();
    this.#endComparison();
    for (const progress of this.#progress.values()) {
      progress.send(this.#effects, { kind: "stopped", ballot: this.ballot });
    }
    if (this.#phase !== "synchronising") this.#effects.push({ kind: "stoppedLeading" });
    this.#effects.push({ kind: "standing" });
  }

  // --- appends -------------------------------------------------------------

  get #inFlight(): number {
    return this.#state.seq - Math.max(0, this.#committed);
  }

  /** One that has missed the window again and again is waited for: else it never becomes level under load. */
  #mayClose(nowMs: number): boolean {
    const { windowBatches, windowBytes } = this.#settings.limits;
    const inFlight = this.#inFlight;
    if (inFlight >= Math.min(IN_FLIGHT_MAX, windowBatches)) return false;
    // What is not committed stays in the window, for whoever misses it.
    const bytes = inFlight === 0 ? 0 : this.#window.bytesAfter(Math.max(0, this.#committed));
    if (bytes > 0 && bytes + this.#operations.openBytes > windowBytes) return false;
    for (const progress of this.#progress.values()) {
      if (progress.isLevel || progress.passes < PACED_PASS) continue;
      const isAlive =
        this.#ports.isLive(nodeOf(progress.replicaId)) &&
        nowMs - progress.answeredMs < this.#settings.leaderTimeoutMs;
      const isHalfFull =
        this.#state.seq - progress.offeredSeq >= windowBatches / 2 ||
        this.#window.bytesAfter(progress.offeredSeq) >= windowBytes / 2;
      if (isAlive && isHalfFull) return false;
    }
    return true;
  }

  #closeBatch(nowMs: number): void {
    const seq = this.#state.seq + 1;
    const before = this.#state.config;
    const { changes, bytes } = this.#operations.close(seq, nowMs);
    if (changes.length === 0) return;
    this.#state.append(seq, changes);
    if (this.#state.config !== before) this.#configChange = { seq, before };
    this.#comparison?.note(seq, this.#state.root);
    this.#window.push({ seq, changes, bytes });
    if (this.#operations.isRoundWanted) this.#newRound(nowMs);
    for (const progress of this.#progress.values()) this.#sendBatches(progress, nowMs);
    this.#state.whenDurable(() => this.advance(this.#tickedMs));
  }

  /** Sends what a level replica has not been sent yet. */
  #sendBatches(progress: Progress, nowMs: number): void {
    if ((!progress.isLevel && !progress.isExpected) || progress.sent >= this.#state.seq) return;
    if (!this.#window.reaches(progress.sent + 1)) {
      this.#passAgain(progress, nowMs);
      return;
    }
    const room = IN_FLIGHT_MAX * 2 - (progress.sent - progress.match);
    const underWay = this.#window.bytesBetween(Math.max(0, progress.match), progress.sent);
    for (const { seq, changes } of this.#window.from(progress.sent + 1, room, UNDER_WAY_BYTES - underWay)) {
      progress.asked(nowMs);
      progress.sent = seq;
      progress.send(this.#effects, {
        kind: "append",
        ballot: this.ballot,
        seq,
        changes: [...changes],
        committed: this.#committed,
        round: this.#round,
      });
    }
  }

  #resend(progress: Progress, after: number, nowMs: number): void {
    if (!this.#window.reaches(after + 1) && after < this.#state.seq) {
      this.#passAgain(progress, nowMs);
      return;
    }
    progress.sent = after;
    progress.asked(nowMs);
    for (const { seq, changes } of this.#window.from(after + 1, RESEND_BATCHES, UNDER_WAY_BYTES)) {
      progress.sent = seq;
      progress.send(this.#effects, {
        kind: "append",
        ballot: this.ballot,
        seq,
        changes: [...changes],
        committed: this.#committed,
        round: this.#round,
      });
    }
  }

  /** It stands at a state of this ballot that the window does not reach back to. */
  #passAgain(progress: Progress, nowMs: number): void {
    if (progress.isLevel) progress.passes++;
    progress.match = -1;
    this.#offer(progress, nowMs);
  }

  #offer(progress: Progress, nowMs: number): void {
    progress.asked(nowMs);
    progress.offeredSeq = this.#state.seq;
    const body: Body = {
      kind: "offer",
      ballot: this.ballot,
      seq: this.#state.seq,
      reach: (this.#window.first ?? this.#state.seq + 1) - 1,
      root: digestToBytes(this.#state.root),
    };
    progress.sent = this.#state.seq;
    progress.send(this.#effects, body);
  }

  /** What was lost on the way is sent again; to a dead one rarely. */
  #repeat(progress: Progress, nowMs: number): void {
    const isLive = this.#ports.isLive(nodeOf(progress.replicaId));
    if (nowMs < (isLive ? progress.repeatAtMs : progress.askedMs + DEAD_REPEAT_MS)) return;
    if (isLive) progress.repeated();
    if (!progress.isLevel) {
      progress.isExpected = false;
      this.#offer(progress, nowMs);
    } else if (progress.match < this.#state.seq) this.#resend(progress, progress.match, nowMs);
  }

  // --- confirmation ----------------------------------------------------------

  #newRound(nowMs: number): void {
    this.#round = this.#operations.takeRound();
    this.#roundSentMs = nowMs;
    this.#roundBegunMs = nowMs;
  }

  #confirm(nowMs: number): void {
    if (this.#operations.isRoundWanted) this.#newRound(nowMs);
    this.#roundSentMs = nowMs;
    const body = this.#confirmation(this.#round);
    for (const progress of this.#progress.values()) {
      if (progress.isLearner) continue;
      progress.asked(nowMs);
      progress.send(this.#effects, body);
    }
  }

  #confirmation(round: number): Body {
    return { kind: "confirm", ballot: this.ballot, round, seq: this.#state.seq };
  }

  #lostMajority(nowMs: number): boolean {
    // A base state may have to be moved first; serving, silence is silence.
    const silentMsMax = this.#settings.leaderTimeoutMs * (this.#phase === "synchronising" ? 4 : 1);
    if (this.#outstandingSinceMs === undefined || nowMs - this.#outstandingSinceMs <= silentMsMax)
      return false;
    const answeredMs = this.#reached(this.#state.config, (id) =>
      id === this.#state.replicaId ? nowMs : (this.#progress.get(id)?.answeredMs ?? Number.NEGATIVE_INFINITY),
    );
    return nowMs - answeredMs > silentMsMax;
  }

  // --- members -----------------------------------------------------------------

  #changeConfig(members: readonly ReplicaId[], nowMs: number): void {
    // The change is a batch of its own kind: nothing else may share its fate unseen.
    if (this.#inFlight >= IN_FLIGHT_MAX) return;
    if (this.#operations.hasOpenBatch) this.#closeBatch(nowMs);
    for (const replicaId of members) {
      const progress = this.#progress.get(replicaId);
      if (progress !== undefined) progress.isLearner = false;
    }
    this.#operations.add({ kind: "put", key: CONFIG_KEY, value: encodeConfig({ members: [...members] }) });
    this.#closeBatch(nowMs);
  }

  #configCommitted(nowMs: number): void {
    const { before } = this.#configChange!;
    this.#configChange = undefined;
    this.#membership.changed(before, nowMs);
    this.#effects.push({ kind: "standing" });
  }

  // --- comparison -------------------------------------------------------------------

  #goOnComparing(nowMs: number): void {
    const comparison = this.#comparison;
    if (comparison === undefined) return;
    const others = [...this.#progress.keys()];
    if (comparison.isOver(others, nowMs)) return this.#endComparison();
    const body: Body = { kind: "compare", ballot: this.ballot, comparison: comparison.comparison };
    for (const to of comparison.ask(others, nowMs)) this.#effects.push({ kind: "send", to, body });
  }

  #compared(from: ReplicaId, body: Extract<Body, { kind: "compared" }>, nowMs: number): void {
    const { comparison, claim, root } = body;
    if (this.#comparison?.comparison !== comparison || !isSameBallot(claim.accepted, this.ballot)) return;
    this.#comparison.answered(from, claim.seq, digestFromBytes(root));
    this.#goOnComparing(nowMs);
  }

  /** One whose state differs from that of a majority is told so: its memory is in doubt. */
  #endComparison(): void {
    if (this.#comparison === undefined) return;
    const { comparison, same, different } = this.#comparison;
    this.#comparison = undefined;
    const silent = [...this.#progress.keys()].filter((id) => !same.has(id) && !different.has(id));
    this.#effects.push({ kind: "compared", comparison, same: [...same], different: [...different], silent });
    const { members } = this.#state.config;
    const majority = majorityOf(members.length);
    const isOne = (id: ReplicaId) => id === this.#state.replicaId || same.has(id);
    if (members.filter(isOne).length >= majority) {
      const body: Body = { kind: "differs", ballot: this.ballot, claim: this.#state.claim };
      for (const to of different) this.#effects.push({ kind: "send", to, body });
    } else if (members.filter((id) => different.has(id)).length >= majority) {
      this.#effects.push({ kind: "damaged", what: "a majority holds other entries in the same state" });
    }
  }

  // --- hand-over -------------------------------------------------------------------

  #startHandOver(to: ReplicaId, nowMs: number): void {
    this.#handOver = { to, stopAtMs: nowMs + QUIET_MS, isSaid: false };
    this.#handOverUntilMs = nowMs + QUIET_MS + HAND_OVER_MS;
    this.#watchHandOver(nowMs);
  }

  #watchHandOver(nowMs: number): void {
    const handOver = this.#handOver;
    if (handOver === undefined || this.#isOver) return;
    const { to } = handOver;
    const isQuiet =
      this.#progress.get(to)?.match === this.#state.seq &&
      this.#committed === this.#state.seq &&
      (this.#phase === "serving" ? this.#operations.isIdle : !this.#operations.hasOpenBatch);
    if (this.#phase === "serving" && (isQuiet || nowMs >= handOver.stopAtMs)) {
      this.#phase = "handingOver";
      this.#effects.push({ kind: "stoppedLeading" });
    }
    if (isQuiet && !handOver.isSaid) {
      handOver.isSaid = true;
      this.#sayHandOver(to);
    }
    if (nowMs >= this.#handOverUntilMs) {
      // No new ballot came: this one goes on, and does not try again at once.
      this.#handOver = undefined;
      this.#phase = "serving";
      this.#membership.reconsider(nowMs + STEP_MS);
      this.#handOverUntilMs = nowMs + 10 * HAND_OVER_MS;
      this.#effects.push({ kind: "leading", ballot: this.ballot });
    }
  }

  /** The others are asked for their promises at once: while they write them, the successor writes its own. */
  #sayHandOver(to: ReplicaId): void {
    const { ballot } = this;
    const next: Ballot = { round: ballot.round + 1, replicaId: to };
    for (const progress of this.#progress.values()) {
      if (progress.replicaId === to)
        progress.send(this.#effects, { kind: "lead", ballot, seq: this.#state.seq, next });
      else if (!progress.isLearner) progress.send(this.#effects, { kind: "yield", ballot, next });
    }
  }
}
