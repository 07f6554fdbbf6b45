/**
 * What a page says of itself in its head.
 */
import type { Element } from "domhandler";
import { collapse, inlineText } from "./text.ts";

export interface PageMetadata {
  readonly title: string | null;
  readonly description: string | null;
  /** As declared, e.g. "en-GB". */
  readonly language: string | null;
  /** Absolute, http or https. */
  readonly canonical: string | null;
}

const LENGTH_MAX = 2_000;

export function findMetadata(elements: readonly Element[], baseUrl: string): PageMetadata {
  let title: string | null = null;
  let language: string | null = null;
  let canonical: string | null = null;
  const metas = new Map<string, string>();
  for (const element of elements) {
    const { name, attribs } = element;
    if (name === "title") {
      // An <svg> has titles too, of its shapes.
      if (title === null && !isWithinSvg(element)) title = presence(inlineText(element));
    } else if (name === "html") {
      language ??= presence(attribs.lang ?? attribs["xml:lang"]);
    } else if (name === "meta") {
      const key = (attribs.name ?? attribs.property ?? attribs["http-equiv"] ?? "").trim().toLowerCase();
      const content = presence(attribs.content);
      if (content !== null && !metas.has(key)) metas.set(key, content);
    } else if (
      name === "link" &&
      canonical === null &&
      /(?:^|\s)canonical(?:\s|$)/i.test(attribs.rel ?? "")
    ) {
      const url = URL.parse(attribs.href ?? "", baseUrl);
      if (attribs.href !== undefined && url !== null && /^https?:$/.test(url.protocol)) canonical = url.href;
    }
  }
  return {
    title: title ?? metas.get("og:title") ?? null,
    description: metas.get("description") ?? metas.get("og:description") ?? null,
    language: language ?? metas.get("content-language") ?? null,
    canonical,
  };
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
