/**
 * JSONPath (RFC 9535) on values that came from strangers, within the budget of their page.
 *
 * The library evaluates; every step it takes through the value is paid here, by a price on
 * each selector, since `$..[?count($..*)>1]` on a page of a megabyte would never end. Its
 * `match` and `search` run on an engine that backtracks, and are replaced by a linear one.
 */
import {
  type FilterFunction,
  FunctionExpressionType,
  JSONPathEnvironment,
  type JSONPathQuery,
} from "json-p3";
import type { Budget } from "./budget.ts";
import { RegularExpression } from "./regular-expression.ts";

export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

const QUERY_LENGTH_MAX = 1_024;
/** Levels of arrays and objects in one another; what walks a value may then recurse. */
export const JSON_DEPTH_MAX = 256;
const EXPRESSIONS_KEPT = 64;
/** The library makes an object for each node that it looks at; a step through a page is cheaper. */
const NODE_PRICE = 16;

export class JsonPath {
  readonly #query: JSONPathQuery;

  /** @throws {Error} with a message for the author of the query. */
  constructor(source: string, budget: Budget) {
    if (source.length > QUERY_LENGTH_MAX)
      throw new Error(`a query has at most ${QUERY_LENGTH_MAX} characters`);
    this.#query = new PricedEnvironment(budget).compile(source);
    setPrice(this.#query, budget);
  }

  /**
   * At most `limit`, in the order of the value.
   *
   * @throws {StepsExceeded}
   */
  select(value: JsonValue, limit: number): JsonValue[] {
    const found: JsonValue[] = [];
    // The library promises not to change it.
    for (const node of this.#query.lazyQuery(value as Parameters<JSONPathQuery["lazyQuery"]>[0])) {
      if (found.length === limit) break;
      found.push(node.value as JsonValue);
    }
    return found;
  }
}

/** @throws {SyntaxError} or {Error} for a value nested too deeply. */
export function parseJson(text: string): JsonValue {
  const trimmed = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  if (depthOf(trimmed) > JSON_DEPTH_MAX) throw new Error(`is nested more than ${JSON_DEPTH_MAX} levels deep`);
  return JSON.parse(trimmed);
}

function depthOf(text: string): number {
  let depth = 0;
  let greatest = 0;
  let inString = false;
  for (let n = 0; n < text.length; n++) {
    const code = text.charCodeAt(n);
    if (inString) {
      if (code === 0x5c) n++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x5b || code === 0x7b) {
      if (++depth > greatest) greatest = depth;
    } else if (code === 0x5d || code === 0x7d) depth--;
  }
  return greatest;
}

class PricedEnvironment extends JSONPathEnvironment {
  readonly #budget: Budget;

  constructor(budget: Budget) {
    super({ maxRecursionDepth: 2 * JSON_DEPTH_MAX });
    this.#budget = budget;
    this.functionRegister.set("match", new PatternFunction(budget, true));
    this.functionRegister.set("search", new PatternFunction(budget, false));
  }

  override entries(
    ...[object]: Parameters<JSONPathEnvironment["entries"]>
  ): ReturnType<JSONPathEnvironment["entries"]> {
    const entries = Object.entries(object);
    this.#budget.spend(NODE_PRICE * entries.length);
    return entries;
  }
}

/** `match` and `search` (2.4.6, 2.4.7): a pattern that is none matches nothing. */
class PatternFunction implements FilterFunction {
  readonly argTypes = [FunctionExpressionType.ValueType, FunctionExpressionType.ValueType];
  readonly returnType = FunctionExpressionType.LogicalType;
  readonly #budget: Budget;
  readonly #whole: boolean;
  readonly #known = new Map<string, RegularExpression | null>();

  constructor(budget: Budget, whole: boolean) {
    this.#budget = budget;
    this.#whole = whole;
  }

  call(text: unknown, pattern: unknown): boolean {
    if (typeof text !== "string" || typeof pattern !== "string") return false;
    let expression = this.#known.get(pattern);
    if (expression === undefined) {
      this.#budget.spend(1_000);
      expression = compileIRegexp(pattern, this.#whole);
      // Patterns may come from the page as well.
      if (this.#known.size === EXPRESSIONS_KEPT) this.#known.clear();
      this.#known.set(pattern, expression);
    }
    return expression?.test(text, this.#budget) ?? false;
  }
}

/** RFC 9485: a dot is any character but a line feed and a carriage return; there are no lazy quantifiers and no groups with `?`. */
function compileIRegexp(pattern: string, whole: boolean): RegularExpression | null {
  let source = "";
  let inClass = false;
  for (let n = 0; n < pattern.length; n++) {
    const character = pattern[n]!;
    if (character === "\\") {
      const next = pattern[++n];
      if (next === undefined || !/[()*+.?[\\\]^nrt{|}pP-]/.test(next)) return null;
      source += `\\${next}`;
    } else if (inClass) {
      if (character === "]") inClass = false;
      source += character;
    } else if (character === "[") {
      inClass = true;
      source += character;
    } else if (character === ".") source += "[^\\n\\r]";
    else if (character === "^" || character === "$") source += `\\${character}`;
    else if (character === "?" && /[(*+?}]/.test(pattern[n - 1] ?? "(")) return null;
    else source += character;
  }
  try {
    return new RegularExpression(whole ? `^(?:${source})$` : source);
  } catch {
    return null;
  }
}

type Selector = JSONPathQuery["segments"][number]["selectors"][number];

/** Puts a price on each selector of a query, also of those in its filters. */
function setPrice(query: JSONPathQuery, budget: Budget): void {
  for (const segment of query.segments) {
    for (const selector of segment.selectors) {
      const { resolve, lazyResolve } = selector;
      selector.resolve = function (this: Selector, node) {
        budget.spend(priceOf(node.value, node.location.length));
        return resolve.call(this, node);
      };
      selector.lazyResolve = function (this: Selector, node) {
        budget.spend(priceOf(node.value, node.location.length));
        return lazyResolve.call(this, node);
      };
      if ("expression" in selector) priceFilter(selector.expression, budget);
    }
  }
}

function priceFilter(expression: unknown, budget: Budget): void {
  if (typeof expression !== "object" || expression === null) return;
  const parts = expression as Record<string, unknown>;
  if ("path" in parts) setPrice(parts.path as JSONPathQuery, budget);
  for (const part of ["left", "right", "expression"]) priceFilter(parts[part], budget);
  if (Array.isArray(parts.args)) for (const arg of parts.args) priceFilter(arg, budget);
}

/** Of the way there, which is copied for each node, and of an array's items; members of objects are paid where they are listed. */
function priceOf(value: unknown, depth: number): number {
  return 2 * NODE_PRICE + 2 * depth + (Array.isArray(value) ? NODE_PRICE * value.length : 0);
}
