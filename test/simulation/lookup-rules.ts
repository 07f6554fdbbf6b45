/** Lookups: each rule with how it is broken and where that shows. */
import { at, EIGHT, member, ownerOf, type Rule, settled } from "./ring-schedule.ts";

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
