/**
 * Asks those who run pages for the leaders here what has become of them, once a
 * second while pages are handed out: one question for each server about all pages
 * that it has. A hand-out, a word of its start and a report may all be lost on the
 * way; the answer tells which page has started, and which is due again.
 */
import type { HandoutRef } from "../frontier/frontier-state.ts";
import type { Clock } from "./clock.ts";
import type { Answer, CrawlRequest } from "./crawl-message.ts";
import type { HostLeader } from "./host-leader.ts";

export interface RunnerWatchPorts {
  readonly clock: Clock;
  leaders(): HostLeader[];
  /** Undefined: no answer. "gone": it is not a member any more, or suspected. */
  ask(
    runner: string,
    groups: Extract<CrawlRequest, { kind: "running" }>["groups"],
  ): Promise<Answer<"running"> | "gone" | undefined>;
  heardClock(runner: string, nowMs: number): void;
}

/** How often runners are asked about the pages that they have. */
const RUNNING_MS = 1_000;
const REFS_MAX = 4096;

export class RunnerWatch {
  readonly #ports: RunnerWatchPorts;
  // There is no timer while nothing is under way.
  #timer: (() => void) | undefined;
  #isStopped = false;

  constructor(ports: RunnerWatchPorts) {
    this.#ports = ports;
  }

  /** A page may be under way. */
  begin(): void {
    if (this.#isStopped) return;
    this.#timer ??= this.#ports.clock.after(RUNNING_MS, () => {
      this.#timer = undefined;
      const leaders = this.#ports.leaders();
      if (leaders.every((leader) => leader.flightsByRunner(0).size === 0)) return;
      this.begin();
      void this.askAbout(leaders, RUNNING_MS);
    });
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.();
  }

  /** About the pages of these leaders that have been under way for `ageMs`. */
  async askAbout(leaders: readonly HostLeader[], ageMs: number): Promise<void> {
    const byRunner = new Map<string, { leader: HostLeader; refs: HandoutRef[] }[]>();
    for (const leader of leaders) {
      for (const [runner, refs] of leader.flightsByRunner(ageMs)) {
        const list = byRunner.get(runner);
        if (list === undefined) byRunner.set(runner, [{ leader, refs }]);
        else list.push({ leader, refs });
      }
    }
    await Promise.all([...byRunner].map(([runner, asked]) => this.#askRunner(runner, asked)));
  }

  async #askRunner(
    runner: string,
    asked: readonly { leader: HostLeader; refs: HandoutRef[] }[],
  ): Promise<void> {
    const groups = asked.map(({ leader, refs }) => ({
      partition: leader.partition,
      ballot: leader.ballot,
      refs: refs.slice(0, REFS_MAX),
    }));
    const reply = await this.#ports.ask(runner, groups);
    // Asked again in a second; the ring tells when it is gone.
    if (reply === undefined) return;
    if (reply === "gone") {
      for (const { leader, refs } of asked) for (const ref of refs) leader.lost(ref);
      return;
    }
    this.#ports.heardClock(runner, reply.nowMs);
    for (const [g, { leader }] of asked.entries()) {
      for (const [n, ref] of groups[g]!.refs.entries()) {
        const state = reply.states[g]?.[n];
        if (state === "no") leader.lost(ref);
        else if (typeof state === "number") leader.started(ref, state);
      }
    }
  }
}
