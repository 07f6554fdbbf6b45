/** `jobs`: what runs, and what to do with it. */
import { type Command, Option } from "commander";
import { type Failure, type Job, type JobStatus, jobStatusSchema } from "../../job/job-spec.ts";
import type { Client } from "../../sdk/client.ts";
import { type ClientFlags, clientCommand, withClient } from "../client-command.ts";
import { DONE, type Runner } from "../exit-code.ts";
import { wholeNumber } from "../flag.ts";
import { printable, say, sayJson, shortened, table } from "../terminal.ts";

interface ListFlags extends ClientFlags {
  readonly status?: JobStatus;
  readonly limit: number;
}

const NAME_CHARS = 40;

export function addJobs(program: Command, run: Runner): void {
  const jobs = program
    .command("jobs")
    .description("list, look at, pause, resume, cancel, retry and remove jobs");
  const sub = (usage: string, description: string) => clientCommand(jobs, usage, description);
  const act = (flags: ClientFlags, work: (client: Client) => Promise<void>) =>
    run(async () => {
      await withClient(flags, work);
      return DONE;
    });

  sub("list", "your jobs, newest first")
    .addOption(new Option("--status <status>", "only these").choices(jobStatusSchema.options))
    .option("--limit <n>", "at most", wholeNumber(1, 1000), 20)
    .action((flags: ListFlags) =>
      act(flags, async (client) => {
        const { items } = await client.jobs.list({ limit: flags.limit, status: flags.status });
        if (flags.json === true) for (const job of items) sayJson(job);
        else say(items.length === 0 ? "no jobs" : table(HEAD, items.map(row)));
      }),
    );
  const actions = {
    get: "one job with its statistics",
    pause: "start no more requests until it is resumed",
    resume: "go on with a paused job",
    cancel: "end a job; what it has stored stays",
  } as const;
  for (const action of ["get", "pause", "resume", "cancel"] as const) {
    sub(`${action} <job>`, actions[action]).action((jobId: string, flags: ClientFlags) =>
      act(flags, async (client) => {
        const job = await client.jobs[action](jobId);
        if (flags.json === true) sayJson(job);
        else show(job);
      }),
    );
  }
  sub("failures <job>", "pages that failed, with reason and tries")
    .option("--limit <n>", "at most", wholeNumber(1, 1_000_000), 1000)
    .action((jobId: string, flags: ListFlags) =>
      act(flags, async (client) => {
        for (let left = flags.limit, cursor: string | undefined; left > 0; ) {
          const page = await client.jobs.failures(jobId, { limit: Math.min(left, 1000), cursor });
          for (const failure of page.items) {
            if (flags.json === true) sayJson(failure);
            else say(failureLine(failure));
          }
          left -= page.items.length;
          if (page.nextCursor === null || page.items.length === 0) break;
          cursor = page.nextCursor;
        }
      }),
    );
  sub("retry <job>", "fetch the pages that failed again").action((jobId: string, flags: ClientFlags) =>
    act(flags, async (client) => {
      const job = await client.jobs.retryFailures(jobId);
      if (flags.json === true) sayJson(job);
      else show(job);
    }),
  );
  sub("rm <job>", "remove a job and all that it has stored").action((jobId: string, flags: ClientFlags) =>
    act(flags, async (client) => {
      await client.jobs.remove(jobId);
      if (flags.json === true) sayJson({ id: jobId, removed: true });
      else say(`removed ${printable(jobId)}`);
    }),
  );
}

const HEAD = ["job", "status", "pages", "failed", "pending", "created", "name or first URL"] as const;

function row(job: Job): string[] {
  const { id, status, stats, createdAt, name, spec } = job;
  const what = shortened(printable(name ?? spec.seeds[0] ?? ""), NAME_CHARS);
  return [
    id,
    status,
    String(stats.results),
    String(stats.failed),
    String(stats.pending),
    createdAt.slice(0, 19),
    what,
  ];
}

function failureLine({ url, reason, attempts }: Failure): string {
  const tries = attempts === 1 ? "1 try" : `${attempts} tries`;
  return `${printable(url)}  ${printable(reason)}, ${tries}`;
}

function show(job: Job): void {
  const { stats } = job;
  say(table(HEAD, [row(job)]));
  say(
    `  ${stats.discovered} found = ${stats.done} done + ${stats.failed} failed + ${stats.skipped} skipped + ${stats.pending} pending; ${stats.pagesPerSecond.toFixed(1)}/s`,
  );
  for (const { host, until, reason } of stats.waitingOn.slice(0, 10)) {
    say(`  waiting for ${printable(host)} until ${new Date(until).toISOString()}: ${printable(reason)}`);
  }
  if (job.error !== undefined) say(`  ${printable(job.error)}`);
}
