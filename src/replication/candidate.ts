/**
 * One attempt to lead: canvass, prepare, and the choice of the best state among
 * the promises (Zab's discovery). Persists its own promise before it asks.
 */
import { type Claim, compareBallots, compareClaims, isSameBallot, type ReplicaId } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Body, Config } from "./message.ts";
import { majorityOf } from "./quorum.ts";
import type { Ballot } from "./register.ts";
import type { ReplicaState } from "./replica-state.ts";

interface Promised {
  readonly claim: Claim;
  readonly config: Config;
}

/** What is to be done next. */
export type CandidateStep =
  | { readonly kind: "wait" }
  /** `reason` is for the log. */
  | { readonly kind: "giveUp"; readonly reason: string }
  /** The best state is another's: become identical to it, from any of `sources`. */
  | { readonly kind: "pull"; readonly claim: Claim; readonly sources: readonly ReplicaId[] }
  /** The best state is the own one: it becomes the base. `level`: who promised in the same state. */
  | { readonly kind: "base"; readonly level: readonly ReplicaId[] };

const ANSWER_MS = 100;
/** A round trip between busy servers, with a sync on the way. Who stands is heard meanwhile, so that nobody else tries. */
const ANSWER_MS_MIN = 250;
const PULL_MS = 2000;

export class Candidate {
  readonly ballot: Ballot;
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #handOver: Ballot | null;
  #phase: "canvass" | "prepare" | "pull";
  readonly #yes = new Set<ReplicaId>();
  readonly #promises = new Map<ReplicaId, Promised>();
  readonly #refusals = new Set<ReplicaId>();
  readonly #asked = new Set<ReplicaId>();
  #deadlineMs: number;
  readonly #answerMs: number;

