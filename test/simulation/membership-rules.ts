/** How nodes come, go and come back: each rule with how it is broken and where that shows. */
import { at, EIGHT, first, hears, listOf, member, PING, type Rule, settled } from "./ring-schedule.ts";

export const MEMBERSHIP_RULES: readonly Rule[] = [
  {
    rule: "a joiner takes the whole list of its successor, which may die at once",
    file: "joining.ts",
    changes: [["this.#enter([found.owner, ...successors])", "this.#enter([found.owner])"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8", "a", "c"], 3);
      const joiner = simulator.join(at("3"), [member("a")]);
      simulator.runUntil(() => joiner.ring.isMember, 5000, 1);
      simulator.crash(at("4"));
      return simulator.invalidity();
    },
  },
  {
    rule: "one that has not joined yet is nobody's neighbour",
    file: "reception.ts",
    changes: [
      [
        "if (parts.isMember()) this.#tellNeighbours(from, message.id);",
        "if (from) this.#tellNeighbours(from, message.id);",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 2);
      simulator.join(at("3"), [member("e")]);
      simulator.tell(member("8"), at("1"), { kind: "hint", node: member("3") });
      simulator.run(100);
      return first(simulator, "1") === at("4") ? undefined : "1 follows 3, which is in no ring";
    },
  },
  {
    rule: "a later start has no place in the ring before it has joined",
    file: "starts.ts",
    changes: [['before.instance === "" || before.incarnation === known.incarnation', "before !== undefined"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.crash(at("4"));
      simulator.tell({ ...member("4"), incarnation: 2, instance: "2" }, at("1"), PING);
      simulator.run(100);
      return first(simulator, "1") === at("6") ? undefined : "1 follows a start of 4 that is in no ring";
    },
  },
  {
    rule: "who said goodbye is not brought back by a list that still goes round",
    file: "address-book.ts",
    changes: [
      ["if (left !== undefined && left >= member.incarnation) return undefined;", ""],
      [" || this.hasLeft(member.nodeId, member.incarnation);", ";"],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.leave(at("4"));
      simulator.run(150);
      hears(simulator, { from: "1", predecessor: "8", successors: ["4", "6", "8"] });
      const list = listOf(simulator, "8");
      return list.includes("4") ? `the list of 8 is ${list}` : undefined;
    },
  },
  {
    rule: "who leaves tells its neighbours who stood around it",
    file: "ring-parts.ts",
    changes: [["this.stabilisation.left(from.nodeId, message, this.#owner.nowMs());", ""]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      simulator.leave(at("3"));
      simulator.runUntil(() => simulator.node(at("1")).ring.isSuspected(at("3")), 100, 1);
      simulator.crash(at("5"));
      return simulator.invalidity();
    },
  },
  {
    rule: "two that come at once get different places",
    file: "reservations.ts",
    changes: [["if (unknown.length > 0) return { ok: false, taken: unknown };", ""]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "8"], 8);
      const points: unknown[] = [];
      for (const name of ["1", "4"])
        simulator.choose(simulator.node(at(name)), (point) => points.push(point));
      simulator.run(1000);
      return points[0] !== points[1] ? undefined : `both are to stand at ${String(points[0]).slice(0, 6)}`;
    },
  },
  {
    rule: "a node with an identity that finds no member becomes a ring of its own",
    file: "joining.ts",
    changes: [["if (nowMs >= this.#aloneMs) {", "if (nowMs < 0) {"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4"], 8);
      for (const name of ["1", "4"]) simulator.crash(at(name));
      const { ring } = simulator.restart(at("1"));
      simulator.run(4000);
      return ring.isMember ? undefined : "after a full stop nobody is a ring for the others to join";
    },
  },
  {
    rule: "of two processes with one incarnation only the one heard first is the node",
    file: "starts.ts",
    changes: [['return from.instance === "" || from.instance === known.instance;', "return true;"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.crash(at("4"));
      for (let i = 0; i < 40; i++) {
        for (const name of ["1", "6", "8"]) {
          simulator.tell({ ...member("4"), instance: "copy" }, at(name), PING);
        }
        simulator.run(50);
      }
      return simulator.node(at("1")).ring.isSuspected(at("4")) ? undefined : "a copy kept the dead 4 alive";
    },
  },
  {
    rule: "a restarted node that hears of a ring waits to get in, and founds none beside it",
    file: "joining.ts",
    changes: [
      ["if (![...this.#underWay].some((isAnswered) => isAnswered())) {", "{"],
      ["if (isAnswered) this.#aloneMs = Number.POSITIVE_INFINITY;", ""],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.crash(at("4"));
      simulator.run(2000);
      // All name 6 as the owner, which keeps silent; one asked again has a slow lookup.
      simulator.oracle = (to, message) =>
        message.kind === "closest" && to !== at("6")
          ? {
              kind: "closer",
              id: message.id,
              owner: member("6"),
              successors: [],
              predecessor: null,
              next: [],
              unsettled: false,
            }
          : undefined;
      const { ring } = simulator.restart(at("4"));
      simulator.run(4000);
      return ring.isMember ? "4 became a ring of its own" : undefined;
    },
  },
];
