/**
 * The form of everything between members: MessagePack without extension types.
 *
 * Bytes are walked once before they are decoded, because the decoder by itself
 * would follow any nesting, build types from extensions, and trust lengths that
 * the input doesn't have. One extension is let through, `undefined` (d4 00 00),
 * so that optional fields keep their meaning.
 *
 * Plain data only: objects, arrays, strings, finite numbers, booleans, null,
 * undefined, 64-bit bigints, bytes. Dates, sets and class instances don't travel.
 */
import { Packr } from "msgpackr";
import { DamagedError } from "../errors.ts";

const DEPTH_MAX = 64;
const VALUES_MAX = 2_000_000;

const packr = new Packr({
  useRecords: false,
  moreTypes: false,
  variableMapSize: true,
  // Views would keep a whole frame alive for as long as one small value of it.
  copyBuffers: true,
});

/** @throws {Error} `value` holds something that can't travel. */
export function pack(value: unknown): Buffer {
  return packr.pack(value);
}

/**
 * One value that fills `bytes` exactly.
 *
 * @throws {DamagedError} anything else.
 */
export function unpack(bytes: Buffer): unknown {
  check(bytes);
  try {
    return packr.unpack(bytes);
  } catch (cause) {
    throw damaged("can't be decoded", { cause });
  }
}

/** The header of an array of `length` items, to be followed by the packed items. */
export function arrayHeader(length: number): Buffer {
  const header = Buffer.allocUnsafe(5);
  header[0] = 0xdd;
  header.writeUInt32BE(length, 1);
  return header;
}

/** Walks `bytes` without building anything. @throws {DamagedError} */
function check(bytes: Buffer): void {
  let at = 0;
  let values = 0;
  let depth = 0;
  // At each depth: how many values are still to come, and whether they are a map's keys and values.
  const left = [1];
  const isMap = [false];
  while (depth >= 0) {
    if (left[depth] === 0) {
      depth--;
      continue;
    }
    const mustBeKey = isMap[depth]! && left[depth]! % 2 === 0;
    left[depth]!--;
    if (++values > VALUES_MAX) throw damaged("holds too many values");
    if (at >= bytes.length) throw damaged("ends too early");
    const type = bytes[at++]!;
    let items = -1;
    let map = false;
    let isString = false;
    if (type <= 0x7f || type >= 0xe0 || type === 0xc0 || type === 0xc2 || type === 0xc3) {
      // A small number, null, or a boolean: nothing follows.
    } else if (type <= 0x8f) {
      items = type & 0x0f;
      map = true;
    } else if (type <= 0x9f) {
      items = type & 0x0f;
    } else if (type <= 0xbf) {
      at += type & 0x1f;
      isString = true;
    } else {
      switch (type) {
        case 0xc4: // bytes
          at += 1 + (bytes[at] ?? 0);
          break;
        case 0xc5:
          at += 2 + uint(bytes, at, 2);
          break;
        case 0xc6:
          at += 4 + uint(bytes, at, 4);
          break;
        case 0xca: // float 32
        case 0xce: // unsigned 32
        case 0xd2: // signed 32
          at += 4;
          break;
        case 0xcb: // float 64
        case 0xcf: // unsigned 64
        case 0xd3: // signed 64
          at += 8;
          break;
        case 0xcc:
        case 0xd0:
          at += 1;
          break;
        case 0xcd:
        case 0xd1:
          at += 2;
          break;
        case 0xd4: // an extension of one byte: only `undefined`
          if (bytes[at] !== 0 || bytes[at + 1] !== 0) throw damaged("holds an extension type");
          at += 2;
          break;
        case 0xd9: // strings
          at += 1 + (bytes[at] ?? 0);
          isString = true;
          break;
        case 0xda:
          at += 2 + uint(bytes, at, 2);
          isString = true;
          break;
        case 0xdb:
          at += 4 + uint(bytes, at, 4);
          isString = true;
          break;
        case 0xdc: // arrays
          items = uint(bytes, at, 2);
          at += 2;
          break;
        case 0xdd:
          items = uint(bytes, at, 4);
          at += 4;
          break;
        case 0xde: // maps
          items = uint(bytes, at, 2);
          at += 2;
          map = true;
          break;
        case 0xdf:
          items = uint(bytes, at, 4);
          at += 4;
          map = true;
          break;
        default:
          throw damaged("holds an extension type");
      }
    }
    if (mustBeKey && !isString) throw damaged("holds a map with a key that is no string");
    if (at > bytes.length) throw damaged("ends too early");
    if (items >= 0) {
      if (map) items *= 2;
      if (++depth > DEPTH_MAX) throw damaged("is nested too deeply");
      left[depth] = items;
      isMap[depth] = map;
    }
  }
  if (at !== bytes.length) throw damaged("goes on after its end");
}

function uint(bytes: Buffer, at: number, size: 2 | 4): number {
  if (at + size > bytes.length) throw damaged("ends too early");
  return size === 2 ? bytes.readUInt16BE(at) : bytes.readUInt32BE(at);
}

function damaged(what: string, options?: ErrorOptions): DamagedError {
  return new DamagedError(`a message between members ${what}`, options);
}
