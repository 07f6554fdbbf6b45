/**
 * What a page says of itself: in its head, in Open Graph and in JSON-LD, whichever is first
 * to say something.
 */
import type { Element } from "domhandler";
import { parseDate } from "./date.ts";
import type { JsonValue } from "./json-path.ts";
import { findJsonLd } from "./structured-data.ts";
import { collapse, inlineText } from "./text.ts";

export interface PageMetadata {
  readonly title: string | null;
  readonly description: string | null;
  /** As declared, e.g. "en-GB". */
  readonly language: string | null;
  /** Absolute, http or https. */
  readonly canonical: string | null;
  /** Names, with a comma between several. */
  readonly author: string | null;
  /** ISO 8601, as exact as the page has it. */
  readonly publishedAt: string | null;
  readonly modifiedAt: string | null;
  readonly siteName: string | null;
  /** Absolute, http or https. */
  readonly image: string | null;
}

const LENGTH_MAX = 2_000;

const NO_METADATA: PageMetadata = {
  title: null,
  description: null,
  language: null,
  canonical: null,
  author: null,
  publishedAt: null,
  modifiedAt: null,
  siteName: null,
  image: null,
};

/** Of what is no markup. */
export function noMetadata(): PageMetadata {
  return { ...NO_METADATA };
}

export function findMetadata(elements: readonly Element[], baseUrl: string): PageMetadata {
  let title: string | null = null;
  let language: string | null = null;
  let canonical: string | null = null;
  let author: string | null = null;
  let publishedAt: string | null = null;
  let modifiedAt: string | null = null;
  let hasJsonLd = false;
  const metas = new Map<string, string>();
  for (const element of elements) {
    const { name, attribs } = element;
    if (name === "title") {
      // An <svg> has titles too, of its shapes.
      if (title === null && !isWithinSvg(element)) title = presence(inlineText(element));
    } else if (name === "html") {
      language ??= presence(attribs.lang ?? attribs["xml:lang"]);
    } else if (name === "meta") {
      const key = (attribs.name ?? attribs.property ?? attribs.itemprop ?? attribs["http-equiv"] ?? "")
        .trim()
        .toLowerCase();
      const content = presence(attribs.content);
      if (content !== null && !metas.has(key)) metas.set(key, content);
    } else if (name === "link") {
      if (canonical === null && /(?:^|\s)canonical(?:\s|$)/i.test(attribs.rel ?? "")) {
        canonical = webUrl(attribs.href, baseUrl);
      }
    } else if (name === "time") {
      const property = attribs.itemprop ?? "";
      if (/\bdatePublished\b/.test(property) || attribs.pubdate !== undefined) {
        publishedAt ??= dateOf(attribs.datetime ?? inlineText(element));
      } else if (/\bdateModified\b/.test(property))
        modifiedAt ??= dateOf(attribs.datetime ?? inlineText(element));
    } else if (name === "script") {
      hasJsonLd ||= attribs.type !== undefined;
    }
    if (
      author === null &&
      (attribs.itemprop === "author" || attribs.rel === "author") &&
      name !== "link" &&
      name !== "meta"
    ) {
      author = presence(inlineText(element));
    }
  }
  const meta = (...keys: string[]): string | null => {
    for (const key of keys) {
      const value = metas.get(key);
      if (value !== undefined) return value;
    }
    return null;
  };
  const date = (...keys: string[]): string | null => {
    for (const key of keys) {
      const value = dateOf(metas.get(key));
      if (value !== null) return value;
    }
    return null;
  };
  const ld = hasJsonLd ? findJsonLd(elements).flatMap(graphOf) : [];
  return {
    title: title ?? meta("og:title", "twitter:title") ?? textOf(ld, "headline"),
    description:
      meta("description", "og:description", "twitter:description", "dc.description") ??
      textOf(ld, "description"),
    language:
      language ??
      meta("content-language", "language", "dc.language") ??
      meta("og:locale")?.replace("_", "-") ??
      textOf(ld, "inLanguage"),
    canonical,
    author:
      meta("author", "dc.creator", "byl") ?? nameOf(ld, "author") ?? author ?? notUrl(meta("article:author")),
    publishedAt:
      date("article:published_time", "og:published_time") ??
      dateOf(textOf(ld, "datePublished")) ??
      date(
        "datepublished",
        "date",
        "dc.date",
        "dc.date.issued",
        "dcterms.created",
        "pubdate",
        "publish-date",
        "parsely-pub-date",
      ) ??
      publishedAt,
    modifiedAt:
      date("article:modified_time", "og:updated_time") ??
      dateOf(textOf(ld, "dateModified")) ??
      date("datemodified", "last-modified", "dcterms.modified", "revised") ??
      modifiedAt,
    siteName: meta("og:site_name", "application-name") ?? nameOf(ld, "publisher"),
    image: webUrl(meta("og:image", "og:image:url", "twitter:image") ?? imageOf(ld) ?? undefined, baseUrl),
  };
}

type JsonObject = { readonly [name: string]: JsonValue };

/** The things that a script is about: itself, or the members of its graph. */
function graphOf(value: JsonValue): JsonObject[] {
  if (!isObject(value)) return [];
  const graph = value["@graph"];
  return Array.isArray(graph) ? graph.slice(0, 100).filter(isObject) : [value];
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(things: readonly JsonObject[], property: string): string | null {
  for (const thing of things) {
    const value = Object.hasOwn(thing, property) ? thing[property] : undefined;
    const text = typeof value === "string" ? presence(value) : null;
    if (text !== null) return text;
  }
  return null;
}

function nameOf(things: readonly JsonObject[], property: string): string | null {
  for (const thing of things) {
    const value = Object.hasOwn(thing, property) ? thing[property]! : null;
    const names = (Array.isArray(value) ? value.slice(0, 20) : [value])
      .map((person: JsonValue) => (isObject(person) ? person.name : person))
      .filter((name) => typeof name === "string");
    const text = presence(names.join(", "));
    if (text !== null) return text;
  }
  return null;
}

function imageOf(things: readonly JsonObject[]): string | null {
  for (const { image } of things) {
    const first: JsonValue | undefined = Array.isArray(image) ? image[0] : image;
    const url = isObject(first) ? first.url : first;
    if (typeof url === "string") return url;
  }
  return null;
}

function dateOf(text: string | null | undefined): string | null {
  return (text && parseDate(text)) || null;
}

function notUrl(text: string | null): string | null {
  return text !== null && /^https?:/i.test(text) ? null : text;
}

function webUrl(href: string | undefined, baseUrl: string): string | null {
  if (href === undefined || href.length > 8_192) return null;
  const url = URL.parse(href, baseUrl);
  return url !== null && /^https?:$/.test(url.protocol) ? url.href : null;
}

function presence(text: string | undefined): string | null {
  const collapsed = collapse(text ?? "").slice(0, LENGTH_MAX);
  return collapsed === "" ? null : collapsed;
}

function isWithinSvg(element: Element): boolean {
  for (let node = element.parent; node !== null; node = node.parent) {
    if ("name" in node && node.name === "svg") return true;
  }
  return false;
}
