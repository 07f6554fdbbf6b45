/** Questions under way: pairs each with its answer, its refused connection, or its time-out. */
import type { NodeId } from "./identifier.ts";
import type { Sender } from "./member.ts";
import type { Answer, Question, RingMessage } from "./message.ts";

/** Past it the oldest question counts as unanswered. */
const PENDING_MAX = 4096;

interface Pending {
  readonly id: number;
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
  // In order of sending, which is that of the ids: few at a time, and short-lived.
  #pending: Pending[] = [];
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
    this.#pending.push({ id, to: to.nodeId, sentMs: nowMs, deadlineMs: nowMs + timeoutMs, done });
    this.#send(to, { ...question, id });
    if (this.#pending.length > PENDING_MAX) this.#end(this.#pending.shift()!, undefined, nowMs);
  }

  /** An answer nobody waits for (any more) is dropped. */
  answered(from: NodeId, answer: Answer, nowMs: number): void {
    const at = this.#indexOf(answer.id);
    const pending = this.#pending[at];
    if (pending?.id !== answer.id || pending.to !== from) return;
    this.#pending.splice(at, 1);
    this.#end(pending, answer, nowMs);
  }

  /** Nothing listens at `nodeId`: what was asked there stays unanswered. */
  refused(nodeId: NodeId, nowMs: number): void {
    this.#fail((pending) => pending.to === nodeId, nowMs);
  }

  /** When the first of them expires. */
  get dueMs(): number {
    let dueMs = Number.POSITIVE_INFINITY;
    for (const { deadlineMs } of this.#pending) dueMs = Math.min(dueMs, deadlineMs);
    return dueMs;
  }

  expire(nowMs: number): void {
    if (this.#pending.length > 0) this.#fail((pending) => pending.deadlineMs <= nowMs, nowMs);
  }

  /** The answers may have been waiting unread for `ms`. */
  extend(ms: number): void {
    for (const pending of this.#pending) pending.deadlineMs += ms;
  }

  #fail(isFailed: (pending: Pending) => boolean, nowMs: number): void {
    if (!this.#pending.some(isFailed)) return;
    const failed = this.#pending.filter(isFailed);
    this.#pending = this.#pending.filter((pending) => !isFailed(pending));
    for (const pending of failed) this.#end(pending, undefined, nowMs);
  }

  /** Of the first one whose id is not less. */
  #indexOf(id: number): number {
    let low = 0;
    let high = this.#pending.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#pending[middle]!.id < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #end(pending: Pending, answer: Answer | undefined, nowMs: number): void {
    this.#ended(pending.to, answer !== undefined, nowMs - pending.sentMs);
    pending.done(answer);
  }
}
