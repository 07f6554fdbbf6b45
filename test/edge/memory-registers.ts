/** Registers in memory: one state for all partitions, operations one after another. */
import { UnavailableError } from "../../src/errors.ts";
import type { LeaderAccess, LeaderQuestion, Registers } from "../../src/node/registers.ts";
import type { Entry, Operation, Outcome } from "../../src/replication/register.ts";

const PARTITION_CHAR = 1;

export class MemoryRegisters implements Registers, LeaderAccess {
  // By partition and key: what is placed elsewhere is not found here.
  readonly #entries = new Map<string, Entry>();
  readonly #outcomes = new Map<string, Outcome>();
  #writes = 0;
  /** No leader answers. */
  isDown = false;
  /** Milliseconds since the epoch, by which entries expire. */
  nowMs = (): number => Date.now();
  /** How many batches have come. */
  batches = 0;

  async operate(partition: number, operation: Operation): Promise<Outcome> {
    if (this.isDown) throw new UnavailableError("no leader answers");
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
      default:
        throw new UnavailableError("nothing is watched here");
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
    this.#entries.delete(at);
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
      if (kind === "delete") this.#entries.delete(place + key);
      else {
        const { value, expiresAtMs } = change;
        this.#entries.set(place + key, { key, version, value, expiresAtMs });
      }
    }
    return { kind: "written", version };
  }
}
