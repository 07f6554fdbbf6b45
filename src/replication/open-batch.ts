/**
 * The batch that is being filled: what was decided but not yet handed to the
 * store. Later changes of a key replace earlier ones; operations see them at once.
 */

import { versionOf } from "./ballot.ts";
import type { DecidedChange } from "./message.ts";
import {
  BATCH_BYTES_MAX,
  BATCH_CHANGES_MAX,
  type Ballot,
  type Change,
  type Condition,
  type Key,
  type Version,
} from "./register.ts";
import type { HeldEntry } from "./replica-state.ts";

export class OpenBatch {
  readonly #changes = new Map<Key, DecidedChange>();
  #bytes = 0;
  #step = 0;

  get isEmpty(): boolean {
    return this.#changes.size === 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get changes(): DecidedChange[] {
    return [...this.#changes.values()];
  }

  /** Whether `changes` fit beside what is already in: always, when it is empty. */
  fits(changes: readonly Change[]): boolean {
    if (this.isEmpty) return true;
    return (
      this.#changes.size + changes.length <= BATCH_CHANGES_MAX &&
      this.#bytes + bytesOf(changes) <= BATCH_BYTES_MAX
    );
  }

  /**
   * One operation's changes. Had an earlier one changed one of the keys, they get a
   * version of their own: whoever saw the earlier value must not take this one for it.
   *
   * @param step of their version, by `stepOf`.
   */
  add(changes: readonly Change[], step = 0): void {
    this.#step = Math.max(this.#step, step);
    for (const change of changes) this.#changes.set(change.key, step === 0 ? change : { ...change, step });
    this.#bytes += bytesOf(changes);
  }

  /** For an operation with these changes. */
  stepOf(changes: readonly Change[]): number {
    return !this.isEmpty && changes.some(({ key }) => this.#changes.has(key)) ? this.#step + 1 : 0;
  }

  touches(key: Key): boolean {
    return this.#changes.has(key);
  }

  /** The entry as it will be, when this batch changes it; the version is that of batch `seq` of `ballot`. */
  read(key: Key, ballot: Ballot, seq: number, held: HeldEntry | undefined): HeldEntry | undefined {
    const change = this.#changes.get(key);
    if (change === undefined) return held;
    if (change.kind === "delete") return undefined;
    return {
      version: versionOf(ballot, seq, change.step),
      value: change.value,
      expiresAtMs: change.expiresAtMs,
    };
  }
}

export function bytesOf(changes: readonly Change[]): number {
  let bytes = 0;
  for (const change of changes) {
    bytes += 64 + change.key.length + (change.kind === "put" ? change.value.byteLength : 0);
  }
  return bytes;
}

/** The first condition that does not hold, if any; `found` is what stands there. */
export function failedCondition(
  conditions: readonly Condition[],
  read: (key: Key) => HeldEntry | undefined,
): { key: Key; found: Version | undefined } | undefined {
  for (const { key, is } of conditions) {
    const found = read(key)?.version;
    const holds =
      is === "absent" ? found === undefined : is === "present" ? found !== undefined : found === is;
    if (!holds) return { key, found };
  }
  return undefined;
}
