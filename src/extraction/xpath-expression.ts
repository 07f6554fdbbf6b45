/**
 * XPath 1.0 (W3C, 1999) as text, read into a tree of expressions. What to do with such a
 * tree is told by `xpath.ts`.
 *
 * Names are compared as the parser of pages gives them, in lower case and with their
 * prefix: there are no namespaces, and so no namespace axis and no variables.
 */

export const AXES = [
  "ancestor",
  "ancestor-or-self",
  "attribute",
  "child",
  "descendant",
  "descendant-or-self",
  "following",
  "following-sibling",
  "parent",
  "preceding",
  "preceding-sibling",
  "self",
] as const;
export type Axis = (typeof AXES)[number];

export type NodeTest =
  /** `*`: null. */
  | { readonly kind: "name"; readonly name: string | null }
  /** `prefix:*` */
  | { readonly kind: "prefix"; readonly prefix: string }
  | { readonly kind: "node" | "text" | "comment" | "processing-instruction" };

export interface Step {
  readonly axis: Axis;
  readonly test: NodeTest;
  readonly predicates: readonly Expression[];
}

export type Operator = "or" | "and" | "=" | "!=" | "<" | "<=" | ">" | ">=" | "+" | "-" | "*" | "div" | "mod";

export type Expression =
  | { readonly kind: "literal"; readonly value: string | number }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] }
  | { readonly kind: "negation"; readonly of: Expression }
  | { readonly kind: "union"; readonly left: Expression; readonly right: Expression }
  | {
      readonly kind: "operation";
      readonly operator: Operator;
      readonly left: Expression;
      readonly right: Expression;
    }
  /** `start` null: the context node, or the root of the page. */
  | {
      readonly kind: "path";
      readonly start: Expression | null;
      readonly isAbsolute: boolean;
      /** Of `start`. */
      readonly predicates: readonly Expression[];
      readonly steps: readonly Step[];
    };

/** Name, and the least and greatest number of arguments. */
export const FUNCTIONS: Readonly<Record<string, readonly [min: number, max: number]>> = {
  __proto__: null as never,
  last: [0, 0],
  position: [0, 0],
  count: [1, 1],
  id: [1, 1],
  name: [0, 1],
  "local-name": [0, 1],
  "namespace-uri": [0, 1],
  string: [0, 1],
  concat: [2, 100],
  "starts-with": [2, 2],
  contains: [2, 2],
  "substring-before": [2, 2],
  "substring-after": [2, 2],
  substring: [2, 3],
  "string-length": [0, 1],
  "normalize-space": [0, 1],
  translate: [3, 3],
  boolean: [1, 1],
  not: [1, 1],
  true: [0, 0],
  false: [0, 0],
  lang: [1, 1],
  number: [0, 1],
  sum: [1, 1],
  floor: [1, 1],
  ceiling: [1, 1],
  round: [1, 1],
};

const NODE_TYPES: readonly string[] = ["node", "text", "comment", "processing-instruction"];

/** Functions and operators whose value is a set of nodes are all that a path may go on from. */
const NODE_SET_FUNCTIONS: readonly string[] = ["id"];
const NODE_SET_ARGUMENT: readonly string[] = ["count", "sum", "name", "local-name", "namespace-uri"];

const NESTING_MAX = 64;

export class XPathSyntaxError extends Error {}

/** @throws {XPathSyntaxError} with a message for the author of the expression. */
export function parseXPath(source: string): Expression {
  return new XPathParser(source).parse();
}

interface Token {
  readonly kind: "name" | "literal" | "number" | "symbol" | "operator" | "end";
  readonly text: string;
  readonly at: number;
}

