/** Members for the tests of this folder: two channels, three procedures, certificates of one cluster. */
import { z } from "zod";
import {
  type Authority,
  createAuthority,
  createKeyPair,
  issueCertificate,
  readCertificate,
} from "../../src/identity/certificate-authority.ts";
import type { Log } from "../../src/log.ts";
import type { PeerSelf } from "../../src/peer/frame.ts";
import type { Credentials } from "../../src/peer/https-exchange.ts";
import { InstanceBook } from "../../src/peer/instance-book.ts";
import { MemoryNetwork, MemoryTransport } from "../../src/peer/memory-transport.ts";
import type { PeerSchemas } from "../../src/peer/router.ts";
import type { PeerAddress, PeerHandlers, PeerSender, Transport } from "../../src/peer/transport.ts";
import { TrpcTransport } from "../../src/peer/trpc-transport.ts";

export const messageSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("ping"), n: z.int(), note: z.string().optional() }),
  z.object({ kind: z.literal("blob"), bytes: z.instanceof(Uint8Array) }),
]);
export type Message = z.output<typeof messageSchema>;
export type Messages = { ring: Message; replication: Message };

export type Procedures = {
  operate: { input: { kind: "echo"; value: unknown } | { kind: "slow"; name: string }; output: unknown };
  status: { input: null; output: { ok: boolean } };
  putBlob: { input: { bytes: Uint8Array }; output: number };
  join: { input: { publicKey: string }; output: { welcome: string } };
};

export const schemas: PeerSchemas<Messages, Procedures> = {
  messages: { ring: messageSchema, replication: messageSchema },
  procedures: {
    operate: {
      input: z.discriminatedUnion("kind", [
        z.object({ kind: z.literal("echo"), value: z.unknown() }),
        z.object({ kind: z.literal("slow"), name: z.string() }),
      ]),
      output: z.unknown(),
    },
    status: { input: z.null(), output: z.object({ ok: z.boolean() }) },
    putBlob: { input: z.object({ bytes: z.instanceof(Uint8Array) }), output: z.int() },
    join: { input: z.object({ publicKey: z.string() }), output: z.object({ welcome: z.string() }) },
  },
};

export interface Received {
  readonly from: PeerSender;
  readonly channel: keyof Messages;
  readonly message: Message;
}

/** What one member got, and waits for what it will get. */
export class Inbox {
  readonly received: Received[] = [];
  readonly refused: string[] = [];
  readonly closed: string[] = [];
  readonly #waiting: { done: () => boolean; resolve: () => void }[] = [];

  handlers(call?: PeerHandlers<Messages, Procedures>["call"]): PeerHandlers<Messages, Procedures> {
    return {
      message: (from, channel, message) => {
        this.received.push({ from, channel, message });
        this.#wake();
      },
      call: call ?? (async (_from, _procedure, input) => input),
      refused: (nodeId) => {
        this.refused.push(nodeId);
        this.#wake();
      },
      closed: (nodeId) => {
        this.closed.push(nodeId);
        this.#wake();
      },
    };
  }

  /** The numbers of the pings so far. */
  get pings(): number[] {
    return this.received.flatMap(({ message }) => (message.kind === "ping" ? [message.n] : []));
  }

  until(done: () => boolean): Promise<void> {
    if (done()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ done, resolve }));
  }

  #wake(): void {
    for (const waiting of this.#waiting) if (waiting.done()) waiting.resolve();
  }
}

export class Lines implements Log {
  readonly lines: { level: string; event: string; fields: object | undefined }[] = [];
  debug(event: string, fields?: object): void {
    this.lines.push({ level: "debug", event, fields });
  }
  info(event: string, fields?: object): void {
    this.lines.push({ level: "info", event, fields });
  }
  warn(event: string, fields?: object): void {
    this.lines.push({ level: "warn", event, fields });
  }
  error(event: string, fields?: object): void {
    this.lines.push({ level: "error", event, fields });
  }
  child(): Log {
    return this;
  }
}

export const nodeId = (digit: string): string => digit.repeat(40);

export function selfOf(digit: string, more: Partial<PeerSelf> = {}): PeerSelf {
  return {
    clusterId: "testcluster",
    nodeId: nodeId(digit),
    incarnation: 1,
    instance: `${digit}000000000000001`,
    earlierInstances: [],
    ...more,
  };
}

export interface Party {
  readonly transport: Transport<Messages, Procedures>;
  readonly self: PeerSelf;
  readonly inbox: Inbox;
  readonly log: Lines;
  readonly stale: string[];
  readonly book: InstanceBook;
}

/** Where parties live: sockets or memory. */
export interface World {
  party(self: PeerSelf, book?: InstanceBook, port?: number): Promise<Party>;
}

export class MemoryWorld implements World {
  readonly network = new MemoryNetwork(() => 0.5);

  async party(self: PeerSelf, book = new InstanceBook(), port = 0): Promise<Party> {
    const log = new Lines();
    const stale: string[] = [];
    const transport = new MemoryTransport<Messages, Procedures>({
      network: this.network,
      self,
      port,
      schemas,
      book,
      log,
      stale: (by) => stale.push(by),
    });
    return { transport, self, inbox: new Inbox(), log, stale, book };
  }
}

export class SocketWorld implements World {
  readonly authority: Authority;

  private constructor(authority: Authority) {
    this.authority = authority;
  }

  static async create(clusterId = "testcluster"): Promise<SocketWorld> {
    return new SocketWorld(await createAuthority(clusterId, Date.now()));
  }

  async credentials(
    name: string,
    role: "node" | "join" | "edge" = "node",
    lifetimeMs?: number,
  ): Promise<Credentials> {
    const pair = createKeyPair();
    const certificate = await issueCertificate(this.authority, {
      role,
      name,
      hosts: ["127.0.0.1"],
      publicKey: pair.publicKey,
      nowMs: Date.now(),
      ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
    });
    return { certificate, key: pair.privateKey, rootCertificate: this.authority.rootCertificate };
  }

  async party(
    self: PeerSelf,
    book = new InstanceBook(),
    port = 0,
  ): Promise<Party & { readonly transport: TrpcTransport<Messages, Procedures> }> {
    const log = new Lines();
    const stale: string[] = [];
    const transport = new TrpcTransport<Messages, Procedures>({
      self,
      bind: { host: "127.0.0.1", port },
      credentials: await this.credentials(self.nodeId),
      identify: readCertificate,
      schemas,
      book,
      log,
      stale: (by) => stale.push(by),
    });
    return { transport, self, inbox: new Inbox(), log, stale, book };
  }
}

/** The address of `party` for others; binds it first. */
export async function open(
  party: Party,
  call?: PeerHandlers<Messages, Procedures>["call"],
): Promise<PeerAddress> {
  return party.transport.listen(party.inbox.handlers(call));
}
