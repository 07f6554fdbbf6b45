/**
 * The transport within one process, for tests: everything is packed, framed and
 * parsed as on the wire, only the sockets are missing. The network between the
 * members can lose, delay and cut.
 */
import { RefusedError, UnavailableError } from "../errors.ts";
import type { Exchange, Lane, Sink } from "./exchange.ts";
import type { PeerSelf } from "./frame.ts";
import { PeerTransport, type PeerTransportOptions } from "./peer-transport.ts";
import { Connection, type RpcServer } from "./rpc-server.ts";
import type { PeerAddress, PeerHandlers, PeerRef, ProcedureMap } from "./transport.ts";

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
    for (const lane of ["frames", "calls", "waits"] as const) this.reconnect(lane, this.#peer.address);
  }
}

export class MemoryTransport<Messages extends object, Procedures extends ProcedureMap> extends PeerTransport<
  Messages,
  Procedures,
  MemoryExchange
> {
  readonly #network: MemoryNetwork;
  #port: number;

  /** @param options.port 0: any free one. */
  constructor(
    options: PeerTransportOptions<Messages, Procedures> & {
      readonly network: MemoryNetwork;
      readonly port: number;
    },
  ) {
    super(options, { host: "memory", port: options.port });
    this.#network = options.network;
    this.#port = options.port;
  }

  async listen(handlers: PeerHandlers<Messages, Procedures>): Promise<PeerAddress> {
    this.#port = this.#network.listen(this.self, this.take(handlers).rpc, this.#port);
    const address = { host: "memory", port: this.#port };
    this.lines.address = address;
    return address;
  }

  async close(): Promise<void> {
    this.#network.leave(this.#port);
    this.lines.close();
  }

  protected exchangeTo(peer: PeerRef): MemoryExchange {
    return new MemoryExchange(this.#network, this.self, peer);
  }
}

function pair(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

function connectionRefused({ host, port }: PeerAddress): Error {
  return Object.assign(new Error(`connect ECONNREFUSED ${host}:${port}`), { code: "ECONNREFUSED" });
}
