/** What a directed schedule is made of: small settled rings, in which one thing happens at a time. */
import type { NodeId } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import type { RingMessage } from "../../src/ring/message.ts";
import type { Ring } from "../../src/ring/ring.ts";
import { type Break, brokenRing } from "./broken-ring.ts";
import { type LookupOutcome, RingSimulator } from "./ring-simulator.ts";

/** A rule of the ring, how to break it, and a schedule that shows whether it is kept. */
export interface Rule extends Break {
  /** @returns what was seen that must not be; undefined: nothing. */
  schedule(ringClass: typeof Ring, seed: number): string | undefined;
}

export interface RuleOutcome {
  /** What the schedule saw of the servers' own ring: nothing, when the rule is kept. */
  readonly kept: string | undefined;
  /** And of the one with this rule broken. */
  readonly broken: string | undefined;
}

export async function tryRule(rule: Rule, seed: number): Promise<RuleOutcome> {
  const { Ring: own } = await import("../../src/ring/ring.ts");
  return { kept: rule.schedule(own, seed), broken: rule.schedule(await brokenRing(rule), seed) };
}

export const at = (digits: string) => digits.padEnd(40, "0") as NodeId;

export const member = (digits: string): Member => ({
  nodeId: at(digits),
  address: { host: "127.0.0.1", port: 7443 },
  zone: "",
  incarnation: 1,
  instance: "1",
});

export const PING: RingMessage = {
  kind: "ping",
  id: 1,
  load: 0,
  led: new Uint8Array(0),
  zone: "",
  around: 0,
};

export const EIGHT: readonly string[] = ["1", "3", "5", "7", "9", "b", "d", "f"];

/** A ring of the named nodes, in which all have had time to hear of all changes. */
export function settled(
  ringClass: typeof Ring,
  seed: number,
  names: readonly string[],
  successors: number,
): RingSimulator {
  const simulator = new RingSimulator({ seed, successors, ringClass, isResting: true });
  const contact = simulator.bootstrap(at(names[0]!));
  for (const name of names.slice(1)) {
    simulator.join(at(name), [contact.member]);
    simulator.run(200);
  }
  simulator.runUntil(() => simulator.disorder() === undefined, 5000);
  simulator.run(1000);
  return simulator;
}

/** First digits of the successors of a node. */
export function listOf(simulator: RingSimulator, name: string): string {
  return simulator
    .node(at(name))
    .ring.successors.map(({ nodeId }) => nodeId.slice(0, 1))
    .join(" ");
}

export function first(simulator: RingSimulator, name: string): NodeId | undefined {
  return simulator.node(at(name)).ring.successors[0]?.nodeId;
}

/** For half a second only one question is answered: that for the neighbours of `from`. */
export function hears(
  simulator: RingSimulator,
  picture: { from: string; predecessor: string; successors: string[] },
): void {
  simulator.oracle = (to, message) => {
    if (message.kind !== "neighbours" || to !== at(picture.from)) return undefined;
    return {
      kind: "neighbourhood",
      id: message.id,
      around: 0,
      predecessor: member(picture.predecessor),
      successors: picture.successors.map(member),
    };
  };
  simulator.run(510);
  simulator.oracle = undefined;
}

/** Looks `point` up. */
export function lookUpFrom(
  simulator: RingSimulator,
  asker: string,
  point: string,
): LookupOutcome | undefined {
  let outcome: LookupOutcome | undefined;
  simulator.lookup(simulator.node(at(asker)), at(point), (ended) => {
    outcome = ended;
  });
  simulator.runUntil(() => outcome !== undefined, 5000, 1);
  return outcome;
}

export function ownerOf(simulator: RingSimulator, asker: string, point: string): NodeId | undefined {
  return lookUpFrom(simulator, asker, point)?.found?.owner.nodeId;
}
