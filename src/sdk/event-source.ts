/**
 * Server-sent events of one call, for as long as somebody reads them: a stream that
 * breaks goes on at the next server, from the last id that was seen.
 */
import { setTimeout as pause } from "node:timers/promises";
import { type ClusterError, UnauthenticatedError, UnavailableError } from "../errors.ts";
import type { Caller } from "./caller.ts";
import { ofFailure, ofThrown } from "./edge-error.ts";
import { readEvents, type SentEvent } from "./event-reader.ts";

/** Three heartbeats of the edge. */
const SILENT_MS_MAX = 30_000;
const AGAIN_MS = 50;

/** A stream begins here, the first one or another. */
export const OPENED: SentEvent = { event: "opened", data: "{}", id: "" };

/**
 * Ends when `signal` is aborted, else never by itself: the reader knows the last event.
 *
 * @param path with its query; below each server's origin.
 * @throws {ClusterError} what no other server would answer otherwise, or nobody answered for long.
 */
export async function* followEvents(
  caller: Caller,
  path: string,
  options: { readonly lastEventId?: string | undefined; readonly signal?: AbortSignal | undefined },
): AsyncGenerator<SentEvent, void, void> {
  const { signal } = options;
  const isGivenUp = () => signal?.aborted === true;
  const either = AbortSignal.any([caller.closing, ...(signal === undefined ? [] : [signal])]);
  let lastEventId = options.lastEventId ?? "";
  let failedSinceMs: number | undefined;
  while (!isGivenUp()) {
    const server = caller.servers.current;
    try {
      const headers = {
        accept: "text/event-stream",
        ...(lastEventId === "" ? {} : { "last-event-id": lastEventId }),
      };
      const { statusCode, body } = await caller.connection.stream(
        server + path,
        headers,
        SILENT_MS_MAX,
        either,
      );
      if (statusCode !== 200) {
        // Each answer of an edge that is no stream is a problem; anything else came from something in between.
        throw problemError(await body.text(), `${server} answered ${statusCode}`);
      }
      yield OPENED;
      for await (const sent of readEvents(body)) {
        if (sent.event === "problem") throw problemError(sent.data, server);
        failedSinceMs = undefined;
        if (sent.id !== "") lastEventId = sent.id;
        yield sent;
      }
    } catch (thrown) {
      if (isGivenUp()) return;
      const error = ofThrown(thrown, server);
      failedSinceMs ??= performance.now();
      const isHopeless = caller.closing.aborted || performance.now() - failedSinceMs > caller.timeoutMs;
      if (error instanceof UnauthenticatedError && caller.signIn.canRenew && !isHopeless)
        caller.signIn.forget();
      else if (error.remedy === "reject" || isHopeless) throw error;
      else caller.servers.moveOnFrom(server);
    }
    await pause(AGAIN_MS, undefined, { signal: either }).catch(() => {});
  }
}

interface ProblemBody {
  readonly code?: string;
  readonly detail?: string;
  readonly retryAfterMs?: number;
}

function problemError(text: string, otherwise: string): ClusterError {
  try {
    const { code = "UNAVAILABLE", detail = otherwise, retryAfterMs } = JSON.parse(text) as ProblemBody;
    return ofFailure({ code, message: detail, retryAfterMs });
  } catch (cause) {
    return new UnavailableError(otherwise, { cause });
  }
}
