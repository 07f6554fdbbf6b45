/**
 * A terminating tRPC link over an Exchange. The calls of one turn travel as one
 * request and are answered one by one, as each gets ready; batches form in a
 * micro-task, because the stock batch link's timer costs every call that waits for
 * another one a millisecond.
 */
import { TRPCClientError, type TRPCLink } from "@trpc/client";
import type { AnyTRPCRouter } from "@trpc/server";
import { observable } from "@trpc/server/observable";
import {
  BusyError,
  type ClusterError,
  InvalidInputError,
  TooLargeError,
  UnavailableError,
} from "../errors.ts";
import type { Exchange } from "./exchange.ts";
import { AnswerReader, CALLS_MAX, ITEM_BYTES_MAX, packCalls } from "./frame.ts";
import { pack, unpack } from "./msgpack.ts";
import { STATUS_INTRODUCE } from "./rpc-server.ts";
import { fromWire } from "./wire-error.ts";

/** To one peer, without an answer yet; the peer takes as many. */
const OPEN_CALLS_MAX = { calls: 1024, waits: 2048 } as const;
/**
 * Each batch keeps a connection until its last answer. Calls that wait for long are
 * gathered a little, so that those of 10 s never need more than 200 connections.
 */
const GATHERED_MS = 50;
const OPEN_BYTES_MAX = 64 * 1024 * 1024;

/** The peer wants this node's earlier instances before it acts; nothing was done. */
export class IntroductionWanted extends Error {}

interface Item {
  readonly packed: Buffer;
  readonly timer: NodeJS.Timeout;
  resolve(output: unknown): void;
  reject(error: Error): void;
}

/** What a call of this link carries in its context. */
interface CallContext extends Record<string, unknown> {
  readonly timeoutMs: number;
}

export class RpcLink {
  readonly #lane: "calls" | "waits";
  readonly #exchange: Exchange;
  readonly #head: () => Buffer;
  readonly #lost: (error: Error) => void;
  readonly #restarted: () => void;
  readonly #expectedInstance: (() => string | undefined) | "any";
  /** Calls of this turn, not yet sent. */
  #waiting: Item[] = [];
  #isScheduled = false;
  #open = 0;
  /** Of their inputs. */
  #openBytes = 0;

  /**
   * @param options.lane `waits`: for calls that may stay without an answer for long.
   * @param options.head of every request.
   * @param options.instance the start of the peer that may answer; answers of another are not believed.
   * @param options.lost a connection failed.
   * @param options.restarted another start of the peer answered.
   */
  constructor(options: {
    readonly lane?: "calls" | "waits";
    readonly exchange: Exchange;
    readonly head: () => Buffer;
    readonly instance: (() => string | undefined) | "any";
    readonly lost: (error: Error) => void;
    readonly restarted: () => void;
  }) {
    this.#lane = options.lane ?? "calls";
    this.#exchange = options.exchange;
    this.#head = options.head;
    this.#expectedInstance = options.instance;
    this.#lost = options.lost;
    this.#restarted = options.restarted;
  }

  /** The link for a tRPC client. Each call's context must hold its `timeoutMs`. */
  link<Router extends AnyTRPCRouter>(): TRPCLink<Router> {
    return () =>
      ({ op }) =>
        observable((observer) => {
          const { timeoutMs } = op.context as CallContext;
          const abort = this.call(op.path, op.input, timeoutMs, (outcome) => {
            if (outcome instanceof Error) observer.error(TRPCClientError.from(outcome, { cause: outcome }));
            else {
              observer.next({ result: { type: "data", data: outcome.output } });
              observer.complete();
            }
          });
          const onAbort = () => abort(new UnavailableError(`${op.path} was given up`));
          if (op.signal?.aborted) onAbort();
          else op.signal?.addEventListener("abort", onAbort, { once: true });
          return () => {
            op.signal?.removeEventListener("abort", onAbort);
            abort(new UnavailableError(`${op.path} was given up`));
          };
        });
  }

