/** Row 1: one server dies under load. */
import type { Test } from "tap";
import { type Ground, slowness, until, untilOver } from "../cluster/ground.ts";
import { SmallJobs } from "../cluster/small-jobs.ts";
import { watchTakeover } from "../fixture/takeover.ts";

/** Three times what is promised. */
const TAKEOVER_MS_MAX = 3 * 2_000;

/** Kills the third server, and starts it again. @param page of the jobs that are the load. */
export async function oneKilled(t: Test, { servers, client }: Ground, page: string): Promise<void> {
  const [one, two, victim, four, five] = servers;
  const reader = client(one);
  // Each writer has another favourite, so that one of them loses the server that it speaks to.
  const load = new SmallJobs([client(victim, four), client(four, five), client(five, one)], page);
  t.teardown(() => load.stop());
  await until("the load runs", 20_000, () => load.acknowledged.size >= 10);

  const takeoverMs = await watchTakeover(reader, [victim.nodeId], () => victim.kill());
  const killedAnswers = load.answers;
  const survivors = client(one, two, four, five);
  const readFromMs = performance.now();
  const known = [...load.acknowledged];
  const found = await Promise.all(known.map(async ([id]) => (await survivors.jobs.get(id)).name));
  const readMs = performance.now() - readFromMs;
  await until("the load goes on", 20_000, () => load.answers >= killedAnswers + 20);
  await victim.restart();
  await until("the load goes on", 20_000, () => load.answers >= killedAnswers + 40);
  await load.stop();

  const limitMs = TAKEOVER_MS_MAX * slowness();
  t.comment(`led again after ${Math.round(takeoverMs ?? 0)} ms, of ${Math.round(limitMs)} at most`);
  t.comment(
    `longest of ${load.answers} calls ${Math.round(load.longestMs)} ms, ${load.failed.length} failed`,
  );
  t.ok(takeoverMs !== null, "it led something");
  t.ok(takeoverMs! < limitMs, `each partition was led again after ${Math.round(takeoverMs!)} ms`);
  t.ok(load.longestMs < limitMs, `the longest call took ${Math.round(load.longestMs)} ms`);
  t.ok(readMs < limitMs, `and each job answered within ${Math.round(readMs)} ms`);
  t.same(
    found,
    known.map(([, name]) => name),
    "with what was acknowledged",
  );
  t.same(load.failed, [], `none of ${load.answers} calls failed`);
  const lost: string[] = [];
  for (const [id, name] of load.acknowledged) {
    const job = await untilOver(reader, id, 20_000);
    if (job.name !== name || job.status !== "completed" || job.stats.results !== 1)
      lost.push(`${name}: ${job.status}, ${JSON.stringify(job.stats)}`);
  }
  t.same(lost, [], `all ${load.acknowledged.size} jobs ended with their page`);
}
