/**
 * Extraction rules: what a person writes, checked and compiled.
 *
 * A rule is a string or an object. `"css"`, `"css::text"` and `"css@attr"` are CSS; what begins
 * with `/`, `./`, `../` or `(` is XPath, and with `$` JSONPath, as no selector does. Inside `fields`,
 * rules look below what was matched, and an empty selector (`"@href"`, `"::text"`) is that
 * element itself.
 *
 * An object names where its values come from: `css` or `xpath` elements, then perhaps a
 * `jsonPath` into the JSON that they hold or a `regex` over their text. `jsonPath` or `regex`
 * alone is about the page's body, or in `fields` about the value at hand.
 */
import { compile, type Options } from "css-select";
import { type AnyNode, Element, isTag, isText } from "domhandler";
import * as domutils from "domutils";
import { Budget } from "./budget.ts";
import { JsonPath, type JsonValue } from "./json-path.ts";
import { isLocale } from "./number.ts";
import { RegularExpression, readSlashed } from "./regular-expression.ts";
import {
  compileTransform,
  STEPS_OF_RULE_MAX,
  StepIssue,
  type Transform,
  type TransformStep,
} from "./transform.ts";
import { XPath } from "./xpath.ts";

export const VALUE_TYPES = ["text", "number", "integer", "boolean", "date", "url", "html", "json"] as const;
export type ValueType = (typeof VALUE_TYPES)[number];

export interface RuleObject {
  readonly css?: string | undefined;
  /** XPath 1.0. */
  readonly xpath?: string | undefined;
  /** RFC 9535. */
  readonly jsonPath?: string | undefined;
  /** RE2's syntax, perhaps in slashes with flags: `/…/i`. The value is the first group, or the whole match where there is none. */
  readonly regex?: string | undefined;
  /** Another group of `regex`, by number or name; 0: the whole match. */
  readonly group?: number | string | undefined;
  /** The attribute to take instead of the text. */
  readonly attr?: string | undefined;
  /** Every match instead of the first. */
  readonly all?: boolean | undefined;
  readonly type?: ValueType | undefined;
  /** Whose signs and names numbers and dates are written with, e.g. "de" or "fr-CH". */
  readonly locale?: string | undefined;
  /** White space stays as it is in the source. */
  readonly keepSpace?: boolean | undefined;
  readonly transform?: readonly TransformStep[] | undefined;
  readonly required?: boolean | undefined;
  /** The value where there is none. */
  readonly default?: JsonValue | undefined;
  /** Rules applied within each match; the value is then an object. */
  readonly fields?: Readonly<Record<string, Rule>> | undefined;
}
export type Rule = string | RuleObject;
export type RuleSet = Readonly<Record<string, Rule>>;

export interface RuleIssue {
  /** E.g. `extract.items.fields.name.css` */
  readonly path: string;
  readonly message: string;
}

export const RULES_MAX = 500;
export const FIELDS_DEPTH_MAX = 8;
const SELECTOR_LENGTH_MAX = 1024;

/** Where a rule looks first. */
export type Selection =
  /** The element or value at hand; at the top, the body of the page. */
  | { readonly kind: "self" }
  | { readonly kind: "css"; readonly matches: (node: AnyNode) => boolean }
  | { readonly kind: "xpath"; readonly xpath: XPath };

export interface CompiledRule {
  readonly field: string;
  /** As it was written, for messages. */
  readonly written: string;
  readonly selection: Selection;
  readonly jsonPath: JsonPath | undefined;
  readonly regex: { readonly expression: RegularExpression; readonly group: number } | undefined;
  readonly attr: string | undefined;
  readonly all: boolean;
  /** Undefined: text, or of JSON what it is. */
  readonly type: ValueType | undefined;
  readonly locale: string | undefined;
  readonly keepSpace: boolean;
  readonly transform: Transform | undefined;
  readonly required: boolean;
  readonly default: JsonValue | undefined;
  readonly fields: readonly CompiledRule[] | undefined;
}

