/** Lookups: each rule with how it is broken and where that shows. */
import type { NodeId } from "../../src/ring/identifier.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import { at, EIGHT, first, member, ownerOf, type Rule, settled } from "./ring-schedule.ts";

export const LOOKUP_RULES: readonly Rule[] = [
  {
    rule: "only the owner's own answer ends a lookup",
    file: "lookup.ts",
    changes: [
      [
        "this.#claims.push({ member: answer.owner, path: step.path });\n    } else if",
        "this.#finish({ owner: answer.owner, successors: answer.successors, predecessor: undefined, hops: 1, path: step.path });\n    } else if",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      simulator.crash(at("9"));
      const owner = ownerOf(simulator, "1", "85");
      return owner === undefined || owner === at("b")
        ? undefined
        : `named ${owner.slice(0, 1)}, which is dead`;
    },
  },
  {
    rule: "one lost message does not pass an owner's points on to the next node",
    file: "lookup.ts",
    changes: [["claimed && answer === undefined && asked + 1 < ASKED_MAX", "asked < 0"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      simulator.cut(at("9"), at("1"));
      simulator.at(simulator.nowMs + 40, () => simulator.heal());
      const owner = ownerOf(simulator, "1", "85");
      return owner === at("9") ? undefined : `named ${owner?.slice(0, 1)}, but 9 lives`;
    },
  },
  {
    rule: "a slow step of a lookup does not keep it waiting: the next candidate is asked beside it",
    file: "lookup.ts",
    changes: [["nowMs < this.#slowAtMs ||", "nowMs > 0 ||"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, [..."0123456789abcdef"], 2);
      // There and back takes 200 ms: before that nothing is answered, nor given up.
      Object.assign(simulator.network, { delayMsMin: 100, delayMsMax: 100 });
      simulator.run(20_000);
      const asked = new Set<NodeId>();
      simulator.oracle = (to, message) => {
        if (message.kind === "closest" && message.point === at("c8")) asked.add(to);
        return undefined;
      };
      simulator.lookup(simulator.node(at("1")), at("c8"), () => {});
      simulator.run(190);
      return asked.size === 2 ? undefined : `${asked.size} were asked within 190 ms, not 2`;
    },
  },
  {
    rule: "a node whose whole list is dead names nobody, itself least of all",
    file: "routing.ts",
    changes: [["!this.#state.isMember() || !stabilisation.hasLiveSuccessor", "!this.#state.isMember()"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      const { ring } = simulator.node(at("1"));
      simulator.split((nodeId) => nodeId === at("1"));
      simulator.runUntil(() => ["3", "5", "f"].every((name) => ring.isSuspected(at(name))), 5000, 1);
      const said: string[] = [];
      simulator.oracle = (to, message) => {
        if (to === at("9")) said.push(message.kind);
        return undefined;
      };
      const question: RingMessage = { kind: "closest", id: 1, point: at("8"), avoid: [], claimed: true };
      simulator.tell(member("9"), at("1"), question);
      return said.includes("refusal")
        ? undefined
        : `1 says ${said.join(" and ")} to 9, of whose part it knows nothing`;
    },
  },
  {
    rule: "a node whose whole list is dead remembers whoever asks it: a stranger may be all that is left",
    file: "reception.ts",
    changes: [["parts.learn(asker) ?? asker", "asker"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "3", "5"], 2);
      const { sender } = simulator.bootstrap(at("8"));
      const { ring } = simulator.node(at("1"));
      for (const name of ["3", "5"]) simulator.crash(at(name));
      simulator.runUntil(() => ["3", "5"].every((name) => ring.isSuspected(at(name))), 5000, 1);
      simulator.tell(sender, at("1"), { kind: "closest", id: 1, point: at("7"), avoid: [], claimed: false });
      simulator.run(3000);
      return first(simulator, "1") === at("8") ? undefined : "1 stays alone, though 8 asked it";
    },
  },
  {
    rule: "whoever asks a node whose whole list is dead does not take the place of the living in between",
    file: "stabilisation.ts",
    changes: [
      [
        "const first = this.successors.first;\n    return",
        "const first = this.successors.members.find((one) => !this.#routes.isDead(one));\n    return",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      const { ring } = simulator.node(at("1"));
      for (const name of ["3", "5"]) simulator.crash(at(name));
      simulator.runUntil(() => ["3", "5"].every((name) => ring.isSuspected(at(name))), 5000, 1);
      const question: RingMessage = { kind: "closest", id: 1, point: at("e"), avoid: [], claimed: false };
      simulator.tell(member("d"), at("1"), question);
      simulator.runUntil(() => first(simulator, "1") !== at("3"), 5000, 1);
      const next = first(simulator, "1");
      return next === at("7") ? undefined : `1 follows ${next?.slice(0, 1)}, though 7 lives`;
    },
  },
  {
    rule: "a point before its live predecessor is not an owner's, whoever named it",
    file: "routing.ts",
    changes: [
      [
        "before === undefined ? claimed || isLast : inArc(",
        "claimed || isLast || before === undefined ? true : inArc(",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, EIGHT, 2);
      // 7 hears nothing of 9, and so never of 8, which joins between them.
      simulator.cut(at("9"), at("7"));
      simulator.join(at("8"), [member("b")]);
      simulator.runUntil(() => simulator.node(at("9")).ring.predecessor?.nodeId === at("8"), 5000, 1);
      const owner = ownerOf(simulator, "d", "78");
      return owner === undefined || owner === at("8") ? undefined : `named ${owner.slice(0, 1)}, not 8`;
    },
  },
];
