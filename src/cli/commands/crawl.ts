/** `crawl`: submit, follow, write the results as they come. */
import { createHash } from "node:crypto";
import type { Command } from "commander";
import type { Job, JobSpec } from "../../job/job-spec.ts";
import type { Client } from "../../sdk/client.ts";
import { DONE, FAILED, PARTLY_FAILED, type Runner } from "../exit-code.ts";
import { wholeNumber } from "../flag.ts";
import { interruption, whenAborted } from "../interrupt.ts";
import { Progress } from "../progress.ts";
import { formatOf, ResultFile, requireWritable } from "../result-file.ts";
import { openSession, type SessionFlags, withSessionFlags } from "../session.ts";
import { note, printable } from "../terminal.ts";

interface CrawlFlags extends SessionFlags {
  readonly maxPages?: number;
  readonly maxDepth?: number;
  readonly delay?: number;
  readonly extract?: string;
  readonly output?: string;
  readonly json?: true;
}

const SETTLE_MS_MAX = 5_000;
const FAILURES_SHOWN = 5;
const TRAPS_SHOWN = 10;

export function addCrawl(program: Command, run: Runner): void {
  withSessionFlags(
    program
      .command("crawl")
      .description("crawl a site: a URL, or a file with a job spec")
      .argument("<url-or-spec>", "https://example.org/ or spec.json")
      .option("--max-pages <n>", "results at most (1000)", wholeNumber(1, 1_000_000_000))
      .option("--max-depth <n>", "links to follow from a seed at most (5)", wholeNumber(0, 1_000_000))
      .option("--delay <ms>", "between two requests to one host (1000)", wholeNumber(0, 3_600_000))
      .option("--extract <file>", "rules for the fields to extract, JSON")
      .option(
        "-o, --output <file>",
        "write results to FILE.ndjson, .json or .csv (else NDJSON on standard output)",
      )
      .option("--json", "end with one line of JSON about the job, on standard error")
      .option("--data <dir>", "keep the state of this crawl there, and go on with it the next time"),
  ).action((target: string, flags: CrawlFlags) => run(() => crawl(target, flags)));
}

async function crawl(target: string, flags: CrawlFlags): Promise<number> {
  if (flags.output !== undefined) {
    formatOf(flags.output);
    await requireWritable(flags.output);
  }
  const { readTarget } = await import("../crawl-target.ts");
  const spec = await readTarget(target, flags);
  const interrupted = interruption();
  const session = await openSession(flags);
  try {
    const isKept = flags.data !== undefined;
    const job = await submit(session.client, spec, isKept);
    const fields = Object.keys(spec.extract);
    const file =
      flags.output === undefined
        ? new ResultFile(process.stdout, "ndjson", fields)
        : await ResultFile.create(flags.output, fields);
    await follow(session.client, job.id, file, { interrupted, isKept });
    return await conclude(session.client, job.id, file, { flags, interrupted });
  } finally {
    await session.close();
  }
}

/** With kept state the same spec is the same job: it goes on where it stopped. */
async function submit(client: Client, spec: JobSpec, isKept: boolean): Promise<Job> {
  if (!isKept) return client.jobs.submit(spec);
  const idempotencyKey = createHash("sha256").update(JSON.stringify(spec)).digest("hex");
  const job = await client.jobs.submit(spec, { idempotencyKey });
  return job.status === "paused" ? client.jobs.resume(job.id) : job;
}

async function follow(
  client: Client,
  jobId: string,
  file: ResultFile,
  { interrupted, isKept }: { interrupted: AbortSignal; isKept: boolean },
): Promise<void> {
  const reading = new AbortController();
  const progress = new Progress(process.stderr);
  const watching = watch(client, jobId, progress, reading.signal);
  // Cancelled, the job ends soon, and the reader has all of it; kept, it goes on the next time.
  const ending = whenAborted(interrupted).then(async () => {
    if (isKept) return reading.abort();
    const timer = setTimeout(() => reading.abort(), SETTLE_MS_MAX);
    timer.unref();
    await client.jobs.cancel(jobId).catch(() => reading.abort());
  });
  // It waits for a signal that may never come; what it does is done before the reader ends.
  void ending;
  try {
    for await (const result of client.results(jobId, { signal: reading.signal })) await file.write(result);
  } finally {
    reading.abort();
    await watching;
    progress.end();
    await file.close();
  }
}

/** Progress is only shown: a crawl does not fail because it could not be watched. */
async function watch(client: Client, jobId: string, progress: Progress, signal: AbortSignal): Promise<void> {
  try {
    for await (const event of client.events(jobId, { pages: false, signal })) {
      if (event.kind === "progress") progress.show(event.stats);
      if (event.kind === "status") progress.show(event.job.stats);
    }
  } catch (error) {
    progress.end();
    note(`progress can't be shown: ${error instanceof Error ? printable(error.message) : String(error)}`);
  }
}

async function conclude(
  client: Client,
  jobId: string,
  file: ResultFile,
  { flags, interrupted }: { flags: CrawlFlags; interrupted: AbortSignal },
): Promise<number> {
  const job = await client.jobs.get(jobId);
  const { failed, skipped } = job.stats;
  const where = flags.output === undefined ? "" : ` in ${flags.output}`;
  if (flags.json === true) {
    const { id, status, stats, error } = job;
    note(JSON.stringify({ id, status, written: file.count, interrupted: interrupted.aborted, stats, error }));
  } else {
    const state = interrupted.aborted ? "interrupted" : job.status;
    note(`${state}: ${file.count} pages${where}, ${failed} failed, ${skipped} skipped`);
    if (job.error !== undefined) note(`  ${printable(job.error)}`);
    if (failed > 0) await showFailures(client, jobId, failed);
    for (const { host, pattern, reason, pages, example } of job.stats.traps.slice(0, TRAPS_SHOWN)) {
      note(
        `  stopped at ${host}: ${printable(pattern)} (${reason}, ${pages} pages, e.g. ${printable(example)})`,
      );
    }
    if (interrupted.aborted && flags.data !== undefined) note(`the same command goes on with it`);
  }
  if (interrupted.aborted) return PARTLY_FAILED;
  if (job.status === "failed") return FAILED;
  return failed > 0 || job.status === "cancelled" ? PARTLY_FAILED : DONE;
}

async function showFailures(client: Client, jobId: string, failed: number): Promise<void> {
  const { items } = await client.jobs.failures(jobId, { limit: FAILURES_SHOWN });
  for (const { url, reason } of items) note(`  ${printable(url)}: ${printable(reason)}`);
  if (failed > items.length) note(`  and ${failed - items.length} more`);
}
