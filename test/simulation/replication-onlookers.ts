/**
 * Those who look on at a simulated group: watchers, whose view must be the state
 * that its version names, and readers of whatever a replica holds.
 */
import type { Entry, Operation, Outcome, Version } from "../../src/replication/register.ts";
import type { Answer, SimulatedNode } from "./replication-node.ts";
import { describe } from "./replication-witness.ts";

export interface OnlookerWorld {
  readonly random: () => number;
  nodes(): readonly SimulatedNode[];
  /** Runs `then` after `ms` of true time. */
  later(ms: number, then: () => void): void;
  complain(problem: string): void;
  /** A version up to which something was told of. */
  acknowledged(version: Version): void;
  /** Descriptions of all entries of the state that a version names, reserved ones too. */
  stateAt(version: Version): readonly string[] | undefined;
}

/** Apart from the numbers of clients. */
const FIRST_NUMBER = 1_000_000_000;
const PREFIXES = ["", "b"];
const STALE_MS = 150;
const PATIENCE_MS = 1200;

interface Watcher {
  readonly prefix: string;
  /** Undefined: to be scanned first. */
  version: Version | undefined;
  /** A scan may show some of what comes after its version. */
  scanned: Version | undefined;
  view: Map<string, string>;
}

export class Onlookers {
  readonly #world: OnlookerWorld;
  #number = FIRST_NUMBER;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  /** How many changes watchers were told of. */
  changes = 0;
  staleReads = 0;
  #isOver = false;

  constructor(world: OnlookerWorld) {
    this.#world = world;
  }

  start(): void {
    for (const prefix of PREFIXES) {
      this.#watch({ prefix, version: undefined, scanned: undefined, view: new Map() });
    }
    this.#readStale();
  }

  stop(): void {
    this.#isOver = true;
    this.#waiting.clear();
  }

  /** Whether the answer was for one of them. */
  answered(number: number, answer: Answer): boolean {
    if (number <= FIRST_NUMBER) return false;
    const then = this.#waiting.get(number);
    this.#waiting.delete(number);
    then?.(answer);
    return true;
  }

  #ask(node: SimulatedNode, operation: Operation, then: (answer: Answer | undefined) => void): void {
    const number = ++this.#number;
    this.#waiting.set(number, then);
    this.#world.later(PATIENCE_MS, () => {
      if (this.#waiting.delete(number) && !this.#isOver) then(undefined);
    });
    node.operate(number, operation);
  }

  #watch(watcher: Watcher): void {
    if (this.#isOver) return;
    const { random } = this.#world;
    const up = this.#world.nodes().filter((node) => node.isUp);
    const node =
      up.find(({ replica }) => replica?.servingBallot !== undefined) ?? up[Math.floor(random() * up.length)];
    if (node === undefined) return this.#world.later(50, () => this.#watch(watcher));
    const { prefix, version: from } = watcher;
    const operation: Operation =
      from === undefined
        ? { kind: "scan", prefix, limit: 100 }
        : { kind: "watch", prefix, from, waitMs: Math.floor(random() * 400) };
    this.#ask(node, operation, (answer) => {
      if (answer !== undefined && "kind" in answer) this.#learn(watcher, answer);
      this.#world.later(random() * 60, () => this.#watch(watcher));
    });
  }

  #learn(watcher: Watcher, answer: Outcome): void {
    switch (answer.kind) {
      case "scanned":
        if (answer.more) return;
        watcher.view = new Map(answer.entries.map((entry) => [entry.key, describe(entry.key, entry)]));
        watcher.version = answer.version;
        watcher.scanned = answer.version;
        return;
      case "compacted":
        watcher.version = undefined;
        return;
      case "changed": {
        for (const change of answer.changes) {
          this.changes++;
          if (change.kind === "put") {
            watcher.view.set(change.entry.key, describe(change.entry.key, change.entry));
          } else watcher.view.delete(change.key);
        }
        watcher.version = answer.version;
        this.#world.acknowledged(answer.version);
        if (answer.version === watcher.scanned) return;
        const state = this.#world.stateAt(answer.version);
        const visible = state?.filter((text) => !text.startsWith("#") && text.startsWith(watcher.prefix));
        const view = [...watcher.view.values()].sort();
        if (visible?.join(" ") !== view.join(" "))
          this.#world.complain(`a watch saw ${view} at ${answer.version}, which was ${visible}`);
        return;
      }
      case "entries":
      case "written":
      case "conflict":
        this.#world.complain(`a watch was answered ${answer.kind}`);
    }
  }

  #readStale(): void {
    if (this.#isOver) return;
    const { random } = this.#world;
    const nodes = this.#world.nodes();
    const node = nodes[Math.floor(random() * nodes.length)]!;
    if (node.isUp) {
      const epochMs = node.epochMs();
      const held = [...node.disk.current.entries]
        .filter(
          ([key, { expiresAtMs }]) => !key.startsWith("\x00") && !((expiresAtMs ?? Infinity) <= epochMs),
        )
        .map(([key, entry]) => describe(key, entry))
        .sort();
      const operation: Operation = { kind: "scan", prefix: "", limit: 100, stale: true };
      this.#ask(node, operation, (answer) => {
        if (answer !== undefined && "kind" in answer && answer.kind === "scanned")
          this.#compare(held, answer);
      });
    }
    this.#world.later(random() * STALE_MS, () => this.#readStale());
  }

  #compare(
    held: readonly string[],
    answer: { entries: readonly Entry[]; more: boolean; ageMs?: unknown },
  ): void {
    this.staleReads++;
    const shown = answer.entries.map((entry) => describe(entry.key, entry)).sort();
    if (!answer.more && shown.join(" ") !== held.join(" "))
      this.#world.complain(`a stale scan showed ${shown} of ${held}`);
    if (answer.ageMs !== null && !(typeof answer.ageMs === "number" && answer.ageMs >= 0))
      this.#world.complain(`a stale scan was ${answer.ageMs} ms old`);
  }
}
