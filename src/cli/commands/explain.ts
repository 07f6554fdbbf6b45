/** `explain`: why a URL was, or was not, fetched in a job. */
import type { Command } from "commander";
import type { Explanation } from "../../job/explanation.ts";
import { type ClientFlags, clientCommand, withClient } from "../client-command.ts";
import { DONE, type Runner } from "../exit-code.ts";
import { printable, say, sayJson } from "../terminal.ts";

export function addExplain(program: Command, run: Runner): void {
  clientCommand(program, "explain <job> <url>", "why a URL was, or was not, fetched in a job").action(
    (jobId: string, url: string, flags: ClientFlags) =>
      run(() =>
        withClient(flags, async (client) => {
          const explanation = await client.jobs.explain(jobId, url);
          if (flags.json === true) sayJson(explanation);
          else for (const line of linesOf(explanation)) say(printable(line));
          return DONE;
        }),
      ),
  );
}

/** The answer first, then what it rests on; what does not apply is left out. */
function linesOf(explanation: Explanation): string[] {
  const { url, canonicalUrl, state, why, inScope, found, rule, attempts, result, notBefore } = explanation;
  const lines = [`${state === "unknown" ? "not a page of the job" : state}: ${why}`];
  const tell = (name: string, text: string) => lines.push(`  ${name.padEnd(10)} ${text}`);
  if (canonicalUrl !== null) tell("URL", canonicalUrl);
  if (canonicalUrl !== null && canonicalUrl !== url) tell("asked as", url);
  if (found !== null) {
    const where = found.parent ?? (found.isSeed ? "a seed of the job" : "a sitemap or robots.txt");
    tell("found on", `${where}, depth ${found.depth}`);
  }
  if (canonicalUrl !== null) tell("in scope", inScope ? "yes" : "no");
  if (rule !== null) {
    tell("rule", `${rule.name}${rule.line === null ? "" : `, line ${rule.line}`}: ${rule.text}`);
  }
  if (attempts > 0) tell("tries", String(attempts));
  if (notBefore !== null) tell("not before", notBefore);
  if (result !== null) tell("result", result);
  return lines;
}
