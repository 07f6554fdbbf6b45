/** What a job tells about URLs that it takes no more of. */
import { z } from "zod";

const total = z.int().nonnegative();

export const trapReportSchema = z.object({
  host: z.string(),
  /** E.g. `/calendar/{n}/{n}?view`; `*`: all of the host. */
  pattern: z.string(),
  reason: z.enum(["near duplicates", "pages per host"]),
  /** Pages of the pattern that repeated others; or pages of the host that were taken in. */
  pages: total,
  /** Pages of it that were known and not fetched yet: they ended as skipped. */
  skipped: total,
  example: z.string(),
});
export type TrapReport = z.output<typeof trapReportSchema>;
