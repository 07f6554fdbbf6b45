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
  type Answer,
  AnswerReader,
  EARLIER_MAX,
  HELLO,
  helloAnswerSchema,
  isNoMessages,
  type PeerSelf,
  packCalls,
  packMessages,
  packPreamble,
} from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { pack } from "./msgpack.ts";
import { Outbox } from "./outbox.ts";
import { IntroductionWanted, RpcLink, refusalOf } from "./rpc-link.ts";
import { STATUS_INTRODUCE } from "./rpc-server.ts";
import type { CallOptions, PeerAddress, PeerRef, PeerSender } from "./transport.ts";
import { fromWire } from "./wire-error.ts";

/** A frame that is not acknowledged by then is given up, with its connection. */
const FRAME_TIMEOUT_MS = 1000;
/** Of an answer to a frame, with what comes before its messages. A hello's answer and a refusal are smaller. */
const ANSWER_BYTES_MAX = ANSWER_MESSAGES_BYTES_MAX + 256 * 1024;
/** Between attempts to reach a peer that can't be reached. */
const RETRY_MS = 50;

const NOTHING: Buffer = Buffer.alloc(0);

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
  readonly #clients: Readonly<Record<"calls" | "waits", TRPCUntypedClient<AnyTRPCRouter>>>;
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
  #deadline: NodeJS.Timeout | undefined;
  /** Ends the request that is under way in the lane of frames. */
  #giveUp: (() => void) | undefined;
  /** What is to be sent once that has ended. */
  readonly #queue: (() => void)[] = [];
  /** How responses of the peer's present start begin. */
  #preamble = { of: "", bytes: NOTHING };
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
    const clientOf = (lane: "calls" | "waits") => {
      const link = new RpcLink({
        lane,
        exchange: options.exchange,
        head: options.head,
        instance: () => this.#peer?.instance,
        lost: (error) => void this.#lost(error),
        restarted: () => (this.#peer = undefined),
      });
      return new TRPCUntypedClient<AnyTRPCRouter>({ links: [link.link()] });
    };
    this.#clients = { calls: clientOf("calls"), waits: clientOf("waits") };
    this.outbox = new Outbox({
      deliver: (messages, over) => this.#deliver(messages, over),
      pauseMs: () => this.#pauseMs(),
    });
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
    this.#exchange.reconnect("waits", address);
  }

  /** As Transport.call, but the output is not parsed yet. */
  async call(procedure: string, input: unknown, options: CallOptions): Promise<unknown> {
    const client = this.#clients[options.isWait === true ? "waits" : "calls"];
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
        return await client.mutation(procedure, input, {
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
    clearTimeout(this.#deadline);
    this.#giveUp = undefined;
    this.#queue.length = 0;
    this.outbox.clear();
    this.#exchange.close();
  }

  #deliver(messages: readonly Buffer[], over: () => void): void {
    const number = ++this.#frames;
    this.#underWay = number;
    this.#attempt(number, messages, 1, () => {
      this.#underWay = 0;
      for (const act of this.#afterwards.splice(0)) act();
      over();
    });
  }

  /** @param settle called later, once: what could not be delivered is lost, as any message may be. */
  #attempt(number: number, messages: readonly Buffer[], attempt: number, settle: () => void): void {
    const peer = this.#peer;
    if (peer === undefined) {
      this.#introduce().then(() => this.#attempt(number, messages, attempt, settle), settle);
      return;
    }
    const frame = packMessages(this.#head(), messages, number, this.#gaveInAnswerTo);
    this.#post(frame, (status, body) => {
      if (status === STATUS_INTRODUCE) {
        this.#peer = undefined;
        if (attempt < 3) {
          this.#attempt(number, messages, attempt + 1, settle);
          return;
        }
      } else if (status === 200) this.#answered(peer, body);
      else if (status !== undefined) {
        const error = refusalOf(status, body);
        if (error instanceof StaleDataDirectoryError) this.#onStale(this.nodeId, error.message);
      }
      settle();
    });
  }

  /** What the peer gave with its answer comes from it as if it had sent it; an answer of another start gives nothing. */
  #answered(peer: PeerSender, body: Buffer): void {
    if (this.#preamble.of !== peer.instance) {
      this.#preamble = { of: peer.instance, bytes: packPreamble(peer.instance) };
    }
    if (isNoMessages(body, this.#preamble.bytes)) return;
    let answer: Answer | undefined;
    const reader = new AnswerReader();
    try {
      [answer] = reader.read(body);
    } catch {
      return; // What can't be read gives nothing.
    }
    if (reader.instance !== peer.instance) {
      this.#peer = undefined;
      return;
    }
    const [, failed, given] = answer ?? [0, 1, undefined];
    const isEmpty = given === null || (Array.isArray(given) && given.length === 0);
    if (failed === 1 || isEmpty || !this.#book.isCurrent(peer)) return;
    this.#onMessages(peer, given);
  }

  /** How long until the peer may be tried again. */
  #pauseMs(): number {
    return this.#failure === undefined ? 0 : Math.max(0, this.#failure.retryAt - performance.now());
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

  #request(frame: Buffer): Promise<{ status: number; body: Buffer }> {
    return new Promise((resolve, reject) => {
      this.#post(frame, (status, body, failure) => {
        if (status === undefined) reject(failure);
        else resolve({ status, body });
      });
    });
  }

  /**
   * One request that must be answered within FRAME_TIMEOUT_MS.
   *
   * @param settled called later, once; `status` is undefined when there was no answer, for the reason `failure`.
   */
  #post(
    frame: Buffer,
    settled: (status: number | undefined, body: Buffer, failure?: ClusterError) => void,
  ): void {
    if (this.#giveUp !== undefined) {
      // A call needs a hello while a frame is under way: an answer says not which of two it belongs to.
      this.#queue.push(() => this.#post(frame, settled));
      return;
    }
    let status = 0;
    let bytes = 0;
    const pieces: Buffer[] = [];
    const giveUp = () => {
      abort();
      this.#exchange.reconnect("frames", this.#address);
      this.#isFree();
      settled(undefined, NOTHING, this.#lost(new Error(`not answered within ${FRAME_TIMEOUT_MS} ms`)));
    };
    const abort = this.#exchange.post("frames", frame, {
      status: (code) => (status = code),
      data: (piece) => {
        bytes += piece.length;
        if (bytes <= ANSWER_BYTES_MAX) pieces.push(piece);
        else pieces.length = 0;
      },
      end: () => {
        this.#isFree();
        settled(status, pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces));
        this.#rest();
      },
      fail: (error) => {
        this.#isFree();
        settled(undefined, NOTHING, this.#lost(error));
        this.#rest();
      },
    });
    this.#giveUp = giveUp;
    // While frames follow one another their timer is moved on, which costs less than one for each.
    if (this.#deadline === undefined) this.#deadline = setTimeout(() => this.#expire(), FRAME_TIMEOUT_MS);
    else this.#deadline.refresh();
  }

  #expire(): void {
    this.#deadline = undefined;
    this.#giveUp?.();
  }

  /** The lane of frames is: whoever waited for it goes first. */
  #isFree(): void {
    this.#giveUp = undefined;
    this.#queue.shift()?.();
  }

  /** A line at rest wakes nobody. */
  #rest(): void {
    if (this.#giveUp !== undefined) return;
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
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
