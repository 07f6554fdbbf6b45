/** How leadership passes on: by agreement in two rounds, and to one of several that try at the same time. */
import { test } from "tap";
import type { Body } from "../../src/replication/message.ts";
import type { Operation } from "../../src/replication/register.ts";
import { CalmGroup, put } from "../simulation/replication-calm-group.ts";
import type { Packet, SimulatedNode } from "../simulation/replication-node.ts";

const read: Operation = { kind: "get", keys: ["a"] };

/** Lets the leader go; the rest of the group, in ring order. */
function goes(group: CalmGroup): {
  leader: SimulatedNode;
  successor: SimulatedNode;
  followers: SimulatedNode[];
} {
  const { leader } = group;
  const others = group.nodes.filter((node) => node !== leader);
  // Or it would be given back at once.
  for (const node of group.nodes) node.wish = [...others, leader].map(({ nodeId }) => nodeId);
  leader.within(() => leader.replica?.handOver(leader.nowMs()));
  return { leader, successor: others[0]!, followers: others.slice(1) };
}

/** A group whose leader is dead, and whose canvasses get nowhere by themselves. */
function canvassing() {
  const group = new CalmGroup(5);
  group.write("a", "1");
  group.run(100);
  const sent: Packet[] = [];
  group.isLost = (packet) => {
    sent.push(packet);
    return packet.body?.kind === "canvass";
  };
  group.crash(group.leader);
  const says = (from: SimulatedNode, to: SimulatedNode, body: Body) =>
    to.receive({
      from: from.nodeId,
      incarnation: from.incarnation,
      to: to.nodeId,
      content: { kind: "body", fromReplica: from.replica!.id, toReplica: to.replica!.id, body },
    });
  /** What a node has answered to canvasses since it was last asked for. */
  const told = (node: SimulatedNode): string[] => {
    const answers = sent.flatMap(({ from, to, content }) =>
      from === node.nodeId && content.kind === "body" && content.body.kind === "would"
        ? [`${to} ${content.body.yes ? "yes" : "no"}`]
        : [],
    );
    sent.length = 0;
    return answers;
  };
  return { group, says, told, sent };
}

test("a change that comes during a hand-over is done after three messages and two writes in a row, and a round", (t) => {
  const group = new CalmGroup(5);
  group.write("a", "1");
  group.run(100);

  const { leader, successor } = goes(group);
  const begunMs = group.nowMs();
  t.match(group.answer(leader, put("a", "2")), { code: "NOT_LEADER" }, "it knows better whom to ask");
  t.equal(leader.replica?.leaderHint, successor.replica?.id);
  t.match(group.answer(successor, put("a", "2")), { code: "NOT_LEADER" }, "it does not know of it yet");
  group.run(1);
  const change = group.ask(successor, put("a", "3"));
  const reading = group.ask(successor, read);
  group.run(100, () => group.answers.has(change));

  t.match(group.answers.get(change), { kind: "written" });
  // A message takes 1 ms, a write 2: told, promised, promise, offer with the batch, accepted and appended, told.
  t.equal(group.nowMs() - begunMs, 8);
  t.equal(group.leader, successor);
  group.run(20);
  t.match(group.answers.get(reading), { kind: "entries", entries: [{ value: Buffer.from("3") }] });
  t.same(group.complaints, []);
  t.end();
});

test("a leader that goes serves until nothing is under way, and keeps what comes until its successor is told", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  group.run(100);
  const slow = group.nodes[1]!;
  group.isLost = ({ to, body }) => to === slow.nodeId && body?.kind === "append";

  const first = group.ask(group.leader, put("a", "2"));
  group.run(0);
  const { leader, successor } = goes(group);
  t.equal(successor, slow);
  group.run(20);
  t.match(group.answers.get(first), { kind: "written" }, "by the other majority");
  t.match(group.answer(leader, put("b", "1")), { kind: "written" }, "its successor is not level yet");
  group.run(90);
  t.equal(leader.replica?.servingBallot, undefined, "it does not wait for that for long");
  const kept = group.ask(leader, put("b", "2"));
  group.run(20);
  t.notOk(group.answers.has(kept));

  group.isLost = () => false;
  group.run(300);
  t.match(group.answers.get(kept), { code: "NOT_LEADER" });
  t.equal(group.leader, successor);
  t.match(group.answer(successor, put("b", "2")), { kind: "written" });
  t.end();
});

