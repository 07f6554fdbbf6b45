/**
 * Who is to be in the group that this leader leads: brings newcomers level, takes
 * one step at a time towards what the ring wishes, and tells those who have left
 * that they may forget.
 */
import { nodeOf, type ReplicaId, serialOf } from "./ballot.ts";
import type { ReplicaEffect } from "./effect.ts";
import type { Body, Config } from "./message.ts";
import { Progress } from "./progress.ts";
import { nextStep } from "./reconfiguration.ts";
import type { Ballot, Version } from "./register.ts";
import type { ReplicaPorts, ReplicaSettings } from "./replica-port.ts";
import type { ReplicaState } from "./replica-state.ts";

const STEP_MS = 50;
/** Batches that one may be behind and still counts as level: as many as are in flight. */
const LEVEL_WITHIN = 8;
const LEARNER_GIVEN_UP_MS = 10_000;
const INVITATION_MS = 1_000;
const FORGET_REPEAT_MS = 1_000;
const FORGETS_MAX = 10;

/** What the leader does for it. */
export interface Group {
  /** The config before the change of members that is in flight, if there is one. */
  changing(): Config | undefined;
  change(members: readonly ReplicaId[], nowMs: number): void;
  offer(progress: Progress, nowMs: number): void;
  /** False: not now. */
  handOver(to: ReplicaId, nowMs: number): boolean;
}

export class Membership {
  readonly #ballot: Ballot;
  readonly #state: ReplicaState;
  readonly #ports: ReplicaPorts;
  readonly #settings: ReplicaSettings;
  readonly #effects: ReplicaEffect[];
  readonly #progress: Map<ReplicaId, Progress>;
  readonly #group: Group;
  #stepAtMs = 0;
  readonly #invited = new Map<string, number>();
  /** Members and learners whose memory is no more, or is in doubt. */
  readonly #gone = new Set<ReplicaId>();
  /** Removed, and not yet told, or not heard to have gone. */
  readonly #leaving = new Map<ReplicaId, { readonly epoch: Version; told: number; toldMs: number }>();

  /** @param options.progress of all members and learners; learners are put in and taken out here. */
  constructor(options: {
    ballot: Ballot;
    state: ReplicaState;
    ports: ReplicaPorts;
    settings: ReplicaSettings;
    effects: ReplicaEffect[];
    progress: Map<ReplicaId, Progress>;
    group: Group;
  }) {
    this.#ballot = options.ballot;
    this.#state = options.state;
    this.#ports = options.ports;
    this.#settings = options.settings;
    this.#effects = options.effects;
    this.#progress = options.progress;
    this.#group = options.group;
  }

  /** @param tickedMs when it was last called. */
  nextTickMs(tickedMs: number): number {
    return this.#leaving.size > 0 ? Math.min(this.#stepAtMs, tickedMs + FORGET_REPEAT_MS) : this.#stepAtMs;
  }

  isGone(replicaId: ReplicaId): boolean {
    return this.#gone.has(replicaId);
  }

