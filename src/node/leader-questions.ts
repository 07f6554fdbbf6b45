/**
 * Reads and writes at leaders on other servers, as messages: they share frames with
 * what the replicas say to each other, so that a busy server answers dozens of them
 * for the price of one call.
 *
 * A message may be lost where a call would fail. What is not answered in time, or
 * was asked of a server that is suspected, that refuses connections or that has
 * started anew, counts as unanswered: the asker decides whether it may ask again.
 */
import { BusyError, ClusterError, UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import { pack, unpack } from "../peer/msgpack.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import { fromWire, toWire } from "../peer/wire-error.ts";
import { readOperation, readOutcome, writeOperation, writeOutcome } from "../replication/brief-form.ts";
import type { BriefReader } from "../replication/brief-reader.ts";
import { BriefWriter } from "../replication/brief-writer.ts";
import type { Operation, Outcome } from "../replication/register.ts";
import type { Clock } from "./clock.ts";

/** Larger ones would hold up what else is said to that server. */
const BYTES_MAX = 64 * 1024;
/** Of one server, under way here. */
const UNDER_WAY_MAX = 1024;
const BUSY_MS = 50;
/** Deadlines are looked at this often, while there are any. */
const LOOK_MS = 25;
const PARTITION_MAX = 65_535;
const REFUSAL_BYTES_MAX = 32 * 1024;

export const QUESTION = 1;
const ANSWER = 2;
const REFUSAL = 3;
/** The answer is too large for a message: ask by a call. */
const BY_CALL = 4;

interface Asked {
  readonly to: PeerRef;
  readonly partition: number;
  readonly operation: Operation;
  readonly deadlineMs: number;
  resolve(outcome: Outcome | Promise<Outcome>): void;
  reject(error: Error): void;
}

interface Question {
  readonly partition: number;
  readonly operation: Operation;
}

export class LeaderQuestions {
  readonly #parts: {
    readonly clock: Clock;
    readonly log: Log;
    send(to: PeerRef, bytes: Uint8Array): void;
    operate(partition: number, operation: Operation): Promise<Outcome>;
    /** The same question, for what does not fit into a message. */
    call(to: PeerRef, question: Question, timeoutMs: number): Promise<Outcome>;
  };
  readonly #writer = new BriefWriter();
  readonly #asked = new Map<number, Asked>();
  // By node id; no entry where nothing is under way.
  readonly #underWay = new Map<string, number>();
  readonly #incarnations = new Map<string, number>();
  #number = 0;
  #isLooking = false;
  #isStopped = false;

  constructor(parts: {
    readonly clock: Clock;
    readonly log: Log;
    send(to: PeerRef, bytes: Uint8Array): void;
    operate(partition: number, operation: Operation): Promise<Outcome>;
    call(to: PeerRef, question: Question, timeoutMs: number): Promise<Outcome>;
  }) {
    this.#parts = parts;
  }

  /**
   * @throws {UnavailableError} no answer: it may have been acted on.
   * @throws {ClusterError} what that server refuses with.
   */
  ask(to: PeerRef, question: Question, timeoutMs: number): Promise<Outcome> {
    if (this.#isStopped) return Promise.reject(new UnavailableError("this server is stopping"));
    const { partition, operation } = question;
    const writer = this.#writer;
    const number = ++this.#number;
    writer.byte(QUESTION);
    writer.int(number);
    writer.short(partition);
    const isBrief = writeOperation(writer, operation);
    const bytes = writer.take();
    if (!isBrief || bytes.byteLength > BYTES_MAX) return this.#parts.call(to, question, timeoutMs);
    return new Promise((resolve, reject) => {
      const deadlineMs = this.#parts.clock.now() + timeoutMs;
      this.#asked.set(number, { to, partition, operation, deadlineMs, resolve, reject });
      this.#parts.send(to, bytes);
      this.#look();
    });
  }

  /** @param kind the first byte, which was read already. @throws {DamagedError} nothing was done. */
  receive(from: PeerSender, kind: number, reader: BriefReader): void {
    const known = this.#incarnations.get(from.nodeId) ?? 0;
    // What an earlier start of a server said is void; what it was asked, a later one does not know.
    if (from.incarnation < known) return;
    if (from.incarnation > known) {
      this.#incarnations.set(from.nodeId, from.incarnation);
      if (known > 0) this.lost(from.nodeId);
    }
    const number = reader.int();
    if (kind === QUESTION) {
      const partition = reader.short(PARTITION_MAX);
      const operation = readOperation(reader);
      reader.end();
      this.#answer(from, number, partition, operation);
      return;
    }
    const asked = this.#asked.get(number);
    // Late, or of somebody who was not asked.
    if (asked === undefined || asked.to.nodeId !== from.nodeId) return;
    switch (kind) {
      case ANSWER: {
        const outcome = readOutcome(reader);
        reader.end();
        asked.resolve(outcome);
        break;
      }
      case REFUSAL: {
        const error = fromWire(unpack(Buffer.from(reader.bytes(REFUSAL_BYTES_MAX))));
        reader.end();
        asked.reject(error);
        break;
      }
      case BY_CALL: {
        const { to, partition, operation, deadlineMs } = asked;
        const leftMs = Math.max(1, deadlineMs - this.#parts.clock.now());
        asked.resolve(this.#parts.call(to, { partition, operation }, leftMs));
        break;
      }
    }
    this.#asked.delete(number);
  }

  /** That server does not answer what it was asked so far. */
  lost(nodeId: string): void {
    for (const [number, { to, reject }] of this.#asked) {
      if (to.nodeId !== nodeId) continue;
      this.#asked.delete(number);
      reject(new UnavailableError(`server ${nodeId.slice(0, 8)} went away before it answered`));
    }
  }

  /** Whoever waits hears that there will be no answer. */
  stop(): void {
    this.#isStopped = true;
    for (const { reject } of this.#asked.values()) reject(new UnavailableError("this server is stopping"));
    this.#asked.clear();
  }

  #answer(from: PeerSender, number: number, partition: number, operation: Operation): void {
    const underWay = this.#underWay.get(from.nodeId) ?? 0;
    if (underWay >= UNDER_WAY_MAX) {
      this.#refuse(from, number, new BusyError("the number of questions of one server at once", BUSY_MS));
      return;
    }
    this.#underWay.set(from.nodeId, underWay + 1);
    this.#parts.operate(partition, operation).then(
      (outcome) => {
        this.#done(from.nodeId);
        this.#tell(from, number, outcome);
      },
      (thrown: unknown) => {
        this.#done(from.nodeId);
        this.#refuse(from, number, this.#failure(thrown));
      },
    );
  }

  #done(nodeId: string): void {
    const left = this.#underWay.get(nodeId)! - 1;
    if (left === 0) this.#underWay.delete(nodeId);
    else this.#underWay.set(nodeId, left);
  }

  #tell(to: PeerRef, number: number, outcome: Outcome): void {
    const writer = this.#writer;
    writer.byte(ANSWER);
    writer.int(number);
    const isBrief = writeOutcome(writer, outcome);
    const bytes = writer.take();
    if (isBrief && bytes.byteLength <= BYTES_MAX) {
      this.#parts.send(to, bytes);
      return;
    }
    // A read; what was written is always told briefly.
    writer.byte(BY_CALL);
    writer.int(number);
    this.#parts.send(to, writer.take());
  }

  #refuse(to: PeerRef, number: number, error: ClusterError): void {
    const writer = this.#writer;
    writer.byte(REFUSAL);
    writer.int(number);
    writer.bytes(pack(toWire(error)));
    this.#parts.send(to, writer.take());
  }

  #failure(thrown: unknown): ClusterError {
    if (thrown instanceof ClusterError) return thrown;
    this.#parts.log.error("question failed", { error: thrown });
    return new UnavailableError("the question failed at the server that was asked; its log tells why");
  }

  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#parts.clock.after(LOOK_MS, () => {
      this.#isLooking = false;
      const nowMs = this.#parts.clock.now();
      for (const [number, { to, deadlineMs, reject }] of this.#asked) {
        if (deadlineMs > nowMs) continue;
        this.#asked.delete(number);
        reject(new UnavailableError(`server ${to.nodeId.slice(0, 8)} did not answer in time`));
      }
      if (this.#asked.size > 0) this.#look();
    });
  }
}