test("a successor stands when it is promised what it never asked for, if the word to do so is late", (t) => {
  const group = new CalmGroup(5);
  group.write("a", "1");
  group.run(100);
  group.isLost = ({ body }) => body?.kind === "lead";

  const { successor } = goes(group);
  group.run(20);

  t.equal(group.leader, successor);
  t.match(group.write("a", "2"), { kind: "written" });
  t.end();
});

test("a leader whose successor never stands goes on, with what came meanwhile", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  group.run(100);
  group.isLost = ({ body }) => body?.kind === "lead" || body?.kind === "yield";

  const { leader } = goes(group);
  group.run(300);
  t.equal(leader.replica?.servingBallot, undefined);
  group.run(400);

  t.equal(group.leader, leader);
  t.match(group.write("a", "2"), { kind: "written" });
  t.end();
});

test("what comes to one that stands waits, and is sent on when it gives up", (t) => {
  const group = new CalmGroup(3);
  group.write("a", "1");
  group.run(100);
  group.isLost = ({ body }) => body?.kind === "promise";
  group.crash(group.leader);
  const standing = () => group.nodes.find((node) => node.isUp && node.replica?.standingBallot !== undefined);
  group.run(1000, () => standing() !== undefined);
  const candidate = standing()!;
  const denied = group.ask(candidate, put("a", "2"));
  group.run(50);
  t.notOk(group.answers.has(denied), "it waits");
  group.run(2000, () => group.answers.has(denied));
  t.match(group.answers.get(denied), { code: "NOT_LEADER" });
  t.end();
});

test("whoever canvasses first has the yes to itself until it gives up", (t) => {
  const { group, says, told } = canvassing();
  const [first, second, voter] = group.nodes.filter((node) => node.isUp) as [
    SimulatedNode,
    SimulatedNode,
    SimulatedNode,
  ];
  const round = voter.replica!.state.promised.round + 1;
  const canvass = (node: SimulatedNode): Body => ({
    kind: "canvass",
    ballot: { round, replicaId: node.replica!.id },
  });

  says(first, voter, canvass(first));
  says(second, voter, canvass(second));
  t.same(told(voter), [`${first.nodeId} yes`, `${second.nodeId} no`]);
  says(first, voter, { kind: "stopped", ballot: { round, replicaId: first.replica!.id } });
  t.same(told(voter), [`${second.nodeId} yes`], "it need not ask again");
  says(first, voter, canvass(first));
  t.same(told(voter), [`${first.nodeId} no`]);
  t.end();
});

test("of two that canvass the lesser gives way, and frees those that favoured it", (t) => {
  const { group, says, told, sent } = canvassing();
  group.run(1000, () =>
    sent.some(({ content }) => content.kind === "body" && content.body.kind === "canvass"),
  );
  const candidate = group.nodes.find(({ nodeId }) => nodeId === sent.at(-1)?.from)!;
  const other = group.nodes.find((node) => node.isUp && node !== candidate)!;
  const { round } = candidate.replica!.state.promised;
  told(candidate);
  const canvass = (ahead: number): Body => ({
    kind: "canvass",
    ballot: { round: round + ahead, replicaId: other.replica!.id },
  });

  says(other, candidate, canvass(0));
  t.same(told(candidate), [`${other.nodeId} no`]);
  sent.length = 0;
  says(other, candidate, canvass(2));
  const freed = sent.filter(({ content }) => content.kind === "body" && content.body.kind === "stopped");
  t.equal(freed.length, 4, "all others are told");
  t.same(told(candidate), [`${other.nodeId} yes`]);
  t.end();
});

