/** A lock that is held, one that is waited for, and values that are watched, when the leader of all of them dies. */
import type { Test } from "tap";
import { allServed, type Ground, until } from "../cluster/ground.ts";

const NAME = "door";
const KEYS = 12;

/** Kills the server that leads the lock's partition, and starts it again. */
export async function heldOverTakeover(t: Test, { servers, client }: Ground): Promise<void> {
  const { leader } = await client(servers[0]).cluster.lookup(`lock/admin/${NAME}`);
  const victim = servers.find(({ nodeId }) => nodeId === leader)!;
  const others = servers.filter((server) => server !== victim);
  // Its clients lose their server, the others only the leader behind theirs.
  const [holder, waiter, writer] = [client(victim, ...others), client(...others), client(...others)];
  const gone = new AbortController();
  const seen = new Map<string, string>();
  const watching = (async () => {
    for await (const change of holder.kv.watch("watched", { signal: gone.signal })) {
      if (change.kind === "value") seen.set(change.key, change.value.text());
      else seen.delete(change.key);
    }
  })();
  const lock = await holder.locks.acquire(NAME, { ttlMs: 10_000 });
  await t.rejects(waiter.locks.acquire(NAME), { code: "LOCK_HELD" });
  const waiting = waiter.locks.acquire(NAME, { ttlMs: 10_000, waitMs: Number.POSITIVE_INFINITY });
  const { expiresAt } = lock;
  for (let i = 0; i < KEYS; i++) await writer.kv.set("watched", `k${i}`, "before");
  await until("the watch has told all", 20_000, async () => seen.size === KEYS);

  await victim.kill();
  for (let i = 0; i < KEYS; i++) {
    if (i % 3 === 0) t.equal(await writer.kv.delete("watched", `k${i}`), true);
    else await writer.kv.set("watched", `k${i}`, `after ${i}`);
  }
  await until("the lock was renewed at the next leader", 20_000, async () => lock.expiresAt > expiresAt);

  t.equal(lock.signal.aborted, false, "the lock was held all the time");
  await lock.release();
  const next = await waiting;
  t.ok(next.fencingToken > lock.fencingToken, `token ${next.fencingToken} after ${lock.fencingToken}`);
  await next.release();
  const left = Array.from({ length: KEYS }, (_, i) => i).filter((i) => i % 3 !== 0);
  await until("the watch has told the last state", 20_000, async () => seen.size === left.length);
  await until("and each of its values", 20_000, async () =>
    left.every((i) => seen.get(`k${i}`) === `after ${i}`),
  );
  gone.abort();
  await watching;
  await victim.restart();
  await allServed(client(servers[0]), 5);
}
