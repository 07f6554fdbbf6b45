/**
 * The Robots Exclusion Protocol, RFC 9309.
 *
 * Lenient in reading, as the RFC asks: byte order mark, any line ends, missing colons
 * and the misspellings that are common in the wild. Rules are kept longest first with
 * `allow` before `disallow`, so that the first one that matches decides; a pattern is
 * matched by finding its literal pieces from left to right, in linear time.
 */

/** Larger files are cut here (RFC 9309, 2.5, asks for at least this much). */
export const ROBOTS_BYTES_MAX = 500 * 1024;

/** One line of the file. */
export interface RobotsLine {
  readonly allow: boolean;
  /** From 1. */
  readonly line: number;
  /** As one writes it, without its comment. */
  readonly text: string;
}

interface RobotsRule extends RobotsLine {
  /** Octets of the pattern: the longest match wins. */
  readonly length: number;
  /** What stands between the wildcards; at least one. */
  readonly pieces: readonly string[];
  /** The pattern ended with `$`. */
  readonly anchored: boolean;
}

interface Group {
  readonly agents: string[];
  readonly rules: RobotsRule[];
}

type Field = "user-agent" | "allow" | "disallow" | "crawl-delay" | "sitemap";

const FIELD_BY_SPELLING: Readonly<Record<string, Field>> = {
  __proto__: null as never,
  "user-agent": "user-agent",
  useragent: "user-agent",
  "user agent": "user-agent",
  allow: "allow",
  disallow: "disallow",
  dissallow: "disallow",
  dissalow: "disallow",
  disalow: "disallow",
  diasllow: "disallow",
  disallaw: "disallow",
  "crawl-delay": "crawl-delay",
  crawldelay: "crawl-delay",
  sitemap: "sitemap",
  "site-map": "sitemap",
};

const DAY_MS = 86_400_000;

/** What one robots.txt says to one crawler. */
export class RobotsFile {
  /** Not part of the RFC but widely used; undefined when absent or no number. At most a day. */
  readonly crawlDelayMs: number | undefined;
  /** As written; not checked to be URLs. */
  readonly sitemaps: readonly string[];
  readonly #rules: readonly RobotsRule[];

  /**
   * @param text of the file; what exceeds `ROBOTS_BYTES_MAX` characters is not read, nor the line that is cut there.
   * @param userAgent as sent in requests; its leading product token selects the groups.
   */
  constructor(text: string, userAgent: string) {
    const groups: Group[] = [];
    const delayByAgent = new Map<string, number>();
    const sitemaps: string[] = [];
    let group: Group | undefined;
    let namesAgents = false;

    const lines = wholeLines(text)
      .replace(/^\uFEFF/, "")
      .split(/\r\n|\r|\n/);
    for (const [n, line] of lines.entries()) {
      const [field, value] = readLine(line);
      if (field === "user-agent") {
        if (group === undefined || !namesAgents) groups.push((group = { agents: [], rules: [] }));
        namesAgents = true;
        group.agents.push(agentOf(value));
      } else if (field === "allow" || field === "disallow") {
        namesAgents = false;
        // An empty pattern restricts nothing; a rule before the first group belongs to nobody.
        if (group !== undefined && value !== "") group.rules.push(readRule(field === "allow", value, n + 1));
      } else if (field === "crawl-delay") {
        // Other records don't end the list of agents (RFC 9309, 2.2.4), so this one is for those named so far.
        const seconds = /^\d*\.?\d+/.exec(value)?.[0];
        if (seconds !== undefined) {
          const delayMs = Math.min(Number(seconds) * 1000, DAY_MS);
          for (const agent of group?.agents ?? []) delayByAgent.set(agent, delayMs);
        }
      } else if (field === "sitemap" && value !== "") {
        sitemaps.push(value);
      }
    }

    const token = productToken(userAgent);
    const own = groups.filter(({ agents }) => token !== "" && agents.includes(token));
    const chosen = own.length > 0 ? own : groups.filter(({ agents }) => agents.includes("*"));
    this.#rules = chosen
      .flatMap(({ rules }) => rules)
      .sort((a, b) => b.length - a.length || Number(b.allow) - Number(a.allow));
    this.crawlDelayMs = delayByAgent.get(own.length > 0 ? token : "*");
    this.sitemaps = sitemaps;
  }

