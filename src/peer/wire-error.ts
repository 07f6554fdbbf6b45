/**
 * Failures on the wire: a ClusterError arrives as the same class, with the same
 * text and fields. Anything else would be a defect of the answering member: it is
 * logged there, and its caller hears only that there was no answer to be had.
 */
import { TRPCError } from "@trpc/server";
import { z } from "zod";
import {
  BusyError,
  ClusterError,
  DamagedError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  NotLeaderError,
  OutcomeUnknownError,
  PreconditionFailedError,
  RefusedError,
  StaleDataDirectoryError,
  TooLargeError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedError,
  UsageError,
  WrongStateError,
} from "../errors.ts";

const wireErrorSchema = z.object({
  code: z.string().max(64),
  message: z.string().max(4096),
  partition: z.int().optional(),
  leader: z.string().max(64).optional(),
  retryAfterMs: z.number().optional(),
  issues: z
    .array(z.object({ path: z.string(), message: z.string() }))
    .max(100)
    .optional(),
});
export type WireError = z.output<typeof wireErrorSchema>;

export function toWire(error: ClusterError): WireError {
  return {
    code: error.code,
    message: error.message.slice(0, 4096),
    ...(error instanceof NotLeaderError ? { partition: error.partition, leader: error.leader } : {}),
    ...(error instanceof BusyError ? { retryAfterMs: error.retryAfterMs } : {}),
    ...(error instanceof InvalidInputError ? { issues: error.issues.slice(0, 100) } : {}),
  };
}

export function fromWire(value: unknown): ClusterError {
  const parsed = wireErrorSchema.safeParse(value);
  if (!parsed.success) return new UnavailableError("a member answered with an error that can't be read");
  const error = ofCode(parsed.data);
  error.message = parsed.data.message;
  return error;
}

function ofCode({ code, message, partition, leader, retryAfterMs, issues }: WireError): ClusterError {
  switch (code) {
    case "NOT_LEADER":
      return new NotLeaderError(partition ?? -1, leader);
    case "OUTCOME_UNKNOWN":
      return new OutcomeUnknownError(message);
    case "BUSY":
      return new BusyError(message, retryAfterMs ?? 100);
    case "INVALID_INPUT":
      return new InvalidInputError(message, issues ?? []);
    case "UNAUTHENTICATED":
      return new UnauthenticatedError(message);
    case "FORBIDDEN":
      return new ForbiddenError(message);
    case "NOT_FOUND":
      return new NotFoundError(message);
    case "WRONG_STATE":
      return new WrongStateError(message);
    case "PRECONDITION_FAILED":
      return new PreconditionFailedError(message);
    case "TOO_LARGE":
      return new TooLargeError(message);
    case "REFUSED":
      return new RefusedError(message);
    case "STALE_DATA_DIRECTORY":
      return new StaleDataDirectoryError(message);
    case "DAMAGED":
      return new DamagedError(message);
    case "UNSUPPORTED":
      return new UnsupportedError(message);
    case "USAGE":
      return new UsageError(message);
    default: // UNAVAILABLE, and codes of a later version.
      return new UnavailableError(message);
  }
}

/**
 * What a procedure failed with, as an expected failure; undefined when it is none
 * of those, and so a defect.
 */
export function expectedError(thrown: unknown): ClusterError | undefined {
  if (thrown instanceof ClusterError) return thrown;
  if (!(thrown instanceof TRPCError)) return undefined;
  if (thrown.cause instanceof ClusterError) return thrown.cause;
  if (thrown.code === "NOT_FOUND") return new UnsupportedError(thrown.message);
  if (thrown.code === "BAD_REQUEST" && thrown.cause instanceof z.core.$ZodError)
    return inputError(thrown.cause);
  return undefined;
}

/** UNSUPPORTED when a later version's `kind` was met, else INVALID_INPUT. */
function inputError(cause: z.core.$ZodError): ClusterError {
  if (isUnknownKind(cause))
    return new UnsupportedError("this member doesn't know that kind of request yet", { cause });
  const issues = cause.issues
    .slice(0, 100)
    .map(({ path, message }) => ({ path: path.map(String).join("."), message }));
  const [first] = issues;
  const where = first === undefined ? "" : `: ${first.path === "" ? "" : `${first.path}: `}${first.message}`;
  return new InvalidInputError(`a member was asked something that it can't read${where}`, issues, { cause });
}

export function isUnknownKind(error: z.core.$ZodError): boolean {
  return error.issues.some((issue) => issue.code === "invalid_union" && issue.discriminator === "kind");
}
