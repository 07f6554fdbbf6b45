/**
 * One edge, asked over REST once and never again: what a client is told when it
 * has no other server to go to. The SDK hides that on purpose.
 */
import { Agent, request } from "node:https";
import { z } from "zod";

/** A server answers or gives up within its own 5 s. */
const ANSWER_MS_MAX = 8_000;

export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

/** Nothing was sent. */
export class NotSentError extends Error {}

/** It was sent, and nobody knows what came of it. */
export class NotAnsweredError extends Error {}

const problemSchema = z.object({
  code: z.string(),
  detail: z.string(),
  etag: z.string().nullable().optional(),
});
export type Problem = z.output<typeof problemSchema>;

/** Connections to all edges of a cluster, signed in. */
export class EdgePorts {
  readonly #admin: { readonly username: string; readonly password: string };
  readonly #agent: Agent;
  #token: string | undefined;

  constructor(admin: { readonly username: string; readonly password: string }, ca: string) {
    this.#admin = admin;
    this.#agent = new Agent({ ca, keepAlive: true, maxSockets: 32 });
  }

  /** Good for fifteen minutes, at every server. */
  async signIn(edge: string): Promise<void> {
    const answer = await this.#ask(edge, "POST", "/v1/auth/token", {
      body: JSON.stringify(this.#admin),
      headers: { "content-type": "application/json" },
    });
    if (answer.status !== 200) throw new Error(`signing in: ${answer.status} ${answer.body}`);
    this.#token = z
      .object({ accessToken: z.string() })
      .parse(JSON.parse(answer.body.toString("utf8"))).accessToken;
  }

  /** @throws {NotSentError} @throws {NotAnsweredError} */
  ask(
    edge: string,
    method: string,
    path: string,
    options: {
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly waitMs?: number;
    } = {},
  ): Promise<Answered> {
    const headers = { ...options.headers, authorization: `Bearer ${this.#token}` };
    return this.#ask(edge, method, path, { ...options, headers });
  }

  close(): void {
    this.#agent.destroy();
  }

  #ask(
    edge: string,
    method: string,
    path: string,
    options: {
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly waitMs?: number;
    },
  ): Promise<Answered> {
    const { body = "", headers = {}, waitMs = 0 } = options;
    return new Promise((resolve, reject) => {
      let isConnected = false;
      const asked = request(
        new URL(path, edge),
        { method, agent: this.#agent, headers: { ...headers, "content-length": Buffer.byteLength(body) } },
        (response) => {
          const pieces: Buffer[] = [];
          response.on("data", (piece: Buffer) => pieces.push(piece));
          response.on("end", () => {
            clearTimeout(timer);
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              body: Buffer.concat(pieces),
            });
          });
          response.on("error", fail);
        },
      );
      const fail = (error: Error) => {
        clearTimeout(timer);
        reject(isConnected ? new NotAnsweredError(error.message) : new NotSentError(error.message));
      };
      const timer = setTimeout(() => asked.destroy(new Error("no answer in time")), ANSWER_MS_MAX + waitMs);
      asked.on("socket", (socket) => {
        // One that was used before is connected; on a new one, nothing is sent before both sides are sure.
        if (asked.reusedSocket) isConnected = true;
        else socket.once("secureConnect", () => (isConnected = true));
      });
      asked.on("error", fail);
      asked.end(body);
    });
  }
}

/** Undefined: the answer is no problem of this edge. */
export function problemIn({ body }: Answered): Problem | undefined {
  try {
    return problemSchema.parse(JSON.parse(body.toString("utf8")));
  } catch {
    return undefined;
  }
}
