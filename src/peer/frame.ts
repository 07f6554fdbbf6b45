/**
 * How a frame is laid out, and who speaks in it.
 *
 *     request   [u16 length][head] [calls]      calls: [[procedure, input], …]
 *     answers   [u8 length][instance] then, as they are ready, [u32 length][[index, 0, output] or [index, 1, error]]
 *
 * Messages are the input of one call, `deliver`: [number, after, [[channel, message], …]]. Its output are
 * messages as well: those that the receiver has for the sender by then. `number` counts the sender's frames.
 * `after` is the frame of the receiver in whose answer the sender gave messages last: what that answer holds
 * comes first, whichever of the two arrives first. Both are 0 where there is nothing to say.
 *
 * The head is packed by itself: the receiver compares it with the one before and
 * parses it only when it changed, which is once per connection.
 */
import { z } from "zod";
import { DamagedError } from "../errors.ts";
import { arrayHeader, pack, unpack } from "./msgpack.ts";
import type { PeerSender } from "./transport.ts";

/** Frames of another major are refused; fields of a later minor are dropped. */
export const VERSION_MAJOR = 1;
const VERSION_MINOR = 0;

/** Of a request's or an answer's body. */
export const FRAME_BYTES_MAX = 8 * 1024 * 1024;
/** What one call or message may take: the rest is left for head and headers. */
export const ITEM_BYTES_MAX = FRAME_BYTES_MAX - 64 * 1024;
export const CALLS_MAX = 256;
export const MESSAGES_MAX = 8192;
/** What an answer to messages carries back at most; more travels in a frame of its own. */
export const ANSWER_MESSAGES_BYTES_MAX = 256 * 1024;

export const addressSchema = z.object({ host: z.string().max(255), port: z.int().min(0).max(65_535) });

const headSchema = z.object({
  version: z.tuple([z.int(), z.int()]),
  clusterId: z.string().max(64),
  /** Node id; empty for a server that has not joined yet. */
  from: z.string().max(64),
  address: addressSchema,
  incarnation: z.int().nonnegative(),
  instance: z.string().max(32),
});
export type Head = z.output<typeof headSchema>;

/** Of one start of one member, constant while it runs. */
export interface PeerSelf {
  readonly clusterId: string;
  readonly nodeId: string;
  /** Grows at each start. */
  readonly incarnation: number;
  /** 16 random hex digits, new at each start. */
  readonly instance: string;
  /** The instances of earlier starts on the same data directory, newest first; the first 1,000 count. */
  readonly earlierInstances: readonly string[];
}

export const EARLIER_MAX = 1000;
export const helloSchema = z.object({ earlier: z.array(z.string().max(32)).max(EARLIER_MAX) });
export const helloAnswerSchema = helloSchema.extend({
  nodeId: z.string().max(64),
  incarnation: z.int().nonnegative(),
  instance: z.string().max(32),
  /** Where it listens. */
  address: addressSchema,
});
/** The procedure by which members show each other their earlier instances, before anything else. */
export const HELLO = "hello";
export const DELIVER = "deliver";

export const messagesSchema = z.array(z.tuple([z.string().max(32), z.unknown()])).max(MESSAGES_MAX);
const frameNumber = z.int().nonnegative();
export const deliverySchema = z.tuple([frameNumber, frameNumber, messagesSchema]);

export type Call = [procedure: string, input: unknown];
export type Message = [channel: string, message: unknown];
export type Delivery = z.output<typeof deliverySchema>;

export type Answer = [index: number, failed: 0 | 1, value: unknown];
export const answerSchema = z.tuple([
  z.int().min(0).max(CALLS_MAX),
  z.union([z.literal(0), z.literal(1)]),
  z.unknown(),
]);

export function packHead(self: PeerSelf, address: PeerSender["address"]): Buffer {
  return lengthBefore(
    pack({
      version: [VERSION_MAJOR, VERSION_MINOR],
      clusterId: self.clusterId,
      from: self.nodeId,
      address,
      incarnation: self.incarnation,
      instance: self.instance,
    } satisfies Head),
  );
}

function lengthBefore(head: Buffer): Buffer {
  const length = Buffer.allocUnsafe(2);
  length.writeUInt16BE(head.length);
  return Buffer.concat([length, head]);
}

/** @param calls each packed as `[procedure, input]`. */
export function packCalls(head: Buffer, calls: readonly Buffer[]): Buffer {
  return Buffer.concat([head, arrayHeader(calls.length), ...calls]);
}

const deliverStart = Buffer.concat([arrayHeader(1), Buffer.from([0x92]), pack(DELIVER), Buffer.from([0x93])]);

/** One call of `deliver`. @param messages each packed as `[channel, message]`. */
export function packMessages(head: Buffer, messages: readonly Buffer[], number = 0, after = 0): Buffer {
  const start = [head, deliverStart, pack(number), pack(after), arrayHeader(messages.length)];
  return Buffer.concat([...start, ...messages]);
}

/** @throws {DamagedError} too short. */
export function splitFrame(frame: Buffer): { readonly head: Buffer; readonly calls: Buffer } {
  const end = frame.length < 2 ? Number.POSITIVE_INFINITY : 2 + frame.readUInt16BE(0);
  if (end >= frame.length) throw new DamagedError("a frame ends within its head");
  return { head: frame.subarray(2, end), calls: frame.subarray(end) };
}

