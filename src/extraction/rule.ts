/**
 * Extraction rules: what a person writes, checked and compiled.
 *
 * A rule is `"css"`, `"css::text"`, `"css@attr"`, or an object. Inside `fields`, selectors
 * look below the matched element, and an empty one (`"@href"`, `"::text"`) is that element.
 *
 * Selectors can be dear: nested `:has` and sibling combinators take quadratic time and more.
 * Rather than guess a selector's cost from its looks, each step that css-select takes through
 * the tree is counted, and the count is bounded per page (`Budget`).
 */
import { compile, type Options } from "css-select";
import { type AnyNode, Element, isTag, isText } from "domhandler";
import * as domutils from "domutils";

export const VALUE_TYPES = ["text", "number", "integer", "boolean", "url", "html"] as const;
export type ValueType = (typeof VALUE_TYPES)[number];

export interface RuleObject {
  readonly css: string;
  /** The attribute to take instead of the text. */
  readonly attr?: string | undefined;
  /** Every match instead of the first. */
  readonly all?: boolean | undefined;
  readonly type?: ValueType | undefined;
  readonly required?: boolean | undefined;
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

/** Steps through the tree for all rules of one page: about half a second. */
export const STEPS_MAX = 100_000_000;

export class StepsExceeded extends Error {}

/** The steps that selectors may still take on the present page. */
export class Budget {
  #left = STEPS_MAX;

  reset(): void {
    this.#left = STEPS_MAX;
  }

  /** @throws {StepsExceeded} */
  spend(steps: number): void {
    if ((this.#left -= steps) < 0) throw new StepsExceeded();
  }
}

export interface CompiledRule {
  readonly field: string;
  /** Undefined: the element at hand. */
  readonly matches: ((node: AnyNode) => boolean) | undefined;
  readonly css: string;
  readonly attr: string | undefined;
  readonly all: boolean;
  readonly type: ValueType;
  readonly required: boolean;
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
  new RuleCompiler(issues).compile(rules, path, 0);
  return issues;
}

/** @throws {Error} when `ruleIssues` would have told of one. */
export function compileRules(rules: RuleSet): CompiledRules {
  const issues: RuleIssue[] = [];
  const compiled = new RuleCompiler(issues).compile(rules, "extract", 0);
  const [issue] = issues;
  if (issue !== undefined) throw new Error(`${issue.path}: ${issue.message}`);
  return compiled;
}

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

  compile(rules: RuleSet, path: string, depth: number): CompiledRules {
    return {
      rules: this.#compileSet(rules, path, depth),
      budget: this.#budget,
      scope: this.#scope,
      options: this.#options,
    };
  }

  #compileSet(rules: RuleSet, path: string, depth: number): CompiledRule[] {
    if (depth > FIELDS_DEPTH_MAX) {
      this.#issues.push({ path, message: `fields are nested more than ${FIELDS_DEPTH_MAX} levels deep` });
      return [];
    }
    const compiled: CompiledRule[] = [];
    for (const [field, rule] of Object.entries(rules)) {
      if (++this.#count > RULES_MAX) {
        this.#issues.push({ path, message: `more than ${RULES_MAX} rules; leave some out` });
        return compiled;
      }
      compiled.push(this.#compileRule(field, rule, `${path}.${field}`, depth));
    }
    return compiled;
  }

  #compileRule(field: string, rule: Rule, path: string, depth: number): CompiledRule {
    const form = typeof rule === "string" ? { css: rule } : rule;
    const { css, attr: shortAttr } = readShortForm(form.css);
    const cssPath = typeof rule === "string" ? path : `${path}.css`;
    const attr = form.attr ?? shortAttr;
    const fields =
      form.fields === undefined ? undefined : this.#compileSet(form.fields, `${path}.fields`, depth + 1);

    if (form.attr !== undefined && shortAttr !== undefined) {
      this.#issues.push({
        path: cssPath,
        message: `names an attribute already ("${shortAttr}"); leave out "attr"`,
      });
    }
    if (fields !== undefined && (attr !== undefined || form.type !== undefined)) {
      this.#issues.push({
        path,
        message: 'has "fields": its value is an object, so leave out "attr" and "type"',
      });
    }
    return {
      field,
      matches: this.#compileSelector(css, cssPath, depth),
      css,
      attr: attr?.toLowerCase(),
      all: form.all ?? false,
      type: form.type ?? "text",
      required: form.required ?? false,
      fields,
    };
  }

  #compileSelector(css: string, path: string, depth: number): ((node: AnyNode) => boolean) | undefined {
    if (css === "") {
      if (depth === 0) this.#issues.push({ path, message: 'needs a selector, e.g. "h1" or "a@href"' });
      return undefined;
    }
    if (css.length > SELECTOR_LENGTH_MAX) {
      this.#issues.push({ path, message: `a selector has at most ${SELECTOR_LENGTH_MAX} characters` });
      return undefined;
    }
    try {
      return compile<AnyNode, Element>(css, this.#options);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#issues.push({ path, message: `"${css}" is no CSS selector: ${reason}` });
      return undefined;
    }
  }
}

/** `a@href`, `a::attr(href)`, `h1::text`. An `@` inside brackets or quotes belongs to the selector. */
function readShortForm(text: string): { css: string; attr?: string } {
  const trimmed = text.trim();
  const attr = /(?:@([\w:.-]+)|::attr\(\s*([\w:.-]+)\s*\))$/.exec(trimmed);
  if (attr !== null) return { css: trimmed.slice(0, attr.index).trim(), attr: (attr[1] ?? attr[2])! };
  if (trimmed.endsWith("::text")) return { css: trimmed.slice(0, -"::text".length).trim() };
  return { css: trimmed };
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
