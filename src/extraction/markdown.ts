/**
 * The content of a page as Markdown (CommonMark, with the tables, task lists and struck text
 * of GitHub), straight from the tree that the page is parsed into.
 *
 * Known converters want a document of their own, which costs several times the parsing of the
 * page, and lose tables or the language of code on the way. Text that would read as markup is
 * escaped; addresses are absolute.
 */
import { type AnyNode, type Element, isTag, isText, type ParentNode } from "domhandler";
import type { MainContent } from "./main-content.ts";
import { type GridCell, readGrid } from "./tables.ts";
import { BLOCKS, collapse } from "./text.ts";

export function toMarkdown(content: MainContent, baseUrl: string, lengthMax: number): string {
  const writer = new MarkdownWriter(content, baseUrl, lengthMax);
  const heading = content.heading === undefined ? "" : writer.blocks({ children: [content.heading] });
  const body = isTag(content.root as AnyNode)
    ? writer.blocks({ children: [content.root as Element] })
    : writer.blocks(content.root);
  const text = [heading, body].filter((part) => part !== "").join("\n\n");
  return text.slice(0, lengthMax);
}

const NO_TEXT: ReadonlySet<string> = new Set([
  "script",
  "style",
  "template",
  "noscript",
  "head",
  "title",
  "svg",
  "iframe",
  "object",
]);
const LANGUAGE =
  /(?:^|\s)(?:language-|lang-|highlight-source-|highlight-(?!source)|brush:\s?|sourceCode\s|code-)([\w#+.-]+)/gi;
const NO_LANGUAGE: ReadonlySet<string> = new Set([
  "highlight",
  "none",
  "text",
  "plaintext",
  "code",
  "default",
  "block",
  "wrapper",
  "toolbar",
  "highlighter-rouge",
]);
/** No table of data has these. */
const LAYOUT_PARTS = ["h1", "h2", "h3", "hr", "article", "main"] as const;
/** Numbers of lines beside code. */
const GUTTER =
  /(?:^|[-_\s])(?:gutter|linenos?|line-?numbers?(?:-rows)?|lineno|rouge-gutter|hljs-ln-numbers)(?:$|[-_\s])/i;

type Children = Pick<ParentNode, "children">;

/** Recursive, as deep as a page is once it is parsed: some hundred levels. */
class MarkdownWriter {
  readonly #content: MainContent;
  readonly #baseUrl: string;
  #left: number;

  constructor(content: MainContent, baseUrl: string, lengthMax: number) {
    this.#content = content;
    this.#baseUrl = baseUrl;
    this.#left = 2 * lengthMax;
  }

  /** Blocks with an empty line between them; text between two is a paragraph. */
  blocks(parent: Children): string {
    const blocks: string[] = [];
    let inline: AnyNode[] = [];
    const endParagraph = () => {
      if (inline.length === 0) return;
      const text = paragraph(this.#inline({ children: inline }));
      inline = [];
      if (text !== "") blocks.push(text);
    };
    for (const child of parent.children) {
      if (isTag(child) && this.#isBlock(child)) {
        endParagraph();
        const text = this.#block(child);
        if (text !== "") blocks.push(text);
      } else if (isText(child) || isTag(child)) inline.push(child);
    }
    endParagraph();
    return blocks.join("\n\n");
  }

  /** Inline elements that hold blocks (a link around a card, say) are looked through. */
  #isBlock(element: Element): boolean {
    if (NO_TEXT.has(element.name) || this.#content.isAside(element)) return true;
    if (element.name === "br" || element.name === "button") return false;
    return BLOCKS.has(element.name) || element.children.some((child) => isTag(child) && this.#isBlock(child));
  }

  #block(element: Element): string {
    if (NO_TEXT.has(element.name) || this.#content.isAside(element) || this.#left <= 0) return "";
    switch (element.name) {
      case "h1":
      case "h2":
      case "h3":
      case "h4":
      case "h5":
      case "h6": {
        const text = paragraph(this.#inline(element)).replace(/ *\\?\n/g, " ");
        return text === "" ? "" : `${"#".repeat(Number(element.name[1]))} ${text}`;
      }
      case "hr":
        return "---";
      case "pre":
        return this.#code(element);
      case "blockquote":
        return prefixed(this.blocks(element), "> ", "> ");
      case "ul":
      case "ol":
      case "menu":
      case "dir":
        return this.#list(element);
      case "dl":
        return this.#definitions(element);
      case "table":
        return this.#table(element);
      case "summary":
      case "dt": {
        const text = paragraph(this.#inline(element));
        return text === "" || text.startsWith("**") ? text : `**${text}**`;
      }
      default:
        return this.blocks(element);
    }
  }

  #list(list: Element): string {
    const isOrdered = list.name === "ol";
    let number = /^\s*-?\d{1,9}/.test(list.attribs.start ?? "")
      ? Number.parseInt(list.attribs.start!, 10)
      : 1;
    const items: string[] = [];
    let isLoose = false;
    for (const child of list.children) {
      if (!isTag(child) || this.#content.isAside(child)) continue;
      // A list right inside a list is a mistake that browsers show as if it belonged to the item before.
      if (child.name === "ul" || child.name === "ol") {
        const nested = this.#list(child);
        if (nested !== "") items.push(prefixed(nested, "  ", "  "));
        continue;
      }
      if (child.attribs.value !== undefined && /^\d{1,9}$/.test(child.attribs.value))
        number = Number(child.attribs.value);
      const marker = isOrdered ? `${Math.max(0, number)}. ` : "- ";
      const text = this.#item(child);
      if (text === "") continue;
      isLoose ||= /\n\n(?![ ]*(?:[-*]|\d+\.) )/.test(text);
      items.push(prefixed(text, marker, " ".repeat(marker.length)));
      number++;
    }
    return items.join(isLoose ? "\n\n" : "\n");
  }

  /** Nested lists follow their item's line directly. */
  #item(item: Element): string {
    const box = item.children.find(
      (child) => isTag(child) && child.name === "input" && child.attribs.type === "checkbox",
    ) as Element | undefined;
    const text = this.blocks(item).replace(/\n\n(?=(?:[-*]|\d+\.) )/g, "\n");
    if (box === undefined) return text;
    return `${Object.hasOwn(box.attribs, "checked") ? "[x]" : "[ ]"} ${text}`;
  }

  #definitions(list: Element): string {
    const parts: string[] = [];
    const read = (parent: Element) => {
      for (const child of parent.children) {
        if (!isTag(child)) continue;
        if (child.name === "div") read(child);
        else if (child.name === "dd") {
          const text = this.blocks(child);
          if (text !== "") parts.push(prefixed(text, "- ", "  "));
        } else {
          const text = this.#block(child);
          if (text !== "") parts.push(parts.length === 0 ? text : `\n${text}`);
        }
      }
    };
    read(list);
    return parts.join("\n");
  }

  #code(pre: Element): string {
    const text = codeText(pre)
      .replace(/^\r?\n/, "")
      .trimEnd();
    if (text === "") return "";
    this.#left -= text.length;
    const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
    const fence = "`".repeat(longest + 1);
    return `${fence}${languageOf(pre)}\n${text}\n${fence}`;
  }

  #table(table: Element): string {
    const grid = readGrid(table);
    const pres = findAll(table, "pre").filter((pre) => !isGutter(pre));
    // Code beside the numbers of its lines.
    if (pres.length > 0 && grid.rows.length <= 1) return pres.map((pre) => this.#code(pre)).join("\n\n");
    const width = grid.rows[0]?.length ?? 0;
    const isLayout =
      table.attribs.role === "presentation" ||
      table.attribs.role === "none" ||
      findAll(table, "table").length > 0 ||
      LAYOUT_PARTS.some((name) => findAll(table, name).length > 0) ||
      width < 2;
    const caption = grid.caption === undefined ? "" : paragraph(this.#inline(grid.caption));
    if (isLayout) {
      const cells = grid.rows.flat().filter((cell): cell is GridCell => cell?.isFirst === true);
      return [caption, ...cells.map(({ element }) => this.blocks(element))]
        .filter((text) => text !== "")
        .join("\n\n");
    }
    const rows = grid.rows.map((row) =>
      row.map((cell) => (cell?.isFirst === true ? this.#cell(cell.element) : "")),
    );
    const lines = rows.map((row) => `| ${row.join(" | ")} |`);
    const rule = `| ${grid.rows[0]!.map((cell) => alignment(cell?.element)).join(" | ")} |`;
    // The syntax wants a head; a table without one gets an empty one.
    const whole =
      grid.headRows > 0 ? [lines[0]!, rule, ...lines.slice(1)] : [`|${"  |".repeat(width)}`, rule, ...lines];
    return caption === "" ? whole.join("\n") : `${caption}\n\n${whole.join("\n")}`;
  }

  #cell(cell: Element): string {
    const text = cell.children.some((child) => isTag(child) && this.#isBlock(child))
      ? this.blocks(cell)
      : paragraph(this.#inline(cell));
    return text
      .replace(/(?:^|\n)`{3,}.*?(?=\n|$)/g, "")
      .replace(/\|/g, "\\|")
      .trim()
      .replace(/(?: {2}|\\)?\n+/g, "<br>");
  }

  /** White space is not yet collapsed: a blank may stand at either end. */
  #inline(parent: Children): string {
    let out = "";
    for (const child of parent.children) {
      if (isText(child)) {
        this.#left -= child.data.length;
        out += escaped(child.data.replace(/\s+/g, " "));
      } else if (
        isTag(child) &&
        !NO_TEXT.has(child.name) &&
        !this.#content.isAside(child) &&
        this.#left > 0
      ) {
        out += this.#span(child);
      }
    }
    return out;
  }

  #span(element: Element): string {
    switch (element.name) {
      case "br":
        return BREAK;
      case "strong":
      case "b":
        return wrapped(this.#inline(element), "**");
      case "em":
      case "i":
        return wrapped(this.#inline(element), "*");
      case "del":
      case "s":
      case "strike":
        return wrapped(this.#inline(element), "~~");
      case "code":
      case "kbd":
      case "samp":
      case "tt":
        return codeSpan(codeText(element));
      case "q":
        return `"${this.#inline(element)}"`;
      case "img":
        return this.#image(element);
      case "a":
        return this.#link(element);
      case "wbr":
      case "input":
        return "";
      default: {
        const text = this.#inline(element);
        return BLOCKS.has(element.name) ? ` ${text} ` : text;
      }
    }
  }

  #link(element: Element): string {
    const text = this.#inline(element);
    const shown = text.trim();
    const { href } = element.attribs;
    // The sign beside a heading that leads to it.
    if (href?.startsWith("#") === true && /^(?:[#¶§\u{1f517}]|\\#|\\\*|)$/u.test(shown)) return "";
    const url = this.#absolute(href);
    if (url === undefined || shown === "") return text;
    return text.replace(shown, () => `[${shown}](${url})`);
  }

  #image({ attribs }: Element): string {
    const alt = escaped(collapse(attribs.alt ?? ""));
    const lazy = attribs["data-src"] ?? attribs["data-original"] ?? attribs["data-lazy-src"];
    const isPlaceholder = attribs.src === undefined || attribs.src.startsWith("data:");
    const url = this.#absolute(isPlaceholder ? (lazy ?? firstOf(attribs.srcset)) : attribs.src);
    return url === undefined ? alt : `![${alt}](${url})`;
  }

  /** Undefined: nothing that a reader could open. */
  #absolute(href: string | undefined): string | undefined {
    if (href === undefined || href.length > 2_048) return undefined;
    const url = URL.parse(href, this.#baseUrl);
    if (url === null || !/^(?:https?|mailto|tel|ftp):$/.test(url.protocol)) return undefined;
    this.#left -= url.href.length;
    return url.href.replace(
      /[()\s<>]/g,
      (character) => `%${character.charCodeAt(0).toString(16).padStart(2, "0").toUpperCase()}`,
    );
  }
}

/** Stands for a line break until the white space around it is known. */
const BREAK = "\u0001";

function paragraph(inline: string): string {
  return inline
    .replace(/[ \t\n\f\r]+/g, " ")
    .replace(/ ?\u0001 ?/g, "  \n")
    .trim()
    .replace(/^(#{1,6}(?= |$)|[>+-](?= |$)|={2,}$|\d{1,9}(?=[.)](?: |$))|~{3})/gm, (start) =>
      /^\d/.test(start) ? `${start}\\` : `\\${start}`,
    );
}

/** What Markdown would take for its own; underscores only where a word begins or ends. */
function escaped(text: string): string {
  return text
    .replaceAll("\u0001", "")
    .replace(/[\\`*[\]]|<(?=[a-z/!?])|&(?=#?\w+;)|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])|~(?=~)/giu, "\\$&");
}

/** Blanks at the ends go outside, or the signs would not count as such. */
function wrapped(text: string, sign: string): string {
  const isBlank = (n: number) => /[\s\u0001]/.test(text[n] ?? "x");
  let from = 0;
  let end = text.length;
  while (isBlank(from)) from++;
  while (end > from && isBlank(end - 1)) end--;
  const before = text.slice(0, from);
  const core = text.slice(from, end);
  const after = text.slice(end);
  if (core === "") return text;
  // The same inside the same, as in <b><b>: once is enough.
  if (core.startsWith(sign) && core.endsWith(sign)) return text;
  return before + sign + core.split(BREAK).join(`${sign}${BREAK}${sign}`) + sign + after;
}

function codeSpan(raw: string): string {
  const text = raw.replace(/\s+/g, " ");
  if (text.trim() === "") return text;
  const longest = Math.max(0, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const sign = "`".repeat(longest + 1);
  const pad = text.startsWith("`") || text.endsWith("`") ? " " : "";
  return sign + pad + text + pad + sign;
}

/** With its lines as they are: from the text, from `<br>`, and from elements that are a line each. */
function codeText(element: Element): string {
  let out = "";
  const read = (node: ParentNode) => {
    for (const child of node.children) {
      if (isText(child)) out += child.data;
      else if (isTag(child) && !isGutter(child)) {
        if (child.name === "br") out += "\n";
        else if (LINES.has(child.name)) {
          if (out !== "" && !out.endsWith("\n")) out += "\n";
          read(child);
          if (!out.endsWith("\n")) out += "\n";
        } else if (child.name !== "button" && child.name !== "script" && child.name !== "style") read(child);
      }
    }
  };
  read(element);
  return out;
}

const LINES: ReadonlySet<string> = new Set(["div", "p", "li", "ol", "ul", "tr", "table"]);

function isGutter({ attribs }: Element): boolean {
  return GUTTER.test(attribs.class ?? "") || Object.hasOwn(attribs, "data-line-number");
}

/** From the element, what is around it and what it holds, as highlighters write it. */
function languageOf(pre: Element): string {
  const code = pre.children.find((child) => isTag(child) && child.name === "code") as Element | undefined;
  const around: Element[] = [];
  for (let up = pre.parent, n = 0; up !== null && isTag(up) && n < 6; up = up.parent, n++) {
    if (n < 2 || /highlight|code/i.test(up.attribs.class ?? "")) around.push(up);
  }
  for (const element of [code, pre, ...around]) {
    if (element === undefined) continue;
    const { attribs } = element;
    const named =
      attribs["data-lang"] ??
      attribs["data-language"] ??
      (element === pre || element === code ? attribs.lang : undefined);
    if (named !== undefined && /^[\w#+.-]{1,30}$/.test(named)) return named.toLowerCase();
    for (const found of (attribs.class ?? "").matchAll(LANGUAGE)) {
      const language = found[1]!.toLowerCase();
      if (!NO_LANGUAGE.has(language)) return language;
    }
  }
  return "";
}

function findAll(within: Element, name: string): Element[] {
  const found: Element[] = [];
  const read = (node: ParentNode) => {
    for (const child of node.children) {
      if (!isTag(child)) continue;
      if (child.name === name) found.push(child);
      read(child);
    }
  };
  read(within);
  return found;
}

function alignment(cell: Element | undefined): string {
  const written = `${cell?.attribs.align ?? ""} ${cell?.attribs.style ?? ""}`.toLowerCase();
  const side = /(?:^|text-align\s*:\s*)(left|center|right)/.exec(written)?.[1];
  return side === "center" ? ":---:" : side === "right" ? "---:" : side === "left" ? ":---" : "---";
}

function firstOf(srcset: string | undefined): string | undefined {
  return srcset?.trim().split(/\s/, 1)[0];
}

/** Lines that are empty stay so, but for what quotes them. */
function prefixed(text: string, first: string, others: string): string {
  if (text === "") return "";
  return text
    .split("\n")
    .map((line, n) => (n === 0 ? first + line : line === "" ? others.trimEnd() : others + line))
    .join("\n");
}