  /** While it serves. */
  tick(nowMs: number): void {
    if (nowMs >= this.#stepAtMs) this.#step(nowMs);
    this.#forgetLeaving(nowMs);
  }

  /** Something has changed: looks again at `atMs`, unless it does so earlier. */
  reconsider(atMs: number): void {
    this.#stepAtMs = Math.min(this.#stepAtMs, atMs);
  }

  /** A change is committed; `before`: the config that it has replaced. */
  changed(before: Config, nowMs: number): void {
    for (const replicaId of before.members) {
      if (this.#state.config.members.includes(replicaId)) continue;
      this.#progress.delete(replicaId);
      this.#dismiss(replicaId);
    }
    this.reconsider(nowMs);
  }

  /** One that is neither member nor learner holds something all the same. */
  dismissStranger(replicaId: ReplicaId): void {
    if (this.#leaving.size < this.#settings.replicationFactor * 2) this.#dismiss(replicaId);
  }

  welcome(from: ReplicaId, nowMs: number): void {
    if (!this.#invited.delete(nodeOf(from)) || this.#progress.has(from) || this.#gone.has(from)) return;
    if (this.#group.changing()?.members.includes(from) === true) return;
    this.#leaving.delete(from);
    const progress = new Progress(from, { isLearner: true, isExpected: false, nowMs });
    this.#progress.set(from, progress);
    this.#group.offer(progress, nowMs);
    this.#stepAtMs = Math.min(this.#stepAtMs, nowMs + STEP_MS);
  }

  /** @param from by `gone` the memory that has come after; by `damaged` the one that is in doubt. */
  memoryLost(from: ReplicaId, kind: "gone" | "damaged", nowMs: number): void {
    const isLost = (id: ReplicaId) =>
      kind === "damaged" ? id === from : nodeOf(id) === nodeOf(from) && serialOf(id) < serialOf(from);
    for (const id of this.#leaving.keys()) if (isLost(id)) this.#leaving.delete(id);
    for (const [id, progress] of this.#progress) {
      if (!isLost(id)) continue;
      if (progress.isLearner) this.#progress.delete(id);
      else this.#gone.add(id);
      this.#stepAtMs = Math.min(this.#stepAtMs, nowMs);
    }
  }

  #step(nowMs: number): void {
    this.#stepAtMs = Number.POSITIVE_INFINITY;
    if (this.#group.changing() !== undefined) return;
    const wish = this.#ports.wish();
    if (wish === undefined || wish.length === 0) {
      this.#stepAtMs = nowMs + 4 * STEP_MS;
      return;
    }
    this.#dropLearners(wish, nowMs);
    const { members } = this.#state.config;
    const level = [...this.#progress.values()]
      .filter(
        (p) =>
          p.isLevel &&
          this.#state.seq - p.match <= LEVEL_WITHIN &&
          this.#ports.isLive(nodeOf(p.replicaId)) &&
          !this.#gone.has(p.replicaId),
      )
      .map((p) => p.replicaId);
    const step = nextStep({
      self: this.#state.replicaId,
      members,
      level: [this.#state.replicaId, ...level],
      learning: [
        ...this.#invited.keys(),
        ...[...this.#progress.values()].filter((p) => p.isLearner).map((p) => nodeOf(p.replicaId)),
      ],
      wish,
      replicationFactor: this.#settings.replicationFactor,
      gone: this.#gone,
      isDismissed: (nodeId) => this.#ports.isDismissed(nodeId),
      isLost: (nodeId) => {
        if (this.#ports.isDismissed(nodeId) && !this.#ports.isLive(nodeId)) return true;
        const since = this.#ports.deadSince(nodeId);
        return since !== undefined && nowMs - since >= this.#settings.replaceAfterMs;
      },
    });
    const isSettled =
      wish.every((nodeId) => members.some((id) => nodeOf(id) === nodeId)) &&
      members.every((id) => wish.includes(nodeOf(id))) &&
      nodeOf(this.#state.replicaId) === wish[0];
    if (step === undefined) {
      // Away members may come back or be given up: look again, but seldom.
      if (!isSettled) this.#stepAtMs = nowMs + 1000;
      return;
    }
    this.#stepAtMs = nowMs + STEP_MS;
    switch (step.kind) {
      case "learn":
        if (!this.#ports.mayStep("learn")) return;
        this.#invited.set(step.nodeId, nowMs);
        this.#effects.push({
          kind: "invite",
          nodeId: step.nodeId,
          body: { kind: "invite", ballot: this.#ballot },
        });
        return;
      case "add":
        this.#group.change([...members, step.replicaId], nowMs);
        return;
      case "remove":
        this.#group.change(
          members.filter((id) => id !== step.replicaId),
          nowMs,
        );
        return;
      case "handOver":
        if (!this.#group.handOver(step.replicaId, nowMs)) this.#stepAtMs = nowMs + 5 * STEP_MS;
    }
  }

  #dropLearners(wish: readonly string[], nowMs: number): void {
    for (const [nodeId, invitedMs] of this.#invited) {
      if (nowMs - invitedMs > INVITATION_MS) this.#invited.delete(nodeId);
    }
    for (const [replicaId, progress] of this.#progress) {
      if (!progress.isLearner) continue;
      const nodeId = nodeOf(replicaId);
      const isSilent = nowMs - progress.answeredMs > LEARNER_GIVEN_UP_MS && progress.match < this.#state.seq;
      if (wish.includes(nodeId) && !isSilent) continue;
      this.#progress.delete(replicaId);
      this.#dismiss(replicaId);
    }
  }

  /** No member any more, by a committed config: may forget what it holds, once the others have it. */
  #dismiss(replicaId: ReplicaId): void {
    if (replicaId === this.#state.replicaId || this.#gone.delete(replicaId)) return;
    this.#leaving.set(replicaId, {
      epoch: this.#state.epoch,
      told: 0,
      toldMs: Number.NEGATIVE_INFINITY,
    });
  }

  #forgetLeaving(nowMs: number): void {
    if (this.#leaving.size === 0 || this.#group.changing() !== undefined) return;
    const isLevel = this.#state.config.members.every(
      (id) => id === this.#state.replicaId || this.#progress.get(id)?.isLevel === true,
    );
    if (!isLevel) return;
    for (const [replicaId, leaving] of this.#leaving) {
      if (nowMs - leaving.toldMs < FORGET_REPEAT_MS) continue;
      // One that was away all the time asks when it comes back.
      if (leaving.told++ === FORGETS_MAX) {
        this.#leaving.delete(replicaId);
        continue;
      }
      leaving.toldMs = nowMs;
      const body: Body = { kind: "forget", ballot: this.#ballot, epoch: leaving.epoch };
      this.#effects.push({ kind: "send", to: replicaId, body });
    }
  }
}
