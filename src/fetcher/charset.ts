/**
 * Bytes to text, as the HTML standard finds the encoding ("determining the character
 * encoding"): byte order mark, then the Content-Type header, then what the document
 * itself says in its first bytes; without any of these UTF-8 where the bytes are UTF-8,
 * else windows-1252, the web's old default. All encodings of the WHATWG are known.
 */

const UTF8 = new TextDecoder("utf-8");
const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true });

/** Browsers look at the first 1,024 bytes for a `<meta charset>`; some pages have more comments than that before it. */
const PRESCAN_BYTES = 4_096;

/** Enough to tell UTF-8 from an 8-bit encoding. */
const SNIFFED_BYTES = 65_536;

/** @returns undecodable bytes become U+FFFD; a byte order mark is left out. */
export function decodeText(bytes: Uint8Array, contentType: string | undefined): string {
  return decoderFor(findCharset(bytes, contentType)).decode(bytes);
}

/** A label that `TextDecoder` knows. */
export function findCharset(bytes: Uint8Array, contentType: string | undefined): string {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) return "utf-8";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  return (
    knownLabel(charsetOf(contentType ?? "")) ??
    charsetInDocument(bytes) ??
    (isUtf8(bytes.subarray(0, SNIFFED_BYTES), bytes.length > SNIFFED_BYTES) ? "utf-8" : "windows-1252")
  );
}

function decoderFor(label: string): TextDecoder {
  return label === "utf-8" ? UTF8 : new TextDecoder(label);
}

/** `text/html; charset="utf-8"` → `utf-8` */
function charsetOf(contentType: string): string | undefined {
  const found = /charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"',>]+))/i.exec(contentType);
  return found?.[1] ?? found?.[2] ?? found?.[3];
}

/** Undefined as well for what is no encoding of text: the "replacement" family, which only attacks use. */
function knownLabel(label: string | undefined): string | undefined {
  if (label === undefined) return undefined;
  try {
    return new TextDecoder(label.trim()).encoding;
  } catch {
    return undefined;
  }
}

function charsetInDocument(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, PRESCAN_BYTES))
    .toString("latin1")
    .replace(/<!--.*?-->/gs, "");
  const xml = /^\s*<\?xml\s[^>]*?encoding\s*=\s*["']([^"']+)["']/i.exec(head)?.[1];
  const label = knownLabel(xml) ?? metaCharset(head);
  // Were it UTF-16, this could not have been read as ASCII (HTML, "prescan a byte stream").
  return label?.startsWith("utf-16") ? "utf-8" : label;
}

function metaCharset(head: string): string | undefined {
  for (const [tag] of head.matchAll(/<meta[\s/][^>]*>/gi)) {
    // `charset=` also finds the one within content="text/html; charset=…".
    const label = knownLabel(charsetOf(tag));
    if (label !== undefined) return label === "x-user-defined" ? "windows-1252" : label;
  }
  return undefined;
}

function isUtf8(bytes: Uint8Array, isPart: boolean): boolean {
  try {
    STRICT_UTF8.decode(isPart ? bytes.subarray(0, lastBoundary(bytes)) : bytes);
    return true;
  } catch {
    return false;
  }
}

/** Where the last character that may be incomplete begins. */
function lastBoundary(bytes: Uint8Array): number {
  for (let back = 1; back <= 4 && back <= bytes.length; back++) {
    if ((bytes[bytes.length - back]! & 0xc0) !== 0x80) return bytes.length - back;
  }
  return bytes.length;
}
