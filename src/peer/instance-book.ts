/**
 * Which start of each member was seen last, and which are members no more.
 *
 * A data directory restored from an old copy has forgotten what it promised. Its
 * owner can be caught: it doesn't know of the starts that came after the copy, so
 * a peer that saw one of them misses it on the list that the member presents.
 * Best effort: a peer that never saw the later start can't know.
 */
import { z } from "zod";

export const instanceRecordSchema = z.object({
  nodeId: z.string(),
  incarnation: z.int().nonnegative(),
  instance: z.string(),
});
export type InstanceRecord = z.output<typeof instanceRecordSchema>;

export class InstanceBook {
  readonly #sizeMax: number;
  /** Least recently learned first. */
  readonly #seen = new Map<string, InstanceRecord>();
  #removed: ReadonlySet<string> = new Set();

  /** @param records as `export` gave them. Past `sizeMax` members the one learned longest ago is forgotten. */
  constructor(records: readonly InstanceRecord[] = [], sizeMax = 10_000) {
    this.#sizeMax = sizeMax;
    for (const record of records) this.#learn(record);
  }

  /** For persisting. */
  export(): InstanceRecord[] {
    return [...this.#seen.values()];
  }

  /** These were removed from the cluster: from now on nothing of theirs is taken, and nothing sent to them. */
  remove(nodeIds: ReadonlySet<string>): void {
    this.#removed = nodeIds;
  }

  isRemoved(nodeId: string): boolean {
    return this.#removed.has(nodeId);
  }

  /**
   * Whether this start of the member is the last one that was seen: what came from any other is dropped.
   * A start has one number for good; under another it would make its next starts look old.
   */
  isCurrent({ nodeId, incarnation, instance }: InstanceRecord): boolean {
    if (this.#removed.has(nodeId)) return false;
    const last = this.#seen.get(nodeId);
    return last?.instance === instance && last.incarnation === incarnation;
  }

  /**
   * A member presents itself. "stale": it doesn't know of a start that was seen
   * here, so its memory is older than what others were told; nothing is learned.
   *
   * @param earlier its instances before this one.
   */
  present(candidate: InstanceRecord, earlier: readonly string[]): "current" | "stale" {
    const last = this.#seen.get(candidate.nodeId);
    if (last?.instance === candidate.instance) {
      if (candidate.incarnation !== last.incarnation) return "stale";
    } else if (last !== undefined) {
      if (!earlier.includes(last.instance) || candidate.incarnation <= last.incarnation) return "stale";
    }
    this.#learn(candidate);
    return "current";
  }

  #learn(record: InstanceRecord): void {
    this.#seen.delete(record.nodeId);
    this.#seen.set(record.nodeId, record);
    if (this.#seen.size > this.#sizeMax) {
      const [oldest] = this.#seen.keys();
      if (oldest !== undefined) this.#seen.delete(oldest);
    }
  }
}
