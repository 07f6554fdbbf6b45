/**
 * The replicated store under load, with real servers: against etcd, inside, while
 * servers die, after one was away, and what a write costs in large stores and
 * large rings. Comparisons are ratios within this run; the machine is the same for
 * both sides, and what other processes took of it is shown.
 */
import type { BenchmarkOptions, Figure } from "./figure.ts";
import { catchupFigures } from "./kv-catchup.ts";
import { costOfEntriesFigures, costOfServersFigures } from "./kv-cost.ts";
import { insideFigures } from "./kv-inside.ts";
import { handedOver, killed, silenced, takeoverFigures } from "./kv-takeover.ts";
import { writesFigures } from "./kv-writes.ts";

type Part = (
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  profileFile?: string,
) => Promise<void>;

const PARTS: Readonly<Record<string, Part>> = {
  writes: writesFigures,
  inside: insideFigures,
  kill: (report, progress) => takeoverFigures(killed, report, progress),
  silence: (report, progress) => takeoverFigures(silenced, report, progress),
  "hand-over": (report, progress) => takeoverFigures(handedOver, report, progress),
  catchup: catchupFigures,
  "cost-entries": costOfEntriesFigures,
  "cost-servers": costOfServersFigures,
};

/** Names for several of them. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  takeover: ["kill", "silence", "hand-over"],
  cost: ["cost-entries", "cost-servers"],
};

export async function benchmark(
  report: (figure: Figure) => void,
  { parts, progress, profileFile }: BenchmarkOptions,
): Promise<void> {
  const wanted = parts.flatMap((name) => GROUPS[name] ?? [name]);
  const unknown = wanted.filter((name) => !Object.hasOwn(PARTS, name));
  if (unknown.length > 0) {
    const names = [...Object.keys(PARTS), ...Object.keys(GROUPS)].join(", ");
    throw new Error(`no such part: ${unknown.join()}; parts are ${names}`);
  }
  for (const [name, part] of Object.entries(PARTS)) {
    if (wanted.length === 0 || wanted.includes(name)) await part(report, progress, profileFile);
  }
}