/** A group without two of its five, the leader being one of them, and whose last member alone got the last batch. */
function unequal(): { group: CalmGroup; knowing: SimulatedNode } {
  const group = new CalmGroup(5);
  group.write("a", "1");
  group.run(100);
  const knowing = group.nodes.at(-1)!;
  group.isLost = ({ to, body }) => to !== knowing.nodeId && body?.kind === "append";
  group.ask(group.leader, put("a", "2"));
  group.run(5);
  group.crash(group.node(3));
  return { group, knowing };
}

test("one that stands lets the one lead that holds the best state", (t) => {
  const { group, knowing } = unequal();
  const stood = new Set<string>();
  group.isLost = ({ from, body }) => {
    if (body?.kind === "prepare") stood.add(from);
    return false;
  };
  group.crash(group.leader);
  group.run(100, () => group.nodes.some((node) => node.isUp && node.replica?.servingBallot !== undefined));

  t.same([...stood], ["n1", knowing.nodeId], "by its rank it would have tried last");
  t.equal(group.leader, knowing);
  t.match(group.answer(knowing, read), { kind: "entries", entries: [{ value: Buffer.from("2") }] });
  t.end();
});

test("the best state is fetched when the one that holds it does not stand", (t) => {
  const { group, knowing } = unequal();
  group.isLost = ({ from, to, body }) =>
    (to === knowing.nodeId && body?.kind === "lead") ||
    body?.kind === "yield" ||
    (from === knowing.nodeId && body?.kind === "prepare");
  group.crash(group.leader);
  group.run(1000, () => group.nodes.some((node) => node.isUp && node.replica?.servingBallot !== undefined));

  t.not(group.leader, knowing);
  t.match(group.answer(group.leader, read), { kind: "entries", entries: [{ value: Buffer.from("2") }] });
  t.end();
});

test("of two that stand at the same time the greater is followed, until the base of one is taken over", (t) => {
  const group = new CalmGroup(5);
  group.write("a", "1");
  group.run(100);
  const { round } = group.leader.replica!.state.promised;
  // Nobody gets as far as a base.
  group.isLost = ({ body }) => body?.kind === "offer" || body?.kind === "canvass";
  group.crash(group.leader);
  const [lesser, greater, voter] = group.nodes.filter((node) => node.isUp) as [
    SimulatedNode,
    SimulatedNode,
    SimulatedNode,
  ];
  const prepare = (from: SimulatedNode): Body => {
    const ballot = { round: round + 1, replicaId: from.replica!.id };
    const body: Body = { kind: "prepare", ballot, handOver: null };
    voter.receive({
      from: from.nodeId,
      incarnation: from.incarnation,
      to: voter.nodeId,
      content: { kind: "body", fromReplica: from.replica!.id, toReplica: voter.replica!.id, body },
    });
    return body;
  };

  prepare(lesser);
  t.equal(voter.replica?.state.promised.replicaId, lesser.replica?.id);
  prepare(greater);
  t.equal(voter.replica?.state.promised.replicaId, greater.replica?.id, "the lesser is heard, and left");
  prepare(lesser);
  t.equal(voter.replica?.state.promised.replicaId, greater.replica?.id);

  const { replica } = voter;
  const ballot = { round: round + 1, replicaId: greater.replica!.id };
  voter.within(() =>
    replica?.step(
      ballot.replicaId,
      { kind: "offer", ballot, seq: 0, reach: 0, root: new Uint8Array(16) },
      voter.nowMs(),
    ),
  );
  const later = { round: round + 2, replicaId: lesser.replica!.id };
  voter.within(() =>
    replica?.step(later.replicaId, { kind: "prepare", ballot: later, handOver: null }, voter.nowMs()),
  );
  t.same(replica?.state.promised, ballot, "one that is being made level has a leader");
  t.end();
});
