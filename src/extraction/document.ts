/**
 * A page as a tree, parsed once, within bounds whatever the page is made of.
 *
 * htmlparser2's tree builder with two caps: below a depth of 512, elements become
 * siblings instead of children, as browsers do it; after 200,000 nodes reading ends and
 * the rest of the page is left out, which the caller is told. Neither is an error: such a
 * page has a title and links all the same.
 */
import { type Document, DomHandler, Element } from "domhandler";
import { Parser } from "htmlparser2";

export const NODES_MAX = 200_000;
export const DEPTH_MAX = 512;

/** Open elements beyond `DEPTH_MAX` that are kept account of; each closing tag costs a search among them. */
const UNENTERED_MAX = 1024;

export interface ParsedDocument {
  readonly root: Document;
  /** The page was longer than `NODES_MAX` nodes, or nested beyond reason; the rest was not read. */
  readonly isCut: boolean;
}

class CapReached extends Error {}

class CappedHandler extends DomHandler {
  #nodes = 0;
  /** Elements open in the parser that have no children of their own here, being too deep. */
  #unentered = 0;

  override onopentag(name: string, attributes: Record<string, string>): void {
    if (this.#unentered === 0 && this.tagStack.length <= DEPTH_MAX) {
      super.onopentag(name, attributes);
    } else {
      if (++this.#unentered > UNENTERED_MAX) throw new CapReached();
      this.addNode(new Element(name, attributes));
    }
    this.#count();
  }

  override onclosetag(): void {
    if (this.#unentered === 0) super.onclosetag();
    else this.#unentered--;
  }

  override ontext(data: string): void {
    super.ontext(data);
    this.#count();
  }

  override oncomment(data: string): void {
    super.oncomment(data);
    this.#count();
  }

  #count(): void {
    if (++this.#nodes > NODES_MAX) throw new CapReached();
  }
}

export function parseDocument(html: string): ParsedDocument {
  const handler = new CappedHandler();
  const parser = new Parser(handler);
  try {
    parser.write(html);
    parser.end();
    return { root: handler.root, isCut: false };
  } catch (error) {
    if (!(error instanceof CapReached)) throw error;
    return { root: handler.root, isCut: true };
  }
}
