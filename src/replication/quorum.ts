/** Majorities. Any two of one config share a member; so do those of configs that differ by one member. */

export function majorityOf(memberCount: number): number {
  return Math.floor(memberCount / 2) + 1;
}

/** The greatest value that a majority has reached; `values` has one per member. */
export function reachedByMajority(values: readonly number[]): number {
  const descending = [...values].sort((a, b) => b - a);
  return descending[majorityOf(values.length) - 1] ?? Number.NEGATIVE_INFINITY;
}
