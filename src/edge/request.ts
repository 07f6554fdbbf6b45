/** What is known of one HTTP request before anything is done for it: its id, who asks, when they are gone. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { UnauthenticatedError } from "../errors.ts";
import type { Accounts, Principal } from "./backend.ts";
import type { Asker, CallGround } from "./call.ts";

const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** The client's own when it sent a harmless one, so that both logs name it alike. */
export function requestIdOf(request: IncomingMessage): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
}

export function askerOf(
  ground: CallGround,
  request: IncomingMessage,
  response: ServerResponse,
  stopping: AbortSignal,
): Asker {
  let proved: Promise<Principal> | undefined;
  let signal: AbortSignal | undefined;
  return {
    ground,
    address: request.socket.remoteAddress ?? "unknown",
    // Made for those who look at it: a signal and its end cost as much as a short call.
    get signal() {
      return (signal ??= AbortSignal.any([closed(response), stopping]));
    },
    principal: () => (proved ??= authenticate(ground.backend.accounts, request)),
  };
}

function closed(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  if (response.closed) gone.abort();
  else response.once("close", () => gone.abort());
  return gone.signal;
}

async function authenticate(accounts: Accounts, { headers }: IncomingMessage): Promise<Principal> {
  const { authorization } = headers;
  const apiKey = headers["x-api-key"];
  if (authorization !== undefined) {
    const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
    if (token === undefined) {
      throw new UnauthenticatedError("the Authorization header must be `Bearer` and an access token");
    }
    return accounts.authenticateToken(token);
  }
  if (typeof apiKey === "string") return accounts.authenticateKey(apiKey);
  throw new UnauthenticatedError(
    "sign in first: POST /v1/auth/token gives an access token; send it as `Authorization: Bearer …`, or an API key as `X-API-Key`",
  );
}
