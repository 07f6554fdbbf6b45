/** What can be told of a step before it is taken: whether the place of a node among others matters to it. */
import type { Expression, Step } from "./xpath-expression.ts";

export function isAnyBelow({ axis, test, predicates }: Step): boolean {
  return axis === "descendant-or-self" && test.kind === "node" && predicates.length === 0;
}

/** Whether a predicate depends on the place of a node among others. */
export function isPositional(expression: Expression): boolean {
  switch (expression.kind) {
    case "literal":
      return typeof expression.value === "number";
    case "negation":
    case "union":
    case "path":
      return expression.kind === "negation";
    case "operation":
      return (
        ["+", "-", "*", "div", "mod"].includes(expression.operator) ||
        mentionsPlace(expression.left) ||
        mentionsPlace(expression.right)
      );
    case "call":
      return !BOOLEAN_FUNCTIONS.has(expression.name) || expression.args.some(mentionsPlace);
  }
}

/** A predicate that gives one of these is no number. */
const BOOLEAN_FUNCTIONS: ReadonlySet<string> = new Set([
  "boolean",
  "contains",
  "starts-with",
  "not",
  "true",
  "false",
  "lang",
]);

function mentionsPlace(expression: Expression): boolean {
  switch (expression.kind) {
    case "literal":
      return false;
    case "negation":
      return mentionsPlace(expression.of);
    case "union":
    case "operation":
      return mentionsPlace(expression.left) || mentionsPlace(expression.right);
    case "call":
      return ["position", "last"].includes(expression.name) || expression.args.some(mentionsPlace);
    case "path":
      return expression.start !== null && mentionsPlace(expression.start);
  }
}
