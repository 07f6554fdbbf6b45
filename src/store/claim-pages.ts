/**
 * What changes with each batch of a partition and is small: the name of its newest
 * state. A record of its own for each would cost as much as a batch's entries do, so
 * the partitions that lie beside one another share one, and it is written once for
 * all commits that become durable together.
 */
import assert from "node:assert/strict";
import type { DamagedError } from "../errors.ts";
import type { SharedRecord } from "./record-table.ts";

export const CLAIM_BYTES = 24;
/** Few enough for a page to be small beside the batch that it goes with, many enough for it to be shared. */
const PAGE_PARTITIONS = 64;
/** Place within the page, then the claim. */
const SLOT_BYTES = 1 + CLAIM_BYTES;

const PREFIX = "\x00claims";

interface Page {
  readonly key: string;
  /** As of the commits that are durable or on their way to the disk: no later one's. */
  readonly claims: Map<number, Uint8Array>;
}

export class ClaimPages {
  /** Keys of pages begin with it. */
  static readonly prefix = PREFIX;

  readonly #seal: (key: string, page: Uint8Array) => Uint8Array;
  // By partition, as handed over last.
  readonly #newest = new Map<number, Uint8Array>();
  readonly #pages = new Map<number, Page>();
  // By page: what can't be read says nothing of any of its partitions.
  readonly #damaged = new Map<number, DamagedError>();

  constructor(seal: (key: string, page: Uint8Array) => Uint8Array) {
    this.#seal = seal;
  }

  /** @throws {DamagedError} there may be one, but its page can't be read. */
  of(partition: number): Uint8Array | undefined {
    const claim = this.#newest.get(partition);
    const error = claim === undefined ? this.#damaged.get(pageOf(partition)) : undefined;
    if (error !== undefined) throw error;
    return claim;
  }

  /** Takes effect for `of` at once; to be committed with what it is the claim of. */
  change(partition: number, claim: Uint8Array | undefined): SharedRecord {
    assert(claim === undefined || claim.byteLength === CLAIM_BYTES, `a claim has ${CLAIM_BYTES} bytes`);
    if (claim === undefined) this.#newest.delete(partition);
    else this.#newest.set(partition, claim);
    const page = this.#page(pageOf(partition));
    return {
      key: page.key,
      apply: () => {
        if (claim === undefined) page.claims.delete(partition);
        else page.claims.set(partition, claim);
      },
      record: () => this.#seal(page.key, packed(page.claims)),
    };
  }

  /** @param open throws DamagedError. */
  load(key: string, open: () => Uint8Array): void {
    const number = numberIn(key);
    const { claims } = this.#page(number);
    const bytes = open();
    for (let at = 0; at + SLOT_BYTES <= bytes.byteLength; at += SLOT_BYTES) {
      const partition = number * PAGE_PARTITIONS + bytes[at]!;
      const claim = bytes.slice(at + 1, at + SLOT_BYTES);
      claims.set(partition, claim);
      this.#newest.set(partition, claim);
    }
  }

  damaged(key: string, error: DamagedError): void {
    this.#damaged.set(numberIn(key), error);
  }

  #page(number: number): Page {
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = { key: PREFIX + String.fromCharCode(number >>> 8, number & 0xff), claims: new Map() };
      this.#pages.set(number, page);
    }
    return page;
  }
}

function pageOf(partition: number): number {
  return Math.floor(partition / PAGE_PARTITIONS);
}

function numberIn(key: string): number {
  return (key.charCodeAt(PREFIX.length) << 8) | key.charCodeAt(PREFIX.length + 1);
}

function packed(claims: ReadonlyMap<number, Uint8Array>): Uint8Array {
  const page = Buffer.allocUnsafe(claims.size * SLOT_BYTES);
  let at = 0;
  for (const [partition, claim] of claims) {
    page[at] = partition % PAGE_PARTITIONS;
    page.set(claim, at + 1);
    at += SLOT_BYTES;
  }
  return page;
}
