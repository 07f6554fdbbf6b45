/** Every rule of the ring that can be broken, in the order in which a node meets them. */
import { DETECTOR_RULES } from "./detector-rules.ts";
import { LOOKUP_RULES } from "./lookup-rules.ts";
import { MEMBERSHIP_RULES } from "./membership-rules.ts";
import { NEIGHBOUR_RULES } from "./neighbour-rules.ts";
import type { Rule } from "./ring-schedule.ts";

export const RING_RULES: readonly Rule[] = [
  ...MEMBERSHIP_RULES,
  ...NEIGHBOUR_RULES,
  ...LOOKUP_RULES,
  ...DETECTOR_RULES,
];
