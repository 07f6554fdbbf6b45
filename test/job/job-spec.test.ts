/** What a spec may say about scope and limits, and what it means when it says nothing. */
import { test } from "tap";
import { checkJobSpec } from "../../src/job/check-job-spec.ts";
import { jobSpecSchema } from "../../src/job/job-spec.ts";

const seeds = ["http://a.example/"];

test("what changes the meaning of a crawl on some sites is off, and limits are there, unless a job says otherwise", async (t) => {
  const { scope, limits } = jobSpecSchema.parse({ seeds });
  t.strictSame(scope, {
    hosts: "same-host",
    include: [],
    exclude: [],
    maxDepth: 5,
    maxPages: 1000,
    sitemaps: false,
    followNofollow: false,
    sortQuery: false,
    dropTracking: false,
    mergeSlashes: false,
    canonicalLinks: false,
    stopNearDuplicates: false,
  });
  t.strictSame(limits, { pagesPerHost: 100_000, trapScore: 20 });
  t.strictSame(jobSpecSchema.parse({ seeds, limits: { trapScore: 0 } }).limits, {
    pagesPerHost: 100_000,
    trapScore: 0,
  });
});

test("limits that can't be kept, and settings that don't exist, are refused with their place", async (t) => {
  const table: [spec: object, path: string][] = [
    [{ limits: { pagesPerHost: 0 } }, "limits.pagesPerHost"],
    [{ limits: { pagesPerHost: 1.5 } }, "limits.pagesPerHost"],
    [{ limits: { trapScore: -1 } }, "limits.trapScore"],
    [{ limits: { trapScore: "20" } }, "limits.trapScore"],
    [{ limits: { pagesPerSite: 5 } }, "limits"],
    [{ scope: { sitemap: true } }, "scope"],
    [{ scope: { sitemaps: "yes" } }, "scope.sitemaps"],
    [{ scope: { canonicalLinks: 1 } }, "scope.canonicalLinks"],
  ];
  for (const [spec, path] of table) {
    const parsed = jobSpecSchema.safeParse({ seeds, ...spec });
    t.equal(parsed.error?.issues[0]?.path.join("."), path, JSON.stringify(spec));
  }
});

test("sitemaps that could list nothing are refused", async (t) => {
  const issues = (scope: object) => checkJobSpec(jobSpecSchema.parse({ seeds, scope }));
  t.match(issues({ sitemaps: true, maxDepth: 0 }), [{ path: "scope.sitemaps", message: /raise maxDepth/ }]);
  t.strictSame(issues({ sitemaps: true, maxDepth: 1 }), []);
  t.strictSame(issues({ maxDepth: 0 }), []);
});
