/**
 * A page from its URL to its report: fetched, decoded, parsed once, and read in every way
 * that the task asks for.
 */
import { hash } from "node:crypto";
import { STATUS_CODES } from "node:http";
import { zstdCompressSync } from "node:zlib";
import { type Markup, markupOf, mediaType, parseDocument } from "../src/extraction/document.ts";
import { type Extracted, extract, type PageContent } from "../src/extraction/extract.ts";
import {
  allElements,
  documentBase,
  findCanonical,
  findLinks,
  isPageNofollow,
  type PageLink,
  resolveLink,
} from "../src/extraction/links.ts";
import { contentText, findMainContent } from "../src/extraction/main-content.ts";
import { toMarkdown } from "../src/extraction/markdown.ts";
import { findMetadata, noMetadata } from "../src/extraction/metadata.ts";
import { compileRules, type RuleSet } from "../src/extraction/rule.ts";
import { TextFingerprint } from "../src/extraction/simhash.ts";
import { findStructuredData } from "../src/extraction/structured-data.ts";
import { findTables } from "../src/extraction/tables.ts";
import { pageText, visitText } from "../src/extraction/text.ts";
import { decodeText } from "../src/fetcher/charset.ts";
import { inflate } from "../src/fetcher/content-coding.ts";
import type { Fetcher, FetchOutcome, FetchRequest } from "../src/fetcher/fetcher.ts";
import { canonicalUrl, sitemapKey } from "../src/frontier/canonical-url.ts";
import { isSameSite } from "../src/job/scope.ts";
import type { ScrapingEnd } from "../src/pool/scraping-message.ts";
import {
  FOUND_CHARACTERS_MAX,
  type FoundLink,
  type LinkPolicy,
  type PageReport,
  type Report,
  type ScrapeTask,
  SITEMAP_PART_LENGTH,
} from "../src/pool/task.ts";
import { productToken } from "../src/robots/robots-file.ts";
import { readSitemap, SITEMAP_BYTES_MAX } from "../src/robots/sitemap.ts";
import { LinkJudge } from "./link-judge.ts";
import { RecentMap } from "./recent-map.ts";
import { RecentlyCompiled } from "./recently-compiled.ts";

/** Characters of a page's text. */
const TEXT_LENGTH_MAX = 1_000_000;
/** Characters of a page's source; a report must fit into a message between servers. */
const HTML_LENGTH_MAX = 4_000_000;
const LINKS_FORMAT_LENGTH_MAX = 1_000_000;
/** What rules may take of the time for a page. */
const RULES_MS_MAX = 1_000;
const COMPILED_MAX = 16;
const ORIGINS_MAX = 32;
const RESOLVED_MAX = 8_192;
const RESOLVED_LENGTH_MAX = 512;
const SITEMAP_ACCEPT = ["application/xml", "text/xml", "text/plain", "*/*"];
/** Of a page about which a sitemap says nothing (sitemaps.org). */
const PRIORITY_USUAL = 0.5;

type Answer = Extract<FetchOutcome, { kind: "answer" }>;
type PageParts = Pick<
  PageReport,
  | "canonical"
  | "simhash"
  | "data"
  | "fieldErrors"
  | "found"
  | "metadata"
  | "text"
  | "content"
  | "markdown"
  | "links"
  | "tables"
  | "structured"
  | "html"
>;

export class PageReader {
  readonly #rules = new RecentlyCompiled(COMPILED_MAX, (rules: RuleSet) => compileRules(rules));
  readonly #judges = new RecentlyCompiled(COMPILED_MAX, (policy: LinkPolicy) => new LinkJudge(policy));
  // What links are in full, by the origin of their page and then as they are written there.
  readonly #resolved = new RecentMap<RecentMap<string | null>>(ORIGINS_MAX);

  /** @param holding runs what it is given, in sight of those who watch over the thread. */
  async read(
    fetcher: Fetcher,
    task: ScrapeTask,
    conditions: Pick<FetchRequest, "mayStart" | "onStart" | "signal">,
    holding: <T>(work: () => T) => T,
  ): Promise<ScrapingEnd> {
    let startedMs = performance.now();
    const isPage = task.sitemapPart === null;
    const outcome = await fetcher.fetch({
      url: task.url,
      userAgent: task.userAgent,
      headers: task.headers,
      timeoutMs: task.timeoutMs,
      maxBytes: isPage ? task.maxBytes : SITEMAP_BYTES_MAX,
      cutsBody: false,
      accept: isPage ? task.accept : SITEMAP_ACCEPT,
      allowAddresses: task.allowAddresses,
      mayStart: conditions.mayStart,
      onStart() {
        startedMs = performance.now();
        conditions.onStart();
      },
      signal: conditions.signal,
    });
    if (outcome.kind === "notStarted") return outcome;
    const report =
      outcome.kind === "answer"
        ? holding(() =>
            isPage ? this.#readPage(task, outcome, startedMs) : this.#readSitemap(task, outcome),
          )
        : withoutPage(task, outcome);
    return { kind: "report", report };
  }

