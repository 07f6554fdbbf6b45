/**
 * What faces the clients: REST and public tRPC over HTTPS on one port.
 *
 * A client may be slow, gone, or hostile: heads and bodies have a deadline and a
 * bound, connections a maximum, and a body is read only from those who may send
 * it. A connection that breaks is the client's affair and no event of ours.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:https";
import type { Socket } from "node:net";
import { finished } from "node:stream";
import { nodeHTTPRequestHandler } from "@trpc/server/adapters/node-http";
import Koa, { type Context, type Middleware } from "koa";
import { ClusterError, PreconditionFailedError, UsageError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { EdgeBackend } from "./backend.ts";
import type { CallGround } from "./call.ts";
import { EdgeLoad } from "./edge-load.ts";
import { JobOwners } from "./job-owners.ts";
import { LoginLimits } from "./login-limits.ts";
import { defectProblem, HttpError, type Problem, problemOf } from "./problem.ts";
import { publicRouter } from "./public-router.ts";
import { askerOf, requestIdOf } from "./request.ts";
import { type RequestState, restRouter } from "./rest-router.ts";
import { routes } from "./routes.ts";
import { secure } from "./security-headers.ts";

const KIB = 1024;
const TLS_VERSION_MIN = "TLSv1.2";
const CONNECTIONS_MAX = 2048;
const HEAD_MS_MAX = 10_000;
const REQUEST_MS_MAX = 60_000;
const KEEP_ALIVE_MS = 65_000;
const CHECK_MS = 5_000;
const RPC_BODY_BYTES_MAX = 4096 * KIB;
/** Of those who have not proved who they are: enough to do so. */
const STRANGER_BODY_BYTES_MAX = 16 * KIB;
const RPC_CALLS_MAX = 50;
const RPC_PATH = "/trpc/";

export interface EdgeOptions {
  readonly backend: EdgeBackend;
  /** PEM; `cert` with the chain up to the root. */
  readonly tls: { readonly cert: string; readonly key: string };
  readonly log: Log;
}

export interface Edge {
  /** Port 0: any free one. Resolves with where it listens. @throws {UsageError} the port can't be had. */
  listen(port: number, address: string): Promise<{ readonly host: string; readonly port: number }>;
  /** For connections from now on. */
  present(tls: EdgeOptions["tls"]): void;
  /** Takes no new connections, ends event streams, and gives requests under way `graceMs`. */
  close(graceMs: number): Promise<void>;
}

