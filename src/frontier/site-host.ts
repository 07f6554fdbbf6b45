/**
 * One host as its leader sees it: the pace that all jobs share, their queues, and
 * the robots.txt of its origins.
 */
import type { HostQueue } from "./host-queue.ts";
import type { HostSpread } from "./host-spread.ts";
import { HostPace } from "./politeness.ts";
import { RobotsAccess } from "./robots-access.ts";

/** Origins (ports, schemes) of one host in memory. */
const ORIGINS_MAX = 64;
/** Users whose turns are remembered. */
const OWNERS_MAX = 4_096;

export class SiteHost {
  readonly name: string;
  readonly pace: HostPace;
  /** By job; those that have waited longest come first. */
  readonly queues = new Map<string, HostQueue>();
  // When each user had the last turn; those without one had none.
  readonly #turns = new Map<string, number>();
  #turn = 0;
  /** By job; of hosts whose pages lie in several partitions. */
  readonly spreads = new Map<string, HostSpread>();
  /** False: another partition paces it, and asks for the pages that are here. */
  readonly isMain: boolean;
  /** When that one last did. */
  askedAtMs = Number.NEGATIVE_INFINITY;
  /** A page of a part needs a robots.txt that nobody has asked for. */
  wantsRobots: { readonly jobId: string; readonly access: RobotsAccess } | undefined;
  readonly robots = new Map<string, RobotsAccess>();
  /** "loading": what the store knows of its pace is not here yet, so nothing may be handed out. */
  state: "new" | "loading" | "ready" = "new";
  idleSinceMs: number | undefined;

  constructor(name: string, isMain = true) {
    this.name = name;
    this.isMain = isMain;
    this.pace = new HostPace(name);
  }

  accessOf(origin: string, waitMsMax: number): RobotsAccess {
    let access = this.robots.get(origin);
    if (access === undefined) {
      if (this.robots.size >= ORIGINS_MAX) this.robots.delete(this.robots.keys().next().value!);
      access = new RobotsAccess(this.name, origin, waitMsMax);
      this.robots.set(origin, access);
    }
    return access;
  }

  /** Places that are spoken for by pages of other partitions. */
  get reserved(): number {
    let sum = 0;
    for (const spread of this.spreads.values()) sum += spread.reserved;
    return sum;
  }

  /** In the order in which they may take: the user that has waited longest first, and of one's jobs likewise. */
  inTurn(ownerOf: (jobId: string) => string): HostQueue[] {
    const queues = [...this.queues.values()];
    if (queues.length < 2 || this.#turns.size === 0) return queues;
    const turnOf = (queue: HostQueue) => this.#turns.get(ownerOf(queue.jobId)) ?? 0;
    return queues.sort((a, b) => turnOf(a) - turnOf(b));
  }

  /** The queue goes behind the others of its user, and its user behind the others. */
  rotate(queue: HostQueue, owner: string): void {
    if (this.queues.size < 2 || !this.queues.delete(queue.jobId)) return;
    this.queues.set(queue.jobId, queue);
    if (this.#turns.size >= OWNERS_MAX) this.#turns.clear();
    this.#turns.set(owner, ++this.#turn);
  }
}
