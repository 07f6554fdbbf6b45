/** The REST table: everything that is reached under /v1. */
import { z } from "zod";
import { explanationSchema } from "../job/explanation.ts";
import { type Job, jobSpecSchema } from "../job/job-spec.ts";
import { credentialsSchema, refreshSignIn, refreshTokenSchema, signIn, signOut } from "./account-calls.ts";
import { administrationRoutes } from "./administration-routes.ts";
import { failureSchema, jobSchema, resultSchema } from "./answer.ts";
import {
  clusterStatusSchema,
  joinTokenGrantSchema,
  lookupTraceSchema,
  nodeStatusSchema,
  partitionStatusSchema,
  signInSchema,
} from "./backend.ts";
import {
  clusterLookup,
  clusterNodes,
  clusterPartitions,
  clusterStatus,
  createJoinToken,
  lookupSchema,
} from "./cluster-calls.ts";
import { sentJobEvents } from "./event-stream.ts";
import {
  askedUrlSchema,
  cancelJob,
  explainUrl,
  getJob,
  idempotencyKeySchema,
  jobEvents,
  jobFailures,
  jobIdSchema,
  jobResults,
  listJobs,
  listSchema,
  pageSchema,
  pauseJob,
  removeJob,
  resumeJob,
  retryJobFailures,
  submitJob,
} from "./job-calls.ts";
import { lockRoutes } from "./lock-routes.ts";
import { asEmpty, asJson, listOf, type Route, route } from "./route.ts";
import { scrapePage, scrapeSchema } from "./scrape-call.ts";
import { valueRoutes } from "./value-routes.ts";

const KIB = 1024;
/** 10,000 seeds of 400 characters on average. */
const SPEC_BYTES_MAX = 4096 * KIB;
const SMALL_BODY_BYTES_MAX = 16 * KIB;

const ofJob = z.object({ id: jobIdSchema });
const jobAction = { params: ofJob, response: jobSchema, answer: asJson } as const;

