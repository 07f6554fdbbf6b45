/** One measured number, and what it has to keep within. */
export interface Figure {
  /** Stable: earlier runs are compared by it. */
  readonly name: string;
  readonly value: number;
  /** Times, ratios and counts say which they are: `ms`, `x the mean`, `%`, `hops`. */
  readonly unit: string;
  readonly min?: number;
  readonly max?: number;
}

export interface BenchmarkOptions {
  /** Names of the parts that are wanted; none: all. */
  readonly parts: readonly string[];
  /** Says what is being done. */
  readonly progress: (text: string) => void;
  /** Where processor profiles of a server go, by those benchmarks that can make them. */
  readonly profileFile: string | undefined;
}

/** What each file `NAME-bench.ts` exports as `benchmark`. */
export type Benchmark = (report: (figure: Figure) => void, options: BenchmarkOptions) => Promise<void>;

export function isKept({ value, min, max }: Figure): boolean {
  return !Number.isNaN(value) && (min === undefined || value >= min) && (max === undefined || value <= max);
}
