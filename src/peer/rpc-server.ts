/**
 * The receiving side of the fast link: a frame in, answers out as each is ready.
 *
 * It calls the same router as plain tRPC over HTTP does, without the Request,
 * Response and Headers objects that make up most of the cost there. What is
 * malformed, from elsewhere or too much is refused before anything is called.
 */
import { type AnyTRPCRouter, callTRPCProcedure } from "@trpc/server";
import {
  BusyError,
  ClusterError,
  DamagedError,
  RefusedError,
  StaleDataDirectoryError,
  TooLargeError,
  UnavailableError,
} from "../errors.ts";
import type { Log } from "../log.ts";
import {
  type Answer,
  type Call,
  DELIVER,
  type Delivery,
  deliveryOf,
  EARLIER_MAX,
  FRAME_BYTES_MAX,
  HELLO,
  type Head,
  helloAnswerSchema,
  helloSchema,
  type Message,
  type PeerSelf,
  packAnswer,
  packMessagesAnswer,
  packPreamble,
  readCalls,
  readHead,
  splitFrame,
  VERSION_MAJOR,
} from "./frame.ts";
import type { InstanceBook } from "./instance-book.ts";
import { pack } from "./msgpack.ts";
import type { PeerContext } from "./router.ts";
import type { PeerAddress, PeerSender } from "./transport.ts";
import { expectedError, toWire } from "./wire-error.ts";

/** Of one peer, without an answer yet: calls, and those that wait for long. */
const CONCURRENT_CALLS_MAX = 1024 + 2048;
const NOTED_MAX = 1000;

/** What it remembers of the cluster is not of it any more. */
function removed(): StaleDataDirectoryError {
  return new StaleDataDirectoryError(
    "this server was removed from the cluster; start it with --as-new, as a new node",
  );
}

/** For whom the certificate of a connection speaks, as TLS verified it. */
export interface PeerCertificate {
  readonly role: "node" | "join" | "edge";
  readonly name: string;
  readonly clusterId: string;
}

/** One connection, as long as it lasts. */
export class Connection {
  readonly certificate: PeerCertificate;
  readonly remoteHost: string;
  /** The head seen last and what it said: parsed again only when it changes. */
  headBytes: Buffer | undefined;
  sender: PeerSender | undefined;

  /** @throws {RefusedError} the certificate is for an edge: it must not pass for a member or a joiner. */
  constructor(certificate: PeerCertificate, remoteHost: string) {
    if (certificate.role === "edge")
      throw new RefusedError("an edge's certificate is not for speaking to peers");
    this.certificate = certificate;
    this.remoteHost = remoteHost;
  }
}

/** Where frames of messages end. */
export interface Delivering {
  /** Acts on them at once. */
  take(from: PeerSender, messages: readonly Message[]): void;
  /** Calls `act` when this member has heard the answer to its frame `number` to that node, or gives it up. */
  afterFrame(nodeId: string, number: number, act: () => void): void;
  /** Messages for that node, packed, to travel with the answer to its frame `number`. */
  takeForAnswer(nodeId: string, number: number): Buffer[];
}

/** How a response gets back. */
export interface Reply {
  /** The whole response is a refusal. */
  refuse(status: number, body: Buffer): void;
  /** A part of the answers; the first part opens the response. */
  write(part: Buffer): void;
  /** The last part. */
  end(part: Buffer): void;
}

/** The sender has not shown its instances yet, or started anew since: it does so, and repeats the frame. */
export const STATUS_INTRODUCE = 428;

/** What was refused since the start. */
export interface RefusalCounts {
  malformed: number;
  refused: number;
  busy: number;
}

export class RpcServer {
  readonly #router: AnyTRPCRouter;
  readonly #self: PeerSelf;
  readonly #book: InstanceBook;
  readonly #log: Log;
  readonly #delivering: Delivering;
  readonly #address: () => PeerAddress;
  readonly #preamble: Buffer;
  /** Calls that run now, by certificate name; no entry where there are none. */
  readonly #running = new Map<string, number>();
  /** What was logged once and won't be again. */
  readonly #noted = new Set<string>();
  readonly counts: RefusalCounts = { malformed: 0, refused: 0, busy: 0 };

