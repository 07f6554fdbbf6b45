/**
 * Events of jobs and values as server-sent events (WHATWG HTML, 9.2). Pulled by the client's
 * socket: what it does not read is not produced, so nothing piles up here. A
 * heartbeat every ten seconds tells both sides whether the other is still there.
 */
import { Readable } from "node:stream";
import type { JobEvent } from "../node/jobs.ts";
import { publicJob } from "./job-calls.ts";
import { problemOf } from "./problem.ts";

export const HEARTBEAT_MS = 10_000;
const BUFFER_BYTES = 65_536;
/** How soon a client comes back when the stream breaks. */
const RECONNECT_MS = 500;

export interface SentEvent {
  readonly event: string;
  /** From which on a client that comes back wants to hear more. */
  readonly id?: string;
  /** As JSON. */
  readonly data: unknown;
}

/**
 * Ends after the last event, or when `signal` is aborted.
 *
 * @param onFailure is told of defects; the stream just ends then, and the client comes back.
 */
export function eventStream(
  events: AsyncIterable<SentEvent>,
  options: { signal: AbortSignal; requestId: string; onFailure: (error: unknown) => void },
): Readable {
  return Readable.from(frames(events, options), { objectMode: false, highWaterMark: BUFFER_BYTES });
}

async function* frames(
  events: AsyncIterable<SentEvent>,
  { signal, requestId, onFailure }: Parameters<typeof eventStream>[1],
): AsyncGenerator<string> {
  const iterator = events[Symbol.asyncIterator]();
  const aborted = whenAborted(signal);
  yield `retry: ${RECONNECT_MS}\n\n`;
  try {
    let next = iterator.next();
    // Looked at below; this only keeps a failure during a heartbeat from being nobody's.
    next.catch(() => {});
    while (!signal.aborted) {
      const beat = timer(HEARTBEAT_MS);
      const first = await Promise.race([next, beat.promise, aborted.promise]).finally(beat.stop);
      if (first === "beat") yield ": beat\n\n";
      else if (first === "aborted" || first.done === true) return;
      else {
        yield frame(first.value);
        next = iterator.next();
        next.catch(() => {});
      }
    }
  } catch (error) {
    const problem = problemOf(error, requestId);
    if (problem === undefined) onFailure(error);
    else if (!signal.aborted) yield `event: problem\ndata: ${JSON.stringify(problem)}\n\n`;
  } finally {
    aborted.stop();
    // It may wait for something that never comes; whoever made it ends it by `signal`.
    void Promise.resolve(iterator.return?.()).catch(onFailure);
  }
}

function frame({ event, id, data }: SentEvent): string {
  return `event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}

export async function* sentJobEvents(events: AsyncIterable<JobEvent>): AsyncGenerator<SentEvent> {
  for await (const event of events) {
    switch (event.kind) {
      case "progress":
        yield { event: "progress", data: event.stats };
        break;
      case "status":
        yield { event: "status", data: { status: event.status, job: publicJob(event.job) } };
        break;
      case "page":
        yield { event: "page", id: event.id, data: event.result };
        break;
    }
  }
}

function timer(ms: number): { promise: Promise<"beat">; stop: () => void } {
  const { promise, resolve } = Promise.withResolvers<"beat">();
  const handle = setTimeout(resolve, ms, "beat");
  return { promise, stop: () => clearTimeout(handle) };
}

function whenAborted(signal: AbortSignal): { promise: Promise<"aborted">; stop: () => void } {
  const { promise, resolve } = Promise.withResolvers<"aborted">();
  const onAbort = () => resolve("aborted");
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return { promise, stop: () => signal.removeEventListener("abort", onAbort) };
}
