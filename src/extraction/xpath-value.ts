/** Values of XPath 1.0, and how one becomes another (3.4, 4.2 to 4.4). */
import type { XPathNode } from "./xpath-node.ts";

export type XPathValue = string | number | boolean | XPathNode[];
export type Comparison = "=" | "!=" | "<" | "<=" | ">" | ">=";

export function holds(operator: Comparison, a: string | number, b: string | number): boolean {
  switch (operator) {
    case "=":
      return a === b;
    case "!=":
      return a !== b;
    case "<":
      return a < b;
    case "<=":
      return a <= b;
    case ">":
      return a > b;
    case ">=":
      return a >= b;
  }
}

export function toBoolean(value: XPathValue): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === "number" ? value !== 0 && !Number.isNaN(value) : value !== "" && value !== false;
}

/** Of text: digits, perhaps with a minus and a point; anything else is no number (4.4). */
export function toNumber(value: string | number | boolean): number {
  if (typeof value !== "string") return Number(value);
  const text = value.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "");
  return /^-?(?:\d+(?:\.\d*)?|\.\d+)$/.test(text) ? Number(text) : Number.NaN;
}

export function numberText(value: number): string {
  if (!Number.isFinite(value) || Math.abs(value) < 1e21) return value === 0 ? "0" : String(value);
  return BigInt(Math.round(value)).toString();
}

export function roundHalfUp(value: number): number {
  return Number.isFinite(value) ? Math.floor(value + 0.5) : value;
}
