/** What an expression of XPath selects: nodes of the tree, and attributes, which the tree has none for. */
import { type AnyNode, Element, isText } from "domhandler";
import type { Axis, NodeTest } from "./xpath-expression.ts";

/** An attribute as a node of its own; the tree has none. */
export class AttributeNode {
  readonly owner: Element;
  readonly name: string;
  /** Its place among those of `owner`, from 0. */
  readonly index: number;

  constructor(owner: Element, name: string, index: number) {
    this.owner = owner;
    this.name = name;
    this.index = index;
  }

  get value(): string {
    return this.owner.attribs[this.name] ?? "";
  }
}

export type XPathNode = AnyNode | AttributeNode;

/** Whether a step takes the node. */
export function isMatch(node: XPathNode, test: NodeTest, axis: Axis): boolean {
  switch (test.kind) {
    case "node":
      return true;
    case "name":
      // Of the principal type of the axis (2.3).
      if (axis === "attribute")
        return node instanceof AttributeNode && (test.name === null || node.name === test.name);
      return node instanceof Element && (test.name === null || node.name === test.name);
    case "prefix":
      return (
        (axis === "attribute" ? node instanceof AttributeNode : node instanceof Element) &&
        (node as Element).name.startsWith(test.prefix)
      );
    case "text":
      return !(node instanceof AttributeNode) && isText(node);
    case "comment":
      return !(node instanceof AttributeNode) && node.type === "comment";
    case "processing-instruction":
      return !(node instanceof AttributeNode) && node.type === "directive";
  }
}

/** Visits what is below a node in document order, without recursion. */
export function below(from: AnyNode, visit: (node: XPathNode) => void): void {
  if (!("children" in from)) return;
  let node: AnyNode | undefined = from.children[0];
  while (node !== undefined) {
    visit(node);
    let next: AnyNode | null | undefined = "children" in node ? node.children[0] : undefined;
    for (let up: AnyNode = node; next === undefined || next === null; up = up.parent as AnyNode) {
      if (up === from) return;
      next = up.next as AnyNode | null;
      if (next === null && (up.parent as AnyNode | null) === from) return;
    }
    node = next;
  }
}
