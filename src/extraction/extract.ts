/**
 * Runs rules on a page. A rule that can't be applied gives null and an entry in `errors`:
 * one broken field must not cost the others, nor the page.
 */
import { selectAll, selectOne } from "css-select";
import { type AnyNode, type Document, type Element, isTag } from "domhandler";
import { getOuterHTML } from "domutils";
import { parseNumber } from "./number.ts";
import type { CompiledRule, CompiledRules } from "./rule.ts";
import { StepsExceeded } from "./rule.ts";
import { collapse, inlineText } from "./text.ts";

export type FieldValue =
  | string
  | number
  | boolean
  | null
  | readonly FieldValue[]
  | { readonly [field: string]: FieldValue };

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

export const ERRORS_MAX = 100;
export const MATCHES_MAX = 10_000;
/** Characters of all values of a page, and a charge for each value. */
export const DATA_LENGTH_MAX = 1_000_000;

class ValueProblem extends Error {}
class DataTooLarge extends Error {}

/** @param baseUrl what relative URLs are resolved against: the page's, or that of its `<base>`. */
export function extract(root: Document, compiled: CompiledRules, baseUrl: string): Extracted {
  return new Extraction(compiled, baseUrl).run(root);
}

class Extraction {
  readonly #compiled: CompiledRules;
  readonly #baseUrl: string;
  readonly #errors: FieldError[] = [];
  #lengthLeft = DATA_LENGTH_MAX;

  constructor(compiled: CompiledRules, baseUrl: string) {
    this.#compiled = compiled;
    this.#baseUrl = baseUrl;
  }

  run(root: Document): Extracted {
    this.#compiled.budget.reset();
    return { data: this.#applyAll(this.#compiled.rules, root, ""), errors: this.#errors };
  }

  #applyAll(
    rules: readonly CompiledRule[],
    within: Document | Element,
    path: string,
  ): Record<string, FieldValue> {
    const data: Record<string, FieldValue> = {};
    for (const rule of rules) {
      const field = path === "" ? rule.field : `${path}.${rule.field}`;
      try {
        data[rule.field] = this.#apply(rule, within, field);
      } catch (error) {
        data[rule.field] = rule.all ? [] : null;
        if (error instanceof StepsExceeded) this.#report(field, `"${rule.css}" takes too long on this page`);
        else if (error instanceof DataTooLarge) this.#report(field, "gives too much data on this page");
        else throw error;
      }
    }
    return data;
  }

  #apply(rule: CompiledRule, within: Document | Element, field: string): FieldValue {
    if (!rule.all) {
      const element = this.#selectOne(rule, within);
      if (element === null) {
        if (rule.required) this.#report(field, `is required, but nothing matches "${rule.css}"`);
        return null;
      }
      return this.#value(rule, element, field);
    }
    const elements = this.#selectAll(rule, within);
    if (elements.length === 0 && rule.required) {
      this.#report(field, `is required, but nothing matches "${rule.css}"`);
    }
    if (elements.length > MATCHES_MAX) {
      this.#report(field, `matches ${elements.length} elements; only the first ${MATCHES_MAX} were taken`);
    }
    return elements.slice(0, MATCHES_MAX).map((element, n) => this.#value(rule, element, `${field}[${n}]`));
  }

  #selectOne(rule: CompiledRule, within: Document | Element): Element | null {
    if (rule.matches === undefined) return isTag(within) ? within : null;
    this.#enter(within);
    return selectOne<AnyNode, Element>(rule.matches, within, this.#compiled.options);
  }

  #selectAll(rule: CompiledRule, within: Document | Element): Element[] {
    if (rule.matches === undefined) return isTag(within) ? [within] : [];
    this.#enter(within);
    return selectAll<AnyNode, Element>(rule.matches, within, this.#compiled.options);
  }

  #enter(within: Document | Element): void {
    const element = isTag(within) ? within : within.children.find(isTag);
    if (element !== undefined) this.#compiled.scope[0] = element;
  }

  #value(rule: CompiledRule, element: Element, field: string): FieldValue {
    this.#charge(8);
    if (rule.fields !== undefined) return this.#applyAll(rule.fields, element, field);
    try {
      const value = this.#convert(rule, element);
      if (value === null && rule.required) {
        this.#report(
          field,
          rule.attr === undefined ? "is required, but empty" : `is required, but has no "${rule.attr}"`,
        );
      }
      return value;
    } catch (error) {
      if (!(error instanceof ValueProblem)) throw error;
      this.#report(field, error.message);
      return null;
    }
  }

  #convert({ attr, type }: CompiledRule, element: Element): FieldValue {
    if (type === "html") return this.#keep(getOuterHTML(element, { decodeEntities: true }));
    if (type === "url") {
      const text = element.attribs[attr ?? URL_ATTRIBUTE[element.name] ?? ""];
      return this.#toUrl(text ?? (attr === undefined ? this.#textOf(element) : undefined));
    }
    const raw = attr === undefined ? this.#textOf(element) : element.attribs[attr];
    if (type === "boolean") return toBoolean(raw, attr);
    if (raw === undefined) return null;
    if (type === "text") return this.#keep(attr === undefined ? raw : raw.trim());
    const text = collapse(raw);
    if (text === "") return null;
    const value = parseNumber(text);
    if (value === undefined) throw new ValueProblem(`"${excerpt(text)}" has no number`);
    if (type === "integer" && !Number.isSafeInteger(value)) {
      throw new ValueProblem(`"${excerpt(text)}" is no whole number`);
    }
    return value;
  }

  #toUrl(text: string | undefined): string | null {
    if (text === undefined || text.trim() === "") return null;
    const url = URL.parse(text, this.#baseUrl);
    if (url === null) throw new ValueProblem(`"${excerpt(text)}" is no URL`);
    return this.#keep(url.href);
  }

  #textOf(element: Element): string {
    const text = inlineText(element);
    // Reading a text has its price, also where little comes of it.
    this.#compiled.budget.spend(1 + text.length / 4);
    return text;
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

/** Where an element's address stands, for rules of type `url` that name no attribute. */
const URL_ATTRIBUTE: Readonly<Record<string, string>> = {
  __proto__: null as never,
  a: "href",
  area: "href",
  link: "href",
  base: "href",
  img: "src",
  script: "src",
  iframe: "src",
  frame: "src",
  source: "src",
  video: "src",
  audio: "src",
  embed: "src",
  track: "src",
  input: "src",
  object: "data",
  form: "action",
  blockquote: "cite",
  q: "cite",
  meta: "content",
};

/** HTML's boolean attributes count by presence: `<input checked>`. */
function toBoolean(raw: string | undefined, attr: string | undefined): boolean | null {
  if (raw === undefined) return false;
  const word = collapse(raw).toLowerCase();
  if (["true", "yes", "1", "on", "y"].includes(word)) return true;
  if (["false", "no", "0", "off", "n"].includes(word)) return false;
  if (attr !== undefined) return true;
  if (word === "") return null;
  throw new ValueProblem(`"${excerpt(word)}" is neither true nor false`);
}

function excerpt(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 59)}…`;
}
