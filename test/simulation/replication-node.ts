/**
 * One server of the simulation, as far as replication goes: it performs what its
 * replica wants, keeps what it knows of the others, and can lose power at any
 * moment.
 */
import { type Claim, nodeOf, replicaIdOf, serialOf } from "../../src/replication/ballot.ts";
import type { ReplicaEffect } from "../../src/replication/effect.ts";
import type { Body } from "../../src/replication/message.ts";
import type { Operation } from "../../src/replication/register.ts";
import { Replica } from "../../src/replication/replica.ts";
import type { ReplicaPorts, ReplicaSettings } from "../../src/replication/replica-port.ts";
import { type EntryStore, type ReplicaMeta, ReplicaState } from "../../src/replication/replica-state.ts";
import { type DiskImage, SimulatedDisk, Unreadable } from "./replication-disk.ts";

type Ballot = Claim["accepted"];
export type Answer = Extract<ReplicaEffect, { kind: "answer" }>["outcome"];

export type Compared = Extract<ReplicaEffect, { kind: "compared" }>;

export interface Packet {
  readonly from: string;
  readonly incarnation: number;
  readonly to: string;
  readonly content:
    | { readonly kind: "body"; readonly fromReplica: string; readonly toReplica: string; readonly body: Body }
    | { readonly kind: "led"; readonly round: number | undefined };
}

/** What a node asks of the world around it. */
export interface NodeWorld {
  readonly random: () => number;
  nowMs(): number;
  /** Runs `then` after `ms`, unless the node has lost power by then. */
  after(node: SimulatedNode, ms: number, then: () => void): void;
  send(node: SimulatedNode, packet: Packet): void;
  /** The node's disk has something to make durable. */
  written(
    node: SimulatedNode,
    before: DiskImage["meta"],
    write: Parameters<EntryStore["write"]>[0],
    synced: () => void,
  ): void;
  answered(node: SimulatedNode, operation: number, answer: Answer): void;
  serving(node: SimulatedNode, ballot: Ballot): void;
  compared(node: SimulatedNode, compared: Compared): void;
  complain(problem: string): void;
  readonly nodeIds: readonly string[];
}

const EPOCH_MS = 1_700_000_000_000;

export class SimulatedNode {
  readonly nodeId: string;
  readonly disk = new SimulatedDisk();
  readonly #world: NodeWorld;
  readonly #settings: ReplicaSettings;
  incarnation = 0;
  isUp = false;
  pausedUntilMs = 0;
  replica: Replica | undefined;
  /** The serial of the next memory; kept apart from the disk that may be lost. */
  serial = 1;
  /** This node's clocks. */
  clock = { offsetMs: 0, rate: 1, epochMs: 0 };
  readonly suspects = new Set<string>();
  readonly #deadSince = new Map<string, number>();
  readonly #incarnations = new Map<string, number>();
  readonly #led = new Map<string, { incarnation: number; round: number | undefined }>();
  wish: readonly string[] = [];
  #snapshots = new Map<number, DiskImage>();
  #isFlushWanted = false;
  #isLedStale = false;
  /** Its memory is in doubt; a leader that invites another in its place ends that. */
  #isSetAside = false;
  #tickAtMs = Number.POSITIVE_INFINITY;

  constructor(nodeId: string, world: NodeWorld, settings: ReplicaSettings) {
    this.nodeId = nodeId;
    this.#world = world;
    this.#settings = settings;
  }

  nowMs(): number {
    return this.#world.nowMs() * this.clock.rate + this.clock.offsetMs;
  }

  epochMs(): number {
    return EPOCH_MS + this.#world.nowMs() + this.clock.epochMs;
  }

