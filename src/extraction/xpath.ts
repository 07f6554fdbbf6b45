/**
 * XPath 1.0 on the tree that pages are parsed into, without a copy of it. Each node that a
 * step looks at is paid from the budget of the page.
 *
 * A library was measured at three times the cost of parsing the page, and none can be
 * stopped half-way.
 */
import { type AnyNode, type Document, Element, isTag, isText, type ParentNode } from "domhandler";
import type { Budget } from "./budget.ts";
import { type Axis, type Expression, parseXPath, type Step } from "./xpath-expression.ts";
import { AttributeNode, below, isMatch, type XPathNode } from "./xpath-node.ts";
import { isAnyBelow, isPositional } from "./xpath-place.ts";
import {
  type Comparison,
  holds,
  numberText,
  roundHalfUp,
  toBoolean,
  toNumber,
  type XPathValue,
} from "./xpath-value.ts";

/** A step here is as dear as so many of a selector's. */
const STEP_PRICE = 8;
/** Nodes of a set while an expression is evaluated. */
const NODES_MAX = 200_000;

export class TooManyNodes extends Error {}

export class XPath {
  readonly #expression: Expression;
  readonly #budget: Budget;

  /** @throws {XPathSyntaxError} */
  constructor(source: string, budget: Budget) {
    this.#expression = parseXPath(source);
    this.#budget = budget;
  }

  /**
   * Nodes come in document order, each once.
   *
   * @throws {StepsExceeded}
   * @throws {TooManyNodes}
   */
  evaluate(context: Document | Element): XPathValue {
    return new Evaluation(context, this.#budget).value(this.#expression, {
      node: context,
      position: 1,
      size: 1,
    });
  }
}

interface Context {
  readonly node: XPathNode;
  /** From 1. */
  readonly position: number;
  readonly size: number;
}

class Evaluation {
  readonly #budget: Budget;
  readonly #root: ParentNode;
  readonly #attributes = new Map<Element, AttributeNode[]>();
  #order: Map<AnyNode, number> | undefined;

  constructor(context: Document | Element, budget: Budget) {
    this.#budget = budget;
    let root: ParentNode = context;
    while (root.parent !== null) root = root.parent;
    this.#root = root;
  }

