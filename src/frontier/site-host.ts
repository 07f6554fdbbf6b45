/**
 * One host as its leader sees it: the pace that all jobs share, their queues, and
 * the robots.txt of its origins.
 */
import type { HostQueue } from "./host-queue.ts";
import { HostPace } from "./politeness.ts";
import { RobotsAccess } from "./robots-access.ts";

/** Origins (ports, schemes) of one host in memory. */
const ORIGINS_MAX = 64;

export class SiteHost {
  readonly name: string;
  readonly pace: HostPace;
  /** By job; taken from in turn. */
  readonly queues = new Map<string, HostQueue>();
  readonly robots = new Map<string, RobotsAccess>();
  /** "loading": what the store knows of its pace is not here yet, so nothing may be handed out. */
  state: "new" | "loading" | "ready" = "new";
  idleSinceMs: number | undefined;

  constructor(name: string) {
    this.name = name;
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

  /** The queue goes behind the others of this host. */
  rotate(queue: HostQueue): void {
    if (this.queues.size > 1 && this.queues.delete(queue.jobId)) this.queues.set(queue.jobId, queue);
  }
}