export const routes: readonly Route[] = [
  route("post", "/v1/auth/token", {
    call: signIn,
    summary: "Sign in with a name and a password",
    body: { schema: credentialsSchema, bytesMax: SMALL_BODY_BYTES_MAX },
    response: signInSchema,
    input: ({ body }) => body,
    answer: asJson,
  }),
  route("post", "/v1/auth/refresh", {
    call: refreshSignIn,
    summary: "Exchange a refresh token for new tokens",
    body: { schema: refreshTokenSchema, bytesMax: SMALL_BODY_BYTES_MAX },
    response: signInSchema,
    input: ({ body }) => body,
    answer: asJson,
  }),
  route("post", "/v1/auth/revoke", {
    call: signOut,
    summary: "End a session on all servers",
    body: { schema: refreshTokenSchema, bytesMax: SMALL_BODY_BYTES_MAX },
    response: null,
    status: 204,
    input: ({ body }) => body,
    answer: asEmpty,
  }),

  route("post", "/v1/jobs", {
    call: submitJob,
    summary: "Submit a crawl",
    headers: z.object({ "idempotency-key": idempotencyKeySchema.optional() }),
    body: { schema: jobSpecSchema, bytesMax: SPEC_BYTES_MAX },
    response: jobSchema,
    status: 202,
    input: ({ body, headers }) => ({ spec: body, idempotencyKey: headers["idempotency-key"] }),
    answer: (job: Job) => ({ kind: "json", body: job, headers: { Location: `/v1/jobs/${job.id}` } }),
  }),
  route("get", "/v1/jobs", {
    call: listJobs,
    summary: "List jobs, newest first",
    query: listSchema,
    response: listOf(jobSchema),
    input: ({ query }) => query,
    answer: asJson,
  }),
  route("get", "/v1/jobs/:id", {
    ...jobAction,
    call: getJob,
    summary: "One job with its statistics",
    input: ({ params }) => ({ jobId: params.id }),
  }),
  route("post", "/v1/jobs/:id/pause", {
    ...jobAction,
    call: pauseJob,
    summary: "Start no more requests until it is resumed",
    input: ({ params }) => ({ jobId: params.id }),
  }),
  route("post", "/v1/jobs/:id/resume", {
    ...jobAction,
    call: resumeJob,
    summary: "Go on with a paused job",
    input: ({ params }) => ({ jobId: params.id }),
  }),
  route("post", "/v1/jobs/:id/cancel", {
    ...jobAction,
    call: cancelJob,
    summary: "End a job; what it has stored stays",
    input: ({ params }) => ({ jobId: params.id }),
  }),
  route("post", "/v1/jobs/:id/retry-failures", {
    ...jobAction,
    call: retryJobFailures,
    status: 202,
    summary: "Fetch the pages that failed again, in another run of a job that is over",
    input: ({ params }) => ({ jobId: params.id }),
  }),
  route("delete", "/v1/jobs/:id", {
    call: removeJob,
    summary: "Remove a job and all that it has stored",
    params: ofJob,
    response: null,
    status: 204,
    input: ({ params }) => ({ jobId: params.id }),
    answer: asEmpty,
  }),
  route("get", "/v1/jobs/:id/results", {
    call: jobResults,
    summary: "Results; while the job runs, ask again with nextCursor",
    params: ofJob,
    query: pageSchema,
    response: listOf(resultSchema),
    input: ({ params, query }) => ({ ...query, jobId: params.id }),
    answer: asJson,
  }),
  route("get", "/v1/jobs/:id/failures", {
    call: jobFailures,
    summary: "Pages that failed, and why",
    params: ofJob,
    query: pageSchema,
    response: listOf(failureSchema),
    input: ({ params, query }) => ({ ...query, jobId: params.id }),
    answer: asJson,
  }),
  route("get", "/v1/jobs/:id/explain", {
    call: explainUrl,
    summary: "Why a URL was, or was not, fetched",
    params: ofJob,
    query: z.strictObject({ url: askedUrlSchema }),
    response: explanationSchema,
    input: ({ params, query }) => ({ jobId: params.id, url: query.url }),
    answer: asJson,
  }),
  route("get", "/v1/jobs/:id/events", {
    call: jobEvents,
    summary: "Server-sent events: progress, page, status",
    params: ofJob,
    query: z.strictObject({ pages: z.enum(["true", "false"]).default("true") }),
    headers: z.object({ "last-event-id": z.string().max(8192).optional() }),
    response: "events",
    input: ({ params, query, headers }) => ({
      jobId: params.id,
      pages: query.pages === "true",
      lastEventId: headers["last-event-id"],
    }),
    answer: (events) => ({ kind: "events", events: sentJobEvents(events) }),
  }),
  route("post", "/v1/scrape", {
    call: scrapePage,
    summary: "One page, answered in the response",
    body: { schema: scrapeSchema, bytesMax: 256 * KIB },
    response: resultSchema,
    input: ({ body }) => body,
    answer: asJson,
  }),

  ...administrationRoutes,
  ...valueRoutes,
  ...lockRoutes,

  route("get", "/v1/cluster", {
    call: clusterStatus,
    summary: "The ring and its health",
    response: clusterStatusSchema,
    input: () => ({}),
    answer: asJson,
  }),
  route("get", "/v1/cluster/nodes", {
    call: clusterNodes,
    summary: "The members",
    response: listOf(nodeStatusSchema),
    input: () => ({}),
    answer: asJson,
  }),
  route("get", "/v1/cluster/partitions", {
    call: clusterPartitions,
    summary: "Leaders and replicas of all partitions",
    response: listOf(partitionStatusSchema),
    input: () => ({}),
    answer: asJson,
  }),
  route("get", "/v1/cluster/lookup/:key", {
    call: clusterLookup,
    summary: "Where a key is, and which members were asked to find it",
    params: lookupSchema,
    response: lookupTraceSchema,
    input: ({ params }) => params,
    answer: asJson,
  }),
  route("post", "/v1/cluster/join-tokens", {
    call: createJoinToken,
    summary: "A token that lets one server in, for an hour",
    response: joinTokenGrantSchema,
    status: 201,
    input: () => ({}),
    answer: asJson,
  }),
];
