/**
 * The store without a disk, for simulators: writes take effect at once and become
 * durable when told so; a crash leaves what was durable.
 */
import assert from "node:assert/strict";
import { UnavailableError } from "../errors.ts";
import { OrderedMap } from "./ordered-map.ts";
import { prefixEnd } from "./record-table.ts";
import type { Store, StoreBatch, StoredEntry, StoreKey, StoreSnapshot } from "./store.ts";

interface Waiting {
  readonly changes: readonly (readonly [key: string, entry: StoredEntry | undefined])[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class MemoryStore implements Store {
  readonly #byHand: boolean;
  // Same keys in both; `#durable` and then `#waiting` give `#current`.
  #current = new OrderedMap<StoredEntry>();
  #durable = new OrderedMap<StoredEntry>();
  #waiting: Waiting[] = [];
  #failure: UnavailableError | undefined;

  /** @param options.durable `soon`: at the end of the turn; `byHand`: when `flush` is called. */
  constructor(options: { readonly durable: "soon" | "byHand" } = { durable: "soon" }) {
    this.#byHand = options.durable === "byHand";
  }

  /** Batches handed over and not yet durable. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Makes the first `count` of the waiting batches durable; all, when left out. */
  flush(count: number = this.#waiting.length): void {
    for (const { changes, resolve } of this.#waiting.splice(0, count)) {
      apply(this.#durable, changes);
      resolve();
    }
  }

  /**
   * The power goes: what was not durable is gone, but for the first `kept` waiting
   * batches, which reached the disk though nobody was told. Promises of waiting
   * writes never settle. The store then is as it would be after opening it again.
   */
  crash(kept = 0): void {
    for (const { changes } of this.#waiting.slice(0, kept)) apply(this.#durable, changes);
    this.#waiting = [];
    this.#failure = undefined;
    this.#current = this.#durable.copy();
  }

  /** The disk fails: all waiting writes and all further ones are rejected, until `crash`. */
  fail(cause?: unknown): void {
    this.#failure = new UnavailableError("the store can't be written any more", { cause });
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }

  write({ partition, generation, changes, meta, claim }: StoreBatch): Promise<void> {
    const prefix = entryPrefix(partition, generation);
    const all: [string, StoredEntry | undefined][] = changes.map((change) => {
      assert(change.key.length >= 1 && change.key.length <= 512 && !/[^\0-\xff]/.test(change.key));
      return [prefix + change.key, change.kind === "put" ? change.entry : undefined];
    });
    if (meta !== undefined) all.push([metaKey(partition), { version: "", value: meta }]);
    if (claim !== undefined) all.push([claimKey(partition), { version: "", value: claim }]);
    return this.#commit(all);
  }

  get(partition: number, generation: number, key: StoreKey): StoredEntry | undefined {
    return this.#current.get(entryPrefix(partition, generation) + key);
  }

  meta(partition: number): Uint8Array | undefined {
    return this.#current.get(metaKey(partition))?.value;
  }

  claim(partition: number): Uint8Array | undefined {
    return this.#current.get(claimKey(partition))?.value;
  }

  partitions(): number[] {
    return [...this.#current.range(META, prefixEnd(META))].map(
      ([key]) => (key.charCodeAt(1) << 8) | key.charCodeAt(2),
    );
  }

  snapshot(): StoreSnapshot {
    const entries = this.#current.copy();
    return {
      scan: async (partition, generation, { prefix, after, limit }) => {
        const start = entryPrefix(partition, generation);
        const from = after !== undefined && after >= prefix ? `${start + after}\0` : start + prefix;
        return entries
          .slice(from, prefixEnd(start + prefix), limit)
          .map(([key, entry]) => ({ ...entry, key: key.slice(start.length) }));
      },
      close: async () => {},
    };
  }

  dropGeneration(partition: number, generation: number): Promise<void> {
    return this.#commit(this.#deletions(entryPrefix(partition, generation)));
  }

  dropPartition(partition: number): Promise<void> {
    const deletions = this.#deletions(ENTRY + uint16(partition));
    return this.#commit([[metaKey(partition), undefined], [claimKey(partition), undefined], ...deletions]);
  }

  async close(): Promise<void> {
    this.flush();
    this.#failure ??= new UnavailableError("the store is closed");
  }

  #deletions(prefix: string): [string, undefined][] {
    return [...this.#current.range(prefix, prefixEnd(prefix))].map(([key]) => [key, undefined]);
  }

  #commit(changes: Waiting["changes"]): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    apply(this.#current, changes);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ changes, resolve, reject });
      if (!this.#byHand && this.#waiting.length === 1) queueMicrotask(() => this.flush());
    });
  }
}

function apply(entries: OrderedMap<StoredEntry>, changes: Waiting["changes"]): void {
  for (const [key, entry] of changes) {
    if (entry === undefined) entries.delete(key);
    else entries.set(key, entry);
  }
}

const META = "m";
const CLAIM = "c";
const ENTRY = "e";

function uint16(value: number): string {
  return String.fromCharCode(value >>> 8, value & 0xff);
}

function metaKey(partition: number): string {
  return META + uint16(partition);
}

function claimKey(partition: number): string {
  return CLAIM + uint16(partition);
}

function entryPrefix(partition: number, generation: number): string {
  return ENTRY + uint16(partition) + uint16(generation >>> 16) + uint16(generation & 0xffff);
}
