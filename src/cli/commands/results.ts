/** `results`: what a job has stored, as a file or line by line. */
import type { Command } from "commander";
import { withClient } from "../client-command.ts";
import { DONE, PARTLY_FAILED, type Runner } from "../exit-code.ts";
import { interruption } from "../interrupt.ts";
import { type ConnectionFlags, withConnectionFlags } from "../profile.ts";
import { formatOf, ResultFile, requireWritable } from "../result-file.ts";
import { note } from "../terminal.ts";

interface ResultsFlags extends ConnectionFlags {
  readonly output?: string;
  readonly follow?: true;
}

export function addResults(program: Command, run: Runner): void {
  withConnectionFlags(
    program
      .command("results")
      .description("what a job has stored")
      .argument("<job>", "its id")
      .option("-o, --output <file>", "write to FILE.ndjson, .json or .csv (else NDJSON on standard output)")
      .option("--follow", "wait for more until the job is over"),
  ).action((jobId: string, flags: ResultsFlags) => run(() => results(jobId, flags)));
}

async function results(jobId: string, flags: ResultsFlags): Promise<number> {
  if (flags.output !== undefined) {
    formatOf(flags.output);
    await requireWritable(flags.output);
  }
  const interrupted = interruption();
  return withClient(flags, async (client) => {
    const { spec } = await client.jobs.get(jobId);
    const fields = Object.keys(spec.extract);
    const file =
      flags.output === undefined
        ? new ResultFile(process.stdout, "ndjson", fields)
        : await ResultFile.create(flags.output, fields);
    try {
      const options = { follow: flags.follow === true, signal: interrupted };
      for await (const result of client.results(jobId, options)) {
        await file.write(result);
        if (interrupted.aborted) break;
      }
    } finally {
      await file.close();
    }
    if (flags.output !== undefined) note(`${file.count} results in ${flags.output}`);
    return interrupted.aborted ? PARTLY_FAILED : DONE;
  });
}
