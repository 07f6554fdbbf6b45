/**
 * What robots.txt says, for one origin: fetched once for the whole cluster by the
 * leader of its host, kept at most a day (RFC 9309, 2.4).
 *
 * 4xx means that everything is allowed (2.3.1.3). Unreachable, 5xx (2.3.1.4) and,
 * stricter than the RFC, 429: the copy at hand if there is one, else the host
 * waits until it answers; after `robotsWaitMs` its pages are given up.
 */
import { z } from "zod";
import { RobotsFile } from "../robots/robots-file.ts";
import { backoffMs } from "./politeness.ts";

const KEPT_MS = 24 * 3_600_000;
/** How much longer an old copy serves while the file can't be had. */
const STALE_MS = 600_000;
const BARRED_MS = 10_000;
const RULES_KEPT_MAX = 16;
const NOT_FETCHED_MS = 100;

export const robotsRecordSchema = z.object({
  host: z.string(),
  origin: z.string(),
  /** Of the copy; null: there is none. */
  status: z.int().nullable(),
  text: z.string(),
  fetchedAtMs: z.number(),
  /** Unix time, and how long it was ahead when written. */
  expiresAtMs: z.number(),
  expiresForMs: z.number(),
  /** Unavailable without a copy since then (Unix time); null: available. */
  missingSinceMs: z.number().nullable(),
});
export type RobotsRecord = z.output<typeof robotsRecordSchema>;

export type RobotsAnswer =
  | { readonly kind: "allowed" }
  | { readonly kind: "disallowed" }
  /** Nobody has asked for it yet, or the copy is too old. */
  | { readonly kind: "fetch" }
  /** On its way, or asked for again at `atMs`. */
  | { readonly kind: "wait"; readonly atMs: number | undefined }
  /** Waited for in vain. */
  | { readonly kind: "unreachable" };

export class RobotsAccess {
  readonly host: string;
  readonly origin: string;
  readonly #waitMsMax: number;
  #copy: { status: number; text: string; expiresAtMs: number } | undefined;
  // By user agent; a job has one, so a handful.
  readonly #rules = new Map<string, RobotsFile>();
  #isFetching = false;
  #failures = 0;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #missingSinceMs: number | undefined;
  isDirty = false;

  constructor(host: string, origin: string, waitMsMax: number) {
    this.host = host;
    this.origin = origin;
    this.#waitMsMax = waitMsMax;
  }

  restore(record: RobotsRecord, nowMs: number, wallMs: number): void {
    const leftMs = Math.min(record.expiresAtMs - wallMs, record.expiresForMs);
    // One that is too old serves again if the file can't be had now.
    if (record.status !== null) {
      this.#copy = { status: record.status, text: record.text, expiresAtMs: nowMs + leftMs };
    }
    if (record.missingSinceMs !== null) {
      const missingMs = Math.max(0, Math.min(wallMs - record.missingSinceMs, this.#waitMsMax));
      this.#missingSinceMs = nowMs - missingMs;
    }
  }

  ask(url: string, userAgent: string, nowMs: number): RobotsAnswer {
    const copy = this.#copy;
    if (copy !== undefined && copy.expiresAtMs > nowMs) {
      return { kind: this.#rulesFor(copy.text, userAgent).isAllowed(url) ? "allowed" : "disallowed" };
    }
    if (this.#isFetching) return { kind: "wait", atMs: undefined };
    if (this.#missingSinceMs !== undefined && nowMs - this.#missingSinceMs >= this.#waitMsMax) {
      return { kind: "unreachable" };
    }
    return nowMs < this.#retryAtMs ? { kind: "wait", atMs: this.#retryAtMs } : { kind: "fetch" };
  }

  /** As the copy at hand names them, not checked to be URLs. */
  sitemaps(userAgent: string): readonly string[] {
    return this.#copy === undefined ? [] : this.#rulesFor(this.#copy.text, userAgent).sitemaps;
  }

  /** 0 while the rules are unknown. */
  crawlDelayMs(userAgent: string): number {
    if (this.#copy === undefined) return 0;
    return this.#rulesFor(this.#copy.text, userAgent).crawlDelayMs ?? 0;
  }

  fetching(): void {
    this.#isFetching = true;
  }

  /** The request did not leave: this server is busy, so not again at once. */
  notFetched(nowMs: number): void {
    this.#isFetching = false;
    this.#retryAtMs = nowMs + NOT_FETCHED_MS;
  }

  /** The origin can't be asked for anything, so there is nothing to obey: its pages fail by themselves, with the reason. */
  barred(nowMs: number): void {
    this.#isFetching = false;
    this.#rules.clear();
    this.#copy = { status: 0, text: "", expiresAtMs: nowMs + BARRED_MS };
  }

  /** @param status 0: no answer. */
  fetched(status: number, text: string, nowMs: number, random: number): void {
    this.#isFetching = false;
    this.isDirty = true;
    if (status === 0 || status === 429 || status >= 500) {
      if (this.#copy !== undefined) {
        this.#copy.expiresAtMs = nowMs + STALE_MS;
      } else {
        this.#missingSinceMs ??= nowMs;
        this.#retryAtMs = nowMs + backoffMs(this.#failures++, random);
      }
      return;
    }
    this.#failures = 0;
    this.#missingSinceMs = undefined;
    this.#rules.clear();
    const isFound = status >= 200 && status < 300;
    this.#copy = { status, text: isFound ? text : "", expiresAtMs: nowMs + KEPT_MS };
  }

  record(nowMs: number, wallMs: number): RobotsRecord {
    const copy = this.#copy;
    const leftMs = copy === undefined ? 0 : copy.expiresAtMs - nowMs;
    return {
      host: this.host,
      origin: this.origin,
      status: copy?.status ?? null,
      text: copy?.text ?? "",
      fetchedAtMs: wallMs,
      expiresAtMs: wallMs + leftMs,
      expiresForMs: leftMs,
      missingSinceMs: this.#missingSinceMs === undefined ? null : wallMs - (nowMs - this.#missingSinceMs),
    };
  }

  #rulesFor(text: string, userAgent: string): RobotsFile {
    let rules = this.#rules.get(userAgent);
    if (rules === undefined) {
      if (this.#rules.size >= RULES_KEPT_MAX) this.#rules.clear();
      rules = new RobotsFile(text, userAgent);
      this.#rules.set(userAgent, rules);
    }
    return rules;
  }
}
