/** What an edge answered with, as the class that it was there; and what kept it from answering. */
import { TRPCClientError } from "@trpc/client";
import type { PublicRouter } from "../edge/public-router.ts";
import {
  BusyError,
  ClusterError,
  DamagedError,
  type ErrorDetails,
  ForbiddenError,
  type InputIssue,
  InvalidInputError,
  LockHeldError,
  LockLostError,
  NotFoundError,
  OutcomeUnknownError,
  PageFailedError,
  PreconditionFailedError,
  RefusedError,
  TooLargeError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedError,
  WrongStateError,
} from "../errors.ts";

/** No connection was made: nothing of the call has happened. */
export class NoConnectionError extends UnavailableError {}

/** It was asked, and said nothing. */
export class NoAnswerError extends UnavailableError {}

/** None of the servers could be connected to, however often: whoever called has waited long enough. */
export class NobodyAnswersError extends NoConnectionError {}

interface EdgeFailure {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs?: number | null | undefined;
  readonly issues?: readonly InputIssue[] | undefined;
  readonly details?: ErrorDetails | undefined;
}

const RETRY_AFTER_MS = 1_000;

export function ofFailure({ code, message, retryAfterMs, issues, details }: EdgeFailure): ClusterError {
  const error = ofCode(code, message, retryAfterMs ?? RETRY_AFTER_MS, issues ?? [], details ?? {});
  error.message = message;
  return error;
}

function ofCode(
  code: string,
  message: string,
  retryAfterMs: number,
  issues: readonly InputIssue[],
  details: ErrorDetails,
): ClusterError {
  switch (code) {
    case "OUTCOME_UNKNOWN":
      return new OutcomeUnknownError(message);
    case "BUSY":
      return new BusyError(message, retryAfterMs);
    case "INVALID_INPUT":
      return new InvalidInputError(message, issues);
    case "UNAUTHENTICATED":
      return new UnauthenticatedError(message);
    case "FORBIDDEN":
      return new ForbiddenError(message);
    case "NOT_FOUND":
      return new NotFoundError(message);
    case "WRONG_STATE":
      return new WrongStateError(message);
    case "PRECONDITION_FAILED":
      return new PreconditionFailedError(message, typeof details.etag === "string" ? details.etag : null);
    case "PAGE_FAILED": {
      const { pageStatus } = details;
      return new PageFailedError(message, typeof pageStatus === "number" ? pageStatus : null);
    }
    case "LOCK_HELD":
      return new LockHeldError("", holdingOf(details));
    case "LOCK_LOST":
      return new LockLostError("", holdingOf(details));
    case "TOO_LARGE":
      return new TooLargeError(message);
    case "REFUSED":
      return new RefusedError(message);
    case "DAMAGED":
    case "INTERNAL":
      return new DamagedError(message);
    case "UNSUPPORTED":
      return new UnsupportedError(message);
    default: // UNAVAILABLE and its like, and codes of a later version.
      return new UnavailableError(message);
  }
}

function holdingOf({ fencingToken, expiresAt }: ErrorDetails) {
  if (typeof fencingToken !== "number" || typeof expiresAt !== "string") return undefined;
  return { fencingToken, expiresAt };
}

const NOT_CONNECTED = [
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
];

/** @param server whom was asked. */
export function ofThrown(thrown: unknown, server: string): ClusterError {
  if (thrown instanceof ClusterError) return thrown;
  if (thrown instanceof TRPCClientError) {
    // What our router answers has our data; anything else failed on the way.
    const { data } = thrown as TRPCClientError<PublicRouter>;
    if (data !== undefined && data !== null) return ofFailure({ ...data, message: thrown.message });
    // Signing in, which came first, failed.
    if (thrown.cause instanceof ClusterError) return thrown.cause;
  }
  const { code, text } = rootOf(thrown);
  if (/CERT|ALTNAME|SELF_SIGNED|UNABLE_TO_VERIFY/.test(code)) {
    return new RefusedError(
      `${server}: its certificate can't be trusted (${code}); give the cluster's CA (ca.crt of a server's data directory), and a name that the certificate has`,
      { cause: thrown },
    );
  }
  if (NOT_CONNECTED.includes(code)) {
    return new NoConnectionError(`${server}: no connection (${code})`, { cause: thrown });
  }
  const isLate = /abort|time-?out/i.test(text) && code === "";
  const why = isLate ? "in time" : `(${code === "" ? text : code})`;
  return new NoAnswerError(`${server}: no answer ${why}`, { cause: thrown });
}

/** The innermost cause that bears a code: that is what happened. */
function rootOf(thrown: unknown): { code: string; text: string } {
  let found = { code: "", text: thrown instanceof Error ? thrown.message : String(thrown) };
  for (let error: unknown = thrown; error instanceof Error; error = error.cause) {
    const inner = error instanceof AggregateError ? error.errors[0] : error;
    const code: unknown = inner instanceof Error && "code" in inner ? inner.code : undefined;
    if (typeof code === "string") found = { code, text: error.message };
  }
  return found;
}
