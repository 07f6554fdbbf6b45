/** What a person asks to be crawled: a URL or a file with a job spec, and flags over it. */
import { readFile } from "node:fs/promises";
import { UsageError } from "../errors.ts";
import { checkJobSpec } from "../job/check-job-spec.ts";
import { type JobSpec, jobSpecSchema } from "../job/job-spec.ts";

export interface CrawlWishes {
  readonly maxPages?: number;
  readonly maxDepth?: number;
  readonly delay?: number;
  /** A file with the rules of `extract`, or the rules. */
  readonly extract?: string;
}

type Written = Record<string, unknown>;

/** @throws {UsageError} names each wrong field by its path. */
export async function readTarget(target: string, wishes: CrawlWishes): Promise<JobSpec> {
  const written: Written = isUrl(target) ? { seeds: [target] } : await readSpecFile(target);
  const { maxPages, maxDepth, delay } = wishes;
  const spec: Written = {
    ...written,
    scope: { ...object(written.scope), ...given({ maxPages, maxDepth }) },
    politeness: { ...object(written.politeness), ...given({ delayMs: delay }) },
    ...(wishes.extract === undefined ? {} : { extract: await readRules(wishes.extract) }),
  };
  const parsed = jobSpecSchema.safeParse(spec);
  if (!parsed.success) {
    throw wrong(
      target,
      parsed.error.issues.flatMap((issue) =>
        issue.code === "unrecognized_keys"
          ? issue.keys.map((key) => ({
              path: [...issue.path, key].join("."),
              message: "there is no such field",
            }))
          : [{ path: issue.path.map(String).join("."), message: issue.message }],
      ),
    );
  }
  const issues = checkJobSpec(parsed.data);
  if (issues.length > 0) throw wrong(target, issues);
  return parsed.data;
}

/** Rules of `extract` for one page: of a file, or as they are. */
export async function readRules(written: string | undefined): Promise<unknown> {
  if (written === undefined) return undefined;
  return written.trimStart().startsWith("{") ? parse(written, "the rules") : readJson(written);
}

function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

async function readSpecFile(path: string): Promise<Written> {
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(path)) {
    throw new UsageError(`${path}: only http and https can be crawled`);
  }
  const content = await readJson(
    path,
    `${path}: is neither an http(s) URL nor a file with a job spec; write e.g. https://example.org/ or crawl.json`,
  );
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new UsageError(`${path}: a job spec is a JSON object, e.g. {"seeds": ["https://example.org/"]}`);
  }
  return content as Written;
}

async function readJson(
  path: string,
  otherwise = `${path}: can't be read; name a file with JSON in it`,
): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new UsageError(otherwise, { cause });
  }
  return parse(text, path);
}

function parse(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError(`${source}: is no JSON: ${reason}`, { cause });
  }
}

function object(value: unknown): Written {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Written) : {};
}

function given(values: Record<string, number | undefined>): Written {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

function wrong(target: string, issues: readonly { path: string; message: string }[]): UsageError {
  const lines = issues
    .slice(0, 20)
    .map(({ path, message }) => `  ${path === "" ? "(the whole)" : path}: ${message}`);
  return new UsageError(`${target}: is not a valid job:\n${lines.join("\n")}`);
}
