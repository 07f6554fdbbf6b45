/**
 * Members that run the real drivers of the crawl in virtual time, over partitions
 * that keep what replication promises: one leader at a time, linearizable, and a
 * batch that was under way when leadership was lost may or may not have happened.
 */
import { createHmac, hash } from "node:crypto";
import {
  BusyError,
  ClusterError,
  NotLeaderError,
  OutcomeUnknownError,
  UnavailableError,
} from "../../src/errors.ts";
import type { Log } from "../../src/log.ts";
import type { Clock } from "../../src/node/clock.ts";
import { CrawlDriver } from "../../src/node/crawl-driver.ts";
import {
  type CrawlMessage,
  type CrawlReply,
  type CrawlRequest,
  crawlMessageSchema,
  crawlReplySchema,
  crawlRequestSchema,
} from "../../src/node/crawl-message.ts";
import { ClusterJobs } from "../../src/node/jobs.ts";
import { KeyLayout, type Names } from "../../src/node/key-layout.ts";
import type { Registers } from "../../src/node/registers.ts";
import type { BlobsLike } from "../../src/node/runner.ts";
import type { PeerSender } from "../../src/peer/transport.ts";
import type { Ballot, Change, Entry, Operation, Outcome } from "../../src/replication/register.ts";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import { type CrawlSite, SitePool } from "./crawl-site.ts";
import type { VirtualTime } from "./virtual-clock.ts";

export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};

export const testNames: Names = {
  name: (namespace, text) =>
    createHmac("sha256", "naming secret of a test")
      .update(`${String.fromCharCode(namespace)}${text}`)
      .digest()
      .subarray(0, 16)
      .toString("latin1"),
  number: (n) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(n));
    return bytes.toString("latin1");
  },
};

interface Pending {
  readonly operation: Operation;
  readonly node: string;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

/** One partition's registers. Operations take effect in order of arrival, each when it is answered. */
class FakePartition {
  readonly entries = new Map<string, Entry>();
  #keys: string[] = [];
  #areKeysSorted = true;
  leader: string | undefined;
  ballot: Ballot = { round: 0, replicaId: "" };
  readonly pending: Pending[] = [];
  lastAtMs = 0;
  #seq = 0;

