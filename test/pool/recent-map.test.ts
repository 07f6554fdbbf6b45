/** What is remembered of what was looked up last. */
import { test } from "tap";
import { RecentMap } from "../../workers/recent-map.ts";

test("what is asked for stays, what is not is forgotten, and there is a bound", async (t) => {
  const map = new RecentMap<number>(8);
  map.set("asked", 0);
  for (let n = 1; n <= 100; n++) {
    map.set(`${n}`, n);
    t.equal(map.get("asked"), 0, `after ${n}`);
  }
  const kept = Array.from({ length: 100 }, (_, n) => map.get(`${n + 1}`)).filter((n) => n !== undefined);
  t.ok(kept.length <= 8, `${kept.length} are left`);
  t.equal(kept.at(-1), 100);
});
