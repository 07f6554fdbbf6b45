/** The REST table as Koa sees it: one path for every route, permission before the body is read. */
import { bodyParser } from "@koa/bodyparser";
import { Router } from "@koa/router";
import type { Context, Middleware } from "koa";
import { TooLargeError } from "../errors.ts";
import { type Asker, admit } from "./call.ts";
import { eventStream } from "./event-stream.ts";
import { HttpError } from "./problem.ts";
import type { Answer, Route } from "./route.ts";
import { SECURITY_HEADERS, SECURITY_HEADERS_BUT_POLICY } from "./security-headers.ts";

export interface RequestState {
  readonly asker: Asker;
  readonly requestId: string;
  /** Told of defects that show only after the answer has begun. */
  readonly onFailure: (error: unknown) => void;
}

/** A client that takes nothing for this long is cut off: six heartbeats. */
const STALLED_MS_MAX = 60_000;

/** A router for each noun (`/v1/kv/…`): one for all would try every route's pattern on every request. */
export function restRouter(routes: readonly Route[]): Middleware<RequestState> {
  const routers = new Map<string, Middleware<RequestState>>();
  for (const [noun, own] of Map.groupBy(routes, ({ path }) => nounOf(path))) {
    const router = routerOf(own);
    const routed = router.routes();
    const otherMethods = router.allowedMethods();
    routers.set(noun, (ctx, next) => {
      // What its type demands of a context the router itself adds.
      const routable = ctx as Parameters<typeof routed>[0] & Parameters<typeof otherMethods>[0];
      return routed(routable, () => otherMethods(routable, next));
    });
  }
  return (ctx, next) => routers.get(nounOf(ctx.path))?.(ctx, next) ?? next();
}

/** `/v1/noun`, as patterns compare it: in whatever case. */
function nounOf(path: string): string {
  return path.split("/", 3).join("/").toLowerCase();
}

function routerOf(routes: readonly Route[]): Router<RequestState> {
  const router = new Router<RequestState>();
  for (const route of routes) {
    const steps = [permission(route), body(route), answer(route)];
    router.register(
      route.path,
      [route.method],
      steps.map((step) => onlyFor(route, step)),
    );
  }
  return router;
}

function onlyFor({ onlyWithQuery }: Route, step: Middleware<RequestState>): Middleware<RequestState> {
  if (onlyWithQuery === undefined) return step;
  return (ctx, next) => (ctx.query[onlyWithQuery] === undefined ? next() : step(ctx, next));
}

function permission({ access }: Route): Middleware<RequestState> {
  return async (ctx, next) => {
    await admit(ctx.state.asker, access);
    await next();
  };
}

function body({ body, rawBody }: Route): Middleware<RequestState> {
  if (rawBody !== undefined) return bytes(rawBody.bytesMax);
  if (body === undefined) return (_ctx, next) => next();
  const parse = bodyParser({
    enableTypes: ["json"],
    jsonLimit: body.bytesMax,
    jsonStrict: false,
    parsedMethods: ["POST", "PUT", "PATCH", "DELETE"],
    onError: (error, ctx) => {
      throw bodyError(error, ctx, body.bytesMax);
    },
  });
  return async (ctx, next) => {
    if (ctx.request.type !== "" && !ctx.request.is("application/json", "application/*+json")) {
      throw new HttpError(415, "send the body as application/json");
    }
    if (ctx.request.type === "" && (ctx.request.length ?? 0) > 0) {
      throw new HttpError(415, "say what the body is: Content-Type: application/json");
    }
    await parse(ctx, next);
  };
}

function bytes(bytesMax: number): Middleware<RequestState> {
  return async (ctx, next) => {
    const encoding = ctx.get("Content-Encoding");
    if (encoding !== "" && encoding !== "identity") {
      throw new HttpError(
        415,
        `a body that is encoded (${encoding.slice(0, 40)}) is not taken: send it as it is`,
      );
    }
    ctx.request.body = await readBytes(ctx, bytesMax);
    await next();
  };
}

