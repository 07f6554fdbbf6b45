/** What a group does about a refused leader, a memory that differs, a lost majority, and a wrong message. */
import { test } from "tap";
import type { Body } from "../../src/replication/message.ts";
import type { Survivor } from "../../src/replication/recovery.ts";
import { planRecovery } from "../../src/replication/recovery.ts";
import type { Operation } from "../../src/replication/register.ts";
import { CalmGroup, put } from "../simulation/replication-calm-group.ts";
import type { SimulatedNode } from "../simulation/replication-node.ts";

const read: Operation = { kind: "get", keys: ["a"] };

function textOf(answer: unknown): string {
  const { entries } = answer as { entries: readonly ({ value: Uint8Array } | undefined)[] };
  return entries[0] === undefined ? "" : Buffer.from(entries[0].value).toString();
}

function others(group: CalmGroup): SimulatedNode[] {
  return group.nodes.filter((node) => node !== group.leader);
}

test("what was pending when its leader was refused is answered under the leader's next ballot", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  const { leader } = group;
  const [first, second] = others(group) as [SimulatedNode, SimulatedNode];
  const { round } = leader.replica!.state.promised;

  // Nothing is answered; one follower comes to promise another, who then gives up.
  group.isLost = ({ body }) => body?.kind === "appended" || body?.kind === "confirmed";
  const write = group.ask(leader, put("a", "2"));
  const reading = group.ask(leader, read);
  group.run(20);
  first.suspect(leader.nodeId);
  const ballot = { round: round + 1, replicaId: second.replica!.id };
  first.within(() =>
    first.replica?.step(ballot.replicaId, { kind: "prepare", ballot, handOver: null }, first.nowMs()),
  );
  first.trust(leader.nodeId);
  t.equal(first.replica?.state.promised.round, round + 1);
  const later = group.ask(leader, put("b", "3"));
  group.run(3);
  t.equal(leader.replica?.servingBallot, undefined);
  t.notOk(group.answers.has(write), "neither known nor unknown yet");
  t.notOk(group.answers.has(reading));

  group.isLost = () => false;
  group.run(500);
  t.equal(group.leader, leader);
  t.ok(leader.replica!.state.promised.round > round + 1);
  t.match(group.answers.get(write), { kind: "written" }, "it is in the base of the new ballot");
  t.equal(textOf(group.answers.get(reading)), "2", "evaluated anew");
  t.match(group.answers.get(later), { kind: "written" });
  t.same(group.complaints, []);
  t.end();
});

test("what was pending is answered in time when there is no next ballot", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const [first, second] = others(group) as [SimulatedNode, SimulatedNode];
  const { round } = leader.replica!.state.promised;
  group.isLost = ({ to, body }) => to === leader.nodeId && body?.kind !== "refused";
  const write = group.ask(leader, put("a", "2"));
  const reading = group.ask(leader, read);
  group.run(20);
  first.suspect(leader.nodeId);
  const ballot = { round: round + 1, replicaId: second.replica!.id };
  first.within(() =>
    first.replica?.step(ballot.replicaId, { kind: "prepare", ballot, handOver: null }, first.nowMs()),
  );
  group.ask(leader, put("b", "3"));
  group.run(20);
  group.isLost = ({ to, from }) => to === leader.nodeId || from === leader.nodeId;
  group.run(3000);
  t.same(group.answers.get(write), { code: "OUTCOME_UNKNOWN" });
  t.same(group.answers.get(reading), { code: "NOT_LEADER" });
  t.end();
});

