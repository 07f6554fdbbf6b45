/**
 * The transport within one process, for tests: everything is packed, framed and
 * parsed as on the wire, only the sockets are missing. The network between the
 * members can lose, delay and cut.
 */
import { RefusedError, UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import { Deliveries } from "./deliveries.ts";
import type { Exchange, Lane, Sink } from "./exchange.ts";
import type { PeerSelf } from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { PeerLines } from "./peer-lines.ts";
import { createPeerRouter, type PeerSchemas } from "./router.ts";
import { Connection, RpcServer } from "./rpc-server.ts";
import type {
  CallOptions,
  PeerAddress,
  PeerHandlers,
  PeerRef,
  ProcedureMap,
  Transport,
} from "./transport.ts";

/** Who listens where, and what happens on the way. */
export class MemoryNetwork {
  /** Requests that vanish with their connection, 0 to 1. */
  lossRatio = 0;
  /** Each way. */
  delayMs = 0;
  readonly #random: () => number;
  readonly #listening = new Map<number, { readonly self: PeerSelf; readonly rpc: RpcServer }>();
  readonly #cut = new Set<string>();
  #nextPort = 1;

  /** @param random decides what is lost; in [0, 1). */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** From now on nothing passes between the two, and nothing is refused either. */
  cut(a: string, b: string): void {
    this.#cut.add(pair(a, b));
  }

  heal(): void {
    this.#cut.clear();
    this.lossRatio = 0;
    this.delayMs = 0;
  }

  listen(self: PeerSelf, rpc: RpcServer, port: number): number {
    const free = port === 0 ? this.#nextPort++ : port;
    if (this.#listening.has(free)) throw new UnavailableError(`port ${free} is in use`);
    this.#nextPort = Math.max(this.#nextPort, free + 1);
    this.#listening.set(free, { self, rpc });
    return free;
  }

  leave(port: number): void {
    this.#listening.delete(port);
  }

  /** Carries one request and its response; as Exchange.post. */
  carry(from: PeerSelf, to: PeerRef, body: Buffer, sink: Sink): () => void {
    let isOver = false;
    const gone = new AbortController();
    const isCut = () => this.#cut.has(pair(from.nodeId, to.nodeId));
    const later = (act: () => void) => {
      const run = () => {
        if (!isOver && !isCut()) act();
      };
      if (this.delayMs === 0) setImmediate(run);
      else setTimeout(run, this.delayMs);
    };
    const fail = (error: Error) => {
      isOver = true;
      sink.fail(error);
    };
    later(() => {
      const listener = this.#listening.get(to.address.port);
      if (listener === undefined) return fail(connectionRefused(to.address));
      if (this.#random() < this.lossRatio) return fail(new Error("connection reset"));
      if (listener.self.nodeId !== to.nodeId) {
        return fail(
          new RefusedError(
            `the server at this address is node ${listener.self.nodeId}, not node ${to.nodeId}`,
          ),
        );
      }
      const certificate = { role: "node", name: from.nodeId, clusterId: from.clusterId } as const;
      let isOpened = false;
      const open = (status: number) => {
        if (!isOpened) sink.status(status);
        isOpened = true;
      };
      const finish = (status: number, part: Buffer) =>
        later(() => {
          open(status);
          sink.data(part);
          isOver = true;
          sink.end();
        });
      listener.rpc.receive(
        new Connection(certificate, "memory"),
        Buffer.from(body),
        {
          refuse: finish,
          write: (part) =>
            later(() => {
              open(200);
              sink.data(part);
            }),
          end: (part) => finish(200, part),
        },
        () => gone.signal,
      );
    });
    return () => {
      isOver = true;
      gone.abort();
    };
  }
}

class MemoryExchange implements Exchange {
  readonly #network: MemoryNetwork;
  readonly #self: PeerSelf;
  #peer: PeerRef;
  readonly #open: Readonly<Record<Lane, Set<() => void>>> = {
    frames: new Set(),
    calls: new Set(),
    waits: new Set(),
  };

  constructor(network: MemoryNetwork, self: PeerSelf, peer: PeerRef) {
    this.#network = network;
    this.#self = self;
    this.#peer = peer;
  }

  post(lane: Lane, body: Buffer, sink: Sink): () => void {
    const over = (act: () => void) => {
      this.#open[lane].delete(breakOff);
      act();
    };
    const abort = this.#network.carry(this.#self, this.#peer, body, {
      status: (code) => sink.status(code),
      data: (piece) => sink.data(piece),
      end: () => over(() => sink.end()),
      fail: (error) => over(() => sink.fail(error)),
    });
    const breakOff = () => {
      abort();
      setImmediate(() => sink.fail(new Error("the connection was given up")));
    };
    this.#open[lane].add(breakOff);
    return () => over(abort);
  }

  reconnect(lane: Lane, address: PeerAddress): void {
    this.#peer = { nodeId: this.#peer.nodeId, address };
    for (const breakOff of this.#open[lane]) breakOff();
    this.#open[lane].clear();
  }

  close(): void {
    this.reconnect("frames", this.#peer.address);
    this.reconnect("calls", this.#peer.address);
  }
}

export class MemoryTransport<Messages extends object, Procedures extends ProcedureMap>
  implements Transport<Messages, Procedures>
{
  readonly #network: MemoryNetwork;
  readonly #self: PeerSelf;
  readonly #schemas: PeerSchemas<Messages, Procedures>;
  readonly #book: InstanceBook;
  readonly #log: Log;
  readonly #lines: PeerLines<MemoryExchange>;
  #handlers: PeerHandlers<Messages, Procedures> | undefined;
  #deliveries: Deliveries<Messages, Procedures> | undefined;
  #port: number;

  /** @param options.port 0: any free one. */
  constructor(options: {
    readonly network: MemoryNetwork;
    readonly self: PeerSelf;
    readonly port: number;
    readonly schemas: PeerSchemas<Messages, Procedures>;
    readonly book: InstanceBook;
    readonly log: Log;
    readonly stale: (by: string, reason: string) => void;
  }) {
    this.#network = options.network;
    this.#self = options.self;
    this.#schemas = options.schemas;
    this.#book = options.book;
    this.#log = options.log;
    this.#port = options.port;
    this.#lines = new PeerLines({
      self: options.self,
      address: { host: "memory", port: options.port },
      book: options.book,
      log: options.log,
      exchangeTo: (peer) => new MemoryExchange(options.network, options.self, peer),
      refused: (nodeId) => this.#handlers?.refused(nodeId),
      stale: options.stale,
      messages: (from, messages) => this.#deliveries?.takeAnswered(from, messages),
    });
  }

  async listen(handlers: PeerHandlers<Messages, Procedures>): Promise<PeerAddress> {
    this.#handlers = handlers;
    const deliveries = new Deliveries({ schemas: this.#schemas.messages, handlers, log: this.#log });
    this.#deliveries = deliveries;
    const router = createPeerRouter({ schemas: this.#schemas, handlers, deliveries });
    const rpc = new RpcServer({
      router,
      self: this.#self,
      book: this.#book,
      log: this.#log,
      delivering: this.#lines.delivering(deliveries),
      address: () => this.#lines.address,
    });
    this.#port = this.#network.listen(this.#self, rpc, this.#port);
    const address = { host: "memory", port: this.#port };
    this.#lines.address = address;
    return address;
  }

  send<C extends keyof Messages>(to: PeerRef, channel: C, message: Messages[C]): void {
    this.#lines.send(to, String(channel), message);
  }

  call<P extends keyof Procedures>(
    to: PeerRef,
    procedure: P,
    input: Procedures[P]["input"],
    options: CallOptions,
  ): Promise<Procedures[P]["output"]> {
    return this.#lines.call(
      to,
      String(procedure),
      input,
      this.#schemas.procedures[procedure].output,
      options,
    );
  }

  async close(): Promise<void> {
    this.#network.leave(this.#port);
    this.#lines.close();
  }
}

function pair(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

function connectionRefused({ host, port }: PeerAddress): Error {
  return Object.assign(new Error(`connect ECONNREFUSED ${host}:${port}`), { code: "ECONNREFUSED" });
}
