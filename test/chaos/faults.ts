/**
 * What happens to servers: killed, two at once, stopped in good order, frozen, cut
 * off, emptied. Never more than two are away at a time, and one is away until the
 * cluster shows that it is whole again: five members that live in each group, and
 * a leader.
 */
import { rm } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { type Client, createClient } from "../../src/sdk/client.ts";
import type { Lan } from "../cluster/lan.ts";
import type { Cluster, ServerProcess } from "../fixture/cluster.ts";

const AWAY_MAX = 2;
const BETWEEN_MS_MAX = 3_000;
const AWAY_MS_MIN = 500;
const AWAY_MS_MAX = 8_000;
/** Something is wrong when it is not whole by then. */
const WHOLE_MS_MAX = 120_000;
const LOOK_MS = 200;
const GROUP = 5;

export const FAULTS = ["kill", "killTwo", "stop", "freeze", "cutOff", "empty"] as const;
export type Fault = (typeof FAULTS)[number];

export interface FaultsOptions {
  readonly cluster: Cluster;
  /** Without one nothing is cut off. */
  readonly lan: Lan | undefined;
  readonly random: () => number;
  readonly say: (text: string) => void;
}

export class Faults {
  readonly #options: FaultsOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  readonly #away = new Set<ServerProcess>();
  readonly #cutOff = new Set<number>();
  readonly #client: Client;
  readonly #failed: string[] = [];
  readonly counts = new Map<Fault, number>();
  #wholeMsMax = 0;
  #plugging: Promise<void> = Promise.resolve();

  constructor(options: FaultsOptions) {
    this.#options = options;
    const { cluster } = options;
    this.#client = createClient({
      servers: cluster.servers.map(({ edge }) => edge),
      ...cluster.admin,
      ca: cluster.ca,
    });
    this.#running = this.#run();
  }

  /** What did not come back, in words. */
  get failed(): readonly string[] {
    return this.#failed;
  }

  /** Longest time from the end of a fault until the cluster was whole. */
  get wholeMsMax(): number {
    return this.#wholeMsMax;
  }

  /** Resolves when all servers are up and the cluster is whole, or is not in time. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#client.close();
  }

  async #run(): Promise<void> {
    const { random, say } = this.#options;
    const { signal } = this.#stopping;
    const running = new Set<Promise<void>>();
    while (!signal.aborted) {
      await pause(random() * BETWEEN_MS_MAX, undefined, { signal }).catch(() => {});
      if (signal.aborted) break;
      const fault = this.#choose();
      const wanted = fault === "killTwo" ? 2 : 1;
      const { servers } = this.#options.cluster;
      const present = servers.filter((server) => !this.#away.has(server));
      if (this.#away.size + wanted > AWAY_MAX) continue;
      const victims: ServerProcess[] = [];
      while (victims.length < wanted)
        victims.push(...present.splice(Math.floor(random() * present.length), 1));
      for (const victim of victims) this.#away.add(victim);
      this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
      const awayMs = AWAY_MS_MIN + random() * (AWAY_MS_MAX - AWAY_MS_MIN);
      say(`${fault} ${victims.map((one) => this.#nameOf(one)).join(" and ")} for ${Math.round(awayMs)} ms`);
      const happening = this.#happen(fault, victims, awayMs)
        .catch((error: unknown) => {
          this.#failed.push(`${fault} ${victims.map((one) => this.#nameOf(one))}: ${error}`);
          // What did not come back stays away: no third one is taken meanwhile.
          say(String(this.#failed.at(-1)));
        })
        .finally(() => running.delete(happening));
      running.add(happening);
    }
    await Promise.all(running);
  }

  #choose(): Fault {
    const { lan, random } = this.#options;
    const possible = FAULTS.filter((fault) => fault !== "cutOff" || lan !== undefined);
    return possible[Math.floor(random() * possible.length)]!;
  }

  async #happen(fault: Fault, victims: readonly ServerProcess[], awayMs: number): Promise<void> {
    const later = () =>
      pause(awayMs, undefined, { signal: this.#stopping.signal }).catch(() => {
        // The end is near: it comes back now.
      });
    const [victim] = victims as [ServerProcess];
    switch (fault) {
      case "kill":
      case "killTwo":
        await Promise.all(victims.map((one) => one.kill()));
        await later();
        await Promise.all(victims.map((one) => one.restart()));
        break;
      case "stop":
        await victim.stop();
        await later();
        await victim.restart();
        break;
      case "freeze":
        victim.freeze();
        await later();
        victim.wake();
        break;
      case "cutOff":
        this.#cutOff.add(this.#indexOf(victim));
        await this.#plug();
        await later();
        this.#cutOff.delete(this.#indexOf(victim));
        await this.#plug();
        break;
      case "empty":
        await victim.kill();
        await rm(victim.directory, { recursive: true, force: true });
        await later();
        await this.#options.cluster.join(victim);
        break;
    }
    const backMs = performance.now();
    await this.#whole();
    this.#wholeMsMax = Math.max(this.#wholeMsMax, performance.now() - backMs);
    for (const one of victims) this.#away.delete(one);
  }

  /** Those that are cut off hear nobody, not each other either. One change of the cables after the other. */
  #plug(): Promise<void> {
    const { lan, cluster } = this.#options;
    const done = this.#plugging.then(async () => {
      const others = [...cluster.servers.keys()].filter((host) => !this.#cutOff.has(host));
      await lan?.split([others]);
    });
    this.#plugging = done.catch(() => {});
    return done;
  }

  /** Waits until each group has its members, all of them nodes that live and are not away, and a leader. */
  async #whole(): Promise<void> {
    const fromMs = performance.now();
    let missing = "";
    while (performance.now() - fromMs < WHOLE_MS_MAX) {
      try {
        missing = await this.#missing();
        if (missing === "") return;
      } catch (error) {
        missing = String(error);
      }
      await pause(LOOK_MS);
    }
    throw new Error(`not whole after ${WHOLE_MS_MAX / 1000} s: ${missing}`);
  }

  /** Of those that are away now it is not expected that they live; but groups name no node that will never come back. */
  async #missing(): Promise<string> {
    const known = new Set(this.#options.cluster.servers.map(({ nodeId }) => nodeId));
    for (const { partition, leader, members } of await this.#client.cluster.partitions()) {
      if (leader === null) return `partition ${partition} has no leader`;
      if (members.length !== GROUP) return `partition ${partition} has ${members.length} members`;
      const gone = members.find((nodeId) => !known.has(nodeId));
      if (gone !== undefined) return `partition ${partition} has ${gone.slice(0, 8)}, which is gone for ever`;
    }
    const alive = (await this.#client.cluster.nodes()).filter(({ state }) => state === "alive").length;
    const wanted = known.size - this.#awayNow();
    return alive < wanted ? `${alive} of ${wanted} servers are seen alive` : "";
  }

  #awayNow(): number {
    return this.#options.cluster.servers.filter(
      (server) => !server.isRunning || server.isFrozen || this.#cutOff.has(this.#indexOf(server)),
    ).length;
  }

  #indexOf(server: ServerProcess): number {
    return this.#options.cluster.servers.indexOf(server);
  }

  #nameOf(server: ServerProcess): string {
    return `server ${this.#indexOf(server) + 1}`;
  }
}