/** By events: an async iterator over the request would cost more than all the rest of a small one. */
function readBytes(ctx: Context, bytesMax: number): Promise<Uint8Array> {
  const { req } = ctx;
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const refuse = () => {
    // What is left of the body is not read: the connection can't be used again.
    req.pause();
    req.removeAllListeners("data");
    ctx.set("Connection", "close");
    reject(new TooLargeError(`the body has more than ${bytesMax} bytes`));
  };
  if ((ctx.request.length ?? 0) > bytesMax) {
    refuse();
    return promise;
  }
  const chunks: Buffer[] = [];
  let length = 0;
  req.on("data", (chunk: Buffer) => {
    length += chunk.byteLength;
    if (length > bytesMax) refuse();
    else chunks.push(chunk);
  });
  req.once("end", () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
  const brokenOff = () => {
    if (!req.readableEnded) reject(new HttpError(400, "the body broke off"));
  };
  req.once("error", brokenOff);
  req.once("close", brokenOff);
  return promise;
}

function bodyError(error: Error, ctx: Context, bytesMax: number): HttpError {
  const status = "status" in error && typeof error.status === "number" ? error.status : 400;
  // What is left of the body is not read: the connection can't be used again.
  ctx.set("Connection", "close");
  if (status === 413) return new HttpError(413, `the body has more than ${bytesMax} bytes`, { cause: error });
  if (status === 415) return new HttpError(415, "this content encoding is not supported", { cause: error });
  return new HttpError(400, `the body is no JSON: ${error.message.slice(0, 200)}`, { cause: error });
}

function answer(route: Route): Middleware<RequestState> {
  return async (ctx) => {
    const answered = await route.answer(ctx.state.asker, {
      params: ctx.params,
      query: ctx.query,
      body: ctx.request.body,
      header: (name) => ctx.get(name),
    });
    ctx.status = route.status;
    send(ctx, answered);
  };
}

/**
 * What is whole already goes out by one call, past what Koa would find out about it
 * again: the more so as most answers are small.
 *
 * @returns false: Koa is to do it.
 */
function sendNow(ctx: Context & { state: RequestState }, answered: Answer): boolean {
  if (ctx.method === "HEAD" || (answered.kind !== "json" && answered.kind !== "raw")) return false;
  if (answered.body === null) return false;
  const { res } = ctx;
  if (!res.writable || res.headersSent) return false;
  const isJson = answered.kind === "json";
  const body = isJson ? JSON.stringify(answered.body) : asBuffer(answered.body);
  const { headers = {} } = answered;
  const head: string[] = ["X-Request-Id", ctx.state.requestId];
  head.push(
    ...(headers["Content-Security-Policy"] === undefined ? SECURITY_HEADERS : SECURITY_HEADERS_BUT_POLICY),
  );
  if (isJson) head.push("Cache-Control", "no-store", "Content-Type", "application/json; charset=utf-8");
  for (const name in headers) head.push(name, headers[name]!);
  head.push("Content-Length", String(Buffer.byteLength(body)));
  ctx.respond = false;
  res.writeHead(answered.status ?? ctx.status, head);
  res.end(body);
  return true;
}

function send(ctx: Context & { state: RequestState }, answered: Answer): void {
  if (sendNow(ctx, answered)) return;
  switch (answered.kind) {
    case "json":
      if (answered.status !== undefined) ctx.status = answered.status;
      ctx.set("Cache-Control", "no-store");
      if (answered.headers !== undefined) ctx.set(answered.headers);
      ctx.body = answered.body;
      return;
    case "raw":
      ctx.status = answered.status;
      ctx.set(answered.headers);
      ctx.body = answered.body === null ? null : asBuffer(answered.body);
      return;
    case "empty":
      ctx.body = null;
      return;
    case "events": {
      const { asker, requestId, onFailure } = ctx.state;
      const { socket } = ctx.req;
      const cutOff = () => socket.destroy();
      socket.setTimeout(STALLED_MS_MAX, cutOff);
      ctx.res.once("close", () => {
        socket.setTimeout(0);
        socket.off("timeout", cutOff);
      });
      ctx.set("Content-Type", "text/event-stream; charset=utf-8");
      ctx.set("Cache-Control", "no-store");
      ctx.set("X-Accel-Buffering", "no");
      ctx.body = eventStream(answered.events, { signal: asker.signal, requestId, onFailure });
      return;
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
