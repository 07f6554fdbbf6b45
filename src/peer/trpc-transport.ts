/**
 * The transport between servers: tRPC procedures over HTTPS with mutual TLS 1.3.
 *
 * `POST /rpc` is the fast link, and `/rpc` upgraded the lane for messages; `/trpc/…` is the stock tRPC handler over the same
 * router, for people with curl. Who speaks is read from the certificate, once per
 * connection, never from the message.
 */

import { constants } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server, type ServerOptions } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type AnyTRPCRouter, TRPCError } from "@trpc/server";
import { createHTTPHandler } from "@trpc/server/adapters/standalone";
import { RefusedError, UsageError } from "../errors.ts";
import { meaningOfDistrust } from "./distrust.ts";
import { FRAME_BYTES_MAX } from "./frame.ts";
import { answerFrames, FRAMES_PROTOCOL } from "./frame-stream.ts";
import { CLIENT_KEEP_ALIVE_MS, type Credentials, HttpsExchange, requireMember } from "./https-exchange.ts";
import { PeerTransport, type PeerTransportOptions } from "./peer-transport.ts";
import type { PeerContext } from "./router.ts";
import { Connection, type PeerCertificate, type Reply, type RpcServer } from "./rpc-server.ts";
import type { PeerAddress, PeerHandlers, PeerRef, ProcedureMap } from "./transport.ts";

/** A server that has not joined has little to say. */
const JOIN_FRAME_BYTES_MAX = 64 * 1024;
const CONNECTIONS_MAX = 4096;
const KEEP_ALIVE_MS = CLIENT_KEEP_ALIVE_MS + 15_000;

export interface TransportCounts {
  /** Frames and messages that can't be read. */
  readonly malformed: number;
  /** Connections and frames of those who may not speak here. */
  readonly refused: number;
  /** Calls past the bound of calls at once. */
  readonly busy: number;
  /** Messages of kinds that this version doesn't know. */
  readonly unsupported: number;
  /** Messages that never left this server. */
  readonly dropped: number;
}

export class TrpcTransport<Messages extends object, Procedures extends ProcedureMap> extends PeerTransport<
  Messages,
  Procedures,
  HttpsExchange