test("replicas are compared by their roots; one that differs from the others is replaced", (t) => {
  const group = new CalmGroup(3);
  for (let i = 0; i < 20; i++) group.write(`k${i}`, "x");
  const { leader } = group;
  const [first, second] = others(group) as [SimulatedNode, SimulatedNode];
  leader.within(() => t.ok(leader.replica?.compare(1, leader.nowMs())));
  leader.within(() => t.notOk(leader.replica?.compare(2, leader.nowMs()), "one at a time"));
  for (let i = 0; i < 20; i++) group.ask(leader, put(`k${i}`, "y"));
  group.run(100);
  t.match(group.comparisons, [{ comparison: 1, different: [], silent: [] }]);
  t.same([...group.comparisons[0]!.same].sort(), [first, second].map(({ nodeId }) => `${nodeId}/1`).sort());

  // An entry of one of them is not what it was.
  first.crash();
  const { disk } = first;
  const entries = disk.durable.generations.get(0)!;
  entries.set("k3", { ...entries.get("k3")!, value: Buffer.from("z") });
  disk.current = disk.durable.copy();
  first.start();
  group.run(500);
  t.match(group.complaints, [/the entries do not have the root/], "its own check finds that");

  // Nor is the root on record, so that it looks whole by itself.
  group.complaints.length = 0;
  const root = disk.durable.meta!.root;
  first.crash();
  disk.durable.meta = { ...disk.durable.meta!, root: [root[0]! ^ 1, ...root.slice(1)] };
  disk.current = disk.durable.copy();
  first.start();
  group.run(500);
  leader.within(() => leader.replica?.compare(3, leader.nowMs()));
  group.run(100);
  t.same(group.comparisons.at(-1), {
    kind: "compared",
    comparison: 3,
    same: [second.replica!.id],
    different: [first.replica!.id],
    silent: [],
  });
  t.match(group.complaints.at(-1), new RegExp(`^${first.replica!.id}: a majority holds other entries`));
  t.end();
});

test("a leader that differs from a majority takes itself out", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  const { leader } = group;
  for (const node of others(group)) {
    node.crash();
    const { meta } = node.disk.durable;
    node.disk.durable.meta = { ...meta!, root: [1, 2, 3, 4] };
    node.disk.current = node.disk.durable.copy();
    node.start();
  }
  group.run(500);
  leader.within(() => leader.replica?.compare(1, leader.nowMs()));
  group.run(100);
  t.equal(group.comparisons[0]?.different.length, 2);
  t.match(group.complaints.at(-1), new RegExp(`^${leader.replica!.id}: a majority holds other entries`));
  t.end();
});

test("who does not answer a comparison is silent, and the others are compared all the same", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const [first, second] = others(group) as [SimulatedNode, SimulatedNode];
  group.isLost = ({ from }) => from === first.nodeId;
  leader.within(() => leader.replica?.compare(1, leader.nowMs()));
  group.run(6000);
  t.match(group.comparisons, [{ same: [second.replica!.id], different: [], silent: [first.replica!.id] }]);
  t.end();
});

const survivor = (name: string, round: number, seq: number, promised = round): Survivor => ({
  replicaId: name,
  promised: { round: promised, replicaId: name },
  claim: { accepted: { round, replicaId: "a/1" }, seq },
  members: round === 0 ? [] : ["a/1", "b/1", "c/1", "d/1", "e/1"],
});

test("the best survivor goes on, when there is no majority", (t) => {
  t.same(planRecovery([survivor("b/1", 4, 7, 9), survivor("c/1", 4, 12), survivor("f/1", 0, 0)]), {
    kind: "recover",
    best: "c/1",
    claim: { accepted: { round: 4, replicaId: "a/1" }, seq: 12 },
    round: 1009,
    lost: ["a/1", "d/1", "e/1"],
  });
  t.same(planRecovery([survivor("b/1", 4, 7), survivor("c/1", 4, 12), survivor("d/1", 3, 1)]), {
    kind: "notNeeded",
  });
  t.same(planRecovery([survivor("f/1", 0, 0)]), { kind: "nothingLeft" });
  t.same(planRecovery([]), { kind: "nothingLeft" });
  t.end();
});

