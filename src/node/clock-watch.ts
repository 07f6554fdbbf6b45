/**
 * Whether this server's clock, and those of the others, tell about the same time.
 *
 * Expiry and leases need the time of day, and a clock that jumps would end them an
 * hour early. So a jump is not believed until the others' clocks say the same: until
 * then time goes on from before it. A server whose clock is off tells so, and leads
 * nothing while others can: what it stamps would be wrong.
 */
import type { Log } from "../log.ts";
import type { NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { Clock } from "./clock.ts";

/** From the median of the others; what a leader may be wrong by. */
const ERROR_MS_MAX = 30_000;
const LOOK_EVERY_MS = 1_000;
/** Where no ping comes that would be an occasion. */
const LOOK_ALONE_EVERY_MS = 5_000;
/** What was heard before that is past. */
const READING_MS_MAX = 5_000;
/** Fewer say nothing: of two clocks either may be wrong. Nor do those of less than half of the others. */
const READINGS_MIN = 2;
/** By then the others have seen it too: before, they would give back what they are given. */
const GIVE_UP_AFTER_MS = 12_000;

/** Of another server's clock. */
interface Reading {
  /** What its time of day is ahead of this server's monotonic clock, but for the way here. */
  readonly baseMs: number;
  readonly heardMs: number;
}

export interface ClockWatchParts {
  readonly nodeId: NodeId;
  readonly clock: Clock;
  readonly ring: { members(): Member[]; isSuspected(nodeId: NodeId): boolean };
  /** These are to lead only where nobody else can. */
  changed(off: ReadonlySet<NodeId>): void;
  readonly log: Log;
}

export class ClockWatch {
  readonly #parts: ClockWatchParts;
  /** What the time of day is ahead of the monotonic clock, as far as it is believed. */
  #baseMs: number;
  /** The same of the clock as it is, at the last look. */
  #seenMs: number;
  /** How far this clock is ahead of the others, when that is too far. */
  #aheadMs: number | undefined;
  #offSinceMs = 0;
  /** Other servers whose clocks are off. */
  #others: ReadonlySet<NodeId> = new Set();
  /** What was told last. */
  #off: ReadonlySet<NodeId> = new Set();
  readonly #readings = new Map<NodeId, Reading>();
  /** Readings from before the last jump of this clock don't tell whether the others' jumped too. */
  #jumpedMs = Number.NEGATIVE_INFINITY;
  /** Of the last look that told something. */
  #lookedMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: ClockWatchParts) {
    this.#parts = parts;
    this.#baseMs = this.#seenMs = this.#ownBaseMs();
  }

  /** Milliseconds since the epoch; goes on evenly over a jump of this machine's clock that the others don't share. */
  readonly wall = (): number => {
    const ownMs = this.#ownBaseMs();
    if (Math.abs(ownMs - this.#baseMs) <= ERROR_MS_MAX && this.#aheadMs === undefined) this.#baseMs = ownMs;
    return this.#baseMs + this.#parts.clock.now();
  };

  /** For people; undefined while all is well. */
  get problem(): string | undefined {
    if (this.#aheadMs === undefined) return undefined;
    const seconds = Math.round(Math.abs(this.#aheadMs) / 1000);
    const direction = this.#aheadMs > 0 ? "ahead of" : "behind";
    return `its clock is ${seconds} s ${direction} those of the other servers: set it right, best by NTP`;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), LOOK_ALONE_EVERY_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** A server told what its clock says, in milliseconds since the epoch: it does so with each ping. */
  heard(nodeId: NodeId, epochMs: number): void {
    const nowMs = this.#parts.clock.now();
    this.#readings.set(nodeId, { baseMs: epochMs - nowMs, heardMs: nowMs });
    if (nowMs - this.#lookedMs >= LOOK_EVERY_MS) this.look();
  }

  #ownBaseMs(): number {
    return this.#parts.clock.wall() - this.#parts.clock.now();
  }

  /** About once a second; every 5 s while nothing is heard. */
  look(): void {
    const nowMs = this.#parts.clock.now();
    const ownMs = this.#ownBaseMs();
    if (Math.abs(ownMs - this.#seenMs) > ERROR_MS_MAX) this.#jumpedMs = nowMs;
    this.#seenMs = ownMs;
    this.#check(nowMs);
    this.#tell();
  }

  #check(nowMs: number): void {
    const { nodeId, ring, clock, log } = this.#parts;
    const known = ring.members().filter((one) => one.nodeId !== nodeId);
    if (known.length < READINGS_MIN) {
      this.#aheadMs = undefined;
      this.#baseMs = this.#ownBaseMs();
      this.#lookedMs = nowMs;
      return;
    }
    const live = known.filter((one) => !ring.isSuspected(one.nodeId));
    const sinceMs = Math.max(this.#jumpedMs, nowMs - READING_MS_MAX);
    const heard: { readonly nodeId: NodeId; readonly baseMs: number }[] = [];
    for (const [id, { baseMs, heardMs }] of this.#readings) {
      if (heardMs < nowMs - READING_MS_MAX) this.#readings.delete(id);
      else if (heardMs >= sinceMs && !ring.isSuspected(id)) heard.push({ nodeId: id, baseMs });
    }
    if (heard.length < READINGS_MIN || heard.length <= live.length / 2) return;
    this.#lookedMs = nowMs;
    const medianMs = medianOf(heard.map(({ baseMs }) => baseMs));
    const isOff = (baseMs: number) => Math.abs(baseMs - medianMs) > ERROR_MS_MAX;
    const ownMs = this.#ownBaseMs();
    const wasOff = this.#aheadMs !== undefined;
    this.#aheadMs = isOff(ownMs) ? ownMs - medianMs : undefined;
    if (this.#aheadMs === undefined) this.#baseMs = ownMs;
    else if (isOff(this.#baseMs)) this.#baseMs = medianMs;
    if (this.#aheadMs !== undefined && !wasOff) {
      this.#offSinceMs = clock.now();
      log.error("clock is off", { aheadMs: Math.round(this.#aheadMs) });
    }
    if (this.#aheadMs === undefined && wasOff) log.info("clock is right again", {});
    this.#others = new Set(heard.filter(({ baseMs }) => isOff(baseMs)).map((one) => one.nodeId));
  }

  #tell(): void {
    const { nodeId, clock, changed } = this.#parts;
    const off = new Set(this.#others);
    if (this.#aheadMs !== undefined && clock.now() - this.#offSinceMs >= GIVE_UP_AFTER_MS) off.add(nodeId);
    if (off.size === this.#off.size && [...off].every((one) => this.#off.has(one))) return;
    this.#off = off;
    changed(off);
  }
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.floor(middle - 0.5)]! + sorted[Math.floor(middle)]!) / 2;
}
