/**
 * The lane for frames of messages: an HTTP connection that was upgraded (RFC 9110,
 * 7.8), because headers and a request object per frame cost several times what
 * most frames hold. One frame at a time, each followed by its answer.
 *
 *     frame    [u32 length][frame]
 *     answer   [u32 length][u16 status][body]     status as of HTTP
 */
import type { Duplex } from "node:stream";
import type { Client } from "undici";
import { DamagedError } from "../errors.ts";
import type { Sink } from "./exchange.ts";
import { FRAME_BYTES_MAX } from "./frame.ts";
import type { Reply } from "./rpc-server.ts";

/** What the connection is upgraded to. */
export const FRAMES_PROTOCOL = "orbweaver-frames";

/** The side that sends frames. Connects at the first one, and again after a connection ended. */
export class FrameStream {
  readonly #client: Client;
  readonly #idleMsMax: number;
  readonly #closed: () => void;
  #socket: Duplex | undefined;
  #isConnecting = false;
  #underWay: { readonly sink: Sink; readonly frame: Buffer } | undefined;
  #isClosing = false;
  #reader = new LengthReader(FRAME_BYTES_MAX);

  /**
   * @param client connects to the peer and verifies it; this stream's own.
   * @param closed a connection that stood has ended, and not because it was destroyed or closed here.
   */
  constructor(client: Client, idleMsMax: number, closed: () => void) {
    this.#client = client;
    this.#idleMsMax = idleMsMax;
    this.#closed = closed;
  }

