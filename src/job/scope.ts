/**
 * Which URLs belong to a job: hosts, and patterns over the whole canonical URL.
 *
 * Both kinds of pattern take time linear in the URL: a glob knows only `*`, so that
 * its literal pieces can be found from left to right; a regular expression runs in
 * RE2's automaton, with a bound on its size. Patterns come from users and URLs from
 * strangers: an engine that backtracks would let either stop a worker.
 */
import { RE2JS } from "re2js";
import { getDomain } from "tldts";
import type { Scope } from "./job-spec.ts";
import { repeatsItself } from "./path-repetition.ts";

/** What `LinkPolicy` of a task carries of it. */
export interface ScopePolicy {
  /** Exact hosts, or "*.example.org" for any host below it; null: any host. */
  readonly hosts: readonly string[] | null;
  /** Empty: every URL. Else one must match. */
  readonly include: readonly string[];
  /** None may match. */
  readonly exclude: readonly string[];
}

export interface ScopeIssue {
  /** E.g. `scope.include.2` */
  readonly path: string;
  readonly message: string;
}

export type UrlTest = (url: string, host: string) => boolean;
type PatternTest = (url: string) => boolean;

/** Instructions of one expression; matching takes at most this many steps per character. */
const PROGRAM_SIZE_MAX = 2_000;

/** @param url canonical. @param host its host, as `canonicalUrl` gives it. */
export function isInScope(url: string, host: string, policy: ScopePolicy): boolean {
  return compileScope(policy)(url, host);
}

/**
 * The test for one policy, for callers with many URLs. Patterns must have passed `scopeIssues`.
 * A path that goes in circles is in no scope.
 */
export function compileScope(policy: ScopePolicy): UrlTest {
  const isHostIn = compileHosts(policy.hosts);
  const include = policy.include.map(compilePattern);
  const exclude = policy.exclude.map(compilePattern);
  return (url, host) =>
    isHostIn(host) &&
    (include.length === 0 || include.some((matches) => matches(url))) &&
    !exclude.some((matches) => matches(url)) &&
    !repeatsItself(url);
}

/** The rule that keeps a URL out, by its place in the spec; undefined: it is in scope. */
export function scopeRefusal(url: string, host: string, policy: ScopePolicy): ScopeIssue | undefined {
  if (!compileHosts(policy.hosts)(host)) {
    return { path: "scope.hosts", message: `${host} is none of ${(policy.hosts ?? []).join(", ")}` };
  }
  const { include, exclude } = policy;
  if (include.length > 0 && !include.some((pattern) => compilePattern(pattern)(url))) {
    return { path: "scope.include", message: `it matches none of ${include.join(", ")}` };
  }
  const n = exclude.findIndex((pattern) => compilePattern(pattern)(url));
  if (n !== -1) return { path: `scope.exclude.${n}`, message: `it matches ${exclude[n]}` };
  return repeatsItself(url) ? { path: "scope", message: "its path goes in circles" } : undefined;
}

/**
 * The hosts of a job, for its `LinkPolicy`.
 *
 * @param seedHosts as `canonicalUrl` gives them, also those that redirects of seeds added.
 */
export function scopeHosts(hosts: Scope["hosts"], seedHosts: Iterable<string>): string[] | null {
  if (hosts === "any") return null;
  if (hosts === "same-host") return [...new Set(seedHosts)];
  if (hosts === "same-domain") {
    const found = new Set<string>();
    for (const host of seedHosts) {
      const domain = registrableDomain(host);
      found.add(domain ?? host);
      if (domain !== null) found.add(`*.${domain}`);
    }
    return [...found];
  }
  return [...new Set(hosts.map((text) => normaliseHost(text) ?? text))];
}