  start(): void {
    this.isUp = true;
    this.incarnation++;
    this.pausedUntilMs = 0;
    this.#tickAtMs = Number.POSITIVE_INFINITY;
    this.#isFlushWanted = false;
    this.#isSetAside = false;
    this.#snapshots = new Map();
    this.#led.clear();
    this.suspects.clear();
    this.#deadSince.clear();
    const { meta } = this.disk.current;
    if (meta !== undefined) {
      const replica = this.#reopen(meta);
      this.replica = replica;
      this.#afterInput(replica);
      // In the background all is read once.
      this.#world.after(this, this.#world.random() * 500, () => {
        if (this.replica === replica) this.within(() => replica.check());
      });
    }
  }

  /** The first node of the group. */
  found(): void {
    const replica = this.#open(ReplicaState.empty(replicaIdOf(this.nodeId, this.serial), 0));
    this.replica = replica;
    this.within(() => replica.found());
  }

  crash(): void {
    this.isUp = false;
    this.replica = undefined;
    this.disk.crash(Math.floor(this.#world.random() * (this.disk.pending + 1)));
  }

  /** One entry turns bad, and nobody has noticed yet. */
  damage(): void {
    const { meta, entries } = this.disk.durable;
    const keys = [...entries.keys()];
    const key = keys[Math.floor(this.#world.random() * keys.length)];
    if (meta !== undefined && key !== undefined) this.disk.damaged = { generation: meta.generation, key };
  }

  /** What was kept at some moment stands on the disk again; peers that have seen a later start refuse it. */
  restoreOldCopy(): void {
    this.disk.durable = this.disk.oldCopy ?? this.disk.durable;
    this.disk.current = this.disk.durable.copy();
    this.loseMemory();
  }

  /** The disk is gone; whatever comes next here has another id. */
  loseMemory(): void {
    this.disk.damaged = undefined;
    this.disk.current.generations.clear();
    this.disk.current.meta = undefined;
    this.disk.durable = this.disk.current.copy();
    this.serial++;
  }

  operate(number: number, operation: Operation): void {
    const { replica } = this;
    if (replica === undefined) return this.#world.answered(this, number, { code: "NOT_LEADER" });
    this.within(() => replica.operate(number, operation, this.nowMs(), this.epochMs()));
  }

  within(input: () => void): void {
    const { replica } = this;
    if (replica === undefined) return;
    this.#guard(replica, input);
    this.#afterInput(replica);
  }

  #guard(replica: Replica, input: () => void): void {
    try {
      input();
    } catch (error) {
      if (error instanceof Unreadable) this.#setAside(replica, `${error.message} can't be read`);
      else this.#world.complain(`${this.nodeId} threw ${error instanceof Error ? error.stack : error}`);
    }
  }

  #setAside(replica: Replica, reason: string): void {
    replica.setAside(reason);
    this.#isSetAside = true;
  }

  receive(packet: Packet): void {
    const known = this.#incarnations.get(packet.from) ?? 0;
    if (packet.incarnation < known) return;
    this.#incarnations.set(packet.from, packet.incarnation);
    const { content } = packet;
    if (content.kind === "led") {
      const before = this.#led.get(packet.from);
      this.#led.set(packet.from, { incarnation: packet.incarnation, round: content.round });
      const isLess =
        before !== undefined &&
        (before.incarnation < packet.incarnation || (before.round ?? -1) > (content.round ?? -1));
      if (isLess) this.leaderLost(packet.from);
      return;
    }
    const { body, fromReplica, toReplica } = content;
    const id = this.replica?.id ?? replicaIdOf(this.nodeId, this.serial);
    if (toReplica !== "" && toReplica !== id) {
      if (
        serialOf(toReplica) < serialOf(id) &&
        "ballot" in body &&
        nodeOf(body.ballot.replicaId) === packet.from
      )
        this.#send(packet.from, id, fromReplica, { kind: "gone", ballot: body.ballot });
      return;
    }
    if (this.#isSetAside && this.replica !== undefined && body.kind === "invite") {
      this.#forget(this.replica);
    }
    if (this.replica === undefined) {
      if (body.kind !== "invite" && body.kind !== "offer") return;
      this.replica = this.#open(ReplicaState.empty(id, 0));
    }
    if ("ballot" in body && nodeOf(body.ballot.replicaId) === packet.from) {
      const page = this.#led.get(packet.from);
      if (body.kind === "stopped") {
        if (page !== undefined) page.round = undefined;
      } else if (body.kind !== "canvass") {
        if (page === undefined || page.incarnation < packet.incarnation) {
          this.#led.set(packet.from, { incarnation: packet.incarnation, round: body.ballot.round });
        } else page.round = Math.max(page.round ?? -1, body.ballot.round);
      }
    }
    const { replica } = this;
    this.within(() => replica.step(fromReplica, body, this.nowMs()));
  }

  suspect(nodeId: string): void {
    if (this.suspects.has(nodeId)) return;
    this.suspects.add(nodeId);
    this.#deadSince.set(nodeId, this.nowMs());
    this.leaderLost(nodeId);
    this.ringChanged();
  }

  trust(nodeId: string): void {
    if (!this.suspects.delete(nodeId)) return;
    this.#deadSince.delete(nodeId);
    this.ringChanged();
  }

  leaderLost(nodeId: string): void {
    const { replica } = this;
    if (replica === undefined) return;
    const { promised } = replica.state;
    if (nodeOf(promised.replicaId) !== nodeId || this.#hears(promised)) return;
    this.within(() => replica.leaderLost(this.nowMs()));
  }

  ringChanged(): void {
    const { replica } = this;
    if (replica?.standingBallot !== undefined) this.within(() => replica.ringChanged(this.nowMs()));
  }

  tellLed(): void {
    this.#isLedStale = false;
    const round = this.replica?.standingBallot?.round;
    for (const to of this.#world.nodeIds) {
      if (to === this.nodeId) continue;
      this.#world.send(this, {
        from: this.nodeId,
        incarnation: this.incarnation,
        to,
        content: { kind: "led", round },
      });
    }
  }

  /** One that can't be read has another id from now on. */
  #reopen(meta: ReplicaMeta): Replica {
    try {
      return this.#open(meta);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      return this.#succeed(meta.replicaId, [meta.generation, ...meta.leftovers]);
    }
  }

  #open(meta: ReplicaMeta): Replica {
    const store: EntryStore = {
      get: (generation, key) => this.disk.get(generation, key),
      write: (write) =>
        this.#world.written(this, this.disk.current.meta, write, () => {
          if (this.replica === replica) this.within(() => replica.persisted(write.token, this.nowMs()));
        }),
    };
    const ports: ReplicaPorts = {
      hears: (ballot) => this.#hears(ballot),
      isLive: (nodeId) => !this.suspects.has(nodeId),
      rank: (nodeIds) => {
        const order = this.#world.nodeIds.filter((id) => nodeIds.includes(id) && !this.suspects.has(id));
        return Math.max(0, order.indexOf(this.nodeId));
      },
      wish: () => (this.wish.length === 0 ? undefined : this.wish),
      deadSince: (nodeId) => this.#deadSince.get(nodeId),
      isDismissed: () => false,
      mayStep: () => true,
      random: this.#world.random,
    };
    const replica = new Replica({
      meta,
      store,
      digestKey: Buffer.alloc(16, 3),
      ports,
      settings: this.#settings,
      incarnation: this.incarnation,
      nowMs: this.nowMs(),
    });
    return replica;
  }

  #hears(ballot: Ballot): boolean {
    const nodeId = nodeOf(ballot.replicaId);
    if (nodeId === this.nodeId) return (this.replica?.standingBallot?.round ?? -1) >= ballot.round;
    return !this.suspects.has(nodeId) && (this.#led.get(nodeId)?.round ?? -1) >= ballot.round;
  }

  #afterInput(replica: Replica): void {
    for (let effects = replica.take(); effects.length > 0; effects = replica.take()) {
      for (const effect of effects) this.#perform(replica, effect);
    }
    if (this.replica !== replica) return;
    if (!this.#isFlushWanted && replica.isFlushWanted) {
      this.#isFlushWanted = true;
      this.#world.after(this, 0, () => {
        this.#isFlushWanted = false;
        if (this.replica !== replica) return;
        this.#guard(replica, () => replica.flush(this.nowMs()));
        this.#afterFlush(replica);
      });
    }
    this.#wantTick(replica);
  }

  #afterFlush(replica: Replica): void {
    for (let effects = replica.take(); effects.length > 0; effects = replica.take()) {
      for (const effect of effects) this.#perform(replica, effect);
    }
    if (this.#isLedStale) this.tellLed();
    if (this.replica === replica) this.#wantTick(replica);
  }

  #wantTick(replica: Replica): void {
    const wantedMs = (replica.nextTickMs - this.clock.offsetMs) / this.clock.rate;
    if (wantedMs === Number.POSITIVE_INFINITY) return;
    // Timers are late by up to 20 ms.
    const atMs = Math.max(wantedMs, this.#world.nowMs()) + 1 + this.#world.random() * 20;
    if (this.#tickAtMs <= atMs) return;
    this.#tickAtMs = atMs;
    this.#world.after(this, atMs - this.#world.nowMs(), () => {
      if (this.#tickAtMs !== atMs) return;
      this.#tickAtMs = Number.POSITIVE_INFINITY;
      const present = this.replica;
      if (present !== undefined) this.within(() => present.tick(this.nowMs()));
    });
  }

  #perform(replica: Replica, effect: ReplicaEffect): void {
    switch (effect.kind) {
      case "send":
        return this.#send(nodeOf(effect.to), replica.id, effect.to, effect.body);
      case "invite":
        return this.#send(effect.nodeId, replica.id, "", effect.body);
      case "answer":
        return this.#world.answered(this, effect.operation, effect.outcome);
      case "snapshot":
        this.#snapshots.set(effect.snapshot, this.disk.current.copy());
        return;
      case "scan": {
        const snapshot = this.#snapshots.get(effect.snapshot);
        if (snapshot === undefined) return;
        const { generation, prefix, after, limit, bytesMax } = effect;
        if (this.disk.damaged?.generation === generation && this.disk.damaged.key.startsWith(prefix))
          return this.within(() => {
            throw new Unreadable(prefix);
          });
        const all = snapshot.scan(generation, prefix, after);
        const entries: typeof all = [];
        let bytes = 0;
        for (const entry of all) {
          if (entries.length === limit || bytes >= bytesMax) break;
          entries.push(entry);
          bytes += entry.value.byteLength;
        }
        const scanned = { entries, isLast: entries.length === all.length };
        this.#world.after(this, this.#world.random() * 3, () => {
          if (this.replica !== replica) return;
          this.within(() => replica.scanned(effect.snapshot, scanned, this.nowMs(), this.epochMs()));
        });
        return;
      }
      case "release":
        this.#snapshots.delete(effect.snapshot);
        return;
      case "dropGeneration":
        this.disk.dropGeneration(effect.generation);
        replica.dropped(effect.generation);
        return;
      case "compared":
        return this.#world.compared(this, effect);
      case "leading":
        this.#isLedStale = true;
        return this.#world.serving(this, effect.ballot);
      case "stoppedLeading":
        return;
      case "standing":
        this.#isLedStale = true;
        return;
      case "forget":
        return this.#forget(replica);
      case "damaged":
      case "defect":
        return this.#world.complain(`${replica.id}: ${effect.what}`);
    }
  }

  /** The id is spent before anything is deleted. */
  #forget(replica: Replica): void {
    const { generation, leftovers } = replica.state;
    this.#snapshots = new Map();
    this.#isSetAside = false;
    this.replica = this.#succeed(replica.id, [generation, ...leftovers]);
  }

  /** An empty memory under the next id. */
  #succeed(id: string, leftovers: readonly number[]): Replica {
    this.serial = Math.max(this.serial, serialOf(id)) + 1;
    const meta = ReplicaState.empty(replicaIdOf(this.nodeId, this.serial), Math.max(...leftovers) + 1, [
      ...leftovers,
    ]);
    const write = { token: 0, generation: meta.generation, changes: [], meta };
    this.#world.written(this, undefined, write, () => {});
    this.disk.damaged = undefined;
    return this.#open(meta);
  }

  #send(to: string, fromReplica: string, toReplica: string, body: Body): void {
    this.#world.send(this, {
      from: this.nodeId,
      incarnation: this.incarnation,
      to,
      content: { kind: "body", fromReplica, toReplica, body },
    });
  }
}