test("a partition whose majority is lost goes on from a survivor, and takes in others", (t) => {
  const group = new CalmGroup(5);
  group.write("a", "kept");
  const { leader } = group;
  const lost = [leader, ...others(group).slice(0, 2)];
  const left = group.nodes.filter((node) => !lost.includes(node));
  for (const node of lost) group.crash(node);
  group.run(5000);
  t.ok(left.every((node) => node.replica?.servingBallot === undefined));

  const survivors = left.map((node) => node.replica!.survivor);
  const plan = planRecovery(survivors);
  if (plan.kind !== "recover") throw new Error(`recovery was ${plan.kind}`);
  const best = left.find((node) => node.replica?.id === plan.best)!;
  const recover = (decided: Pick<typeof plan, "claim" | "round">) => {
    let is: boolean | undefined;
    best.within(() => {
      is = best.replica?.recover(decided, best.nowMs());
    });
    return is;
  };
  t.equal(
    recover({ ...plan, claim: { ...plan.claim, seq: plan.claim.seq + 1 } }),
    false,
    "not what it holds",
  );
  t.equal(recover({ ...plan, round: 1 }), false, "not above what it has promised");
  for (const node of left) node.wish = left.map(({ nodeId }) => nodeId);
  t.equal(recover(plan), true);
  group.run(8000);
  t.ok(group.leader.replica!.state.promised.round > plan.round);
  t.same([...group.leader.replica!.config.members].sort(), left.map((node) => node.replica!.id).sort());
  t.equal(textOf(group.answer(group.leader, read)), "kept");
  t.match(group.write("a", "new"), { kind: "written" });

  // Those that were lost come back: they hold what nobody needs any more.
  for (const node of lost) {
    node.start();
    for (const other of group.nodes) {
      if (other !== node) {
        other.trust(node.nodeId);
        node.trust(other.nodeId);
      }
    }
  }
  for (const node of group.nodes) {
    node.wish = group.nodeIds;
    node.ringChanged();
  }
  group.run(20_000);
  t.equal(textOf(group.answer(group.leader, read)), "new");
  t.equal(group.leader.replica!.config.members.length, 5);
  t.same(group.complaints, []);
  t.end();
});

test("one message with an absurd ballot does not use up the ballots of a group", (t) => {
  const group = new CalmGroup(3);
  const follower = others(group)[0]!;
  const { round } = follower.replica!.state.promised;
  follower.suspect(group.leader.nodeId);
  const liar = group.leader.replica!.id;
  for (const step of [1, 2]) {
    const ballot = { round: Number.MAX_SAFE_INTEGER, replicaId: liar };
    follower.within(() =>
      follower.replica?.step(liar, { kind: "prepare", ballot, handOver: null }, follower.nowMs()),
    );
    t.equal(follower.replica!.state.promised.round, round, `refused the ${step}. time`);
  }
  // Who was away for very long still gets on, by being told again.
  const ballot = { round: round + 2_500_000, replicaId: liar };
  follower.within(() =>
    follower.replica?.step(liar, { kind: "prepare", ballot, handOver: null }, follower.nowMs()),
  );
  t.equal(follower.replica!.state.promised.round, round + 2_500_000);
  t.end();
});

test("operations past the bound of what may be pending are refused before anything is written", (t) => {
  const group = new CalmGroup(3, { pendingBytes: 10_000 });
  const { leader } = group;
  group.isLost = ({ body }) => body?.kind === "append";
  const numbers = Array.from({ length: 20 }, (_, i) => group.ask(leader, put(`k${i}`, "x".repeat(1000))));
  group.run(50);
  const busy = numbers.filter((number) => group.answers.has(number));
  t.equal(busy.length, 10);
  for (const number of busy) t.same(group.answers.get(number), { code: "BUSY", retryAfterMs: 25 });
  group.isLost = () => false;
  group.run(1000);
  t.ok(numbers.every((number) => group.answers.has(number)));
  t.match(group.write("k", "again"), { kind: "written" }, "what was answered is pending no more");
  t.match(group.answer(group.leader, { kind: "scan", prefix: "k", limit: 11 }), { more: false });
  t.end();
});

test("answers that wait count as pending, too", (t) => {
  const group = new CalmGroup(3, { pendingBytes: 10_000 });
  const { leader } = group;
  group.write("a", "x".repeat(3000));
  group.isLost = ({ body }) => body?.kind === "confirm";
  const numbers = Array.from({ length: 6 }, () => group.ask(leader, read));
  t.equal(numbers.filter((number) => group.answers.has(number)).length, 2);
  t.end();
});

