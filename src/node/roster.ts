/**
 * What operators want of the members, as this server knows it: a copy of their
 * entries in `system`, looked at every few seconds and whenever a member tells
 * that it has changed one. Who was removed is remembered over restarts, when
 * nobody can be asked yet.
 */
import { EventEmitter } from "node:events";
import { z } from "zod";
import type { Log } from "../log.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { ClusterEntries, MemberRecord } from "./cluster-entries.ts";

/** A server that is removed is cut off everywhere within 5 s, also where the word of it got lost. */
const LOOK_MS = 4_000;

const removedSchema = z.array(z.string());

interface RosterEvents {
  changed: [];
}

export class Roster extends EventEmitter<RosterEvents> {
  readonly #entries: Pick<ClusterEntries, "members">;
  readonly #directory: DataDirectory;
  readonly #log: Log;
  #states = new Map<string, MemberRecord["state"]>();
  #removed: ReadonlySet<string>;
  #leaving: ReadonlySet<string>;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
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
    const removed = kept === undefined ? [] : removedSchema.parse(JSON.parse(kept.toString("utf8")));
    return new Roster(entries, directory, removed, log);
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
    this.#states = new Map(records.map(({ nodeId, state }) => [nodeId, state]));
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
