/**
 * A disk in virtual time, for one replica: writes are seen at once and become
 * durable in order, later; a crash loses those that are not, or keeps some of
 * which nobody was told.
 */
import type { EntryStore, HeldEntry, ReplicaMeta } from "../../src/replication/replica-state.ts";

export type StoreWrite = Parameters<EntryStore["write"]>[0];

/** What stands on the disk: the meta record, and entries by generation. */
export class DiskImage {
  meta: ReplicaMeta | undefined;
  readonly generations = new Map<number, Map<string, HeldEntry>>();

  copy(): DiskImage {
    const copy = new DiskImage();
    copy.meta = this.meta;
    for (const [generation, entries] of this.generations) copy.generations.set(generation, new Map(entries));
    return copy;
  }

  apply({ generation, changes, meta }: Omit<StoreWrite, "token">): void {
    const entries = this.generations.get(generation) ?? new Map<string, HeldEntry>();
    this.generations.set(generation, entries);
    for (const change of changes) {
      if (change.kind === "put") entries.set(change.key, change.entry);
      else entries.delete(change.key);
    }
    if (meta !== undefined) this.meta = meta;
  }

  get entries(): ReadonlyMap<string, HeldEntry> {
    return this.generations.get(this.meta?.generation ?? -1) ?? new Map();
  }

  /** Keys after `after` that begin with `prefix`, in order. */
  scan(generation: number, prefix: string, after: string | undefined): (HeldEntry & { key: string })[] {
    return [...(this.generations.get(generation) ?? [])]
      .filter(([key]) => key.startsWith(prefix) && (after === undefined || key > after))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, entry]) => ({ key, ...entry }));
  }
}

/** There is something, but not what was written. */
export class Unreadable extends Error {}

interface Pending {
  readonly apply: (image: DiskImage) => void;
  readonly done: () => void;
}

export class SimulatedDisk {
  current = new DiskImage();
  durable = new DiskImage();
  #pending: Pending[] = [];
  /** An entry of a generation that can't be read any more. */
  damaged: { readonly generation: number; readonly key: string } | undefined;
  /** As it was at some moment. */
  oldCopy: DiskImage | undefined;

  get pending(): number {
    return this.#pending.length;
  }

  get isDamaged(): boolean {
    return this.damaged !== undefined;
  }

  /** @throws {Unreadable} it is the one that is damaged. */
  get(generation: number, key: string): HeldEntry | undefined {
    if (this.damaged?.generation === generation && this.damaged.key === key) throw new Unreadable(key);
    return this.current.generations.get(generation)?.get(key);
  }

  write(write: Omit<StoreWrite, "token">, done: () => void): void {
    this.current.apply(write);
    this.#pending.push({ apply: (image) => image.apply(write), done });
  }

  dropGeneration(generation: number): void {
    if (this.damaged?.generation === generation) this.damaged = undefined;
    this.current.generations.delete(generation);
    this.#pending.push({ apply: (image) => image.generations.delete(generation), done: () => {} });
  }

  /** The oldest `count` waiting writes are durable now. */
  sync(count: number): void {
    const synced = this.#pending.splice(0, count);
    for (const { apply } of synced) apply(this.durable);
    for (const { done } of synced) done();
  }

  /** The power goes; the first `kept` waiting writes had reached the disk. */
  crash(kept: number): void {
    for (const { apply } of this.#pending.splice(0, kept)) apply(this.durable);
    this.#pending = [];
    this.current = this.durable.copy();
  }
}
