/**
 * Schedules that lead a simulated group, again and again and never twice the same
 * way, to where something particular may go wrong: the scenarios that must hold
 * by number, and the few situations in which a rule of the protocol matters.
 */

import { nodeOf } from "../../src/replication/ballot.ts";
import { calmWeather } from "./replication-misfortune.ts";
import type { SimulatedNode } from "./replication-node.ts";
import type { ReplicationSimulator } from "./replication-simulator.ts";

export interface Story {
  readonly name: string;
  /** Of the agreed scenarios. */
  readonly row?: number;
  readonly text: string;
  /** Replicas a group. */
  readonly factor: number;
  begin(world: ReplicationSimulator): void;
}

const SERVICE_MS = 6_000;

interface PromiseScene {
  readonly leader: SimulatedNode;
  readonly stands: SimulatedNode;
  readonly promises: SimulatedNode;
  /** The promise is lost with the power; else it is what was written before it that matters. */
  readonly isLost: boolean;
  isBegun: boolean;
  isPromised: boolean;
}

export const STORIES: readonly Story[] = [
  {
    name: "one killed",
    row: 1,
    text: "one server is killed under load, mostly the leader, and comes back",
    factor: 5,
    begin: (world) =>
      every(world, 2500, () => {
        const node = leaderOr(world, 0.7);
        world.crash(node, 300 + world.random() * 1500);
        world.expectService(SERVICE_MS);
      }),
  },
  {
    name: "two killed",
    row: 2,
    text: "two are killed at the same moment, for good",
    factor: 5,
    begin: (world) =>
      once(world, () => {
        for (const node of some(world, 2, 0.7)) world.crash(node, Number.POSITIVE_INFINITY);
        world.expectService(SERVICE_MS);
      }),
  },
  {
    name: "two killed and restarted",
    row: 3,
    text: "two are killed, and come back with their disks",
    factor: 5,
    begin: (world) =>
      every(world, 4000, () => {
        for (const node of some(world, 2, 0.7)) world.crash(node, 200 + world.random() * 2500);
        world.expectService(SERVICE_MS);
      }),
  },
  {
    name: "two killed, one emptied",
    row: 4,
    text: "two are killed, one comes back with an empty disk",
    factor: 5,
    begin: (world) =>
      once(world, () => {
        const [emptied, other] = some(world, 2, 0.5);
        world.crash(emptied!, 500 + world.random() * 1500);
        world.loseMemory(emptied!);
        world.crash(other!, world.random() < 0.5 ? Number.POSITIVE_INFINITY : 3000);
        world.expectService(SERVICE_MS);
      }),
  },
  {
    name: "three of five killed",
    row: 5,
    text: "three of five are killed: nobody is told anything wrong; two restart",
    factor: 5,
    begin: (world) =>
      once(world, () => {
        if (world.holders.length < 5) return;
        const [first, second, third] = some(world, 3, 0.5) as [SimulatedNode, SimulatedNode, SimulatedNode];
        for (const node of [first, second, third]) world.crash(node, Number.POSITIVE_INFINITY);
        world.faultyMs = world.nowMs() + 9000;
        world.later(3000, () => {
          if (world.leader !== undefined) world.complain("two of five serve");
          world.start(first);
          world.start(second);
          world.expectService(5000);
        });
      }),
  },
  {
    name: "all killed",
    row: 6,
    text: "all are killed at once and restarted in any order",
    factor: 5,
    begin: (world) =>
      every(world, 4000, () => {
        for (const node of world.holders) world.crash(node, world.random() * 2500);
      }),
  },
  {
    name: "leader frozen",
    row: 8,
    text: "the leader stands still for long, and goes on as if nothing had been",
    factor: 5,
    begin: (world) =>
      every(world, 3000, () => {
        const node = leaderOr(world, 1);
        node.pausedUntilMs = world.nowMs() + 500 + world.random() * 3500;
        world.suspectWrongly(node, 1);
      }),
  },
  {
    name: "split three to two",
    row: 9,
    text: "a split with clients on both sides, healed after a while",
    factor: 5,
    begin: (world) =>
      every(world, 5000, () => {
        const side = some(world, 2, 0.5);
        world.isolate(side, 1000 + world.random() * 2500, 1, true);
      }),
  },
  {
    name: "one way",
    row: 10,
    text: "messages are lost one way, between the leader and one, or all of its answers",
    factor: 5,
    begin: (world) =>
      every(world, 2000, () => {
        const leader = leaderOr(world, 1);
        const others = world.holders.filter((node) => node !== leader);
        const one = others[Math.floor(world.random() * others.length)];
        const ms = 500 + world.random() * 1500;
        const dice = world.random();
        if (one === undefined) return;
        if (dice < 0.35) world.cut(leader.nodeId, one.nodeId, ms);
        else if (dice < 0.7) world.cut(one.nodeId, leader.nodeId, ms);
        else for (const other of others) world.cut(other.nodeId, leader.nodeId, ms);
      }),
  },
  {
    name: "bad network",
    row: 11,
    text: "30 % loss, 300 ms of delay, doubled and reordered, all the time",
    factor: 5,
    begin: (world) => {
      world.weather.lossRatio = 0.3;
      world.weather.doubleRatio = 0.2;
      world.weather.lateRatio = 0.7;
      world.faultyMs = 12_000;
    },
  },
  {
    name: "members come and go",
    row: 12,
    text: "the ring grows and shrinks under load: one after the other is wished for instead of another",
    factor: 5,
    begin: (world) => every(world, 700, () => world.wish(world.otherNodes(), 50)),
  },
  {
    name: "killed in a change",
    row: 13,
    text: "whoever receives the partition, hands it over or is removed is killed while it does",
    factor: 5,
    begin: (world) => {
      every(world, 700, () => world.wish(world.otherNodes(), 50));
      const kinds = [
        "offer",
        "pull",
        "listed",
        "fetch",
        "fetched",
        "more",
        "lead",
        "forget",
        "change",
        "welcome",
      ];
      world.onSend = (_, kind) =>
        kinds.includes(kind) && world.random() < 0.04
          ? world.random() < 0.5
            ? "crashSender"
            : "crashReceiver"
          : undefined;
    },
  },
  {
    name: "bit flips",
    row: 15,
    text: "an entry on one disk turns bad: it is found, and the replica replaced",
    factor: 5,
    begin: (world) => {
      every(world, 2500, () => world.damage(leaderOr(world, 0.4)));
      every(world, 3500, () => world.crash(leaderOr(world, 0.3), world.random() * 400));
    },
  },
  {
    name: "old copy",
    row: 16,
    text: "a server is started from an old copy of its disk: it takes part as a new one only",
    factor: 3,
    begin: (world) => {
      every(world, 600, () => {
        const node = leaderOr(world, 0.3);
        node.disk.oldCopy = node.disk.durable.copy();
      });
      every(world, 1800, () => {
        const node = leaderOr(world, 0.5);
        if (node.disk.oldCopy === undefined) return;
        world.restoreOldCopy(node);
        world.isolate([leaderOr(world, 1)], 800);
      });
    },
  },
  {
    name: "wrong clocks",
    row: 18,
    text: "the clock of one is an hour ahead, then an hour behind, while leaders change",
    factor: 3,
    begin: (world) => {
      // A request's outcome is kept for ten minutes by these very clocks.
      world.weather.requestIdRatio = 0;
      world.weather.expiryRatio = 0.5;
      world.weather.keys = ["a", "b"];
      every(world, 900, () => {
        const node = leaderOr(world, 0.5);
        node.clock.epochMs = [3_600_000, -3_600_000, 0, 2000, -2000][Math.floor(world.random() * 5)]!;
      });
      every(world, 700, () => {
        const node = leaderOr(world, 1);
        if (world.random() < 0.5) node.within(() => node.replica?.handOver(node.nowMs()));
        else world.isolate([node], 700);
      });
    },
  },
  {
    name: "repeats",
    row: 28,
    text: "messages of any time before come again, in any order",
    factor: 3,
    begin: (world) => {
      every(world, 12, () => world.replay());
      every(world, 1500, () => world.suspectWrongly(leaderOr(world, 1), 1));
      every(world, 2500, () => world.crash(leaderOr(world, 0.5), 200));
    },
  },

  {
    name: "promises",
    text: "one stands, unheard by the leader; the third, with a slow disk, promises it and goes on with the leader",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      let scene: PromiseScene | undefined;
      every(world, 1400, () => {
        const { leader } = world;
        const [stands, promises] = othersThan(world, leader);
        if (scene !== undefined || leader === undefined || stands === undefined || promises === undefined)
          return;
        const isLost = world.random() < 0.5;
        const next = { leader, stands, promises, isLost, isPromised: false, isBegun: false };
        scene = next;
        world.slowDisks.add(promises);
        world.later(30 + world.random() * 150, () => {
          next.isBegun = true;
          if (stands.isUp) stands.suspect(leader.nodeId);
        });
        world.later(1200, () => {
          scene = undefined;
          world.slowDisks.delete(promises);
          for (const node of [stands, promises]) if (node.isUp) node.trust(leader.nodeId);
        });
      });
      world.onSend = ({ from, to }, kind) => {
        if (scene === undefined) return undefined;
        const { leader, stands, promises, isLost, isPromised, isBegun } = scene;
        const is = (a: SimulatedNode, b: SimulatedNode) => from === a.nodeId && to === b.nodeId;
        if (isBegun && (is(leader, stands) || is(stands, leader))) return "drop";
        // Its promise is to get lost alone: what it has in hand, the one that stands has as well.
        if (isLost && !isPromised && kind === "append" && is(leader, promises)) return "drop";
        if (kind === "refused" && is(promises, leader)) return "drop";
        if (kind === "offer" && is(stands, promises)) return "drop";
        if (kind === "canvass" && is(stands, promises)) promises.suspect(leader.nodeId);
        if (kind === "promise" && is(promises, stands) && !isPromised) {
          scene.isPromised = true;
          if (isLost) world.later(0, () => world.crash(promises, 5));
        }
        return undefined;
      };
    },
  },
  {
    name: "reads",
    text: "a leader is cut off and goes on to believe that it leads",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      // An answer that was sent before the cut may arrive after another has been elected.
      world.onSend = (_, kind) =>
        kind === "appended" && world.random() < 0.3 ? { lateMs: 200 + world.random() * 300 } : undefined;
      world.weather.keys = ["a", "b"];
      every(world, 1000, () => world.isolate([leaderOr(world, 1)], 450 + world.random() * 400));
    },
  },
  {
    name: "members",
    text: "members come and go while some are cut off",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      world.strikes = [
        [3, () => world.wish(world.otherNodes())],
        [2, (node) => world.isolate([node], 100 + world.random() * 1500)],
        [1, (node) => world.crash(node)],
      ];
      world.weather.strikeMs = 400;
    },
  },
  {
    name: "configs",
    text: "a change of members reaches few; the leader and the newcomer are cut off from the others",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      every(world, 500, () => world.wish(world.otherNodes(), 30));
      world.onSend = ({ from, to }, kind) => {
        if (kind === "refused" && world.random() < 0.8) return "drop";
        if (kind !== "change" || world.random() > 0.5) return undefined;
        const leader = world.node(from);
        const members = leader.replica?.state.config.members ?? [];
        const newest = world.node(nodeOf(members.at(-1) ?? `${from}/0`));
        // That one comes is not known to the one that is to go; that one goes, to the newcomer only.
        if (members.length > world.factor && !leader.wish.includes(to) && world.random() < 0.8) {
          world.cut(from, to, 800);
          return "drop";
        }
        if (members.length > world.factor && world.random() < 0.7) return undefined;
        world.later(world.random() * 20, () =>
          world.isolate([leader, newest], 300 + world.random() * 1500, 1),
        );
        return world.random() < 0.5 && to !== newest.nodeId ? "drop" : undefined;
      };
    },
  },
  {
    name: "old config",
    text: "one does not know of the member that came in its place, and stands with one that knows half of it",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      world.faultyMs = 9000;
      let goes: SimulatedNode | undefined;
      const swap = () => {
        const { leader } = world;
        const [one] = othersThan(world, leader);
        if (goes !== undefined || leader === undefined || one === undefined || world.holders.length !== 3)
          return;
        const newcomer = world.nodes.find((node) => !world.holders.includes(node) && node.isUp);
        if (newcomer === undefined) return;
        goes = one;
        const wished = world.holders.map((node) => (node === one ? newcomer : node).nodeId);
        world.wish([leader.nodeId, ...wished.filter((id) => id !== leader.nodeId)], 5);
        world.later(4000, () => {
          goes = undefined;
        });
      };
      every(world, 500, swap);
      world.onSend = ({ from, to }, kind) => {
        if (goes === undefined) return undefined;
        if (kind === "refused") return "drop";
        if (kind !== "change") return undefined;
        const leader = world.node(from);
        const members = (leader.replica?.state.config.members ?? []).map(nodeOf);
        if (members.length > world.factor) {
          if (to !== goes.nodeId) return undefined;
          world.cut(from, to, 2000);
          return "drop";
        }
        const newest = world.node(members.at(-1) ?? from);
        if (to === newest.nodeId) return undefined;
        world.later(0, () => world.isolate([leader, newest], 500 + world.random() * 700, 1));
        return "drop";
      };
    },
  },
  {
    name: "early change",
    text: "a removal reaches nobody; those behind elect another, who removes the first while one of them is not level",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      let old: SimulatedNode | undefined;
      let late: SimulatedNode | undefined;
      const swap = () => {
        if (old === undefined) world.wish(world.otherNodes(world.leader?.wish), 5);
      };
      swap();
      every(world, 700, swap);
      world.faultyMs = 9000;
      world.onSend = ({ from, to }, kind) => {
        const sender = world.node(from);
        if (kind === "offer" && late?.nodeId === to && sender !== old) return "drop";
        if (kind !== "change" || (old !== undefined && sender !== old)) return undefined;
        const members = (sender.replica?.state.config.members ?? []).map(nodeOf);
        if (members.length !== world.factor) return undefined;
        if (old === undefined) {
          old = sender;
          const others = othersThan(world, old).filter((node) => members.includes(node.nodeId));
          late = others[Math.floor(world.random() * others.length)];
          for (const node of world.nodes)
            if (node !== old) node.wish = othersThan(world, old).map((n) => n.nodeId);
          world.later(0, () => world.isolate([sender], 600 + world.random() * 300, 1));
          world.later(1000 + world.random() * 700, () => {
            const side = [sender, late ?? sender];
            world.isolate(side, 2500, 1, true);
            world.later(2500, () => {
              old = undefined;
              late = undefined;
            });
          });
        }
        return "drop";
      };
    },
  },
  {
    name: "memories",
    text: "one that missed something, one that forgot it: the leader is cut off from both",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      every(world, 1500, () => {
        const { leader } = world;
        const [behind, forgetful] = othersThan(world, leader);
        if (leader === undefined || behind === undefined || forgetful === undefined) return;
        world.cut(leader.nodeId, behind.nodeId, 900);
        world.later(100 + world.random() * 200, () => {
          world.isolate([leader], 1500, 1);
          world.crash(forgetful, 20);
          world.loseMemory(forgetful);
        });
      });
    },
  },
  {
    name: "leader forgets",
    text: "the leader's memory is lost, and its server is back before anybody notices",
    factor: 3,
    begin: (world) =>
      every(world, 2000, () => {
        const { leader } = world;
        if (leader === undefined) return;
        world.crash(leader, 5);
        world.loseMemory(leader);
      }),
  },
  {
    name: "crowd",
    text: "more at once than batches may be in flight, on one key",
    factor: 3,
    begin: (world) => {
      world.weather.clients = 20;
      world.weather.thinkMs = 1;
      world.faultyMs = 1500;
      world.weather.keys = ["a"];
      world.weather.diskMs = 30;
      world.weather.requestIdRatio = 0;
    },
  },
  {
    name: "transfers",
    text: "all that is said while one becomes identical comes late, or twice, or never",
    factor: 3,
    begin: (world) => {
      const kinds = ["pull", "listed", "more", "fetch", "fetched", "offer", "end"];
      world.weather.thinkMs = 8;
      world.onSend = (_, kind) => {
        if (!kinds.includes(kind)) return undefined;
        const dice = world.random();
        if (kind === "pull" && dice < 0.8) return "double";
        return dice < 0.4 ? "double" : dice < 0.45 ? "late" : dice < 0.5 ? "drop" : undefined;
      };
      every(world, 250, () => {
        const { leader } = world;
        const [one] = othersThan(world, leader);
        if (leader !== undefined && one !== undefined)
          world.cut(leader.nodeId, one.nodeId, 50 + world.random() * 200);
      });
      every(world, 1500, () => world.suspectWrongly(leaderOr(world, 1), 1));
      every(world, 1500, () => world.crash(leaderOr(world, 0.2), world.random() * 200));
    },
  },
  {
    name: "pending",
    text: "a leader is refused after another has fixed its base, which lacks what was pending",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      every(world, 1500, () => world.isolate([leaderOr(world, 1)], 250 + world.random() * 150, 1));
      world.onSend = ({ from }, kind) => {
        const sender = world.node(from);
        if (kind !== "offer" || sender.replica?.servingBallot !== undefined || world.random() < 0.3)
          return undefined;
        world.later(0, () => world.crash(sender, 20));
        return "drop";
      };
    },
  },
  {
    name: "elections",
    text: "several stand at once; offers and promises are late or lost",
    factor: 3,
    begin: (world) => {
      world.weather.thinkMs = 8;
      world.onSend = (_, kind) => {
        if (kind === "offer" && world.random() < 0.5) return world.random() < 0.5 ? "late" : "drop";
        if ((kind === "promise" || kind === "prepare") && world.random() < 0.1) return "late";
        return undefined;
      };
      every(world, 900, () => {
        const { leader } = world;
        if (leader !== undefined) world.isolate([leader], 300 + world.random() * 900, 1);
      });
    },
  },
];