  #readPage(task: ScrapeTask, answer: Answer, startedMs: number): PageReport {
    const { body, contentType } = answer;
    const text = decodeText(body, contentType);
    const form = markupOf(contentType, text);
    const parts =
      form === undefined
        ? this.#readOther(task, { root: null, text, type: mediaType(contentType) })
        : this.#readMarkup(task, answer, text, form);
    return {
      kind: "page",
      status: answer.status,
      finalUrl: task.url,
      contentType: contentType ?? null,
      bytes: body.length,
      sha256: hash("sha256", body),
      latencyMs: answer.latencyMs,
      ...parts,
      ...(task.keepBody && { body: zstdCompressSync(body) }),
      durationMs: performance.now() - startedMs,
    };
  }

  #readSitemap(task: ScrapeTask, answer: Answer): Report {
    const part = task.sitemapPart ?? 0;
    // Many sitemaps are files that are compressed as such, whatever the header says of them.
    const isPacked = answer.body[0] === 0x1f && answer.body[1] === 0x8b;
    const body = isPacked ? inflate(answer.body, ["gzip"], SITEMAP_BYTES_MAX) : answer.body;
    const text = decodeText(body, isPacked ? undefined : answer.contentType);
    const range = { from: part, limit: SITEMAP_PART_LENGTH, charactersMax: FOUND_CHARACTERS_MAX };
    const list = readSitemap(text, range);
    const policy = task.links;
    const isInScope = policy === null ? () => false : this.#judges.get(policy).isInScope;
    const found = new Map<string, FoundLink & { priority: number }>();
    for (const { url, priority } of list.pages) {
      const canonical = canonicalUrl(url, task.url, policy ?? undefined);
      if (canonical === undefined || !isInScope(canonical.url, canonical.host)) continue;
      const place = priority === null ? 0 : Math.round((priority - PRIORITY_USUAL) * 20);
      found.set(canonical.key, { ...canonical, priority: place });
    }
    const sitemaps = new Map<string, FoundLink & { part: number }>();
    for (const text of list.sitemaps) {
      const canonical = canonicalUrl(text, task.url);
      if (canonical === undefined) continue;
      const key = sitemapKey(canonical.url, 0);
      sitemaps.set(key, { ...canonical, key, part: 0 });
    }
    if (list.next !== null) {
      const key = sitemapKey(task.url, list.next);
      const { hostname } = new URL(task.url);
      sitemaps.set(key, { url: task.url, key, host: hostname.replace(/^\[|\]$/g, ""), part: list.next });
    }
    return {
      kind: "sitemap",
      found: [...found.values()],
      sitemaps: [...sitemaps.values()],
      latencyMs: answer.latencyMs,
    };
  }

  #readMarkup(task: ScrapeTask, answer: Answer, html: string, form: Markup): PageParts {
    const { root, isCut } = parseDocument(html, form);
    const elements = allElements(root);
    const baseUrl = documentBase(elements, task.url);
    const page = { root, text: html, type: mediaType(answer.contentType) };
    const { data, errors } = this.#extract(task, page, baseUrl);
    const wants = (format: string) => task.formats.includes(format);
    const links =
      task.links?.follow === true || wants("links")
        ? findLinks(
            elements,
            this.#resolver(baseUrl),
            isPageNofollow(elements, productToken(task.userAgent), answer.robotsHeader),
          )
        : [];
    const found = this.#found(task, links);
    const reported = withinReport(found);
    const main = wants("content") || wants("markdown") ? findMainContent(root) : undefined;
    const source = wants("html") ? cutHtml(html) : undefined;
    const fingerprint = new TextFingerprint();
    visitText(root, fingerprint);
    return {
      simhash: fingerprint.result(),
      canonical: this.#canonical(task, findCanonical(elements, baseUrl, answer.linkHeader)),
      data,
      fieldErrors: [
        ...errors,
        ...(isCut
          ? [{ field: "(page)", message: "is too large or too deeply nested: its end was not read" }]
          : []),
        ...(source !== undefined && source.length < html.length ? [HTML_CUT] : []),
        ...(reported.length < found.length
          ? [{ field: "(links)", message: `are ${found.length}: ${reported.length} were followed` }]
          : []),
      ],
      found: reported,
      ...(wants("metadata") && { metadata: findMetadata(elements, baseUrl) }),
      ...(wants("text") && { text: pageText(root, TEXT_LENGTH_MAX) }),
      ...(main !== undefined && wants("content") && { content: contentText(main, TEXT_LENGTH_MAX) }),
      ...(main !== undefined &&
        wants("markdown") && { markdown: toMarkdown(main, baseUrl, TEXT_LENGTH_MAX) }),
      ...(wants("links") && { links: listed(links) }),
      ...(wants("tables") && { tables: findTables(elements) }),
      ...(wants("structured") && { structured: findStructuredData(elements, baseUrl) }),
      ...(source !== undefined && { html: source }),
    };
  }

  /** Of what is no markup there are the fields of JSONPath and regular expressions, and its text. */
  #readOther(task: ScrapeTask, page: PageContent): PageParts {
    const { text } = page;
    const wants = (format: string) => task.formats.includes(format);
    const { data, errors } = this.#extract(task, page, task.url);
    const fingerprint = new TextFingerprint();
    fingerprint.text(text);
    return {
      simhash: fingerprint.result(),
      canonical: null,
      data,
      fieldErrors: errors,
      found: [],
      ...(wants("metadata") && { metadata: noMetadata() }),
      ...(wants("text") && { text: text.slice(0, TEXT_LENGTH_MAX) }),
      ...(wants("content") && { content: text.slice(0, TEXT_LENGTH_MAX) }),
      ...(wants("markdown") && { markdown: text.slice(0, TEXT_LENGTH_MAX) }),
      ...(wants("links") && { links: [] }),
      ...(wants("tables") && { tables: [] }),
      ...(wants("structured") && { structured: { jsonLd: [], microdata: [], rdfa: [], openGraph: {} } }),
      ...(wants("html") && { html: cutHtml(text) }),
    };
  }

  #extract(task: ScrapeTask, page: PageContent, baseUrl: string): Extracted {
    const untilMs = performance.now() + RULES_MS_MAX;
    return extract(page, this.#rules.get(task.extract as RuleSet), {
      baseUrl,
      isLate: () => performance.now() > untilMs,
    });
  }

  /** What the page is a form of, if that is another page which may take its place: in scope, and of the same site. */
  #canonical(task: ScrapeTask, href: string | undefined): FoundLink | null {
    const policy = task.links;
    if (href === undefined || policy === null || !policy.canonicalLinks) return null;
    const canonical = canonicalUrl(href, undefined, policy);
    if (canonical === undefined || canonical.key === task.key) return null;
    const isIn = this.#judges.get(policy).isInScope(canonical.url, canonical.host);
    return isIn && isSameSite(new URL(task.url).hostname, canonical.host) ? canonical : null;
  }

  /** Canonical, in scope, each once, without the page itself. */
  #found(task: ScrapeTask, links: readonly PageLink[]): FoundLink[] {
    const policy = task.links;
    if (policy === null || !policy.follow) return [];
    const judge = this.#judges.get(policy);
    const found = new Map<string, FoundLink>();
    for (const link of links) {
      if (link.isNofollow && !policy.followNofollow) continue;
      const page = judge.judge(link.url);
      if (page !== null && page.key !== task.key) found.set(page.key, page);
    }
    return [...found.values()];
  }

  /** `resolveLink`, which need not parse again what other pages of the origin had. */
  #resolver(baseUrl: string): (href: string) => string | undefined {
    const { origin } = new URL(baseUrl);
    const resolved = this.#resolved.get(origin) ?? new RecentMap<string | null>(RESOLVED_MAX);
    this.#resolved.set(origin, resolved);
    return (href) => {
      // "//" begins another host, and "\\" is the same to browsers.
      if (href[0] !== "/" || href.length > RESOLVED_LENGTH_MAX || /^.[/\\\t\r\n]/.test(href)) {
        return resolveLink(href, baseUrl);
      }
      const known = resolved.get(href);
      if (known !== undefined) return known ?? undefined;
      const url = resolveLink(href, baseUrl);
      resolved.set(href, url ?? null);
      return url;
    };
  }
}

