/**
 * The clients of the comparison: HTTP/1.1 over TLS, one kept connection each, one
 * request under way each, whatever it is that answers.
 */
import { Client, type Dispatcher } from "undici";

export interface HttpRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body?: string | Buffer;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** One connection to one server, made when it is first needed and again after it broke. */
export class HttpCaller {
  readonly edge: string;
  readonly #client: Client;

  /** @param edge `https://host:port` @param ca PEM */
  constructor(edge: string, ca: string) {
    this.edge = edge;
    this.#client = new Client(edge, {
      connect: { ca },
      pipelining: 1,
      keepAliveTimeout: 60_000,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** @throws {Error} no answer within `timeoutMs`; the request may have been acted on. */
  call(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer> {
    const { method, path, headers, body } = request;
    return new Promise((resolve, reject) => {
      let status = 0;
      let controller: Dispatcher.DispatchController | undefined;
      let isLate = false;
      const pieces: Buffer[] = [];
      const timer = setTimeout(() => {
        isLate = true;
        const error = new Error(`${this.edge} did not answer within ${timeoutMs} ms`);
        controller?.abort(error);
        reject(error);
      }, timeoutMs);
      this.#client.dispatch(
        { method, path, headers, body: body ?? null },
        {
          onRequestStart(started) {
            controller = started;
            if (isLate) started.abort(new Error("given up"));
          },
          onResponseStart(_, statusCode) {
            status = statusCode;
          },
          onResponseData(_, piece) {
            pieces.push(piece);
          },
          onResponseEnd() {
            clearTimeout(timer);
            resolve({ status, body: pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces) });
          },
          onResponseError(_, error) {
            clearTimeout(timer);
            reject(error);
          },
        },
      );
    });
  }

  close(): Promise<void> {
    return this.#client.destroy();
  }
}

export interface LoadResult {
  /** Acknowledged. */
  readonly count: number;
  readonly perSecond: number;
  /** Ascending. */
  readonly latenciesMs: readonly number[];
  /** What was not acknowledged: by status, or "lost". */
  readonly failures: ReadonlyMap<string, number>;
}

const CALL_MS_MAX = 10_000;

/** So many clients, spread over the servers, each asking again as soon as it is answered. */
export async function load(options: {
  readonly edges: readonly string[];
  readonly ca: string;
  readonly clients: number;
  readonly warmMs: number;
  readonly measuredMs: number;
  readonly next: () => HttpRequest;
  /** Whether an answer acknowledges what was asked. */
  readonly isGood: (answer: HttpAnswer) => boolean;
}): Promise<LoadResult> {
  const { edges, ca, clients, warmMs, measuredMs, next, isGood } = options;
  const callers = Array.from({ length: clients }, (_, i) => new HttpCaller(edges[i % edges.length]!, ca));
  const failures = new Map<string, number>();
  const latenciesMs: number[] = [];
  const beginMs = performance.now() + warmMs;
  const endMs = beginMs + measuredMs;
  const ask = async (caller: HttpCaller) => {
    while (performance.now() < endMs) {
      const askedMs = performance.now();
      const failure = await caller.call(next(), CALL_MS_MAX).then(
        (answer) => (isGood(answer) ? undefined : String(answer.status)),
        () => "lost",
      );
      const answeredMs = performance.now();
      if (answeredMs < beginMs || answeredMs > endMs) continue;
      if (failure === undefined) latenciesMs.push(answeredMs - askedMs);
      else failures.set(failure, (failures.get(failure) ?? 0) + 1);
    }
  };
  await Promise.all(callers.map(ask));
  await Promise.all(callers.map((caller) => caller.close()));
  latenciesMs.sort((a, b) => a - b);
  const count = latenciesMs.length;
  return { count, perSecond: (1000 * count) / measuredMs, latenciesMs, failures };
}

/** @param share 0..1 */
export function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? Number.NaN;
}