/** @throws {DamagedError} not a head. */
export function readHead(bytes: Buffer): Head {
  return parsed(headSchema.safeParse(unpack(bytes)), "head");
}

/** @throws {DamagedError} not calls, or more than CALLS_MAX. */
export function readCalls(bytes: Buffer): Call[] {
  const calls = unpack(bytes);
  if (!arePairs(calls, CALLS_MAX, 64)) throw new DamagedError("a frame's calls have not the right shape");
  return calls;
}

// What every frame passes is looked at by hand: it is as strict as the schemas above, at a tenth of their cost.

/** Undefined: not of `messagesSchema`. */
export function messagesOf(value: unknown): Message[] | undefined {
  return arePairs(value, MESSAGES_MAX, 32) ? value : undefined;
}

/** Undefined: not of `deliverySchema`. */
export function deliveryOf(value: unknown): Delivery | undefined {
  if (!Array.isArray(value) || value.length !== 3) return undefined;
  const [number, after, messages]: unknown[] = value;
  if (!isFrameNumber(number) || !isFrameNumber(after) || !arePairs(messages, MESSAGES_MAX, 32))
    return undefined;
  return [number, after, messages];
}

/** Undefined: not of `answerSchema`. */
export function answerOf(value: unknown): Answer | undefined {
  if (!Array.isArray(value) || value.length !== 3) return undefined;
  const [index, failed, what]: unknown[] = value;
  if (!isFrameNumber(index) || index > CALLS_MAX || (failed !== 0 && failed !== 1)) return undefined;
  return [index, failed, what];
}

function isFrameNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** An array of `[name, anything]`. */
function arePairs(value: unknown, countMax: number, nameCharsMax: number): value is [string, unknown][] {
  if (!Array.isArray(value) || value.length > countMax) return false;
  for (const pair of value) {
    if (!Array.isArray(pair) || pair.length !== 2) return false;
    if (typeof pair[0] !== "string" || pair[0].length > nameCharsMax) return false;
  }
  return true;
}

export function packPreamble(instance: string): Buffer {
  const text = Buffer.from(instance, "latin1");
  return Buffer.concat([Buffer.from([text.length]), text]);
}

export function packAnswer(answer: Answer): Buffer {
  const body = pack(answer);
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

const NO_MESSAGES = packAnswer([0, 0, []]);
const messagesAnswerStart = Buffer.from([0x93, 0, 0]);

/** Whether `body`, a whole response, says from the start with this preamble that there is nothing to say. */
export function isNoMessages(body: Buffer, preamble: Buffer): boolean {
  return (
    body.length === preamble.length + NO_MESSAGES.length &&
    body.compare(preamble, 0, preamble.length, 0, preamble.length) === 0 &&
    body.compare(NO_MESSAGES, 0, NO_MESSAGES.length, preamble.length) === 0
  );
}

/** The answer to a lone call of `deliver`. @param messages each packed as `[channel, message]`. */
export function packMessagesAnswer(messages: readonly Buffer[]): Buffer {
  if (messages.length === 0) return NO_MESSAGES;
  const parts = [Buffer.allocUnsafe(4), messagesAnswerStart, arrayHeader(messages.length), ...messages];
  const answer = Buffer.concat(parts);
  answer.writeUInt32BE(answer.length - 4);
  return answer;
}

/** Puts the answers of one response together again, whatever pieces they arrive in. */
export class AnswerReader {
  #pieces: Buffer[] = [];
  #bytes = 0;
  /** How many bytes must be there before the next part can be read. */
  #needed = 1;
  #instance: string | undefined;

  /** Of the start of the member that answers; undefined until it has arrived. */
  get instance(): string | undefined {
    return this.#instance;
  }

  /** The answers that `piece` completes. @throws {DamagedError} */
  read(piece: Buffer): Answer[] {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes < this.#needed) return [];
    const bytes = this.#pieces.length === 1 ? piece : Buffer.concat(this.#pieces);
    const answers: Answer[] = [];
    let at = 0;
    if (this.#instance === undefined) {
      const end = 1 + bytes[0]!;
      if (bytes.length < end) return this.#wait(bytes, end, answers);
      this.#instance = bytes.toString("latin1", 1, end);
      at = end;
    }
    while (bytes.length - at >= 4) {
      const length = bytes.readUInt32BE(at);
      if (length > FRAME_BYTES_MAX) throw new DamagedError("an answer is longer than allowed");
      if (bytes.length - at < 4 + length) return this.#wait(bytes.subarray(at), 4 + length, answers);
      const answer = answerOf(unpack(bytes.subarray(at + 4, at + 4 + length)));
      if (answer === undefined) throw new DamagedError("an answer has not the right shape");
      answers.push(answer);
      at += 4 + length;
    }
    return this.#wait(bytes.subarray(at), 4, answers);
  }

  #wait(rest: Buffer, needed: number, answers: Answer[]): Answer[] {
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#bytes = rest.length;
    this.#needed = needed;
    return answers;
  }
}

function parsed<T>(result: z.ZodSafeParseResult<T>, what: string): T {
  if (result.success) return result.data;
  throw new DamagedError(`a frame's ${what} has not the right shape`, { cause: result.error });
}
