/** Why a URL was, or was not, fetched in a job: what people and scripts are told. */
import { z } from "zod";

const count = z.int().nonnegative();

export const explanationSchema = z.object({
  /** As asked. */
  url: z.string(),
  /** The form under which the job knows it; null: the text has none. */
  canonicalUrl: z.string().nullable(),
  host: z.string().nullable(),
  /** The page's key in the job, also that of its result. */
  key: z.string().nullable(),
  /** `unknown`: it is no page of the job; then `rule` says which one keeps it out, if one does. */
  state: z.enum(["done", "failed", "skipped", "pending", "running", "unknown"]),
  /** Whether the job's scope takes it, by the hosts and patterns of its spec. */
  inScope: z.boolean(),
  /** Null: nobody found it. `parent` is null for a seed. */
  found: z.object({ parent: z.string().nullable(), depth: count, isSeed: z.boolean() }).nullable(),
  /** How often it was handed to a server, over all runs of the job. */
  attempts: count,
  /** Key of its result; null: there is none. */
  result: z.string().nullable(),
  /** What decided, e.g. `robots.txt`, `scope.exclude.2`; null: nothing stood against it. */
  rule: z
    .object({
      name: z.string(),
      /** As written: the line, the pattern, the limit. */
      text: z.string(),
      /** Line of the file, from 1; null: it has none. */
      line: count.nullable(),
    })
    .nullable(),
  /** Pending, and not before: ISO 8601. */
  notBefore: z.string().nullable(),
  /** In one sentence. */
  why: z.string(),
});
export type Explanation = z.output<typeof explanationSchema>;
