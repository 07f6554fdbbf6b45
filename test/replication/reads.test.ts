/** Watches and stale reads, in a group to which nothing else happens. */
import { type Test, test } from "tap";
import type { Operation, Outcome, Version } from "../../src/replication/register.ts";
import { CalmGroup, put } from "../simulation/replication-calm-group.ts";
import type { Answer } from "../simulation/replication-node.ts";

const all: Operation = { kind: "scan", prefix: "", limit: 100 };

function as<K extends Outcome["kind"]>(
  t: Test,
  kind: K,
  answer: Answer | undefined,
): Extract<Outcome, { kind: K }> {
  if (answer !== undefined && "kind" in answer && answer.kind === kind) {
    return answer as Extract<Outcome, { kind: K }>;
  }
  t.fail(`${kind} was to come, not ${JSON.stringify(answer)}`);
  throw new Error("no use to go on");
}

function watch(from: Version | undefined, waitMs = 1000, prefix = ""): Operation {
  return { kind: "watch", prefix, waitMs, ...(from === undefined ? {} : { from }) };
}

/** As `key=text`, or `key` when it was deleted. */
function told({ changes }: Extract<Outcome, { kind: "changed" }>): string[] {
  return changes.map((change) =>
    change.kind === "put" ? `${change.entry.key}=${Buffer.from(change.entry.value)}` : change.key,
  );
}

test("a watch tells of every change after its version, in order, and of nothing else", (t) => {
  const group = new CalmGroup(3);
  group.write("a/1", "one");
  const { version } = as(t, "scanned", group.answer(group.leader, all));

  group.write("a/2", "two");
  group.write("b/1", "other");
  const deletion: Operation = { kind: "batch", changes: [{ kind: "delete", key: "a/1" }], conditions: [] };
  group.answer(group.leader, deletion);
  const first = as(t, "changed", group.answer(group.leader, watch(version, 1000, "a/")));
  t.same(told(first), ["a/2=two", "a/1"]);

  const waiting = group.ask(group.leader, watch(first.version, 1000, "a/"));
  group.write("b/2", "other");
  t.notOk(group.answers.has(waiting), "what is not asked for is not told");
  group.write("a/3", "three");
  group.run(10);
  const second = as(t, "changed", group.answers.get(waiting));
  t.same(told(second), ["a/3=three"]);

  const none = as(t, "changed", group.answer(group.leader, watch(second.version, 200, "a/")));
  t.same(none.changes, []);
  t.equal(none.version, second.version);

  const now = as(t, "changed", group.answer(group.leader, watch(undefined)));
  group.write("a/4", "four");
  t.same(told(as(t, "changed", group.answer(group.leader, watch(now.version)))), ["a/4=four"]);
  t.same(group.complaints, []);
  t.end();
});

test("changes of a batch come together, and only once they are committed", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const { version } = as(t, "changed", group.answer(leader, watch(undefined)));
  group.isLost = ({ body }) => body?.kind === "append";
  const changes = ["a", "b"].map((key) => ({ kind: "put", key, value: Buffer.from("x") }) as const);
  const written = group.ask(leader, { kind: "batch", changes, conditions: [] });
  const waiting = group.ask(leader, watch(version));
  group.run(100);
  t.notOk(group.answers.has(written));
  t.notOk(group.answers.has(waiting), "nothing is told of what may never happen");

  group.isLost = () => false;
  group.run(400);
  t.same(told(as(t, "changed", group.answers.get(waiting))), ["a=x", "b=x"]);
  t.end();
});

test("a version that the window does not reach back to is compacted, and a scan's is not", (t) => {
  const group = new CalmGroup(3, { windowBatches: 8 });
  const { version } = as(t, "scanned", group.answer(group.leader, all));
  for (let i = 0; i < 9; i++) group.write("a", `${i}`);
  t.same(group.answer(group.leader, watch(version)), { kind: "compacted" });

  const again = as(t, "scanned", group.answer(group.leader, all));
  group.write("a", "last");
  t.same(told(as(t, "changed", group.answer(group.leader, watch(again.version)))), ["a=last"]);
  t.same(group.answer(group.leader, watch("7.n9/1.5")), { kind: "compacted" }, "a ballot never heard of");
  t.end();
});