  evaluate(operation: Operation): Outcome {
    switch (operation.kind) {
      case "get":
        return { kind: "entries", entries: operation.keys.map((key) => this.entries.get(key)) };
      case "scan": {
        const { prefix, after, limit } = operation;
        this.#sort();
        const found: Entry[] = [];
        let at = this.#indexOf(after !== undefined && after >= prefix ? after : prefix);
        if (after !== undefined && this.#keys[at] === after) at++;
        for (; at < this.#keys.length && this.#keys[at]!.startsWith(prefix); at++) {
          if (found.length === limit) return { kind: "scanned", entries: found, more: true };
          found.push(this.entries.get(this.#keys[at]!)!);
        }
        return { kind: "scanned", entries: found, more: false };
      }
      case "watch":
        throw new Error("nothing is watched here");
      case "batch": {
        for (const { key, is } of operation.conditions) {
          const found = this.entries.get(key)?.version;
          const holds =
            is === "absent" ? found === undefined : is === "present" ? found !== undefined : found === is;
          if (!holds) return { kind: "conflict", failed: { key, found } };
        }
        const version = `${this.ballot.round}.${this.ballot.replicaId}.${++this.#seq}`;
        if (operation.changes.length > 1024) throw new Error("a batch of more than 1,024 changes");
        for (const change of operation.changes) {
          if (change.kind === "delete") {
            if (this.entries.delete(change.key)) this.#keys = this.#keys.filter((key) => key !== change.key);
          } else {
            if (!this.entries.has(change.key)) {
              this.#keys.push(change.key);
              this.#areKeysSorted = false;
            }
            this.entries.set(change.key, { key: change.key, version, value: change.value });
          }
        }
        return { kind: "written", version };
      }
    }
  }

  #sort(): void {
    if (!this.#areKeysSorted) this.#keys.sort((a, b) => (a < b ? -1 : 1));
    this.#areKeysSorted = true;
  }

  #indexOf(key: string): number {
    let [low, high] = [0, this.#keys.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export interface CrawlNode {
  readonly member: Member;
  readonly driver: CrawlDriver;
  readonly jobs: ClusterJobs;
  readonly clock: Clock;
  readonly pool: SitePool;
  isDead: boolean;
}

export interface Faults {
  /** Of calls and messages, each way. */
  loss: number;
  duplication: number;
  /** One way; `kind` of a crawl request, when it is one. */
  delayMs: (kind?: string) => number;
  commitMs: () => number;
}

export const noFaults: Faults = { loss: 0, duplication: 0, delayMs: () => 1, commitMs: () => 2 };

export class CrawlCluster {
  readonly time: VirtualTime;
  readonly site: CrawlSite;
  readonly layout: KeyLayout;
  readonly nodes: CrawlNode[] = [];
  readonly partitions: FakePartition[];
  readonly random: () => number;
  faults: Faults = noFaults;
  /** Called after each batch, as it has taken effect. */
  onBatch: (partition: number, changes: readonly Change[]) => void = () => {};
  /** Where blobs are kept; none when undefined. */
  blobs: BlobsLike | undefined;
  readonly #perThread: number;
  readonly #threads: number;
  readonly #wallErrorMs: () => number;
  readonly #spreadAbove: number | undefined;
  #starts = 0;

  constructor(options: {
    time: VirtualTime;
    site: CrawlSite;
    partitionCount: number;
    nodes: number;
    random: () => number;
    threads?: number;
    perThread?: number;
    blobs?: BlobsLike;
    /** How wrong a node's wall clock is. */
    wallErrorMs?: () => number;
    /** Pages of a host above which others go to its parts. */
    spreadAbove?: number | undefined;
  }) {
    this.time = options.time;
    this.site = options.site;
    this.random = options.random;
    this.blobs = options.blobs;
    this.#threads = options.threads ?? 1;
    this.#perThread = options.perThread ?? 8;
    this.#spreadAbove = options.spreadAbove;
    this.#wallErrorMs = options.wallErrorMs ?? (() => 0);
    this.layout = new KeyLayout(testNames, options.partitionCount);
    this.partitions = Array.from({ length: options.partitionCount }, () => new FakePartition());
    for (let n = 0; n < options.nodes; n++) this.addNode(n);
    for (const partition of this.partitions.keys()) {
      this.lead(partition, this.nodes[partition % this.nodes.length]!);
    }
  }

  addNode(n: number): CrawlNode {
    const nodeId = hash("sha256", `node ${n}`, "hex").slice(0, 40) as NodeId;
    const member: Member = {
      nodeId,
      address: { host: "127.0.0.1", port: 10_000 + n },
      zone: "",
      incarnation: ++this.#starts,
      instance: "",
    };
    const state = { isDead: false };
    const isDead = () => state.isDead;
    // Clocks of two servers have nothing to do with one another.
    const clock = this.time.clock(1_000_000 * this.#starts, this.#wallErrorMs(), isDead);
    const pool = new SitePool({
      site: this.site,
      time: this.time,
      clock,
      node: nodeId,
      threads: this.#threads,
      perThread: this.#perThread,
      isDead,
    });
    const registers = this.#registers(member, isDead);
    const loads = this.#loads;
    const driver = new CrawlDriver({
      self: member,
      partitionCount: this.partitions.length,
      naming: testNames,
      registers,
      replicas: {
        operate: (partition, operation) => this.#operate(member, isDead, partition, operation),
        leads: (partition) => {
          const { leader, ballot } = this.partitions[partition]!;
          return leader === nodeId && !isDead() ? ballot : undefined;
        },
        leaderHint: (partition) => this.partitions[partition]!.leader as NodeId | undefined,
      },
      ring: {
        self: member,
        members: () => this.nodes.filter((node) => !node.isDead).map((node) => node.member),
        member: (id) => this.nodes.find((node) => node.member.nodeId === id && !node.isDead)?.member,
        isSuspected: (id) => this.nodes.every((node) => node.member.nodeId !== id || node.isDead),
        loadOf: (id) => loads.get(id),
        setLoad: (load) => void loads.set(nodeId, load),
      },
      pool,
      call: (to, request, timeoutMs) => this.#call(member, isDead, to.nodeId, request, timeoutMs),
      send: (to, message) => this.#send(member, isDead, to.nodeId, message),
      ...(this.blobs === undefined ? {} : { blobs: this.blobs }),
      ...(this.#spreadAbove === undefined ? {} : { spreadAbove: this.#spreadAbove }),
      allowAddresses: [],
      log: silentLog,
      random: this.random,
      clock,
    });
    const jobs = new ClusterJobs({
      naming: testNames,
      partitionCount: this.partitions.length,
      registers,
      blobs: this.blobs,
      clock,
      newId: () => Buffer.from(Array.from({ length: 16 }, () => Math.floor(this.random() * 256))),
    });
    const node: CrawlNode = {
      member,
      driver,
      jobs,
      clock,
      pool,
      get isDead() {
        return state.isDead;
      },
      set isDead(value) {
        state.isDead = value;
      },
    };
    this.nodes.push(node);
    driver.start();
    return node;
  }

  get alive(): CrawlNode[] {
    return this.nodes.filter((node) => !node.isDead);
  }

  /** Leadership of a partition goes to `node`; what was under way may or may not have happened. */
  lead(partition: number, node: CrawlNode): void {
    const p = this.partitions[partition]!;
    this.#depose(partition);
    p.leader = node.member.nodeId;
    p.ballot = { round: p.ballot.round + 1, replicaId: `${node.member.nodeId}/0` };
    node.driver.leading(partition, p.ballot);
  }

  /** Power is cut: what it had in memory is gone. Others take over after `takeoverMs`. */
  crash(node: CrawlNode, takeoverMs: () => number): void {
    node.isDead = true;
    this.#loads.delete(node.member.nodeId);
    const { nodeId } = node.member;
    for (const [partition, p] of this.partitions.entries()) {
      if (p.leader !== nodeId) continue;
      this.#depose(partition);
      this.time.at(this.time.nowMs + takeoverMs(), () => {
        const next = this.alive[Math.floor(this.random() * this.alive.length)];
        if (p.leader === undefined && next !== undefined) this.lead(partition, next);
      });
    }
    this.time.at(this.time.nowMs + takeoverMs(), () => {
      for (const other of this.alive) other.driver.suspected(nodeId);
    });
  }

  /** All entries of a kind, decoded by the caller. */
  entries(prefix: string): { partition: number; entry: Entry }[] {
    return this.partitions.flatMap((p, partition) =>
      [...p.entries.values()]
        .filter((entry) => entry.key.startsWith(prefix))
        .map((entry) => ({ partition, entry })),
    );
  }

  readonly #loads = new Map<string, number>();

  #depose(partition: number): void {
    const p = this.partitions[partition]!;
    const old = this.nodes.find((node) => node.member.nodeId === p.leader && !node.isDead);
    p.leader = undefined;
    const pending = p.pending.splice(0);
    // A batch survives only if all before it do.
    const survivors = Math.floor(this.random() * (pending.length + 1));
    for (const [n, item] of pending.entries()) {
      if (item.operation.kind !== "batch") item.reject(new NotLeaderError(partition));
      else {
        if (n < survivors) this.#evaluate(partition, item.operation);
        item.reject(new OutcomeUnknownError(`partition ${partition}`));
      }
    }
    old?.driver.stopped(partition);
  }

  #evaluate(partition: number, operation: Operation): Outcome {
    const outcome = this.partitions[partition]!.evaluate(operation);
    if (operation.kind === "batch" && outcome.kind === "written") this.onBatch(partition, operation.changes);
    return outcome;
  }

  #operate(self: Member, isDead: () => boolean, partition: number, operation: Operation): Promise<Outcome> {
    const p = this.partitions[partition]!;
    return new Promise((resolve, reject) => {
      if (isDead()) return;
      if (p.leader !== self.nodeId) return reject(new NotLeaderError(partition, p.leader));
      if (operation.kind === "batch" && operation.onlyUnder !== undefined) {
        const { round, replicaId } = operation.onlyUnder;
        if (round !== p.ballot.round || replicaId !== p.ballot.replicaId) {
          return reject(new NotLeaderError(partition, p.leader));
        }
      }
      const item: Pending = {
        operation,
        node: self.nodeId,
        resolve: (outcome) => {
          if (!isDead()) resolve(outcome);
        },
        reject: (error) => {
          if (!isDead()) reject(error);
        },
      };
      p.pending.push(item);
      p.lastAtMs = Math.max(p.lastAtMs, this.time.nowMs + this.faults.commitMs());
      this.time.at(p.lastAtMs, () => {
        if (p.pending[0] !== item) return;
        p.pending.shift();
        item.resolve(this.#evaluate(partition, operation));
      });
    });
  }

  #registers(self: Member, isDead: () => boolean): Registers {
    const atLeader = async <T>(
      partition: number,
      timeoutMs: number,
      isRepeatable: boolean,
      ask: (leader: CrawlNode, attemptMs: number) => Promise<T>,
    ): Promise<T> => {
      const deadline = this.time.nowMs + timeoutMs;
      let last: unknown;
      while (this.time.nowMs < deadline) {
        const leader = this.alive.find((node) => node.member.nodeId === this.partitions[partition]!.leader);
        let waitMs = 20 + this.random() * 100;
        if (leader !== undefined) {
          try {
            return await ask(leader, Math.min(1_500, deadline - this.time.nowMs));
          } catch (error) {
            last = error;
            if (error instanceof BusyError) waitMs = error.retryAfterMs;
            else if (error instanceof OutcomeUnknownError || error instanceof UnavailableError) {
              if (!isRepeatable) throw error;
            } else if (!(error instanceof NotLeaderError)) throw error;
          }
        }
        await new Promise<void>((resolve) => {
          this.time.at(this.time.nowMs + waitMs, () => {
            if (!isDead()) resolve();
          });
        });
      }
      throw new UnavailableError(`partition ${partition} did not answer`, { cause: last });
    };
    return {
      operate: (partition, operation, options = {}) =>
        atLeader(
          partition,
          options.timeoutMs ?? 5_000,
          operation.kind !== "batch" || options.repeatable === true,
          (leader, attemptMs) =>
            leader.member.nodeId === self.nodeId
              ? this.#operate(self, isDead, partition, operation)
              : this.#exchange(isDead, leader, attemptMs, () =>
                  this.#operate(leader.member, () => leader.isDead, partition, operation),
                ),
        ),
      crawlAtLeader: (partition, request, options = {}) =>
        atLeader(partition, options.timeoutMs ?? 5_000, true, (leader, attemptMs) =>
          leader.member.nodeId === self.nodeId
            ? leader.driver.request("self", request)
            : this.#call(self, isDead, leader.member.nodeId, request, attemptMs),
        ),
    };
  }

  #call(
    self: Member,
    isDead: () => boolean,
    to: string,
    request: CrawlRequest,
    timeoutMs: number,
  ): Promise<CrawlReply> {
    const target = this.alive.find((node) => node.member.nodeId === to);
    if (target === undefined) return Promise.reject(new UnavailableError("nobody there"));
    const sent = crawlRequestSchema.parse(structuredClone(request));
    return this.#exchange(
      isDead,
      target,
      timeoutMs,
      async () => crawlReplySchema.parse(structuredClone(await target.driver.request(senderOf(self), sent))),
      request.kind,
    );
  }