  constructor(options: {
    readonly router: AnyTRPCRouter;
    readonly self: PeerSelf;
    readonly book: InstanceBook;
    readonly log: Log;
    readonly delivering: Delivering;
    /** Where this member listens, for others. */
    readonly address: () => PeerAddress;
  }) {
    this.#router = options.router;
    this.#self = options.self;
    this.#book = options.book;
    this.#log = options.log;
    this.#delivering = options.delivering;
    this.#address = options.address;
    this.#preamble = packPreamble(options.self.instance);
  }

  /**
   * Answers one frame. Never throws; `frame` may be any bytes.
   *
   * @param gone its signal is aborted when nobody waits for the response any more; made only where it is needed.
   */
  receive(connection: Connection, frame: Buffer, reply: Reply, gone: () => AbortSignal): void {
    let calls: Call[];
    let context: PeerContext;
    try {
      const parts = splitFrame(frame);
      const sender = this.#sender(connection, parts.head);
      calls = readCalls(parts.calls);
      this.requireMember(connection.certificate);
      const isNode = connection.certificate.role === "node";
      if (isNode && calls.length === 1 && calls[0]![0] === HELLO) {
        reply.end(Buffer.concat([this.#preamble, packAnswer(this.#hello(sender, calls[0]![1]))]));
        return;
      }
      if (isNode && !this.#book.isCurrent(sender)) {
        reply.refuse(STATUS_INTRODUCE, Buffer.alloc(0));
        return;
      }
      if (isNode && calls.length === 1 && calls[0]![0] === DELIVER) {
        const delivery = deliveryOf(calls[0]![1]);
        if (delivery !== undefined) {
          this.#deliver(sender, delivery, reply);
          return;
        }
      }
      context = { sender, role: isNode ? "node" : "join", isIntroduced: isNode };
    } catch (thrown) {
      this.#refuse(connection, thrown, reply);
      return;
    }
    this.#answer(connection, calls, context, reply, gone());
  }

  /**
   * The short way to the router's `deliver`, which all checks lie before. What the
   * messages give rise to for their sender goes back with the answer.
   */
  #deliver(from: PeerSender, [number, after, messages]: Delivery, reply: Reply): void {
    this.#delivering.afterFrame(from.nodeId, after, () => {
      this.#delivering.take(from, messages);
      const given = this.#delivering.takeForAnswer(from.nodeId, number);
      reply.end(Buffer.concat([this.#preamble, packMessagesAnswer(given)]));
    });
  }

  /** Logs `event` the first time that it happens with this `key`. */
  note(key: string, event: string, fields: object): void {
    if (this.#noted.has(key) || this.#noted.size >= NOTED_MAX) return;
    this.#noted.add(key);
    this.#log.warn(event, fields);
  }

  #sender(connection: Connection, bytes: Buffer): PeerSender {
    if (connection.sender !== undefined && connection.headBytes?.equals(bytes)) return connection.sender;
    const head = readHead(bytes);
    const { certificate } = connection;
    this.#checkHead(head, certificate);
    const sender =
      certificate.role === "join"
        ? {
            nodeId: certificate.name,
            address: { host: connection.remoteHost, port: 0 },
            incarnation: 0,
            instance: "",
          }
        : {
            nodeId: certificate.name,
            address: head.address,
            incarnation: head.incarnation,
            instance: head.instance,
          };
    connection.headBytes = Buffer.from(bytes);
    connection.sender = sender;
    return sender;
  }

  #checkHead(head: Head, certificate: PeerCertificate): void {
    const foreign = [head.clusterId, certificate.clusterId].find((id) => id !== this.#self.clusterId);
    if (foreign !== undefined) {
      throw new RefusedError(`this is cluster ${this.#self.clusterId}, the sender belongs to ${foreign}`);
    }
    if (head.version[0] !== VERSION_MAJOR) {
      throw new RefusedError(
        `this member speaks version ${VERSION_MAJOR} of the protocol, the sender ${head.version[0]}; upgrade the older one`,
      );
    }
    if (certificate.role === "node" && head.from !== certificate.name) {
      throw new RefusedError("the sender's certificate names another node than its frame");
    }
  }

  #hello(sender: PeerSender, input: unknown): Answer {
    const parsed = helloSchema.safeParse(input);
    if (!parsed.success) throw new DamagedError("a hello has not the right shape", { cause: parsed.error });
    if (this.#book.present(sender, parsed.data.earlier) === "stale") {
      throw new StaleDataDirectoryError(
        "the data directory is an old copy: members have seen a later start of this node; " +
          "start it with --as-new, as a new node",
      );
    }
    const { nodeId, incarnation, instance, earlierInstances } = this.#self;
    const earlier = earlierInstances.slice(0, EARLIER_MAX);
    const address = this.#address();
    return [0, 0, helloAnswerSchema.parse({ nodeId, incarnation, instance, address, earlier })];
  }

  /** Also for whoever comes by another way than a frame. @throws {StaleDataDirectoryError} */
  requireMember(certificate: PeerCertificate): void {
    if (certificate.role === "node" && this.#book.isRemoved(certificate.name)) throw removed();
  }

  #refuse(connection: Connection, thrown: unknown, reply: Reply): void {
    const error =
      thrown instanceof ClusterError ? thrown : new DamagedError("a frame can't be read", { cause: thrown });
    if (error instanceof DamagedError) this.counts.malformed++;
    else this.counts.refused++;
    const { role, name, clusterId } = connection.certificate;
    this.note(`${error.code} ${clusterId} ${name} ${error.message}`, "peer refused", {
      code: error.code,
      reason: error.message,
      peer: name,
      role,
      peerCluster: clusterId,
    });
    reply.refuse(error instanceof DamagedError ? 400 : 403, pack(toWire(error)));
  }

  #answer(
    connection: Connection,
    calls: readonly Call[],
    context: PeerContext,
    reply: Reply,
    signal: AbortSignal,
  ): void {
    let open = calls.length;
    let opened = false;
    let isScheduled = false;
    let ready: Buffer[] = [];
    const part = () => {
      const bytes = opened ? ready : [this.#preamble, ...ready];
      opened = true;
      ready = [];
      return bytes.length === 1 ? bytes[0]! : Buffer.concat(bytes);
    };
    const settle = (answer: Answer) => {
      ready.push(this.#packed(answer));
      open--;
      if (open === 0) reply.end(part());
      else if (!isScheduled) {
        // What gets ready in one turn goes out together; what is slow keeps nobody waiting.
        isScheduled = true;
        setImmediate(() => {
          isScheduled = false;
          if (open > 0 && ready.length > 0) reply.write(part());
        });
      }
    };
    if (open === 0) reply.end(part());
    calls.forEach((call, index) => {
      void this.#call(connection.certificate.name, call, context, signal).then(
        (output) => settle([index, 0, output]),
        (thrown: unknown) => settle([index, 1, toWire(this.#failure(call[0], thrown))]),
      );
    });
  }

  async #call(peer: string, [path, input]: Call, ctx: PeerContext, signal: AbortSignal): Promise<unknown> {
    const running = this.#running.get(peer) ?? 0;
    if (running >= CONCURRENT_CALLS_MAX) {
      this.counts.busy++;
      throw new BusyError("the number of calls of one member at once", 50);
    }
    this.#running.set(peer, running + 1);
    try {
      return await callTRPCProcedure({
        router: this.#router,
        path,
        type: "mutation",
        ctx,
        getRawInput: async () => input,
        signal,
        batchIndex: 0,
      });
    } finally {
      const left = this.#running.get(peer)! - 1;
      if (left === 0) this.#running.delete(peer);
      else this.#running.set(peer, left);
    }
  }

  #failure(path: string, thrown: unknown): ClusterError {
    const expected = expectedError(thrown);
    if (expected !== undefined) return expected;
    this.#log.error("peer call failed", { procedure: path, error: thrown });
    return new UnavailableError(`${path} failed at the member that was asked; its log tells why`);
  }

  #packed(answer: Answer): Buffer {
    let packed: Buffer;
    try {
      packed = packAnswer(answer);
    } catch (thrown) {
      return packAnswer([answer[0], 1, toWire(this.#failure("an answer", thrown))]);
    }
    if (packed.length <= FRAME_BYTES_MAX) return packed;
    return packAnswer([
      answer[0],
      1,
      toWire(new TooLargeError(`an answer of ${packed.length} bytes is too large`)),
    ]);
  }
}
