/** One page of the bound: fetched, parsed, its fields and links taken. */
import { selectAll, selectOne } from "css-select";
import { type AnyNode, DomHandler, type Element } from "domhandler";
import { textContent } from "domutils";
import { Parser } from "htmlparser2";
import { Agent, request } from "undici";

export interface BoundPage {
  readonly fields: { readonly title: string; readonly price: number; readonly tags: readonly string[] };
  /** Absolute. */
  readonly links: readonly string[];
}

const dispatcher = new Agent({ connections: 16 });

export default async function page(url: string): Promise<BoundPage> {
  const { body } = await request(url, { dispatcher });
  const html = await body.text();
  const handler = new DomHandler();
  new Parser(handler).end(html);
  const nodes = handler.root.children;
  const textOf = (selector: string) => {
    const found = selectOne<AnyNode, Element>(selector, nodes);
    return found === null ? "" : textContent(found).trim();
  };
  const anchors = selectAll<AnyNode, Element>("a[href]", nodes);
  return {
    fields: {
      title: textOf("h1"),
      price: Number.parseFloat(textOf("#offer .price")),
      tags: selectAll<AnyNode, Element>("ul.tags > li", nodes).map((tag) => textContent(tag).trim()),
    },
    links: [...new Set(anchors.map(({ attribs }) => new URL(attribs.href!, url).href))],
  };
}
