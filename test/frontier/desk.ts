/** A frontier with one job, at whose side a test sits: confirmed whenever asked, and its batches commit at once. */
import type { FrontierBatch, FrontierEffect, FrontierWrite } from "../../src/frontier/draft.ts";
import { Frontier } from "../../src/frontier/frontier.ts";
import type { HandoutRef, Runner } from "../../src/frontier/frontier-state.ts";
import type { JobView } from "../../src/frontier/job-share.ts";
import type { OfferedPage } from "../../src/frontier/page.ts";
import type { Outcome } from "../../src/frontier/verdict.ts";
import { jobSpecSchema } from "../../src/job/job-spec.ts";

export const JOB = "1".repeat(32);

export function view(politeness: object = {}, more: object = {}): JobView {
  const { seeds: _, ...spec } = jobSpecSchema.parse({
    seeds: ["http://a.test/"],
    politeness: { delayMs: 0, robots: false, concurrencyPerHost: 2, ...politeness },
    ...more,
  });
  return { version: "1", status: "running", run: 1, spec, scopeHosts: null };
}

export function offered(path: string, more: Partial<OfferedPage> = {}): OfferedPage {
  return {
    url: `http://a.test/${path}`,
    key: path,
    host: "a.test",
    depth: 0,
    parent: null,
    priority: 0,
    hops: 0,
    seed: false,
    trail: 0,
    named: false,
    sitemap: null,
    ...more,
  };
}

export const page: Extract<Outcome, { kind: "page" }> = {
  kind: "page",
  status: 200,
  finalUrl: "http://a.test/",
  contentType: "text/html",
  fetchedAtMs: 0,
  durationMs: 1,
  bytes: 10,
  sha256: "",
  simhash: null,
  canonical: null,
  content: { kind: "bytes", bytes: new Uint8Array(1) },
  found: [],
};

export class Desk {
  readonly frontier: Frontier;
  nowMs = 1_000;
  isConfirming = true;
  credits = 100;
  runner: () => Runner | undefined = () => ({ nodeId: "r", timeMs: 0 });
  /** By job; the first is `JOB`. */
  readonly views = new Map<string, JobView>();
  readonly writes: FrontierWrite[] = [];
  #id = 1;

  constructor(jobView: JobView = view(), robotsWaitMs = 1_000) {
    this.frontier = new Frontier({ robotsWaitMs, random: () => 0.5 });
    this.views.set(JOB, jobView);
  }

  /** Advances until nothing more happens; returns the effects. */
  settle(): FrontierEffect[] {
    const effects: FrontierEffect[] = [];
    for (let n = 0; n < 20; n++) {
      const { batch, wants } = this.frontier.advance({
        nowMs: this.nowMs,
        wallMs: this.nowMs,
        nextRunner: this.runner,
        timeOf: () => this.nowMs,
      });
      if (batch !== undefined) effects.push(...this.#take(batch));
      let isNew = batch !== undefined;
      for (const jobId of wants.shares) {
        this.frontier.restoreShare(jobId, undefined, [], [], this.nowMs);
        isNew = true;
      }
      for (const host of wants.hosts) {
        this.frontier.restoreHost(host, undefined, [], this.nowMs, this.nowMs);
        isNew = true;
      }
      for (const jobId of wants.credit.keys()) {
        if (this.frontier.isParticipant(jobId) && this.frontier.countsOf(jobId)!.granted >= this.credits)
          continue;
        this.frontier.credited(jobId, this.credits);
        isNew = true;
      }
      if (this.isConfirming) {
        for (const jobId of wants.confirm) {
          this.frontier.confirmed(jobId, this.views.get(jobId)!, this.nowMs);
          isNew = true;
        }
      }
      if (!isNew) break;
    }
    return effects;
  }

  offer(...pages: OfferedPage[]): FrontierEffect[] {
    this.frontier.offer(this.#id++, JOB, pages);
    return this.settle();
  }

  offerTo(jobId: string, ...pages: OfferedPage[]): FrontierEffect[] {
    this.frontier.offer(this.#id++, jobId, pages);
    return this.settle();
  }

  report(
    ref: HandoutRef,
    outcome: Outcome,
    own: OfferedPage[] = [],
    agoMs = 0,
    latencyMs: number | null = null,
  ): FrontierEffect[] {
    if (!this.frontier.heardReport(ref, agoMs, outcome, this.nowMs, latencyMs)) return this.settle();
    this.frontier.settle(this.#id++, ref, outcome, own);
    return this.settle();
  }

  #take(batch: FrontierBatch): readonly FrontierEffect[] {
    this.writes.push(...batch.writes);
    return batch.effects;
  }
}

/** The hand-outs among them. */
export const runs = (effects: readonly FrontierEffect[]) =>
  effects.flatMap((effect) =>
    effect.kind === "run"
      ? [{ jobId: effect.jobId, host: effect.host, key: effect.key, handout: effect.handout }]
      : [],
  );
