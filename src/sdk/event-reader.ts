/** Server-sent events out of a byte stream (WHATWG HTML, 9.2.6), as far as our edge sends them. */

export interface SentEvent {
  readonly event: string;
  readonly data: string;
  /** The last one that was seen; empty: none yet. */
  readonly id: string;
}

/** One event with a whole page in it. */
const EVENT_CHARS_MAX = 256 * 1024 * 1024;

/** @throws {RangeError} an event without end. */
export async function* readEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<SentEvent> {
  const decoder = new TextDecoder();
  let rest = "";
  let id = "";
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > EVENT_CHARS_MAX) throw new RangeError("an event is longer than any should be");
    // Searched from the last event's end on; most chunks hold whole events.
    let start = 0;
    for (let end = rest.indexOf("\n\n"); end !== -1; end = rest.indexOf("\n\n", start)) {
      const fields = fieldsOf(rest.slice(start, end));
      start = end + 2;
      id = fields.get("id") ?? id;
      const data = fields.get("data");
      if (data !== undefined) yield { event: fields.get("event") ?? "message", data, id };
    }
    rest = rest.slice(start);
  }
}

function fieldsOf(block: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    // A line that begins with a colon is a comment: the heartbeat.
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).replace(/^ /, ""));
  }
  return fields;
}
