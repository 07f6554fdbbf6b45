/**
 * Runs rules on a page. A rule that can't be applied gives null, or its default, and an
 * entry in `errors`: one broken field must not cost the others, nor the page.
 */
import { selectAll, selectOne } from "css-select";
import { type AnyNode, type Document, type Element, isTag, isText } from "domhandler";
import { getOuterHTML } from "domutils";
import { StepsExceeded } from "./budget.ts";
import { type JsonValue, parseJson } from "./json-path.ts";
import { TooMuchWork } from "./regular-expression.ts";
import type { CompiledRule, CompiledRules } from "./rule.ts";
import { inlineText, sourceText } from "./text.ts";
import { TextTooLong } from "./transform.ts";
import { convert, excerpt, type FieldValue, toUrl, URL_ATTRIBUTE, ValueProblem } from "./value.ts";
import { TooManyNodes } from "./xpath.ts";
import { AttributeNode } from "./xpath-node.ts";
import type { XPathValue } from "./xpath-value.ts";

export interface FieldError {
  /** E.g. `items[3].price` */
  readonly field: string;
  readonly message: string;
}

export interface Extracted {
  readonly data: Record<string, FieldValue>;
  /** At most `ERRORS_MAX`. */
  readonly errors: FieldError[];
}

/** What rules can be applied to. */
export interface PageContent {
  /** Null: the page is no markup. */
  readonly root: Document | null;
  /** The body, decoded. */
  readonly text: string;
  /** Its media type, for messages. */
  readonly type: string | undefined;
}

export interface ExtractOptions {
  /** What relative URLs are resolved against: the page's, or that of its `<base>`. */
  readonly baseUrl: string;
  /** Whether the time for the rules of this page is over. */
  readonly isLate?: () => boolean;
  /** Told what each rule matched, and how it looks, before anything is made of it. */
  readonly onMatch?: (field: string, count: number, first: string | undefined) => void;
}

export const ERRORS_MAX = 100;
export const MATCHES_MAX = 10_000;
/** Characters of all values of a page, and a charge for each value. */
export const DATA_LENGTH_MAX = 1_000_000;

class DataTooLarge extends Error {}

export function extract(page: PageContent, compiled: CompiledRules, options: ExtractOptions): Extracted {
  return new Extraction(page, compiled, options).run();
}

/** What a rule looks at, and what it finds. */
type Item =
  | { readonly kind: "node"; readonly node: Document | Element }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "json"; readonly value: JsonValue };

class Extraction {
  readonly #page: PageContent;
  readonly #compiled: CompiledRules;
  readonly #options: ExtractOptions;
  readonly #errors: FieldError[] = [];
  #json: { readonly value: JsonValue } | { readonly problem: string } | undefined;
  #lengthLeft = DATA_LENGTH_MAX;

  constructor(page: PageContent, compiled: CompiledRules, options: ExtractOptions) {
    this.#page = page;
    this.#compiled = compiled;
    this.#options = options;
  }

  run(): Extracted {
    this.#compiled.budget.reset(this.#options.isLate);
    return { data: this.#applyAll(this.#compiled.rules, undefined, ""), errors: this.#errors };
  }

  /** @param within undefined: the page. */
  #applyAll(
    rules: readonly CompiledRule[],
    within: Item | undefined,
    path: string,
  ): Record<string, FieldValue> {
    const data: Record<string, FieldValue> = {};
    for (const rule of rules) {
      const field = path === "" ? rule.field : `${path}.${rule.field}`;
      try {
        data[rule.field] = this.#apply(rule, within, field);
      } catch (error) {
        data[rule.field] = this.#fallback(rule);
        this.#report(field, problemOf(error, rule));
      }
    }
    return data;
  }

  #apply(rule: CompiledRule, within: Item | undefined, field: string): FieldValue {
    const items = this.#find(rule, within);
    this.#options.onMatch?.(field, items.length, items[0] === undefined ? undefined : lookOf(items[0]));
    if (items.length === 0) {
      if (rule.required && rule.default === undefined) {
        this.#report(field, `is required, but nothing matches "${rule.written}"`);
      }
      return this.#fallback(rule);
    }
    if (!rule.all) return this.#valueOr(rule, items[0]!, field);
    if (items.length > MATCHES_MAX) {
      this.#report(field, `matches ${items.length} elements; only the first ${MATCHES_MAX} were taken`);
      items.length = MATCHES_MAX;
    }
    if (rule.transform !== undefined) {
      return this.#transformed(
        rule,
        items.map((item) => this.#rawText(rule, item) ?? ""),
        field,
      );
    }
    return items.map((item, n) => this.#valueOr(rule, item, `${field}[${n}]`));
  }

