/** Waits longer than a day are taken as a day. */
const WAIT_MS_MAX = 86_400_000;

/**
 * RFC 9110, 10.2.3: seconds, or a date.
 *
 * @param nowMs milliseconds since the Unix epoch.
 * @returns null when absent or unreadable; a date in the past is 0.
 */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | null {
  const text = header?.trim() ?? "";
  if (/^\d+(?:\.\d+)?$/.test(text)) return Math.min(Math.ceil(Number(text) * 1000), WAIT_MS_MAX);
  // Every form of HTTP dates begins with the name of a day; Date.parse alone takes nearly anything.
  if (!/^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[, ]/i.test(text)) return null;
  const atMs = Date.parse(/(?:gmt|utc|[+-]\d{4})$/i.test(text) ? text : `${text} GMT`);
  return Number.isNaN(atMs) ? null : Math.min(Math.max(atMs - nowMs, 0), WAIT_MS_MAX);
}
