/**
 * Links to hosts of other partitions, on their way to the leaders of those: one
 * request for each partition and job at a time, the next one forms meanwhile. A
 * page is settled only after the owners of all of its links have them.
 */
import { OFFER_PAGES_MAX, type OfferedPage } from "../frontier/page.ts";
import type { Log } from "../log.ts";
import { type Clock, pause } from "./clock.ts";
import type { CrawlReply, CrawlRequest } from "./crawl-message.ts";

export type OfferAnswer = "accepted" | "refused";

interface Waiter {
  left: number;
  resolve(answer: OfferAnswer): void;
}

interface Line {
  readonly partition: number;
  readonly jobId: string;
  waiting: { readonly page: OfferedPage; readonly waiters: Waiter[] }[];
  readonly byKey: Map<string, { readonly page: OfferedPage; readonly waiters: Waiter[] }>;
  isSending: boolean;
}

/** Pages that are known to be with their owners; per job. */
const ACCEPTED_KEPT_MAX = 20_000;
const JOBS_KEPT_MAX = 64;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;

export class OfferOutbox {
  readonly #partitionOf: (page: OfferedPage) => number;
  readonly #isForParts: boolean;
  readonly #ask: (partition: number, request: CrawlRequest) => Promise<CrawlReply>;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #lines = new Map<string, Line>();
  // Depth at which a page was accepted, by job and key: an owner never forgets a page.
  readonly #accepted = new Map<string, Map<string, number>>();
  #isStopped = false;

  constructor(options: {
    partitionOf(page: OfferedPage): number;
    /** To parts of large hosts, by the owners of these. */
    isForParts?: boolean;
    ask(partition: number, request: CrawlRequest): Promise<CrawlReply>;
    clock: Clock;
    log: Log;
  }) {
    this.#partitionOf = options.partitionOf;
    this.#isForParts = options.isForParts ?? false;
    this.#ask = options.ask;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Resolves when the owners of all pages have them, or one says that the job is over. Never rejects. */
  offer(jobId: string, pages: readonly OfferedPage[]): Promise<OfferAnswer> {
    return new Promise((resolve) => {
      const accepted = this.#accepted.get(jobId);
      const open = pages.filter(
        (page) => page.named || (accepted?.get(page.key) ?? Number.POSITIVE_INFINITY) > page.depth,
      );
      if (open.length === 0) return resolve("accepted");
      const waiter: Waiter = { left: open.length, resolve };
      for (const page of open) this.#add(jobId, page, waiter);
    });
  }

  /** The job is over. */
  forget(jobId: string): void {
    this.#accepted.delete(jobId);
  }

  stop(): void {
    this.#isStopped = true;
  }

  #add(jobId: string, page: OfferedPage, waiter: Waiter): void {
    const partition = this.#partitionOf(page);
    const id = `${partition}/${jobId}`;
    let line = this.#lines.get(id);
    if (line === undefined) {
      line = { partition, jobId, waiting: [], byKey: new Map(), isSending: false };
      this.#lines.set(id, line);
    }
    const same = line.byKey.get(page.key);
    if (same !== undefined && same.page.depth <= page.depth && (same.page.named || !page.named)) {
      same.waiters.push(waiter);
    } else {
      const entry = { page, waiters: [waiter] };
      line.waiting.push(entry);
      line.byKey.set(page.key, entry);
    }
    if (!line.isSending) {
      line.isSending = true;
      // Everything of this turn goes into the first request.
      queueMicrotask(() => void this.#send(id, line));
    }
  }

  async #send(id: string, line: Line): Promise<void> {
    let retryMs = RETRY_MS_MIN;
    while (line.waiting.length > 0 && !this.#isStopped) {
      const sent = line.waiting.splice(0, OFFER_PAGES_MAX);
      for (const entry of sent)
        if (line.byKey.get(entry.page.key) === entry) line.byKey.delete(entry.page.key);
      try {
        const reply = await this.#ask(line.partition, {
          kind: "offer",
          partition: line.partition,
          jobId: line.jobId,
          ...(this.#isForParts ? { isPart: true } : {}),
          pages: sent.map((entry) => entry.page),
        });
        retryMs = RETRY_MS_MIN;
        const answer = reply.kind === "accepted" ? "accepted" : "refused";
        if (answer === "accepted") this.#keep(line.jobId, sent);
        for (const { waiters } of sent) {
          for (const waiter of waiters) {
            if (answer === "refused") waiter.resolve("refused");
            else if (--waiter.left === 0) waiter.resolve("accepted");
          }
        }
      } catch (error) {
        this.#log.debug("offer not answered", { partition: line.partition, job: line.jobId, error });
        line.waiting.unshift(...sent);
        await pause(this.#clock, retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
    line.isSending = false;
    this.#lines.delete(id);
  }

  #keep(jobId: string, sent: readonly { readonly page: OfferedPage }[]): void {
    let accepted = this.#accepted.get(jobId);
    if (accepted === undefined || accepted.size > ACCEPTED_KEPT_MAX) {
      if (this.#accepted.size >= JOBS_KEPT_MAX) this.#accepted.delete(this.#accepted.keys().next().value!);
      accepted = new Map();
      this.#accepted.set(jobId, accepted);
    }
    for (const { page } of sent) accepted.set(page.key, page.depth);
  }
}
