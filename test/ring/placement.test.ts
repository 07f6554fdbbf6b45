/** Where copies stand: no two in one zone while there are others. */
import assert from "node:assert/strict";
import { test } from "tap";
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import { placementOf } from "../../src/ring/placement.ts";
import { RingSimulator } from "../simulation/ring-simulator.ts";

const seed = Number(process.env.SEED ?? 1);
const at = (digits: string) => digits.padEnd(40, "0") as NodeId;
const NOBODY: ReadonlySet<string> = new Set();

/** "1a 2 3b": node 1 in zone a, 2 in none, 3 in b. */
function nodes(text: string): Member[] {
  return text.split(" ").map((word) => ({
    nodeId: at(word.slice(0, 1)),
    address: { host: "127.0.0.1", port: 7443 },
    zone: word.slice(1),
    incarnation: 1,
    instance: "1",
  }));
}

const names = (members: readonly Member[] | undefined) =>
  members?.map(({ nodeId }) => nodeId.slice(0, 1)).join(" ");

test("zones that have a copy are passed over while there are others", async () => {
  const cases: [order: string, count: number, chosen: string][] = [
    ["1 2 3 4 5", 3, "1 2 3"],
    ["1a 2b 3c 4a", 3, "1 2 3"],
    ["1a 2a 3b 4b 5c", 3, "1 3 5"],
    // Too few zones: the nearest of the others come in, and all stand in ring order.
    ["1a 2a 3a 4b 5b", 3, "1 2 4"],
    ["1a 2a 3a", 3, "1 2 3"],
    ["1a 2a", 3, "1 2"],
    // Evenly: the loss of zone a must not take three of five.
    ["1a 2a 3a 4b 5c 6b", 5, "1 2 4 5 6"],
    ["1a 2a 3a 4a 5b", 4, "1 2 3 5"],
    // Nobody knows where they stand: each for itself.
    ["1 2a 3a 4", 3, "1 2 4"],
  ];
  for (const [order, count, chosen] of cases) {
    assert.equal(names(placementOf(nodes(order), count)), chosen, `${count} of ${order}`);
  }
});

test("a ring places copies by the zones that its members tell, and says when that has changed", async () => {
  const simulator = new RingSimulator({ seed });
  const contact = simulator.bootstrap(at("1"));
  for (const name of ["3", "5", "7", "9"]) {
    simulator.join(at(name), [contact.member]);
    simulator.run(2000);
  }
  const { ring } = simulator.node(at("1"));
  const placed = (except = NOBODY) => names(ring.placement(at("2"), 3, except));
  assert.equal(placed(), "3 5 7");
  const tell = (name: string, zone: string) => {
    const ping: RingMessage = { kind: "ping", id: 1, load: 0, led: new Uint8Array(0), zone, around: 0 };
    return ring.step(simulator.node(at(name)).member, ping, simulator.nowMs);
  };
  tell("3", "rack 1");
  const effects = tell("5", "rack 1");
  assert.ok(effects.some(({ kind }) => kind === "changed"));
  assert.equal(placed(), "3 7 9");
  assert.equal(placed(new Set([at("3")])), "5 7 9", "who is to go keeps no zone");
  assert.equal(placed(new Set([at("3"), at("7")])), "5 9 1");
  assert.equal(
    tell("5", "rack 1").some(({ kind }) => kind === "changed"),
    false,
    "told once",
  );
});

test("a view that does not reach to enough nodes places nothing", async () => {
  const simulator = new RingSimulator({ seed, successors: 3 });
  const contact = simulator.bootstrap(at("1"));
  for (const name of ["3", "5", "7", "9", "b", "d"]) {
    simulator.join(at(name), [contact.member]);
    simulator.run(2000);
  }
  const { ring } = simulator.node(at("1"));
  assert.equal(names(ring.placement(at("2"), 3, NOBODY)), "3 5 7");
  assert.equal(ring.placement(at("2"), 3, new Set([at("5")])), undefined);
  assert.equal(ring.placement(at("8"), 1, NOBODY), undefined);
});
