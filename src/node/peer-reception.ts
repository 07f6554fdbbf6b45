/**
 * What arrives from other members goes to the part that it is for. The port is
 * bound before the parts stand, so that their own address is known: until they
 * do, messages are dropped and calls are answered with UNAVAILABLE.
 */
import { UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerHandlers, PeerSender } from "../peer/transport.ts";
import type { Admission } from "./admission.ts";
import type { BlobRepair } from "./blob-repair.ts";
import type { ReplicatedBlobs } from "./blobs.ts";
import type { BriefChannel } from "./brief-channel.ts";
import type { CrawlDriver } from "./crawl-driver.ts";
import type { LeaderQuestions } from "./leader-questions.ts";
import type { LockKeeper } from "./lock-keeper.ts";
import type { Messages, NodeStatus, Procedures } from "./peer-contract.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import type { RingDriver } from "./ring-driver.ts";
import type { Roster } from "./roster.ts";

export interface ReceivingParts {
  readonly ring: RingDriver;
  readonly replicas: ReplicaDriver;
  readonly brief: BriefChannel;
  readonly questions: LeaderQuestions;
  readonly crawl: CrawlDriver;
  readonly blobs: ReplicatedBlobs;
  readonly admission: Admission;
  readonly roster: Roster;
  readonly repair: BlobRepair;
  readonly lockKeeper: LockKeeper;
  status(options: { readonly partitions: boolean }): NodeStatus;
}

type Receivers = { readonly [C in keyof Messages]: (from: PeerSender, message: Messages[C]) => void };
type Answers = {
  readonly [P in keyof Procedures]: (
    from: PeerSender,
    input: Procedures[P]["input"],
  ) => Promise<Procedures[P]["output"]>;
};

export class PeerReception implements PeerHandlers<Messages, Procedures> {
  readonly #log: Log;
  #parts: ReceivingParts | undefined;
  #receivers: Receivers | undefined;
  #answers: Answers | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  open(parts: ReceivingParts): void {
    this.#parts = parts;
    this.#receivers = receiversOf(parts);
    this.#answers = answersOf(parts);
  }

  /** The parts are going away. */
  close(): void {
    this.#parts = undefined;
    this.#receivers = undefined;
    this.#answers = undefined;
  }

  message<C extends keyof Messages>(from: PeerSender, channel: C, message: Messages[C]): void {
    const receivers = this.#receivers;
    if (receivers === undefined) return;
    try {
      if (channel !== "ring") this.#heard(from);
      receivers[channel](from, message);
    } catch (error) {
      // A part that throws here is wrong, but must not end the other parts with it.
      this.#log.error("message not taken", { channel, peer: from.nodeId, error });
    }
  }

  async call<P extends keyof Procedures>(
    from: PeerSender,
    procedure: P,
    input: Procedures[P]["input"],
  ): Promise<Procedures[P]["output"]> {
    const answers = this.#answers;
    if (answers === undefined)
      throw new UnavailableError("this server is starting or stopping; ask another one");
    this.#heard(from);
    return answers[procedure](from, input);
  }

  closed(nodeId: string): void {
    this.#parts?.questions.lost(nodeId);
    this.#parts?.ring.closed(nodeId);
  }

  refused(nodeId: string): void {
    this.#parts?.questions.lost(nodeId);
    this.#parts?.ring.refused(nodeId);
  }

  #heard({ nodeId, incarnation }: PeerSender): void {
    // Who has not introduced itself, by plain tRPC or a join token, is no node that speaks.
    if (incarnation > 0) this.#parts?.ring.heard(nodeId, incarnation);
  }
}

function receiversOf({ ring, replicas, crawl, brief, questions }: ReceivingParts): Receivers {
  return {
    ring: (from, message) => ring.receive(from, message),
    replication: (from, message) => replicas.receive(from, message),
    brief: (from, bytes) => brief.receive(from, bytes, { replicas, questions }),
    crawl: (from, message) => crawl.receive(from, message),
  };
}

function answersOf(parts: ReceivingParts): Answers {
  const { replicas, crawl, blobs, admission, lockKeeper } = parts;
  return {
    operate: (_, { partition, operation }) => replicas.operate(partition, operation),
    crawl: (from, request) => crawl.request(from, request),
    lock: (_, request) => lockKeeper.request(request),
    putBlob: async (from, { jobId, sha256, ...piece }) => {
      await blobs.takePiece(from.nodeId, { jobId, sha256 }, piece);
      return null;
    },
    getBlob: async (_, { offset, ...name }) => (await blobs.givePiece(name, offset)) ?? null,
    repairBlobs: async () => {
      parts.repair.soon();
      return null;
    },
    hasBlob: (_, name) => blobs.hasLocally(name),
    dropBlobs: async (_, { jobId }) => {
      await blobs.dropLocally(jobId);
      return null;
    },
    status: async (_, options) => parts.status(options),
    holdings: (_, { partitions, counted }) => replicas.holdings(partitions, counted),
    recover: async (_, { partition, ...decided }) => replicas.recover(partition, decided),
    rosterChanged: async () => {
      await parts.roster.renew();
      return null;
    },
    // The certificate that this comes with is the token's.
    join: (from, request) => admission.admit(from.nodeId, request),
  };
}