/** A rule set, ready to run on any number of pages, one after another. */
export interface CompiledRules {
  readonly rules: readonly CompiledRule[];
  readonly budget: Budget;
  /** What `:scope` and a leading combinator mean; set before each selection. */
  readonly scope: Element[];
  readonly options: Options<AnyNode, Element>;
}

/** What is wrong with rules whose shape is right already; empty: nothing. */
export function ruleIssues(rules: RuleSet, path = "extract"): RuleIssue[] {
  const issues: RuleIssue[] = [];
  new RuleCompiler(issues).compile(rules, path);
  return issues;
}

/** @throws {Error} when `ruleIssues` would have told of one. */
export function compileRules(rules: RuleSet): CompiledRules {
  const issues: RuleIssue[] = [];
  const compiled = new RuleCompiler(issues).compile(rules, "extract");
  const [issue] = issues;
  if (issue !== undefined) throw new Error(`${issue.path}: ${issue.message}`);
  return compiled;
}

const SELF: Selection = { kind: "self" };

/** What the rules around one are about. */
type Surroundings = "page" | "element" | "json";

class RuleCompiler {
  readonly #issues: RuleIssue[];
  readonly #budget = new Budget();
  // Never matched itself; stands for the element at hand while compiling.
  readonly #scope: Element[] = [new Element("scope", {})];
  readonly #options: Options<AnyNode, Element>;
  #count = 0;

  constructor(issues: RuleIssue[]) {
    this.#issues = issues;
    this.#options = { adapter: countingAdapter(this.#budget), context: this.#scope };
  }

  compile(rules: RuleSet, path: string): CompiledRules {
    return {
      rules: this.#compileSet(rules, path, 0, "page"),
      budget: this.#budget,
      scope: this.#scope,
      options: this.#options,
    };
  }

  #compileSet(rules: RuleSet, path: string, depth: number, within: Surroundings): CompiledRule[] {
    if (depth > FIELDS_DEPTH_MAX) {
      this.#report(path, `fields are nested more than ${FIELDS_DEPTH_MAX} levels deep`);
      return [];
    }
    const compiled: CompiledRule[] = [];
    for (const [field, rule] of Object.entries(rules)) {
      if (++this.#count > RULES_MAX) {
        this.#report(path, `more than ${RULES_MAX} rules; leave some out`);
        return compiled;
      }
      compiled.push(this.#compileRule(field, rule, `${path}.${field}`, depth, within));
    }
    return compiled;
  }

