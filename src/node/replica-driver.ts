/**
 * Runs all replicas of this server: hands their batches to the store, their
 * messages to the transport, their answers to whoever asked, and tells each other
 * server which partitions are led here.
 *
 * One timer serves all replicas, and only those that wait for something: an idle
 * partition costs nothing.
 */
import { EventEmitter } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { DamagedError, NotLeaderError, TooLargeError, UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import { nodeOf, replicaIdOf, serialOf } from "../replication/ballot.ts";
import type { ReplicaEffect } from "../replication/effect.ts";
import type { Body, ReplicationMessage } from "../replication/message.ts";
import { bytesOf } from "../replication/open-batch.ts";
import type { Survivor } from "../replication/recovery.ts";
import {
  BATCH_BYTES_MAX,
  type Ballot,
  isStale,
  type Operation,
  type Outcome,
} from "../replication/register.ts";
import { Replica } from "../replication/replica.ts";
import { REPLICA_LIMITS, type ReplicaPorts, type ReplicaSettings } from "../replication/replica-port.ts";
import { type EntryStore, type ReplicaMeta, ReplicaState } from "../replication/replica-state.ts";
import { type Identifier, isNodeId, type NodeId, positionOf } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { Store, StoreSnapshot } from "../store/store.ts";
import { GroupWishes } from "./group-wishes.ts";
import { LedBook } from "./led-book.ts";
import type { Holding } from "./peer-contract.ts";
import { PendingAnswers } from "./pending-answers.ts";
import { decodeMeta, encodeClaim, encodeMeta, isSameLasting } from "./replica-meta.ts";
import { countEntries, SnapshotReader } from "./snapshot-reader.ts";
import { StepRates } from "./step-rates.ts";

/** Ticks are no nearer to one another, and farther apart only while nothing is due. */
const TICK_MS = 20;
/** Changes of groups are told this much later, all at once. */
const GROUPS_MS = 250;
/** Where the own view of the ring does not reach, nothing tells that the wish has changed. */
const WISH_RENEW_MS = 10_000;
/** As many as are promised: two may be lost at once. */
const COPIES_SAFE = 3;
/** Of a server that stops: more at once would wait for one another, and each is without a leader meanwhile. */
const HAND_OVERS_AT_ONCE = 8;
const HAND_OVER_LOOK_MS = 5;
const NODE_IDS_MAX = 65_536;
/** Behind all others of a group. */
const LAST_RANK = 20;
/** Any key will do: what is asked for is how old the answer is. */
const AGE_KEY = "\x30";

interface ReplicaEvents {
  /** Serves from now on. */
  leading: [partition: number, ballot: Ballot];
  /** Serves no more. */
  stopped: [partition: number];
  /** `peers` may give others than before. */
  groups: [];
  /** What is kept here of it can't be trusted: it was set aside, to be brought back by the others. */
  damaged: [partition: number];
  /** The store takes no more writes: nothing is kept or answered here until `resume`. */
  storeFailed: [error: Error];
}

export interface ReplicaRing {
  readonly self: Member;
  member(nodeId: NodeId): Member | undefined;
  members(): Member[];
  isSuspected(nodeId: NodeId): boolean;
  /** Of a member of a group that is not known. */
  meet(member: PeerSender): void;
  successorsOfLocally(point: Identifier, count: number): Member[] | undefined;
  /** Who should keep `count` copies, nobody of `except`, in ring order; undefined when they lie out of sight. */
  placementLocally(point: Identifier, count: number, except: ReadonlySet<string>): Member[] | undefined;
  placement(point: Identifier, count: number, except: ReadonlySet<string>): Promise<{ members: Member[] }>;
}

export interface PartitionStatus {
  readonly partition: number;
  readonly role: "leader" | "follower" | "learner" | "none";
  readonly ballot: Ballot;
  readonly seq: number;
  readonly members: readonly NodeId[];
  readonly leader: NodeId | undefined;
  /** Members on servers that are there: one that is away, for a moment or for good, keeps nothing safe. */
  readonly copies: number;
  /** Degraded: fewer than three copies. */
  readonly durability: "full" | "degraded";
  /** Why this replica takes no part, if so. */
  readonly quarantine?: string | undefined;
}

/** Which replicas hold what the leader holds in the same state. `silent`: not heard in time, or not level. */
export type RootsCompared = Pick<
  Extract<ReplicaEffect, { kind: "compared" }>,
  "same" | "different" | "silent"
>;

interface Held {
  readonly partition: number;
  readonly replica: Replica;
  readonly snapshots: Map<number, StoreSnapshot>;
  readonly comparisons: Map<number, (compared: RootsCompared) => void>;
  isFlushWanted: boolean;
  /** As last handed to the store; undefined: nothing since it was opened. */
  written: ReplicaMeta | undefined;
  /** As it was when last looked at. */
  config: Replica["config"] | undefined;
  /** Of the ballot that it leads or stands for, as when last looked at. */
  standingRound: number | undefined;
  /** Its memory is in doubt; a leader that invites another in its place ends that. */
  isDamaged: boolean;
}

export class ReplicaDriver extends EventEmitter<ReplicaEvents> {
  readonly #self: Member;
  readonly #nodeId: NodeId;
  readonly #partitionCount: number;
  readonly #store: Store;
  readonly #digestKey: Uint8Array;
  readonly #random: () => number;
  /** Milliseconds since the epoch. */
  readonly #wall: () => number;
  readonly #log: Log;
  readonly #settings: ReplicaSettings;
  readonly #ring: ReplicaRing;
  readonly #send: (to: PeerRef, message: ReplicationMessage) => void;
  readonly #led: LedBook;
  readonly #replicas = new Map<number, Held>();
  readonly #wishes: GroupWishes;
  readonly #deadSince = new Map<NodeId, number>();
  /** Members of groups that are kept here, of whom the ring knows nothing. */
  readonly #unknownSince = new Map<NodeId, number>();
  readonly #steps = new StepRates();
  readonly #flushes: Held[] = [];
  // When a replica wants its next tick; only those that do.
  readonly #due = new Map<Held, number>();
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #tickedMs = Number.NEGATIVE_INFINITY;
  #wishTimer: NodeJS.Timeout | undefined;
  #groupsTimer: NodeJS.Timeout | undefined;
  #isStarted = false;
  #operation = 0;
  readonly #answers = new PendingAnswers((partition) => this.leaderHint(partition));
  /** Opened, and not yet compared with the root on record. */
  #unchecked: Held[] = [];
  readonly #incarnations = new Map<NodeId, number>();
  readonly #nodeIds = new Map<string, string>();
  readonly #reader = new SnapshotReader();
  #firstSerial: number;
  /** How often the store was opened. */
  #openings = 0;
  #storeFailure: string | undefined;
  #isDraining = false;
  #isStopped = false;
  #isLedStale = false;
  /** As `#ownLed` gives it; undefined: a replica stands under another ballot since it was asked for. */
  #ledList: [partition: number, round: number][] | undefined;

  constructor(options: {
    self: Member;
    partitionCount: number;
    store: Store;
    /** Of a partition without a record; 1, when left out. */
    firstSerial?: number;
    digestKey: Uint8Array;
    /** In [0, 1). */
    random: () => number;
    /** The time of day, for what expires: milliseconds since the epoch. */
    wall: () => number;
    log: Log;
    settings: { replicationFactor: number; leaderTimeoutMs: number; replaceAfterMs: number };
    ring: ReplicaRing;
    send(to: PeerRef, message: ReplicationMessage): void;
  }) {
    super();
    this.#self = options.self;
    this.#nodeId = options.self.nodeId;
    this.#partitionCount = options.partitionCount;
    this.#store = options.store;
    this.#firstSerial = options.firstSerial ?? 1;
    this.#digestKey = options.digestKey;
    this.#random = options.random;
    this.#wall = options.wall;
    this.#log = options.log;
    this.#settings = { ...options.settings, limits: REPLICA_LIMITS };
    this.#ring = options.ring;
    this.#send = options.send;
    this.#wishes = new GroupWishes({
      ring: options.ring,
      replicationFactor: options.settings.replicationFactor,
      incarnationOf: (nodeId) => this.#incarnations.get(nodeId) ?? 0,
    });
    this.#led = new LedBook({
      ask: (nodeId) => this.#sendToNode(nodeId, { node: { kind: "ledAsk" } }),
      changed: (nodeId) => this.#reconsiderFollowers(nodeId),
    });
  }

  /** The first server of a cluster: every partition with itself as the one member. Repeatable until all stand. */
  async bootstrap(): Promise<void> {
    for (let partition = 0; partition < this.#partitionCount; partition++) {
      if (this.#replicas.has(partition)) continue;
      const held = this.#hold(partition, ReplicaState.empty(this.#firstId(), 0));
      held.replica.found();
      this.#perform(held);
    }
    await Promise.all([...this.#replicas.values()].map((held) => durable(held)));
  }

  #firstId(): string {
    return replicaIdOf(this.#nodeId, this.#firstSerial);
  }

  /** Opens what the store holds. */
  async open(): Promise<void> {
    this.#openings++;
    for (const partition of this.#store.partitions()) {
      const bytes = this.#store.meta(partition);
      if (bytes === undefined || partition >= this.#partitionCount || this.#replicas.has(partition)) continue;
      const held = this.#openOne(partition, bytes);
      if (held === undefined) continue;
      this.#perform(held);
      this.#unchecked.push(held);
    }
  }

  /** A record that can't be read is never taken for absent: what it stood for has another id from now on. */
  #openOne(partition: number, bytes: Uint8Array): Held | undefined {
    try {
      return this.#hold(
        partition,
        decodeMeta(bytes, () => this.#store.claim(partition)),
      );
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      this.#log.error("a replica can't be read and is to be fetched again", { partition, error });
      // Greater than any serial that came before: those count up from 1, or are an earlier time.
      const serial = Math.max(Date.now(), this.#firstSerial + 1);
      const next = ReplicaState.empty(replicaIdOf(this.#nodeId, serial), Date.now() % 2 ** 31);
      this.#replicas.delete(partition);
      this.#ledIsStale();
      this.#store
        .write({ partition, generation: next.generation, changes: [], ...asStored(next) })
        .catch((cause: unknown) => this.#storeFailed(cause));
      return this.#hold(partition, next);
    }
  }

  start(): void {
    this.#isStarted = true;
    this.#wishTimer = setInterval(() => this.#renewWishes(), WISH_RENEW_MS);
    this.#wishTimer.unref();
    this.#ledIsStale();
    this.#groupsChanged();
  }

  receive(from: PeerSender, message: ReplicationMessage): void {
    if (this.#isStopped || !isNodeId(from.nodeId)) return;
    // What an earlier start of a server said is void.
    if (from.incarnation < (this.#incarnations.get(from.nodeId) ?? 0)) return;
    this.#incarnations.set(from.nodeId, from.incarnation);
    if ("node" in message) {
      if (message.node.kind === "ledAsk") this.#tellLed([from.nodeId]);
      else {
        const { isLeaving } = message.node;
        if (isLeaving === true && this.#wishes.leaves(from.nodeId, from.incarnation)) this.ringChanged();
        this.#led.learn(from.nodeId, from.incarnation, message.node.list);
      }
      return;
    }
    if (this.#storeFailure !== undefined) return;
    // Whoever can't be reached gets no answer: neighbours on the ring know one another, members of a group may not.
    if (this.#ring.member(from.nodeId) === undefined) this.#ring.meet(from);
    const { partition, body } = message;
    // The replica speaks for its node only: the certificate says which that is.
    if (nodeOf(message.from) !== from.nodeId || partition >= this.#partitionCount) return;
    let held = this.#replicas.get(partition);
    // Without a meta record nothing was ever promised or held under the first id.
    const id = held?.replica.id ?? this.#firstId();
    if (message.to !== "" && message.to !== id) {
      const isOlder = nodeOf(message.to) === this.#nodeId && serialOf(message.to) < serialOf(id);
      if (isOlder && "ballot" in body && nodeOf(body.ballot.replicaId) === from.nodeId)
        this.#sendTo(from.nodeId, partition, id, message.from, { kind: "gone", ballot: body.ballot });
      return;
    }
    if (held?.isDamaged === true && body.kind === "invite") held = this.#forget(held, "keep");
    if (held === undefined) {
      if (body.kind !== "invite" && body.kind !== "offer") return;
      held = this.#hold(partition, ReplicaState.empty(id, 0));
    }
    if ("ballot" in body && nodeOf(body.ballot.replicaId) === from.nodeId) {
      if (body.kind === "stopped") this.#led.retract(from.nodeId, partition);
      else if (body.kind !== "canvass")
        this.#led.note(from.nodeId, from.incarnation, partition, body.ballot.round);
    }
    const target = held;
    this.#within(target, () => target.replica.step(message.from, body, performance.now()));
  }

  /** A peer was found dead: its partitions look for another leader at once. */
  suspected(nodeId: NodeId): void {
    this.#deadSince.set(nodeId, this.#deadSince.get(nodeId) ?? performance.now());
    this.#reconsiderFollowers(nodeId);
    this.ringChanged();
  }

  alive(nodeId: NodeId): void {
    this.#deadSince.delete(nodeId);
    this.ringChanged();
  }

  /** Nothing is to be kept on these nodes any more, by an operator's word. */
  dismiss(nodeIds: ReadonlySet<string>): void {
    if (this.#wishes.dismiss(nodeIds)) this.ringChanged();
  }

  /** Members have come or gone: who is wished may have changed. */
  ringChanged(): void {
    this.#wishes.askAnew();
    for (const held of this.#replicas.values()) {
      if (held.replica.standingBallot === undefined) continue;
      this.#within(held, () => held.replica.ringChanged(performance.now()));
    }
    this.#ledIsStale();
  }

  /** Digest of what is led here, for the pings to `peer`. */
  ledDigest(_peer: NodeId): Uint8Array {
    this.#ledList ??= this.#ownLed();
    return this.#led.digestOf(this.#ledList);
  }

  ledHeard(peer: NodeId, incarnation: number, bytes: Uint8Array): void {
    this.#led.heard(peer, incarnation, bytes);
  }

  /**
   * At the local replica.
   *
   * @throws {NotLeaderError} nothing has happened. @throws {OutcomeUnknownError} it may have. @throws {BusyError} nothing has happened.
   * @throws {TooLargeError} nothing has happened: the batch, or what a get would answer, is larger than a frame.
   */
  operate(partition: number, operation: Operation): Promise<Outcome> {
    const held = this.#replicas.get(partition);
    if (held === undefined || (!held.replica.takesOperations && !isStale(operation))) {
      return Promise.reject(new NotLeaderError(partition, this.leaderHint(partition)));
    }
    const bytes = operation.kind === "batch" ? bytesOf(operation.changes) : 0;
    if (bytes > BATCH_BYTES_MAX) {
      return Promise.reject(
        new TooLargeError(`a batch of ${bytes} bytes is over the limit of ${BATCH_BYTES_MAX}; split it`),
      );
    }
    const refusal = this.#answers.refusal(bytes);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const number = ++this.#operation;
      this.#answers.add(number, { partition, bytes, resolve, reject });
      this.#within(held, () => held.replica.operate(number, operation, performance.now(), this.#wall()));
    });
  }

  /**
   * Whether the other replicas of a partition that is led here hold the same entries, by their roots: reads
   * no entry. One that differs from a majority is set aside by itself.
   *
   * @returns undefined: it is not led here, or is being compared already.
   */
  compare(partition: number): Promise<RootsCompared> | undefined {
    const held = this.#replicas.get(partition);
    const comparison = ++this.#operation;
    if (held?.replica.compare(comparison, performance.now()) !== true) return undefined;
    const compared = new Promise<RootsCompared>((resolve) => held.comparisons.set(comparison, resolve));
    this.#within(held, () => {});
    return compared;
  }

  /** Reads all entries of the copy here and compares them with the root on record; `damaged` tells when they differ. */
  async recheck(partition: number): Promise<void> {
    const held = this.#replicas.get(partition);
    if (held === undefined) return;
    this.#within(held, () => held.replica.check());
    while (held.replica.isChecking && this.#replicas.get(partition) === held && !this.#isStopped) {
      await pause(TICK_MS);
    }
  }

  /** What others found wrong with the copy here: it is not used any more, and comes back from the group. */
  distrust(partition: number, error: DamagedError): void {
    this.#setAside(partition, error);
  }

  /** What the replica here can say of itself, for whoever decides how a lost partition goes on. */
  survivor(partition: number): Survivor | undefined {
    return this.#replicas.get(partition)?.replica.survivor;
  }

  /** The same of several, with how much each holds. */
  async holdings(partitions: readonly number[], counted: boolean): Promise<Holding[]> {
    const found: Holding[] = [];
    for (const partition of partitions) {
      const held = this.#replicas.get(partition);
      if (held === undefined || held.replica.quarantine !== undefined) continue;
      const { generation } = held.replica.state;
      const { promised, claim, replicaId, members } = held.replica.survivor;
      let entries: number | null = null;
      try {
        if (counted) entries = await countEntries(this.#store, partition, generation);
      } catch (error) {
        // A damaged memory is none to go on from.
        this.#log.warn("a replica can't be counted", { partition, error });
        continue;
      }
      const age = await this.operate(partition, { kind: "get", keys: [AGE_KEY], stale: true }).catch(
        () => undefined,
      );
      const ageMs = age?.kind === "entries" ? (age.ageMs ?? null) : null;
      found.push({ partition, promised, claim, replicaId, members: [...members], entries, ageMs });
    }
    return found;
  }

  /** Goes on alone from what is held here, as `planRecovery` decided; false: it holds something else by now. */
  recover(
    partition: number,
    decided: { readonly claim: Survivor["claim"]; readonly round: number },
  ): boolean {
    const held = this.#replicas.get(partition);
    if (held === undefined) return false;
    let isRecovered = false;
    this.#within(held, () => {
      isRecovered = held.replica.recover(decided, performance.now());
    });
    return isRecovered;
  }

  /** The ballot under which this server serves the partition now. */
  leads(partition: number): Ballot | undefined {
    return this.#replicas.get(partition)?.replica.servingBallot;
  }

  /** Whether operations on the partition are done here: now, or as soon as this server serves it. */
  takesOperations(partition: number): boolean {
    return this.#replicas.get(partition)?.replica.takesOperations === true;
  }

  /** Who leads, as far as is known here. */
  leaderHint(partition: number): NodeId | undefined {
    const hint = this.#replicas.get(partition)?.replica.leaderHint;
    const nodeId = hint === undefined ? this.#led.leaderOf(partition) : nodeOf(hint);
    return nodeId !== undefined && isNodeId(nodeId) ? nodeId : undefined;
  }

  /** The partition's members; undefined when no replica is held here. */
  members(partition: number): NodeId[] | undefined {
    const config = this.#replicas.get(partition)?.replica.config;
    if (config === undefined || config.members.length === 0) return undefined;
    return config.members.map(nodeOf).filter(isNodeId);
  }

  /** All others with whom a group is shared. */
  peers(): NodeId[] {
    const peers = new Set<NodeId>();
    for (const { replica } of this.#replicas.values()) {
      for (const member of replica.config.members) {
        const nodeId = nodeOf(member);
        if (isNodeId(nodeId) && nodeId !== this.#nodeId) peers.add(nodeId);
      }
    }
    return [...peers];
  }

  status(): PartitionStatus[] {
    return [...this.#replicas.values()].map(({ partition, replica }) => {
      const members = replica.config.members.map(nodeOf).filter(isNodeId);
      const isMember = members.includes(this.#nodeId);
      const role = replica.servingBallot !== undefined ? "leader" : isMember ? "follower" : "learner";
      const copies = members.filter((nodeId) =>
        nodeId === this.#nodeId ? replica.quarantine === undefined : this.#isThere(nodeId),
      ).length;
      return {
        partition,
        role: replica.quarantine === undefined ? role : "none",
        ballot: replica.state.promised,
        seq: replica.state.seq,
        members,
        leader: this.leaderHint(partition),
        copies,
        durability: copies >= COPIES_SAFE ? "full" : "degraded",
        quarantine: replica.quarantine,
      };
    });
  }

  /** These keep their copies, and lead only what nobody else can. */
  passOver(nodeIds: ReadonlySet<NodeId>): void {
    this.#wishes.passOver(nodeIds);
    for (const held of this.#replicas.values()) {
      if (held.replica.standingBallot !== undefined)
        this.#within(held, () => held.replica.ringChanged(performance.now()));
    }
  }

  #isThere(nodeId: NodeId): boolean {
    if (nodeId === this.#nodeId) return true;
    return this.#ring.member(nodeId) !== undefined && !this.#ring.isSuspected(nodeId);
  }

  /** A member that nobody here has heard of is as good as dead: it may have died before this server came. */
  #goneSince(nodeId: NodeId): number | undefined {
    if (nodeId === this.#nodeId || this.#ring.member(nodeId) !== undefined) {
      this.#unknownSince.delete(nodeId);
      return this.#deadSince.get(nodeId);
    }
    const sinceMs = this.#deadSince.get(nodeId) ?? this.#unknownSince.get(nodeId) ?? performance.now();
    this.#unknownSince.set(nodeId, sinceMs);
    return sinceMs;
  }

  /** Gives all leaderships away; resolves when none is left here, or after `timeoutMs`. */
  async handOverAll(timeoutMs = 5000): Promise<void> {
    this.#isDraining = true;
    this.#tellLed();
    const deadline = performance.now() + timeoutMs;
    const isAlone = () =>
      this.#ring.members().every((m) => m.nodeId === this.#nodeId || this.#ring.isSuspected(m.nodeId));
    while (performance.now() < deadline && !isAlone() && !this.#isStopped) {
      const led = [...this.#replicas.values()].filter((held) => held.replica.standingBallot !== undefined);
      if (led.length === 0) return;
      const isUnderWay = ({ replica }: Held) => replica.isHandingOver || replica.servingBallot === undefined;
      let underWay = led.filter(isUnderWay).length;
      for (const held of led) {
        if (underWay >= HAND_OVERS_AT_ONCE) break;
        if (isUnderWay(held)) continue;
        this.#within(held, () => held.replica.handOver(performance.now()));
        if (isUnderWay(held)) underWay++;
      }
      await pause(HAND_OVER_LOOK_MS);
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#wishTimer);
    clearTimeout(this.#timer);
    clearTimeout(this.#groupsTimer);
    this.#answers.reject((partition) => new NotLeaderError(partition));
    for (const held of this.#replicas.values()) {
      for (const snapshot of held.snapshots.values()) await snapshot.close();
      held.snapshots.clear();
    }
  }

  // --- replicas ---------------------------------------------------------------

  #hold(partition: number, meta: ReplicaMeta): Held {
    const store: EntryStore = {
      get: (generation, key) => this.#read(partition, generation, key),
      write: ({ token, generation, changes, meta: next }) => {
        this.#store
          .write(
            next === undefined
              ? { partition, generation, changes }
              : isSameLasting(held.written, next)
                ? { partition, generation, changes, claim: encodeClaim(next) }
                : { partition, generation, changes, ...asStored(next) },
          )
          .then(
            () => this.#persisted(held, token),
            (error: unknown) => this.#refused(held, error),
          );
        if (next !== undefined) held.written = next;
      },
    };
    const position = positionOf(partition, this.#partitionCount);
    const ports: ReplicaPorts = {
      hears: (ballot) => this.#hears(partition, ballot),
      isLive: (nodeId) => isNodeId(nodeId) && this.#isThere(nodeId),
      rank: (nodeIds) => this.#rank(position, nodeIds),
      wish: () => this.#wishes.of(partition, position, performance.now()),
      deadSince: (nodeId) => (isNodeId(nodeId) ? this.#goneSince(nodeId) : undefined),
      isDismissed: (nodeId) => this.#wishes.isDismissed(nodeId),
      mayStep: (kind) =>
        (kind === "handOver" && this.#isDraining) || this.#steps.take(kind, performance.now()),
      random: this.#random,
    };
    const held: Held = {
      partition,
      replica: new Replica({
        meta,
        store,
        digestKey: this.#digestKey,
        ports,
        settings: this.#settings,
        incarnation: `${this.#self.incarnation}.${this.#openings}`,
        nowMs: performance.now(),
      }),
      snapshots: new Map(),
      comparisons: new Map(),
      isFlushWanted: false,
      written: undefined,
      config: undefined,
      standingRound: undefined,
      isDamaged: false,
    };
    this.#replicas.set(partition, held);
    this.#ledList = undefined;
    return held;
  }

  #read(partition: number, generation: number, key: string) {
    try {
      return this.#store.get(partition, generation, key);
    } catch (cause) {
      // What can't be read is never absent: the others bring it back, as they do what is damaged.
      const error = damageOf(cause);
      if (error === undefined) throw cause;
      queueMicrotask(() => this.#setAside(partition, error));
      throw error;
    }
  }

  /** Why the store takes no writes; undefined while all is well. */
  get storeFailure(): string | undefined {
    return this.#storeFailure;
  }

  /**
   * After `storeFailed`, once the store is open again: everything stands as it was made durable.
   *
   * @param firstSerial another one than before when what the store held is lost.
   */
  async resume(firstSerial = this.#firstSerial): Promise<void> {
    this.#firstSerial = firstSerial;
    this.#replicas.clear();
    this.#due.clear();
    this.#unchecked = [];
    this.#storeFailure = undefined;
    await this.open();
    this.#log.info("replicas resumed", { replicas: this.#replicas.size });
    this.#ledIsStale();
    this.#groupsChanged();
  }

  /** The store has refused a write of one that still counts. */
  #refused(held: Held, error: unknown): void {
    if (this.#replicas.get(held.partition) === held) this.#storeFailed(error);
  }

  /** What a failed write left behind is unknown, and the store is one for all: none of them goes on. */
  #storeFailed(cause: unknown): void {
    if (this.#isStopped || this.#storeFailure !== undefined) return;
    const error = cause instanceof Error ? cause : new Error(String(cause));
    this.#storeFailure = error.message;
    this.#log.error("the store takes no more writes", { error });
    for (const { partition } of this.#replicas.values()) this.#setAside(partition, error);
    this.#ledIsStale();
    this.emit("storeFailed", error);
  }

  /** Runs one input of a replica and performs what comes of it. */
  #within(held: Held, input: () => void): void {
    try {
      input();
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      this.#setAside(held.partition, error);
    }
    this.#perform(held);
    if (!held.isFlushWanted && held.replica.isFlushWanted) {
      held.isFlushWanted = true;
      if (this.#flushes.push(held) === 1) setImmediate(() => this.#flush());
    }
  }

  /** Once a turn: whatever has gathered in it forms one batch a partition and one frame a peer. */
  #flush(): void {
    for (const held of this.#flushes.splice(0)) {
      held.isFlushWanted = false;
      try {
        held.replica.flush(performance.now());
      } catch (error) {
        if (!(error instanceof DamagedError)) throw error;
        this.#setAside(held.partition, error);
      }
      this.#perform(held);
    }
  }

  #perform(held: Held): void {
    for (let effects = held.replica.take(); effects.length > 0; effects = held.replica.take()) {
      for (const effect of effects) this.#performOne(held, effect);
    }
    const next = held.replica.nextTickMs;
    if (next === Number.POSITIVE_INFINITY) this.#due.delete(held);
    else {
      this.#due.set(held, next);
      this.#armFor(next);
    }
    const { config } = held.replica;
    if (config !== held.config) {
      held.config = config;
      this.#groupsChanged();
    }
    const round = held.replica.standingBallot?.round;
    if (round !== held.standingRound) {
      held.standingRound = round;
      this.#ledList = undefined;
    }
  }

  #performOne(held: Held, effect: ReplicaEffect): void {
    const { partition, replica } = held;
    switch (effect.kind) {
      case "send":
        return this.#sendTo(this.#nodeOf(effect.to), partition, replica.id, effect.to, effect.body);
      case "invite":
        return this.#sendTo(effect.nodeId, partition, replica.id, "", effect.body);
      case "answer":
        return this.#answers.answer(effect.operation, effect.outcome);
      case "compared":
        held.comparisons.get(effect.comparison)?.(effect);
        held.comparisons.delete(effect.comparison);
        return;
      case "snapshot":
        held.snapshots.set(effect.snapshot, this.#store.snapshot());
        return;
      case "scan":
        return this.#scan(held, effect);
      case "release": {
        const snapshot = held.snapshots.get(effect.snapshot);
        held.snapshots.delete(effect.snapshot);
        snapshot
          ?.close()
          .catch((error: unknown) => this.#log.warn("snapshot not released", { partition, error }));
        return;
      }
      case "dropGeneration":
        this.#store.dropGeneration(partition, effect.generation).then(
          () => replica.dropped(effect.generation),
          (error: unknown) => this.#refused(held, error),
        );
        return;
      case "leading":
        this.#ledIsStale();
        this.#log.debug("leading", { partition, round: effect.ballot.round });
        this.emit("leading", partition, effect.ballot);
        return;
      case "stoppedLeading":
        this.#ledIsStale();
        this.#log.debug("stopped leading", { partition });
        this.emit("stopped", partition);
        return;
      case "standing":
        this.#ledIsStale();
        return;
      case "forget":
        this.#forget(held, "delete");
        return;
      case "damaged":
        queueMicrotask(() => this.#setAside(partition, new DamagedError(effect.what)));
        return;
      case "defect":
        this.#log.error("replica defect", { partition, what: effect.what });
        return;
    }
  }

  #scan(held: Held, effect: Extract<ReplicaEffect, { kind: "scan" }>): void {
    const snapshot = held.snapshots.get(effect.snapshot);
    if (snapshot === undefined) return;
    this.#reader.read(snapshot, held.partition, effect).then(
      (scanned) => {
        if (this.#isStopped || this.#replicas.get(held.partition) !== held) return;
        this.#within(held, () =>
          held.replica.scanned(effect.snapshot, scanned, performance.now(), this.#wall()),
        );
      },
      (error: unknown) => {
        // Released meanwhile: nobody waits for it, and a closed snapshot says nothing about the disk.
        if (this.#isStopped || !held.snapshots.has(effect.snapshot)) return;
        if (this.#replicas.get(held.partition) === held)
          this.#setAside(held.partition, damageOf(error) ?? error);
      },
    );
  }

  /** What a replica that was given up since had written concerns nobody any more. */
  #persisted(held: Held, token: number): void {
    if (this.#isStopped || this.#replicas.get(held.partition) !== held) return;
    this.#within(held, () => held.replica.persisted(token, performance.now()));
  }

  #setAside(partition: number, error: unknown): void {
    const held = this.#replicas.get(partition);
    if (held === undefined || this.#isStopped || held.replica.quarantine !== undefined) return;
    const reason = error instanceof Error ? error.message : String(error);
    if (this.#storeFailure === undefined) this.#log.error("replica set aside", { partition, error });
    held.isDamaged = error instanceof DamagedError;
    if (held.isDamaged) this.emit("damaged", partition);
    held.replica.setAside(reason);
    this.#perform(held);
    const message = `partition ${partition} is out of service on this server: ${reason}`;
    this.#answers.reject(() => new UnavailableError(message), partition);
  }

  /** The memory is given up: its id is spent durably before anything is deleted. */
  #forget(held: Held, entries: "delete" | "keep"): Held {
    const { partition, replica } = held;
    for (const snapshot of held.snapshots.values()) {
      snapshot
        .close()
        .catch((error: unknown) => this.#log.warn("snapshot not released", { partition, error }));
    }
    const { generation, leftovers: others } = replica.state;
    // What is damaged stays for whoever wants to look at it.
    const leftovers = entries === "delete" ? [generation, ...others] : [...others];
    const next = ReplicaState.empty(
      replicaIdOf(this.#nodeId, serialOf(replica.id) + 1),
      Math.max(generation, ...others) + 1,
      leftovers,
    );
    this.#due.delete(held);
    const written = this.#store.write({
      partition,
      generation: next.generation,
      changes: [],
      ...asStored(next),
    });
    const successor = this.#hold(partition, next);
    written.then(
      () => {
        // The old id is spent for good: what it held may go.
        if (!this.#isStopped) this.#perform(successor);
      },
      (error: unknown) => this.#refused(successor, error),
    );
    return successor;
  }

  /** No tick comes later than `dueMs`, or than the shortest time between two. */
  #armFor(dueMs: number): void {
    const atMs = Math.max(dueMs, this.#tickedMs + TICK_MS);
    if (!this.#isStarted || this.#isStopped || atMs >= this.#timerDueMs) return;
    this.#timerDueMs = atMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), Math.max(1, Math.ceil(atMs - performance.now())));
  }

  #ledIsStale(): void {
    this.#isLedStale = true;
    this.#ledList = undefined;
    this.#armFor(performance.now());
  }

  #groupsChanged(): void {
    if (!this.#isStarted || this.#isStopped || this.#groupsTimer !== undefined) return;
    this.#groupsTimer = setTimeout(() => {
      this.#groupsTimer = undefined;
      this.emit("groups");
    }, GROUPS_MS);
  }

  #tick(): void {
    const nowMs = performance.now();
    this.#tickedMs = nowMs;
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    for (const [held, dueMs] of this.#due) {
      if (dueMs <= nowMs) this.#within(held, () => held.replica.tick(nowMs));
    }
    this.#checkNext();
    if (!this.#isDraining && this.#isLedStale) this.#tellLed();
    if (this.#unchecked.length > 0) this.#armFor(nowMs);
    for (const dueMs of this.#due.values()) this.#armFor(dueMs);
  }

  /** One replica at a time, so that a start is not slowed down. */
  #checkNext(): void {
    const held = this.#unchecked[0];
    if (held === undefined) return;
    const isOver =
      held.replica.isChecked ||
      held.replica.quarantine !== undefined ||
      this.#replicas.get(held.partition) !== held;
    if (isOver) this.#unchecked.shift();
    else this.#within(held, () => held.replica.check());
  }

  // --- the ring's hints ----------------------------------------------------------

  #hears(partition: number, ballot: Ballot): boolean {
    const nodeId = nodeOf(ballot.replicaId);
    if (!isNodeId(nodeId)) return false;
    if (nodeId === this.#nodeId) {
      const standing = this.#replicas.get(partition)?.replica.standingBallot;
      return standing !== undefined && standing.round >= ballot.round;
    }
    return !this.#ring.isSuspected(nodeId) && (this.#led.roundOf(nodeId, partition) ?? -1) >= ballot.round;
  }

  /** Followers of a peer that leads less than before, or is dead. */
  #reconsiderFollowers(nodeId: NodeId): void {
    for (const held of this.#replicas.values()) {
      const { promised } = held.replica.state;
      if (nodeOf(promised.replicaId) !== nodeId || this.#hears(held.partition, promised)) continue;
      this.#within(held, () => held.replica.leaderLost(performance.now()));
    }
  }

  #rank(position: Identifier, nodeIds: readonly string[]): number {
    const order = this.#ring.successorsOfLocally(position, this.#partitionCount) ?? [];
    const before =
      order.length > 0 ? order.map((member) => member.nodeId) : [...nodeIds].filter(isNodeId).sort();
    let rank = 0;
    for (const nodeId of before) {
      if (nodeId === this.#nodeId) break;
      if (nodeIds.includes(nodeId) && !this.#ring.isSuspected(nodeId)) rank++;
    }
    return this.#isDraining || this.#wishes.isPassedOver(this.#nodeId) ? rank + LAST_RANK : rank;
  }

  /** Of partitions that are led here and lie out of sight: nobody else's changes come here as an event. */
  #renewWishes(): void {
    for (const held of this.#replicas.values()) {
      const { partition, replica } = held;
      if (replica.standingBallot === undefined) continue;
      const position = positionOf(partition, this.#partitionCount);
      if (this.#wishes.askAnewOutOfSight(partition, position))
        this.#within(held, () => replica.ringChanged(performance.now()));
    }
  }

  // --- who leads what --------------------------------------------------------------

  /** Whether the list made last still holds: asked with each ping, and nearly always true. */
  #ownLed(): [partition: number, round: number][] {
    const list: [number, number][] = [];
    for (const { partition, replica } of this.#replicas.values()) {
      const ballot = replica.standingBallot;
      if (ballot !== undefined) list.push([partition, ballot.round]);
    }
    return list;
  }

  #tellLed(to: readonly NodeId[] = this.#ring.members().map((member) => member.nodeId)): void {
    this.#isLedStale = false;
    const list = this.#ownLed();
    for (const nodeId of to) {
      if (nodeId !== this.#nodeId && !this.#ring.isSuspected(nodeId)) {
        const isLeaving = this.#isDraining ? { isLeaving: true } : {};
        this.#sendToNode(nodeId, { node: { kind: "led", list, ...isLeaving } });
      }
    }
  }

  #sendTo(nodeId: string, partition: number, from: string, to: string, body: Body): void {
    this.#sendToNode(nodeId, { partition, from, to, body });
  }

  /** As `nodeOf`, with one string for each node: what is looked up with it is looked up all the time. */
  #nodeOf(replicaId: string): string {
    let nodeId = this.#nodeIds.get(replicaId);
    if (nodeId === undefined) {
      if (this.#nodeIds.size >= NODE_IDS_MAX) this.#nodeIds.clear();
      nodeId = nodeOf(replicaId);
      this.#nodeIds.set(replicaId, nodeId);
    }
    return nodeId;
  }

  #sendToNode(nodeId: string, message: ReplicationMessage): void {
    const member = isNodeId(nodeId) ? this.#ring.member(nodeId) : undefined;
    if (member !== undefined && !this.#isStopped) this.#send(member, message);
  }
}

function asStored(meta: ReplicaMeta): { meta: Uint8Array; claim: Uint8Array } {
  return { meta: encodeMeta(meta), claim: encodeClaim(meta) };
}

/** What the store can't give back; undefined for what is no word of the store. */
function damageOf(cause: unknown): DamagedError | undefined {
  if (cause instanceof DamagedError) return cause;
  return cause instanceof UnavailableError ? new DamagedError(cause.message, { cause }) : undefined;
}

function durable(held: Held): Promise<void> {
  return new Promise((resolve) => held.replica.state.whenDurable(resolve));
}
