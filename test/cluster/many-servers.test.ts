/** What a crawl survives: two of five servers die at the same moment; all five do. */
import { t as tap, test } from "tap";
import { createSite } from "../fixture/site/site.ts";
import { HOSTS, PAGES } from "../scenario/page-crawl.ts";
import { powerCut } from "../scenario/power-cut.ts";
import { twoKilled } from "../scenario/two-killed.ts";
import { allServed, startGround } from "./ground.ts";

tap.setTimeout(200_000);

test("many servers die in the middle of a crawl", async (t) => {
  const site = await createSite({ hosts: HOSTS, pages: PAGES });
  t.teardown(() => site.close());
  const ground = await startGround(t, { flags: ["--partitions", "32"] });
  const [one, , , four] = ground.servers;

  await t.test("two killed at the same moment, mid-crawl", (t) => twoKilled(t, ground, site));

  await Promise.all([one.restart(), four.restart()]);
  await allServed(ground.client(one), 5);
  site.reset();
  await t.test("all five killed at once (power cut), restarted in any order", (t) =>
    powerCut(t, ground, site),
  );
});
