/** The transfers that one replica gives: one to a target, a bounded number at a time. */
import type { ReplicaId } from "./ballot.ts";
import type { Scanned } from "./effect.ts";
import type { TransferSource } from "./transfer-source.ts";

const SOURCES_MAX = 8;

export class TransferSources {
  readonly #sources = new Map<string, TransferSource>();

  get isEmpty(): boolean {
    return this.#sources.size === 0;
  }

  of(transfer: string, to: ReplicaId): TransferSource | undefined {
    const source = this.#sources.get(transfer);
    return source?.to === to ? source : undefined;
  }

  /**
   * Makes room for a new one: an earlier one to the same target is given up by a
   * new question, never a later one by an old question.
   *
   * @returns whether there is room.
   */
  makeRoom(transfer: string, to: ReplicaId): boolean {
    for (const [other, source] of this.#sources) {
      if (source.to !== to) continue;
      if (isLater(other, transfer)) return false;
      this.end(other);
    }
    return this.#sources.size < SOURCES_MAX;
  }

  add(source: TransferSource): void {
    this.#sources.set(source.transfer, source);
  }

  /** Whether the snapshot is that of one of these. */
  scanned(snapshot: number, scanned: Scanned, nowMs: number): boolean {
    for (const source of this.#sources.values()) {
      if (source.snapshot !== snapshot) continue;
      source.scanned(scanned, nowMs);
      return true;
    }
    return false;
  }

  endIdle(nowMs: number): void {
    for (const [transfer, source] of this.#sources) if (source.isIdle(nowMs)) this.end(transfer);
  }

  endAll(): void {
    for (const transfer of [...this.#sources.keys()]) this.end(transfer);
  }

  end(transfer: string): void {
    this.#sources.get(transfer)?.end();
    this.#sources.delete(transfer);
  }
}

/** Of two transfers of one target: by its incarnation, then by the number that it counts up. */
function isLater(a: string, b: string): boolean {
  const [x, y] = [a, b].map((transfer) => transfer.split(".").slice(-2).map(Number));
  return x![0] === y![0] ? x![1]! > y![1]! : x![0]! > y![0]!;
}
