/**
 * The family of failures that are expected. Peers, the edge and the SDK branch
 * on `code`, never on the text; people read the text, which says what to do.
 */

/** What the receiver of a failure should do about it. */
export type Remedy = "retry" | "redirect" | "reject";

export type ErrorCode =
  | "NOT_LEADER"
  | "OUTCOME_UNKNOWN"
  | "BUSY"
  | "UNAVAILABLE"
  | "INVALID_INPUT"
  | "UNAUTHENTICATED"
  | "FORBIDDEN"
  | "NOT_FOUND"
  | "WRONG_STATE"
  | "PRECONDITION_FAILED"
  | "PAGE_FAILED"
  | "LOCK_HELD"
  | "LOCK_LOST"
  | "TOO_LARGE"
  | "REFUSED"
  | "STALE_DATA_DIRECTORY"
  | "DAMAGED"
  | "UNSUPPORTED"
  | "USAGE";

export abstract class ClusterError extends Error {
  abstract readonly code: ErrorCode;
  abstract readonly remedy: Remedy;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }

  /** What a program needs beside the code to go on, e.g. the present ETag. */
  get details(): ErrorDetails {
    return {};
  }
}

export type ErrorDetails = Readonly<Record<string, string | number | null>>;

/** This server does not lead the partition; nothing of the operation has happened or will. */
export class NotLeaderError extends ClusterError {
  readonly code = "NOT_LEADER";
  readonly remedy = "redirect";
  readonly partition: number;
  /** Node id of the leader as far as the answerer knows; a hint. */
  readonly leader: string | undefined;

  constructor(partition: number, leader?: string, options?: ErrorOptions) {
    super(
      `this server does not lead partition ${partition}${leader ? `, ${leader.slice(0, 8)} does` : ""}`,
      options,
    );
    this.partition = partition;
    this.leader = leader;
  }
}

/** The operation was handed over when leadership was lost: it may or may not have happened. */
export class OutcomeUnknownError extends ClusterError {
  readonly code = "OUTCOME_UNKNOWN";
  readonly remedy = "retry";

  constructor(what: string, options?: ErrorOptions) {
    super(
      `${what}: leadership changed meanwhile, it may or may not have happened; read before you repeat it`,
      options,
    );
  }
}

/** A bound was reached before anything was written. */
export class BusyError extends ClusterError {
  readonly code = "BUSY";
  readonly remedy = "retry";
  readonly retryAfterMs: number;

  constructor(what: string, retryAfterMs: number, options?: ErrorOptions) {
    super(`${what} is at its limit; try again in ${retryAfterMs} ms`, options);
    this.retryAfterMs = retryAfterMs;
  }
}

/** No majority, no route, or no answer within the deadline. A write may or may not have happened. */
export class UnavailableError extends ClusterError {
  readonly code = "UNAVAILABLE";
  readonly remedy = "retry";
}

export type InputIssue = { readonly path: string; readonly message: string };

/** Input that no retry will make valid. `issues` name the wrong fields, e.g. `scope.maxPages`. */
export class InvalidInputError extends ClusterError {
  readonly code = "INVALID_INPUT";
  readonly remedy = "reject";
  readonly issues: readonly InputIssue[];

  constructor(message: string, issues: readonly InputIssue[] = [], options?: ErrorOptions) {
    super(message, options);
    this.issues = issues;
  }
}

export class UnauthenticatedError extends ClusterError {
  readonly code = "UNAUTHENTICATED";
  readonly remedy = "reject";
}

export class ForbiddenError extends ClusterError {
  readonly code = "FORBIDDEN";
  readonly remedy = "reject";
}

/** Unknown, or not the asker's: the two are not told apart. */
export class NotFoundError extends ClusterError {
  readonly code = "NOT_FOUND";
  readonly remedy = "reject";
}

export class WrongStateError extends ClusterError {
  readonly code = "WRONG_STATE";
  readonly remedy = "reject";
}