  /** @param options.handOver the ballot whose leader asked this replica to take over: no canvass then. */
  constructor(options: {
    state: ReplicaState;
    effects: ReplicaEffect[];
    ballot: Ballot;
    handOver: Ballot | null;
    /** Waits grow with each failure: fixed ones never elect over a slow link. */
    patience: number;
    nowMs: number;
  }) {
    this.ballot = options.ballot;
    this.#state = options.state;
    this.#effects = options.effects;
    this.#handOver = options.handOver;
    this.#answerMs = Math.max(ANSWER_MS_MIN, ANSWER_MS * options.patience);
    this.#deadlineMs = options.nowMs + this.#answerMs;
    this.#phase = options.handOver === null ? "canvass" : "prepare";
    if (this.#phase === "prepare") this.#prepare(options.nowMs);
    else {
      this.#yes.add(this.#state.replicaId);
      this.#tell(this.#others(this.#state.config), { kind: "canvass", ballot: this.ballot });
      this.#countYes(options.nowMs);
    }
  }

  get nextTickMs(): number {
    return this.#deadlineMs;
  }

  /** Whether a leader asked it to take over. */
  get isAsked(): boolean {
    return this.#handOver !== null;
  }

  /** Whether it has promised itself and asked for promises: then it stands. */
  get isStanding(): boolean {
    return this.#phase !== "canvass";
  }

  get isPulling(): boolean {
    return this.#phase === "pull";
  }

  would(from: ReplicaId, yes: boolean, nowMs: number): CandidateStep {
    if (this.#phase !== "canvass") return { kind: "wait" };
    if (!yes) return { kind: "wait" };
    this.#yes.add(from);
    return this.#countYes(nowMs);
  }

  promise(from: ReplicaId, promised: Promised, nowMs: number): CandidateStep {
    if (this.#phase !== "prepare") return { kind: "wait" };
    this.#promises.set(from, promised);
    return this.#choose(nowMs);
  }

  /** One that still hears another leader need not stop the others from following this one. */
  refused(from: ReplicaId, promised: Ballot): CandidateStep {
    if (this.#phase === "canvass") return { kind: "wait" };
    if (compareBallots(promised, this.ballot) > 0) return { kind: "giveUp", reason: "another stands higher" };
    this.#refusals.add(from);
    const { members } = this.#state.config;
    const possible = members.filter((id) => !this.#refusals.has(id)).length;
    return possible < majorityOf(members.length)
      ? { kind: "giveUp", reason: "a majority hears another leader" }
      : { kind: "wait" };
  }

  /** The transfer gets on. */
  progressed(nowMs: number): void {
    if (this.#phase === "pull") this.#deadlineMs = Math.max(this.#deadlineMs, nowMs + PULL_MS);
  }

  /** Own promise is durable, or the own state has become that of `best`. */
  reconsider(nowMs: number): CandidateStep {
    if (this.#phase === "canvass") return { kind: "wait" };
    const { claim, promised } = this.#state.durable;
    if (!isSameBallot(promised, this.ballot) || compareClaims(claim, this.#state.claim) !== 0)
      return { kind: "wait" };
    this.#promises.set(this.#state.replicaId, { claim, config: this.#state.config });
    this.#phase = "prepare";
    return this.#choose(nowMs);
  }

  /** A source fell silent: its promise counts no more. */
  dropPromise(from: ReplicaId, nowMs: number): CandidateStep {
    this.#promises.delete(from);
    this.#phase = "prepare";
    this.#deadlineMs = nowMs + this.#answerMs;
    return this.#choose(nowMs);
  }

  tick(nowMs: number): CandidateStep {
    if (nowMs < this.#deadlineMs) return { kind: "wait" };
    if (this.#phase === "pull") return { kind: "giveUp", reason: "the best state could not be fetched" };
    return {
      kind: "giveUp",
      reason: this.#phase === "canvass" ? "no majority would follow" : "no majority promised",
    };
  }

  #countYes(nowMs: number): CandidateStep {
    if (this.#yes.size < majorityOf(this.#state.config.members.length)) return { kind: "wait" };
    // A greater promise may have been given meanwhile.
    if (compareBallots(this.ballot, this.#state.promised) <= 0) {
      return { kind: "giveUp", reason: "promised to another" };
    }
    this.#prepare(nowMs);
    return this.reconsider(nowMs);
  }

  #prepare(nowMs: number): void {
    this.#phase = "prepare";
    this.#deadlineMs = nowMs + 2 * this.#answerMs;
    this.#state.promise(this.ballot);
    this.#effects.push({ kind: "standing" });
    this.#ask(this.#state.config);
  }

  /** Prepare leaves only once the own promise is durable. */
  #ask(config: Config): void {
    const others = this.#others(config).filter((id) => !this.#asked.has(id));
    for (const id of others) this.#asked.add(id);
    if (others.length === 0) return;
    const body: Body = { kind: "prepare", ballot: this.ballot, handOver: this.#handOver };
    this.#state.whenDurable(() => {
      // By a leader that goes some were asked already.
      this.#tell(
        others.filter((id) => !this.#promises.has(id)),
        body,
      );
    });
  }

  #choose(nowMs: number): CandidateStep {
    const own = this.#promises.get(this.#state.replicaId);
    if (own === undefined) return { kind: "wait" };
    let best = own;
    for (const promised of this.#promises.values()) {
      if (compareClaims(promised.claim, best.claim) > 0) best = promised;
    }
    const { members } = best.config;
    // Who counts is told by the best state, not by the own one.
    this.#ask(best.config);
    const promisedMembers = members.filter((id) => this.#promises.has(id));
    if (promisedMembers.length < majorityOf(members.length)) return { kind: "wait" };
    if (!members.includes(this.#state.replicaId)) return { kind: "giveUp", reason: "not a member any more" };
    const level = [...this.#promises]
      .filter(([id, p]) => id !== this.#state.replicaId && compareClaims(p.claim, best.claim) === 0)
      .map(([id]) => id);
    if (compareClaims(best.claim, own.claim) === 0) return { kind: "base", level };
    this.#phase = "pull";
    this.#deadlineMs = nowMs + PULL_MS;
    return { kind: "pull", claim: best.claim, sources: level };
  }

  #others(config: Config): ReplicaId[] {
    return config.members.filter((id) => id !== this.#state.replicaId);
  }

  #tell(others: readonly ReplicaId[], body: Body): void {
    for (const to of others) this.#effects.push({ kind: "send", to, body });
  }
}
