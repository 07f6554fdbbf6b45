/** Row 8: a server stands still for ten seconds, and wakes with requests waiting in its sockets. */
import { setTimeout as pause } from "node:timers/promises";
import type { Test } from "tap";
import { allServed, type Ground, inSeconds, slowness, until, untilOver } from "../cluster/ground.ts";
import { watchTakeover } from "../fixture/takeover.ts";

/** Three times what is promised for silence. */
const TAKEOVER_MS_MAX = 3 * 3_000;
const FROZEN_MS = 10_000;
/** Before it wakes. */
const ASKED_MS = 2_000;
const JOBS = 40;
const BALANCED_MS_MAX = 3 * 30_000;

/** Freezes the third server. @param page of the jobs. */
export async function frozenServer(t: Test, ground: Ground, page: string): Promise<void> {
  const { servers, client, pinned } = ground;
  const [one, two, frozen, four, five] = servers;
  const others = client(one, two, four, five);
  const asker = pinned(frozen);
  const jobs = await Promise.all(
    Array.from({ length: JOBS }, (_, n) =>
      others.jobs.submit({
        name: `job ${n}`,
        seeds: [page],
        // They don't end by themselves.
        politeness: { delayMs: 60_000, concurrencyPerHost: 1, robots: false },
        scope: { maxDepth: 1 },
      }),
    ),
  );
  // Opens its connections, and lets it know all jobs as they are now.
  await Promise.all(jobs.map(({ id }) => asker.jobs.get(id)));

  const frozenAtMs = performance.now();
  const takeoverMs = await watchTakeover(others, [frozen.nodeId], async () => frozen.freeze());
  const paused = await Promise.all(jobs.map(({ id }) => others.jobs.pause(id)));
  await pause(Math.max(0, FROZEN_MS - ASKED_MS - (performance.now() - frozenAtMs)));
  const answers: string[] = [];
  const refusals: string[] = [];
  const ask = async (id: string) => {
    try {
      answers.push((await asker.jobs.get(id)).status);
    } catch (error) {
      refusals.push(String(error));
    }
  };
  const waiting = jobs.map(({ id }) => ask(id));
  await pause(Math.max(0, FROZEN_MS - (performance.now() - frozenAtMs)));
  t.same([...answers, ...refusals], [], "it says nothing while it stands still");
  const wokenMs = performance.now();
  frozen.wake();
  // Again and again, while it still finds out what it has missed.
  for (let turn = 0; turn < 5; turn++) waiting.push(...jobs.map(({ id }) => ask(id)));
  await Promise.all(waiting);
  const answeredMs = performance.now() - wokenMs;

  t.comment(
    `its partitions were led by others after ${Math.round(takeoverMs ?? 0)} ms, of ${TAKEOVER_MS_MAX} at most`,
  );
  t.comment(
    `woken after ${inSeconds(wokenMs - frozenAtMs)}: ${answers.length} answers within ${Math.round(answeredMs)} ms, ${answers.filter((status) => status !== "paused").length} stale, ${refusals.length} refused`,
  );
  t.ok(takeoverMs !== null, "it led something");
  t.ok(takeoverMs! < TAKEOVER_MS_MAX * slowness(), "its partitions have moved");
  t.equal(paused.length, JOBS);
  t.ok(answers.length > 0, "it answers again");
  t.same(
    answers.filter((status) => status !== "paused"),
    [],
    "nothing that it says is stale",
  );
  const again = await Promise.all(jobs.map(({ id }) => asker.jobs.get(id)));
  t.same(
    again.filter(({ status }) => status !== "paused").map(({ id }) => id),
    [],
    "nor later",
  );

  const balancedMs = await until("it leads again", BALANCED_MS_MAX, async () => {
    const nodes = await others.cluster.nodes();
    const self = nodes.find(({ nodeId }) => nodeId === frozen.nodeId);
    return (self?.leads ?? 0) > 0 && performance.now() - wokenMs;
  });
  await allServed(others, 5);
  t.comment(`leads again ${inSeconds(balancedMs)} after it woke`);
  for (const { id } of jobs) {
    await others.jobs.cancel(id);
    t.equal((await untilOver(others, id, 20_000)).status, "cancelled");
  }
}
