/**
 * What goes to the scraping process and what comes back. Plain data: it crosses
 * a process border by structured clone, and a server border as msgpack.
 */

/** One request, its decoding, its extraction, its links. The worker keeps nothing between two of them. */
export interface ScrapeTask {
  readonly kind: "page";
  /** Canonical. */
  readonly url: string;
  readonly key: string;
  readonly userAgent: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** Of the body, both on the wire and inflated. */
  readonly maxBytes: number;
  readonly accept: readonly string[];
  /** Rules as in the job's `extract`. */
  readonly extract: Readonly<Record<string, unknown>>;
  readonly formats: readonly string[];
  /** The number of the first entry that is wanted of a sitemap; null: it is a page. */
  readonly sitemapPart: number | null;
  /** Null: nothing about links is of interest. */
  readonly links: LinkPolicy | null;
  /** CIDRs beside public unicast that may be connected to. */
  readonly allowAddresses: readonly string[];
  /** The body is wanted, compressed with zstd. */
  readonly keepBody: boolean;
}

/** How a worker tells which links to report. */
export interface LinkPolicy {
  /** Exact hosts, or "*.example.org" for any host below it; null: any host. */
  readonly hosts: readonly string[] | null;
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  /** False: the page's links are of no interest (greatest depth reached). */
  readonly follow: boolean;
  readonly followNofollow: boolean;
  readonly sortQuery: boolean;
  readonly dropTracking: boolean;
  readonly mergeSlashes: boolean;
  /** Whether it is asked which URL the page names as its canonical form. */
  readonly canonicalLinks: boolean;
}

export interface RobotsTask {
  readonly kind: "robots";
  /** `scheme://host:port` */
  readonly origin: string;
  readonly userAgent: string;
  /** Of each request. */
  readonly timeoutMs: number;
  /** The host's pace: so long after one request of a chain of redirects the next one, or the answer, may follow. */
  readonly delayMs: number;
  readonly allowAddresses: readonly string[];
}

export type Task = ScrapeTask | RobotsTask;

/** RFC 9309, 2.3.1.2: at least five are followed, also to other hosts. */
export const ROBOTS_REDIRECTS_MAX = 5;

/** Entries of a sitemap that are read at once. */
export const SITEMAP_PART_LENGTH = 10_000;
/** Characters of all URLs in one report, which must fit into a message between servers. */
export const FOUND_CHARACTERS_MAX = 3_000_000;

/** As long as a task may take before it is clear that something is wrong with it. */
export function taskMsMax(task: Task): number {
  if (task.kind === "page") return task.timeoutMs;
  return (1 + ROBOTS_REDIRECTS_MAX) * (task.timeoutMs + task.delayMs);
}

/** A link in scope, canonical, once per page. */
export interface FoundLink {
  readonly url: string;
  readonly key: string;
  /** Lower case, A-label, without port and brackets: the placement of its page. */
  readonly host: string;
}

type PageFact =
  | "title"
  | "description"
  | "language"
  | "canonical"
  | "author"
  | "publishedAt"
  | "modifiedAt"
  | "siteName"
  | "image";

export interface PageReport {
  readonly kind: "page";
  readonly status: number;
  readonly finalUrl: string;
  readonly contentType: string | null;
  /** Inflated. */
  readonly bytes: number;
  /** Of the inflated body, hex. */
  readonly sha256: string;
  /** Of its text, 64 hexadecimal digits; null: too little text. */
  readonly simhash: string | null;
  readonly durationMs: number;
  /** Until the response's head had arrived. */
  readonly latencyMs: number;
  readonly data: Readonly<Record<string, unknown>>;
  readonly fieldErrors: readonly { readonly field: string; readonly message: string }[];
  /** Names and texts; null: the page does not say. */
  readonly metadata?: Readonly<Record<PageFact, string | null>>;
  readonly text?: string;
  readonly content?: string;
  readonly markdown?: string;
  readonly links?: readonly { url: string; text: string; rel: string }[];
  readonly tables?: readonly {
    readonly caption: string | null;
    readonly header: readonly string[] | null;
    readonly rows: readonly (readonly string[])[];
  }[];
  /** JSON as it is. */
  readonly structured?: {
    readonly jsonLd: readonly unknown[];
    readonly microdata: readonly unknown[];
    readonly rdfa: readonly unknown[];
    readonly openGraph: Readonly<Record<string, string | readonly string[]>>;
  };
  readonly html?: string;
  readonly found: readonly FoundLink[];
  /** Another URL in scope and of the same site that the page says it is a form of. */
  readonly canonical: FoundLink | null;
  /** zstd, when `keepBody`. */
  readonly body?: Uint8Array;
}

export type Report =
  | PageReport
  /** As many entries as fit into one report. */
  | {
      readonly kind: "sitemap";
      /** In scope. `priority`: from -10 to 10, against other pages of the job. */
      readonly found: readonly (FoundLink & { readonly priority: number })[];
      /** Of an index, wherever they are; and the same file from its next entry on. */
      readonly sitemaps: readonly (FoundLink & { readonly part: number })[];
      readonly latencyMs: number;
    }
  /** 301, 302, 303, 307, 308 with a usable Location. `target` is canonical; whether it is in scope is for the asker to judge. */
  | {
      readonly kind: "redirect";
      readonly status: number;
      readonly target: FoundLink;
      readonly latencyMs: number;
    }
  /** Any status of 400 or above, or a 3xx without a usable Location. */
  | {
      readonly kind: "refused";
      readonly status: number;
      readonly reason: string;
      readonly retryAfterMs: number | null;
      readonly latencyMs: number;
    }
  /** No usable answer. `retryable`: another try may go better (time-out, reset, DNS); not so for a blocked address or a body too large. */
  | { readonly kind: "broken"; readonly reason: string; readonly retryable: boolean }
  /** `status` 0: unreachable. Redirects (up to 5) were followed; text is cut at 500 KiB. */
  | {
      readonly kind: "robots";
      readonly status: number;
      readonly text: string;
      readonly retryAfterMs: number | null;
      readonly latencyMs: number;
    };

/** How one task ended, seen from the server that ran it. */
export type TaskEnd =
  | { readonly kind: "report"; readonly report: Report }
  /** Nothing was sent to the site. */
  | { readonly kind: "notStarted"; readonly reason: string }
  /** The scraping process died while this task ran; `alone`: it was the only one in flight. */
  | { readonly kind: "died"; readonly alone: boolean };
