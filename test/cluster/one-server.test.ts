/** What one server may do to the other four: die under load, come back from the past, speak nonsense. */
import { t as tap, test } from "tap";
import { createSite } from "../fixture/site/site.ts";
import { oldCopy } from "../scenario/old-copy.ts";
import { oneKilled } from "../scenario/one-killed.ts";
import { strangeMessages } from "../scenario/strange-messages.ts";
import { startGround } from "./ground.ts";

tap.setTimeout(200_000);

test("one server that fails", async (t) => {
  const site = await createSite({ hosts: 2, pages: 60 });
  t.teardown(() => site.close());
  const ground = await startGround(t);

  await t.test("one server killed (SIGKILL) under load", (t) => oneKilled(t, ground, site.homes[0]!));
  await t.test("malformed, oversized, repeated and out-of-order peer messages", (t) =>
    strangeMessages(t, ground),
  );
  await t.test("an old copy of a data directory is started", (t) => oldCopy(t, ground));
});
