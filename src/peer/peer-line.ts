/**
 * All that one member keeps of its connection to another: whether the two have
 * shown each other their instances, what waits to be sent, what waits for an
 * answer, and when to try again after a failure.
 */
import { TRPCClientError, TRPCUntypedClient } from "@trpc/client";
import type { AnyTRPCRouter } from "@trpc/server";
import { ClusterError, RefusedError, StaleDataDirectoryError, UnavailableError } from "../errors.ts";
import { distrustIn } from "./distrust.ts";
import { type Exchange, isConnectionRefused } from "./exchange.ts";
import {
  ANSWER_MESSAGES_BYTES_MAX,
  AnswerReader,
  EARLIER_MAX,
  HELLO,
  helloAnswerSchema,
  type PeerSelf,
  packCalls,
  packMessages,
} from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { pack } from "./msgpack.ts";
import { Outbox } from "./outbox.ts";
import { IntroductionWanted, RpcLink, refusalOf } from "./rpc-link.ts";
import { STATUS_INTRODUCE } from "./rpc-server.ts";
import type { PeerAddress, PeerRef, PeerSender } from "./transport.ts";
import { fromWire } from "./wire-error.ts";

/** A frame that is not acknowledged by then is given up, with its connection. */
const FRAME_TIMEOUT_MS = 1000;
/** Of an answer to a frame, with what comes before its messages. A hello's answer and a refusal are smaller. */
const ANSWER_BYTES_MAX = ANSWER_MESSAGES_BYTES_MAX + 256 * 1024;
/** Between attempts to reach a peer that can't be reached. */
const RETRY_MS = 50;

export class PeerLine {
  readonly nodeId: string;
  readonly outbox: Outbox;
  readonly #exchange: Exchange;
  readonly #self: PeerSelf;
  readonly #head: () => Buffer;
  readonly #book: InstanceBook;
  readonly #onRefused: (nodeId: string) => void;
  readonly #onStale: (by: string, reason: string) => void;
  readonly #onDistrust: (address: PeerAddress, reason: string) => void;
  readonly #onMessages: (from: PeerSender, messages: unknown) => void;
  readonly #client: TRPCUntypedClient<AnyTRPCRouter>;
  #address: PeerAddress;
  /** The start of the peer that has shown itself, while connections hold. */
  #peer: PeerSender | undefined;
  #introduction: Promise<PeerSender> | undefined;
  #failure: { readonly error: ClusterError; readonly retryAt: number } | undefined;
  /** What was told last of why it is not trusted, until it is. */
  #distrust: string | undefined;
  /** Frames of messages so far. */
  #frames = 0;
  /** The frame that is neither answered nor given up; 0: none is. */
  #underWay = 0;
  /** What is to be done once it is. */
  #afterwards: (() => void)[] = [];
  /** The peer's frame in whose answer it got messages last. */
  #gaveInAnswerTo = 0;
  /** performance.now() of the last call or message. */
  usedAt = performance.now();

