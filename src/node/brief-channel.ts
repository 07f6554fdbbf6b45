/** The channel for what is said all the time, in its short form: between replicas, and to leaders. */
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef, PeerSender } from "../peer/transport.ts";
import { BriefReader, BriefWriter, readMessage, writeMessage } from "../replication/brief-form.ts";
import type { ReplicationMessage } from "../replication/message.ts";
import type { LeaderQuestions } from "./leader-questions.ts";

const REPLICATION = 0;

export class BriefChannel {
  readonly #writer = new BriefWriter();
  readonly #log: Log;
  readonly #send: (to: PeerRef, bytes: Uint8Array) => void;

  constructor(options: { readonly log: Log; send(to: PeerRef, bytes: Uint8Array): void }) {
    this.#log = options.log;
    this.#send = options.send;
  }

  /** @returns false when the message has no short form. */
  send(to: PeerRef, message: ReplicationMessage): boolean {
    this.#writer.byte(REPLICATION);
    const isBrief = writeMessage(this.#writer, message);
    const bytes = this.#writer.take();
    if (isBrief) this.#send(to, bytes);
    return isBrief;
  }

  receive(
    from: PeerSender,
    bytes: Uint8Array,
    receivers: {
      readonly replicas: { receive(from: PeerSender, message: ReplicationMessage): void };
      readonly questions: Pick<LeaderQuestions, "receive">;
    },
  ): void {
    let message: ReplicationMessage | undefined;
    try {
      const reader = new BriefReader(bytes);
      const kind = reader.byte();
      if (kind === REPLICATION) message = readMessage(reader);
      else receivers.questions.receive(from, kind, reader);
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      this.#log.debug("peer message malformed", { peer: from.nodeId, reason: error.message });
    }
    if (message !== undefined) receivers.replicas.receive(from, message);
  }
}
