/**
 * A page as a tree, parsed once, within bounds whatever the page is made of.
 *
 * htmlparser2's tree builder with two caps: below a depth of 512, elements become
 * siblings instead of children, as browsers do it; after 200,000 nodes reading ends and
 * the rest of the page is left out, which the caller is told. Neither is an error: such a
 * page has a title and links all the same.
 */
import { type Document, DomHandler, type ParentNode } from "domhandler";
import { Parser } from "htmlparser2";

export const NODES_MAX = 200_000;
export const DEPTH_MAX = 512;
/** Of all elements together. */
export const ATTRIBUTES_MAX = 500_000;

/** Open elements beyond `DEPTH_MAX` that are kept account of; each closing tag costs a search among them. */
const DISPLACED_MAX = 1024;

export interface ParsedDocument {
  readonly root: Document;
  /** The page had more nodes or attributes than that, or was nested beyond reason; the rest was not read. */
  readonly isCut: boolean;
}

class CapReached extends Error {}

class CappedHandler extends DomHandler {
  #nodes = 0;
  #attributes = 0;
  /** Open elements in whose place a deeper one stands for the moment, outermost first. */
  readonly #displaced: ParentNode[] = [];

  override onopentag(name: string, attributes: Record<string, string>): void {
    this.#count();
    if (this.tagStack.length > DEPTH_MAX) {
      // The new element joins its parent, instead of becoming its child.
      if (this.#displaced.push(this.tagStack.pop()!) > DISPLACED_MAX) throw new CapReached();
    }
    super.onopentag(name, attributes);
  }

  /** Called for each attribute, before its element. */
  onattribute(): void {
    if (++this.#attributes > ATTRIBUTES_MAX) throw new CapReached();
  }

  override onclosetag(): void {
    super.onclosetag();
    const parent = this.#displaced.pop();
    if (parent !== undefined) this.tagStack.push(parent);
  }

  override ontext(data: string): void {
    this.#count();
    super.ontext(data);
  }

  override oncomment(data: string): void {
    this.#count();
    super.oncomment(data);
  }

  #count(): void {
    if (++this.#nodes > NODES_MAX) throw new CapReached();
  }
}

export type Markup = "html" | "xml";

/** Names are in lower case, in XML too: selectors of HTML then find what feeds call `pubDate`. */
export function parseDocument(text: string, markup: Markup = "html"): ParsedDocument {
  const handler = new CappedHandler();
  const parser = new Parser(
    handler,
    markup === "xml" ? { xmlMode: true, lowerCaseTags: true, lowerCaseAttributeNames: true } : {},
  );
  try {
    parser.write(text);
    parser.end();
    return { root: handler.root, isCut: false };
  } catch (error) {
    if (!(error instanceof CapReached)) throw error;
    return { root: handler.root, isCut: true };
  }
}

/** Without its parameters, in lower case. */
export function mediaType(contentType: string | undefined): string | undefined {
  return contentType?.replace(/;.*$/s, "").trim().toLowerCase();
}

/** Undefined: it is no markup. What is labelled JSON and begins with a tag is a page of an error, more often than not. */
export function markupOf(contentType: string | undefined, text: string): Markup | undefined {
  const type = mediaType(contentType) ?? "";
  if (type === "text/html" || type === "application/xhtml+xml") return "html";
  if (/^(?:application|text)\/xml$|\+xml$/.test(type)) return "xml";
  // As browsers guess it (MIME Sniffing, 7.1), roughly.
  const looksLikeHtml = /^\s*<(?:!doctype\s+html|!--|[a-z][a-z0-9]*[\s>])/i.test(text.slice(0, 1024));
  return looksLikeHtml && (type === "" || /[/+]json$/.test(type)) ? "html" : undefined;
}
