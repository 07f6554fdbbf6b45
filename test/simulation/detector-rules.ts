/** Who is dead, who merely silent: each rule with how it is broken and where that shows. */

import { at, type Rule, settled } from "./ring-schedule.ts";
import type { RingSimulator } from "./ring-simulator.ts";

export const DETECTOR_RULES: readonly Rule[] = [
  {
    rule: "nobody is suspected whom others still reach",
    file: "failure-detector.ts",
    changes: [["    if (isAlive) {\n      this.#lives(peer, nowMs);", "    if (isAlive) {"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.cut(at("1"), at("4"));
      simulator.cut(at("4"), at("1"));
      simulator.run(5000);
      return suspicionOf(simulator, "4");
    },
  },
  {
    rule: "silence alone does not suspect: others are asked first",
    file: "failure-detector.ts",
    changes: [
      [
        "if (silence >= silentMs) this.#startProbing(peer, nowMs);",
        "if (silence >= silentMs) this.#suspect(peer);",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.cut(at("4"), at("1"));
      simulator.run(900);
      return suspicionOf(simulator, "4");
    },
  },
  {
    rule: "silence of one that was not asked says nothing: it counts from just before the first ping",
    file: "failure-detector.ts",
    changes: [
      [
        "return this.isAsked ? Math.max(this.heardMs, this.askedMs - ASKED_AFTER_MS) : Number.POSITIVE_INFINITY;",
        "return this.heardMs;",
      ],
    ],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      const heardMsAgo = () =>
        simulator
          .node(at("1"))
          .ring.watched(simulator.nowMs)
          .find(({ nodeId }) => nodeId === at("4"))!.lastHeardMsAgo;
      // As long as it can be without a word at rest; then it stands still for less than a suspicion takes.
      // More than once: a word may be on its way when it begins to.
      for (let i = 0; i < 5; i++) {
        simulator.runUntil(() => heardMsAgo() >= 370, 20_000, 1);
        simulator.pause(at("4"), 900);
        simulator.run(2000);
      }
      return suspicionOf(simulator, "4", "1");
    },
  },
  {
    rule: "one that speaks but answers nothing is unreachable: others are asked before it",
    file: "failure-detector.ts",
    changes: [["return peer.failures < UNREACHABLE_FAILURES || ", "return peer.failures >= 0 || "]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.cut(at("1"), at("4"));
      simulator.run(4000);
      const { ring } = simulator.node(at("1"));
      if (ring.isReachable(at("4"))) return "4 counts as reachable, though it answers nothing";
      return ring.successors[0]?.nodeId === at("4") ? suspicionOf(simulator, "4") : "4 lost its place";
    },
  },
  {
    rule: "a node that stood still itself suspects nobody for what it did not hear",
    file: "own-clock.ts",
    changes: [["return gapMs <= LATE_MS", "return gapMs >= 0"]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      const { ring } = simulator.node(at("1"));
      let { nowMs } = simulator;
      // A process that is starved: between two gaps it reads nothing.
      for (const gapMs of [900, 500, 450, 1300]) {
        nowMs += gapMs;
        for (const effect of ring.tick(nowMs)) {
          if (effect.kind === "suspected") return `1 suspects ${effect.nodeId.slice(0, 1)}`;
        }
      }
      return undefined;
    },
  },
  {
    rule: "a process whose system refuses connections is dead at once",
    file: "failure-detector.ts",
    changes: [["if (peer.isDead && !peer.isSuspected) this.#suspect(peer);", ""]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.network.isRefusing = true;
      simulator.crash(at("4"));
      simulator.run(600);
      const missing = ["1", "6", "8"].find((name) => !simulator.node(at(name)).ring.isSuspected(at("4")));
      return missing && `${missing} waits for 4 to speak`;
    },
  },
  {
    rule: "a connection that ends has its other end pinged at once",
    file: "failure-detector.ts",
    changes: [["    peer.closedMs = nowMs;\n    this.#reset();\n", "    return;\n"]],
    schedule: (ringClass, seed) => {
      // At several times between two pings: whose turn comes just then needs no connection to end.
      for (let afterMs = 0; afterMs < 800; afterMs += 50) {
        const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
        simulator.run(afterMs);
        simulator.network.isRefusing = true;
        simulator.crash(at("4"));
        simulator.run(150);
        const missing = ["1", "6", "8"].find((name) => !simulator.node(at(name)).ring.isSuspected(at("4")));
        if (missing !== undefined) return `${missing} waits for its turn to ping 4`;
      }
      return undefined;
    },
  },
  {
    rule: "a suspected node that speaks is alive again",
    file: "failure-detector.ts",
    changes: [["    peer.isSuspected = false;\n", ""]],
    schedule: (ringClass, seed) => {
      const simulator = settled(ringClass, seed, ["1", "4", "6", "8"], 8);
      simulator.pause(at("4"), 2000);
      simulator.run(1900);
      if (!simulator.node(at("1")).ring.isSuspected(at("4"))) return "4 stood still unnoticed";
      simulator.run(300);
      return simulator.node(at("1")).ring.isSuspected(at("4")) ? "4 speaks, and stays suspected" : undefined;
    },
  },
];

function suspicionOf(simulator: RingSimulator, name: string, by?: string): string | undefined {
  const wrong = simulator.suspicions.find(
    (one) => one.of === at(name) && (by === undefined || one.by === at(by)),
  );
  return wrong && `${wrong.by.slice(0, 1)} suspects ${name}, which lives`;
}
