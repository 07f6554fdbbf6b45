/** Connections to servers: pooled TLS under the given CA, and the typed procedures of each server on top. */
import { createTRPCClient, httpLink, type TRPCClient } from "@trpc/client";
import superjson from "superjson";
import { Agent, request } from "undici";
import type { PublicRouter } from "../edge/public-router.ts";

const CONNECTIONS_PER_SERVER_MAX = 16;
/** Below the 65 s of the edge, so that it is never the edge that hangs up under a request. */
const KEEP_ALIVE_MS = 30_000;
const CONNECT_MS_MAX = 3_000;
const PROVING = /^(auth|recovery)\./;

export type Procedures = TRPCClient<PublicRouter>;
export type Headers = Readonly<Record<string, string>>;
type LinkFetch = NonNullable<Parameters<typeof httpLink>[0]["fetch"]>;

export class Connection {
  readonly #agent: Agent;
  readonly #procedures = new Map<string, Procedures>();
  readonly #headers: () => Promise<Headers>;

  /**
   * @param ca PEM; the system's authorities when left out.
   * @param headers what proves who asks; not sent to procedures that take their proof with the input.
   */
  constructor(ca: string | undefined, headers: () => Promise<Headers>) {
    this.#headers = headers;
    this.#agent = new Agent({
      connections: CONNECTIONS_PER_SERVER_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // Deadlines are those of each call, by its signal.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: CONNECT_MS_MAX, ...(ca === undefined ? {} : { ca }) },
    });
  }

  procedures(server: string): Procedures {
    let known = this.#procedures.get(server);
    if (known === undefined) {
      known = createTRPCClient<PublicRouter>({
        links: [
          httpLink({
            url: `${server}/trpc`,
            transformer: superjson,
            // Cursors and keys may be longer than a URL should be.
            methodOverride: "POST",
            fetch: this.#fetch,
            headers: async ({ op }) => (PROVING.test(op.path) ? {} : { ...(await this.#headers()) }),
          }),
        ],
      });
      this.#procedures.set(server, known);
    }
    return known;
  }

  /** A GET whose body is read as it comes. `idleMs`: silence for longer is a failure. */
  async stream(url: string, headers: Headers, idleMs: number, signal: AbortSignal) {
    return request(url, {
      dispatcher: this.#agent,
      headers: { ...headers, ...(await this.#headers()) },
      headersTimeout: idleMs,
      bodyTimeout: idleMs,
      signal,
    });
  }

  /** What a server answers to anybody, as JSON. */
  async open(url: string, signal: AbortSignal): Promise<unknown> {
    const { body } = await request(url, { dispatcher: this.#agent, signal });
    return body.json();
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  // `request` spares what `fetch` adds to each call; the link needs no more than this of a response.
  readonly #fetch: LinkFetch = async (input, init) => {
    const response = await request(String(input), {
      dispatcher: this.#agent,
      method: init?.method === "GET" ? "GET" : "POST",
      headers: [...new globalThis.Headers(init?.headers)].flat(),
      body: typeof init?.body === "string" ? init.body : null,
      signal: init?.signal ?? null,
    });
    return {
      ok: response.statusCode < 400,
      status: response.statusCode,
      json: () => response.body.json(),
    };
  };
}
