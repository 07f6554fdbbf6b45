/**
 * One call with all its repeats: at whichever server answers, signed in, within a
 * deadline.
 *
 * What is repeated after a lost answer is only what may be. A server that can't be
 * reached, or is busy, has done nothing: the next one is asked.
 */
import { setTimeout as pause } from "node:timers/promises";
import { BusyError, type ClusterError, ForbiddenError, UnauthenticatedError } from "../errors.ts";
import { Connection, type Procedures } from "./connection.ts";
import { NoAnswerError, NobodyAnswersError, NoConnectionError, ofThrown } from "./edge-error.ts";
import { ServerList } from "./server-list.ts";
import { type Credentials, SignIn } from "./sign-in.ts";

export interface CallerOptions extends Credentials {
  /** Edges, `https://host:port`; the first one is asked first. More are learned from the cluster. */
  readonly servers: readonly string[];
  /** PEM of the cluster's root certificate; the system's authorities when left out. */
  readonly ca?: string | undefined;
  /** False: asks only `servers`, for clients that can't reach the addresses that members tell; true when left out. */
  readonly learnServers?: boolean | undefined;
  /** For one call with all its repeats; 30 s when left out. */
  readonly timeoutMs?: number | undefined;
}

const CALL_MS_MAX = 30_000;
/** A server answers or gives up within its own 5 s; one that stays silent longer has stopped. */
const ATTEMPT_MS_MAX = 8_000;
const PAUSE_MS_MIN = 50;
const PAUSE_MS_MAX = 1_000;
/** When nothing listens anywhere, waiting longer helps seldom. */
const REFUSED_ROUNDS_MAX = 4;
const LEARN_EVERY_MS = 30_000;

export interface CallOptions {
  /** Asking twice does no harm; true when left out. */
  readonly repeatable?: boolean;
  readonly timeoutMs?: number;
  readonly attemptMs?: number;
  /** Gives the call up. */
  readonly signal?: AbortSignal | undefined;
  /** For signing in itself. */
  readonly withoutSignIn?: boolean;
}

export class Caller {
  readonly servers: ServerList;
  readonly connection: Connection;
  readonly signIn: SignIn;
  readonly timeoutMs: number;
  readonly #closing = new AbortController();
  #learnAtMs = 0;
  #learning: Promise<void> = Promise.resolve();

  /** @throws {UsageError} */
  constructor(options: CallerOptions) {
    this.servers = new ServerList(options.servers);
    this.timeoutMs = options.timeoutMs ?? CALL_MS_MAX;
    if (options.learnServers === false) this.#learnAtMs = Infinity;
    const open = { withoutSignIn: true } as const;
    this.signIn = new SignIn(options, {
      token: (credentials) => this.call((to, rest) => to.auth.token.mutate(credentials, rest), open),
      refresh: (refreshToken) =>
        this.call((to, rest) => to.auth.refresh.mutate({ refreshToken }, rest), {
          ...open,
          repeatable: false,
        }),
      revoke: (refreshToken) => this.call((to, rest) => to.auth.revoke.mutate({ refreshToken }, rest), open),
    });
    this.connection = new Connection(options.ca, () => this.signIn.headers());
  }

  /** Aborted by `close`. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Ends the session and all connections. Calls under way fail. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#learning;
    // The session ends by itself anyway when no server can be told.
    await this.signIn.end().catch(() => {});
    await this.connection.close();
  }

  async call<T>(
    ask: (to: Procedures, rest: { signal: AbortSignal }) => Promise<T>,
    options: CallOptions = {},
  ): Promise<T> {
    const { repeatable = true, withoutSignIn = false, timeoutMs = this.timeoutMs } = options;
    const deadlineMs = performance.now() + timeoutMs;
    const refused = new Map<string, number>();
    let pauseMs = PAUSE_MS_MIN;
    let mayRenew = !withoutSignIn;
    // What a server said that did answer tells more than the silence of others.
    let told: ClusterError | undefined;
    for (;;) {
      const server = this.servers.current;
      const attemptMs = Math.min(options.attemptMs ?? ATTEMPT_MS_MAX, deadlineMs - performance.now());
      const signal = AbortSignal.any([
        AbortSignal.timeout(Math.max(1, Math.ceil(attemptMs))),
        ...(withoutSignIn ? [] : [this.#closing.signal]),
        ...(options.signal === undefined ? [] : [options.signal]),
      ]);
      try {
        const answer = await ask(this.connection.procedures(server), { signal });
        if (!withoutSignIn) this.#learnSoon();
        return answer;
      } catch (thrown) {
        const error = ofThrown(thrown, server);
        if (this.#closing.signal.aborted || options.signal?.aborted === true) throw error;
        const leftMs = deadlineMs - performance.now();
        if (error instanceof UnauthenticatedError && mayRenew && this.signIn.canRenew) {
          mayRenew = false;
          this.signIn.forget();
          continue;
        }
        if (!(error instanceof NoConnectionError || error instanceof NoAnswerError)) told = error;
        if (!isWorthAnother(error, repeatable)) throw told ?? error;
        if (error instanceof NoConnectionError) {
          refused.set(server, (refused.get(server) ?? 0) + 1);
          if (this.servers.all.every((known) => (refused.get(known) ?? 0) >= REFUSED_ROUNDS_MAX)) {
            throw nobodyAnswers(this.servers.all, error);
          }
        }
        const waitMs = error instanceof BusyError ? error.retryAfterMs : pauseMs;
        if (waitMs >= leftMs) throw told ?? error;
        if (!(error instanceof BusyError)) this.servers.moveOnFrom(server);
        // The next server is asked at once the first time; after a round, a little later.
        const isRoundOver =
          (refused.get(this.servers.current) ?? 0) > 0 || !(error instanceof NoConnectionError);
        if (isRoundOver) {
          await pause(waitMs);
          pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
        }
      }
    }
  }

  /** Other members, so that the client outlives those that it was told of. Nothing waits for it. */
  #learnSoon(): void {
    if (performance.now() < this.#learnAtMs || this.#closing.signal.aborted) return;
    this.#learnAtMs = performance.now() + LEARN_EVERY_MS;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(ATTEMPT_MS_MAX)]);
    this.#learning = this.connection
      .procedures(this.servers.current)
      .cluster.nodes.query({}, { signal })
      .then(({ items }) =>
        this.servers.learn(
          items.flatMap(({ edge, state }) => (state === "alive" && edge !== null ? [edge] : [])),
        ),
      )
      .catch((thrown: unknown) => {
        // Who may not see the cluster goes on with the servers that were named.
        if (ofThrown(thrown, this.servers.current) instanceof ForbiddenError) this.#learnAtMs = Infinity;
      });
  }
}

function isWorthAnother(error: ClusterError, repeatable: boolean): boolean {
  // Signing in, which came first, has asked all of them already.
  if (error instanceof NobodyAnswersError) return false;
  if (error instanceof NoConnectionError || error instanceof BusyError) return true;
  return repeatable && error.remedy === "retry";
}

function nobodyAnswers(servers: readonly string[], cause: ClusterError): NobodyAnswersError {
  const named = servers.length > 5 ? `${servers.slice(0, 5).join(", ")}, …` : servers.join(", ");
  return new NobodyAnswersError(`no server answers at ${named}: are they running?`, { cause });
}