  #send(self: Member, isDead: () => boolean, to: string, message: CrawlMessage): void {
    if (isDead()) return;
    const sent = crawlMessageSchema.parse(structuredClone(message));
    const copies = this.random() < this.faults.loss ? 0 : this.random() < this.faults.duplication ? 2 : 1;
    for (let n = 0; n < copies; n++) {
      this.time.at(this.time.nowMs + this.faults.delayMs(), () => {
        const target = this.alive.find((node) => node.member.nodeId === to);
        target?.driver.receive(senderOf(self), sent);
      });
    }
  }

  /** There and back, each way with what may befall a message. */
  #exchange<T>(
    isDead: () => boolean,
    target: CrawlNode,
    timeoutMs: number,
    ask: () => Promise<T>,
    kind?: string,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (isDead()) return;
      const expire = this.time.at(this.time.nowMs + timeoutMs, () => {
        if (!isDead()) reject(new UnavailableError("no answer in time"));
      });
      const back = (deliver: () => void) => {
        if (target.isDead || this.random() < this.faults.loss) return;
        this.time.at(this.time.nowMs + this.faults.delayMs(kind), () => {
          expire();
          if (!isDead()) deliver();
        });
      };
      if (this.random() < this.faults.loss) return;
      const copies = this.random() < this.faults.duplication ? 2 : 1;
      for (let n = 0; n < copies; n++) {
        this.time.at(this.time.nowMs + this.faults.delayMs(kind), () => {
          if (target.isDead) return;
          ask().then(
            (answer) => back(() => resolve(answer)),
            (error: unknown) =>
              back(() =>
                reject(
                  error instanceof ClusterError ? error : new UnavailableError("failed", { cause: error }),
                ),
              ),
          );
        });
      }
    });
  }
}

function senderOf(member: Member): PeerSender {
  return {
    nodeId: member.nodeId,
    address: member.address,
    incarnation: member.incarnation,
    instance: member.instance,
  };
}