  #fallback(rule: CompiledRule): FieldValue {
    if (rule.default !== undefined) return rule.default;
    return rule.all ? [] : null;
  }

  #find(rule: CompiledRule, within: Item | undefined): Item[] {
    const selected = this.#select(rule, within);
    const { jsonPath, regex } = rule;
    const limit = rule.all ? MATCHES_MAX + 1 : 1;
    if (jsonPath === undefined && regex === undefined) return selected;
    const found: Item[] = [];
    for (const item of selected) {
      if (jsonPath !== undefined) {
        for (const value of jsonPath.select(this.#jsonOf(rule, item), limit - found.length))
          found.push({ kind: "json", value });
      } else if (regex !== undefined) {
        const text = this.#sourceOf(rule, item);
        if (text === null) continue;
        for (const { groups } of regex.expression.matches(
          text,
          limit - found.length,
          this.#compiled.budget,
        )) {
          found.push({ kind: "text", text: groups[regex.group] ?? "" });
        }
      }
      if (found.length >= limit) break;
    }
    return found;
  }

  #select(rule: CompiledRule, within: Item | undefined): Item[] {
    const { selection } = rule;
    if (selection.kind === "self") {
      if (within !== undefined) return [within];
      return rule.jsonPath === undefined
        ? [{ kind: "text", text: this.#page.text }]
        : [{ kind: "json", value: this.#pageJson() }];
    }
    const node = within === undefined ? this.#page.root : within.kind === "node" ? within.node : null;
    if (node === null)
      throw new ValueProblem(`looks for elements, and the page is ${this.#page.type ?? "of unknown type"}`);
    if (selection.kind === "xpath") return xpathItems(selection.xpath.evaluate(node));
    const element = isTag(node) ? node : node.children.find(isTag);
    if (element !== undefined) this.#compiled.scope[0] = element;
    const { options } = this.#compiled;
    // With a jsonPath or a regex, the first element need not be the one that has it.
    if (rule.all || rule.jsonPath !== undefined || rule.regex !== undefined) {
      return selectAll<AnyNode, Element>(selection.matches, node, options).map((found) => ({
        kind: "node",
        node: found,
      }));
    }
    const found = selectOne<AnyNode, Element>(selection.matches, node, options);
    return found === null ? [] : [{ kind: "node", node: found }];
  }

  #pageJson(): JsonValue {
    this.#json ??= read(this.#page.text);
    if ("problem" in this.#json) throw new ValueProblem(`the page is no JSON: ${this.#json.problem}`);
    return this.#json.value;
  }

  #jsonOf(rule: CompiledRule, item: Item): JsonValue {
    if (item.kind === "json") return item.value;
    const json = read(this.#sourceOf(rule, item) ?? "");
    if ("problem" in json)
      throw new ValueProblem(`what "${rule.written}" is about is no JSON: ${json.problem}`);
    return json.value;
  }

  /** As it is in the page, for what looks into it. */
  #sourceOf({ attr }: CompiledRule, item: Item): string | null {
    if (item.kind === "text") return item.text;
    if (item.kind === "json") return typeof item.value === "string" ? item.value : JSON.stringify(item.value);
    if (attr !== undefined) return attributeOf(item.node, attr);
    return this.#paid(sourceText(item.node));
  }

  #valueOr(rule: CompiledRule, item: Item, field: string): FieldValue {
    this.#charge(8);
    if (rule.fields !== undefined) return this.#applyAll(rule.fields, item, field);
    if (rule.transform !== undefined) return this.#transformed(rule, this.#rawText(rule, item), field);
    return this.#converted(rule, field, () => this.#convert(rule, item), missing(rule));
  }

  /** @param make throws `ValueProblem` when there is a value, but not one of the rule's type. */
  #converted(rule: CompiledRule, field: string, make: () => FieldValue, absence: string): FieldValue {
    try {
      const value = make();
      if (value !== null) return value;
      if (rule.default !== undefined) return rule.default;
      if (rule.required) this.#report(field, absence);
      return null;
    } catch (error) {
      if (!(error instanceof ValueProblem)) throw error;
      this.#report(field, error.message);
      return rule.default ?? null;
    }
  }

  #convert(rule: CompiledRule, item: Item): FieldValue {
    const { type = item.kind === "json" ? "json" : "text", attr } = rule;
    if (type === "html") {
      return item.kind === "node" ? this.#keep(getOuterHTML(item.node, { encodeEntities: "utf8" })) : null;
    }
    if (type === "json") return item.kind === "json" ? this.#copied(item.value) : null;
    if (type === "url" && item.kind === "node") {
      const written = attributeOf(
        item.node,
        attr ?? (isTag(item.node) ? (URL_ATTRIBUTE[item.node.name] ?? "") : ""),
      );
      const url = toUrl(
        written ?? (attr === undefined ? this.#textOf(rule, item.node) : null),
        this.#options.baseUrl,
      );
      return url === null ? null : this.#keep(url);
    }
    if (type === "boolean" && item.kind === "node" && attr !== undefined) {
      const written = attributeOf(item.node, attr);
      // HTML's boolean attributes count by presence: `<input checked>`.
      if (written === null) return false;
      try {
        return convert(type, written, rule.locale, this.#options.baseUrl) ?? true;
      } catch {
        return true;
      }
    }
    return this.#ofText(rule, this.#rawText(rule, item));
  }

  #ofText(rule: CompiledRule, text: string | null): FieldValue {
    if (text === null) return null;
    const type = rule.type === undefined || rule.type === "json" || rule.type === "html" ? "text" : rule.type;
    const value = convert(type, text, rule.locale, this.#options.baseUrl);
    return typeof value === "string" ? this.#keep(value) : value;
  }

  #transformed(rule: CompiledRule, raw: string | readonly string[] | null, field: string): FieldValue {
    if (raw === null || rule.transform === undefined)
      return this.#converted(rule, field, () => null, missing(rule));
    const texts = rule.transform(raw);
    if (typeof texts === "string")
      return this.#converted(rule, field, () => this.#ofText(rule, texts), missing(rule));
    return texts.map((text, n) => {
      this.#charge(8);
      return this.#converted(rule, `${field}[${n}]`, () => this.#ofText(rule, text), missing(rule));
    });
  }

  /** Null: there is none. */
  #rawText(rule: CompiledRule, item: Item): string | null {
    switch (item.kind) {
      case "text":
        return rule.keepSpace ? item.text : item.text.trim();
      case "json": {
        const { value } = item;
        if (value === null) return null;
        if (typeof value === "object")
          throw new ValueProblem(
            `${Array.isArray(value) ? "an array" : "an object"} is no ${rule.type ?? "text"}`,
          );
        return String(value);
      }
      case "node": {
        if (rule.attr === undefined) return this.#textOf(rule, item.node);
        const written = attributeOf(item.node, rule.attr);
        return rule.keepSpace ? written : (written?.trim() ?? null);
      }
    }
  }

  #textOf(rule: CompiledRule, node: Document | Element): string {
    // Reading a text has its price, also where little comes of it.
    return this.#paid(rule.keepSpace ? sourceText(node) : inlineText(node));
  }

  #paid(text: string): string {
    this.#compiled.budget.spend(1 + text.length / 4);
    return text;
  }

  /** Values of pages become part of the result: within its bounds, and without the one name that no object may have. */
  #copied(value: JsonValue): FieldValue {
    this.#charge(8);
    if (typeof value === "string") return this.#keep(value);
    if (typeof value !== "object" || value === null) return value;
    if (isList(value)) return value.map((item) => this.#copied(item));
    const copy: Record<string, FieldValue> = {};
    for (const [name, item] of Object.entries(value)) {
      this.#charge(name.length);
      if (name !== "__proto__") copy[name] = this.#copied(item);
    }
    return copy;
  }

  #keep(text: string): string {
    this.#charge(text.length);
    return text;
  }

  #charge(length: number): void {
    if (this.#lengthLeft < length) throw new DataTooLarge();
    this.#lengthLeft -= length;
  }

  #report(field: string, message: string): void {
    if (this.#errors.length < ERRORS_MAX) this.#errors.push({ field, message });
  }
}

