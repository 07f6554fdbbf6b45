/**
 * The replicated store under load, with real servers: against etcd, inside, while
 * servers die, after one was away, and what a write costs in large stores and
 * large rings. Comparisons are ratios within this run; the machine is the same for
 * both sides, and what other processes took of it is shown.
 */
import type { BenchmarkOptions, Figure } from "./figure.ts";
import { insideFigures } from "./kv-inside.ts";
import { writesFigures } from "./kv-writes.ts";

type Part = (
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  profileFile?: string,
) => Promise<void>;

const PARTS: Readonly<Record<string, Part>> = {
  writes: writesFigures,
  inside: insideFigures,
};

export async function benchmark(
  report: (figure: Figure) => void,
  { parts, progress, profileFile }: BenchmarkOptions,
): Promise<void> {
  const unknown = parts.filter((part) => !Object.hasOwn(PARTS, part));
  if (unknown.length > 0)
    throw new Error(`no such part: ${unknown.join()}; parts are ${Object.keys(PARTS).join(", ")}`);
  for (const [name, part] of Object.entries(PARTS)) {
    if (parts.length === 0 || parts.includes(name)) await part(report, progress, profileFile);
  }
}
