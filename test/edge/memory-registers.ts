/** Registers in memory: one state for all partitions, operations one after another. */
import { EventEmitter, once } from "node:events";
import { UnavailableError } from "../../src/errors.ts";
import type { LeaderAccess, LeaderQuestion, Registers } from "../../src/node/registers.ts";
import type { Entry, Operation, Outcome, WatchedChange } from "../../src/replication/register.ts";

const PARTITION_CHAR = 1;

type WatchOperation = Extract<Operation, { kind: "watch" }>;

export class MemoryRegisters implements Registers, LeaderAccess {
  // All changes, in order; those before #compacted can't be told any more.
  readonly #log: { readonly at: string; readonly change: WatchedChange }[] = [];
  #compacted = 0;
  #changed = new EventEmitter<{ change: [] }>().setMaxListeners(0);
  // By partition and key: what is placed elsewhere is not found here.
  readonly #entries = new Map<string, Entry>();
  readonly #outcomes = new Map<string, Outcome>();
  #writes = 0;
  /** No leader answers; copies of any age still do. */
  isDown = false;
  /** Milliseconds since the epoch, by which entries expire. */
  nowMs = (): number => Date.now();
  /** Each change is told nobody who watches: they have to begin anew. */
  isForgetful = false;
  /** How many batches have come. */
  batches = 0;

  /** How many entries there are, with those that have ended and were not read since. */
  get size(): number {
    return this.#entries.size;
  }

  async operate(partition: number, operation: Operation): Promise<Outcome> {
    const isStale = "stale" in operation && operation.stale === true;
    if (this.isDown && !isStale) throw new UnavailableError("no leader answers");
    const place = String.fromCharCode(partition);
    switch (operation.kind) {
      case "get":
        return { kind: "entries", entries: operation.keys.map((key) => this.#read(place + key)) };
      case "scan": {
        const all = [...this.#entries.keys()]
          .filter(
            (at) =>
              at.startsWith(place + operation.prefix) && at.slice(PARTITION_CHAR) > (operation.after ?? ""),
          )
          .sort()
          .flatMap((at) => this.#read(at) ?? []);
        return {
          kind: "scanned",
          entries: all.slice(0, operation.limit),
          more: all.length > operation.limit,
          version: `w${this.#log.length}`,
        };
      }
      case "batch": {
        this.batches++;
        const { requestId } = operation;
        const known = requestId === undefined ? undefined : this.#outcomes.get(place + requestId);
        const outcome = known ?? this.#batch(place, operation);
        if (requestId !== undefined) this.#outcomes.set(place + requestId, outcome);
        return outcome;
      }
      case "watch":
        return this.#watch(place, operation);
    }
  }

  askLeader<T>(_partition: number, { here }: LeaderQuestion<T>): Promise<T> {
    return this.isDown ? Promise.reject(new UnavailableError("no leader answers")) : here();
  }

  crawlAtLeader(): Promise<never> {
    throw new UnavailableError("nothing is crawled here");
  }

  #read(at: string): Entry | undefined {
    const entry = this.#entries.get(at);
    if (entry?.expiresAtMs === undefined || entry.expiresAtMs > this.nowMs()) return entry;
    this.#remove(at);
    return undefined;
  }

  #batch(place: string, { conditions, changes }: Extract<Operation, { kind: "batch" }>): Outcome {
    for (const { key, is } of conditions) {
      const found = this.#read(place + key)?.version;
      const holds =
        is === "absent" ? found === undefined : is === "present" ? found !== undefined : found === is;
      if (!holds) return { kind: "conflict", failed: { key, found } };
    }
    const version = `1.a/1.${++this.#writes}`;
    for (const change of changes) {
      const { kind, key } = change;
      if (kind === "delete") this.#remove(place + key);
      else {
        const { value, expiresAtMs } = change;
        const entry = { key, version, value, expiresAtMs };
        this.#entries.set(place + key, entry);
        this.#told(place + key, { kind: "put", entry });
      }
    }
    return { kind: "written", version };
  }

  async #watch(place: string, { prefix, from, waitMs }: WatchOperation): Promise<Outcome> {
    const first = from === undefined ? this.#log.length : Number(from.slice(1));
    const deadline = performance.now() + waitMs;
    for (;;) {
      if (first < this.#compacted) return { kind: "compacted" };
      const changes = this.#log
        .slice(first)
        .filter(({ at }) => at.startsWith(place + prefix))
        .map(({ change }) => change);
      const leftMs = deadline - performance.now();
      if (changes.length > 0 || leftMs <= 0 || from === undefined) {
        return { kind: "changed", changes, version: `w${this.#log.length}` };
      }
      await once(this.#changed, "change", { signal: AbortSignal.timeout(Math.ceil(leftMs)) }).catch(() => {});
      if (this.isDown) throw new UnavailableError("no leader answers");
    }
  }

  #remove(at: string): void {
    const key = at.slice(PARTITION_CHAR);
    if (this.#entries.delete(at)) this.#told(at, { kind: "delete", key, version: `1.a/1.${++this.#writes}` });
  }

  #told(at: string, change: WatchedChange): void {
    this.#log.push({ at, change });
    if (this.isForgetful) this.#compacted = this.#log.length;
    this.#changed.emit("change");
  }
}
