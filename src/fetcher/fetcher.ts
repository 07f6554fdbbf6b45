/**
 * One HTTP request: guarded, bounded in time and bytes, never following redirects by itself
 * (robots.txt, scope and pace are asked anew for each hop).
 *
 * HTTP/1.1 with kept connections; HTTP/2 is off, since several streams at once make it hard to
 * say what "one request at a time" means to a site. The host's name is resolved before the
 * caller's last word on starting (`mayStart`), which is asked right before the connection.
 */
import { isUtf8 } from "node:buffer";
import { isIP } from "node:net";
import { Agent, buildConnector, type Dispatcher } from "undici";
import { AddressGuard } from "./address-guard.ts";
import { ACCEPT_ENCODING, CodingError, inflate, readCodings } from "./content-coding.ts";
import { type Failure, failureOf } from "./failure.ts";
import { BlockedAddressError, GuardedResolver } from "./guarded-resolver.ts";
import { parseRetryAfter } from "./retry-after.ts";

export interface FetchRequest {
  /** Canonical, http or https. */
  readonly url: string;
  readonly userAgent: string;
  readonly headers: Readonly<Record<string, string>>;
  /** From the start to the last byte. */
  readonly timeoutMs: number;
  /** Of the body, on the wire and inflated. */
  readonly maxBytes: number;
  /** A longer body is cut there, instead of being a failure. */
  readonly cutsBody: boolean;
  /** Media types, also `text/*` and `*` + `/*`. */
  readonly accept: readonly string[];
  /** CIDRs beside public unicast. */
  readonly allowAddresses: readonly string[];
  /** Asked once, right before the connection; undefined: go, else the reason not to. */
  mayStart(): string | undefined;
  /** The request leaves now. */
  onStart(): void;
  readonly signal?: AbortSignal | undefined;
}

export type FetchOutcome =
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly contentType: string | undefined;
      readonly robotsHeader: string | undefined;
      readonly linkHeader: string | undefined;
      /** Inflated. */
      readonly body: Buffer;
      readonly latencyMs: number;
    }
  /** 301, 302, 303, 307, 308 with a Location, as sent. */
  | {
      readonly kind: "redirect";
      readonly status: number;
      readonly location: string;
      readonly latencyMs: number;
    }
  /** 400 and above, and what else of 3xx. */
  | {
      readonly kind: "refused";
      readonly status: number;
      readonly retryAfterMs: number | null;
      readonly latencyMs: number;
    }
  | ({ readonly kind: "broken" } & Failure)
  | { readonly kind: "notStarted"; readonly reason: string };

const CONNECT_MS_MAX = 10_000;
/** Between two pieces of a body. */
const STALL_MS_MAX = 15_000;
/** As many as a thread has tasks: a request that waited for a connection would start later than it said. */
const CONNECTIONS_PER_ORIGIN = 16;
const HEADER_BYTES_MAX = 64 * 1024;
/** Bodies of no interest are read up to here, to keep the connection. */
const DUMP_BYTES_MAX = 64 * 1024;
/** One for each list of open ranges; in practice a cluster has one. */
const DIALERS_MAX = 4;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

interface Dialer {
  readonly agent: Agent;
  readonly resolver: GuardedResolver;
}

class BodyTooLarge extends Error {}

export class Fetcher {
  /** Connections kept for one guard must never serve a stricter one. Oldest first. */
  readonly #dialers = new Map<string, Dialer>();

  /** Never rejects. */
  async fetch(request: FetchRequest): Promise<FetchOutcome> {
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), request.timeoutMs);
    const signals = request.signal === undefined ? [deadline.signal] : [deadline.signal, request.signal];
    let hasStarted = false;
    try {
      return await this.#exchange(request, AbortSignal.any(signals), () => {
        hasStarted = true;
      });
    } catch (error) {
      if (request.signal?.aborted) {
        return hasStarted
          ? { kind: "broken", reason: "cancelled", retryable: true }
          : { kind: "notStarted", reason: "cancelled" };
      }
      if (deadline.signal.aborted) {
        return {
          kind: "broken",
          reason: `no complete answer within ${request.timeoutMs} ms`,
          retryable: true,
        };
      }
      if (error instanceof BodyTooLarge) return { kind: "broken", reason: error.message, retryable: false };
      if (error instanceof CodingError) {
        return { kind: "broken", reason: error.message, retryable: error.code === "DAMAGED" };
      }
      return { kind: "broken", ...failureOf(error) };
    } finally {
      clearTimeout(timer);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#dialers.values()].map(({ agent }) => agent.destroy()));
    this.#dialers.clear();
  }

  async #exchange(request: FetchRequest, signal: AbortSignal, onStart: () => void): Promise<FetchOutcome> {
    const { agent, resolver } = this.#dialer(request.allowAddresses);
    const url = new URL(request.url);
    await untilAborted(resolver.resolve(url.hostname.replace(/^\[|\]$/g, "")), signal);

    const obstacle = request.mayStart();
    if (obstacle !== undefined) return { kind: "notStarted", reason: obstacle };
    onStart();
    request.onStart();
    const startedMs = performance.now();
    const response = await agent.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: "GET",
      headers: requestHeaders(request),
      signal,
      headersTimeout: request.timeoutMs,
      bodyTimeout: Math.min(request.timeoutMs, STALL_MS_MAX),
    });
    // A body that is left alone fails later, when nobody listens any more.
    response.body.on("error", () => {});
    return this.#read(request, response, performance.now() - startedMs);
  }

  async #read(
    request: FetchRequest,
    response: Dispatcher.ResponseData,
    latencyMs: number,
  ): Promise<FetchOutcome> {
    const status = response.statusCode;
    const header = (name: string) => firstOf(response.headers[name]);
    const location = asUtf8(header("location"));
    if (status >= 300) {
      await response.body.dump({ limit: DUMP_BYTES_MAX });
      if (REDIRECTS.has(status) && location !== undefined && location !== "") {
        return { kind: "redirect", status, location, latencyMs };
      }
      return {
        kind: "refused",
        status,
        retryAfterMs: parseRetryAfter(header("retry-after"), Date.now()),
        latencyMs,
      };
    }

    const contentType = header("content-type");
    if (!isAccepted(contentType, request.accept)) {
      response.body.destroy();
      const type = (contentType ?? "").split(";")[0]!.trim().toLowerCase().slice(0, 80);
      return {
        kind: "broken",
        reason: `its content type ${type} is not among those to accept`,
        retryable: false,
      };
    }
    try {
      const codings = readCodings(joined(response.headers["content-encoding"]));
      const wire = await readBody(response.body, header("content-length"), request);
      const body = inflateWithin(wire, codings, request);
      return {
        kind: "answer",
        status,
        contentType,
        robotsHeader: joined(response.headers["x-robots-tag"]),
        linkHeader: joined(response.headers.link),
        body,
        latencyMs,
      };
    } catch (error) {
      response.body.destroy();
      throw error;
    }
  }

  #dialer(allowAddresses: readonly string[]): Dialer {
    const name = allowAddresses.join(" ");
    let dialer = this.#dialers.get(name);
    if (dialer === undefined) {
      dialer = createDialer(new AddressGuard(allowAddresses));
      this.#dialers.set(name, dialer);
      if (this.#dialers.size > DIALERS_MAX) {
        const [oldest] = this.#dialers;
        this.#dialers.delete(oldest![0]);
        oldest![1].agent.close().catch(() => {});
      }
    }
    return dialer;
  }
}

