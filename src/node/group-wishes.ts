/**
 * Who should keep and lead a partition, as far as it is known here: the ring's wish once
 * it has stood for a while, without those that an operator has dismissed, and with those
 * last that shall not lead.
 */
import type { Identifier, NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";

/** A wish of the ring counts once it has stood this long: rings change their mind while they settle. */
const STEADY_MS = 500;

interface Wish {
  readonly nodeIds: readonly NodeId[];
  readonly sinceMs: number;
}

interface Placements {
  placementLocally(point: Identifier, count: number, except: ReadonlySet<string>): Member[] | undefined;
  placement(point: Identifier, count: number, except: ReadonlySet<string>): Promise<{ members: Member[] }>;
}

export class GroupWishes {
  readonly #ring: Placements;
  readonly #replicationFactor: number;
  readonly #incarnationOf: (nodeId: NodeId) => number;
  readonly #wishes = new Map<number, Wish>();
  // Partitions out of sight, of which the ring was asked.
  readonly #asked = new Set<number>();
  #dismissed: ReadonlySet<string> = new Set();
  #passedOver: ReadonlySet<NodeId> = new Set();
  /** With the incarnation that stops: the next one is welcome again. */
  readonly #leaving = new Map<NodeId, number>();

  /** @param options.incarnationOf the newest that was heard of. */
  constructor(options: {
    ring: Placements;
    replicationFactor: number;
    incarnationOf: (nodeId: NodeId) => number;
  }) {
    this.#ring = options.ring;
    this.#replicationFactor = options.replicationFactor;
    this.#incarnationOf = options.incarnationOf;
  }

  /** Undefined: not known, or not for long enough. */
  of(partition: number, position: Identifier, nowMs: number): readonly NodeId[] | undefined {
    const count = this.#replicationFactor;
    const members = this.#ring.placementLocally(position, count, this.#dismissed);
    if (members !== undefined) this.#note(partition, members, nowMs);
    else if (!this.#asked.has(partition)) {
      this.#asked.add(partition);
      this.#ring.placement(position, count, this.#dismissed).then(
        (found) => this.#note(partition, found.members, performance.now()),
        () => this.#asked.delete(partition),
      );
    }
    const wish = this.#wishes.get(partition);
    return wish === undefined || nowMs - wish.sinceMs < STEADY_MS ? undefined : wish.nodeIds;
  }

  /** What the ring was asked before may be different by now. */
  askAnew(): void {
    this.#asked.clear();
  }

  /** The same of one partition, if its part of the ring lies out of sight. @returns whether it does. */
  askAnewOutOfSight(partition: number, position: Identifier): boolean {
    if (this.#ring.placementLocally(position, this.#replicationFactor, this.#dismissed)) return false;
    this.#asked.delete(partition);
    return true;
  }

  /** @returns false: those were dismissed already. */
  dismiss(nodeIds: ReadonlySet<string>): boolean {
    if (nodeIds.size === this.#dismissed.size && [...nodeIds].every((id) => this.#dismissed.has(id)))
      return false;
    this.#dismissed = new Set(nodeIds);
    return true;
  }

  isDismissed(nodeId: string): boolean {
    return this.#dismissed.has(nodeId);
  }

  passOver(nodeIds: ReadonlySet<NodeId>): void {
    this.#passedOver = nodeIds;
    this.askAnew();
  }

  /** Of those that `passOver` named. */
  isPassedOver(nodeId: NodeId): boolean {
    return this.#passedOver.has(nodeId);
  }

  /** It says that it stops: whatever it is given to lead it would give back. @returns whether that is news. */
  leaves(nodeId: NodeId, incarnation: number): boolean {
    if (this.#leaving.get(nodeId) === incarnation) return false;
    this.#leaving.set(nodeId, incarnation);
    return true;
  }

  #mayLead(nodeId: NodeId): boolean {
    if (this.#passedOver.has(nodeId)) return false;
    const leaving = this.#leaving.get(nodeId);
    return leaving === undefined || leaving < this.#incarnationOf(nodeId);
  }

  #note(partition: number, members: readonly Member[], nowMs: number): void {
    const nodeIds = members
      .map((member) => member.nodeId)
      // Dismissed since the ring was asked.
      .filter((nodeId) => !this.#dismissed.has(nodeId))
      .sort((a, b) => Number(this.#mayLead(b)) - Number(this.#mayLead(a)));
    const known = this.#wishes.get(partition);
    const isSame =
      known?.nodeIds.length === nodeIds.length && known.nodeIds.every((id, i) => id === nodeIds[i]);
    if (!isSame) this.#wishes.set(partition, { nodeIds, sinceMs: nowMs });
  }
}
