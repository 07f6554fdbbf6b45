/** Registers in memory: one state for all partitions, operations one after another. */
import { UnavailableError } from "../../src/errors.ts";
import type { Registers } from "../../src/node/registers.ts";
import type { Entry, Operation, Outcome } from "../../src/replication/register.ts";

export class MemoryRegisters implements Registers {
  readonly #entries = new Map<string, Entry>();
  #writes = 0;
  /** No leader answers. */
  isDown = false;

  async operate(_partition: number, operation: Operation): Promise<Outcome> {
    if (this.isDown) throw new UnavailableError("no leader answers");
    switch (operation.kind) {
      case "get":
        return { kind: "entries", entries: operation.keys.map((key) => this.#entries.get(key)) };
      case "scan": {
        const all = [...this.#entries.values()]
          .filter(({ key }) => key.startsWith(operation.prefix) && key > (operation.after ?? ""))
          .sort((a, b) => (a.key < b.key ? -1 : 1));
        return {
          kind: "scanned",
          entries: all.slice(0, operation.limit),
          more: all.length > operation.limit,
        };
      }
      case "batch": {
        for (const { key, is } of operation.conditions) {
          const found = this.#entries.get(key)?.version;
          const holds =
            is === "absent" ? found === undefined : is === "present" ? found !== undefined : found === is;
          if (!holds) return { kind: "conflict", failed: { key, found } };
        }
        const version = `1.a.${++this.#writes}`;
        for (const change of operation.changes) {
          if (change.kind === "delete") this.#entries.delete(change.key);
          else this.#entries.set(change.key, { key: change.key, version, value: change.value });
        }
        return { kind: "written", version };
      }
    }
  }

  crawlAtLeader(): Promise<never> {
    throw new UnavailableError("nothing is crawled here");
  }
}
