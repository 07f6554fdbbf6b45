/**
 * Why a URL was, or was not, fetched: read from the entries that decided it, the
 * page's own, its host's pace, robots.txt and traps, and the job's spec. Nothing
 * is kept for the purpose.
 */
import { canonicalUrl } from "../frontier/canonical-url.ts";
import { dueSchema, originOf, type Page, pageSchema, type Size, sizeSchema } from "../frontier/page.ts";
import { type PaceRecord, paceRecordSchema } from "../frontier/politeness.ts";
import { type RobotsRecord, robotsRecordSchema } from "../frontier/robots-access.ts";
import { trapRecordSchema, urlPattern } from "../frontier/trap.ts";
import type { Explanation } from "../job/explanation.ts";
import type { JobRecord } from "../job/job-record.ts";
import { isOver } from "../job/life-cycle.ts";
import { scopeRefusal } from "../job/scope.ts";
import type { Entry, Operation, Outcome } from "../replication/register.ts";
import { RobotsFile } from "../robots/robots-file.ts";
import type { KeyLayout } from "./key-layout.ts";
import { decodeRecord } from "./record.ts";

type Rule = NonNullable<Explanation["rule"]>;
type Decision = Pick<Explanation, "rule" | "why"> & { readonly notBefore?: string };

/** What is known of the URL's host and of the page itself. */
interface Facts {
  readonly record: JobRecord;
  readonly url: string;
  readonly host: string;
  readonly scopeRule: Rule | null;
  readonly page: Page | undefined;
  readonly isFlying: boolean;
  readonly size: Size | undefined;
  readonly pace: PaceRecord | undefined;
  readonly robots: RobotsRecord | undefined;
  readonly isTrapped: boolean;
  readonly wallMs: number;
}

export interface JobExplainerPorts {
  readonly layout: KeyLayout;
  /** At the partition's leader. */
  operate(partition: number, operation: Operation): Promise<Outcome>;
  /** Unix time. */
  now(): number;
}

export class JobExplainer {
  readonly #ports: JobExplainerPorts;

  constructor(ports: JobExplainerPorts) {
    this.#ports = ports;
  }

  async explain(record: JobRecord, text: string): Promise<Explanation> {
    const canonical = canonicalUrl(text, undefined, record.spec.scope);
    if (canonical === undefined) {
      return {
        ...nothingKnown(text),
        why: "It is no http or https URL with a host, or it is longer than 2,048 characters.",
      };
    }
    const facts = await this.#facts(record, canonical);
    const { page, isFlying, scopeRule } = facts;
    const { rule, why, notBefore = null } = decisionOf(facts);
    return {
      url: text,
      canonicalUrl: canonical.url,
      host: canonical.host,
      key: canonical.key,
      state: stateOf(facts),
      inScope: scopeRule === null,
      found: page === undefined ? null : { parent: page.parent, depth: page.depth, isSeed: page.seed },
      attempts: page?.handouts ?? 0,
      result: page?.status === "done" ? page.key : null,
      rule,
      notBefore: isFlying ? null : notBefore,
      why,
    };
  }

