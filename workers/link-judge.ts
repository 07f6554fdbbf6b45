/**
 * Which links of pages are a job's, and what they are called in it. The pages of a site
 * repeat their menus: most links were judged before.
 */
import { canonicalUrl } from "../src/frontier/canonical-url.ts";
import { compileScope, type UrlTest } from "../src/job/scope.ts";
import type { FoundLink, LinkPolicy } from "../src/pool/task.ts";
import { RecentMap } from "./recent-map.ts";

const KNOWN_MAX = 8_192;
/** Longer ones are judged each time: what is kept has to stay small. */
const KNOWN_LENGTH_MAX = 512;

export class LinkJudge {
  /** Of a canonical URL and its host. */
  readonly isInScope: UrlTest;
  readonly #policy: LinkPolicy;
  readonly #known = new RecentMap<FoundLink | null>(KNOWN_MAX);

  constructor(policy: LinkPolicy) {
    this.#policy = policy;
    this.isInScope = compileScope(policy);
  }

  /** @param url absolute. @returns null: it is not one of the job's. */
  judge(url: string): FoundLink | null {
    const known = this.#known.get(url);
    if (known !== undefined) return known;
    const canonical = canonicalUrl(url, undefined, this.#policy);
    const found = canonical !== undefined && this.isInScope(canonical.url, canonical.host) ? canonical : null;
    if (url.length <= KNOWN_LENGTH_MAX) this.#known.set(url, found);
    return found;
  }
}
