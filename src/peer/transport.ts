/**
 * How members reach one another. `send` is for the protocols, which repeat what
 * is lost; `call` is for questions that one caller waits for.
 *
 * Messages are typed by the assembly: `Messages` maps a channel to its one-way
 * message, `Procedures` a procedure's name to its input and output.
 */

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
}

/** Whom to reach. The certificate at `address` must name `nodeId`, else the connection is refused. */
export interface PeerRef {
  readonly nodeId: string;
  readonly address: PeerAddress;
}

/** Who speaks: the node id is taken from the certificate, the rest from the frame's head. */
export interface PeerSender extends PeerRef {
  readonly incarnation: number;
  readonly instance: string;
}

export type ProcedureMap = Record<string, { readonly input: unknown; readonly output: unknown }>;

export interface PeerHandlers<Messages extends object, Procedures extends ProcedureMap> {
  /** Must not throw; each message was parsed with its channel's schema. */
  message<C extends keyof Messages>(from: PeerSender, channel: C, message: Messages[C]): void;
  /** A thrown ClusterError reaches the caller as the same class; anything else as UnavailableError, and is logged. */
  call<P extends keyof Procedures>(
    from: PeerSender,
    procedure: P,
    input: Procedures[P]["input"],
  ): Promise<Procedures[P]["output"]>;
  /** A connection to this peer was refused: nothing listens there. */
  refused(nodeId: string): void;
  /** The connection for messages to this peer ended, and not by this side's will. */
  closed(nodeId: string): void;
}

export interface CallOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** It is answered when something happens, perhaps much later: other calls are not to wait behind it. */
  readonly isWait?: boolean | undefined;
}

export interface Transport<Messages extends object, Procedures extends ProcedureMap> {
  /** What arrives goes to `handlers` from now on. Resolves when the port is bound; returns the bound address. */
  listen(handlers: PeerHandlers<Messages, Procedures>): Promise<PeerAddress>;

  /**
   * Best effort, at most once, in order for a peer while its connection lasts.
   * All messages to one peer of one turn, and those that arise while a frame is
   * under way, travel as one frame. Past its bound the oldest are dropped.
   */
  send<C extends keyof Messages>(to: PeerRef, channel: C, message: Messages[C]): void;

  /**
   * @throws {UnavailableError} no answer within `timeoutMs`, or no connection.
   * @throws {ClusterError} what the peer's handler threw, as the same class.
   */
  call<P extends keyof Procedures>(
    to: PeerRef,
    procedure: P,
    input: Procedures[P]["input"],
    options: CallOptions,
  ): Promise<Procedures[P]["output"]>;

  close(): Promise<void>;
}
