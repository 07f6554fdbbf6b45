/**
 * Which partitions each other server says that it leads or stands for: a hint for
 * callers, and what decides whether a leader is heard (never whether it is one).
 *
 * Pings carry a digest; the list itself travels when it changes, and again when a
 * digest shows that one was missed.
 *
 * How often that is matters little. What stands here does not age: followers look
 * for another leader when a list gets shorter or its server is dead, never because
 * nothing was said for a while. So a digest only mends what was lost on its way: a
 * lost list is there one ping (400 ms at rest) and one question later, and until then
 * an election begins later than it could, or one begins that ballots decide.
 */
import { hash } from "node:crypto";
import type { NodeId } from "../ring/identifier.ts";

const DIGEST_BYTES = 8;
const ASK_AGAIN_MS = 200;

interface Page {
  incarnation: number;
  readonly rounds: Map<number, number>;
  digest: string;
  askedMs: number;
}

export class LedBook {
  readonly #ask: (nodeId: NodeId) => void;
  readonly #changed: (nodeId: NodeId) => void;
  readonly #pages = new Map<NodeId, Page>();
  #own: { list: unknown; digest: Uint8Array } = { list: undefined, digest: new Uint8Array(0) };

  /** @param options.changed a server leads less than before. */
  constructor(options: { ask(nodeId: NodeId): void; changed(nodeId: NodeId): void }) {
    this.#ask = options.ask;
    this.#changed = options.changed;
  }

  /** @param list never changed once it was given: of the one given last the digest is known. */
  digestOf(list: readonly (readonly [partition: number, round: number])[]): Uint8Array {
    if (list !== this.#own.list) this.#own = { list, digest: digest(keyOf(new Map(list))) };
    return this.#own.digest;
  }

  /** A digest came with a ping: if it is not that of the list kept here, the list is asked for. */
  heard(nodeId: NodeId, incarnation: number, bytes: Uint8Array): void {
    const page = this.#page(nodeId, incarnation);
    if (page === undefined || Buffer.from(bytes).toString("hex") === page.digest) return;
    const nowMs = performance.now();
    if (nowMs - page.askedMs < ASK_AGAIN_MS) return;
    page.askedMs = nowMs;
    this.#ask(nodeId);
  }

  learn(nodeId: NodeId, incarnation: number, list: readonly (readonly [number, number])[]): void {
    const page = this.#page(nodeId, incarnation);
    if (page === undefined) return;
    const next = new Map(list);
    const leadsLess = [...page.rounds].some(([partition, round]) => (next.get(partition) ?? -1) < round);
    page.rounds.clear();
    for (const [partition, round] of next) page.rounds.set(partition, round);
    this.#digest(page);
    if (leadsLess) this.#changed(nodeId);
  }

  /** A message under a ballot of its own says the same as its list. */
  note(nodeId: NodeId, incarnation: number, partition: number, round: number): void {
    const page = this.#page(nodeId, incarnation);
    if (page === undefined || (page.rounds.get(partition) ?? -1) >= round) return;
    page.rounds.set(partition, round);
    page.digest = "";
  }

  retract(nodeId: NodeId, partition: number): void {
    const page = this.#pages.get(nodeId);
    if (page?.rounds.delete(partition) === true) page.digest = "";
  }

  roundOf(nodeId: NodeId, partition: number): number | undefined {
    return this.#pages.get(nodeId)?.rounds.get(partition);
  }

  /** Who says that it leads the partition at the greatest round. */
  leaderOf(partition: number): NodeId | undefined {
    let leader: NodeId | undefined;
    let greatest = -1;
    for (const [nodeId, { rounds }] of this.#pages) {
      const round = rounds.get(partition) ?? -1;
      if (round > greatest) {
        greatest = round;
        leader = nodeId;
      }
    }
    return leader;
  }

  /** What an earlier start of the server said is void. */
  #page(nodeId: NodeId, incarnation: number): Page | undefined {
    const known = this.#pages.get(nodeId);
    if (known !== undefined && known.incarnation >= incarnation) {
      return known.incarnation === incarnation ? known : undefined;
    }
    const page: Page = { incarnation, rounds: new Map(), digest: "", askedMs: 0 };
    this.#pages.set(nodeId, page);
    if (known !== undefined) this.#changed(nodeId);
    return page;
  }

  #digest(page: Page): void {
    page.digest = Buffer.from(digest(keyOf(page.rounds))).toString("hex");
  }
}

function keyOf(rounds: ReadonlyMap<number, number>): string {
  return [...rounds]
    .sort(([a], [b]) => a - b)
    .map(([partition, round]) => `${partition}:${round}`)
    .join(",");
}

function digest(key: string): Uint8Array {
  return hash("sha256", key, "buffer").subarray(0, DIGEST_BYTES);
}
