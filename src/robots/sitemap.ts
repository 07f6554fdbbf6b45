/**
 * Which URLs a site lists: sitemaps and their indexes (sitemaps.org, protocol 0.9),
 * RSS 1.0 and 2.0, Atom (RFC 4287), and plain lists of one URL a line.
 *
 * Read as a stream of tags and never as a tree: a file may have 50 MiB. What an
 * element means is told by its parent, without its prefix, so that any namespace
 * prefix is right and the addresses of images and videos are left alone.
 */
import { Parser } from "htmlparser2";

export interface ListedPage {
  /** As written, without white space around it; may be relative in feeds. */
  readonly url: string;
  /** From 0 to 1 as the site sees it; null: it says nothing. */
  readonly priority: number | null;
}

export interface Sitemap {
  readonly pages: readonly ListedPage[];
  /** Further sitemaps, of an index. */
  readonly sitemaps: readonly string[];
  /** The number of the first entry behind what was asked for; null: there is none. */
  readonly next: number | null;
}

export interface SitemapRange {
  /** Entries before this one are passed over; from 0. */
  readonly from: number;
  /** At most so many are given, */
  readonly limit: number;
  /** of at most so many characters in all; but one in any case. */
  readonly charactersMax: number;
}

/** Larger files are not sitemaps (sitemaps.org: "no larger than 50MB"), inflated. */
export const SITEMAP_BYTES_MAX = 50 * 1024 * 1024;

const CHUNK_LENGTH = 64 * 1024;
const URL_LENGTH_MAX = 8_192;
/** Elements within each other; what lies deeper is not looked at. */
const DEPTH_MAX = 64;
/** No list is nested like this, and each level makes the parser slower. */
const ASTRAY_DEPTH = 1_000;

/** @param range of all that is listed. */
export function readSitemap(text: string, range: SitemapRange): Sitemap {
  const list = new List(range);
  const start = text.search(/[^\s\uFEFF]/);
  if (start === -1) return list;
  if (text[start] === "<") readXml(text, list);
  else readLines(text, list);
  return list;
}

class List implements Sitemap {
  readonly pages: ListedPage[] = [];
  readonly sitemaps: string[] = [];
  next: number | null = null;
  readonly #range: SitemapRange;
  // Entries that were met, and characters of those that were taken.
  #met = 0;
  #characters = 0;

  constructor(range: SitemapRange) {
    this.#range = range;
  }

  page(url: string, priority: number | null): void {
    if (this.#takes(url)) this.pages.push({ url, priority });
  }

  sitemap(url: string): void {
    if (this.#takes(url)) this.sitemaps.push(url);
  }

  #takes(url: string): boolean {
    if (url === "" || url.length > URL_LENGTH_MAX || this.next !== null) return false;
    const { from, limit, charactersMax } = this.#range;
    const number = this.#met++;
    if (number < from) return false;
    const taken = number - from;
    if (taken === limit || (taken > 0 && this.#characters + url.length > charactersMax)) {
      this.next = number;
      return false;
    }
    this.#characters += url.length;
    return true;
  }
}

function readLines(text: string, list: List): void {
  for (let at = 0; at < text.length && list.next === null; ) {
    const end = text.indexOf("\n", at);
    const line = text
      .slice(at, end === -1 ? undefined : end)
      .replace(/^\uFEFF/, "")
      .trim();
    if (/^https?:\/\//i.test(line)) list.page(line, null);
    if (end === -1) return;
    at = end + 1;
  }
}

function readXml(text: string, list: List): void {
  // Local names of the elements that are open.
  const open: string[] = [];
  let depth = 0;
  let url = "";
  let priority = "";
  let target: "url" | "priority" | undefined;
  const parser = new Parser(
    {
      onopentag(name, attributes) {
        const local = localName(name);
        const parent = open.at(-1);
        target = undefined;
        if (isEntry(local)) [url, priority] = ["", ""];
        if (parent === "url" || parent === "sitemap") {
          if (local === "loc") [target, url] = ["url", ""];
          if (local === "priority") [target, priority] = ["priority", ""];
        } else if (parent === "item" && name === "link") {
          [target, url] = ["url", ""];
        } else if (parent === "entry" && local === "link") {
          const { href, rel = "alternate" } = attributes;
          if (href !== undefined && rel.trim().toLowerCase() === "alternate" && url === "") url = href;
        }
        if (depth++ < DEPTH_MAX) open.push(local);
      },
      ontext(data) {
        if (target === "url" && url.length <= URL_LENGTH_MAX) url += data;
        else if (target === "priority" && priority.length < 16) priority += data;
      },
      onclosetag(name) {
        target = undefined;
        if (depth-- <= DEPTH_MAX) open.pop();
        const local = localName(name);
        if (local === "sitemap") list.sitemap(url.trim());
        else if (isEntry(local)) list.page(url.trim(), priorityOf(priority));
      },
    },
    { xmlMode: true, decodeEntities: true },
  );
  // Of a file that is cut short or goes astray, the entries before that are as good as any.
  for (let at = 0; at < text.length && list.next === null && depth < ASTRAY_DEPTH; at += CHUNK_LENGTH) {
    parser.write(text.slice(at, at + CHUNK_LENGTH));
  }
}

function isEntry(local: string): boolean {
  return local === "url" || local === "sitemap" || local === "item" || local === "entry";
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1).toLowerCase();
}

function priorityOf(text: string): number | null {
  const value = Number(text.trim());
  return text.trim() !== "" && value >= 0 && value <= 1 ? value : null;
}
