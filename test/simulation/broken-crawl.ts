/**
 * The crawl with one rule broken, for the simulation to find. The sources know
 * nothing of it: a break replaces text while modules are loaded, into a graph of
 * modules of its own.
 */
import { type Edit, loadBrokenModule } from "./broken-module.ts";
import type { simulateOne } from "./crawl-simulation.ts";

export interface CrawlBreak {
  /** What no longer holds. */
  readonly name: string;
  /** Tried first: it has noticed the break before. What changes in the code may give a seed another life. */
  readonly seed: number;
  readonly edits: readonly Edit[];
}

export interface Found {
  readonly seed: number;
  /** How many were tried. */
  readonly tries: number;
  readonly violation: string;
}

/** A crawl that is stuck need not be watched for long. */
const VIRTUAL_MS_MAX = 600_000;

/** @throws {AssertionError} a text to be replaced does not stand in its file exactly once. */
export async function loadBrokenCrawl({ name, edits }: CrawlBreak): Promise<typeof simulateOne> {
  const module = (await loadBrokenModule(name, edits, "test/simulation/crawl-simulation.ts")) as {
    simulateOne: typeof simulateOne;
  };
  return module.simulateOne;
}

/** The first seed that notices the break; undefined: none of them. */
export async function findCrawlBreak(
  broken: CrawlBreak,
  first: number,
  seedsMax: number,
): Promise<Found | undefined> {
  const run = await loadBrokenCrawl(broken);
  const seeds = [broken.seed, ...Array.from({ length: seedsMax - 1 }, (_, n) => first + n)];
  // An invariant that the code asserts itself ends what was being done: that counts as noticed.
  let thrown: Error | undefined;
  const notice = (error: Error) => {
    thrown ??= error;
  };
  process.on("uncaughtException", notice);
  try {
    for (const [n, seed] of seeds.entries()) {
      const { violations } = await run(seed, VIRTUAL_MS_MAX);
      const violation = thrown?.message ?? violations[0];
      if (violation !== undefined) return { seed, tries: n + 1, violation };
    }
    return undefined;
  } finally {
    process.off("uncaughtException", notice);
  }
}

const F = "src/frontier/";
const N = "src/node/";
const J = "src/job/";

