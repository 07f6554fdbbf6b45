/**
 * Who should keep the copies of a partition: those that follow its position, no
 * two of one zone (a rack, a host) while others are in sight, so that what takes
 * a zone down takes one copy down.
 */
import type { Member } from "./member.ts";

/**
 * @param order live nodes at and after the position, in ring order, as far as they are in sight.
 * @param count how many copies there should be.
 * @returns at most `count` of them, in ring order: first those of zones that none before them stands in, then,
 * where there are too few zones, the nearest of the others. A node without a zone stands alone.
 */
export function placementOf(order: readonly Member[], count: number): Member[] {
  const zones = new Set<string>();
  const chosen = new Set<Member>();
  for (const member of order) {
    if (chosen.size === count) break;
    if (zones.has(member.zone)) continue;
    if (member.zone !== "") zones.add(member.zone);
    chosen.add(member);
  }
  for (const member of order) {
    if (chosen.size >= count) break;
    chosen.add(member);
  }
  return order.filter((member) => chosen.has(member));
}