  #compileRule(field: string, rule: Rule, path: string, depth: number, within: Surroundings): CompiledRule {
    const form: RuleObject = typeof rule === "string" ? ofString(rule) : rule;
    const at = (part: string) => (typeof rule === "string" ? path : `${path}.${part}`);
    const { css, attr: shortAttr } = form.css === undefined ? {} : readShortForm(form.css);
    const attr = form.attr ?? shortAttr;
    if (form.attr !== undefined && shortAttr !== undefined) {
      this.#report(at("css"), `names an attribute already ("${shortAttr}"); leave out "attr"`);
    }
    this.#checkSources(form, path, at, within);
    const isValue = form.type !== undefined || form.regex !== undefined || form.transform !== undefined;
    if (form.fields !== undefined && (attr !== undefined || isValue)) {
      this.#report(
        path,
        'has "fields": its value is an object, so leave out "attr", "type", "regex" and "transform"',
      );
    }
    if (form.locale !== undefined) this.#checkLocale(form, at("locale"));
    const inner: Surroundings =
      form.jsonPath !== undefined || (within === "json" && css === undefined && form.xpath === undefined)
        ? "json"
        : "element";
    return {
      field,
      written: [css, form.xpath, form.jsonPath, form.regex]
        .filter((part) => part !== undefined && part !== "")
        .join(" "),
      selection: this.#compileSelection(css, form, at, depth, within),
      jsonPath:
        form.jsonPath === undefined ? undefined : this.#compileJsonPath(form.jsonPath, at("jsonPath")),
      regex: form.regex === undefined ? undefined : this.#compileRegex(form.regex, form.group, at),
      attr: attr?.toLowerCase(),
      all: form.all ?? false,
      type: form.type,
      locale: form.locale,
      keepSpace: form.keepSpace ?? false,
      transform:
        form.transform === undefined ? undefined : this.#compileTransform(form.transform, at("transform")),
      required: form.required ?? false,
      default: form.default,
      fields:
        form.fields === undefined
          ? undefined
          : this.#compileSet(form.fields, `${path}.fields`, depth + 1, inner),
    };
  }

  #checkSources(form: RuleObject, path: string, at: (part: string) => string, within: Surroundings): void {
    const { css, xpath, jsonPath, regex, attr, type } = form;
    if ([css, xpath, jsonPath, regex].every((source) => source === undefined)) {
      this.#report(path, 'says not where its value is: give it "css", "xpath", "jsonPath" or "regex"');
    }
    if (css !== undefined && xpath !== undefined)
      this.#report(at("xpath"), 'stands beside "css": leave one of them out');
    if (jsonPath !== undefined && regex !== undefined) {
      this.#report(at("regex"), 'stands beside "jsonPath": take apart what it finds with "transform"');
    }
    if (attr !== undefined && css === undefined && xpath === undefined) {
      this.#report(at("attr"), "is of an element: it needs a selector beside it");
    }
    if (within === "json" && (css !== undefined || xpath !== undefined)) {
      this.#report(
        css !== undefined ? at("css") : at("xpath"),
        "looks for elements, and its surroundings are JSON",
      );
    }
    if (form.group !== undefined && regex === undefined) this.#report(at("group"), 'is one of a "regex"');
    if (type === "html" && (jsonPath !== undefined || regex !== undefined || form.transform !== undefined)) {
      this.#report(
        at("type"),
        'is html, which only an element has: leave out "jsonPath", "regex" and "transform"',
      );
    }
    if (type === "json" && jsonPath === undefined && within !== "json") {
      this.#report(at("type"), 'is json, which a "jsonPath" gives');
    }
    if (form.keepSpace === true && type !== undefined && type !== "text") {
      this.#report(at("keepSpace"), "is about text, and the value is another type");
    }
  }

  #checkLocale({ locale = "", type }: RuleObject, path: string): void {
    if (!isLocale(locale))
      this.#report(path, `"${locale}" is no locale that is known here: write e.g. "de" or "fr-CH"`);
    if (type !== "number" && type !== "integer" && type !== "date") {
      this.#report(path, "is for numbers and dates: give the rule such a type, or leave it out");
    }
  }

  #compileSelection(
    css: string | undefined,
    form: RuleObject,
    at: (part: string) => string,
    depth: number,
    within: Surroundings,
  ): Selection {
    if (form.xpath !== undefined) return this.#compileXPath(form.xpath, at("xpath"));
    if (css === undefined) return SELF;
    if (css === "") {
      if (depth === 0 || within === "json")
        this.#report(at("css"), 'needs a selector, e.g. "h1" or "a@href"');
      return SELF;
    }
    if (css.length > SELECTOR_LENGTH_MAX) {
      this.#report(at("css"), `a selector has at most ${SELECTOR_LENGTH_MAX} characters`);
      return SELF;
    }
    try {
      return { kind: "css", matches: compile<AnyNode, Element>(css, this.#options) };
    } catch (error) {
      this.#report(at("css"), `"${css}" is no CSS selector: ${messageOf(error)}`);
      return SELF;
    }
  }

  #compileXPath(source: string, path: string): Selection {
    if (source.length > SELECTOR_LENGTH_MAX) {
      this.#report(path, `an expression has at most ${SELECTOR_LENGTH_MAX} characters`);
      return SELF;
    }
    try {
      return { kind: "xpath", xpath: new XPath(source, this.#budget) };
    } catch (error) {
      this.#report(path, `"${source}" is no XPath: ${messageOf(error)}`);
      return SELF;
    }
  }

  #compileJsonPath(source: string, path: string): JsonPath | undefined {
    try {
      return new JsonPath(source, this.#budget);
    } catch (error) {
      this.#report(path, `"${source}" is no JSONPath (RFC 9535): ${messageOf(error)}`);
      return undefined;
    }
  }

  #compileRegex(
    written: string,
    group: number | string | undefined,
    at: (part: string) => string,
  ): CompiledRule["regex"] {
    const { source, flags } = readSlashed(written) ?? { source: written, flags: "" };
    let expression: RegularExpression;
    try {
      expression = new RegularExpression(source, flags);
    } catch (error) {
      this.#report(at("regex"), `"${written}": ${messageOf(error)}`);
      return undefined;
    }
    const number =
      typeof group === "string"
        ? expression.groupNumbers.get(group)
        : (group ?? Math.min(1, expression.groupCount));
    if (number === undefined || number > expression.groupCount) {
      this.#report(
        at("group"),
        `"${group}" is no group of the expression, which has ${expression.groupCount}`,
      );
      return undefined;
    }
    return { expression, group: number };
  }

  #compileTransform(steps: readonly TransformStep[], path: string): Transform | undefined {
    if (steps.length > STEPS_OF_RULE_MAX) {
      this.#report(path, `has more than ${STEPS_OF_RULE_MAX} steps`);
      return undefined;
    }
    try {
      return compileTransform(steps, this.#budget);
    } catch (error) {
      if (!(error instanceof StepIssue)) throw error;
      this.#report(`${path}.${error.step}`, error.message);
      return undefined;
    }
  }

  #report(path: string, message: string): void {
    this.#issues.push({ path, message });
  }
}

