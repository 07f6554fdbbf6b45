/**
 * The links of a page, in document order.
 */
import { type AnyNode, type Document, type Element, isTag } from "domhandler";
import { collapse, inlineText } from "./text.ts";

export interface PageLink {
  /** Absolute, http or https. */
  readonly url: string;
  /** At most `LINK_TEXT_LENGTH_MAX` characters. */
  readonly text: string;
  readonly rel: string;
  readonly isNofollow: boolean;
}

export const LINKS_MAX = 10_000;
export const LINK_TEXT_LENGTH_MAX = 500;
const URL_LENGTH_MAX = 8_192;

/** What relative URLs of the page are resolved against (HTML, "document base URL"): its first `<base href>`, else its own URL. */
export function documentBase(elements: readonly Element[], pageUrl: string): string {
  const base = elements.find(({ name, attribs }) => name === "base" && attribs.href !== undefined);
  const url = base === undefined ? null : URL.parse(base.attribs.href!, pageUrl);
  return url !== null && /^https?:$/.test(url.protocol) ? url.href : pageUrl;
}

/** Every element, in document order, without recursion. */
export function allElements(root: Document): Element[] {
  const found: Element[] = [];
  const waiting: AnyNode[] = [];
  const push = (children: readonly AnyNode[]) => {
    for (let n = children.length - 1; n >= 0; n--) {
      const child = children[n]!;
      if ("children" in child) waiting.push(child);
    }
  };
  push(root.children);
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (isTag(node)) found.push(node);
    if ("children" in node) push(node.children);
  }
  return found;
}

/** Absolute, http or https; undefined: `href` is none. */
export function resolveLink(href: string, baseUrl: string): string | undefined {
  const url = URL.parse(href, baseUrl);
  return url !== null && (url.protocol === "http:" || url.protocol === "https:") ? url.href : undefined;
}

/**
 * At most `LINKS_MAX`; the same address as often as the page has it.
 *
 * @param resolve `resolveLink` against the page's base.
 */
export function findLinks(
  elements: readonly Element[],
  resolve: (href: string) => string | undefined,
  pageIsNofollow: boolean,
): PageLink[] {
  const links: PageLink[] = [];
  for (const element of elements) {
    if (element.name !== "a" && element.name !== "area") continue;
    const href = element.attribs.href;
    if (href === undefined || href.length > URL_LENGTH_MAX) continue;
    const url = resolve(href);
    if (url === undefined) continue;
    const rel = collapse(element.attribs.rel ?? "").toLowerCase();
    const text = element.name === "a" ? inlineText(element) : collapse(element.attribs.alt ?? "");
    links.push({
      url,
      text: text.slice(0, LINK_TEXT_LENGTH_MAX),
      rel: rel.slice(0, 200),
      isNofollow: pageIsNofollow || rel.split(" ").includes("nofollow"),
    });
    if (links.length === LINKS_MAX) break;
  }
  return links;
}

/**
 * Whether the page asks that its links not be followed: `<meta name="robots" content="nofollow">`, the same under
 * the crawler's own name, or an X-Robots-Tag header. `noindex` is for search engines and restricts nothing here.
 *
 * @param productToken in lower case, e.g. "orbweaver"
 */
export function isPageNofollow(
  elements: readonly Element[],
  productToken: string,
  robotsHeader: string | undefined,
): boolean {
  // The header may address one crawler: "otherbot: nofollow, unavailable_after: …"
  const header = robotsHeader
    ?.toLowerCase()
    .split(",")
    .map((part) => part.trim().split(/\s*:\s*/))
    .some((parts) =>
      parts.length === 1 ? saysNofollow(parts[0]!) : parts[0] === productToken && saysNofollow(parts[1]!),
    );
  if (header) return true;
  return elements.some(
    ({ name, attribs }) =>
      name === "meta" &&
      ["robots", productToken].includes((attribs.name ?? "").trim().toLowerCase()) &&
      saysNofollow(attribs.content ?? ""),
  );
}

/**
 * The URL that the page says it is a form of: `<link rel="canonical">`, or a Link header (RFC 8288, 6596).
 * Undefined: it says none, or several.
 *
 * @returns absolute, http or https.
 */
export function findCanonical(
  elements: readonly Element[],
  baseUrl: string,
  linkHeader: string | undefined,
): string | undefined {
  const found = new Set<string>();
  const add = (href: string) => {
    const url = URL.parse(href.trim(), baseUrl);
    if (url !== null && /^https?:$/.test(url.protocol)) found.add(url.href);
  };
  for (const { name, attribs } of elements) {
    if (name !== "link" || attribs.href === undefined || attribs.href.length > URL_LENGTH_MAX) continue;
    if (/(?:^|\s)canonical(?:\s|$)/i.test(attribs.rel ?? "")) add(attribs.href);
  }
  for (const [, href, parameters] of (linkHeader ?? "").matchAll(/<([^<>]{1,8192})>((?:\s*;[^,<]*)*)/g)) {
    if (/;\s*rel\s*=\s*"?(?:[^";]*\s)?canonical(?:[\s";]|$)/i.test(parameters!)) add(href!);
  }
  const [only, ...others] = found;
  return others.length === 0 ? only : undefined;
}

function saysNofollow(directives: string): boolean {
  return directives
    .toLowerCase()
    .split(/[\s,]+/)
    .some((word) => word === "nofollow" || word === "none");
}
