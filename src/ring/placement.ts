/**
 * Who should keep the copies of a partition: those that follow its position, no
 * two of one zone (a rack, a host) while others are in sight, so that what takes
 * a zone down takes one copy down.
 */
import type { Member } from "./member.ts";

/**
 * @param order live nodes at and after the position, in ring order, as far as they are in sight.
 * @param count how many copies there should be.
 * @returns at most `count` of them, in ring order: the nearest of each zone; where there are too few zones, the next of
 * each, and so on, so that of five copies in three zones none holds more than two. A node without a zone stands alone.
 */
export function placementOf(order: readonly Member[], count: number): Member[] {
  const chosen = new Set<Member>();
  for (let left = order; left.length > 0 && chosen.size < count; ) {
    const zones = new Set<string>();
    const passed: Member[] = [];
    for (const member of left) {
      if (chosen.size === count) break;
      if (zones.has(member.zone)) passed.push(member);
      else chosen.add(member);
      if (member.zone !== "") zones.add(member.zone);
    }
    left = passed;
  }
  return order.filter((member) => chosen.has(member));
}
