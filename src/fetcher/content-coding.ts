/**
 * Undoes the Content-Encoding of a body (RFC 9110, 8.4), within a bound: a few hundred
 * bytes can stand for gigabytes. zlib is told the bound and stops there.
 *
 * As lenient as browsers: a body cut short gives what could be inflated, plain text that is
 * labelled gzip stays as it is, and "deflate" may lack its zlib header.
 */
import {
  brotliDecompressSync,
  constants,
  gunzipSync,
  inflateRawSync,
  inflateSync,
  zstdDecompressSync,
} from "node:zlib";

export class CodingError extends Error {
  readonly code: "UNKNOWN" | "DAMAGED" | "TOO_LARGE";

  constructor(code: CodingError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export const ACCEPT_ENCODING = "gzip, deflate, br, zstd";

/** More than two can only be meant to do harm. */
const CODINGS_MAX = 2;

/** Memory that the sender of a zstd frame may ask for: 8 MiB, what RFC 9659 allows on the web. */
const ZSTD_WINDOW_LOG_MAX = 23;

type Inflate = (bytes: Buffer, maxOutputLength: number) => Buffer;

const INFLATE: Readonly<Record<string, Inflate>> = {
  __proto__: null as never,
  gzip: inflateGzip,
  "x-gzip": inflateGzip,
  deflate: (bytes, maxOutputLength) => {
    const options = { maxOutputLength, finishFlush: constants.Z_SYNC_FLUSH };
    const hasHeader = bytes.length >= 2 && (bytes[0]! & 15) === 8 && bytes.readUInt16BE(0) % 31 === 0;
    return hasHeader ? inflateSync(bytes, options) : inflateRawSync(bytes, options);
  },
  br: (bytes, maxOutputLength) =>
    brotliDecompressSync(bytes, { maxOutputLength, finishFlush: constants.BROTLI_OPERATION_FLUSH }),
  zstd: (bytes, maxOutputLength) =>
    zstdDecompressSync(bytes, {
      maxOutputLength,
      finishFlush: constants.ZSTD_e_flush,
      params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
    }),
};

function inflateGzip(bytes: Buffer, maxOutputLength: number): Buffer {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const options = { maxOutputLength, finishFlush: constants.Z_SYNC_FLUSH };
  try {
    return gunzipSync(bytes, options);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "Z_DATA_ERROR")) throw error;
    // Whatever follows the first member, be it junk, is of no interest to raw inflation.
    return inflateRawSync(bytes.subarray(gzipHeaderLength(bytes)), options);
  }
}

/** RFC 1952, 2.3: fixed fields, then extra field, name, comment and checksum as the flags say. */
function gzipHeaderLength(bytes: Buffer): number {
  const flags = bytes[3] ?? 0;
  let at = 10;
  if ((flags & 4) !== 0) at += 2 + (bytes[at] ?? 0) + 256 * (bytes[at + 1] ?? 0);
  for (const flag of [8, 16]) if ((flags & flag) !== 0) at = bytes.indexOf(0, at) + 1;
  return (flags & 2) === 0 ? at : at + 2;
}

/** The codings that a header names, in the order in which they were applied. @throws {CodingError} UNKNOWN */
export function readCodings(contentEncoding: string | undefined): readonly string[] {
  const codings = (contentEncoding ?? "")
    .toLowerCase()
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "" && name !== "identity" && name !== "none");
  if (codings.length > CODINGS_MAX) {
    throw new CodingError("UNKNOWN", `the body is encoded ${codings.length} times over`);
  }
  for (const name of codings) {
    if (INFLATE[name] === undefined) {
      throw new CodingError("UNKNOWN", `the body's encoding "${name.slice(0, 40)}" is not supported`);
    }
  }
  return codings;
}

/** @throws {CodingError} DAMAGED, or TOO_LARGE when a stage gives more than `bytesMax`. */
export function inflate(body: Buffer, codings: readonly string[], bytesMax: number): Buffer {
  let bytes = body;
  for (const name of codings.toReversed()) {
    if (bytes.length === 0) return bytes;
    try {
      bytes = INFLATE[name]!(bytes, bytesMax);
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
      if (code === "ERR_BUFFER_TOO_LARGE") {
        throw new CodingError("TOO_LARGE", `the body inflates to more than ${bytesMax} bytes`, { cause });
      }
      throw new CodingError("DAMAGED", `the body is no valid ${name}`, { cause });
    }
  }
  return bytes;
}
