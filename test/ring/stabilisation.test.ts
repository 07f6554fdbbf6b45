import assert from "node:assert/strict";
import { test } from "tap";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import type { Neighbourhood } from "../../src/ring/message.ts";
import { Stabilisation } from "../../src/ring/stabilisation.ts";

const member = (digits: string): Member => ({
  nodeId: digits.padEnd(40, "0") as NodeId,
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation: 1,
  instance: "1",
});
const [self, follower, next] = [member("1"), member("4"), member("8")] as const;

type Asked = (answer: Neighbourhood | undefined, nowMs: number) => void;

/**
 * Node 1 behind 4, which has answered its first question at 0 ms with its picture number 7.
 *
 * @param dead those that node 1 takes for dead.
 */
function standing(dead: ReadonlySet<Member> = new Set()): {
  stabilisation: Stabilisation;
  asked: Asked[];
  answer: Neighbourhood;
} {
  const asked: Asked[] = [];
  const stabilisation = new Stabilisation(self, 2, {
    askNeighbours: (_, done) => asked.push(done),
    send: () => {},
    isDead: (one) => dead.has(one),
    current: (known) => known,
    isReachable: () => true,
    isWatched: () => true,
    isPinged: () => false,
    learn: (known) => known,
    lastResorts: () => [],
    changed: () => {},
  });
  const answer: Neighbourhood = {
    kind: "neighbourhood",
    id: 1,
    around: 7,
    predecessor: self,
    successors: [next, self],
  };
  stabilisation.enter([follower, next, self], 0);
  stabilisation.tick(0);
  asked.shift()!(answer, 0);
  return { stabilisation, asked, answer };
}

test("while the first successor tells the number of the picture that is known, it is asked every 2 s", async () => {
  const { stabilisation, asked } = standing();

  for (let nowMs = 400; nowMs < 2000; nowMs += 400) {
    stabilisation.told(follower, 7, nowMs);
    stabilisation.tick(nowMs);
    assert.equal(asked.length, 0, `asked at ${nowMs} ms`);
  }

  stabilisation.told(follower, 7, 2000);
  assert.equal(stabilisation.dueMs, 2000);
  stabilisation.tick(2000);
  assert.equal(asked.length, 1);
});

test("another number, and a word of its own that something changed, are not put off by pings that follow", async () => {
  for (const event of ["number", "hint", "late hint", "number of one that started again"] as const) {
    const { stabilisation, asked } = standing();
    stabilisation.told(follower, 7, 400);
    assert.equal(stabilisation.dueMs, 900);
    // A round that time alone made due may be overdue by a tick when the word arrives.
    const nowMs = event === "late hint" ? 905 : 420;

    if (event === "number") stabilisation.told(follower, 8, nowMs);
    else if (event === "number of one that started again") {
      stabilisation.renew({ ...follower, incarnation: 2, instance: "2" });
      stabilisation.soon(nowMs);
      stabilisation.told({ ...follower, incarnation: 2, instance: "2" }, 7, nowMs);
    } else stabilisation.hinted(follower, nowMs);
    stabilisation.told(follower, 7, nowMs + 5);

    assert.ok(stabilisation.dueMs <= nowMs, `${event}: due only at ${stabilisation.dueMs} ms`);
    stabilisation.tick(nowMs + 5);
    assert.equal(asked.length, 1, event);
  }
});

test("a list that changed since the last answer is asked for, whatever the pings say", async () => {
  const { stabilisation, asked, answer } = standing();
  stabilisation.consider(member("2"));
  asked.shift()!({ ...answer, around: 3, predecessor: self, successors: [follower, next] }, 450);

  stabilisation.told(follower, 7, 460);
  stabilisation.told(member("2"), 3, 460);

  stabilisation.tick(500);
  assert.equal(asked.length, 1);
});

test("a picture of which one was left out as dead is asked for again, although its number stays", async () => {
  const dead = new Set([next]);
  const { stabilisation, asked, answer } = standing(dead);
  assert.deepEqual(stabilisation.successors.members, [follower]);

  // The verdict lapses without a word: nobody watches a node that stands in no list.
  dead.clear();
  stabilisation.told(follower, 7, 400);
  stabilisation.tick(500);
  assert.equal(asked.length, 1);
  asked.shift()!(answer, 501);
  assert.deepEqual(stabilisation.successors.members, [follower, next]);

  // Taken in whole, it holds again as long as the number does.
  stabilisation.soon(600);
  stabilisation.tick(600);
  asked.shift()!(answer, 601);
  stabilisation.told(follower, 7, 1000);
  stabilisation.tick(1100);
  assert.equal(asked.length, 0);
});

test("the number grows with each neighbour that is another one, and only then", async () => {
  const { stabilisation } = standing();
  const first = stabilisation.around;
  assert.equal(stabilisation.around, first);

  stabilisation.rectify(next, 100);
  assert.equal(stabilisation.around, first + 1);
  stabilisation.rectify(next, 200);
  assert.equal(stabilisation.around, first + 1);
  stabilisation.renew({ ...next, zone: "elsewhere" });
  assert.equal(stabilisation.around, first + 1);
  stabilisation.renew({ ...next, incarnation: 2, instance: "2" });
  assert.equal(stabilisation.around, first + 2);
});