const TOKEN =
  /\s*(?:(?<number>\d+(?:\.\d*)?|\.\d+)|(?<literal>"[^"]*"|'[^']*')|(?<symbol>\.\.|::|\/\/|!=|<=|>=|[()[\].@,|+\-=<>*/$])|(?<name>[\p{L}_][\p{L}\p{M}\p{N}._-]*(?::(?:[\p{L}_][\p{L}\p{M}\p{N}._-]*|\*))?))/uy;

/** After one of these, or at the beginning, `*` and names are no operators (XPath 1.0, 3.7). */
const BEFORE_OPERAND: ReadonlySet<string> = new Set(
  "@ :: ( [ , and or mod div * / // | + - = != < <= > >=".split(" "),
);

function tokensOf(source: string): Token[] {
  const tokens: Token[] = [];
  const end = source.trimEnd().length;
  let at = 0;
  while (at < end) {
    TOKEN.lastIndex = at;
    const groups = TOKEN.exec(source)?.groups;
    if (groups === undefined) {
      const open = source.slice(at).trimStart();
      throw new XPathSyntaxError(
        /^["']/.test(open)
          ? `the quote of ${open.slice(0, 20)} is not closed`
          : `"${open.slice(0, 20)}" can't be read`,
      );
    }
    const before = tokens.at(-1);
    const isOperand =
      before === undefined ||
      (before.kind !== "name" && before.kind !== "literal" && BEFORE_OPERAND.has(before.text));
    const text = (groups.number ?? groups.literal ?? groups.symbol ?? groups.name)!;
    let kind: Token["kind"] =
      groups.number !== undefined
        ? "number"
        : groups.literal !== undefined
          ? "literal"
          : groups.symbol !== undefined
            ? "symbol"
            : "name";
    if (!isOperand && (text === "*" || ["and", "or", "mod", "div"].includes(text))) kind = "operator";
    tokens.push({ kind, text: kind === "literal" ? text.slice(1, -1) : text, at });
    at = TOKEN.lastIndex;
  }
  tokens.push({ kind: "end", text: "", at: end });
  return tokens;
}

const OPERATORS_BY_RANK: readonly (readonly Operator[])[] = [
  ["or"],
  ["and"],
  ["=", "!="],
  ["<", "<=", ">", ">="],
  ["+", "-"],
  ["*", "div", "mod"],
];

class XPathParser {
  readonly #tokens: readonly Token[];
  #next = 0;
  #nesting = 0;

  constructor(source: string) {
    this.#tokens = tokensOf(source);
  }

  parse(): Expression {
    if (this.#tokens.length === 1) throw new XPathSyntaxError("is empty");
    const expression = this.#expression();
    if (this.#next !== this.#tokens.length - 1) throw this.#unexpected();
    return expression;
  }

  get #token(): Token {
    return this.#tokens[this.#next]!;
  }

  get #following(): Token {
    return this.#tokens[this.#next + 1] ?? this.#tokens.at(-1)!;
  }

  #is(text: string): boolean {
    const { kind } = this.#token;
    return (kind === "symbol" || kind === "operator") && this.#token.text === text;
  }

  #take(text: string): boolean {
    if (!this.#is(text)) return false;
    this.#next++;
    return true;
  }

  #require(text: string): void {
    if (!this.#take(text)) throw this.#unexpected(`"${text}"`);
  }

  #unexpected(wanted?: string): XPathSyntaxError {
    const { kind, text } = this.#token;
    const found = kind === "end" ? "ends too early" : `"${text}" stands in the wrong place`;
    return new XPathSyntaxError(wanted === undefined ? found : `${found}: ${wanted} is expected`);
  }

  #expression(): Expression {
    if (++this.#nesting > NESTING_MAX)
      throw new XPathSyntaxError(`is nested more than ${NESTING_MAX} levels deep`);
    const expression = this.#binary(0);
    this.#nesting--;
    return expression;
  }

  #binary(rank: number): Expression {
    const operators = OPERATORS_BY_RANK[rank];
    if (operators === undefined) return this.#unary();
    let left = this.#binary(rank + 1);
    for (;;) {
      const operator = operators.find((text) =>
        /^[a-z*]/.test(text) ? this.#token.kind === "operator" && this.#token.text === text : this.#is(text),
      );
      if (operator === undefined) return left;
      this.#next++;
      left = { kind: "operation", operator, left, right: this.#binary(rank + 1) };
    }
  }

  #unary(): Expression {
    if (!this.#take("-")) return this.#union();
    if (++this.#nesting > NESTING_MAX)
      throw new XPathSyntaxError(`is nested more than ${NESTING_MAX} levels deep`);
    const negation: Expression = { kind: "negation", of: this.#unary() };
    this.#nesting--;
    return negation;
  }

  #union(): Expression {
    let left = this.#path();
    while (this.#take("|")) {
      const right = this.#path();
      for (const side of [left, right]) {
        if (!isNodeSet(side)) throw new XPathSyntaxError('"|" joins nodes, not text or numbers');
      }
      left = { kind: "union", left, right };
    }
    return left;
  }

  #path(): Expression {
    if (this.#startsFilter()) {
      const start = this.#primary();
      const predicates = this.#predicates();
      const steps = this.#is("/") || this.#is("//") ? this.#furtherSteps() : [];
      if (predicates.length === 0 && steps.length === 0) return start;
      if (!isNodeSet(start))
        throw new XPathSyntaxError("only nodes have steps and predicates, not text or numbers");
      return { kind: "path", start, isAbsolute: false, predicates, steps };
    }
    const isAbsolute = this.#is("/") || this.#is("//");
    if (this.#is("/")) {
      this.#next++;
      if (!this.#startsStep()) return { kind: "path", start: null, isAbsolute, predicates: [], steps: [] };
      return {
        kind: "path",
        start: null,
        isAbsolute,
        predicates: [],
        steps: [this.#step(), ...this.#furtherSteps()],
      };
    }
    const steps = isAbsolute ? this.#furtherSteps() : [this.#step(), ...this.#furtherSteps()];
    return { kind: "path", start: null, isAbsolute, predicates: [], steps };
  }

  #startsFilter(): boolean {
    const { kind, text } = this.#token;
    if (kind === "literal" || kind === "number") return true;
    if (kind === "symbol") return text === "(" || text === "$";
    const next = this.#following;
    return kind === "name" && next.kind === "symbol" && next.text === "(" && !NODE_TYPES.includes(text);
  }

  #startsStep(): boolean {
    const { kind, text } = this.#token;
    return kind === "name" || (kind === "symbol" && [".", "..", "@", "*"].includes(text));
  }

  #primary(): Expression {
    const { kind, text } = this.#token;
    if (this.#is("$")) throw new XPathSyntaxError("there are no variables");
    if (this.#take("(")) {
      const expression = this.#expression();
      this.#require(")");
      return expression;
    }
    this.#next++;
    if (kind === "literal") return { kind: "literal", value: text };
    if (kind === "number") return { kind: "literal", value: Number(text) };
    return this.#call(text);
  }

  #call(name: string): Expression {
    const limits = FUNCTIONS[name];
    if (limits === undefined) throw new XPathSyntaxError(`there is no function "${name}" in XPath 1.0`);
    this.#require("(");
    const args: Expression[] = [];
    if (!this.#is(")")) {
      do args.push(this.#expression());
      while (this.#take(","));
    }
    this.#require(")");
    const [min, max] = limits;
    if (args.length < min || args.length > max) {
      const wanted = min === max ? `${min}` : `${min} to ${max}`;
      throw new XPathSyntaxError(`${name}() takes ${wanted} arguments, not ${args.length}`);
    }
    if (NODE_SET_ARGUMENT.includes(name) && args[0] !== undefined && !isNodeSet(args[0])) {
      throw new XPathSyntaxError(`${name}() takes nodes, not text or numbers`);
    }
    return { kind: "call", name, args };
  }

  #furtherSteps(): Step[] {
    const steps: Step[] = [];
    for (;;) {
      if (this.#take("//"))
        steps.push({ axis: "descendant-or-self", test: { kind: "node" }, predicates: [] });
      else if (!this.#take("/")) return steps;
      steps.push(this.#step());
    }
  }

  #step(): Step {
    if (this.#take(".")) return { axis: "self", test: { kind: "node" }, predicates: [] };
    if (this.#take("..")) return { axis: "parent", test: { kind: "node" }, predicates: [] };
    let axis: Axis = "child";
    if (this.#take("@")) axis = "attribute";
    else if (
      this.#token.kind === "name" &&
      this.#following.text === "::" &&
      this.#following.kind === "symbol"
    ) {
      const name = this.#token.text;
      const known = AXES.find((other) => other === name);
      if (known === undefined) throw new XPathSyntaxError(`there is no axis "${name}"`);
      axis = known;
      this.#next += 2;
    }
    return { axis, test: this.#nodeTest(), predicates: this.#predicates() };
  }

  #nodeTest(): NodeTest {
    if (this.#take("*")) return { kind: "name", name: null };
    const { kind, text } = this.#token;
    if (kind !== "name") throw this.#unexpected("the name of an element, or *,");
    this.#next++;
    if (NODE_TYPES.includes(text) && this.#take("(")) {
      if (text === "processing-instruction" && this.#token.kind === "literal") this.#next++;
      this.#require(")");
      return { kind: text as "node" | "text" | "comment" | "processing-instruction" };
    }
    const name = text.toLowerCase();
    return name.endsWith(":*") ? { kind: "prefix", prefix: name.slice(0, -1) } : { kind: "name", name };
  }

  #predicates(): Expression[] {
    const predicates: Expression[] = [];
    while (this.#take("[")) {
      predicates.push(this.#expression());
      this.#require("]");
    }
    return predicates;
  }
}

/** Whether the value is a set of nodes, which its form tells. */
export function isNodeSet(expression: Expression): boolean {
  if (expression.kind === "call") return NODE_SET_FUNCTIONS.includes(expression.name);
  return expression.kind === "path" || expression.kind === "union";
}
