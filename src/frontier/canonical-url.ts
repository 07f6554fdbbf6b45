/**
 * One spelling per page: what decides whether two links are the same page.
 *
 * Always: parsed as browsers do it (WHATWG URL: scheme and host in lower case,
 * A-labels, IPv4 and IPv6 in their shortest form, default ports and dot segments
 * gone, backslashes taken for slashes, white space around it dropped); fragment,
 * user and password dropped, the dot of the root behind a host name too; escapes of
 * unreserved characters (RFC 3986, 2.3) decoded, the other escapes in upper case; an
 * empty query dropped. None of this can change what a server answers (RFC 3986,
 * 6.2.2). Only http and https, at most 2,048 characters.
 *
 * What does change the meaning on some sites is a setting of a job's scope, off
 * unless asked for: `sortQuery` sorts parameters by name (values of one name keep
 * their order, empty ones go), `dropTracking` drops parameters that only say where a
 * visitor came from, `mergeSlashes` makes runs of slashes in the path one.
 *
 * Kept as they are: upper and lower case of path and query, a slash at the end of
 * the path, `index.html`, `www.`, `+` and `%20`, session ids.
 */
import { hash } from "node:crypto";

export interface CanonicalSettings {
  readonly sortQuery: boolean;
  readonly dropTracking: boolean;
  readonly mergeSlashes: boolean;
}

export interface CanonicalUrl {
  /** At most 2,048 characters, ASCII. */
  readonly url: string;
  /** 22 characters of base64url. */
  readonly key: string;
  /** Lower case, A-label, without port and brackets. */
  readonly host: string;
}

export const URL_LENGTH_MAX = 2048;

/** Escapes may triple a text, so that a longer one can't have a canonical form that is short enough; blanks around it may add some. */
const TEXT_LENGTH_MAX = 16_384;

const AS_WRITTEN: CanonicalSettings = { sortQuery: false, dropTracking: false, mergeSlashes: false };

/** Parameters that campaigns and analytics add to a link, and that no site answers differently. */
const TRACKING =
  /^(?:utm_[a-z_]+|gclid|gclsrc|dclid|gbraid|wbraid|fbclid|msclkid|yclid|ysclid|twclid|ttclid|igshid|igsh|mc_cid|mc_eid|_ga|_gl|_hsenc|_hsmi|mkt_tok|vero_id|oly_anon_id|oly_enc_id|__s|s_cid|li_fat_id|srsltid)$/i;

/**
 * @param base what a relative `text` is resolved against.
 * @returns undefined when `text` is no http or https URL, has no host, or is too long.
 */
export function canonicalUrl(
  text: string,
  base?: string,
  settings: CanonicalSettings = AS_WRITTEN,
): CanonicalUrl | undefined {
  if (text.length > TEXT_LENGTH_MAX) return undefined;
  const parsed = URL.parse(text, base);
  if (parsed === null || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) return undefined;

  // A name with and without the dot of the root is one host, and must share one pace.
  const hostname = parsed.hostname.endsWith(".") ? parsed.hostname.slice(0, -1) : parsed.hostname;
  if (hostname === "" || hostname.endsWith(".")) return undefined;

  let path = normaliseEscapes(parsed.pathname);
  if (settings.mergeSlashes) path = path.replace(/\/{2,}/g, "/");
  let query = normaliseEscapes(parsed.search.slice(1));
  if (query !== "" && (settings.dropTracking || settings.sortQuery)) query = rewriteQuery(query, settings);

  const port = parsed.port === "" ? "" : `:${parsed.port}`;
  const url = `${parsed.protocol}//${hostname}${port}${path}${query === "" ? "" : `?${query}`}`;
  if (url.length > URL_LENGTH_MAX) return undefined;
  return { url, key: pageKey("GET", url), host: hostname.startsWith("[") ? hostname.slice(1, -1) : hostname };
}

/** The name of a page within its job: the first 16 bytes of SHA-256 over method, canonical URL and the body's hash. */
export function pageKey(method: string, url: string, bodySha256 = ""): string {
  const digest = hash("sha256", `${method}\n${url}\n${bodySha256}`, "buffer");
  return digest.subarray(0, 16).toString("base64url");
}

/** The name of a part of a sitemap, which is another thing than the page at the same URL. */
export function sitemapKey(url: string, part: number): string {
  return pageKey("SITEMAP", url, part === 0 ? "" : String(part));
}

/**
 * Escapes of unreserved characters decoded, others in upper case. A second call changes
 * nothing: after a stray `%`, what follows is left alone, since `%%34%31` must not become
 * `%41`, which the next reader would take for an `A`.
 */
function normaliseEscapes(text: string): string {
  if (!text.includes("%")) return text;
  let out = "";
  let strayAt = -3;
  for (let at = 0; at < text.length; ) {
    if (text[at] !== "%") {
      out += text[at++];
      continue;
    }
    const hex = text.slice(at + 1, at + 3);
    if (!/^[0-9a-f]{2}$/i.test(hex)) {
      strayAt = out.length;
      out += "%";
      at++;
      continue;
    }
    const char = String.fromCharCode(Number.parseInt(hex, 16));
    out += /[\w.~-]/.test(char) && out.length - strayAt > 2 ? char : `%${hex.toUpperCase()}`;
    at += 3;
  }
  return out;
}

function rewriteQuery(query: string, settings: CanonicalSettings): string {
  let pairs = query.split("&");
  if (settings.dropTracking) pairs = pairs.filter((pair) => !TRACKING.test(nameOf(pair)));
  if (settings.sortQuery) {
    // By name only: the order of values of one name often means something.
    pairs = pairs
      .filter((pair) => pair !== "")
      .sort((a, b) => {
        const [left, right] = [nameOf(a), nameOf(b)];
        return left < right ? -1 : left > right ? 1 : 0;
      });
  }
  return pairs.join("&");
}

function nameOf(pair: string): string {
  const equals = pair.indexOf("=");
  return equals === -1 ? pair : pair.slice(0, equals);
}