  /** As Exchange.post. Not while another frame is under way. */
  post(frame: Buffer, sink: Sink): () => void {
    const underWay = { sink, frame };
    this.#underWay = underWay;
    if (this.#socket !== undefined) this.#write(this.#socket, frame);
    else if (!this.#isConnecting) this.#connect();
    return () => {
      if (this.#underWay !== underWay) return;
      this.#underWay = undefined;
      // Its answer would be taken for that of the next one.
      this.#socket?.destroy();
      this.#socket = undefined;
    };
  }

  /** What is under way fails. */
  destroy(error: Error): void {
    this.#isClosing = true;
    this.#lost(error);
    void this.#client.destroy(error);
  }

  /** What is under way is answered first. */
  close(): void {
    this.#isClosing = true;
    if (this.#underWay === undefined) this.destroy(new Error("closed"));
  }

  #connect(): void {
    this.#isConnecting = true;
    this.#client.upgrade({ path: "/rpc", method: "GET", protocol: FRAMES_PROTOCOL }, (error, upgraded) => {
      this.#isConnecting = false;
      if (error !== null) this.#lost(error);
      else if (this.#isClosing && this.#underWay === undefined) upgraded.socket.destroy();
      else this.#connected(upgraded.socket);
    });
  }

  #connected(socket: Duplex): void {
    this.#socket = socket;
    this.#reader = new LengthReader(FRAME_BYTES_MAX);
    const lost = (error: Error) => {
      socket.destroy();
      if (this.#socket !== socket) return;
      this.#lost(error);
      if (!this.#isClosing) this.#closed();
    };
    socket.on("data", (piece: Buffer) => {
      if (this.#socket !== socket) return;
      try {
        const answer = this.#reader.read(piece);
        if (answer !== undefined) this.#answered(answer);
      } catch (thrown) {
        lost(thrown instanceof Error ? thrown : new Error(String(thrown)));
      }
    });
    socket.on("error", lost);
    socket.on("close", () => lost(new Error("the connection was closed")));
    socket.on("end", () => lost(new Error("the connection was ended")));
    closeWhenIdle(socket, this.#idleMsMax);
    if (this.#underWay !== undefined) this.#write(socket, this.#underWay.frame);
  }

  #write(socket: Duplex, frame: Buffer): void {
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(frame.length);
    socket.write(Buffer.concat([length, frame]));
  }

  #answered(answer: Buffer): void {
    if (answer.length < 2 || this.#underWay === undefined) throw new DamagedError("an answer has no status");
    const { sink } = this.#underWay;
    this.#underWay = undefined;
    if (this.#isClosing) this.destroy(new Error("closed"));
    sink.status(answer.readUInt16BE(0));
    sink.data(answer.subarray(2));
    sink.end();
  }

  #lost(error: Error): void {
    const underWay = this.#underWay;
    this.#underWay = undefined;
    this.#socket?.destroy();
    this.#socket = undefined;
    if (underWay !== undefined) queueMicrotask(() => underWay.sink.fail(error));
  }
}

/**
 * The side that answers frames, on an upgraded connection.
 *
 * @param options.receive answers one frame; `gone` is aborted when the connection ends before the answer.
 * @param options.malformed the connection does not keep to the form, and is ended for it.
 */
export function answerFrames(
  socket: Duplex,
  options: {
    readonly bytesMax: number;
    readonly idleMsMax: number;
    receive(frame: Buffer, reply: Reply, gone: () => AbortSignal): void;
    malformed(): void;
  },
): void {
  const reader = new LengthReader(options.bytesMax);
  let isAnswering = false;
  const answer = (status: number, parts: readonly Buffer[]) => {
    isAnswering = false;
    const head = Buffer.allocUnsafe(6);
    head.writeUInt32BE(2 + parts.reduce((sum, { length }) => sum + length, 0));
    head.writeUInt16BE(status, 4);
    socket.write(Buffer.concat([head, ...parts]));
  };
  const giveUp = () => {
    options.malformed();
    answer(413, []);
    socket.destroy();
  };
  socket.on("data", (piece: Buffer) => {
    let frame: Buffer | undefined;
    try {
      if (isAnswering) throw new DamagedError("a frame came before the one before it was answered");
      frame = reader.read(piece);
    } catch {
      giveUp();
      return;
    }
    if (frame === undefined) return;
    isAnswering = true;
    options.receive(frame, replyBy(answer, giveUp), () => signalOf(socket));
  });
  socket.on("error", () => socket.destroy());
  socket.on("end", () => socket.destroy());
  closeWhenIdle(socket, options.idleMsMax);
}

function replyBy(answer: (status: number, parts: readonly Buffer[]) => void, giveUp: () => void): Reply {
  const parts: Buffer[] = [];
  let bytes = 0;
  const add = (part: Buffer) => {
    bytes += part.length;
    if (bytes <= FRAME_BYTES_MAX) parts.push(part);
  };
  return {
    refuse: (status, body) => answer(status, [body]),
    write: add,
    end: (part) => {
      add(part);
      // Of what a lone call of a member's messages is answered with this is never true.
      if (bytes > FRAME_BYTES_MAX) giveUp();
      else answer(200, parts);
    },
  };
}

function signalOf(socket: Duplex): AbortSignal {
  const gone = new AbortController();
  if (socket.destroyed) gone.abort();
  else socket.once("close", () => gone.abort());
  return gone.signal;
}

function closeWhenIdle(socket: Duplex, ms: number): void {
  if (!("setTimeout" in socket) || typeof socket.setTimeout !== "function") return;
  socket.setTimeout(ms, () => socket.destroy());
}

/** Puts [u32 length][bytes] together again, whatever pieces they arrive in. Nothing may follow before it was taken. */
class LengthReader {
  readonly #bytesMax: number;
  #pieces: Buffer[] = [];
  #bytes = 0;
  #needed = 4;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The bytes that `piece` completes, if it does. @throws {DamagedError} too long, or more than that. */
  read(piece: Buffer): Buffer | undefined {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes < this.#needed) return undefined;
    const bytes = this.#pieces.length === 1 ? piece : Buffer.concat(this.#pieces);
    const length = bytes.readUInt32BE(0);
    if (length > this.#bytesMax) throw new DamagedError("a frame is longer than allowed");
    this.#needed = 4 + length;
    this.#pieces = [bytes];
    if (this.#bytes < this.#needed) return undefined;
    if (this.#bytes > this.#needed) throw new DamagedError("a frame goes on after its end");
    this.#pieces = [];
    this.#bytes = 0;
    this.#needed = 4;
    return bytes.subarray(4);
  }
}