export function createEdge({ backend, tls, log }: EdgeOptions): Edge {
  const stopping = new AbortController();
  const ground: CallGround = {
    backend,
    owners: new JobOwners(backend.jobs),
    loginLimits: new LoginLimits(),
  };
  const app = createApp(ground, log, stopping.signal);
  const server = createServer(
    {
      ...tls,
      minVersion: TLS_VERSION_MIN,
      handshakeTimeout: HEAD_MS_MAX,
      headersTimeout: HEAD_MS_MAX,
      requestTimeout: REQUEST_MS_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: CHECK_MS,
    },
    app.callback(),
  );
  server.maxConnections = CONNECTIONS_MAX;
  // Those in their handshake, too, which the server does not count among its own.
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  return {
    listen: (port, address) => listen(server, port, address),
    present: (renewed) => server.setSecureContext({ ...renewed, minVersion: TLS_VERSION_MIN }),
    close: async (graceMs) => {
      stopping.abort();
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

function createApp(ground: CallGround, log: Log, stopping: AbortSignal): Koa<RequestState> {
  const app = new Koa<RequestState>();
  app.on("error", (error: unknown) => {
    if (!isReset(error)) log.error("answer failed", { error });
  });
  app.use(async (ctx, next) => {
    const requestId = requestIdOf(ctx.req);
    if (stopping.aborted) ctx.set("Connection", "close");
    const onFailure = (error: unknown) => log.error("request failed", { requestId, error });
    ctx.state = { asker: askerOf(ground, ctx.req, ctx.res, stopping), requestId, onFailure };
    await next();
    // What was sent already says so itself.
    if (ctx.respond !== false) nameAnswer(ctx);
  });
  app.use(problems);
  // Whether it lives and serves can be asked however much it has to do.
  app.use(openPaths(ground.backend));
  app.use(bounded(new EdgeLoad()));
  app.use(publicCalls());
  app.use(restRouter(routes));
  return app;
}

/** What every answer says. */
function nameAnswer(ctx: Context & { state: RequestState }): void {
  ctx.set("X-Request-Id", ctx.state.requestId);
  secure(ctx.res);
}

/** Turns what was thrown, and what nobody answered, into a problem. */
const problems: Middleware<RequestState> = async (ctx, next) => {
  const { requestId } = ctx.state;
  try {
    await next();
    if (ctx.respond !== false && ctx.body === undefined) throwUnanswered(ctx);
  } catch (error) {
    if (error instanceof PreconditionFailedError && error.etag !== null) ctx.set("ETag", error.etag);
    const problem = problemOf(error, requestId);
    if (problem === undefined) ctx.state.onFailure(error);
    sendProblem(ctx, problem ?? defectProblem(requestId));
  }
};

function throwUnanswered(ctx: Context): void {
  if (ctx.status === 404) {
    throw new HttpError(404, `there is nothing at ${ctx.method} ${ctx.path.slice(0, 200)}`);
  }
  if (ctx.status === 405) {
    const allow = String(ctx.response.get("Allow"));
    throw new HttpError(405, `${ctx.method} is not possible here; possible: ${allow}`);
  }
  if (ctx.status === 501) throw new HttpError(501, `the method ${ctx.method} is not known`);
}

function sendProblem(ctx: Context, problem: Problem): void {
  ctx.status = problem.status;
  if (problem.status === 401) ctx.set("WWW-Authenticate", 'Bearer realm="orbweaver"');
  if (problem.retryAfterMs !== undefined) {
    ctx.set("Retry-After", String(Math.max(1, Math.ceil(problem.retryAfterMs / 1000))));
  }
  ctx.set("Cache-Control", "no-store");
  ctx.type = "application/problem+json";
  ctx.body = JSON.stringify(problem);
}

function bounded(load: EdgeLoad): Middleware<RequestState> {
  return async (ctx, next) => {
    const { headers } = ctx.req;
    const announced = Number(headers["content-length"] ?? 0);
    // A body that does not say how long it is may be as long as any.
    const bytes = headers["transfer-encoding"] === undefined ? announced : RPC_BODY_BYTES_MAX;
    let leave: () => void;
    try {
      leave = load.enter(bytes);
    } catch (error) {
      // What is left of the body is not read: the connection can't be used again.
      if (bytes > 0) ctx.set("Connection", "close");
      throw error;
    }
    try {
      await next();
    } finally {
      leave();
    }
  };
}

function publicCalls(): Middleware<RequestState> {
  return async (ctx, next) => {
    if (!ctx.path.startsWith(RPC_PATH)) return next();
    const { asker, requestId, onFailure } = ctx.state;
    const isKnown = await asker.principal().then(
      () => true,
      () => false,
    );
    nameAnswer(ctx);
    ctx.respond = false;
    // Koa presets 404, and tRPC leaves any status but 200 as it is.
    ctx.res.statusCode = 200;
    const answered = nodeHTTPRequestHandler({
      router: publicRouter,
      path: ctx.path.slice(RPC_PATH.length),
      req: ctx.req,
      res: ctx.res,
      maxBodySize: isKnown ? RPC_BODY_BYTES_MAX : STRANGER_BODY_BYTES_MAX,
      maxBatchSize: RPC_CALLS_MAX,
      allowMethodOverride: true,
      createContext: () => ({ asker, requestId }),
      onError: ({ error }) => {
        if (error.code === "INTERNAL_SERVER_ERROR" && !(error.cause instanceof ClusterError))
          onFailure(error);
      },
    });
    // It settles when the answer is out, and never when the client left before.
    await Promise.race([answered, closed(ctx)]);
  };
}

function closed(ctx: Context): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  finished(ctx.res, () => resolve());
  return promise;
}

/** What everyone may see: whether the server lives, whether it serves, by which keys its tokens are checked. */
function openPaths(backend: EdgeBackend): Middleware<RequestState> {
  return async (ctx, next) => {
    if (ctx.method !== "GET" && ctx.method !== "HEAD") return next();
    switch (ctx.path) {
      case "/healthz": {
        const { reasons, durability } = backend.ready();
        // It lives, whatever it lacks: to be started again would not help it.
        ctx.body = { status: "ok", durability, reasons };
        return;
      }
      case "/readyz": {
        const { ready, reasons, durability } = backend.ready();
        ctx.status = ready ? 200 : 503;
        if (!ready) ctx.set("Retry-After", "1");
        ctx.body = { ready, reasons, durability };
        return;
      }
      case "/.well-known/jwks.json":
        ctx.set("Cache-Control", "public, max-age=60");
        ctx.body = backend.accounts.jwks();
        return;
      default:
        return next();
    }
  };
}

async function listen(server: Server, port: number, host: string) {
  server.listen(port, host);
  try {
    await once(server, "listening");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new UsageError(
      `the edge can't listen on ${host} port ${port} (${code}): choose another with --edge-port or --edge-address`,
      { cause },
    );
  }
  const bound = server.address();
  return { host, port: bound !== null && typeof bound === "object" ? bound.port : port };
}

const RESET_CODES = [
  "EPIPE",
  "ECONNRESET",
  "ECONNABORTED",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_DESTROYED",
];

function isReset(error: unknown): boolean {
  return error instanceof Error && "code" in error && RESET_CODES.includes(String(error.code));
}
