/**
 * Fetches a robots.txt (RFC 9309, 2.3).
 */
import { setTimeout as pause } from "node:timers/promises";
import { decodeText } from "../src/fetcher/charset.ts";
import { UNKNOWN_HOST } from "../src/fetcher/failure.ts";
import type { Fetcher, FetchRequest } from "../src/fetcher/fetcher.ts";
import { canonicalUrl } from "../src/frontier/canonical-url.ts";
import type { ScrapingEnd } from "../src/pool/scraping-message.ts";
import { ROBOTS_REDIRECTS_MAX, type RobotsTask } from "../src/pool/task.ts";
import { ROBOTS_BYTES_MAX } from "../src/robots/robots-file.ts";

/** Never rejects. */
export async function fetchRobots(
  fetcher: Fetcher,
  task: RobotsTask,
  conditions: Pick<FetchRequest, "mayStart" | "onStart" | "signal">,
): Promise<ScrapingEnd> {
  let url = `${task.origin}/robots.txt`;
  for (let hop = 0; ; hop++) {
    const outcome = await fetcher.fetch({
      url,
      userAgent: task.userAgent,
      headers: {},
      timeoutMs: task.timeoutMs,
      maxBytes: ROBOTS_BYTES_MAX,
      cutsBody: true,
      accept: ["text/plain", "*/*"],
      allowAddresses: task.allowAddresses,
      // Further hops belong to a request that has started.
      mayStart: () => (hop === 0 ? conditions.mayStart() : undefined),
      onStart: conditions.onStart,
      signal: conditions.signal,
    });
    if (outcome.kind === "notStarted") return outcome;
    // Each hop is a request of its own to somebody's host; the asker counts from the first one's start only.
    if (outcome.kind === "redirect" || hop > 0) {
      await pause(task.delayMs, undefined, { signal: conditions.signal }).catch(() => {});
    }
    if (outcome.kind === "broken") {
      // The origin itself may not or can't ever be asked: its pages will say why.
      const isBarred = !outcome.retryable || outcome.reason === UNKNOWN_HOST;
      if (hop === 0 && isBarred) return { kind: "report", report: outcome };
      return robots(0, "", null, 0);
    }
    if (outcome.kind === "answer") {
      return robots(
        outcome.status,
        decodeText(wholeLines(outcome.body), "text/plain; charset=utf-8"),
        null,
        outcome.latencyMs,
      );
    }
    if (outcome.kind === "refused") {
      return robots(outcome.status, "", outcome.retryAfterMs, outcome.latencyMs);
    }
    const target = hop < ROBOTS_REDIRECTS_MAX ? canonicalUrl(outcome.location, url) : undefined;
    if (target === undefined) return robots(outcome.status, "", null, outcome.latencyMs);
    url = target.url;
  }
}

const LINE_ENDS = [0x0a, 0x0d];

/** A body that fills the limit was cut there: what is left of its last line says nothing. */
function wholeLines(body: Uint8Array): Uint8Array {
  if (body.byteLength < ROBOTS_BYTES_MAX) return body;
  const end = Math.max(...LINE_ENDS.map((byte) => body.lastIndexOf(byte)));
  return body.subarray(0, end + 1);
}

function robots(status: number, text: string, retryAfterMs: number | null, latencyMs: number): ScrapingEnd {
  return { kind: "report", report: { kind: "robots", status, text, retryAfterMs, latencyMs } };
}
