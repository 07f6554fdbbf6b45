/**
 * What the leader of a partition's hosts has in memory, and what all that is
 * decided there looks up: jobs, hosts, queues, the pace that several jobs share.
 */
import type { Draft, FrontierBatch, FrontierWants } from "./draft.ts";
import { HostQueue } from "./host-queue.ts";
import { type HostPlacement, HostSpread, UNDIVIDED } from "./host-spread.ts";
import { CONFIRMATION_MS, type Flight, type JobShare } from "./job-share.ts";
import { ContentWindow, KnownContents } from "./known-contents.ts";
import type { Page } from "./page.ts";
import { START_WITHIN_MS_MAX, throttledDelayMs } from "./politeness.ts";
import { SiteHost } from "./site-host.ts";

export interface FrontierOptions {
  /** How long a host may wait for its robots.txt, or for any answer at all. */
  readonly robotsWaitMs: number;
  /** In [0, 1). */
  readonly random: () => number;
  readonly placement?: HostPlacement;
  readonly memory?: FrontierMemory;
}

/** This partition's share of what its server has memory for; changes with what the server leads. */
export interface FrontierMemory {
  /** Due pages, over all queues; beyond, queues keep a short head. */
  pagesMax(): number;
  /** Pages of one job that are known without a look into the store. */
  knownMax(): number;
}

/** Who may run one more task, and the newest time heard of its own clock. */
export interface Runner {
  readonly nodeId: string;
  readonly timeMs: number;
}

export interface Moment {
  /** Monotonic. */
  readonly nowMs: number;
  /** Unix time. */
  readonly wallMs: number;
  /** Whom to give the next task; undefined: everyone is busy. Each answer is used. */
  readonly nextRunner: () => Runner | undefined;
  /** The newest time heard of a runner's own clock. */
  readonly timeOf: (nodeId: string) => number | undefined;
}

export interface Advance {
  readonly batch: FrontierBatch | undefined;
  readonly wants: FrontierWants;
  /** When to advance again, if nothing comes in before. */
  readonly wakeAtMs: number | undefined;
  /** Pages could go but for a runner. */
  readonly isSaturated: boolean;
}

/** What identifies one hand-out. */
export interface HandoutRef {
  readonly jobId: string;
  readonly host: string;
  readonly key: string;
  readonly handout: number;
}

/** A page under way, as the store of an earlier leader has it. */
export interface FlightRecord {
  readonly page: Page;
  readonly host: string;
  readonly handout: number;
  readonly runner: string;
}

/** One making of a batch. */
export interface Turn extends Moment {
  readonly draft: Draft;
  readonly wants: FrontierWants;
  readonly ageMsMax: number;
  /** For more due pages than the heads of queues need. */
  readonly hasMemory: boolean;
  wakeAtMs: number;
  isSaturated: boolean;
}

/** Stands for the runner of what a leader reads from what it has: no server's name. */
export const LEADER = "leader";

/** A confirmation is renewed when it is this old, so that it need not lapse under load. */
const RENEW_MS = 200;
/** Due pages in memory, over all queues; beyond, queues keep a short head. */
const PAGES_IN_MEMORY_MAX = 16_384;

export class FrontierState {
  readonly options: FrontierOptions;
  readonly placement: HostPlacement;
  readonly jobs = new Map<string, JobShare>();
  readonly hosts = new Map<string, SiteHost>();
  readonly contents = new KnownContents();
  /** To the leader of a job, as measured; 0 while it has not been. */
  roundTripMs = 0;

  constructor(options: FrontierOptions) {
    this.options = options;
    this.placement = options.placement ?? UNDIVIDED;
  }

  flightOf(ref: HandoutRef): Flight | undefined {
    const flight = this.jobs.get(ref.jobId)?.flights.get(ref.key);
    return flight?.handout === ref.handout ? flight : undefined;
  }

  hostOf(name: string): SiteHost {
    let host = this.hosts.get(name);
    if (host === undefined) {
      host = new SiteHost(name, this.placement.isMain(name));
      this.hosts.set(name, host);
    }
    return host;
  }

  queueOf(share: JobShare, name: string): HostQueue {
    const queue = share.queues.get(name);
    if (queue !== undefined) return queue;
    const size = { jobId: share.jobId, host: name, discovered: 0, sitemaps: 0, pending: 0, full: false };
    // A host that is new here has said nothing so far.
    this.contents.put(new ContentWindow(share.jobId, name));
    return this.addQueue(share, new HostQueue(share.jobId, size, false));
  }