export const CRAWL_BREAKS: readonly CrawlBreak[] = [
  {
    name: "a crawl is over after one round",
    seed: 89,
    edits: [
      [
        `${J}completion.ts`,
        `    this.#first = { disturbances: begun, counts };\n    return "again";`,
        `    this.#first = { disturbances: begun, counts };\n    return "finished";`,
      ],
      [`${J}completion.ts`, `    if (begun !== this.#disturbances) return "again";\n`, ""],
      [
        `${J}completion.ts`,
        "return this.#first !== undefined && this.#first.disturbances === this.#disturbances;",
        "return true;",
      ],
    ],
  },
  {
    name: "credits had are told as a difference",
    seed: 79,
    edits: [
      [
        `${N}host-leader.ts`,
        "this.#frontier.credited(jobId, reply.granted);",
        "this.#frontier.credited(jobId, (this.#frontier.countsOf(jobId)?.granted ?? 0) + reply.granted - granted);",
      ],
    ],
  },
  {
    name: "credits given back are told as a difference",
    seed: 1,
    edits: [
      [
        `${N}job-leader.ts`,
        "returned: counts.returned });",
        "returned: account.returned + Math.max(0, counts.returned - counts.spent) });",
      ],
    ],
  },
  {
    name: "credits are given back before that is durable",
    seed: 13,
    edits: [
      [
        `${F}settlement.ts`,
        "if (idle > 0) share.counts.returned += idle;\n    turn.draft.counts(share);",
        "if (idle > 0) turn.draft.effects.length += 0;",
      ],
      [
        `${N}host-leader.ts`,
        `return { kind: "counted", counts: this.#committed.get(jobId) ?? null };`,
        `const told = this.#committed.get(jobId);\n    return { kind: "counted", counts: told === undefined ? null : { ...told, returned: told.granted - told.spent } };`,
      ],
    ],
  },
  {
    name: "pages are handed out without a credit",
    seed: 1,
    edits: [[`${F}hand-out.ts`, "if (share.free <= 0) continue;", ""]],
  },
  {
    name: "pages are handed out without a confirmation",
    seed: 1,
    edits: [
      [
        `${F}job-share.ts`,
        `return this.view?.status === "running" && this.confirmationAgeMs(nowMs) <= ageMsMax;`,
        `return this.view?.status === "running";`,
      ],
    ],
  },
  {
    name: "offers and reports are accepted without a confirmation",
    seed: 1,
    edits: [
      [
        `${F}job-share.ts`,
        "isOpen(this.view.status) && this.confirmationAgeMs(nowMs) <= ageMsMax;",
        "isOpen(this.view.status);",
      ],
    ],
  },
  {
    name: "a page is settled before the owners of its links have them",
    seed: 1,
    edits: [
      [
        `${N}link-placement.ts`,
        `if (foreign.length > 0 && (await this.#ports.offer(ref.jobId, foreign)) === "refused") return undefined;`,
        "if (foreign.length > 0) void this.#ports.offer(ref.jobId, foreign);",
      ],
    ],
  },
  {
    name: "pages leave before their hand-out is durable",
    seed: 1,
    edits: [
      [
        `${N}host-leader.ts`,
        "    if (writes.length > 0) await this.#store.write(writes);\n    if (this.#isEnded)",
        "    for (const effect of effects) this.#perform(effect);\n    if (writes.length > 0) await this.#store.write(writes);\n    effects = [];\n    if (this.#isEnded)",
      ],
    ],
  },
  {
    name: "the pace is not stored",
    seed: 2,
    edits: [
      [
        `${F}hand-out.ts`,
        "if (host.pace.isDirty && turn.draft.hasRoom(1)) {",
        "if (host.pace.isDirty && turn.draft.hasRoom(1_000_000)) {",
      ],
    ],
  },
  {
    name: "a new leader does not wait as long as the one before might have",
    seed: 2,
    edits: [
      [
        `${F}politeness.ts`,
        "const untilMs = nowMs + takeoverWaitMs(record, START_WITHIN_MS_MAX, wallMs);",
        "const untilMs = nowMs;",
      ],
    ],
  },
  {
    name: "a break that a host asked for is taken for over by the next leader's clock",
    seed: 30,
    edits: [[`${F}politeness.ts`, "record.untilMs - wallMs + CLOCK_ERROR_MS);", "record.untilMs - wallMs);"]],
  },
  {
    name: "a Retry-After is not stored",
    seed: 30,
    edits: [[`${F}politeness.ts`, "untilMs: leftMs > 0 ? wallMs + leftMs : 0,", "untilMs: 0,"]],
  },
  {
    name: "a runner starts a page however late",
    seed: 1,
    edits: [
      [
        `${N}runner.ts`,
        "startBefore: message.runnerTimeMs + message.startWithinMs,",
        "startBefore: Number.POSITIVE_INFINITY,",
      ],
    ],
  },
  {
    name: "a hand-out whose start is unknown counts from its decision",
    seed: 8,
    edits: [
      [
        `${F}politeness.ts`,
        "const start = flight.startedAtMs ?? flight.decidedAtMs + flight.startWithinMs;\n        at",
        "const start = flight.startedAtMs ?? flight.decidedAtMs;\n        at",
      ],
    ],
  },
  {
    name: "a page of which nothing was heard was never asked for",
    seed: 1,
    edits: [
      [
        `${F}flights.ts`,
        "const wasStarted = pace.isKnownStarted(flightId(ref));\n    pace.ended(flightId(ref));",
        "const wasStarted = pace.isKnownStarted(flightId(ref));\n    pace.notStarted(flightId(ref));",
      ],
    ],
  },
  {
    name: "the time on a runner's clock is that of the leader",
    seed: 1,
    edits: [
      [
        `${N}work-sharing.ts`,
        "return { nodeId: best.nodeId, timeMs: best.peer.timeMs };",
        "return { nodeId: best.nodeId, timeMs: this.#clock.now() };",
      ],
    ],
  },
  {
    name: "a part of a large host takes in links by itself",
    seed: 5,
    edits: [
      [
        `${N}link-placement.ts`,
        "const isOwn = this.#ports.layout.hostPartition(link.host) === this.#partition;",
        "const isOwn = this.#ports.layout.hostPartition(link.host) === this.#partition || link.host === ref.host;",
      ],
    ],
  },
  {
    name: "pages for the parts of a large host are accepted before these have them",
    seed: 17,
    edits: [
      [
        `${N}host-leader.ts`,
        `if ((await this.#ports.offerParts(jobId, pages)) === "accepted") this.#frontier.forwarded(id);`,
        "void this.#ports.offerParts(jobId, pages);\n        if (!this.#isEnded) this.#frontier.forwarded(id);",
      ],
    ],
  },
  {
    name: "a part that got pages while it was asked is taken for empty",
    seed: 1,
    edits: [[`${F}host-spread.ts`, "part.isEmpty = !part.isFilled;", "part.isEmpty = true;"]],
  },
  {
    name: "a new leader of a large host asks no part",
    seed: 5,
    edits: [
      [
        `${F}frontier.ts`,
        "if (full) this.#state.spread(share, host, true);",
        "if (full) this.#state.spread(share, host, false);",
      ],
    ],
  },
  {
    name: "a part without a credit asks how the job is",
    seed: 1,
    edits: [[`${F}part-hand-out.ts`, "if (share.free <= 0) break;\n", "\n"]],
  },
  {
    name: "pages of parts leave whenever they come",
    seed: 1,
    edits: [[`${F}part-hand-out.ts`, "if (readyAtMs > nowMs) {", "if (readyAtMs > Number.MAX_VALUE) {"]],
  },
];
