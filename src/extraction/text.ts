/**
 * The text of a part of a page. Walks without recursion: a page nests as deep as it likes.
 */
import { type AnyNode, type Element, isTag, isText, type ParentNode } from "domhandler";

/** Elements whose content is not for readers. */
export const HIDDEN: ReadonlySet<string> = new Set([
  "script",
  "title",
  "style",
  "template",
  "noscript",
  "head",
  "iframe",
  "object",
  "svg",
  "math",
]);

export const BLOCKS: ReadonlySet<string> = new Set(
  (
    "address article aside blockquote body br button caption center dd details dialog dir div dl dt fieldset figcaption " +
    "figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html li legend main menu nav ol optgroup option p " +
    "pre section select summary table tbody tfoot thead title tr ul"
  ).split(" "),
);

/** Cells of one row stand on one line, apart. */
const CELLS: ReadonlySet<string> = new Set(["td", "th"]);

/** On one line: runs of white space become one blank. What scripts and styles contain is left out. */
export function inlineText(node: AnyNode, leavesOut: (element: Element) => boolean = () => false): string {
  let out = "";
  walk(node, {
    text: (data) => {
      out += data;
    },
    edge: (element) => {
      // Words in neighbouring blocks and cells are different words, also without a blank in the source.
      if (BLOCKS.has(element.name) || CELLS.has(element.name)) out += " ";
    },
    skip: (element) =>
      element !== node && (element.name === "script" || element.name === "style" || leavesOut(element)),
  });
  return collapse(out);
}

/** As it is in the source, white space and all. Scripts and styles are part of it where they are asked for by name. */
export function sourceText(node: AnyNode): string {
  let out = "";
  walk(node, {
    text: (data) => {
      out += data;
    },
    edge: () => {},
    skip: (element) => {
      if (element.name === "br") out += "\n";
      return element !== node && (element.name === "script" || element.name === "style");
    },
  });
  return out;
}

/** Of a whole page, a line per block; at most `lengthMax` characters. */
export function pageText(root: ParentNode, lengthMax: number): string {
  const lines: string[] = [];
  let length = 0;
  let line = "";
  const endLine = () => {
    const text = collapse(line);
    line = "";
    if (text === "" || length >= lengthMax) return;
    lines.push(text);
    length += text.length + 1;
  };
  walk(root, {
    text: (data) => {
      line += data;
    },
    edge: (element) => {
      if (BLOCKS.has(element.name)) endLine();
      else if (CELLS.has(element.name)) line += " ";
    },
    skip: (element) => HIDDEN.has(element.name),
  });
  endLine();
  return lines.join("\n").slice(0, lengthMax);
}

/** The text of a page as readers see it, piece by piece; `gap`: what follows is another word. */
export function visitText(root: ParentNode, reader: { text(data: string): void; gap(): void }): void {
  walk(root, {
    text: (data) => reader.text(data),
    edge: (element) => {
      if (BLOCKS.has(element.name) || CELLS.has(element.name)) reader.gap();
    },
    skip: (element) => HIDDEN.has(element.name),
  });
}

interface Visitor {
  text(data: string): void;
  /** Called where an element begins and where it ends. */
  edge(element: Element): void;
  skip(element: Element): boolean;
}

function walk(from: AnyNode, visitor: Visitor): void {
  if (isText(from)) visitor.text(from.data);
  if (!("children" in from) || (isTag(from) && visitor.skip(from))) return;
  // One iterator per open element; the tree is at most some hundred levels deep.
  const open: { node: ParentNode; next: number }[] = [{ node: from, next: 0 }];
  while (open.length > 0) {
    const top = open.at(-1)!;
    const child = top.node.children[top.next++];
    if (child === undefined) {
      if (isTag(top.node)) visitor.edge(top.node);
      open.pop();
    } else if (isText(child)) {
      visitor.text(child.data);
    } else if ("children" in child && !(isTag(child) && visitor.skip(child))) {
      if (isTag(child)) visitor.edge(child);
      open.push({ node: child, next: 0 });
    }
  }
}

export function collapse(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
