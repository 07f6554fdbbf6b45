/**
 * Points on the Chord circle (Stoica et al., SIGCOMM 2001): [0, 2^160), the
 * first 160 bits of SHA-256. Arcs are half open, `(a, b]`.
 *
 * A node's identifier travels as its 40 hex digits (`NodeId`), which order as
 * the numbers do; arithmetic happens on `Identifier`.
 */
import assert from "node:assert/strict";
import { hash } from "node:crypto";

declare const brand: unique symbol;

export const RING_BITS = 160n;
export const RING_SIZE = 1n << RING_BITS;

/** A point on the ring, in [0, 2^160). Made only by the functions of this file. */
export type Identifier = bigint & { readonly [brand]: "Identifier" };

/** The same point as 40 lower-case hex digits: what messages, files and people use. */
export type NodeId = string & { readonly [brand]: "NodeId" };

export function identifier(value: bigint): Identifier {
  assert(value >= 0n && value < RING_SIZE, `not on the ring: ${value}`);
  return value as Identifier;
}

/** `value` taken modulo the circle. */
export function wrap(value: bigint): Identifier {
  return (((value % RING_SIZE) + RING_SIZE) % RING_SIZE) as Identifier;
}

/** Where `text` falls on the circle. */
export function pointOf(text: string | Uint8Array): Identifier {
  return BigInt(`0x${hash("sha256", text, "hex").slice(0, 40)}`) as Identifier;
}

export function isNodeId(text: string): text is NodeId {
  return /^[0-9a-f]{40}$/.test(text);
}

export function nodeIdOf(point: Identifier): NodeId {
  return point.toString(16).padStart(40, "0") as NodeId;
}

export function identifierOf(nodeId: NodeId): Identifier {
  return BigInt(`0x${nodeId}`) as Identifier;
}

/** How far one walks clockwise from `from` to `to`; 0 when they are one point. */
export function distance(from: Identifier, to: Identifier): bigint {
  return to >= from ? to - from : to - from + RING_SIZE;
}

/** Whether `point` lies in `(from, to]`; the whole circle when `from` is `to`. */
export function isInArc(point: Identifier, from: Identifier, to: Identifier): boolean {
  if (from === to) return true;
  const reach = distance(from, point);
  return reach !== 0n && reach <= distance(from, to);
}

/** Whether `point` lies in `(from, to)`; the whole circle but `from` when the ends are one point. */
export function isBetween(point: Identifier, from: Identifier, to: Identifier): boolean {
  if (from === to) return point !== from;
  const reach = distance(from, point);
  return reach !== 0n && reach < distance(from, to);
}

/** The partition, of `partitionCount` (a power of two, 1 to 65,536), in which `placement` falls. */
export function partitionOf(placement: string, partitionCount: number): number {
  const bits = 31 - Math.clz32(partitionCount);
  return ((hash("sha256", placement, "buffer").readUInt32BE(0) >>> (32 - bits)) >>> 0) & (partitionCount - 1);
}

/** The start of a partition's arc: the first R nodes at or after it are its wished members. */
export function positionOf(partition: number, partitionCount: number): Identifier {
  return ((RING_SIZE / BigInt(partitionCount)) * BigInt(partition)) as Identifier;
}
