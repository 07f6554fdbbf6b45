/** What a spec's schema can't see: selectors that don't parse, patterns that can't be compiled, settings at odds. */
import type { InputIssue } from "../errors.ts";
import { ruleIssues } from "../extraction/rule.ts";
import type { JobSpec } from "./job-spec.ts";
import { scopeIssues } from "./scope.ts";

/** Each with the path of what is wrong, e.g. `extract.price.css`; empty: nothing is. */
export function checkJobSpec(spec: JobSpec): InputIssue[] {
  const issues = [...scopeIssues(spec.scope), ...ruleIssues(spec.extract)];
  if (spec.scope.sitemaps && spec.scope.maxDepth === 0) {
    const message = "lists pages of depth 1, and maxDepth is 0: raise maxDepth, or leave sitemaps out";
    issues.push({ path: "scope.sitemaps", message });
  }
  return issues;
}
