/**
 * `maxPages`, kept exactly by many servers that don't wait for one another: the
 * job hands out credits in small blocks, a result costs one, and unused ones are
 * called back. Only totals are exchanged, never differences, and each side keeps
 * the maximum, so that a message lost, doubled or late changes nothing.
 *
 * The right of a participant is `granted - returned`; the rights of all together
 * never exceed `maxPages`, and no participant spends more than its right.
 */

/** What the job has recorded for one participant. Both totals only grow. */
export interface Account {
  readonly granted: number;
  readonly returned: number;
}

export const BLOCK_CREDITS_MAX = 16;

/** Credits that nobody holds. */
export function creditsLeft(maxPages: number, accounts: Iterable<Account>): number {
  let held = 0;
  for (const account of accounts) held += account.granted - account.returned;
  return maxPages - held;
}

/** How many credits one asking is worth, while `left` are left for `participants`. */
export function creditBlock(left: number, participants: number): number {
  if (left <= 0) return 0;
  return Math.min(
    left,
    Math.max(1, Math.min(BLOCK_CREDITS_MAX, Math.floor(left / (2 * Math.max(1, participants))))),
  );
}

/**
 * The total to record and to answer. An asker that does not know the recorded
 * total yet gets just that: its last answer was lost.
 */
export function grantedAfter(
  account: Account,
  asked: { readonly granted: number; readonly want: number },
  left: number,
  participants: number,
): number {
  if (asked.granted < account.granted || asked.want <= 0) return account.granted;
  return account.granted + Math.min(creditBlock(left, participants), asked.want);
}

/** Credits of a participant that neither a result nor a page under way uses. */
export function creditsFree(
  counts: { readonly granted: number; readonly returned: number; readonly spent: number },
  inFlight: number,
): number {
  return counts.granted - counts.returned - counts.spent - inFlight;
}
