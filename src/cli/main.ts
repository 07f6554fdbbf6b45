/**
 * The command line. Everything heavy is imported by the command that needs it, so
 * that `--help` is quick and a client never loads a server.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { ClusterError, InvalidInputError, UsageError } from "../errors.ts";
import { addCluster } from "./commands/cluster.ts";
import { addCrawl } from "./commands/crawl.ts";
import { addExplain } from "./commands/explain.ts";
import { addExtract } from "./commands/extract.ts";
import { addJobs } from "./commands/jobs.ts";
import { addResults } from "./commands/results.ts";
import { addScrape } from "./commands/scrape.ts";
import { addServer } from "./commands/server.ts";
import { addUp } from "./commands/up.ts";
import { FAILED, type Runner, WRONG_USAGE } from "./exit-code.ts";
import { note, printableLines } from "./terminal.ts";

const run: Runner = async (work) => {
  process.exitCode = await work();
};

function createProgram(): Command {
  const { version, description } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  ) as { version: string; description: string };
  const program = new Command("orbweaver")
    .description(description)
    .version(version)
    .exitOverride()
    .showHelpAfterError("(see --help)")
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "orbweaver: ")) });
  addUp(program, run);
  addServer(program, run);
  addCrawl(program, run);
  addScrape(program, run);
  addExtract(program, run);
  addJobs(program, run);
  addResults(program, run);
  addExplain(program, run);
  addCluster(program, run);
  return program;
}

/** One clear message, no stack trace: what went wrong, and what to do. */
function explain(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : WRONG_USAGE;
  if (error instanceof ClusterError) {
    const isUsage = error instanceof UsageError || error instanceof InvalidInputError;
    const issues = error instanceof InvalidInputError ? error.issues : [];
    const more =
      issues.length > 1 ? issues.map(({ path, message }) => `\n  ${path}: ${message}`).join("") : "";
    note(`orbweaver: ${printableLines(error.message + more)}`);
    return isUsage ? WRONG_USAGE : FAILED;
  }
  note(`orbweaver: ${printableLines(error instanceof Error ? error.message : String(error))}`);
  return FAILED;
}

// Whoever reads us has had enough, as in `… | head`.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  throw error;
});

try {
  await createProgram().parseAsync();
} catch (error) {
  process.exitCode = explain(error);
}
// Not before all of it is out; connections that others keep open don't hold the process.
process.stdout.write("", () => process.exit());
