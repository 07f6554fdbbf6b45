/** How far a crawl is: one line that is drawn again on a terminal, else a plain line every few seconds. */
import type { JobStats } from "../job/job-spec.ts";
import { shortened } from "./terminal.ts";

const DRAW_MS_MIN = 100;
const PLAIN_MS = 3_000;
const BAR_CHARS = 20;
const SERVERS_SHOWN = 5;

export class Progress {
  readonly #out: NodeJS.WriteStream;
  readonly #isTerminal: boolean;
  readonly #startedMs = performance.now();
  #lastMs = 0;
  #isDrawn = false;
  #servers: Readonly<Record<string, number>> = {};
  #active = new Set<string>();

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#isTerminal = out.isTTY === true;
  }

  show(stats: JobStats): void {
    const nowMs = performance.now();
    if (nowMs - this.#lastMs < (this.#isTerminal ? DRAW_MS_MIN : PLAIN_MS)) return;
    this.#lastMs = nowMs;
    this.#active = new Set(
      Object.keys(stats.servers).filter((id) => stats.servers[id] !== (this.#servers[id] ?? 0)),
    );
    this.#servers = stats.servers;
    const text = this.#text(stats, nowMs);
    if (!this.#isTerminal) {
      this.#out.write(`${text}\n`);
      return;
    }
    this.#out.write(`\r\x1b[2K${shortened(text, (this.#out.columns || 80) - 1)}`);
    this.#isDrawn = true;
  }

  /** Leaves the line free for other text. */
  end(): void {
    if (this.#isDrawn) this.#out.write("\r\x1b[2K");
    this.#isDrawn = false;
  }

  #text(stats: JobStats, nowMs: number): string {
    const settled = stats.done + stats.failed + stats.skipped;
    const figures = [
      `${stats.results} pages`,
      `${stats.discovered} found`,
      `${stats.failed} failed`,
      `${stats.pagesPerSecond.toFixed(1)}/s`,
      serverText(stats.servers, this.#active),
      waitingText(stats),
    ].filter((figure) => figure !== "");
    const seconds = `${((nowMs - this.#startedMs) / 1000).toFixed(0)} s`;
    const head = this.#isTerminal ? bar(stats.discovered === 0 ? 0 : settled / stats.discovered) : seconds;
    return `${head}  ${figures.join("  ")}`;
  }
}

function bar(part: number): string {
  const full = Math.round(Math.min(1, part) * BAR_CHARS);
  return `[${"#".repeat(full)}${".".repeat(BAR_CHARS - full)}]`;
}

/** Pages by server, those that moved since the last line marked. */
function serverText(servers: Readonly<Record<string, number>>, active: ReadonlySet<string>): string {
  const shown = Object.entries(servers)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, SERVERS_SHOWN)
    .map(([id, pages]) => `${id.slice(0, 4)}${active.has(id) ? "*" : " "}${pages}`);
  return shown.length === 0 ? "" : `servers ${shown.join(" ")}`;
}

function waitingText({ waitingOn }: JobStats): string {
  const [first] = waitingOn;
  return first === undefined || waitingOn.length > 9 ? "" : `waiting: ${first.reason}`;
}
