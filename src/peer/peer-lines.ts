/** The lines of one member to all others, made at first use; what both transports share. */
import type { z } from "zod";
import { UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Exchange } from "./exchange.ts";
import { type PeerSelf, packHead } from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { pack } from "./msgpack.ts";
import { PeerLine } from "./peer-line.ts";
import type { PeerAddress, PeerRef } from "./transport.ts";

/** Above this the line that was used longest ago is closed. */
const LINES_MAX = 1024;

export class PeerLines<X extends Exchange> {
  readonly #self: PeerSelf;
  readonly #book: InstanceBook;
  readonly #log: Log;
  readonly #exchangeTo: (peer: PeerRef) => X;
  readonly #refused: (nodeId: string) => void;
  readonly #stale: (by: string) => void;
  readonly #lines = new Map<string, { readonly line: PeerLine; readonly exchange: X }>();
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
    readonly stale: (by: string) => void;
  }) {
    this.#self = options.self;
    this.#book = options.book;
    this.#log = options.log;
    this.#exchangeTo = options.exchangeTo;
    this.#refused = options.refused;
    this.#stale = options.stale;
    this.#head = packHead(options.self, options.address);
  }

  /** What peers are told to connect to. */
  set address(address: PeerAddress) {
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
    if (this.#isClosed) return;
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
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
  ): Promise<Output> {
    if (this.#isClosed) throw new UnavailableError("this server is stopping");
    const answer = await this.#lineTo(to).call(procedure, input, options);
    const parsed = output.safeParse(answer);
    if (parsed.success) return parsed.data;
    throw new UnavailableError(`a member's answer to ${procedure} has not the right shape`, {
      cause: parsed.error,
    });
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
