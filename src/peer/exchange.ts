/**
 * How a request reaches one peer and its response comes back: over HTTPS, or
 * within the process. Everything above it is the same for both.
 */
import type { PeerAddress } from "./transport.ts";

export interface Sink {
  /** Before the first piece. */
  status(code: number): void;
  /** The next piece of the body. */
  data(piece: Buffer): void;
  /** The response is complete. Nothing comes after this or `fail`. */
  end(): void;
  /** No connection, or it broke. Whether the request arrived is unknown. */
  fail(error: Error): void;
}

/**
 * `frames` use one connection and go one after the other; `calls` use as many as
 * it takes, up to a bound, and wait for a free one past that. `waits` are calls
 * that may stay without an answer for long: they have connections of their own, so
 * that nobody else waits with them.
 */
export type Lane = "frames" | "calls" | "waits";

export interface Exchange {
  /**
   * The sink is called later, never within this call.
   *
   * @returns gives the request up; the sink hears nothing more.
   */
  post(lane: Lane, body: Buffer, sink: Sink): () => void;
  /** Breaks what is under way in that lane; its next request connects anew, to `address`. */
  reconnect(lane: Lane, address: PeerAddress): void;
  close(): void;
}

/** Whether `error` says that nothing listens at the address. */
export function isConnectionRefused(error: unknown): boolean {
  if (error instanceof AggregateError)
    return error.errors.length > 0 && error.errors.every(isConnectionRefused);
  return error instanceof Error && "code" in error && error.code === "ECONNREFUSED";
}