test("what a transfer fetches is of the state that was listed, or it is begun anew", (t) => {
  const group = new CalmGroup(3, { windowBatches: 4 });
  const { leader } = group;
  const [first] = others(group) as [SimulatedNode];
  group.isLost = ({ to }) => to === first.nodeId;
  for (let i = 0; i < 10; i++) group.write(`k${i}`, "old");
  let pull: Body | undefined;
  let fetches = 0;
  group.isLost = ({ from, body }) => {
    if (from !== first.nodeId || body === undefined) return false;
    if (body.kind === "pull") pull ??= body;
    if (body.kind !== "fetch" || fetches++ > 0 || pull === undefined) return false;
    // Before the first question after the list is answered, an end and the question that opened it come once more.
    const { transfer } = body;
    const opened = pull;
    group.after(leader, 0, () => {
      group.ask(leader, put("k3", "new"));
      group.after(leader, 5, () => {
        leader.within(() =>
          leader.replica?.step(first.replica!.id, { kind: "end", transfer }, leader.nowMs()),
        );
        leader.within(() => leader.replica?.step(first.replica!.id, opened, leader.nowMs()));
      });
    });
    return true;
  };
  group.run(3000);
  t.ok(fetches > 1);
  t.same(group.complaints, [], "nothing was taken for what it is not");
  t.equal(first.replica?.state.seq, leader.replica?.state.seq);
  t.same(first.replica?.state.root, leader.replica?.state.root);
  t.end();
});

test("one that missed the last batch gets it, though its leader waits for nothing", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const [first] = others(group) as [SimulatedNode];
  group.isLost = ({ to, body }) => to === first.nodeId && body?.kind === "append";
  group.write("a", "1");
  group.run(50);
  group.isLost = () => false;
  group.run(1000);
  t.equal(first.replica?.state.seq, leader.replica?.state.seq);
  const { seq } = leader.replica!.state;
  let messages = 0;
  group.isLost = ({ body }) => {
    if (body !== undefined) messages++;
    return false;
  };
  group.run(10_000);
  t.equal(messages, 0, "all are level: nothing is said");
  t.equal(leader.replica?.state.seq, seq);
  t.end();
});

test("a batch that never arrives does not breed messages without end", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const [first] = others(group) as [SimulatedNode];
  const { seq } = leader.replica!.state;
  let messages = 0;
  group.isLost = ({ to, body }) => {
    if (body !== undefined) messages++;
    return to === first.nodeId && body?.kind === "append" && body.seq === seq + 1;
  };
  for (let i = 0; i < 20; i++) group.write("a", `${i}`);
  group.run(1000);
  t.ok(messages < 2500, `${messages} messages`);
  group.isLost = () => false;
  group.run(1000);
  t.equal(first.replica?.state.seq, leader.replica?.state.seq);
  t.end();
});

test("batches in flight never outgrow the window: who misses one is sent it again", (t) => {
  const group = new CalmGroup(3, { windowBytes: 5000 });
  const { leader } = group;
  group.isLost = ({ body }) => body?.kind === "append";
  for (let i = 0; i < 8; i++) {
    group.ask(leader, put(`k${i}`, "x".repeat(2000)));
    group.run(5);
  }
  let isOffered = false;
  group.isLost = ({ body }) => {
    isOffered ||= body?.kind === "offer";
    return false;
  };
  group.run(2000);
  t.equal(isOffered, false, "nobody has to be made identical anew");
  t.equal(textOf(group.answer(leader, { kind: "get", keys: ["k7"] })), "x".repeat(2000));
  t.end();
});

test("who was told no is told yes once the last one misses the leader too: one canvass is enough", (t) => {
  const group = new CalmGroup(3);
  const { leader } = group;
  const [first, second] = others(group) as [SimulatedNode, SimulatedNode];
  let canvasses = 0;
  group.isLost = ({ body }) => {
    if (body?.kind === "canvass") canvasses++;
    return false;
  };
  leader.crash();
  first.suspect(leader.nodeId);
  group.run(1000, () => canvasses > 0);
  group.run(50);
  t.equal(first.replica?.standingBallot, undefined, "the other one hears the leader still");
  const asked = canvasses;
  second.suspect(leader.nodeId);
  // The answer, a promise that is synced on both sides, and a base: far below the shortest wait of a new attempt.
  group.run(20);
  t.equal(group.leader, first);
  t.equal(canvasses, asked);
  t.end();
});
