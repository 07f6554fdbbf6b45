/**
 * The shape of extraction rules, as they come in with a job. What their selectors and
 * expressions say is checked where they are compiled.
 */
import { z } from "zod";
import type { Rule } from "../extraction/rule.ts";

/** Levels of `fields` that are looked into; what is deeper is refused as a whole, without a look. */
const LEVELS_MAX = 16;

export const fieldNameSchema = z
  .string()
  .min(1)
  .max(128)
  .refine((name) => !["__proto__", "constructor", "prototype"].includes(name), "is a reserved name");

const expression = z.string().min(1).max(1024);
const scalar = z.union([z.string().max(10_000), z.number(), z.boolean(), z.null()]);

const transformSchema = z.union(
  [
    z.enum(["trim", "collapse"]),
    z.strictObject({ replace: expression, with: z.string().max(1024).optional() }),
    z.strictObject({ split: expression }),
    z.strictObject({ join: z.string().max(1024) }),
  ],
  'must be "trim", "collapse", {"replace": …, "with": …}, {"split": …} or {"join": …}',
);

const shape = {
  css: expression.optional(),
  xpath: expression.optional(),
  jsonPath: expression.optional(),
  regex: expression.optional(),
  group: z
    .union([z.int().min(0).max(99), z.string().min(1).max(128)], "must be the number or the name of a group")
    .optional(),
  attr: z.string().min(1).max(128).optional(),
  all: z.boolean().optional(),
  type: z.enum(["text", "number", "integer", "boolean", "date", "url", "html", "json"]).optional(),
  locale: z.string().min(2).max(64).optional(),
  keepSpace: z.boolean().optional(),
  transform: z.array(transformSchema).max(20).optional(),
  required: z.boolean().optional(),
  default: z
    .union(
      [scalar, z.array(scalar).max(100)],
      "must be a text, a number, true, false, null, or a list of these",
    )
    .optional(),
};

/** Each part of a rule that is wrong is told by its own path, which a union of both forms could not do. */
function ruleSchemaAt(level: number): z.ZodType<Rule, Rule> {
  return z.custom<Rule>().superRefine((rule: unknown, context) => {
    if (level > LEVELS_MAX) {
      context.addIssue({ code: "custom", message: `fields are nested more than ${LEVELS_MAX} levels deep` });
      return;
    }
    const parsed =
      typeof rule === "object" && rule !== null && !Array.isArray(rule)
        ? z
            .strictObject({ ...shape, fields: z.record(fieldNameSchema, ruleSchemaAt(level + 1)).optional() })
            .safeParse(rule)
        : z.string(NO_RULE).pipe(expression).safeParse(rule);
    for (const issue of parsed.error?.issues ?? []) {
      if (issue.code === "unrecognized_keys") {
        for (const key of issue.keys) {
          context.addIssue({
            code: "custom",
            path: [...issue.path, key],
            message: "there is no such field of a rule",
          });
        }
      } else context.addIssue({ code: "custom", path: [...issue.path], message: issue.message });
    }
  });
}

const NO_RULE =
  'must be a rule, e.g. "h1", "a@href", "//h1", "$.title", or an object, e.g. {"css": ".price", "type": "number"}';

export const extractSchema = z
  .record(
    fieldNameSchema,
    ruleSchemaAt(0),
    'must be an object: a rule for each field, e.g. {"title": "h1", "link": "a@href"}',
  )
  .refine((rules) => Object.keys(rules).length <= 200, "at most 200 fields");
