/**
 * Messages that wait for one peer. One frame is under way at a time, so order is
 * kept; what arises meanwhile travels in the next, or in the answer to a frame of
 * the peer. Where much arises, the next frame waits a moment for more: each costs
 * both sides the same, whatever it holds. Past its bounds the oldest are dropped:
 * protocols repeat what is lost, and the newest says most.
 */
import { ANSWER_MESSAGES_BYTES_MAX, ITEM_BYTES_MAX, MESSAGES_MAX } from "./frame.ts";

const MESSAGES_WAITING_MAX = 65_536;
const BYTES_WAITING_MAX = 64 * 1024 * 1024;
/** Messages that came while a frame was under way: of as many turns, mostly. */
const CROWD = 3;
const CROWD_MS = 3;

export class Outbox {
  readonly #deliver: (messages: readonly Buffer[], over: () => void) => void;
  readonly #pauseMs: () => number;
  #waiting: Buffer[] = [];
  /** Those before #first have been taken. */
  #first = 0;
  #bytes = 0;
  #isDraining = false;
  /** The next frame, which waits for the end of this turn. */
  #turn: NodeJS.Immediate | undefined;
  #isUnderWay = false;
  /** Messages that never left: dropped at a bound, or with a peer that refuses connections. */
  dropped = 0;

  /**
   * @param options.deliver sends one frame, and calls `over` once, later, when it is answered or lost with its
   * messages: the next frame is tried then.
   * @param options.pauseMs how long no frame may be tried: 0, unless one has just failed.
   */
  constructor(options: {
    readonly deliver: (messages: readonly Buffer[], over: () => void) => void;
    readonly pauseMs: () => number;
  }) {
    this.#deliver = options.deliver;
    this.#pauseMs = options.pauseMs;
  }

  get length(): number {
    return this.#waiting.length - this.#first;
  }

  /** @param message packed; one that no frame can hold is dropped. */
  add(message: Buffer): void {
    if (message.length > ITEM_BYTES_MAX) {
      this.dropped++;
      return;
    }
    this.#waiting.push(message);
    this.#bytes += message.length;
    while (this.length > MESSAGES_WAITING_MAX || this.#bytes > BYTES_WAITING_MAX) {
      this.#shift();
      this.dropped++;
    }
    if (this.#isDraining) return;
    this.#isDraining = true;
    // After this turn, so that all its messages share the frame.
    this.#turn = setImmediate(() => {
      this.#turn = undefined;
      this.#drain();
    });
  }

  /**
   * What waits, from the first on, as far as an answer to the peer can carry it.
   * Nothing while a frame is under way: what that holds was said before.
   */
  takeForAnswer(): Buffer[] {
    if (this.#isUnderWay) return [];
    const taken = this.#take(ANSWER_MESSAGES_BYTES_MAX);
    if (this.#turn !== undefined && this.length === 0) {
      clearImmediate(this.#turn);
      this.#turn = undefined;
      this.#isDraining = false;
    }
    return taken;
  }

  /** Drops what waits. */
  clear(): void {
    this.dropped += this.length;
    this.#waiting = [];
    this.#first = 0;
    this.#bytes = 0;
  }

  #drain(): void {
    const pauseMs = this.length === 0 ? 0 : this.#pauseMs();
    if (pauseMs > 0) {
      setTimeout(() => this.#drain(), pauseMs).unref();
      return;
    }
    const frame = this.#take(ITEM_BYTES_MAX);
    if (frame.length === 0) {
      this.#isDraining = false;
      return;
    }
    this.#isUnderWay = true;
    this.#deliver(frame, () => {
      this.#isUnderWay = false;
      if (this.length < CROWD) this.#drain();
      else setTimeout(() => this.#drain(), CROWD_MS);
    });
  }

  #take(bytesMax: number): Buffer[] {
    const frame: Buffer[] = [];
    let bytes = 0;
    while (this.length > 0 && frame.length < MESSAGES_MAX) {
      bytes += this.#waiting[this.#first]!.length;
      if (bytes > bytesMax) break;
      frame.push(this.#shift());
    }
    return frame;
  }

  #shift(): Buffer {
    const message = this.#waiting[this.#first]!;
    this.#first++;
    this.#bytes -= message.length;
    if (this.#first === this.#waiting.length) {
      this.#waiting = [];
      this.#first = 0;
    } else if (this.#first >= 1024 && this.#first * 2 >= this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
    return message;
  }
}
