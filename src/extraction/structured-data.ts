/**
 * What a page says of itself for machines: JSON-LD, microdata (HTML, "Microdata", 5.2.5),
 * RDFa Lite 1.1 and Open Graph, each in its own words, with addresses made absolute.
 */
import { type AnyNode, type Element, isTag, isText } from "domhandler";
import { type JsonValue, parseJson } from "./json-path.ts";
import { collapse, inlineText } from "./text.ts";
import { URL_ATTRIBUTE } from "./value.ts";

export type PropertyValue = string | StructuredItem;

export interface StructuredItem {
  /** Absolute, where the page says so. */
  readonly type: readonly string[];
  readonly id?: string;
  readonly properties: Readonly<Record<string, readonly PropertyValue[]>>;
}

export interface StructuredData {
  /** One entry for each object at the top of a script. */
  readonly jsonLd: readonly JsonValue[];
  readonly microdata: readonly StructuredItem[];
  readonly rdfa: readonly StructuredItem[];
  /** `og:title` and its kin, `twitter:card` as well; a list where the page has several. */
  readonly openGraph: Readonly<Record<string, string | readonly string[]>>;
}

const ITEMS_MAX = 1_000;
const NESTING_MAX = 32;
const VALUE_LENGTH_MAX = 10_000;
/** Characters of all that is kept of a page. */
const LENGTH_MAX = 500_000;

export function findStructuredData(elements: readonly Element[], baseUrl: string): StructuredData {
  const budget = { left: LENGTH_MAX, items: ITEMS_MAX };
  const byId = new Map<string, Element>();
  for (const element of elements) {
    const { id } = element.attribs;
    if (id !== undefined && !byId.has(id)) byId.set(id, element);
  }
  const isTop = (element: Element, scope: string) => Object.hasOwn(element.attribs, scope);
  const microdata = new ItemReader(MICRODATA, baseUrl, byId, budget);
  const rdfa = new ItemReader(RDFA, baseUrl, byId, budget);
  return {
    jsonLd: findJsonLd(elements),
    microdata: elements
      .filter((element) => isTop(element, "itemscope") && !isTop(element, "itemprop"))
      .flatMap((element) => microdata.item(element, 0) ?? []),
    rdfa: elements
      .filter(
        (element) =>
          isTop(element, "typeof") && (!isTop(element, "property") || !isWithin(element, "typeof")),
      )
      .flatMap((element) => rdfa.item(element, 0) ?? []),
    openGraph: findOpenGraph(elements),
  };
}

/** Scripts that can't be read are passed over. */
export function findJsonLd(elements: readonly Element[]): JsonValue[] {
  const found: JsonValue[] = [];
  let left = LENGTH_MAX;
  for (const { name, attribs, children } of elements) {
    if (name !== "script" || !/^\s*application\/ld\+json\s*(?:;|$)/i.test(attribs.type ?? "")) continue;
    const text = children.map((child) => (isText(child) ? child.data : "")).join("");
    if ((left -= text.length) < 0) break;
    const value = readJsonLd(text);
    if (Array.isArray(value)) found.push(...value.slice(0, ITEMS_MAX));
    else if (value !== undefined) found.push(value);
  }
  return found.map(withoutReserved);
}

/** Line breaks within strings, comments of HTML around the whole: many pages have them, and every reader forgives them. */
function readJsonLd(text: string): JsonValue | undefined {
  const bare = text.replace(
    /^\s*(?:<!--|(?:\/\/|\/\*)?\s*<!\[CDATA\[(?:\s*\*\/)?)|(?:-->|(?:\/\/|\/\*)? ?\]\]>(?:\s*\*\/)?)\s*$/g,
    "",
  );
  return jsonOf(bare) ?? jsonOf(bare.replace(/[\u0000-\u001f]+/g, " ").replace(/,\s*([\]}])/g, "$1"));
}

/** Undefined: the page's author wrote something else, which is no error of ours to tell. */
function jsonOf(text: string): JsonValue | undefined {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

function withoutReserved(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(withoutReserved);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => name !== "__proto__")
      .map(([name, item]) => [name, withoutReserved(item)]),
  );
}

interface Vocabulary {
  readonly scope: string;
  readonly property: string;
  readonly type: string;
  readonly id: string;
}

const MICRODATA: Vocabulary = { scope: "itemscope", property: "itemprop", type: "itemtype", id: "itemid" };
const RDFA: Vocabulary = { scope: "typeof", property: "property", type: "typeof", id: "resource" };

class ItemReader {
  readonly #words: Vocabulary;
  readonly #baseUrl: string;
  readonly #byId: ReadonlyMap<string, Element>;
  readonly #budget: { left: number; items: number };

