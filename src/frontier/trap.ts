/**
 * Traps: parts of a site that have ever more URLs and nothing new to say, such as
 * calendars without end and every order of every filter of a shop.
 *
 * URLs of one pattern (the shape of the path, the names of the parameters) are
 * taken together. A page scores when it repeats what an earlier page of its host
 * said, and still leads to new URLs of its own pattern. Where a pattern has
 * parameters or ids, each such page counts; where it is a path with numbers in it,
 * only how many of them lead from one to the next counts, since a well-linked site
 * of uniform pages looks the same otherwise, but ends. A page with something new
 * to say takes one back.
 */
import { z } from "zod";

const count = z.int().nonnegative();

export const patternScoreSchema = z.object({
  pattern: z.string(),
  score: count,
  /** Of the pattern, fetched, and repeating others. */
  pages: count,
  /** The latest of them. */
  example: z.string(),
  isTrapped: z.boolean(),
});
export type PatternScore = z.output<typeof patternScoreSchema>;

/** What a host's leader knows of the patterns of one job there. */
export const trapRecordSchema = z.object({
  jobId: z.string(),
  host: z.string(),
  patterns: z.array(patternScoreSchema),
});
export type TrapRecord = z.output<typeof trapRecordSchema>;

/** Patterns of one host that are kept account of: those that score. */
const PATTERNS_MAX = 64;
const PATTERN_LENGTH_MAX = 300;
/** Shorter mixtures of letters and digits are names with a number. */
const ID_LENGTH_MIN = 8;

const PARTS = /%[0-9A-F]{2}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[a-z0-9]+/gi;

/**
 * What the URL has in common with others made by the same rule: `{n}` for numbers,
 * `{id}` for what looks like a key or a session, and the names of parameters in the
 * order of the alphabet.
 *
 * `http://a.example/calendar/2024-05?view=list&day=3` → `/calendar/{n}-{n}?day&view`
 *
 * @param url canonical.
 */
export function urlPattern(url: string): string {
  const start = url.indexOf("/", url.indexOf("://") + 3);
  const mark = url.indexOf("?", start);
  const path = mark === -1 ? url.slice(start) : url.slice(start, mark);
  const shape = path.replace(/(;[^/;=]*)=[^/;]*/g, "$1").replace(PARTS, shapeOf);
  if (mark === -1) return shape.slice(0, PATTERN_LENGTH_MAX);
  const names = new Set(
    url
      .slice(mark + 1)
      .split("&")
      // Indexed parameters are one: f[0], f[1], …
      .map((pair) => pair.split("=", 1)[0]!.replace(/\d+/g, "{n}")),
  );
  names.delete("");
  return `${shape}?${[...names].sort().join("&")}`.slice(0, PATTERN_LENGTH_MAX);
}

function shapeOf(part: string): string {
  if (part.startsWith("%")) return part;
  if (/^\d+$/.test(part)) return "{n}";
  if (!/\d/.test(part)) return part;
  return part.length >= ID_LENGTH_MIN ? "{id}" : part.replace(/\d+/g, "{n}");
}

export class TrapScores {
  readonly #patterns = new Map<string, PatternScore>();
  #trapped = 0;

  constructor(patterns: Iterable<PatternScore> = []) {
    for (const entry of patterns) {
      this.#patterns.set(entry.pattern, entry);
      if (entry.isTrapped) this.#trapped++;
    }
  }

  get isEmpty(): boolean {
    return this.#patterns.size === 0;
  }

  isTrapped(url: string): boolean {
    return this.#trapped > 0 && this.#patterns.get(urlPattern(url))?.isTrapped === true;
  }

  /**
   * A page repeated what is known, and led to new URLs of its pattern. Returns the
   * pattern when this page made it a trap.
   *
   * @param trail how many pages before it, each found on the one before, did the same.
   * @param scoreMax `limits.trapScore`; 0: no pattern is a trap.
   */
  repeated(url: string, trail: number, scoreMax: number): PatternScore | undefined {
    const pattern = urlPattern(url);
    const known = this.#patterns.get(pattern);
    if (known === undefined && !this.#makeRoom()) return undefined;
    const pages = (known?.pages ?? 0) + 1;
    const isCounted = pattern.includes("?") || pattern.includes("{id}") || pattern.includes(";");
    const score = isCounted ? (known?.score ?? 0) + 1 : Math.max(known?.score ?? 0, trail + 1);
    const wasTrapped = known?.isTrapped ?? false;
    const isTrapped = wasTrapped || (scoreMax > 0 && score >= scoreMax);
    const entry = { pattern, score, pages, example: url, isTrapped };
    this.#patterns.set(pattern, entry);
    if (!isTrapped || wasTrapped) return undefined;
    this.#trapped++;
    return entry;
  }

  /** A page had something new to say. False: that changes nothing. */
  renewed(url: string): boolean {
    if (this.#patterns.size === 0) return false;
    const pattern = urlPattern(url);
    const known = this.#patterns.get(pattern);
    if (known === undefined || known.isTrapped) return false;
    if (known.score <= 1) this.#patterns.delete(pattern);
    else this.#patterns.set(pattern, { ...known, score: known.score - 1 });
    return true;
  }

  entries(): PatternScore[] {
    return [...this.#patterns.values()];
  }

  /** False: all places are taken by traps. */
  #makeRoom(): boolean {
    if (this.#patterns.size < PATTERNS_MAX) return true;
    let least: PatternScore | undefined;
    for (const entry of this.#patterns.values()) {
      if (!entry.isTrapped && (least === undefined || entry.score < least.score)) least = entry;
    }
    return least !== undefined && this.#patterns.delete(least.pattern);
  }
}