export class TooLargeError extends ClusterError {
  readonly code = "TOO_LARGE";
  readonly remedy = "reject";
}

/** A peer that must not be spoken to: another cluster, a revoked or unknown certificate, a role that may not. */
export class RefusedError extends ClusterError {
  readonly code = "REFUSED";
  readonly remedy = "reject";
}

/** The data directory is an old copy: peers have seen a later start of this node. */
export class StaleDataDirectoryError extends ClusterError {
  readonly code = "STALE_DATA_DIRECTORY";
  readonly remedy = "reject";
}

/** Bytes that can't be authenticated or decoded. Never the same as absent. */
export class DamagedError extends ClusterError {
  readonly code = "DAMAGED";
  readonly remedy = "reject";
}

/** The entry is not the one that the caller named: read it again before changing it. */
export class PreconditionFailedError extends ClusterError {
  readonly code = "PRECONDITION_FAILED";
  readonly remedy = "reject";
  /** Of what stands there now, as an ETag header has it; null: nothing. */
  readonly etag: string | null;

  constructor(message: string, etag: string | null = null, options?: ErrorOptions) {
    super(message, options);
    this.etag = etag;
  }

  override get details(): ErrorDetails {
    return { etag: this.etag };
  }
}

/** The site did not give the page, or not in time: nothing is wrong with the cluster. */
export class PageFailedError extends ClusterError {
  readonly code = "PAGE_FAILED";
  readonly remedy = "reject";
  /** What the site answered; null: nothing usable. */
  readonly pageStatus: number | null;

  constructor(reason: string, pageStatus: number | null, options?: ErrorOptions) {
    super(`the page gave no result: ${reason}`, options);
    this.pageStatus = pageStatus;
  }

  override get details(): ErrorDetails {
    return { pageStatus: this.pageStatus };
  }
}

/** A lease that somebody holds. `expiresAt`: ISO 8601, if it is not renewed. */
interface Holding {
  readonly fencingToken: number;
  readonly expiresAt: string;
}

/** Somebody else holds the lock; undefined: it is free, but others wait for it. */
export class LockHeldError extends ClusterError {
  readonly code = "LOCK_HELD";
  readonly remedy = "reject";
  readonly holding: Holding | undefined;

  constructor(name: string, holding: Holding | undefined, options?: ErrorOptions) {
    super(
      holding === undefined
        ? `others wait for the lock ${name}: give a waitMs to wait as well`
        : `the lock ${name} is held under the fencing token ${holding.fencingToken} until ${holding.expiresAt}, or longer if that is renewed; give a waitMs to wait for it`,
      options,
    );
    this.holding = holding;
  }

  override get details(): ErrorDetails {
    return detailsOf(this.holding);
  }
}

/** The lease has ended, or was never the asker's; undefined: nobody holds the lock now. */
export class LockLostError extends ClusterError {
  readonly code = "LOCK_LOST";
  readonly remedy = "reject";
  readonly holding: Holding | undefined;

  constructor(name: string, holding: Holding | undefined, options?: ErrorOptions) {
    super(
      `the lock ${name} is not yours (any more)${holding === undefined ? "" : `: it is held under the fencing token ${holding.fencingToken}`}; stop what it protects, and acquire it anew`,
      options,
    );
    this.holding = holding;
  }

  override get details(): ErrorDetails {
    return detailsOf(this.holding);
  }
}

function detailsOf(holding: Holding | undefined): ErrorDetails {
  return { fencingToken: holding?.fencingToken ?? null, expiresAt: holding?.expiresAt ?? null };
}

/** A kind of message or a procedure of a later version; nothing happened. */
export class UnsupportedError extends ClusterError {
  readonly code = "UNSUPPORTED";
  readonly remedy = "reject";
}

/** The person at the terminal asked for something that can't be done as written: exit code 2. */
export class UsageError extends ClusterError {
  readonly code = "USAGE";
  readonly remedy = "reject";
}
