/**
 * Which part of a page its readers came for: menus, banners, side columns and lists of links
 * aside.
 *
 * One pass over the tree tells for each element how many letters it holds that belong to
 * nothing of that kind. From the body, or from `<main>`, the way then leads down as long as
 * one child has nearly all of them. Unlike a search for the best paragraph, this never parts
 * a text from its tables and code, and it costs a fraction of parsing the page.
 */
import { type Document, type Element, isTag, isText, type ParentNode } from "domhandler";
import { BLOCKS, collapse, HIDDEN } from "./text.ts";

export interface MainContent {
  readonly root: Document | Element;
  /** The heading of the page, where it stands outside of `root`. */
  readonly heading: Element | undefined;
  /** What is no content, though it is inside. */
  isAside(element: Element): boolean;
}

/** A child with this share of the letters is where they are. */
const SHARE_MIN = 0.75;
/** Fewer letters than this are no content, if the page has more. */
const LETTERS_MIN = 80;
const LINK_SHARE_MAX = 0.5;
const LINKS_MIN = 3;

const ASIDE_TAGS: ReadonlySet<string> = new Set([
  ...HIDDEN,
  ..."nav aside footer form button select input textarea label dialog menu canvas audio video embed map datalist".split(
    " ",
  ),
]);
const ASIDE_ROLES: ReadonlySet<string> = new Set(
  "navigation banner contentinfo complementary search dialog alertdialog alert menu menubar toolbar tablist tooltip status".split(
    " ",
  ),
);
const ASIDE_NAMES =
  /(?:^|[-_\s])(?:nav|navbar|navigation|menu|breadcrumbs?|side-?bar|footer|foot|masthead|cookies?|consent|gdpr|advert\w*|ads?|adbox|promo\w*|sponsor\w*|share|sharing|social|related|recommend\w*|newsletter|subscribe|signup|login|comments?|popup|modal|overlay|pagination|pager|toolbar|skip|skip-?link|edit-?section|headerlink|toc|author-bio|tags?|widget)(?:$|[-_\s])/i;
const CONTENT_NAMES =
  /(?:^|[-_\s])(?:article|content|main|post|story|entry|body|text|page|markdown|documentation)(?:$|[-_\s])/i;

interface Letters {
  /** Of content. */
  own: number;
  /** Of content that is the text of a link. */
  linked: number;
  links: number;
}

export function findMainContent(document: Document): MainContent {
  const strict = new Survey(true);
  const body = strict.bodyOf(document);
  const all = strict.read(body);
  let survey = strict;
  const start = all.own >= LETTERS_MIN ? strict.startIn(body) : undefined;
  let root: Document | Element = start ?? body;
  if (all.own < LETTERS_MIN) {
    // A page of links, or one that calls everything a menu: then nothing but the plainest is left out.
    const lenient = new Survey(false);
    if (lenient.read(body).own > all.own) survey = lenient;
  }
  for (;;) {
    const within = survey.lettersOf(root).own;
    const next = root.children.find(
      (child) =>
        isTag(child) &&
        BLOCKS.has(child.name) &&
        !CLOSED.has(child.name) &&
        survey.lettersOf(child).own >= within * SHARE_MIN,
    );
    if (next === undefined || !isTag(next) || within === 0) break;
    root = next;
  }
  return { root, heading: survey.headingOutside(body, root), isAside: (element) => survey.isAside(element) };
}

/** Elements that are content as a whole: what is inside means nothing without them. */
const CLOSED: ReadonlySet<string> = new Set(
  "p pre ul ol dl table blockquote figure h1 h2 h3 h4 h5 h6 details".split(" "),
);

class Survey {
  readonly #isStrict: boolean;
  readonly #letters = new Map<ParentNode, Letters>();
  readonly #asides = new Set<Element>();
  readonly #mains: Element[] = [];
  readonly #headings: Element[] = [];

  constructor(isStrict: boolean) {
    this.#isStrict = isStrict;
  }

  bodyOf(document: Document): Document | Element {
    let found: Document | Element = document;
    for (const name of ["html", "body"]) {
      const next: Element | undefined = found.children.find(
        (child): child is Element => isTag(child) && child.name === name,
      );
      if (next !== undefined) found = next;
    }
    return found;
  }

  lettersOf(node: ParentNode): Letters {
    return this.#letters.get(node) ?? NONE;
  }

  isAside(element: Element): boolean {
    return this.#asides.has(element);
  }

