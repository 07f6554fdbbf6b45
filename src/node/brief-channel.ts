/**
 * The channel for what is said all the time, in its short form: between replicas, and
 * to leaders. What arises for one server in one turn travels as one letter, so that
 * the frame and its checks know a letter only.
 */
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import { readMessage, writeMessage } from "../replication/brief-form.ts";
import { BriefReader } from "../replication/brief-reader.ts";
import { BriefWriter } from "../replication/brief-writer.ts";
import type { ReplicationMessage } from "../replication/message.ts";
import type { LeaderQuestions } from "./leader-questions.ts";

const REPLICATION = 0;
/** A letter that is larger leaves at once. */
const LETTER_BYTES = 128 * 1024;

interface Letter {
  to: PeerRef;
  readonly writer: BriefWriter;
}

export class BriefChannel {
  readonly #log: Log;
  readonly #send: (to: PeerRef, letter: Uint8Array) => void;
  // By node id, one for each server that was ever written to.
  readonly #letters = new Map<string, Letter>();
  readonly #unsent = new Set<Letter>();

  constructor(options: { readonly log: Log; send(to: PeerRef, letter: Uint8Array): void }) {
    this.#log = options.log;
    this.#send = options.send;
  }

  /** @returns false when the message has no short form: it may be sent in another now, in order. */
  send(to: PeerRef, message: ReplicationMessage): boolean {
    const letter = this.#letterTo(to);
    const { writer } = letter;
    const from = writer.open();
    writer.byte(REPLICATION);
    if (!writeMessage(writer, message)) {
      writer.undo(from);
      this.#post(letter);
      return false;
    }
    writer.close(from);
    this.#written(letter);
    return true;
  }

  /** Of the questions to leaders, and their answers. */
  sendBytes(to: PeerRef, message: Uint8Array): void {
    const letter = this.#letterTo(to);
    letter.writer.bytes(message);
    this.#written(letter);
  }

  receive(
    from: PeerSender,
    bytes: Uint8Array,
    receivers: {
      readonly replicas: { receive(from: PeerSender, message: ReplicationMessage): void };
      readonly questions: Pick<LeaderQuestions, "receive">;
    },
  ): void {
    const reader = new BriefReader(bytes).parts();
    for (;;) {
      try {
        if (!reader.next()) break;
        const kind = reader.byte();
        if (kind === REPLICATION) receivers.replicas.receive(from, readMessage(reader));
        else receivers.questions.receive(from, kind, reader);
      } catch (error) {
        if (!(error instanceof DamagedError)) {
          // Whoever throws here is wrong, but must not take the rest of the letter with it.
          this.#log.error("message not taken", { channel: "brief", peer: from.nodeId, error });
          continue;
        }
        this.#log.debug("peer message malformed", { peer: from.nodeId, reason: error.message });
      }
    }
    // What it gave rise to may go back with the answer to the frame.
    this.#postAll();
  }

  #letterTo(to: PeerRef): Letter {
    let letter = this.#letters.get(to.nodeId);
    if (letter === undefined) {
      letter = { to, writer: new BriefWriter() };
      this.#letters.set(to.nodeId, letter);
    }
    letter.to = to;
    return letter;
  }

  #written(letter: Letter): void {
    if (letter.writer.length >= LETTER_BYTES) {
      this.#post(letter);
      return;
    }
    this.#unsent.add(letter);
    if (this.#unsent.size === 1) queueMicrotask(() => this.#postAll());
  }

  #postAll(): void {
    for (const letter of this.#unsent) this.#post(letter);
  }

  #post(letter: Letter): void {
    this.#unsent.delete(letter);
    if (letter.writer.length > 0) this.#send(letter.to, letter.writer.take());
  }
}
