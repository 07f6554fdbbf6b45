/**
 * One-way messages that have arrived, in a frame of the sender or in its answer to
 * one of ours: each is parsed with the schema of its channel, and handed on in order.
 */
import type { z } from "zod";
import type { Log } from "../log.ts";
import { type Message, messagesOf } from "./frame.ts";
import type { PeerHandlers, PeerSender, ProcedureMap } from "./transport.ts";
import { isUnknownKind } from "./wire-error.ts";

export type MessageSchemas<Messages extends object> = {
  readonly [C in keyof Messages]: z.ZodType<Messages[C]>;
};

export class Deliveries<Messages extends object, Procedures extends ProcedureMap> {
  readonly #schemas: MessageSchemas<Messages>;
  readonly #handlers: PeerHandlers<Messages, Procedures>;
  readonly #log: Log;
  /** Messages that were not acted on: of kinds that this version doesn't know, and bad ones. */
  readonly counts = { unsupported: 0, malformed: 0 };

  constructor(options: {
    readonly schemas: MessageSchemas<Messages>;
    readonly handlers: PeerHandlers<Messages, Procedures>;
    readonly log: Log;
  }) {
    this.#schemas = options.schemas;
    this.#handlers = options.handlers;
    this.#log = options.log;
  }

  /** Acts on those of known channels and kinds before it returns. All are checked before the first is acted on. */
  take(from: PeerSender, messages: readonly Message[]): void {
    for (const { channel, message } of this.#accepted(messages)) {
      this.#handlers.message(from, channel, message);
    }
  }

  /** As `take`, of what came in an answer and was not looked at yet. */
  takeAnswered(from: PeerSender, value: unknown): void {
    const messages = messagesOf(value);
    if (messages !== undefined) this.take(from, messages);
    else this.counts.malformed++;
  }

  #accepted(messages: readonly Message[]) {
    const accepted: { channel: keyof Messages; message: Messages[keyof Messages] }[] = [];
    for (const [name, raw] of messages) {
      const channel = channelNamed(this.#schemas, name);
      if (channel === undefined) {
        this.counts.unsupported++;
        continue;
      }
      const parsed = this.#schemas[channel].safeParse(raw);
      if (parsed.success) accepted.push({ channel, message: parsed.data });
      else if (isUnknownKind(parsed.error)) this.counts.unsupported++;
      else {
        this.counts.malformed++;
        const issue = parsed.error.issues[0]?.path.join(".");
        this.#log.debug("peer message malformed", { channel: name, issue });
      }
    }
    return accepted;
  }
}

function channelNamed<Channels extends object>(channels: Channels, name: string): keyof Channels | undefined {
  return Object.hasOwn(channels, name) ? (name as keyof Channels) : undefined;
}