function createDialer(guard: AddressGuard): Dialer {
  const resolver = new GuardedResolver(guard);
  const connect = buildConnector({
    timeout: CONNECT_MS_MAX,
    lookup: resolver.lookup,
    allowH2: false,
    autoSelectFamily: true,
  } as buildConnector.BuildOptions);
  const guarded: buildConnector.connector = (options, callback) => {
    // Literals are never looked up, so they are judged here.
    const host = options.hostname.replace(/^\[|\]$/g, "");
    if (isIP(host) !== 0 && !guard.isAllowed(host)) {
      callback(new BlockedAddressError(`${host} is no public address`), null);
      return;
    }
    connect(options, (...result) => {
      const [error, socket] = result;
      // The last word: whatever a name resolved to, this is where the bytes would go.
      if (error === null && !guard.isAllowed(socket.remoteAddress ?? "")) {
        socket.destroy();
        callback(new BlockedAddressError(`${options.hostname} is at no public address`), null);
      } else callback(...result);
    });
  };
  const agent = new Agent({
    connect: guarded,
    allowH2: false,
    connections: CONNECTIONS_PER_ORIGIN,
    pipelining: 1,
    maxHeaderSize: HEADER_BYTES_MAX,
  });
  return { agent, resolver };
}

function requestHeaders(request: FetchRequest): Record<string, string> {
  const headers: Record<string, string> = {
    "user-agent": request.userAgent,
    accept: request.accept.join(", "),
    "accept-encoding": ACCEPT_ENCODING,
  };
  for (const [name, value] of Object.entries(request.headers)) headers[name.toLowerCase()] = value;
  return headers;
}

async function readBody(
  body: AsyncIterable<Buffer>,
  contentLength: string | undefined,
  { maxBytes, cutsBody }: FetchRequest,
): Promise<Buffer> {
  if (!cutsBody && Number(contentLength) > maxBytes) {
    throw new BodyTooLarge(`the body is larger than ${maxBytes} bytes`);
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > maxBytes) {
      if (cutsBody) break;
      throw new BodyTooLarge(`the body is larger than ${maxBytes} bytes`);
    }
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}

function inflateWithin(wire: Buffer, codings: readonly string[], request: FetchRequest): Buffer {
  // What is cut anyway may be somewhat longer first; a bomb still ends early.
  if (request.cutsBody) return inflate(wire, codings, request.maxBytes * 16).subarray(0, request.maxBytes);
  return inflate(wire, codings, request.maxBytes);
}

function isAccepted(contentType: string | undefined, accept: readonly string[]): boolean {
  const type = (contentType ?? "").split(";")[0]!.trim().toLowerCase();
  // Without a type nothing can be told before reading; browsers take it for HTML.
  if (type === "") return true;
  return accept.some((text) => {
    const pattern = text.split(";")[0]!.trim().toLowerCase();
    return (
      pattern === "*/*" ||
      pattern === type ||
      (pattern.endsWith("/*") && type.startsWith(pattern.slice(0, -1)))
    );
  });
}

function firstOf(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function joined(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(", ") : value;
}

/** Header bytes come as latin1; sites that don't escape a Location mean UTF-8 (as browsers read it). */
function asUtf8(text: string | undefined): string | undefined {
  if (text === undefined || !/[\x80-\xff]/.test(text) || /[^\0-\xff]/.test(text)) return text;
  const bytes = Buffer.from(text, "latin1");
  return isUtf8(bytes) ? bytes.toString() : text;
}

/** A look-up can't be cancelled; who waits for it can stop waiting. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  return await new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
