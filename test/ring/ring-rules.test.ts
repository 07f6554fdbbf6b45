/**
 * One directed schedule per rule of the ring. Each is run twice: with the ring
 * as it is, which must pass, and with that one rule broken, which must be caught:
 * random schedules hardly ever find such breaks.
 */
import assert from "node:assert/strict";
import { test } from "tap";
import { RING_RULES } from "../simulation/ring-rules.ts";
import { tryRule } from "../simulation/ring-schedule.ts";

const seed = Number(process.env.SEED ?? 1);

for (const rule of RING_RULES) {
  test(`${rule.rule}: kept, the schedule passes; broken, it is caught (SEED=${seed})`, async (t) => {
    const { kept, broken } = await tryRule(rule, seed);

    assert.equal(kept, undefined);
    assert.ok(broken !== undefined, "the broken ring was not caught");
    t.comment(`caught: ${broken}`);
  });
}