  constructor(options: {
    readonly peer: PeerRef;
    readonly exchange: Exchange;
    readonly self: PeerSelf;
    readonly head: () => Buffer;
    readonly book: InstanceBook;
    readonly refused: (nodeId: string) => void;
    readonly stale: (by: string, reason: string) => void;
    /** Who listens at that address is not the peer; told once for each reason. */
    readonly distrusted: (address: PeerAddress, reason: string) => void;
    readonly messages: (from: PeerSender, messages: unknown) => void;
  }) {
    this.nodeId = options.peer.nodeId;
    this.#address = options.peer.address;
    this.#exchange = options.exchange;
    this.#self = options.self;
    this.#head = options.head;
    this.#book = options.book;
    this.#onRefused = options.refused;
    this.#onStale = options.stale;
    this.#onDistrust = options.distrusted;
    this.#onMessages = options.messages;
    const link = new RpcLink({
      exchange: options.exchange,
      head: options.head,
      instance: () => this.#peer?.instance,
      lost: (error) => void this.#lost(error),
      restarted: () => (this.#peer = undefined),
    });
    this.#client = new TRPCUntypedClient<AnyTRPCRouter>({ links: [link.link()] });
    this.outbox = new Outbox({ deliver: (messages) => this.#deliver(messages), pause: () => this.#pause() });
  }

  /** Where the peer listens now; connects anew when that changed. */
  moveTo(address: PeerAddress): void {
    if (address.port === this.#address.port && address.host === this.#address.host) return;
    this.#address = address;
    this.#peer = undefined;
    this.#introduction = undefined;
    this.#failure = undefined;
    this.#exchange.reconnect("frames", address);
    this.#exchange.reconnect("calls", address);
  }

  /** As Transport.call, but the output is not parsed yet. */
  async call(
    procedure: string,
    input: unknown,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
  ): Promise<unknown> {
    const deadline = performance.now() + options.timeoutMs;
    for (let attempt = 1; ; attempt++) {
      if (this.#failure !== undefined && performance.now() < this.#failure.retryAt) {
        throw this.#failure.error;
      }
      if (this.#peer === undefined) {
        const left = deadline - performance.now();
        await within(this.#introduce(), left, options.signal, `${procedure} was not answered in time`);
      }
      try {
        return await this.#client.mutation(procedure, input, {
          context: { timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())) },
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        });
      } catch (thrown) {
        const cause = thrown instanceof TRPCClientError ? thrown.cause : thrown;
        if (!(cause instanceof IntroductionWanted)) {
          throw cause instanceof ClusterError
            ? cause
            : new UnavailableError(`${procedure} was given up`, { cause: thrown });
        }
        // Nothing was done with the request: to repeat it is safe.
        this.#peer = undefined;
        if (attempt === 3) throw new UnavailableError("a member started again and again meanwhile");
      }
    }
  }

  /** Calls `act` once frame `number` is answered, and what came back is acted on, or given up; at once when it is not under way. */
  afterFrame(number: number, act: () => void): void {
    if (number !== 0 && number === this.#underWay) this.#afterwards.push(act);
    else act();
  }

  /** What the peer gets with the answer to its frame `number`. */
  takeForAnswer(number: number): Buffer[] {
    const messages = this.outbox.takeForAnswer();
    if (messages.length > 0) this.#gaveInAnswerTo = number;
    return messages;
  }

  close(): void {
    this.#afterwards = [];
    this.outbox.clear();
    this.#exchange.close();
  }

  async #deliver(messages: readonly Buffer[]): Promise<void> {
    const number = ++this.#frames;
    this.#underWay = number;
    try {
      await this.#deliverAs(number, messages);
    } finally {
      this.#underWay = 0;
      for (const act of this.#afterwards.splice(0)) act();
    }
  }

  async #deliverAs(number: number, messages: readonly Buffer[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const peer = this.#peer ?? (await this.#introduce());
      const frame = packMessages(this.#head(), messages, number, this.#gaveInAnswerTo);
      const { status, body } = await this.#request(frame);
      if (status === 200) return this.#answered(peer, body);
      if (status !== STATUS_INTRODUCE) {
        const error = refusalOf(status, body);
        if (error instanceof StaleDataDirectoryError) this.#onStale(this.nodeId, error.message);
        throw error;
      }
      this.#peer = undefined;
      if (attempt === 3) throw new UnavailableError("a member started again and again meanwhile");
    }
  }

  /** What the peer gave with its answer comes from it as if it had sent it; an answer of another start gives nothing. */
  #answered(peer: PeerSender, body: Buffer): void {
    const reader = new AnswerReader();
    const [answer] = reader.read(body);
    if (reader.instance !== peer.instance) {
      this.#peer = undefined;
      return;
    }
    const [, failed, given] = answer ?? [0, 1, undefined];
    const isEmpty = given === null || (Array.isArray(given) && given.length === 0);
    if (failed === 1 || isEmpty || !this.#book.isCurrent(peer)) return;
    this.#onMessages(peer, given);
  }

  /** Waits until the peer may be tried again. */
  async #pause(): Promise<void> {
    const left = this.#failure === undefined ? 0 : this.#failure.retryAt - performance.now();
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, left).unref());
  }

  #introduce(): Promise<PeerSender> {
    this.#introduction ??= this.#hello().finally(() => (this.#introduction = undefined));
    return this.#introduction;
  }

  /** Each shows the other which start of it this is and which came before. */
  async #hello(): Promise<PeerSender> {
    const earlier = this.#self.earlierInstances.slice(0, EARLIER_MAX);
    const { status, body } = await this.#request(packCalls(this.#head(), [pack([HELLO, { earlier }])]));
    if (status !== 200) {
      const error = refusalOf(status, body);
      if (error instanceof StaleDataDirectoryError) this.#onStale(this.nodeId, error.message);
      this.#failed(error);
      throw error;
    }
    const [answer] = new AnswerReader().read(body);
    if (answer?.[1] === 1) throw fromWire(answer[2]);
    const parsed = helloAnswerSchema.safeParse(answer?.[2]);
    if (!parsed.success || parsed.data.nodeId !== this.nodeId) {
      throw new UnavailableError("a member's hello can't be read", { cause: parsed.error });
    }
    if (this.#book.present(parsed.data, parsed.data.earlier) === "stale") {
      const cause = new RefusedError(`node ${this.nodeId} runs on an old copy of its data directory`);
      const failure = new UnavailableError(cause.message, { cause });
      this.#failed(failure);
      throw failure;
    }
    const { nodeId, address, incarnation, instance } = parsed.data;
    const peer = { nodeId, address, incarnation, instance };
    this.#peer = peer;
    this.#failure = undefined;
    this.#distrust = undefined;
    return peer;
  }

  /** One request that must be answered within FRAME_TIMEOUT_MS. */
  #request(frame: Buffer): Promise<{ status: number; body: Buffer }> {
    return new Promise((resolve, reject) => {
      let status = 0;
      const pieces: Buffer[] = [];
      let bytes = 0;
      const timer = setTimeout(() => {
        abort();
        const error = new Error(`not answered within ${FRAME_TIMEOUT_MS} ms`);
        this.#exchange.reconnect("frames", this.#address);
        reject(this.#lost(error));
      }, FRAME_TIMEOUT_MS);
      const abort = this.#exchange.post("frames", frame, {
        status: (code) => (status = code),
        data: (piece) => {
          bytes += piece.length;
          if (bytes <= ANSWER_BYTES_MAX) pieces.push(piece);
          else pieces.length = 0;
        },
        end: () => {
          clearTimeout(timer);
          resolve({ status, body: pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces) });
        },
        fail: (error) => {
          clearTimeout(timer);
          reject(this.#lost(error));
        },
      });
    });
  }

  /** @returns what callers are told until the peer is tried again. */
  #lost(error: Error): ClusterError {
    this.#peer = undefined;
    const failure = unreachable(this.#address, error);
    this.#failed(failure);
    const distrust = error instanceof RefusedError ? error.message : distrustIn(error);
    if (distrust !== undefined && distrust !== this.#distrust) {
      this.#distrust = distrust;
      this.#onDistrust(this.#address, distrust);
    }
    if (isConnectionRefused(error)) {
      this.outbox.clear();
      this.#onRefused(this.nodeId);
    }
    return failure;
  }

  #failed(error: ClusterError): void {
    this.#failure = { error, retryAt: performance.now() + RETRY_MS };
  }
}

function unreachable(address: PeerAddress, cause: Error): UnavailableError {
  if (cause instanceof RefusedError) return new UnavailableError(cause.message, { cause });
  return new UnavailableError(`${address.host}:${address.port} can't be reached: ${cause.message}`, {
    cause,
  });
}

/** Rejects when `promise` takes longer, or `signal` aborts; `promise` goes on. */
function within<T>(
  promise: Promise<T>,
  ms: number,
  signal: AbortSignal | undefined,
  what: string,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(new UnavailableError(what));
    const timer = setTimeout(giveUp, Math.max(1, ms));
    signal?.addEventListener("abort", giveUp, { once: true });
    if (signal?.aborted) giveUp();
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    });
  });
}