  async #facts(
    record: JobRecord,
    { url, key, host }: { url: string; key: string; host: string },
  ): Promise<Facts> {
    const { layout, now } = this.#ports;
    const { jobId } = record;
    const main = layout.hostPartition(host);
    const [pageEntry, sizeEntry, trapEntry, paceEntry, robotsEntry] = await this.#get(main, [
      layout.page(jobId, host, key),
      layout.size(jobId, host),
      layout.trap(jobId, host),
      layout.pace(host),
      layout.robots(host, originOf(url)),
    ]);
    const size = sizeEntry && decodeRecord(sizeSchema, sizeEntry.value);
    let stored = pageEntry;
    let at = main;
    if (stored === undefined && size?.full === true) {
      at = layout.hostPart(host, key);
      [stored] = await this.#get(at, [layout.page(jobId, host, key)]);
    }
    const page = stored && decodeRecord(pageSchema, stored.value);
    let isFlying = false;
    if (page?.status === "pending") {
      const { priority, seq } = page;
      const [due] = await this.#get(at, [layout.due(jobId, host, { band: "flying", priority, seq })]);
      isFlying = due !== undefined && decodeRecord(dueSchema, due.value).flight !== null;
    }
    const pattern = urlPattern(url);
    const patterns = trapEntry === undefined ? [] : decodeRecord(trapRecordSchema, trapEntry.value).patterns;
    const { hosts: _hosts, ...scope } = record.spec.scope;
    const refusal = scopeRefusal(url, host, { ...scope, hosts: record.scopeHosts });
    return {
      record,
      url,
      host,
      scopeRule: refusal === undefined ? null : { name: refusal.path, text: refusal.message, line: null },
      page,
      isFlying,
      size,
      pace: paceEntry && decodeRecord(paceRecordSchema, paceEntry.value),
      robots: robotsEntry && decodeRecord(robotsRecordSchema, robotsEntry.value),
      isTrapped: patterns.some((score) => score.pattern === pattern && score.isTrapped),
      wallMs: now(),
    };
  }

  async #get(partition: number, keys: string[]): Promise<readonly (Entry | undefined)[]> {
    const outcome = await this.#ports.operate(partition, { kind: "get", keys });
    return outcome.kind === "entries" ? outcome.entries : [];
  }
}

function nothingKnown(text: string): Omit<Explanation, "why"> {
  return {
    url: text,
    canonicalUrl: null,
    host: null,
    key: null,
    state: "unknown",
    inScope: false,
    found: null,
    attempts: 0,
    result: null,
    rule: null,
    notBefore: null,
  };
}

function stateOf({ page, isFlying, record }: Facts): Explanation["state"] {
  if (page === undefined) return "unknown";
  // What was left over when the job ended is counted so, without being rewritten.
  if (page.status === "pending" && isOver(record.status)) return "skipped";
  return isFlying ? "running" : page.status;
}

function decisionOf(facts: Facts): Decision {
  const { page } = facts;
  if (page === undefined) return unseen(facts);
  switch (page.status) {
    case "done":
      return {
        rule: null,
        why: `It was fetched and gave a result, at try ${page.handouts}; see the result with this key.`,
      };
    case "failed":
      return failed(page.reason ?? "", page.handouts, facts);
    case "skipped":
      return skipped(page.reason ?? "", facts);
    case "pending":
      return pending(facts);
  }
}

function failed(reason: string, tries: number, { host, record }: Facts): Decision {
  const times = tries === 1 ? "one try" : `${tries} tries`;
  if (reason.startsWith("blocked:")) {
    return {
      rule: { name: "address guard", text: reason, line: null },
      why: `It was not asked for: ${host} is at an address that is not public.`,
    };
  }
  if (reason === "robots-unreachable") {
    return {
      rule: { name: "robots.txt", text: "unreachable", line: null },
      why: "The robots.txt of its origin could not be had for ten minutes, so nothing was asked for.",
    };
  }
  if (reason === "host-unreachable") {
    return {
      rule: { name: "host", text: "unreachable", line: null },
      why: `${host} gave no answer for so long that its pages were given up.`,
    };
  }
  return {
    rule: { name: "fetch.retries", text: String(record.spec.fetch.retries), line: null },
    why: `It failed after ${times}: ${reason}.`,
  };
}

function skipped(reason: string, facts: Facts): Decision {
  const { record } = facts;
  switch (reason) {
    case "robots": {
      const rule = robotsRule(facts) ?? {
        name: "robots.txt",
        text: "disallowed when it was due",
        line: null,
      };
      const at = rule.line === null ? "" : ` (line ${rule.line}: ${rule.text})`;
      return { rule, why: `robots.txt does not allow it for ${record.spec.politeness.userAgent}${at}.` };
    }
    case "redirect":
      return {
        rule: { name: "redirect", text: "its target is a page of its own", line: null },
        why: "It redirects to another URL, which is a page of its own if it is in scope.",
      };
    case "canonical":
      return {
        rule: { name: "scope.canonicalLinks", text: "rel=canonical", line: null },
        why: "It names another page as its canonical form, which was taken in its place.",
      };
    case "trap":
      return trapped(facts);
    case "sitemap":
      return { rule: null, why: "It was read as a sitemap: what it lists are pages, it is none itself." };
    default:
      return { rule: null, why: `It was skipped: ${reason}.` };
  }
}

