/**
 * The same calls as tRPC procedures, for the SDK and the GUI: typed from end to
 * end, superjson on the wire. Errors carry what ours carry: `code`, `remedy`,
 * `retryAfterMs`, `issues`, in `data`.
 */
import { initTRPC, TRPCError } from "@trpc/server";
import superjson from "superjson";
import { z } from "zod";
import {
  ClusterError,
  type ErrorCode,
  type ErrorDetails,
  type InputIssue,
  InvalidInputError,
  type Remedy,
} from "../errors.ts";
import type { Scope } from "../identity/permission.ts";
import { refreshSignIn, signIn, signOut } from "./account-calls.ts";
import {
  drainNode,
  keepNode,
  listAudit,
  listLosses,
  recoverPartitions,
  removeNode,
} from "./administration-calls.ts";
import { type Asker, admit, type Call, perform } from "./call.ts";
import {
  clusterLookup,
  clusterNodes,
  clusterPartitions,
  clusterStatus,
  createJoinToken,
} from "./cluster-calls.ts";
import {
  cancelJob,
  explainUrl,
  getJob,
  jobFailures,
  jobResults,
  listJobs,
  pauseJob,
  removeJob,
  resumeJob,
  retryJobFailures,
  submitJob,
} from "./job-calls.ts";
import { acquireLock, releaseLock, renewLock } from "./lock-calls.ts";
import { inputError, isTemporary, retryAfterMsOf, statusOf } from "./problem.ts";
import { scrapePage } from "./scrape-call.ts";
import { getValue, listValues, removeValue, setValue } from "./value-calls.ts";

export interface PublicContext {
  readonly asker: Asker;
  readonly requestId: string;
}

/** `data` of an error; null where a failure has none. */
export interface EdgeErrorData {
  readonly code: ErrorCode | "INTERNAL";
  readonly remedy: Remedy;
  readonly httpStatus: number;
  readonly retryAfterMs: number | null;
  readonly issues: readonly InputIssue[];
  readonly details: ErrorDetails;
  readonly requestId: string;
}

const TRPC_CODE: Readonly<Record<number, TRPCError["code"]>> = {
  400: "BAD_REQUEST",
  401: "UNAUTHORIZED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  409: "CONFLICT",
  412: "PRECONDITION_FAILED",
  413: "PAYLOAD_TOO_LARGE",
  422: "UNPROCESSABLE_CONTENT",
  429: "TOO_MANY_REQUESTS",
  501: "NOT_IMPLEMENTED",
  502: "BAD_GATEWAY",
  503: "SERVICE_UNAVAILABLE",
};

const t = initTRPC.context<PublicContext>().create({
  transformer: superjson,
  isDev: false,
  errorFormatter: ({ shape, error, ctx }) => {
    const requestId = ctx?.requestId ?? "";
    const known = expected(error);
    const data = known === undefined ? unexpectedData(error, shape.data.httpStatus) : knownData(known);
    return { code: shape.code, message: textOf(error, known, requestId), data: { ...data, requestId } };
  },
});

function knownData(error: ClusterError): Omit<EdgeErrorData, "requestId"> {
  const httpStatus = statusOf(error);
  return {
    code: error.code,
    remedy: error.remedy,
    httpStatus,
    retryAfterMs: isTemporary(httpStatus) ? retryAfterMsOf(error) : null,
    issues: error instanceof InvalidInputError ? error.issues : [],
    details: error.details,
  };
}

/** A defect, or something that tRPC itself refuses: an unknown procedure, a body too large. */
function unexpectedData(error: TRPCError, httpStatus: number): Omit<EdgeErrorData, "requestId"> {
  const code = error.code === "PAYLOAD_TOO_LARGE" ? "TOO_LARGE" : "INTERNAL";
  return { code, remedy: "reject", httpStatus, retryAfterMs: null, issues: [], details: {} };
}

function textOf(error: TRPCError, known: ClusterError | undefined, requestId: string): string {
  if (known !== undefined) return known.message;
  if (error.code !== "INTERNAL_SERVER_ERROR") return error.message;
  return `something failed on this server; its log has more under ${requestId}`;
}

/** What a procedure failed with, as one of ours; undefined: a defect, or a misuse of tRPC itself. */
function expected(error: TRPCError): ClusterError | undefined {
  if (error.cause instanceof ClusterError) return error.cause;
  if (error.code === "BAD_REQUEST" && error.cause instanceof z.core.$ZodError) {
    return inputError("the input", error.cause);
  }
  return undefined;
}

const { procedure, router } = t;

/** Who may is decided before the input is looked at: a stranger learns nothing from what is wrong with it. */
function guarded(access: Scope | "open") {
  return procedure.use(async ({ ctx, next }) => {
    await orTrpcError(() => admit(ctx.asker, access));
    return next();
  });
}

async function run<Input extends z.ZodType, Output>(
  { asker }: PublicContext,
  call: Call<Input, Output>,
  input: z.output<Input>,
): Promise<Output> {
  return orTrpcError(() => perform(asker, call, input));
}

async function orTrpcError<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof ClusterError)) throw cause;
    const code = TRPC_CODE[statusOf(cause)] ?? "INTERNAL_SERVER_ERROR";
    throw new TRPCError({ code, message: cause.message, cause });
  }
}

