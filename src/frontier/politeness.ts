/**
 * The pace of one host: when may its next request start, and how many may be
 * under way. One leader keeps it for all jobs and the whole cluster.
 *
 * The delay counts from the *start* of a request at the site, not from its
 * hand-out: a hand-out whose start is not known yet is taken for started at the
 * last moment at which its runner could. All times within a term are monotonic
 * milliseconds of the leader; what outlives the term is a duration, because the
 * next leader's clock is another one.
 */
import { z } from "zod";

/** How long after its decision a hand-out may still start, at most, on links below 0.5 s. */
export const START_WITHIN_MS_MAX = 500;
/** Twice the clock error that a server is let live with. */
export const CLOCK_ERROR_MS = 60_000;
const BACKOFF_MS_MIN = 1_000;
const BACKOFF_MS_MAX = 60_000;
/** A site that asks for more is asked again after this. */
export const RETRY_AFTER_MS_MAX = 24 * 3_600_000;
/** Broken tries in a row after which the host itself is taken to be down. */
const BROKEN_MAX = 5;
/** A host answers us for at most one part in so many of its time. */
const THROTTLE_FACTOR = 2;
/** However slow a host is, it is asked again after this, or after the delay if that is longer. */
export const THROTTLE_MS_MAX = 30_000;
/** Steps of a throttled delay, lest each answer changes it. */
const THROTTLE_STEP_MS = 50;
/** How much the newest answer counts in what is known of the latency. */
const LATENCY_WEIGHT = 0.25;

export const paceRecordSchema = z.object({
  host: z.string(),
  /** The delay that the last request was followed by. */
  delayMs: z.number(),
  /** The host asked for a break until then (Unix time), of that length. 0: none. */
  untilMs: z.number(),
  forMs: z.number(),
  reason: z.string(),
  refusals: z.int().nonnegative(),
  /** Until the head of an answer arrived, smoothed; 0: not known. */
  latencyMs: z.number().nonnegative().default(0),
  /** Tries in a row that had no answer at all, and for how long that had been so. */
  broken: z.int().nonnegative().default(0),
  brokenForMs: z.number().nonnegative().default(0),
});
export type PaceRecord = z.output<typeof paceRecordSchema>;

interface Flight {
  readonly decidedAtMs: number;
  readonly startWithinMs: number;
  startedAtMs: number | undefined;
}

/** How long a new leader waits before its first request to a host: as long as anything its predecessor may have decided. */
export function takeoverWaitMs(record: PaceRecord, startWithinMs: number, wallMs: number): number {
  const breakMs = Math.min(record.forMs, record.untilMs - wallMs + CLOCK_ERROR_MS);
  return startWithinMs + Math.max(record.delayMs, breakMs);
}

/** @param random in [0, 1): half of the time is left to chance. */
export function backoffMs(refusals: number, random: number): number {
  const full = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(refusals, 16));
  return Math.round(full * (0.5 + random / 2));
}

/**
 * The delay that holds for a host of this latency: the next request leaves after
 * twice the time in which the last ones were answered, so that a host that is slow
 * under load gets relief. Without a delay only the slots count, and a slow host
 * keeps them longer by itself.
 */
export function throttledDelayMs(delayMs: number, latencyMs: number): number {
  const leastMs = latencyMs * THROTTLE_FACTOR;
  if (delayMs === 0 || leastMs <= delayMs) return delayMs;
  const full = Math.ceil(leastMs / THROTTLE_STEP_MS) * THROTTLE_STEP_MS;
  return Math.max(delayMs, Math.min(THROTTLE_MS_MAX, full));
}

export class HostPace {
  readonly host: string;
  // Requests handed out whose end is not known.
  readonly #flights = new Map<string, Flight>();
  #lastStartMs = Number.NEGATIVE_INFINITY;
  #breakUntilMs = Number.NEGATIVE_INFINITY;
  #breakForMs = 0;
  #reason = "";
  #refusals = 0;
  #broken = 0;
  // Since when no try had an answer.
  #brokenSinceMs = Number.POSITIVE_INFINITY;
  #latencyMs = 0;
  #storedLatencyMs = 0;
  // Requests that no other may run beside.
  readonly #alone = new Set<string>();
  #delayMs = 0;
  // The store has a record of this host.
  #stored = false;
  /** Something changed that the next leader must know: goes into the next batch of any kind. */
  isDirty = false;

  constructor(host: string) {
    this.host = host;
  }

  get underWay(): number {
    return this.#flights.size;
  }

  get reason(): string {
    return this.#reason;
  }

  get latencyMs(): number {
    return this.#latencyMs;
  }

  /** A chain of requests is under way that keeps the delay by itself: nothing else may start. */
  get isTaken(): boolean {
    return this.#alone.size > 0;
  }

  /**
   * The circuit is open: the host has had no answer several times in a row. After
   * each break one request tries it; the first answer of any kind closes it.
   */
  get isDown(): boolean {
    return this.#broken >= BROKEN_MAX;
  }

  /** Down for `waitMsMax`, and tried again only after the present break: its pages need not wait for that. */
  isGivenUp(nowMs: number, waitMsMax: number): boolean {
    return this.isDown && nowMs < this.#breakUntilMs && nowMs - this.#brokenSinceMs >= waitMsMax;
  }