  constructor(
    words: Vocabulary,
    baseUrl: string,
    byId: ReadonlyMap<string, Element>,
    budget: { left: number; items: number },
  ) {
    this.#words = words;
    this.#baseUrl = baseUrl;
    this.#byId = byId;
    this.#budget = budget;
  }

  /** Undefined: there are too many already. */
  item(element: Element, nesting: number): StructuredItem | undefined {
    if (nesting > NESTING_MAX || this.#budget.items-- <= 0) return undefined;
    const { attribs } = element;
    const properties: Record<string, PropertyValue[]> = {};
    for (const owner of this.#membersOf(element)) {
      const value = this.#valueOf(owner, nesting);
      if (value === undefined) continue;
      for (const name of words(owner.attribs[this.#words.property])) {
        if (name === "__proto__") continue;
        if (!Object.hasOwn(properties, name)) properties[name] = [];
        properties[name]!.push(value);
      }
    }
    const id = attribs[this.#words.id];
    const vocabulary = this.#words === RDFA ? vocabularyOf(element) : "";
    return {
      type: words(attribs[this.#words.type]).map((type) => (/[:]/.test(type) ? type : vocabulary + type)),
      ...(id === undefined ? {} : { id: this.#absolute(id) }),
      properties,
    };
  }

  /** Elements that are properties of this item and of no other within it, in document order. */
  #membersOf(item: Element): Element[] {
    const found: Element[] = [];
    const seen = new Set<AnyNode>([item]);
    const refs = this.#words === MICRODATA ? words(item.attribs.itemref) : [];
    const waiting: AnyNode[] = [
      ...item.children,
      ...refs.flatMap((id) => this.#byId.get(id) ?? []),
    ].reverse();
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (!isTag(node) || seen.has(node)) continue;
      seen.add(node);
      if (Object.hasOwn(node.attribs, this.#words.property)) found.push(node);
      if (Object.hasOwn(node.attribs, this.#words.scope)) continue;
      for (let n = node.children.length - 1; n >= 0; n--) waiting.push(node.children[n]!);
    }
    return found;
  }

  #valueOf(element: Element, nesting: number): PropertyValue | undefined {
    const { name, attribs } = element;
    if (Object.hasOwn(attribs, this.#words.scope)) return this.item(element, nesting + 1);
    const isMicrodata = this.#words === MICRODATA;
    let text: string;
    if (attribs.content !== undefined && (name === "meta" || !isMicrodata)) text = attribs.content;
    else if (!isMicrodata && attribs.resource !== undefined) text = this.#absolute(attribs.resource);
    else if (attribs[URL_ATTRIBUTE[name] ?? ""] !== undefined && name !== "meta") {
      text = this.#absolute(attribs[URL_ATTRIBUTE[name]!]!);
    } else if ((name === "data" || name === "meter") && attribs.value !== undefined) text = attribs.value;
    else if (name === "time" && attribs.datetime !== undefined) text = attribs.datetime;
    else text = inlineText(element);
    const kept = collapse(text).slice(0, VALUE_LENGTH_MAX);
    if ((this.#budget.left -= kept.length) < 0) return undefined;
    return kept;
  }

  #absolute(text: string): string {
    return URL.parse(text, this.#baseUrl)?.href ?? text;
  }
}

function findOpenGraph(elements: readonly Element[]): Record<string, string | string[]> {
  const found = new Map<string, string[]>();
  let left = LENGTH_MAX / 10;
  for (const { name, attribs } of elements) {
    if (name !== "meta" || attribs.content === undefined) continue;
    const key = collapse(attribs.property ?? attribs.name ?? "").toLowerCase();
    if (!/^(?:og|twitter|article|book|profile|product|video|music|fb|al):[\w:-]{1,100}$/.test(key)) continue;
    const value = collapse(attribs.content).slice(0, VALUE_LENGTH_MAX);
    if ((left -= key.length + value.length) < 0) break;
    found.set(key, [...(found.get(key) ?? []), value]);
  }
  return Object.fromEntries(
    [...found].map(([key, values]) => [key, values.length === 1 ? values[0]! : values]),
  );
}

function vocabularyOf(element: Element): string {
  for (let up: AnyNode | null = element; up !== null; up = up.parent) {
    const vocabulary = isTag(up) ? up.attribs.vocab : undefined;
    if (vocabulary !== undefined)
      return /[/#]$/.test(vocabulary) || vocabulary === "" ? vocabulary : `${vocabulary}/`;
  }
  return "";
}

function isWithin(element: Element, attribute: string): boolean {
  for (let up = element.parent; up !== null; up = up.parent) {
    if (isTag(up) && Object.hasOwn(up.attribs, attribute)) return true;
  }
  return false;
}

function words(text: string | undefined): string[] {
  return (text ?? "").split(/\s+/).filter((word) => word !== "");
}
