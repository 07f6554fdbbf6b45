/** The lines of one member to all others, made at first use; what both transports share. */
import type { z } from "zod";
import { UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Exchange } from "./exchange.ts";
import { type PeerSelf, packHead } from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { pack } from "./msgpack.ts";
import { PeerLine } from "./peer-line.ts";
import type { Delivering } from "./rpc-server.ts";
import type { CallOptions, PeerAddress, PeerRef, PeerSender } from "./transport.ts";

/** Above this the line that was used longest ago is closed. */
const LINES_MAX = 1024;

export class PeerLines<X extends Exchange> {
  readonly #self: PeerSelf;
  readonly #book: InstanceBook;
  readonly #log: Log;
  readonly #exchangeTo: (peer: PeerRef) => X;
  readonly #refused: (nodeId: string) => void;
  readonly #stale: (by: string, reason: string) => void;
  readonly #messages: (from: PeerSender, messages: unknown) => void;
  readonly #lines = new Map<string, { readonly line: PeerLine; readonly exchange: X }>();
  #address: PeerAddress;
  #head: Buffer;
  #isClosed = false;
  /** Messages dropped on lines that are gone. */
  #dropped = 0;

  constructor(options: {
    readonly self: PeerSelf;
    readonly address: PeerAddress;
    readonly book: InstanceBook;
    readonly log: Log;
    readonly exchangeTo: (peer: PeerRef) => X;
    readonly refused: (nodeId: string) => void;
    readonly stale: (by: string, reason: string) => void;
    /** Called with what a peer gave with its answer, not parsed yet. */
    readonly messages: (from: PeerSender, messages: unknown) => void;
  }) {
    this.#self = options.self;
    this.#book = options.book;
    this.#log = options.log;
    this.#exchangeTo = options.exchangeTo;
    this.#refused = options.refused;
    this.#stale = options.stale;
    this.#messages = options.messages;
    this.#address = options.address;
    this.#head = packHead(options.self, options.address);
  }

  /** What peers are told to connect to. */
  get address(): PeerAddress {
    return this.#address;
  }

  set address(address: PeerAddress) {
    this.#address = address;
    this.#head = packHead(this.#self, address);
  }

  get exchanges(): X[] {
    return Array.from(this.#lines.values(), ({ exchange }) => exchange);
  }

  /** Messages that never left. */
  get dropped(): number {
    let dropped = this.#dropped;
    for (const { line } of this.#lines.values()) dropped += line.outbox.dropped;
    return dropped;
  }

  send(to: PeerRef, channel: string, message: unknown): void {
    if (this.#isClosed || this.#book.isRemoved(to.nodeId)) return;
    let packed: Buffer;
    try {
      packed = pack([channel, message]);
    } catch (error) {
      this.#log.error("peer message can't travel", { channel, error });
      return;
    }
    this.#lineTo(to).outbox.add(packed);
  }

  /** As Transport.call; the output is parsed with `output`. */
  async call<Output>(
    to: PeerRef,
    procedure: string,
    input: unknown,
    output: z.ZodType<Output>,
    options: CallOptions,
  ): Promise<Output> {
    if (this.#isClosed) throw new UnavailableError("this server is stopping");
    if (this.#book.isRemoved(to.nodeId)) {
      throw new UnavailableError(`server ${to.nodeId.slice(0, 8)} was removed from the cluster`);
    }
    const answer = await this.#lineTo(to).call(procedure, input, options);
    const parsed = output.safeParse(answer);
    if (parsed.success) return parsed.data;
    throw new UnavailableError(`a member's answer to ${procedure} has not the right shape`, {
      cause: parsed.error,
    });
  }

  /** How frames of peers are taken in: what they give rise to may go back with the answer. */
  delivering(deliveries: Pick<Delivering, "take">): Delivering {
    return {
      take: (from, messages) => deliveries.take(from, messages),
      afterFrame: (nodeId, number, act) => {
        const line = this.#lines.get(nodeId)?.line;
        if (line === undefined) act();
        else line.afterFrame(number, act);
      },
      takeForAnswer: (nodeId, number) => this.#lines.get(nodeId)?.line.takeForAnswer(number) ?? [],
    };
  }

  close(): void {
    this.#isClosed = true;
    for (const { line } of this.#lines.values()) line.close();
    this.#lines.clear();
  }

  #lineTo(peer: PeerRef): PeerLine {
    const known = this.#lines.get(peer.nodeId);
    if (known !== undefined) {
      known.line.moveTo(peer.address);
      known.line.usedAt = performance.now();
      return known.line;
    }
    if (this.#lines.size >= LINES_MAX) this.#closeOldest();
    const exchange = this.#exchangeTo(peer);
    const line = new PeerLine({
      peer,
      exchange,
      self: this.#self,
      head: () => this.#head,
      book: this.#book,
      refused: this.#refused,
      stale: this.#stale,
      distrusted: (address, reason) =>
        this.#log.warn("peer not trusted", { peer: peer.nodeId, ...address, reason }),
      messages: this.#messages,
    });
    this.#lines.set(peer.nodeId, { line, exchange });
    return line;
  }

  #closeOldest(): void {
    let oldest: PeerLine | undefined;
    for (const { line } of this.#lines.values()) {
      if (oldest === undefined || line.usedAt < oldest.usedAt) oldest = line;
    }
    if (oldest === undefined) return;
    oldest.close();
    this.#dropped += oldest.outbox.dropped;
    this.#lines.delete(oldest.nodeId);
  }
}