  value(expression: Expression, context: Context): XPathValue {
    this.#budget.spend(STEP_PRICE);
    switch (expression.kind) {
      case "literal":
        return expression.value;
      case "negation":
        return -this.#number(this.value(expression.of, context));
      case "union":
        return this.#inOrder([
          ...this.#nodes(expression.left, context),
          ...this.#nodes(expression.right, context),
        ]);
      case "operation":
        return this.#operation(expression, context);
      case "call":
        return this.#call(expression.name, expression.args, context);
      case "path": {
        let nodes: XPathNode[] = expression.isAbsolute ? [this.#root as AnyNode] : [context.node];
        if (expression.start !== null) nodes = this.#nodes(expression.start, context);
        for (const predicate of expression.predicates) nodes = this.#filter(nodes, predicate);
        for (let n = 0; n < expression.steps.length; n++) {
          const step = expression.steps[n]!;
          const next = expression.steps[n + 1];
          // `//name`: the same nodes, without a stop at each one that is on the way.
          if (
            next !== undefined &&
            isAnyBelow(step) &&
            next.axis === "child" &&
            !next.predicates.some(isPositional)
          ) {
            nodes = this.#walk(nodes, { ...next, axis: "descendant" });
            n++;
          } else nodes = this.#walk(nodes, step);
        }
        return nodes;
      }
    }
  }

  #nodes(expression: Expression, context: Context): XPathNode[] {
    const value = this.value(expression, context);
    return Array.isArray(value) ? value : [];
  }

  #walk(contexts: readonly XPathNode[], step: Step): XPathNode[] {
    const found: XPathNode[] = [];
    const isBelow = step.axis === "descendant" || step.axis === "descendant-or-self";
    const from = isBelow && !step.predicates.some(isPositional) ? this.#outermost(contexts) : contexts;
    for (const node of from) {
      let nodes: XPathNode[] = [];
      this.#along(step.axis, node, (other) => {
        if (isMatch(other, step.test, step.axis)) nodes.push(other);
      });
      for (const predicate of step.predicates) nodes = this.#filter(nodes, predicate);
      for (const other of nodes) found.push(other);
      if (found.length > NODES_MAX) throw new TooManyNodes();
    }
    if (from.length === 1) return REVERSE.has(step.axis) ? found.reverse() : found;
    return this.#inOrder(found);
  }

  /** Without nodes inside others of them, which come in document order: what is below these is below those as well. */
  #outermost(nodes: readonly XPathNode[]): readonly XPathNode[] {
    if (nodes.length < 2) return nodes;
    const kept = new Set<XPathNode>();
    for (const node of nodes) {
      let up = node instanceof AttributeNode ? null : node.parent;
      let height = 1;
      for (; up !== null && !kept.has(up as AnyNode); up = up.parent) height++;
      this.#budget.spend(height);
      if (up === null) kept.add(node);
    }
    return [...kept];
  }

  #filter(nodes: readonly XPathNode[], predicate: Expression): XPathNode[] {
    const size = nodes.length;
    return nodes.filter((node, n) => {
      const value = this.value(predicate, { node, position: n + 1, size });
      return typeof value === "number" ? value === n + 1 : toBoolean(value);
    });
  }

  /** Visits what lies on an axis, nearest first. */
  #along(axis: Axis, node: XPathNode, visit: (node: XPathNode) => void): void {
    const see = (other: XPathNode) => {
      this.#budget.spend(STEP_PRICE);
      visit(other);
    };
    const above = node instanceof AttributeNode ? node.owner : node.parent;
    switch (axis) {
      case "self":
        return see(node);
      case "child":
        if (!(node instanceof AttributeNode) && "children" in node) node.children.forEach(see);
        return;
      case "attribute":
        if (node instanceof Element) this.#attributesOf(node).forEach(see);
        return;
      case "parent":
        if (above !== null) see(above as AnyNode);
        return;
      case "ancestor":
      case "ancestor-or-self":
        if (axis === "ancestor-or-self") see(node);
        for (let up: ParentNode | null = above; up !== null; up = up.parent) see(up as AnyNode);
        return;
      case "descendant-or-self":
        see(node);
        if (!(node instanceof AttributeNode)) below(node, see);
        return;
      case "descendant":
        if (!(node instanceof AttributeNode)) below(node, see);
        return;
      case "following-sibling":
        if (node instanceof AttributeNode) return;
        for (let other = node.next; other !== null; other = other.next as AnyNode | null)
          see(other as AnyNode);
        return;
      case "preceding-sibling":
        if (node instanceof AttributeNode) return;
        for (let other = node.prev; other !== null; other = other.prev as AnyNode | null)
          see(other as AnyNode);
        return;
      case "following": {
        let from: AnyNode = node instanceof AttributeNode ? node.owner : node;
        if (node instanceof AttributeNode) below(from, see);
        for (; ; from = from.parent as AnyNode) {
          for (let other = from.next; other !== null; other = other.next) {
            see(other as AnyNode);
            below(other as AnyNode, see);
          }
          if (from.parent === null) return;
        }
      }
      case "preceding": {
        let from: AnyNode = node instanceof AttributeNode ? node.owner : node;
        for (; ; from = from.parent as AnyNode) {
          for (let other = from.prev; other !== null; other = other.prev) {
            const nodes: XPathNode[] = [other as AnyNode];
            below(other as AnyNode, (deeper) => nodes.push(deeper));
            nodes.reverse().forEach(see);
          }
          if (from.parent === null) return;
        }
      }
    }
  }

  #attributesOf(element: Element): AttributeNode[] {
    let nodes = this.#attributes.get(element);
    if (nodes === undefined) {
      nodes = Object.keys(element.attribs).map((name, index) => new AttributeNode(element, name, index));
      this.#attributes.set(element, nodes);
    }
    return nodes;
  }

  /** In document order, each once. */
  #inOrder(nodes: readonly XPathNode[]): XPathNode[] {
    const unique = [...new Set(nodes)];
    if (unique.length < 2) return unique;
    const order = (this.#order ??= this.#countNodes());
    const place = (node: XPathNode) =>
      node instanceof AttributeNode
        ? (order.get(node.owner) ?? 0) + (node.index + 1) / 1e6
        : (order.get(node) ?? 0);
    this.#budget.spend(unique.length);
    return unique.sort((a, b) => place(a) - place(b));
  }

  #countNodes(): Map<AnyNode, number> {
    const order = new Map<AnyNode, number>([[this.#root as AnyNode, 0]]);
    below(this.#root as AnyNode, (node) => order.set(node as AnyNode, order.size));
    this.#budget.spend(order.size);
    return order;
  }

  #operation(
    { operator, left, right }: Extract<Expression, { kind: "operation" }>,
    context: Context,
  ): boolean | number {
    const first = this.value(left, context);
    if (operator === "or") return toBoolean(first) || toBoolean(this.value(right, context));
    if (operator === "and") return toBoolean(first) && toBoolean(this.value(right, context));
    const second = this.value(right, context);
    switch (operator) {
      case "+":
        return this.#number(first) + this.#number(second);
      case "-":
        return this.#number(first) - this.#number(second);
      case "*":
        return this.#number(first) * this.#number(second);
      case "div":
        return this.#number(first) / this.#number(second);
      case "mod":
        return this.#number(first) % this.#number(second);
      default:
        return this.#compare(operator, first, second);
    }
  }

  /** True for sets when any of their nodes makes it true (3.4). */
  #compare(operator: Comparison, a: XPathValue, b: XPathValue): boolean {
    if (typeof a === "boolean" || typeof b === "boolean") {
      if (operator === "=" || operator === "!=")
        return (toBoolean(a) === toBoolean(b)) === (operator === "=");
      return holds(operator, Number(toBoolean(a)), Number(toBoolean(b)));
    }
    const isEquality = operator === "=" || operator === "!=";
    const asText = isEquality && typeof a !== "number" && typeof b !== "number";
    const sides = [a, b].map((side) => {
      const items = Array.isArray(side) ? side.map((node) => this.#stringOf(node)) : [side];
      return asText ? items : items.map(toNumber);
    });
    const [left, right] = sides as [(string | number)[], (string | number)[]];
    if (operator === "=" && asText) {
      const known = new Set(right);
      return left.some((item) => known.has(item));
    }
    this.#budget.spend(left.length * right.length);
    return left.some((x) => right.some((y) => holds(operator, x, y)));
  }

  #call(name: string, args: readonly Expression[], context: Context): XPathValue {
    const arg = (n: number): XPathValue => this.value(args[n]!, context);
    const text = (n: number): string => this.#string(arg(n));
    /** Of the argument, or of the context node. */
    const ownText = () => (args.length === 0 ? this.#stringOf(context.node) : text(0));
    switch (name) {
      case "last":
        return context.size;
      case "position":
        return context.position;
      case "count":
        return this.#nodes(args[0]!, context).length;
      case "id":
        return this.#byId(arg(0));
      case "name":
      case "local-name": {
        const node = args.length === 0 ? context.node : this.#nodes(args[0]!, context)[0];
        const whole = node !== undefined && "name" in node ? node.name : "";
        return name === "name" ? whole : whole.slice(whole.indexOf(":") + 1);
      }
      case "namespace-uri":
        return "";
      case "string":
        return ownText();
      case "concat":
        return this.#paid(args.map((_, n) => text(n)).join(""));
      case "starts-with":
        return text(0).startsWith(text(1));
      case "contains":
        return text(0).includes(text(1));
      case "substring-before": {
        const whole = text(0);
        const at = whole.indexOf(text(1));
        return at === -1 ? "" : whole.slice(0, at);
      }
      case "substring-after": {
        const whole = text(0);
        const part = text(1);
        const at = whole.indexOf(part);
        return at === -1 ? "" : whole.slice(at + part.length);
      }
      case "substring": {
        const from = roundHalfUp(this.#number(arg(1)));
        const until = args.length === 3 ? from + roundHalfUp(this.#number(arg(2))) : Number.POSITIVE_INFINITY;
        return [...text(0)].filter((_, n) => n + 1 >= from && n + 1 < until).join("");
      }
      case "string-length":
        return [...ownText()].length;
      case "normalize-space":
        return ownText()
          .replace(/[ \t\r\n]+/g, " ")
          .replace(/^ | $/g, "");
      case "translate": {
        const from = [...text(1)];
        const to = [...text(2)];
        const map = new Map<string, string>();
        for (const [n, character] of from.entries()) if (!map.has(character)) map.set(character, to[n] ?? "");
        return [...text(0)].map((character) => map.get(character) ?? character).join("");
      }
      case "boolean":
        return toBoolean(arg(0));
      case "not":
        return !toBoolean(arg(0));
      case "true":
        return true;
      case "false":
        return false;
      case "lang":
        return this.#isLanguage(context.node, text(0));
      case "number":
        return args.length === 0 ? toNumber(this.#stringOf(context.node)) : this.#number(arg(0));
      case "sum":
        return this.#nodes(args[0]!, context).reduce((sum, node) => sum + toNumber(this.#stringOf(node)), 0);
      case "floor":
        return Math.floor(this.#number(arg(0)));
      case "ceiling":
        return Math.ceil(this.#number(arg(0)));
      default:
        return roundHalfUp(this.#number(arg(0)));
    }
  }

  #byId(value: XPathValue): XPathNode[] {
    const texts = Array.isArray(value) ? value.map((node) => this.#stringOf(node)) : [this.#string(value)];
    const ids = new Set(texts.join(" ").split(/[ \t\r\n]+/));
    const found: XPathNode[] = [];
    below(this.#root as AnyNode, (node) => {
      this.#budget.spend(1);
      const id = node instanceof Element ? node.attribs.id : undefined;
      if (id !== undefined && ids.delete(id)) found.push(node);
    });
    return found;
  }

  #isLanguage(node: XPathNode, wanted: string): boolean {
    let up = node instanceof AttributeNode ? node.owner : node;
    for (; ; up = up.parent as AnyNode) {
      const language = isTag(up) ? (up.attribs["xml:lang"] ?? up.attribs.lang) : undefined;
      if (language !== undefined) return `${language}-`.toLowerCase().startsWith(`${wanted}-`.toLowerCase());
      if (up.parent === null) return false;
    }
  }

  #number(value: XPathValue): number {
    return toNumber(Array.isArray(value) ? this.#string(value) : value);
  }

  #string(value: XPathValue): string {
    if (!Array.isArray(value)) return typeof value === "number" ? numberText(value) : String(value);
    const [first] = value;
    return first === undefined ? "" : this.#stringOf(first);
  }

  /** String-value (5): for an element, all text below it. */
  #stringOf(node: XPathNode): string {
    if (node instanceof AttributeNode) return this.#paid(node.value);
    if ("data" in node) return this.#paid(node.data);
    let text = "";
    below(node, (other) => {
      this.#budget.spend(1);
      if (!(other instanceof AttributeNode) && isText(other)) text += other.data;
    });
    return this.#paid(text);
  }

  #paid(text: string): string {
    this.#budget.spend(text.length / 4);
    return text;
  }
}

const REVERSE: ReadonlySet<Axis> = new Set([
  "ancestor",
  "ancestor-or-self",
  "preceding",
  "preceding-sibling",
]);