function trapped({ record, url }: Facts): Decision {
  const { trapScore } = record.spec.limits;
  return {
    rule: { name: "limits.trapScore", text: String(trapScore), line: null },
    why: `URLs like ${urlPattern(url)} led on without bringing anything new ${trapScore} times: no more are fetched.`,
  };
}

function pending(facts: Facts): Decision {
  const { page, isFlying, record, pace, wallMs, host } = facts;
  const { maxPages } = record.spec.scope;
  switch (record.status) {
    case "cancelled":
      return { rule: null, why: "It was not fetched: the job was cancelled." };
    case "completed":
    case "failed":
      return {
        rule: { name: "scope.maxPages", text: String(maxPages), line: null },
        why: `It was not fetched: the job had its ${maxPages} results.`,
      };
    case "paused":
      return { rule: null, why: "It waits: the job is paused." };
    case "queued":
    case "running":
      break;
  }
  if (isFlying) return { rule: null, why: "A server is fetching it now." };
  const untilMs = Math.max(page?.dueAtMs ?? 0, pace?.untilMs ?? 0);
  if (untilMs > wallMs) {
    const isOwn = (page?.dueAtMs ?? 0) >= (pace?.untilMs ?? 0);
    const reason = isOwn ? (page?.reason ?? "retry") : pace?.reason || "a break";
    return {
      rule: null,
      notBefore: new Date(untilMs).toISOString(),
      why: isOwn ? `It is tried again later: ${reason}.` : `Its host ${host} has a break: ${reason}.`,
    };
  }
  const { robots } = facts;
  if (record.spec.politeness.robots && (robots === undefined || robots.missingSinceMs !== null)) {
    return {
      rule: { name: "robots.txt", text: "not known yet", line: null },
      why: `It waits for the robots.txt of ${host}.`,
    };
  }
  return { rule: null, why: `It is due, behind other pages of ${host}.` };
}

/** No page of the job: the first rule that would keep it out, in the order in which they are asked. */
function unseen(facts: Facts): Decision {
  const { scopeRule, record, size, host, isTrapped } = facts;
  if (scopeRule !== null) {
    return { rule: scopeRule, why: `The job's scope does not take it: ${scopeRule.text}.` };
  }
  if (isTrapped) return trapped(facts);
  const { pagesPerHost } = record.spec.limits;
  if (size !== undefined && size.discovered - size.sitemaps >= pagesPerHost) {
    return {
      rule: { name: "limits.pagesPerHost", text: String(pagesPerHost), line: null },
      why: `${host} has its ${pagesPerHost} pages: no more are taken.`,
    };
  }
  const barred = record.spec.politeness.robots ? robotsRule(facts) : undefined;
  if (barred !== undefined) {
    return {
      rule: barred,
      why: `No page that was read links to it; robots.txt would not allow it (line ${barred.line}: ${barred.text}).`,
    };
  }
  const { maxDepth } = record.spec.scope;
  const others = `links of pages at depth ${maxDepth} are not followed (scope.maxDepth)`;
  return {
    rule: isOver(record.status) ? { name: "scope.maxDepth", text: String(maxDepth), line: null } : null,
    why: isOver(record.status)
      ? `It is in scope, but no page that was read links to it, or only such at the greatest depth: ${others}.`
      : `It is in scope, but no page that was read so far links to it; ${others}.`,
  };
}

/** The line that forbids it in the copy that the cluster has now; undefined: none does. */
function robotsRule({ robots, url, record }: Facts): Rule | undefined {
  if (robots === undefined || robots.status === null) return undefined;
  const rule = new RobotsFile(robots.text, record.spec.politeness.userAgent).ruleFor(url);
  return rule === undefined || rule.allow
    ? undefined
    : { name: "robots.txt", text: rule.text, line: rule.line };
}