export const publicRouter = router({
  auth: router({
    token: guarded(signIn.access)
      .input(signIn.input)
      .mutation(({ ctx, input }) => run(ctx, signIn, input)),
    refresh: guarded(refreshSignIn.access)
      .input(refreshSignIn.input)
      .mutation(({ ctx, input }) => run(ctx, refreshSignIn, input)),
    revoke: guarded(signOut.access)
      .input(signOut.input)
      .mutation(({ ctx, input }) => run(ctx, signOut, input)),
  }),
  jobs: router({
    submit: guarded(submitJob.access)
      .input(submitJob.input)
      .mutation(({ ctx, input }) => run(ctx, submitJob, input)),
    list: guarded(listJobs.access)
      .input(listJobs.input)
      .query(({ ctx, input }) => run(ctx, listJobs, input)),
    get: guarded(getJob.access)
      .input(getJob.input)
      .query(({ ctx, input }) => run(ctx, getJob, input)),
    pause: guarded(pauseJob.access)
      .input(pauseJob.input)
      .mutation(({ ctx, input }) => run(ctx, pauseJob, input)),
    resume: guarded(resumeJob.access)
      .input(resumeJob.input)
      .mutation(({ ctx, input }) => run(ctx, resumeJob, input)),
    cancel: guarded(cancelJob.access)
      .input(cancelJob.input)
      .mutation(({ ctx, input }) => run(ctx, cancelJob, input)),
    remove: guarded(removeJob.access)
      .input(removeJob.input)
      .mutation(({ ctx, input }) => run(ctx, removeJob, input)),
    results: guarded(jobResults.access)
      .input(jobResults.input)
      .query(({ ctx, input }) => run(ctx, jobResults, input)),
    explain: guarded(explainUrl.access)
      .input(explainUrl.input)
      .query(({ ctx, input }) => run(ctx, explainUrl, input)),
    retryFailures: guarded(retryJobFailures.access)
      .input(retryJobFailures.input)
      .mutation(({ ctx, input }) => run(ctx, retryJobFailures, input)),
    failures: guarded(jobFailures.access)
      .input(jobFailures.input)
      .query(({ ctx, input }) => run(ctx, jobFailures, input)),
  }),
  scrape: guarded(scrapePage.access)
    .input(scrapePage.input)
    .mutation(({ ctx, input }) => run(ctx, scrapePage, input)),
  kv: router({
    // Bytes as base64: a third more than raw, a quarter of what superjson makes of them.
    get: guarded(getValue.access)
      .input(getValue.input)
      .query(async ({ ctx, input }) => {
        const read = await run(ctx, getValue, input);
        if (read.kind === "unchanged") return read;
        const { bytes, ...rest } = read;
        return { ...rest, value: Buffer.from(bytes).toString("base64") };
      }),
    set: guarded(setValue.access)
      .input(setValue.input)
      .mutation(({ ctx, input }) => run(ctx, setValue, input)),
    remove: guarded(removeValue.access)
      .input(removeValue.input)
      .mutation(({ ctx, input }) => run(ctx, removeValue, input)),
    list: guarded(listValues.access)
      .input(listValues.input)
      .query(({ ctx, input }) => run(ctx, listValues, input)),
  }),
  locks: router({
    acquire: guarded(acquireLock.access)
      .input(acquireLock.input)
      .mutation(({ ctx, input }) => run(ctx, acquireLock, input)),
    renew: guarded(renewLock.access)
      .input(renewLock.input)
      .mutation(({ ctx, input }) => run(ctx, renewLock, input)),
    release: guarded(releaseLock.access)
      .input(releaseLock.input)
      .mutation(({ ctx, input }) => run(ctx, releaseLock, input)),
  }),
  administration: router({
    drain: guarded(drainNode.access)
      .input(drainNode.input)
      .mutation(({ ctx, input }) => run(ctx, drainNode, input)),
    keep: guarded(keepNode.access)
      .input(keepNode.input)
      .mutation(({ ctx, input }) => run(ctx, keepNode, input)),
    remove: guarded(removeNode.access)
      .input(removeNode.input)
      .mutation(({ ctx, input }) => run(ctx, removeNode, input)),
    audit: guarded(listAudit.access)
      .input(listAudit.input)
      .query(({ ctx, input }) => run(ctx, listAudit, input)),
  }),
  recovery: router({
    losses: guarded(listLosses.access)
      .input(listLosses.input)
      .mutation(({ ctx, input }) => run(ctx, listLosses, input)),
    recover: guarded(recoverPartitions.access)
      .input(recoverPartitions.input)
      .mutation(({ ctx, input }) => run(ctx, recoverPartitions, input)),
  }),
  cluster: router({
    status: guarded(clusterStatus.access)
      .input(clusterStatus.input)
      .query(({ ctx, input }) => run(ctx, clusterStatus, input)),
    nodes: guarded(clusterNodes.access)
      .input(clusterNodes.input)
      .query(({ ctx, input }) => run(ctx, clusterNodes, input)),
    partitions: guarded(clusterPartitions.access)
      .input(clusterPartitions.input)
      .query(({ ctx, input }) => run(ctx, clusterPartitions, input)),
    lookup: guarded(clusterLookup.access)
      .input(clusterLookup.input)
      .query(({ ctx, input }) => run(ctx, clusterLookup, input)),
    createJoinToken: guarded(createJoinToken.access)
      .input(createJoinToken.input)
      .mutation(({ ctx, input }) => run(ctx, createJoinToken, input)),
  }),
});

export type PublicRouter = typeof publicRouter;