test("a watcher learns that its leader is gone, and goes on at the next one where nothing was lost", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  const { leader } = group;
  const { version } = as(t, "scanned", group.answer(leader, all));
  const waiting = group.ask(leader, watch(version, 60_000));
  const { round } = leader.replica!.state.promised;
  leader.within(() => leader.replica?.handOver(leader.nowMs()));
  group.run(300);
  t.same(group.answers.get(waiting), { code: "NOT_LEADER" });
  // To another, and back to the one that the ring prefers.
  t.equal(group.leader.replica?.state.promised.round, round + 2);
  group.write("a", "2");
  t.same(told(as(t, "changed", group.answer(group.leader, watch(version)))), ["a=2"]);
  t.end();
});

test("a leader that nobody follows any more does not say that nothing has changed", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const { version } = as(t, "changed", group.answer(leader, watch(undefined)));
  const waiting = group.ask(leader, watch(version, 300));
  group.isLost = ({ from, to }) => from === leader.nodeId || to === leader.nodeId;
  group.run(2000);
  t.same(group.answers.get(waiting), { code: "NOT_LEADER" });
  t.end();
});

test("watchers are bounded in number", (t) => {
  const group = new CalmGroup(1);
  const { version } = as(t, "changed", group.answer(group.leader, watch(undefined)));
  const numbers = Array.from({ length: 1025 }, () => group.ask(group.leader, watch(version, 60_000)));
  t.notOk(group.answers.has(numbers[1023]!));
  t.same(group.answers.get(numbers[1024]!), { code: "BUSY", retryAfterMs: 250 });
  t.end();
});

test("a stale read shows the replica's own state, with its age, and hides what has expired", (t) => {
  const group = new CalmGroup(3);
  const follower = group.nodes.find((node) => node !== group.leader)!;
  const { leader } = group;
  const stale: Operation = { kind: "get", keys: ["a", "b"], stale: true };
  group.write("a", "1");
  group.answer(leader, put("b", "short", { expiresAtMs: leader.epochMs() + 500 }));
  group.run(50);

  const fresh = as(t, "entries", group.answer(follower, stale));
  t.same(
    fresh.entries.map((entry) => entry && Buffer.from(entry.value).toString()),
    ["1", "short"],
  );
  t.ok(
    fresh.ageMs !== undefined && fresh.ageMs !== null && fresh.ageMs >= 50 && fresh.ageMs < 70,
    `${fresh.ageMs}`,
  );

  group.isLost = ({ to }) => to === follower.nodeId;
  group.write("a", "2");
  group.run(600);
  const old = as(t, "entries", group.answer(follower, stale));
  t.equal(Buffer.from(old.entries[0]!.value).toString(), "1", "it has not heard of the newer one");
  t.equal(old.entries[1], undefined, "expired");
  t.ok((old.ageMs ?? 0) > 600);
  const scanned = as(t, "scanned", group.answer(follower, { ...all, stale: true }));
  t.same(
    scanned.entries.map(({ key }) => key),
    ["a"],
    "neither what has expired nor what is reserved",
  );
  t.equal(scanned.more, false);
  t.equal(scanned.version, undefined);

  const own = as(t, "entries", group.answer(leader, { kind: "get", keys: ["a"], stale: true }));
  t.equal(Buffer.from(own.entries[0]!.value).toString(), "2");
  t.ok(typeof own.ageMs === "number");
  const linear = as(t, "entries", group.answer(leader, { kind: "get", keys: ["a"] }));
  t.equal(linear.ageMs, undefined);
  t.end();
});

test("a stale scan reads past pages of what has expired", (t) => {
  const group = new CalmGroup(1, { answerBytes: 300 });
  const { leader } = group;
  for (let i = 0; i < 8; i++)
    group.answer(leader, put(`k${i}`, "x", i < 7 ? { expiresAtMs: leader.epochMs() + 300 } : {}));
  group.run(400);
  const page = as(t, "scanned", group.answer(leader, { kind: "scan", prefix: "k", limit: 2, stale: true }));
  t.same(
    page.entries.map(({ key }) => key),
    ["k7"],
  );
  t.equal(page.more, false);
  t.end();
});

test("who was not level since it was opened does not know its age; who holds nothing does not answer", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  const follower = group.nodes.find((node) => node !== group.leader)!;
  follower.crash();
  follower.start();
  group.isLost = ({ to }) => to === follower.nodeId;
  const stale: Operation = { kind: "get", keys: ["a"], stale: true };
  t.equal(as(t, "entries", group.answer(follower, stale)).ageMs, null);
  follower.crash();
  follower.loseMemory();
  follower.start();
  t.same(group.answer(follower, stale), { code: "NOT_LEADER" });
  t.end();
});