  /**
   * Sends one call with the others of this turn.
   *
   * @param settled called once.
   * @returns gives the call up with that error, if it is still open.
   */
  call(
    path: string,
    input: unknown,
    timeoutMs: number,
    settled: (outcome: Error | { readonly output: unknown }) => void,
  ): (error: ClusterError) => void {
    let packed: Buffer;
    try {
      packed = pack([path, input]);
    } catch (cause) {
      settled(new InvalidInputError(`the input of ${path} holds something that can't travel`, [], { cause }));
      return () => {};
    }
    if (packed.length > ITEM_BYTES_MAX) {
      settled(
        new TooLargeError(`${path} takes ${packed.length} bytes, at most ${ITEM_BYTES_MAX} can travel`),
      );
      return () => {};
    }
    if (this.#open >= OPEN_CALLS_MAX[this.#lane]) {
      settled(new BusyError("the number of calls to one member at once", 50));
      return () => {};
    }
    if (this.#openBytes > 0 && this.#openBytes + packed.length > OPEN_BYTES_MAX) {
      settled(new BusyError("what waits for one member", 50));
      return () => {};
    }
    this.#openBytes += packed.length;
    this.#open++;
    let isOpen = true;
    const close = (outcome: Error | { readonly output: unknown }) => {
      if (!isOpen) return;
      isOpen = false;
      this.#open--;
      this.#openBytes -= packed.length;
      clearTimeout(item.timer);
      settled(outcome);
      this.#closed(item);
    };
    const item: Item = {
      packed,
      timer: setTimeout(
        () => close(new UnavailableError(`${path} was not answered within ${timeoutMs} ms`)),
        timeoutMs,
      ),
      resolve: (output) => close({ output }),
      reject: close,
    };
    this.#waiting.push(item);
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      if (this.#lane === "calls") queueMicrotask(() => this.#flush());
      else setTimeout(() => this.#flush(), GATHERED_MS);
    }
    return close;
  }

  /** Batches under way, by call: to break off a request that nobody waits for any more. */
  readonly #batchOf = new Map<Item, { open: number; abort: () => void }>();

  #closed(item: Item): void {
    const batch = this.#batchOf.get(item);
    if (batch === undefined) {
      const at = this.#waiting.indexOf(item);
      if (at >= 0) this.#waiting.splice(at, 1);
      return;
    }
    this.#batchOf.delete(item);
    if (--batch.open === 0) batch.abort();
  }

  #flush(): void {
    this.#isScheduled = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    let start = 0;
    let bytes = 0;
    waiting.forEach((item, index) => {
      if (index - start === CALLS_MAX || bytes + item.packed.length > ITEM_BYTES_MAX) {
        this.#post(waiting.slice(start, index));
        start = index;
        bytes = 0;
      }
      bytes += item.packed.length;
    });
    if (start < waiting.length) this.#post(waiting.slice(start));
  }

  #post(items: readonly Item[]): void {
    const instance = this.#expectedInstance === "any" ? "any" : this.#expectedInstance();
    if (instance === undefined) {
      for (const item of items) item.reject(new IntroductionWanted());
      return;
    }
    const reader = new AnswerReader();
    let status = 0;
    let refusal: Buffer[] = [];
    let isOver = false;
    let answered = 0;
    const failAll = (error: Error) => {
      for (const item of items) item.reject(error);
    };
    const batch = {
      open: items.length,
      abort: () => {
        // With all answers here the response ends by itself, and its connection can be used again.
        if (!isOver && answered < items.length) abort();
      },
    };
    for (const item of items) this.#batchOf.set(item, batch);
    const abort = this.#exchange.post(
      this.#lane,
      packCalls(
        this.#head(),
        items.map((item) => item.packed),
      ),
      {
        status: (code) => (status = code),
        data: (piece) => {
          if (status !== 200) {
            if (refusal.length < 64) refusal.push(piece);
            return;
          }
          try {
            for (const [index, failed, value] of reader.read(piece)) {
              const item = items[index];
              answered++;
              if (instance !== "any" && reader.instance !== instance) {
                this.#restarted();
                item?.reject(startedAnew());
              } else if (failed === 1) item?.reject(fromWire(value));
              else item?.resolve(value);
            }
          } catch (cause) {
            failAll(new UnavailableError("a member's answer can't be read", { cause }));
          }
        },
        end: () => {
          isOver = true;
          if (status === STATUS_INTRODUCE) failAll(new IntroductionWanted());
          else if (status !== 200) failAll(refusalOf(status, Buffer.concat(refusal)));
          else failAll(new UnavailableError("a member ended its response before it answered"));
          refusal = [];
        },
        fail: (error) => {
          isOver = true;
          this.#lost(error);
          failAll(new UnavailableError(`no answer from a member: ${error.message}`, { cause: error }));
        },
      },
    );
  }
}

/** It may have acted before it answered: the caller must not repeat what can't be repeated. */
function startedAnew(): UnavailableError {
  return new UnavailableError("a member started anew before it answered");
}

/** What a response that is no answer says. */
export function refusalOf(status: number, body: Buffer): ClusterError {
  if (status === 413) return new TooLargeError("a frame was too large for the member that got it");
  try {
    return fromWire(unpack(body));
  } catch (cause) {
    return new UnavailableError(`a member answered with HTTP status ${status}`, { cause });
  }
}
