/**
 * Every failure as `application/problem+json` (RFC 9457). `code` and `remedy` are
 * for programs, `title` and `detail` for people; `errors` names the wrong fields.
 */
import { STATUS_CODES } from "node:http";
import type { z } from "zod";
import { BusyError, ClusterError, type ErrorCode, type InputIssue, InvalidInputError } from "../errors.ts";

const STATUS: Readonly<Record<ErrorCode, number>> = {
  NOT_LEADER: 503,
  OUTCOME_UNKNOWN: 503,
  BUSY: 429,
  UNAVAILABLE: 503,
  INVALID_INPUT: 422,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  WRONG_STATE: 409,
  PRECONDITION_FAILED: 412,
  PAGE_FAILED: 502,
  LOCK_HELD: 409,
  LOCK_LOST: 409,
  TOO_LARGE: 413,
  REFUSED: 403,
  STALE_DATA_DIRECTORY: 503,
  DAMAGED: 500,
  UNSUPPORTED: 501,
  USAGE: 400,
};

const RETRY_AFTER_MS = 1_000;

/** Of failures of HTTP itself, which have no error of ours. */
const HTTP_CODE: Readonly<Record<number, string>> = {
  400: "BAD_REQUEST",
  404: "NOT_FOUND",
  405: "METHOD_NOT_ALLOWED",
  413: "TOO_LARGE",
  415: "UNSUPPORTED_MEDIA_TYPE",
  500: "INTERNAL",
  501: "UNSUPPORTED",
};

/** A failure of HTTP itself, before any call was made. The message is shown. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** The request, as the server's log knows it. */
  readonly instance: string;
  /** Stable; that of the error, or of `HTTP_CODE`. */
  readonly code: string;
  readonly remedy: "retry" | "redirect" | "reject";
  readonly retryAfterMs?: number;
  readonly errors?: readonly InputIssue[];
  /** What the error's `details` hold, e.g. `etag`. */
  readonly [detail: string]: unknown;
}

/** Undefined: not an expected failure, but a defect, which is logged and told nobody. */
export function problemOf(error: unknown, requestId: string): Problem | undefined {
  const instance = `urn:request:${requestId}`;
  if (error instanceof ClusterError) {
    const status = statusOf(error);
    return {
      type: typeOf(error.code),
      title: STATUS_CODES[status] ?? "Error",
      status,
      detail: error.message,
      instance,
      code: error.code,
      remedy: error.remedy,
      ...error.details,
      ...(isTemporary(status) ? { retryAfterMs: retryAfterMsOf(error) } : {}),
      ...(error instanceof InvalidInputError && error.issues.length > 0 ? { errors: error.issues } : {}),
    };
  }
  if (error instanceof HttpError) return plainProblem(error.status, error.message, instance);
  return undefined;
}

export function defectProblem(requestId: string): Problem {
  return plainProblem(
    500,
    `something failed on this server; its log has more under ${requestId}`,
    `urn:request:${requestId}`,
  );
}

export function statusOf(error: ClusterError): number {
  return STATUS[error.code];
}

export function isTemporary(status: number): boolean {
  return status === 429 || status === 503;
}

export function retryAfterMsOf(error: ClusterError): number {
  return error instanceof BusyError ? error.retryAfterMs : RETRY_AFTER_MS;
}

const ISSUES_MAX = 100;

/** @param what is wrong: "the body", "the query", … */
export function inputError(what: string, error: z.core.$ZodError): InvalidInputError {
  const issues = error.issues.slice(0, ISSUES_MAX).flatMap((issue) => issuesOf(issue, []));
  const [first] = issues;
  const detail = first === undefined ? "" : `: ${first.path === "" ? "" : `${first.path}: `}${first.message}`;
  return new InvalidInputError(`${what} is not valid${detail}`, issues, { cause: error });
}

function issuesOf(issue: z.core.$ZodIssue, within: readonly PropertyKey[]): InputIssue[] {
  const full = [...within, ...issue.path];
  const path = full.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    // The path of the unknown field itself, not of the object that it stands in.
    return issue.keys.map((key) => ({
      path: path === "" ? key : `${path}.${key}`,
      message: "there is no such field, or this version does not support it",
    }));
  }
  if (issue.code === "invalid_union") {
    // Of several forms it is surely the one that fits on the whole, and fails further inside.
    const nearest = issue.errors.find((form) => form.length > 0 && form.every(({ path }) => path.length > 0));
    if (nearest !== undefined) return nearest.slice(0, ISSUES_MAX).flatMap((inner) => issuesOf(inner, full));
  }
  return [{ path, message: issue.message }];
}

function plainProblem(status: number, detail: string, instance: string): Problem {
  const code = HTTP_CODE[status] ?? "INTERNAL";
  const title = STATUS_CODES[status] ?? "Error";
  return { type: typeOf(code), title, status, detail, instance, code, remedy: "reject" };
}

function typeOf(code: string): string {
  return `urn:orbweaver:error:${code.toLowerCase().replaceAll("_", "-")}`;
}
