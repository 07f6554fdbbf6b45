/**
 * Order on the circle for node ids. Forty hex digits order as the numbers do,
 * so the hot paths compare strings and never build a bigint; arithmetic
 * (lengths, middles) goes through `Identifier`.
 */
import { distance, identifierOf, type NodeId, nodeIdOf, RING_BITS, RING_SIZE, wrap } from "./identifier.ts";

/** Whether `point` lies in `(from, to]`; the whole circle when `from` is `to`. */
export function inArc(point: NodeId, from: NodeId, to: NodeId): boolean {
  if (from < to) return from < point && point <= to;
  return from === to || point > from || point <= to;
}

/** Whether `point` lies in `(from, to)`; the whole circle but `from` when the ends are one point. */
export function between(point: NodeId, from: NodeId, to: NodeId): boolean {
  if (from < to) return from < point && point < to;
  if (from === to) return point !== from;
  return point > from || point < to;
}

/** For sorting: which of two comes first when one walks clockwise from just after `from`; `from` itself is last. */
export function clockwiseFrom(from: NodeId): (a: NodeId, b: NodeId) => number {
  return (a, b) => {
    if (a === b) return 0;
    const isWrappedA = a <= from;
    const isWrappedB = b <= from;
    if (isWrappedA !== isWrappedB) return isWrappedA ? 1 : -1;
    return a < b ? -1 : 1;
  };
}

/** Length of `(from, to]`; the whole circle when the ends are one point. */
export function arcLength(from: NodeId, to: NodeId): bigint {
  return from === to ? RING_SIZE : distance(identifierOf(from), identifierOf(to));
}

/** The point half way along `(from, to]`. */
export function middleOf(from: NodeId, to: NodeId): NodeId {
  return nodeIdOf(wrap(identifierOf(from) + arcLength(from, to) / 2n));
}

/** `nodeId + 2^exponent`: where finger `exponent` points, 0 to 159. */
export function fingerStart(nodeId: NodeId, exponent: number): NodeId {
  return nodeIdOf(wrap(identifierOf(nodeId) + (1n << BigInt(exponent))));
}

/** The lowest exponent whose finger starts beyond `(from, to]`; 160 when none does. */
export function exponentBeyond(from: NodeId, to: NodeId): number {
  return from === to ? Number(RING_BITS) : arcLength(from, to).toString(2).length;
}

/** A point drawn evenly from the circle. `random` gives numbers in [0, 1). */
export function randomPoint(random: () => number): NodeId {
  let digits = "";
  for (let i = 0; i < 5; i++) {
    digits += Math.floor(random() * 0x1_0000_0000)
      .toString(16)
      .padStart(8, "0");
  }
  return digits as NodeId;
}