/** Nothing goes wrong but what the story does. */
export function beginStory(world: ReplicationSimulator, story: Story): void {
  calmWeather(world.weather);
  world.strikes = [[1, () => {}]];
  story.begin(world);
}

function every(world: ReplicationSimulator, ms: number, then: () => void): void {
  world.later(ms * (0.3 + world.random()), () => {
    then();
    every(world, ms, then);
  });
}

/** Some time after the group has its members. */
function once(world: ReplicationSimulator, then: () => void): void {
  world.faultyMs = Math.max(world.faultyMs, 7000);
  world.later(1500 + world.random() * 1500, then);
}

/** The leader, with that probability, else anybody who is up. */
function leaderOr(world: ReplicationSimulator, ratio: number): SimulatedNode {
  const { leader, holders } = world;
  if (leader !== undefined && world.random() < ratio) return leader;
  const pool = holders.length > 0 ? holders : world.nodes;
  return pool[Math.floor(world.random() * pool.length)]!;
}

/** All other holders, in any order. */
function othersThan(world: ReplicationSimulator, node: SimulatedNode | undefined): SimulatedNode[] {
  const others = world.holders.filter((other) => other !== node);
  return others.sort(() => world.random() - 0.5);
}

/** Holders, the leader among them with that probability. */
function some(world: ReplicationSimulator, count: number, leaderRatio: number): SimulatedNode[] {
  const chosen = new Set<SimulatedNode>();
  const pool = world.holders.length >= count ? world.holders : world.nodes;
  if (world.leader !== undefined && world.random() < leaderRatio) chosen.add(world.leader);
  while (chosen.size < count) chosen.add(pool[Math.floor(world.random() * pool.length)]!);
  return [...chosen];
}