  addQueue(share: JobShare, queue: HostQueue): HostQueue {
    share.queues.set(queue.size.host, queue);
    this.hostOf(queue.size.host).queues.set(share.jobId, queue);
    return queue;
  }

  /** The host has as many pages here as a partition takes; `mayHavePages`: the parts may have some already. */
  spread(share: JobShare, name: string, mayHavePages: boolean): void {
    const spread = new HostSpread(this.placement.partsOf(name), mayHavePages);
    this.hostOf(name).spreads.set(share.jobId, spread);
  }

  /** From the waiting pages to those under way. Returns the number of the hand-out. */
  takeOut(
    share: JobShare,
    queue: HostQueue,
    queued: { readonly page: Page; readyAtMs: number },
    runner: string,
    turn: Turn,
  ): number {
    const { page } = queued;
    const { host } = queue.size;
    queue.remove(queued);
    this.hostOf(host).rotate(queue, this.ownerOf(share.jobId));
    const handout = ++page.handouts;
    share.flights.set(page.key, {
      page,
      queue,
      handout,
      runner,
      decidedAtMs: turn.nowMs,
      isReported: false,
    });
    turn.draft.due(share.jobId, host, waiting(page), null);
    turn.draft.due(share.jobId, host, flying(page), { key: page.key, flight: { handout, runner } });
    turn.draft.counts(share);
    return handout;
  }

  /** The larger delay and the smaller concurrency of all jobs that want something of this host now. */
  limitsOf(host: SiteHost): { delayMs: number; concurrency: number } {
    let [delayMs, concurrency] = [0, Number.POSITIVE_INFINITY];
    let isThrottled = false;
    for (const queue of host.queues.values()) {
      const view = this.jobs.get(queue.jobId)?.view;
      const isOpen = queue.size.pending > 0 || host.spreads.get(queue.jobId)?.isOpen === true;
      if (!isOpen || view?.status !== "running") continue;
      const { politeness } = view.spec;
      delayMs = Math.max(delayMs, politeness.delayMs);
      concurrency = Math.min(concurrency, politeness.concurrencyPerHost);
      isThrottled ||= politeness.autoThrottle && politeness.delayMs > 0;
      if (politeness.robots) {
        for (const access of host.robots.values()) {
          delayMs = Math.max(delayMs, access.crawlDelayMs(politeness.userAgent));
        }
      }
    }
    if (isThrottled) delayMs = throttledDelayMs(delayMs, host.pace.latencyMs);
    return { delayMs, concurrency: host.pace.isDown ? 1 : concurrency };
  }

  /** A job that nothing is known of yet stands for a user of its own. */
  ownerOf(jobId: string): string {
    return this.jobs.get(jobId)?.view?.owner ?? jobId;
  }

  pageInMemory(share: JobShare, ref: { host: string; key: string }): Page | undefined {
    return share.flights.get(ref.key)?.page ?? share.queues.get(ref.host)?.find(ref.key);
  }

  hasMemory(): boolean {
    let pages = 0;
    for (const share of this.jobs.values()) for (const queue of share.queues.values()) pages += queue.length;
    return pages < (this.options.memory?.pagesMax() ?? PAGES_IN_MEMORY_MAX);
  }

  mayAccept(share: JobShare, turn: Turn): boolean {
    if (!share.isParticipant) {
      turn.wants.credit.set(share.jobId, 1);
      return false;
    }
    this.renew(share, turn);
    return share.mayAccept(turn.nowMs, turn.ageMsMax);
  }

  renew(share: JobShare, turn: Turn): void {
    if (share.confirmationAgeMs(turn.nowMs) >= RENEW_MS) turn.wants.confirm.add(share.jobId);
  }

  startWithinMs(share: JobShare, nowMs: number): number {
    const left = Math.min(START_WITHIN_MS_MAX, 2 * CONFIRMATION_MS - share.confirmationAgeMs(nowMs));
    return Math.max(left, this.roundTripMs);
  }
}

/** The batch is full: there is another one right behind it. */
export function later(turn: Turn): false {
  turn.wakeAtMs = turn.nowMs;
  return false;
}

export function answered(id: number, turn: Turn): true {
  turn.draft.effects.push({ kind: "answer", id, answer: "accepted" });
  return true;
}

export function flightId(ref: HandoutRef): string {
  return `${ref.jobId}/${ref.key}/${ref.handout}`;
}

export function robotsFlightId(origin: string): string {
  return `robots ${origin}`;
}

export function waiting(page: Page) {
  return { band: "waiting", priority: page.priority, seq: page.seq } as const;
}

export function flying(page: Page) {
  return { band: "flying", priority: page.priority, seq: page.seq } as const;
}
