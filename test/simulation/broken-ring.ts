/**
 * The servers' own ring with one rule broken: its source is changed while it is
 * loaded, so that no break ever lies on a disk or in what servers run.
 */
import type { Ring } from "../../src/ring/ring.ts";
import { loadBrokenModule } from "./broken-module.ts";

export interface Break {
  /** What no longer holds. */
  readonly rule: string;
  /** Under src/ring. */
  readonly file: string;
  /** Each text stands there exactly once, and is replaced. */
  readonly changes: readonly (readonly [text: string, replacement: string])[];
}

export async function brokenRing({ rule, file, changes }: Break): Promise<typeof Ring> {
  const edits = changes.map(([text, replacement]) => [`src/ring/${file}`, text, replacement] as const);
  const loaded = (await loadBrokenModule(rule, edits, "src/ring/ring.ts")) as { Ring: typeof Ring };
  return loaded.Ring;
}
