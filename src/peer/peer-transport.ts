/**
 * What every transport between members is, whatever carries its frames: lines to
 * all others, and one server that takes in what they send. What is left to each
 * kind is how bytes get there, and where it listens.
 */
import type { Log } from "../log.ts";
import { Deliveries } from "./deliveries.ts";
import type { Exchange } from "./exchange.ts";
import type { PeerSelf } from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { PeerLines } from "./peer-lines.ts";
import { createPeerRouter, type PeerRouter, type PeerSchemas } from "./router.ts";
import { RpcServer } from "./rpc-server.ts";
import type {
  CallOptions,
  PeerAddress,
  PeerHandlers,
  PeerRef,
  ProcedureMap,
  Transport,
} from "./transport.ts";

export interface PeerTransportOptions<Messages extends object, Procedures extends ProcedureMap> {
  readonly self: PeerSelf;
  readonly schemas: PeerSchemas<Messages, Procedures>;
  /** Which starts of others were seen; its records are the caller's to persist. */
  readonly book: InstanceBook;
  readonly log: Log;
  /** Member `by` says that this server runs on an old copy of its data directory, or was removed. */
  readonly stale: (by: string, reason: string) => void;
}

export abstract class PeerTransport<
  Messages extends object,
  Procedures extends ProcedureMap,
  X extends Exchange,
> implements Transport<Messages, Procedures>
{
  protected readonly self: PeerSelf;
  protected readonly log: Log;
  protected readonly lines: PeerLines<X>;
  /** Undefined before `listen`. */
  protected handlers: PeerHandlers<Messages, Procedures> | undefined;
  protected deliveries: Deliveries<Messages, Procedures> | undefined;
  protected rpc: RpcServer | undefined;
  readonly #schemas: PeerSchemas<Messages, Procedures>;
  readonly #book: InstanceBook;

  /** @param address what peers are told to connect to, until another one is known. */
  constructor(options: PeerTransportOptions<Messages, Procedures>, address: PeerAddress) {
    this.self = options.self;
    this.log = options.log;
    this.#schemas = options.schemas;
    this.#book = options.book;
    this.lines = new PeerLines({
      self: options.self,
      address,
      book: options.book,
      log: options.log,
      exchangeTo: (peer) => this.exchangeTo(peer),
      refused: (nodeId) => this.handlers?.refused(nodeId),
      stale: options.stale,
      messages: (from, messages) => this.deliveries?.takeAnswered(from, messages),
    });
  }

  abstract listen(handlers: PeerHandlers<Messages, Procedures>): Promise<PeerAddress>;

  abstract close(): Promise<void>;

  /** The way to `peer`; nothing is connected before it is used. */
  protected abstract exchangeTo(peer: PeerRef): X;

  send<C extends keyof Messages>(to: PeerRef, channel: C, message: Messages[C]): void {
    this.lines.send(to, String(channel), message);
  }

  call<P extends keyof Procedures>(
    to: PeerRef,
    procedure: P,
    input: Procedures[P]["input"],
    options: CallOptions,
  ): Promise<Procedures[P]["output"]> {
    const { output } = this.#schemas.procedures[procedure];
    return this.lines.call(to, String(procedure), input, output, options);
  }

  /** What arrives goes to `handlers` from now on: frames through `rpc`, and what else calls procedures through `router`. */
  protected take(handlers: PeerHandlers<Messages, Procedures>): {
    readonly router: PeerRouter<Procedures>;
    readonly rpc: RpcServer;
  } {
    this.handlers = handlers;
    const deliveries = new Deliveries({ schemas: this.#schemas.messages, handlers, log: this.log });
    this.deliveries = deliveries;
    const router = createPeerRouter({ schemas: this.#schemas, handlers, deliveries });
    const rpc = new RpcServer({
      router,
      self: this.self,
      book: this.#book,
      log: this.log,
      delivering: this.lines.delivering(deliveries),
      address: () => this.lines.address,
    });
    this.rpc = rpc;
    return { router, rpc };
  }
}