> {
  readonly #bind: PeerAddress;
  readonly #advertise: PeerAddress | undefined;
  readonly #identify: (certificate: Uint8Array) => PeerCertificate;
  readonly #connections = new WeakMap<TLSSocket, Connection>();
  #credentials: Credentials;
  #server: Server | undefined;
  /** All that were accepted: those in their handshake, and those for frames, the server does not count among its own. */
  readonly #sockets = new Set<Socket>();
  /** Connections that TLS or the certificate's name turned away. */
  #turnedAway = 0;

  /**
   * @param options.bind port 0: any free one.
   * @param options.advertise what peers are told to connect to; the bound address when left out.
   * @param options.identify reads a verified certificate (DER); throws when it speaks for nobody.
   */
  constructor(
    options: PeerTransportOptions<Messages, Procedures> & {
      readonly bind: PeerAddress;
      readonly advertise?: PeerAddress | undefined;
      readonly credentials: Credentials;
      readonly identify: (certificate: Uint8Array) => PeerCertificate;
    },
  ) {
    super(options, options.advertise ?? options.bind);
    this.#bind = options.bind;
    this.#advertise = options.advertise;
    this.#credentials = options.credentials;
    this.#identify = options.identify;
  }

  get counts(): TransportCounts {
    return {
      malformed: (this.rpc?.counts.malformed ?? 0) + (this.deliveries?.counts.malformed ?? 0),
      refused: (this.rpc?.counts.refused ?? 0) + this.#turnedAway,
      busy: this.rpc?.counts.busy ?? 0,
      unsupported: this.deliveries?.counts.unsupported ?? 0,
      dropped: this.lines.dropped,
    };
  }

  /** @throws {UsageError} the port can't be bound; says why. */
  async listen(handlers: PeerHandlers<Messages, Procedures>): Promise<PeerAddress> {
    const { router, rpc } = this.take(handlers);
    const stock = createHTTPHandler<AnyTRPCRouter>({
      router,
      basePath: "/trpc/",
      maxBodySize: FRAME_BYTES_MAX,
      allowBatching: false,
      createContext: async ({ req }) => this.#stockContext(req),
    });
    const server = createServer(
      {
        ...tlsOptions(this.#credentials),
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ["http/1.1"],
        handshakeTimeout: 5000,
        keepAliveTimeout: KEEP_ALIVE_MS,
        headersTimeout: 10_000,
        requestTimeout: 30_000,
        maxHeaderSize: 8192,
        noDelay: true,
      },
      (request, response) => {
        if (request.method === "POST" && request.url === "/rpc") this.#receive(rpc, request, response);
        else if (request.url?.startsWith("/trpc/")) stock(request, response);
        else response.writeHead(404).end();
      },
    );
    server.maxConnections = CONNECTIONS_MAX;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("tlsClientError", (error, socket) => {
      this.#turnedAway++;
      // A certificate that fails here ends the connection; the error then says no more than that it has ended.
      const code = String(socket.authorizationError ?? ("code" in error ? error.code : ""));
      const from = socket.remoteAddress;
      const reason = meaningOfDistrust(code);
      if (reason !== undefined) {
        rpc.note(`distrust ${from} ${reason}`, "peer refused", { from, reason, code });
      } else if (code === "ECONNRESET") {
        // Who finds this server's certificate wrong says so in its own log only.
        rpc.note("hang up", "peer connection broken off", {
          reason:
            "whoever it was hung up in the handshake: it gave up waiting, is a server of another cluster, or probes the port",
        });
      } else this.log.debug("peer connection failed", { from, code, reason: error.message });
    });
    server.on("upgrade", (request, socket, rest) => this.#upgrade(rpc, request, socket, rest));
    server.on("clientError", (_, socket) => socket.destroy());
    this.#server = server;
    server.listen(this.#bind.port, this.#bind.host);
    try {
      await once(server, "listening");
    } catch (cause) {
      const { host, port } = this.#bind;
      throw new UsageError(
        `${host}:${port} can't be bound: ${cause instanceof Error ? cause.message : ""}; choose another --peer-port`,
        { cause },
      );
    }
    const bound = server.address();
    const port = bound !== null && typeof bound === "object" ? bound.port : this.#bind.port;
    this.lines.address = this.#advertise ?? { host: this.#bind.host, port };
    return { host: this.#bind.host, port };
  }

  /** New connections, both ways, use these credentials from now on; those that stand go on. */
  renew(credentials: Credentials): void {
    this.#credentials = credentials;
    this.#server?.setSecureContext(tlsOptions(credentials));
    for (const exchange of this.lines.exchanges) exchange.renew();
  }

  async close(): Promise<void> {
    this.lines.close();
    const server = this.#server;
    if (server === undefined) return;
    const closed = server.listening ? once(server, "close") : undefined;
    server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  protected exchangeTo(peer: PeerRef): HttpsExchange {
    return new HttpsExchange({
      address: peer.address,
      credentials: () => this.#credentials,
      verify: (certificate) => requireMember(this.#identify(certificate), this.self.clusterId, peer.nodeId),
      closed: () => this.handlers?.closed(peer.nodeId),
    });
  }

  /** The connection that `socket` is, or undefined when its certificate speaks for nobody who may connect. */
  #connectionOf(socket: unknown): Connection | undefined {
    if (!(socket instanceof TLSSocket)) return undefined;
    const known = this.#connections.get(socket);
    if (known !== undefined) return known;
    const certificate = socket.getPeerCertificate();
    try {
      const connection = new Connection(this.#identify(certificate.raw), socket.remoteAddress ?? "");
      this.#connections.set(socket, connection);
      return connection;
    } catch (thrown) {
      this.#turnedAway++;
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      this.rpc?.note(`identity ${reason}`, "peer refused", { reason });
      return undefined;
    }
  }

  #receive(rpc: RpcServer, request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#connectionOf(request.socket);
    if (connection === undefined) {
      response.writeHead(403, { connection: "close" }).end();
      return;
    }
    const bytesMax = connection.certificate.role === "join" ? JOIN_FRAME_BYTES_MAX : FRAME_BYTES_MAX;
    let pieces: Buffer[] = [];
    let bytes = 0;
    const tooLarge = () => {
      pieces = [];
      rpc.counts.malformed++;
      // What else is under way is not read: the connection ends with this response.
      response.writeHead(413, { connection: "close" }).end();
      request.removeAllListeners("data");
      request.on("error", () => {});
      response.once("finish", () => request.socket.destroySoon());
    };
    if (Number(request.headers["content-length"] ?? 0) > bytesMax) {
      tooLarge();
      return;
    }
    request.on("data", (piece: Buffer) => {
      bytes += piece.length;
      if (bytes > bytesMax) tooLarge();
      else pieces.push(piece);
    });
    request.on("end", () => {
      if (bytes > bytesMax) return;
      const frame = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
      pieces = [];
      rpc.receive(connection, frame, replyBy(response), () => signalOf(response));
    });
    request.on("error", () => {
      pieces = []; // The sender hung up; it knows.
    });
  }

  #upgrade(rpc: RpcServer, request: IncomingMessage, socket: Duplex, rest: Buffer): void {
    const connection = this.#connectionOf(request.socket);
    const isMember = connection?.certificate.role === "node";
    const isRight = request.url === "/rpc" && request.headers.upgrade === FRAMES_PROTOCOL;
    if (!isMember || !isRight) {
      const status = isMember ? "404 Not Found" : "403 Forbidden";
      socket.on("error", () => {});
      socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${FRAMES_PROTOCOL}\r\n\r\n`,
    );
    if (rest.length > 0) socket.unshift(rest);
    answerFrames(socket, {
      bytesMax: FRAME_BYTES_MAX,
      idleMsMax: KEEP_ALIVE_MS,
      receive: (frame, reply, gone) => rpc.receive(connection, frame, reply, gone),
      malformed: () => rpc.counts.malformed++,
    });
  }

  /** Without a head nobody has shown its instances: enough for questions, not for messages. */
  #stockContext(request: IncomingMessage): PeerContext {
    const connection = this.#connectionOf(request.socket);
    if (connection === undefined || connection.certificate.clusterId !== this.self.clusterId) {
      const cause = new RefusedError("the certificate is not of this cluster");
      throw new TRPCError({ code: "UNAUTHORIZED", cause });
    }
    const { certificate, remoteHost } = connection;
    try {
      this.rpc?.requireMember(certificate);
    } catch (cause) {
      throw new TRPCError({ code: "UNAUTHORIZED", cause });
    }
    return {
      sender: {
        nodeId: certificate.name,
        address: { host: remoteHost, port: 0 },
        incarnation: 0,
        instance: "",
      },
      role: certificate.role === "node" ? "node" : "join",
      isIntroduced: false,
    };
  }
}

function tlsOptions({ certificate, key, rootCertificate }: Credentials): ServerOptions {
  return {
    cert: certificate,
    key,
    ca: rootCertificate,
    minVersion: "TLSv1.3",
    // A resumed session would outlive the certificate that it began with.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** Aborted when `response` ends before it is finished. */
function signalOf(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.on("close", () => {
    if (!response.writableFinished) gone.abort();
  });
  return gone.signal;
}

const CONTENT_TYPE = "application/x-msgpack";

function replyBy(response: ServerResponse): Reply {
  return {
    refuse(status, body) {
      response.writeHead(status, { "content-type": CONTENT_TYPE, "content-length": body.length }).end(body);
    },
    write(part) {
      if (!response.headersSent) response.writeHead(200, { "content-type": CONTENT_TYPE });
      response.write(part);
    },
    end(part) {
      if (!response.headersSent) {
        response.writeHead(200, { "content-type": CONTENT_TYPE, "content-length": part.length });
      }
      response.end(part);
    },
  };
}
