/** Majorities. Any two of one config share a member; so do those of configs that differ by one member. */

export function majorityOf(memberCount: number): number {
  return Math.floor(memberCount / 2) + 1;
}

/** The greatest value that a majority has reached; `values` has one per member. */
export function reachedByMajority(values: readonly number[]): number {
  const needed = majorityOf(values.length);
  // Groups are small and each answer comes by here: counting makes no garbage, sorting and iterators do.
  let reached = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value <= reached) continue;
    let count = 0;
    for (let j = 0; j < values.length; j++) if (values[j]! >= value) count++;
    if (count >= needed) reached = value;
  }
  return reached;
}
