/** `scrape`: one page, printed. */
import { type Command, Option } from "commander";
import { FORMATS, type Format, type Result, type RuleSet } from "../../job/job-spec.ts";
import { DONE, type Runner } from "../exit-code.ts";
import { commaList } from "../flag.ts";
import { openSession, type SessionFlags, withSessionFlags } from "../session.ts";
import { printable, printableLines, say, sayJson } from "../terminal.ts";

interface ScrapeFlags extends SessionFlags {
  readonly extract?: string;
  readonly format?: Format[];
  readonly json?: true;
}

export function addScrape(program: Command, run: Runner): void {
  withSessionFlags(
    program
      .command("scrape")
      .description("fetch one page and print what is in it")
      .argument("<url>", "https://example.org/page")
      .option("--extract <file>", "rules for the fields to extract, JSON")
      .addOption(
        new Option("--format <kinds>", `what to print beside the fields: ${FORMATS.join(",")}`).argParser(
          kinds,
        ),
      )
      .option("--json", "print the whole result as JSON"),
  ).action((url: string, flags: ScrapeFlags) => run(() => scrape(url, flags)));
}

async function scrape(url: string, flags: ScrapeFlags): Promise<number> {
  const { readRules, readTarget } = await import("../crawl-target.ts");
  // What is wrong with it is said before a server is started for it.
  await readTarget(url, flags.extract === undefined ? {} : { extract: flags.extract });
  const extract = await readRules(flags.extract);
  const session = await openSession(flags);
  try {
    const result = await session.client.scrape({
      url,
      formats: flags.format ?? ["metadata"],
      ...(extract === undefined ? {} : { extract: extract as RuleSet }),
    });
    if (flags.json === true) sayJson(result);
    else show(result);
    return DONE;
  } finally {
    await session.close();
  }
}

function show(result: Result): void {
  say(
    `${result.status} ${printable(result.finalUrl)}  ${result.bytes} bytes in ${result.durationMs.toFixed(0)} ms`,
  );
  for (const [name, value] of Object.entries(result.metadata ?? {})) {
    if (value !== null) say(`${name}: ${printable(value)}`);
  }
  for (const [field, value] of Object.entries(result.data)) {
    say(`${printable(field)}: ${printable(typeof value === "string" ? value : JSON.stringify(value))}`);
  }
  for (const { field, message } of result.fieldErrors ?? [])
    say(`${printable(field)}: (${printable(message)})`);
  for (const { url, text } of result.links ?? []) say(`${printable(url)}  ${printable(text)}`);
  for (const { caption, header, rows } of result.tables ?? []) {
    if (caption !== null) say(printable(caption));
    for (const row of header === null ? rows : [header, ...rows]) say(row.map(printable).join("\t"));
  }
  if (result.structured !== undefined) sayJson(result.structured);
  for (const text of [result.text, result.content, result.markdown]) {
    if (text !== undefined) say(printableLines(text));
  }
  if (result.html !== undefined) say(printableLines(result.html));
}

function kinds(text: string): string[] {
  return commaList(text);
}