  /** The one element that calls itself the content. */
  startIn(body: ParentNode): Element | undefined {
    const whole = this.lettersOf(body).own;
    const mains = this.#mains.filter(
      (element) => this.lettersOf(element).own >= Math.min(LETTERS_MIN, whole / 2),
    );
    return mains.length === 1 ? mains[0] : undefined;
  }

  headingOutside(body: ParentNode, root: ParentNode): Element | undefined {
    if (this.#headings.length !== 1) return undefined;
    const [heading] = this.#headings;
    for (let up: ParentNode | null = heading!; up !== null; up = up.parent) {
      if (up === root) return undefined;
      if (up === body) break;
      // A heading that is a link is the name of the site.
      if (isTag(up) && (up.name === "nav" || up.name === "aside" || up.name === "footer")) return undefined;
    }
    const onlyLink = heading!.children.filter((child) => !isText(child) || child.data.trim() !== "");
    return onlyLink.length === 1 && isTag(onlyLink[0]!) && onlyLink[0].name === "a" ? undefined : heading;
  }

  /** Recursive: a page is at most some hundred levels deep once it is parsed. */
  read(node: ParentNode, isLink = false, isInContent = false): Letters {
    const letters: Letters = { own: 0, linked: 0, links: 0 };
    for (const child of node.children) {
      if (isText(child)) {
        const length = lettersIn(child.data);
        letters.own += length;
        if (isLink) letters.linked += length;
      } else if (isTag(child)) {
        if (child.name === "h1") this.#headings.push(child);
        if (this.#isNamedAside(child, isInContent)) {
          this.#asides.add(child);
          this.#lookForHeading(child);
          continue;
        }
        const isMain = child.name === "main" || child.attribs.role === "main";
        if (isMain) this.#mains.push(child);
        const inner = this.read(
          child,
          isLink || child.name === "a",
          isInContent || isMain || child.name === "article",
        );
        if (this.#isStrict && !isInContent && isLinkList(child, inner)) {
          this.#asides.add(child);
          continue;
        }
        letters.own += inner.own;
        letters.linked += inner.linked;
        letters.links += inner.links + (child.name === "a" ? 1 : 0);
      }
    }
    this.#letters.set(node, letters);
    return letters;
  }

  /** Of the page's header, which is left out as a whole. */
  #lookForHeading(aside: Element): void {
    if (aside.name !== "header") return;
    const waiting: Element[] = aside.children.filter(isTag);
    for (let n = 0; n < waiting.length; n++) {
      const element = waiting[n]!;
      if (element.name === "h1") this.#headings.push(element);
      else if (element.name !== "nav") waiting.push(...element.children.filter(isTag));
    }
  }

  #isNamedAside(element: Element, isInContent: boolean): boolean {
    const { name, attribs } = element;
    if (name === "form" && !isInContent && !this.#isStrict) return false;
    if (ASIDE_TAGS.has(name)) return name !== "form" || !wrapsPage(element);
    if (name === "header") return !isInContent;
    if (Object.hasOwn(attribs, "hidden") || attribs["aria-hidden"] === "true") return true;
    if (/(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)/i.test(attribs.style ?? "")) return true;
    const role = attribs.role;
    if (role !== undefined && ASIDE_ROLES.has(role.toLowerCase())) return true;
    if (!this.#isStrict || NEVER_ASIDE.has(name)) return false;
    const names = `${attribs.class ?? ""} ${attribs.id ?? ""}`;
    return names.length > 1 && names.length < 1_000 && ASIDE_NAMES.test(names) && !CONTENT_NAMES.test(names);
  }
}

const NONE: Letters = { own: 0, linked: 0, links: 0 };
/** Names of classes say nothing of these: of a code's `tag` or a row's `comment`, for instance. */
const NEVER_ASIDE: ReadonlySet<string> = new Set(
  "html body main article p pre code span em strong b i tr td th table tbody thead h1 h2 h3 h4 h5 h6 img figure".split(
    " ",
  ),
);
const LINK_LISTS: ReadonlySet<string> = new Set("ul ol dl div section p table".split(" "));

function isLinkList(element: Element, { own, linked, links }: Letters): boolean {
  return (
    LINK_LISTS.has(element.name) && links >= LINKS_MIN && linked > own * LINK_SHARE_MAX && own - linked < 120
  );
}

/** Some servers put the whole page into one form. */
function wrapsPage(form: Element): boolean {
  let paragraphs = 0;
  const waiting: Element[] = form.children.filter(isTag);
  for (let n = 0; n < waiting.length && n < 2_000; n++) {
    const element = waiting[n]!;
    if (element.name === "p") paragraphs++;
    if (paragraphs > 2 || ["main", "article", "h1"].includes(element.name) || element.attribs.role === "main")
      return true;
    for (const child of element.children) if (isTag(child)) waiting.push(child);
  }
  return false;
}

/** Without white space: how a page is indented says nothing. */
function lettersIn(text: string): number {
  let count = 0;
  for (let n = 0; n < text.length; n++) if (text.charCodeAt(n) > 0x20) count++;
  return count;
}

/** As lines of text: one for each block, and one for each line of code. */
export function contentText(content: MainContent, lengthMax: number): string {
  const lines: string[] = [];
  let line = "";
  let length = 0;
  const endLine = (isCode: boolean) => {
    const text = isCode ? line.trimEnd() : collapse(line);
    line = "";
    if (text === "" || length > lengthMax) return;
    lines.push(text);
    length += text.length + 1;
  };
  const read = (node: ParentNode, isCode: boolean) => {
    for (const child of node.children) {
      if (isText(child)) {
        if (!isCode) line += child.data;
        else {
          const [first = "", ...others] = child.data.split("\n");
          line += first;
          for (const other of others) {
            endLine(true);
            line = other;
          }
        }
      } else if (isTag(child) && !content.isAside(child)) {
        const isBlock = BLOCKS.has(child.name);
        if (isBlock) endLine(isCode);
        else if (child.name === "td" || child.name === "th") line += " ";
        read(child, isCode || child.name === "pre");
        if (isBlock) endLine(isCode || child.name === "pre");
      }
    }
  };
  if (content.heading !== undefined) {
    read(content.heading, false);
    endLine(false);
  }
  read(content.root, false);
  endLine(false);
  return lines.join("\n").slice(0, lengthMax);
}
