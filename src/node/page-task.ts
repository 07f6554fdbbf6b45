/** What a runner is told to do for one page of a job. */
import type { JobView } from "../frontier/job-share.ts";
import { compileScope, type UrlTest } from "../job/scope.ts";
import type { PageTask } from "./crawl-message.ts";

/** @param page at the greatest depth its links are not asked for. */
export function pageTaskOf(
  view: JobView,
  { url, depth, sitemapPart }: { url: string; depth: number; sitemapPart: number | null },
): PageTask {
  const { scope, fetch, politeness, extract, formats } = view.spec;
  return {
    url,
    userAgent: politeness.userAgent,
    headers: fetch.headers,
    timeoutMs: fetch.timeoutMs,
    maxBytes: fetch.maxBytes,
    accept: fetch.accept,
    extract,
    formats,
    sitemapPart,
    links: {
      hosts: view.scopeHosts === null ? null : [...view.scopeHosts],
      include: scope.include,
      exclude: scope.exclude,
      follow: depth < scope.maxDepth,
      followNofollow: scope.followNofollow,
      sortQuery: scope.sortQuery,
      dropTracking: scope.dropTracking,
      mergeSlashes: scope.mergeSlashes,
      canonicalLinks: scope.canonicalLinks,
    },
  };
}

const compiled = new WeakMap<
  JobView["spec"],
  { hosts: JobView["scopeHosts"]; test: UrlTest; byHost: UrlTest; byUrl: UrlTest }
>();

/** Tests for one state of a job: `inScope`, and its halves `byHost` and `byPattern`. */
export function scopeTestsOf(view: JobView): { inScope: UrlTest; byHost: UrlTest; byPattern: UrlTest } {
  let found = compiled.get(view.spec);
  if (found === undefined || found.hosts !== view.scopeHosts) {
    const { include, exclude } = view.spec.scope;
    found = {
      hosts: view.scopeHosts,
      test: compileScope({ hosts: view.scopeHosts, include, exclude }),
      byHost: compileScope({ hosts: view.scopeHosts, include: [], exclude: [] }),
      byUrl: compileScope({ hosts: null, include, exclude }),
    };
    compiled.set(view.spec, found);
  }
  return { inScope: found.test, byHost: found.byHost, byPattern: found.byUrl };
}
