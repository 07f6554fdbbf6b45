/** Questions under way: pairs each with its answer, its refused connection, or its time-out. */
import type { NodeId } from "./identifier.ts";
import type { Sender } from "./member.ts";
import type { Answer, Question, RingMessage } from "./message.ts";

/** Past it the oldest question counts as unanswered. */
const PENDING_MAX = 4096;

interface Pending {
  readonly to: NodeId;
  readonly sentMs: number;
  deadlineMs: number;
  readonly done: Done;
}

/** `undefined`: no answer in time, or the connection was refused. */
type Done = (answer: Answer | undefined) => void;

export class Requests {
  readonly #send: (to: Sender, message: RingMessage) => void;
  readonly #ended: (to: NodeId, isAnswered: boolean, tookMs: number) => void;
  // In order of sending.
  readonly #pending = new Map<number, Pending>();
  #nextId: number;

  /**
   * @param firstId drawn per start, so that an answer to an earlier start fits no question of this one.
   * @param ended is told of each question before its own `done`.
   */
  constructor(
    firstId: number,
    send: (to: Sender, message: RingMessage) => void,
    ended: (to: NodeId, isAnswered: boolean, tookMs: number) => void,
  ) {
    this.#nextId = firstId;
    this.#send = send;
    this.#ended = ended;
  }

  ask(to: Sender, question: Question, nowMs: number, timeoutMs: number, done: Done): void {
    const id = this.#nextId++;
    this.#pending.set(id, { to: to.nodeId, sentMs: nowMs, deadlineMs: nowMs + timeoutMs, done });
    this.#send(to, { ...question, id });
    if (this.#pending.size > PENDING_MAX) {
      const [oldestId, oldest] = this.#pending.entries().next().value!;
      this.#pending.delete(oldestId);
      this.#end(oldest, undefined, nowMs);
    }
  }

  /** An answer nobody waits for (any more) is dropped. */
  answered(from: NodeId, answer: Answer, nowMs: number): void {
    const pending = this.#pending.get(answer.id);
    if (pending === undefined || pending.to !== from) return;
    this.#pending.delete(answer.id);
    this.#end(pending, answer, nowMs);
  }

  /** Nothing listens at `nodeId`: what was asked there stays unanswered. */
  refused(nodeId: NodeId, nowMs: number): void {
    this.#fail((pending) => pending.to === nodeId, nowMs);
  }

  /** When the first of them expires. */
  get dueMs(): number {
    let dueMs = Number.POSITIVE_INFINITY;
    for (const { deadlineMs } of this.#pending.values()) dueMs = Math.min(dueMs, deadlineMs);
    return dueMs;
  }

  expire(nowMs: number): void {
    if (this.#pending.size > 0) this.#fail((pending) => pending.deadlineMs <= nowMs, nowMs);
  }

  /** The answers may have been waiting unread for `ms`. */
  extend(ms: number): void {
    for (const pending of this.#pending.values()) pending.deadlineMs += ms;
  }

  #fail(isFailed: (pending: Pending) => boolean, nowMs: number): void {
    let failed: Pending[] | undefined;
    for (const [id, pending] of this.#pending) {
      if (!isFailed(pending)) continue;
      this.#pending.delete(id);
      (failed ??= []).push(pending);
    }
    for (const pending of failed ?? []) this.#end(pending, undefined, nowMs);
  }

  #end(pending: Pending, answer: Answer | undefined, nowMs: number): void {
    this.#ended(pending.to, answer !== undefined, nowMs - pending.sentMs);
    pending.done(answer);
  }
}
