/** What a spec's schema can't see: selectors that don't parse, patterns that can't be compiled. */
import type { InputIssue } from "../errors.ts";
import { ruleIssues } from "../extraction/rule.ts";
import type { JobSpec } from "./job-spec.ts";
import { scopeIssues } from "./scope.ts";

/** Each with the path of what is wrong, e.g. `extract.price.css`; empty: nothing is. */
export function checkJobSpec(spec: JobSpec): InputIssue[] {
  return [...scopeIssues(spec.scope), ...ruleIssues(spec.extract)];
}