function ofString(text: string): RuleObject {
  const trimmed = text.trim();
  if (trimmed.startsWith("$")) return { jsonPath: trimmed };
  return /^(?:\/|\.{1,2}\/|\()/.test(trimmed) ? { xpath: trimmed } : { css: text };
}

/** `a@href`, `a::attr(href)`, `h1::text`. An `@` inside brackets or quotes belongs to the selector. */
function readShortForm(text: string): { css: string; attr?: string } {
  const trimmed = text.trim();
  const attr = /(?:@([\w:.-]+)|::attr\(\s*([\w:.-]+)\s*\))$/.exec(trimmed);
  if (attr !== null) return { css: trimmed.slice(0, attr.index).trim(), attr: (attr[1] ?? attr[2])! };
  if (trimmed.endsWith("::text")) return { css: trimmed.slice(0, -"::text".length).trim() };
  return { css: trimmed };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** css-select's view of the tree, with a price on each step. */
function countingAdapter(budget: Budget): NonNullable<Options<AnyNode, Element>["adapter"]> {
  return {
    isTag: (node): node is Element => {
      budget.spend(1);
      return isTag(node);
    },
    getAttributeValue: (element, name) => element.attribs[name],
    getChildren: domutils.getChildren,
    getName: (element) => element.name,
    getParent: (element) => {
      budget.spend(1);
      return element.parent;
    },
    getSiblings: (node) => {
      const siblings = domutils.getSiblings(node);
      budget.spend(1 + siblings.length / 256);
      return siblings;
    },
    prevElementSibling: domutils.prevElementSibling,
    getText: (node) => countedText(node, budget),
    hasAttrib: (element, name) => element.attribs[name] !== undefined,
    removeSubsets: domutils.removeSubsets,
    equals: (a, b) => {
      budget.spend(1);
      return a === b;
    },
  };
}

/** For `:contains` and `:empty`: as dear as the part of the page that it is taken from. */
function countedText(from: AnyNode, budget: Budget): string {
  let out = "";
  const waiting: AnyNode[] = [from];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    budget.spend(1);
    if (isText(node)) out += node.data;
    else if ("children" in node) {
      for (let n = node.children.length - 1; n >= 0; n--) waiting.push(node.children[n]!);
    }
  }
  return out;
}
