/**
 * A job as the cluster keeps it: what was asked for, how far it is, how it ended.
 * Written by the leader of the job's partition only.
 */
import { z } from "zod";
import { type Job, type JobStats, jobSpecSchema, jobStatusSchema } from "./job-spec.ts";
import { isOver, mayRunAgain } from "./life-cycle.ts";
import { trapReportSchema } from "./trap-report.ts";

const atMs = z.number().nullable();
const total = z.number().nonnegative();

export const jobStatsSchema = z.object({
  discovered: total,
  done: total,
  failed: total,
  skipped: total,
  pending: total,
  results: total,
  bytes: total,
  pagesPerSecond: total,
  waitingOn: z.array(z.object({ host: z.string(), until: z.number(), reason: z.string() })).readonly(),
  servers: z.record(z.string(), total),
  traps: z.array(trapReportSchema).readonly().default([]),
});

/** A spec without its seeds, which can be long and are needed once. */
export const seedlessSpecSchema = jobSpecSchema.omit({ seeds: true });
export type SeedlessSpec = z.output<typeof seedlessSpecSchema>;

export const jobRecordSchema = z.object({
  jobId: z.string().regex(/^[0-9a-f]{32}$/),
  owner: z.string(),
  status: jobStatusSchema,
  /** From 1; raised when failed pages are tried again. */
  run: z.int().positive(),
  spec: seedlessSpecSchema,
  /** Null: in entries of their own, because they are long. */
  seeds: z.array(z.string()).nullable(),
  seedCount: z.int().nonnegative(),
  /** How many seeds have been accepted by the partitions of their hosts. */
  seededTo: z.int().nonnegative(),
  /** Exact hosts and "*.domain"; null: any host. */
  scopeHosts: z.array(z.string()).nullable(),
  /** SHA-256 of the spec as submitted: tells a repeat from another job under the same key. */
  specHash: z.string(),
  createdAtMs: z.number(),
  startedAtMs: atMs,
  finishedAtMs: atMs,
  error: z.string().nullable(),
  /** Final; null while anything may still change. */
  stats: jobStatsSchema.nullable(),
  /** Being deleted: for everyone else it is gone. */
  deleted: z.boolean(),
});

export type JobRecord = z.output<typeof jobRecordSchema>;

/** Over, and counted: nothing about it will change but its deletion. */
export function isSettled(record: JobRecord): boolean {
  return isOver(record.status) && record.stats !== null;
}

/** Why the job can't have another run with what failed, for people; undefined: it can. */
export function runAgainRefusal({ status, stats, spec }: JobRecord): string | undefined {
  if (!mayRunAgain(status) || stats === null) {
    return `the job is ${status}: what failed is tried again once it is completed or failed`;
  }
  if (stats.failed === 0) return "no page of the job failed: there is nothing to try again";
  const { maxPages } = spec.scope;
  return stats.results < maxPages
    ? undefined
    : `the job has its ${maxPages} results: scope.maxPages allows no more`;
}

const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());

/** As people see it. */
export function jobOf(record: JobRecord, seeds: readonly string[], stats: JobStats): Job {
  const { name, ...rest } = record.spec;
  return {
    id: record.jobId,
    name: name ?? null,
    owner: record.owner,
    status: record.status,
    spec: { ...(name === undefined ? {} : { name }), seeds: [...seeds], ...rest },
    stats: record.stats ?? stats,
    createdAt: new Date(record.createdAtMs).toISOString(),
    startedAt: iso(record.startedAtMs),
    finishedAt: iso(record.finishedAtMs),
    ...(record.error === null ? {} : { error: record.error }),
  };
}
