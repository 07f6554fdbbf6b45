/** `extract --try`: a page, and what each rule finds in it. */
import type { Command } from "commander";
import type { FieldError } from "../../extraction/extract.ts";
import type { FieldValue } from "../../extraction/value.ts";
import type { Result, RuleSet } from "../../job/job-spec.ts";
import { DONE, PARTLY_FAILED, type Runner } from "../exit-code.ts";
import { openSession, type SessionFlags, withSessionFlags } from "../session.ts";
import { printable, say, sayJson, shortened } from "../terminal.ts";

interface ExtractFlags extends SessionFlags {
  readonly try: string;
  readonly json?: true;
}

export function addExtract(program: Command, run: Runner): void {
  withSessionFlags(
    program
      .command("extract")
      .description("fetch a page and show what each rule finds in it")
      .requiredOption("--try <url>", "https://example.org/page")
      .argument("<rules>", "a file with rules, JSON, or the rules themselves")
      .option("--json", "print what was found as JSON"),
  ).action((rules: string, flags: ExtractFlags) => run(() => tryRules(flags.try, rules, flags)));
}

interface Found {
  readonly field: string;
  readonly count: number;
  /** As it is in the page. */
  readonly first: string | undefined;
}

interface Trial {
  readonly found: readonly Found[];
  readonly data: Record<string, FieldValue>;
  readonly errors: readonly FieldError[];
}

async function tryRules(url: string, written: string, flags: ExtractFlags): Promise<number> {
  const { readRules, readTarget } = await import("../crawl-target.ts");
  // What is wrong with them is said before a server is started for it.
  await readTarget(url, { extract: written });
  const rules = (await readRules(written)) as RuleSet;
  const session = await openSession(flags);
  let result: Result;
  try {
    result = await session.client.scrape({ url, formats: ["html"] });
  } finally {
    await session.close();
  }
  const trial = await applyTo(result, rules);
  if (flags.json === true) sayJson({ url: result.finalUrl, ...trial });
  else show(result, trial);
  return trial.errors.length === 0 ? DONE : PARTLY_FAILED;
}

/** As the scraping process does it, with an eye on each match. */
async function applyTo({ html: text = "", contentType, finalUrl }: Result, rules: RuleSet): Promise<Trial> {
  const { markupOf, mediaType, parseDocument } = await import("../../extraction/document.ts");
  const { extract } = await import("../../extraction/extract.ts");
  const { allElements, documentBase } = await import("../../extraction/links.ts");
  const { compileRules } = await import("../../extraction/rule.ts");
  const markup = markupOf(contentType ?? undefined, text);
  const root = markup === undefined ? null : parseDocument(text, markup).root;
  const found: Found[] = [];
  const { data, errors } = extract(
    { root, text, type: mediaType(contentType ?? undefined) },
    compileRules(rules),
    {
      baseUrl: root === null ? finalUrl : documentBase(allElements(root), finalUrl),
      onMatch: (field, count, first) => found.push({ field, count, first }),
    },
  );
  return { found, data, errors };
}

const SHOWN_LENGTH = 160;

function show(result: Result, { found, data, errors }: Trial): void {
  say(`${result.status} ${printable(result.finalUrl)}  ${printable(result.contentType ?? "")}`);
  for (const { field, count, first } of found) {
    if (isFarDown(field)) continue;
    const matches = count === 1 ? "1 match" : `${count} matches`;
    say(
      `${printable(field)}: ${matches}${first === undefined ? "" : `, first ${shortened(printable(first), SHOWN_LENGTH)}`}`,
    );
    const value = Object.hasOwn(data, field) ? data[field] : undefined;
    if (value !== undefined) say(`  = ${shortened(printable(JSON.stringify(value)), 10 * SHOWN_LENGTH)}`);
    for (const { message } of errors.filter((error) => belongsTo(error.field, field)))
      say(`  ! ${printable(message)}`);
  }
  const told = (error: FieldError) => found.some(({ field }) => belongsTo(error.field, field));
  for (const error of errors.filter((other) => !told(other) && !isFarDown(other.field)))
    say(`${printable(error.field)}: ! ${printable(error.message)}`);
}

/** Of a list's items the first three are enough to see what a rule does. */
function isFarDown(field: string): boolean {
  return [...field.matchAll(/\[(\d+)\]/g)].some(([, place]) => Number(place) > 2);
}

/** An error of `items[3]` is told with `items`; one of `items[3].price` with the rule for that price. */
function belongsTo(errorField: string, field: string): boolean {
  return (
    errorField === field ||
    (errorField.startsWith(`${field}[`) && !errorField.slice(field.length).includes("."))
  );
}
