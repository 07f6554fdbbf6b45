/**
 * The transfers of one replica: the one that it gets, those that it gives, and the
 * reading of all its own entries, by which they are checked.
 */
import { type Claim, compareClaims, isSameBallot, type ReplicaId } from "./ballot.ts";
import { BucketGathering } from "./bucket-gathering.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { Body } from "./message.ts";
import type { Ballot } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import type { ReplicaState } from "./replica-state.ts";
import { TransferSource } from "./transfer-source.ts";
import { TransferSources } from "./transfer-sources.ts";
import { TransferTarget } from "./transfer-target.ts";

/** How often idle sources are looked for. */
const IDLE_LOOK_MS = 1_000;

export class Transfers {
  readonly #state: ReplicaState;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  readonly #incarnation: number | string;
  readonly #nextNumber: () => number;
  readonly #sources = new TransferSources();
  #target: TransferTarget | undefined;
  #checking: BucketGathering | undefined;

  constructor(options: {
    state: ReplicaState;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
    /** Never the same for two openings of this memory. */
    incarnation: number | string;
    /** Of snapshots and transfers: never the same twice. */
    nextNumber: () => number;
  }) {
    this.#state = options.state;
    this.#effects = options.effects;
    this.#limits = options.limits;
    this.#incarnation = options.incarnation;
    this.#nextNumber = options.nextNumber;
  }

  /** What is being fetched; over when it has a result. */
  get target(): TransferTarget | undefined {
    return this.#target;
  }

  nextTickMs(nowMs: number): number {
    const next = this.#target?.nextTickMs ?? Number.POSITIVE_INFINITY;
    return this.#sources.isEmpty ? next : Math.min(next, nowMs + IDLE_LOOK_MS);
  }

  tick(nowMs: number): void {
    this.#sources.endIdle(nowMs);
    this.#target?.tick(nowMs);
  }

  /** Begins to fetch the state of `ballot`, or that of `claim`; what was being fetched is given up. */
  begin(from: { source: ReplicaId; ballot: Ballot; claim: Claim | null }, nowMs: number): void {
    this.end();
    this.#target = new TransferTarget({
      ...from,
      transfer: `${this.#state.replicaId}.${this.#incarnation}.${this.#nextNumber()}`,
      state: this.#state,
      effects: this.#effects,
      limits: this.#limits,
      snapshot: this.#nextNumber(),
      nowMs,
    });
  }

  /** Nothing is fetched any more. */
  end(): void {
    this.#target?.close();
    this.#target = undefined;
  }

  /** Nothing is fetched, given or read any more. */
  endAll(): void {
    this.end();
    this.#sources.endAll();
    if (this.#checking === undefined) return;
    this.#checking.end();
    this.#effects.push({ kind: "release", snapshot: this.#checking.snapshot });
    this.#checking = undefined;
  }

  /**
   * Another asks for the state here.
   *
   * @param led the ballot that is led here: what the newest state of it is asked for under.
   */
  pulled(
    from: ReplicaId,
    body: Extract<Body, { kind: "pull" }>,
    led: Ballot | undefined,
    nowMs: number,
  ): void {
    const present = this.#sources.of(body.transfer, from);
    if (present !== undefined) return present.asked(body, nowMs);
    const { promised, durable, claim } = this.#state;
    const isAllowed =
      body.claim === null
        ? led !== undefined && isSameBallot(led, body.ballot)
        : isSameBallot(promised, body.ballot) &&
          compareClaims(durable.claim, body.claim) === 0 &&
          compareClaims(claim, body.claim) === 0;
    if (!isAllowed || !this.#sources.makeRoom(body.transfer, from)) return;
    this.#sources.add(
      new TransferSource({
        pull: body,
        to: from,
        state: this.#state,
        effects: this.#effects,
        limits: this.#limits,
        snapshot: this.#nextNumber(),
        nowMs,
      }),
    );
  }

  /** A further question of one who is given the state. */
  asked(from: ReplicaId, body: Extract<Body, { kind: "more" | "fetch" }>, nowMs: number): void {
    this.#sources.of(body.transfer, from)?.asked(body, nowMs);
  }

  /** One who was given the state needs no more. */
  ended(from: ReplicaId, transfer: string): void {
    if (this.#sources.of(transfer, from) !== undefined) this.#sources.end(transfer);
  }

  /** An answer of the one that is asked. */
  answered(from: ReplicaId, body: Extract<Body, { kind: "listed" | "fetched" }>, nowMs: number): void {
    const target = this.#target;
    if (target === undefined || target.transfer !== body.transfer || target.source !== from) return;
    if (body.kind === "listed") target.listed(body, nowMs);
    else target.fetched(body, nowMs);
  }

  /** @returns whether the snapshot is one of a transfer, or of the check. */
  scanned(snapshot: number, scanned: Scanned, nowMs: number): boolean {
    if (this.#target?.snapshot === snapshot) {
      this.#target.scanned(scanned, nowMs);
      return true;
    }
    if (this.#checking?.snapshot === snapshot) {
      if (this.#checking.scanned(scanned) === undefined) return true;
      this.#effects.push({ kind: "release", snapshot });
      this.#checking = undefined;
      return true;
    }
    return this.#sources.scanned(snapshot, scanned, nowMs);
  }

  get isChecking(): boolean {
    return this.#checking !== undefined;
  }

  /** Reads all entries and compares them with the root on record; `damaged` is the effect when they differ. */
  check(): void {
    if (this.#checking !== undefined) return;
    const snapshot = this.#nextNumber();
    this.#effects.push({ kind: "snapshot", snapshot });
    this.#checking = new BucketGathering({
      snapshot,
      state: this.#state,
      effects: this.#effects,
      limits: this.#limits,
    });
  }
}
