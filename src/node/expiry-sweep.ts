/**
 * Values and locks that have ended are gone when they are read; this reads those
 * that nobody asks for any more, so that they don't fill the disks for ever. A led
 * partition a minute: what ends is not told sooner by it, only cleared away.
 */
import type { Log } from "../log.ts";
import type { Operation, Outcome } from "../replication/register.ts";
import type { Clock } from "./clock.ts";
import type { KeyLayout } from "./key-layout.ts";

const PARTITION_MS = 60_000;
const PAGE_ENTRIES = 256;
/** Pauses after each page, as a multiple of how long that took. */
const REST_RATIO = 3;

export class ExpirySweep {
  readonly #layout: Pick<KeyLayout, "partitionCount" | "ending">;
  readonly #leads: (partition: number) => boolean;
  readonly #operate: (partition: number, operation: Operation) => Promise<Outcome>;
  readonly #clock: Clock;
  readonly #log: Log;
  #next = 0;
  #isStopped = false;
  #cancel: () => void = () => {};

  constructor(options: {
    readonly layout: Pick<KeyLayout, "partitionCount" | "ending">;
    readonly leads: (partition: number) => boolean;
    /** A scan removes what it finds ended. */
    readonly operate: (partition: number, operation: Operation) => Promise<Outcome>;
    readonly clock: Clock;
    readonly log: Log;
  }) {
    this.#layout = options.layout;
    this.#leads = options.leads;
    this.#operate = options.operate;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  start(): void {
    this.#after(PARTITION_MS, () => this.#sweepNext());
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancel();
  }

  #sweepNext(): void {
    const { partitionCount } = this.#layout;
    for (let looked = 0; looked < partitionCount; looked++) {
      const partition = (this.#next + looked) % partitionCount;
      if (!this.#leads(partition)) continue;
      this.#next = (partition + 1) % partitionCount;
      return this.#page(partition, [...this.#layout.ending], undefined);
    }
    this.start();
  }

  #page(partition: number, prefixes: string[], after: string | undefined): void {
    const [prefix, ...rest] = prefixes;
    if (prefix === undefined) return this.start();
    const startedMs = this.#clock.now();
    const scan = {
      kind: "scan",
      prefix,
      limit: PAGE_ENTRIES,
      ...(after === undefined ? {} : { after }),
    } as const;
    this.#operate(partition, scan).then(
      (outcome) => {
        const { entries, more } = outcome.kind === "scanned" ? outcome : { entries: [], more: false };
        const last = entries.at(-1)?.key ?? after;
        this.#after((this.#clock.now() - startedMs) * REST_RATIO, () => {
          if (more) this.#page(partition, prefixes, last);
          else this.#page(partition, rest, undefined);
        });
      },
      (error: unknown) => {
        // It is led elsewhere by now, or can't be read: whoever leads it comes by again.
        this.#log.debug("sweep given up", { partition, error });
        this.start();
      },
    );
  }

  #after(ms: number, callBack: () => void): void {
    if (this.#isStopped) return;
    this.#cancel = this.#clock.after(ms, callBack);
  }
}