  /** @param url absolute, http or https. */
  isAllowed(url: string): boolean {
    return this.ruleFor(url)?.allow ?? true;
  }

  /** The line that decides about a URL; undefined: none speaks of it, so it is allowed. */
  ruleFor(url: string): RobotsLine | undefined {
    const parsed = URL.parse(url);
    if (parsed === null || parsed.pathname === "/robots.txt") return undefined;
    const path = normalise(parsed.pathname + parsed.search, (char) =>
      char === "*" ? "%2A" : char === "$" ? "%24" : char,
    );
    return this.#rules.find((rule) => matches(rule, path));
  }
}

/** `Orbweaver/1.0 (+https://…)` → `orbweaver` */
export function productToken(userAgent: string): string {
  return (/^[a-z_-]+/i.exec(userAgent.trim())?.[0] ?? "").toLowerCase();
}

/** Half a line may say the opposite of the whole: of a file that is too long the last one is left out. */
function wholeLines(text: string): string {
  if (text.length < ROBOTS_BYTES_MAX) return text;
  const cut = text.slice(0, ROBOTS_BYTES_MAX);
  return cut.slice(0, Math.max(cut.lastIndexOf("\n"), cut.lastIndexOf("\r")) + 1);
}

function agentOf(value: string): string {
  return value.startsWith("*") ? "*" : productToken(value);
}

function readLine(line: string): [Field | undefined, string] {
  const hash = line.indexOf("#");
  const text = (hash === -1 ? line : line.slice(0, hash)).trim();
  const colon = text.indexOf(":");
  if (colon !== -1) {
    const field = FIELD_BY_SPELLING[text.slice(0, colon).trim().toLowerCase()];
    if (field !== undefined) return [field, text.slice(colon + 1).trim()];
  }
  // `Disallow /x`, as some write it; two words exactly, or prose would become a rule.
  const words = text.split(/\s+/, 3);
  return words.length === 2 ? [FIELD_BY_SPELLING[words[0]!.toLowerCase()], words[1]!] : [undefined, ""];
}

function readRule(allow: boolean, value: string, line: number): RobotsRule {
  const text = `${allow ? "Allow" : "Disallow"}: ${value}`;
  const anchored = value.endsWith("$");
  const pattern = normalise(anchored ? value.slice(0, -1) : value, (char) => (char === "$" ? "%24" : char));
  return {
    allow,
    line,
    text,
    length: pattern.length + Number(anchored),
    pieces: pattern.split(/\*+/),
    anchored,
  };
}

/**
 * RFC 9309, 2.2.2: escapes of unreserved characters are decoded, all else outside the URL's
 * ASCII is escaped, so that both sides of a comparison have one spelling.
 */
function normalise(text: string, special: (char: string) => string): string {
  return text.replace(/%[0-9a-f]{2}|[*$]|[^!#$&-;=?-Z[\]_a-z~%]+/gi, (part) => {
    if (part === "*" || part === "$") return special(part);
    if (part.length === 3 && part.startsWith("%")) {
      const char = String.fromCharCode(Number.parseInt(part.slice(1), 16));
      return /[\w.~-]/.test(char) ? char : part.toUpperCase();
    }
    return encodeURIComponent(part.toWellFormed());
  });
}

function matches({ pieces, anchored }: RobotsRule, path: string): boolean {
  const first = pieces[0]!;
  if (!path.startsWith(first)) return false;
  if (pieces.length === 1) return !anchored || path.length === first.length;
  const last = anchored ? pieces.at(-1)! : "";
  const inner = anchored ? pieces.slice(1, -1) : pieces.slice(1);
  let at = first.length;
  for (const piece of inner) {
    const found = path.indexOf(piece, at);
    if (found === -1) return false;
    at = found + piece.length;
  }
  return path.length - last.length >= at && path.endsWith(last);
}