/** @throws {unknown} what is no failure of a rule. */
function problemOf(error: unknown, { written }: CompiledRule): string {
  if (error instanceof ValueProblem) return error.message;
  if (error instanceof StepsExceeded) return `"${written}" takes too long on this page`;
  if (error instanceof TooMuchWork)
    return `"${written}" is too large an expression for a text of this length`;
  if (error instanceof DataTooLarge || error instanceof TextTooLong)
    return "gives too much data on this page";
  // A path through a very large value: more matches than fit on the stack, or deeper than the library goes.
  const isTooLarge =
    error instanceof RangeError || (error instanceof Error && /recursion/i.test(error.message));
  if (error instanceof TooManyNodes || isTooLarge) return `"${written}" matches too much on this page`;
  throw error;
}

function missing({ attr, type, written }: CompiledRule): string {
  if (attr !== undefined) return `is required, but has no "${attr}"`;
  return type === undefined || type === "json"
    ? `is required, but "${written}" is null`
    : "is required, but empty";
}

function xpathItems(value: XPathValue): Item[] {
  if (!Array.isArray(value)) return [{ kind: "text", text: String(value) }];
  const items: Item[] = [];
  for (const node of value) {
    if (node instanceof AttributeNode) items.push({ kind: "text", text: node.value });
    else if (isTag(node) || node.type === "root") items.push({ kind: "node", node });
    else if (isText(node) || node.type === "comment") items.push({ kind: "text", text: node.data });
  }
  return items;
}

function isList(value: object): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** Null: it has none of that name. */
function attributeOf(node: Document | Element, name: string): string | null {
  return isTag(node) && Object.hasOwn(node.attribs, name) ? node.attribs[name]! : null;
}

function read(text: string): { value: JsonValue } | { problem: string } {
  try {
    return { value: parseJson(text) };
  } catch (error) {
    return { problem: error instanceof Error ? excerpt(error.message, 200) : String(error) };
  }
}

const LOOK_LENGTH_MAX = 200;

function lookOf(item: Item): string {
  if (item.kind === "node")
    return excerpt(getOuterHTML(item.node, { encodeEntities: "utf8" }), LOOK_LENGTH_MAX);
  return excerpt(item.kind === "text" ? item.text : JSON.stringify(item.value), LOOK_LENGTH_MAX);
}