  /** Takes over from an earlier leader, or from an earlier time in memory. */
  restore(record: PaceRecord, nowMs: number, wallMs: number): void {
    this.#delayMs = record.delayMs;
    this.#refusals = Math.max(this.#refusals, record.refusals);
    this.#stored = true;
    this.#storedLatencyMs = record.latencyMs;
    if (this.#latencyMs === 0) this.#latencyMs = record.latencyMs;
    if (record.broken > this.#broken) {
      this.#broken = record.broken;
      this.#brokenSinceMs = Math.min(this.#brokenSinceMs, nowMs - record.brokenForMs);
    }
    // A late report may have asked for more already.
    const untilMs = nowMs + takeoverWaitMs(record, START_WITHIN_MS_MAX, wallMs);
    if (untilMs <= this.#breakUntilMs) return;
    this.#breakUntilMs = untilMs;
    this.#breakForMs = record.untilMs + CLOCK_ERROR_MS > wallMs ? record.forMs : 0;
    this.#reason = record.reason === "" ? "change of leader" : record.reason;
  }

  /** When the next request may be handed out, as far as is known now. */
  readyAtMs(delayMs: number): number {
    let at = this.#breakUntilMs;
    if (delayMs > 0) {
      at = Math.max(at, this.#lastStartMs + delayMs);
      for (const flight of this.#flights.values()) {
        const start = flight.startedAtMs ?? flight.decidedAtMs + flight.startWithinMs;
        at = Math.max(at, start + delayMs);
      }
    }
    return at;
  }

  /** A request is decided; it leaves once the batch that holds `delayMs` is committed. `alone`: see `isTaken`. */
  decide(id: string, nowMs: number, startWithinMs: number, delayMs: number, alone = false): void {
    if (alone) this.#alone.add(id);
    this.#flights.set(id, { decidedAtMs: nowMs, startWithinMs, startedAtMs: undefined });
    if (delayMs !== this.#delayMs || !this.#stored) {
      this.#delayMs = delayMs;
      this.isDirty = true;
    }
  }

  /** A request of an earlier leader's time, under way at `startedAtMs` or, at the latest, now. */
  adopt(id: string, nowMs: number): void {
    this.#flights.set(id, { decidedAtMs: nowMs, startWithinMs: START_WITHIN_MS_MAX, startedAtMs: undefined });
  }

  started(id: string, atMs: number): void {
    const flight = this.#flights.get(id);
    if (flight === undefined) return;
    // Several messages may tell of one start; the earliest is the nearest to it.
    flight.startedAtMs = Math.min(flight.startedAtMs ?? Number.POSITIVE_INFINITY, atMs);
  }

  isKnownStarted(id: string): boolean {
    return this.#flights.get(id)?.startedAtMs !== undefined;
  }

  /** The request is over. When its start was never heard of, it counts as late as it could have been. */
  ended(id: string): void {
    const flight = this.#flights.get(id);
    if (flight === undefined) return;
    this.#flights.delete(id);
    this.#alone.delete(id);
    const start = flight.startedAtMs ?? flight.decidedAtMs + flight.startWithinMs;
    this.#lastStartMs = Math.max(this.#lastStartMs, start);
  }

  /** The request never left and never will. */
  notStarted(id: string): void {
    this.#flights.delete(id);
    this.#alone.delete(id);
  }

  /** How long the host took to begin its answer. */
  answeredAfter(latencyMs: number): void {
    const old = this.#latencyMs;
    this.#latencyMs = old === 0 ? latencyMs : old + (latencyMs - old) * LATENCY_WEIGHT;
    // Stored when the delay that follows from it is another one than the next leader would find.
    const [now, stored] = [this.#latencyMs, this.#storedLatencyMs].map((ms) =>
      throttledDelayMs(this.#delayMs, ms),
    );
    if (Math.abs(now! - stored!) > stored! / 4) this.isDirty = true;
  }

  /** The host answered as it should. */
  answered(): void {
    this.#closeCircuit();
    if (this.#refusals === 0) return;
    this.#refusals = 0;
    this.isDirty = true;
  }

  /** 429 or 503: the host wants to be left alone, for as long as it said or ever longer. */
  refused(reason: string, retryAfterMs: number | null, nowMs: number, random: number): void {
    const forMs =
      retryAfterMs === null ? backoffMs(this.#refusals, random) : Math.min(retryAfterMs, RETRY_AFTER_MS_MAX);
    this.#refusals++;
    this.#closeCircuit();
    this.#pause(reason, forMs, nowMs);
  }

  /** No usable answer at all. Several in a row: the host is down, not the page. */
  broke(reason: string, nowMs: number, random: number): void {
    if (this.#broken === 0) this.#brokenSinceMs = nowMs;
    if (++this.#broken < BROKEN_MAX) return;
    this.#pause(`host does not answer: ${reason}`, backoffMs(this.#broken - BROKEN_MAX, random), nowMs);
  }

  record(nowMs: number, wallMs: number): PaceRecord {
    const leftMs = this.#breakUntilMs - nowMs;
    this.#stored = true;
    this.#storedLatencyMs = this.#latencyMs;
    return {
      host: this.host,
      delayMs: this.#delayMs,
      untilMs: leftMs > 0 ? wallMs + leftMs : 0,
      forMs: leftMs > 0 ? Math.max(this.#breakForMs, leftMs) : 0,
      reason: leftMs > 0 ? this.#reason : "",
      refusals: this.#refusals,
      latencyMs: this.#latencyMs,
      broken: this.#broken,
      brokenForMs: this.#broken === 0 ? 0 : Math.max(0, nowMs - this.#brokenSinceMs),
    };
  }

  #closeCircuit(): void {
    if (this.isDown) this.isDirty = true;
    this.#broken = 0;
    this.#brokenSinceMs = Number.POSITIVE_INFINITY;
  }

  #pause(reason: string, forMs: number, nowMs: number): void {
    this.isDirty = true;
    if (nowMs + forMs <= this.#breakUntilMs) return;
    this.#breakUntilMs = nowMs + forMs;
    this.#breakForMs = forMs;
    this.#reason = reason;
  }
}
