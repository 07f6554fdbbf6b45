/** What a runner is told to do for one page of a job. */
import type { JobView } from "../frontier/job-share.ts";
import { compileScope, type UrlTest } from "../job/scope.ts";
import type { PageTask } from "./crawl-message.ts";

/** @param depth of the page: at the greatest one its links are not asked for. */
export function pageTaskOf(view: JobView, url: string, depth: number): PageTask {
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
  { hosts: JobView["scopeHosts"]; test: UrlTest; byUrl: UrlTest }
>();

/** Tests for one state of a job: `inScope`, and `byPattern` which leaves the host aside. */
export function scopeTestsOf(view: JobView): { inScope: UrlTest; byPattern: UrlTest } {
  let found = compiled.get(view.spec);
  if (found === undefined || found.hosts !== view.scopeHosts) {
    const { include, exclude } = view.spec.scope;
    found = {
      hosts: view.scopeHosts,
      test: compileScope({ hosts: view.scopeHosts, include, exclude }),
      byUrl: compileScope({ hosts: null, include, exclude }),
    };
    compiled.set(view.spec, found);
  }
  return { inScope: found.test, byPattern: found.byUrl };
}
