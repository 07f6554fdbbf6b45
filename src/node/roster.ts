/**
 * What operators want of the members, as this server knows it: a copy of their
 * entries in `system`, looked at whenever a member tells that it has changed one,
 * or says with its pings that it knows them otherwise. Who was removed is
 * remembered over restarts, when nobody can be asked yet.
 */
import { hash } from "node:crypto";
import { EventEmitter } from "node:events";
import { z } from "zod";
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { ClusterEntries, MemberRecord } from "./cluster-entries.ts";

/**
 * A server that is removed is cut off everywhere within 5 s, also where the word of it got lost: pings of those
 * that heard it say so. Nobody has heard it only when the server that removed it died over that.
 */
const LOOK_MS = 60_000;
/** Before a look is tried again because of what it did not settle: the others may be the ones who are late. */
const LOOK_AGAIN_MS = 2_000;
const UNSETTLED_MAX = 64;

export const ROSTER_DIGEST_BYTES = 8;
/** Told by those that don't know the members yet. */
const UNKNOWN: Uint8Array = new Uint8Array(ROSTER_DIGEST_BYTES);

const removedSchema = z.array(z.string());

interface RosterEvents {
  changed: [];
}

export class Roster extends EventEmitter<RosterEvents> {
  readonly #entries: Pick<ClusterEntries, "members">;
  readonly #directory: DataDirectory;
  readonly #log: Log;
  #members: readonly MemberRecord[] = [];
  #states = new Map<string, MemberRecord["state"]>();
  #removed: ReadonlySet<string>;
  #leaving: ReadonlySet<string>;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #digest: Uint8Array = UNKNOWN;
  /** When a look was last wanted because of a digest, by that. */
  readonly #unsettled = new Map<string, number>();
  #isStopped = false;

  private constructor(
    entries: Pick<ClusterEntries, "members">,
    directory: DataDirectory,
    removed: readonly string[],
    log: Log,
  ) {
    super();
    this.#entries = entries;
    this.#directory = directory;
    this.#removed = new Set(removed);
    this.#leaving = this.#removed;
    this.#log = log;
  }

  /** @throws {DamagedError} what was kept can't be read. */
  static async open(
    entries: Pick<ClusterEntries, "members">,
    directory: DataDirectory,
    log: Log,
  ): Promise<Roster> {
    const kept = await directory.read("removed.json");
    let removed: readonly string[];
    try {
      removed = kept === undefined ? [] : removedSchema.parse(JSON.parse(kept.toString("utf8")));
    } catch (cause) {
      throw new DamagedError(
        `${directory.path}/removed.json can't be decoded; delete it: the other servers tell again who was removed`,
        { cause },
      );
    }
    return new Roster(entries, directory, removed, log);
  }

  /** All that were ever let in; empty: not known yet. */
  get members(): readonly MemberRecord[] {
    return this.#members;
  }

  /** Certificates of these are good no more. */
  get removed(): ReadonlySet<string> {
    return this.#removed;
  }

  /** Nothing is to be kept on these: they drain, or were removed. */
  get leaving(): ReadonlySet<string> {
    return this.#leaving;
  }

  /** How many members are to keep something, also those that are away; undefined: not known yet. */
  get staying(): number | undefined {
    if (this.#states.size === 0) return undefined;
    return [...this.#states.values()].filter((state) => state === "active").length;
  }

  /** Undefined: not known yet, or no member. */
  stateOf(nodeId: string): MemberRecord["state"] | undefined {
    return this.#removed.has(nodeId) ? "removed" : this.#states.get(nodeId);
  }

  /** Of the members and their states as they are known here. */
  get digest(): Uint8Array {
    return this.#digest;
  }

  /** The digest of another server: when it knows the members otherwise, one of the two is behind. */
  heard(digest: Uint8Array): void {
    if (this.#isStopped || this.#digest === UNKNOWN) return;
    if (Buffer.compare(digest, this.#digest) === 0 || Buffer.compare(digest, UNKNOWN) === 0) return;
    const key = Buffer.from(digest).toString("latin1");
    const nowMs = performance.now();
    if (nowMs - (this.#unsettled.get(key) ?? Number.NEGATIVE_INFINITY) < LOOK_AGAIN_MS) return;
    if (this.#unsettled.size >= UNSETTLED_MAX) this.#unsettled.clear();
    this.#unsettled.set(key, nowMs);
    void this.renew();
  }

  /** Looks from now on. */
  start(): void {
    void this.renew();
  }

  /** Looks now; the next look follows by itself. Never rejects. */
  renew(): Promise<void> {
    clearTimeout(this.#timer);
    // A look that is under way may have read what stood there before.
    this.#looking = (this.#looking ?? Promise.resolve())
      .then(() => (this.#isStopped ? undefined : this.#look()))
      .catch((error: unknown) => this.#log.debug("members not read", { error }))
      .finally(() => {
        clearTimeout(this.#timer);
        if (this.#isStopped) return;
        this.#timer = setTimeout(() => void this.renew(), LOOK_MS);
        this.#timer.unref();
      });
    return this.#looking;
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  async #look(): Promise<void> {
    const records = await this.#entries.members();
    this.#members = records;
    this.#states = new Map(records.map(({ nodeId, state }) => [nodeId, state]));
    this.#digest = digestOf(this.#states);
    const inState = (...states: MemberRecord["state"][]) =>
      records.filter(({ state }) => states.includes(state)).map(({ nodeId }) => nodeId);
    const removed = inState("removed");
    const leaving = inState("removed", "draining");
    const isSame = leaving.length === this.#leaving.size && leaving.every((id) => this.#leaving.has(id));
    const isKnown = removed.length === this.#removed.size && removed.every((id) => this.#removed.has(id));
    if (isSame && isKnown) return;
    this.#removed = new Set(removed);
    this.#leaving = new Set(leaving);
    this.emit("changed");
    if (!isKnown) await this.#directory.write("removed.json", `${JSON.stringify(removed)}\n`);
  }
}

function digestOf(states: ReadonlyMap<string, string>): Uint8Array {
  const lines = Array.from(states, ([nodeId, state]) => `${nodeId} ${state}`).sort();
  return hash("sha256", lines.join("\n"), "buffer").subarray(0, ROSTER_DIGEST_BYTES);
}