/** What is wrong with hosts and patterns of a spec whose shape is right already; empty: nothing. */
export function scopeIssues(scope: Pick<Scope, "hosts" | "include" | "exclude">): ScopeIssue[] {
  const issues: ScopeIssue[] = [];
  if (typeof scope.hosts !== "string") {
    for (const [n, text] of scope.hosts.entries()) {
      if (normaliseHost(text) === undefined) {
        issues.push({
          path: `scope.hosts.${n}`,
          message: `"${text}" is no host name: write e.g. "example.org" or "*.example.org", without scheme, port and path`,
        });
      }
    }
  }
  for (const list of ["include", "exclude"] as const) {
    for (const [n, pattern] of scope[list].entries()) {
      try {
        compilePattern(pattern);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        issues.push({ path: `scope.${list}.${n}`, message: `"${pattern}": ${reason}` });
      }
    }
  }
  return issues;
}

/**
 * The part of a name that one owner registered; null for addresses and bare labels. Suffixes
 * under which strangers register (github.io) count as public: their users are not one site.
 */
function registrableDomain(host: string): string | null {
  return getDomain(host, { allowPrivateDomains: true, extractHostname: false, validateHostname: false });
}

/** Whether both hosts belong to one owner, as far as names tell. */
export function isSameSite(host: string, other: string): boolean {
  if (host === other) return true;
  const domain = registrableDomain(host);
  return domain !== null && domain === registrableDomain(other);
}

function normaliseHost(text: string): string | undefined {
  const wildcard = text.startsWith("*.");
  const name = wildcard ? text.slice(2) : text;
  if (name === "" || /[/?#@\\*%\s]/.test(name)) return undefined;
  const bracketed = name.includes(":") && !name.startsWith("[") ? `[${name}]` : name;
  const parsed = URL.parse(`http://${bracketed}/`);
  if (parsed === null || parsed.port !== "" || (!bracketed.startsWith("[") && bracketed.includes(":"))) {
    return undefined;
  }
  const host = parsed.hostname.replace(/^\[|\]$|\.$/g, "");
  if (host === "") return undefined;
  return wildcard ? `*.${host}` : host;
}

function compileHosts(hosts: readonly string[] | null): (host: string) => boolean {
  if (hosts === null) return () => true;
  const exact = new Set(hosts.filter((host) => !host.startsWith("*.")));
  const suffixes = new Set(hosts.filter((host) => host.startsWith("*.")).map((host) => host.slice(2)));
  return (host) => {
    if (exact.has(host)) return true;
    if (suffixes.size === 0) return false;
    for (let dot = host.indexOf("."); dot !== -1; dot = host.indexOf(".", dot + 1)) {
      if (suffixes.has(host.slice(dot + 1))) return true;
    }
    return false;
  };
}

/** @throws {Error} with a message for the author of the pattern. */
function compilePattern(pattern: string): PatternTest {
  if (pattern.length > 1 && pattern.startsWith("/") && pattern.endsWith("/")) {
    return compileExpression(pattern.slice(1, -1));
  }
  if (pattern.startsWith("/")) {
    throw new Error(
      'globs match the whole URL: begin with "*" or "https://"; a regular expression ends with "/"',
    );
  }
  return compileGlob(pattern);
}

function compileExpression(source: string): PatternTest {
  let expression: RE2JS;
  try {
    expression = RE2JS.compile(source);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `is no regular expression of the RE2 syntax, which has no back references and no look-around (${reason})`,
      { cause },
    );
  }
  const size = expression.programSize();
  if (size > PROGRAM_SIZE_MAX) {
    throw new Error(
      `is too large: ${size} steps per character, at most ${PROGRAM_SIZE_MAX}; repeat fewer times`,
    );
  }
  return (url) => expression.matcher(url).find();
}

/** The whole URL must match. Leftmost placement of each piece is enough: if any placement works, this one does. */
function compileGlob(glob: string): PatternTest {
  const pieces = glob.split(/\*+/);
  if (pieces.length === 1) return (url) => url === glob;
  const first = pieces[0] ?? "";
  const last = pieces.at(-1) ?? "";
  const inner = pieces.slice(1, -1);
  return (url) => {
    if (url.length < first.length + last.length || !url.startsWith(first) || !url.endsWith(last))
      return false;
    const end = url.length - last.length;
    let at = first.length;
    for (const piece of inner) {
      const found = url.indexOf(piece, at);
      if (found === -1 || found + piece.length > end) return false;
      at = found + piece.length;
    }
    return true;
  };
}