function withoutPage(
  task: ScrapeTask,
  outcome: Exclude<FetchOutcome, { kind: "answer" | "notStarted" }>,
): Report {
  if (outcome.kind === "broken") return outcome;
  const { status, latencyMs } = outcome;
  if (outcome.kind === "refused") {
    return {
      kind: "refused",
      status,
      reason: reasonOf(status),
      retryAfterMs: outcome.retryAfterMs,
      latencyMs,
    };
  }
  const page = canonicalUrl(outcome.location, task.url, task.links ?? undefined);
  const target =
    page !== undefined && task.sitemapPart !== null
      ? { ...page, key: sitemapKey(page.url, task.sitemapPart) }
      : page;
  return target === undefined
    ? {
        kind: "refused",
        status,
        reason: `${reasonOf(status)}, to no usable address`,
        retryAfterMs: null,
        latencyMs,
      }
    : { kind: "redirect", status, target, latencyMs };
}

function reasonOf(status: number): string {
  return `HTTP ${status}${STATUS_CODES[status] === undefined ? "" : ` ${STATUS_CODES[status]}`}`;
}

/** As many as fit. */
function withinReport(found: readonly FoundLink[]): readonly FoundLink[] {
  let characters = 0;
  const end = found.findIndex(({ url }) => {
    characters += url.length;
    return characters > FOUND_CHARACTERS_MAX;
  });
  return end === -1 ? found : found.slice(0, end);
}

const HTML_CUT = { field: "html", message: `was cut after ${HTML_LENGTH_MAX} characters` };

function cutHtml(text: string): string {
  return text.slice(0, HTML_LENGTH_MAX);
}

function listed(links: readonly PageLink[]): NonNullable<PageReport["links"]> {
  let length = 0;
  const list: { url: string; text: string; rel: string }[] = [];
  for (const { url, text, rel } of links) {
    length += url.length + text.length + rel.length;
    if (length > LINKS_FORMAT_LENGTH_MAX) break;
    list.push({ url, text, rel });
  }
  return list;
}
