/**
 * An Exchange over HTTPS with client certificates. Calls go by undici's dispatch:
 * what is under its `request`, without a stream object per response. Frames have an
 * upgraded connection.
 */
import { type buildConnector, Client, type Dispatcher, Pool } from "undici";
import { RefusedError } from "../errors.ts";
import type { Exchange, Lane, Sink } from "./exchange.ts";
import { FrameStream } from "./frame-stream.ts";
import type { PeerCertificate } from "./rpc-server.ts";
import type { PeerAddress } from "./transport.ts";

/** Connections to one peer for calls; each carries one batch of calls at a time. */
const CONNECTIONS_MAX = { calls: 32, waits: 256 } as const;
const CONNECT_TIMEOUT_MS = 3000;
/** Less than what the server keeps, so that the client is the one to close. */
export const CLIENT_KEEP_ALIVE_MS = 60_000;

/** PEM, to be presented and to be verified against. */
export interface Credentials {
  /** Own certificate, followed by the issuing authority's. */
  readonly certificate: string;
  /** PKCS #8. */
  readonly key: string;
  readonly rootCertificate: string;
}

export class HttpsExchange implements Exchange {
  readonly #credentials: () => Credentials;
  readonly #verify: (certificate: Buffer) => void;
  readonly #closed: () => void;
  #address: PeerAddress;
  #frames: FrameStream;
  readonly #pools: Record<"calls" | "waits", Dispatcher>;
  #isClosed = false;

  /**
   * @param options.verify throws when the certificate, whose chain is right, is not the peer's.
   * @param options.closed the connection for frames ended, and not by this side's will.
   */
  constructor(options: {
    readonly address: PeerAddress;
    readonly credentials: () => Credentials;
    readonly verify: (certificate: Buffer) => void;
    readonly closed: () => void;
  }) {
    this.#address = options.address;
    this.#credentials = options.credentials;
    this.#verify = options.verify;
    this.#closed = options.closed;
    this.#frames = this.#newFrames();
    this.#pools = { calls: this.#newPool("calls"), waits: this.#newPool("waits") };
  }

  post(lane: Lane, body: Buffer, sink: Sink): () => void {
    let controller: Dispatcher.DispatchController | undefined;
    let isOver = false;
    if (this.#isClosed) {
      queueMicrotask(() => {
        if (!isOver) sink.fail(new Error("closed"));
      });
      return () => (isOver = true);
    }
    if (lane === "frames") return this.#frames.post(body, sink);
    const giveUp = new Error("given up");
    this.#pools[lane].dispatch(
      { path: "/rpc", method: "POST", body, headers: { "content-type": "application/x-msgpack" } },
      {
        onRequestStart(started) {
          controller = started;
          if (isOver) started.abort(giveUp);
        },
        onResponseStart(_, statusCode) {
          if (!isOver) sink.status(statusCode);
        },
        onResponseData(_, piece) {
          if (!isOver) sink.data(piece);
        },
        onResponseEnd() {
          if (isOver) return;
          isOver = true;
          sink.end();
        },
        onResponseError(_, error) {
          if (isOver) return;
          isOver = true;
          sink.fail(error);
        },
      },
    );
    return () => {
      isOver = true;
      controller?.abort(giveUp);
    };
  }

  reconnect(lane: Lane, address: PeerAddress): void {
    if (this.#isClosed) return;
    this.#address = address;
    const error = new Error("the connection was given up");
    if (lane === "frames") {
      const before = this.#frames;
      this.#frames = this.#newFrames();
      before.destroy(error);
    } else {
      const before = this.#pools[lane];
      this.#pools[lane] = this.#newPool(lane);
      void before.destroy(error);
    }
  }

  /** New connections with the present credentials; what is under way ends on the old ones. */
  renew(): void {
    if (this.#isClosed) return;
    this.#frames.close();
    this.#frames = this.#newFrames();
    for (const lane of ["calls", "waits"] as const) {
      void this.#pools[lane].close();
      this.#pools[lane] = this.#newPool(lane);
    }
  }

  close(): void {
    this.#isClosed = true;
    const error = new Error("closed");
    this.#frames.destroy(error);
    for (const pool of Object.values(this.#pools)) void pool.destroy(error);
  }

  #newFrames(): FrameStream {
    const { origin, options } = this.#connecting();
    return new FrameStream(new Client(origin, options), CLIENT_KEEP_ALIVE_MS, this.#closed);
  }

  #newPool(lane: "calls" | "waits"): Dispatcher {
    const { origin, options } = this.#connecting();
    return new Pool(origin, { ...options, connections: CONNECTIONS_MAX[lane] });
  }

  #connecting(): { readonly origin: string; readonly options: Client.Options } {
    const { certificate, key, rootCertificate } = this.#credentials();
    const origin = originOf(this.#address);
    const secure: buildConnector.BuildOptions = {
      cert: certificate,
      key,
      ca: rootCertificate,
      minVersion: "TLSv1.3",
      allowH2: false,
      // A resumed session would skip the check of the certificate.
      maxCachedSessions: 0,
      timeout: CONNECT_TIMEOUT_MS,
      checkServerIdentity: (_, { raw }) => {
        try {
          this.#verify(raw);
          return undefined;
        } catch (thrown) {
          return thrown instanceof Error ? thrown : new RefusedError("the peer's certificate can't be read");
        }
      },
    };
    const options = {
      keepAliveTimeout: CLIENT_KEEP_ALIVE_MS,
      keepAliveMaxTimeout: CLIENT_KEEP_ALIVE_MS,
      // Each request has its own deadline.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: origin === undefined ? nowhere : secure,
    };
    return { origin: origin ?? NOWHERE, options };
  }
}

const NOWHERE = "https://nowhere.invalid";

const nowhere: buildConnector.connector = (_, callback) => {
  callback(new Error("its address has no valid host"), null);
};

/** Undefined where the host is none: addresses come from other members, and must not break who uses them. */
function originOf({ host, port }: PeerAddress): string | undefined {
  const origin = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  const url = URL.parse(origin);
  return url !== null && url.href === `${url.origin}/` ? origin : undefined;
}

/** @throws {RefusedError} the certificate doesn't speak for that member. */
export function requireMember(certificate: PeerCertificate, clusterId: string, nodeId?: string): void {
  const { role, name } = certificate;
  if (certificate.clusterId !== clusterId) {
    throw new RefusedError(
      `the server at this address belongs to cluster ${certificate.clusterId}, not ${clusterId}`,
    );
  }
  if (role !== "node" || (nodeId !== undefined && name !== nodeId)) {
    throw new RefusedError(
      `the server at this address is ${role} ${name}, not node ${nodeId ?? "of the cluster"}`,
    );
  }
}
