/** The forms of answers about jobs, for the description of the API. Held to the types that are answered. */
import { z } from "zod";
import {
  type Failure,
  type Job,
  type JobStats,
  jobSpecSchema,
  jobStatusSchema,
  type Result,
} from "../job/job-spec.ts";
import { trapReportSchema } from "../job/trap-report.ts";

const count = z.int().nonnegative();

export const jobStatsSchema = z.object({
  discovered: count,
  done: count,
  failed: count,
  skipped: count,
  pending: count,
  results: count,
  bytes: count,
  pagesPerSecond: z.number(),
  waitingOn: z.array(z.object({ host: z.string(), until: z.number(), reason: z.string() })),
  servers: z.record(z.string(), count),
  traps: z.array(trapReportSchema),
}) satisfies z.ZodType<JobStats>;

export const jobSchema = z.object({
  id: z.string(),
  name: z.string().nullable(),
  owner: z.string(),
  status: jobStatusSchema,
  spec: jobSpecSchema,
  stats: jobStatsSchema,
  createdAt: z.string(),
  startedAt: z.string().nullable(),
  finishedAt: z.string().nullable(),
  error: z.string().exactOptional(),
}) satisfies z.ZodType<Job>;

type FieldValue = Result["data"][string];
const fieldValueSchema: z.ZodType<FieldValue> = z.lazy(() =>
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.null(),
    z.array(fieldValueSchema),
    z.record(z.string(), fieldValueSchema),
  ]),
);

export const resultSchema = z.object({
  url: z.string(),
  finalUrl: z.string(),
  key: z.string(),
  status: z.int(),
  contentType: z.string().nullable(),
  fetchedAt: z.string(),
  depth: count,
  parent: z.string().nullable(),
  attempt: count,
  durationMs: z.number(),
  bytes: count,
  sha256: z.string(),
  duplicateOf: z.string().exactOptional(),
  nearDuplicateOf: z.string().exactOptional(),
  data: z.record(z.string(), fieldValueSchema),
  fieldErrors: z.array(z.object({ field: z.string(), message: z.string() })).exactOptional(),
  metadata: z
    .object({
      title: z.string().nullable(),
      description: z.string().nullable(),
      language: z.string().nullable(),
      canonical: z.string().nullable(),
      author: z.string().nullable(),
      publishedAt: z.string().nullable(),
      modifiedAt: z.string().nullable(),
      siteName: z.string().nullable(),
      image: z.string().nullable(),
    })
    .exactOptional(),
  text: z.string().exactOptional(),
  content: z.string().exactOptional(),
  markdown: z.string().exactOptional(),
  links: z.array(z.object({ url: z.string(), text: z.string(), rel: z.string() })).exactOptional(),
  tables: z
    .array(
      z.object({
        caption: z.string().nullable(),
        header: z.array(z.string()).nullable(),
        rows: z.array(z.array(z.string())),
      }),
    )
    .exactOptional(),
  structured: z
    .object({
      jsonLd: z.array(fieldValueSchema),
      microdata: z.array(fieldValueSchema),
      rdfa: z.array(fieldValueSchema),
      openGraph: z.record(z.string(), z.union([z.string(), z.array(z.string())])),
    })
    .exactOptional(),
  html: z.string().exactOptional(),
}) satisfies z.ZodType<Result>;

export const failureSchema = z.object({
  url: z.string(),
  key: z.string(),
  reason: z.string(),
  status: z.int().nullable(),
  attempts: count,
  failedAt: z.string(),
}) satisfies z.ZodType<Failure>;
