/**
 * What the messages of a simulated ring weigh, in the form in which servers send
 * them. Packing each would cost more than the protocol does: of each kind some are
 * packed, and stand for the others of their kind.
 */
import { pack } from "../../src/peer/msgpack.ts";
import type { RingMessage } from "../../src/ring/message.ts";

/** All of the first ones, then one in so many. */
const FIRST = 256;
const ONE_IN = 64;
/** The channel's name and the pair's header, as `[channel, message]` travels. */
const CHANNEL_BYTES = pack(["ring", null]).length - 1;

interface Weighed {
  messages: number;
  sampled: number;
  bytes: number;
}

export class RingTraffic {
  readonly #kinds = new Map<RingMessage["kind"], Weighed>();

  sent(message: RingMessage): void {
    let weighed = this.#kinds.get(message.kind);
    if (weighed === undefined) {
      weighed = { messages: 0, sampled: 0, bytes: 0 };
      this.#kinds.set(message.kind, weighed);
    }
    const number = weighed.messages++;
    if (number >= FIRST && number % ONE_IN !== 0) return;
    weighed.sampled++;
    weighed.bytes += pack(message).length + CHANNEL_BYTES;
  }

  clear(): void {
    this.#kinds.clear();
  }

  get messages(): number {
    let sum = 0;
    for (const { messages } of this.#kinds.values()) sum += messages;
    return sum;
  }

  get bytes(): number {
    let sum = 0;
    for (const { messages, sampled, bytes } of this.#kinds.values()) sum += (messages * bytes) / sampled;
    return sum;
  }

  /** Most frequent first. */
  byKind(): { kind: string; messages: number; bytesMean: number }[] {
    return [...this.#kinds]
      .map(([kind, { messages, sampled, bytes }]) => ({ kind, messages, bytesMean: bytes / sampled }))
      .sort((a, b) => b.messages - a.messages);
  }
}
