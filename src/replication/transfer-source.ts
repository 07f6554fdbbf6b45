/**
 * The giving side of becoming identical: answers one target's questions from a
 * snapshot, one at a time.
 */
import { BucketDigests, type Digest, digestToBytes, isMarked } from "./anti-entropy.ts";
import type { Claim, ReplicaId } from "./ballot.ts";
import { BucketGathering } from "./bucket-gathering.ts";
import type { ReplicaEffect, Scanned } from "./effect.ts";
import type { Body, Carried } from "./message.ts";
import type { Key } from "./register.ts";
import type { ReplicaLimits } from "./replica-port.ts";
import type { HeldEntry, ReplicaState } from "./replica-state.ts";

const IDLE_MS = 10_000;
const ENTRY_BYTES = 32;

type Question = Extract<Body, { kind: "pull" | "more" | "fetch" }>;
type Listed = Extract<Body, { kind: "listed" }>;

export class TransferSource {
  readonly transfer: string;
  readonly to: ReplicaId;
  readonly snapshot: number;
  readonly #effects: ReplicaEffect[];
  readonly #limits: ReplicaLimits;
  readonly #generation: number;
  readonly #claim: Claim;
  readonly #root: Digest;
  readonly #target: BucketDigests;
  /** The asker holds nothing: it needs every value. */
  readonly #isWhole: boolean;
  #differing: Uint8Array | undefined;
  #gathering: BucketGathering | undefined;
  /** What is being answered; undefined between questions. */
  #question: Question | undefined;
  #isDamaged = false;
  #items: Listed["items"] = [];
  #fetchIndex = 0;
  #fetched: Carried[] = [];
  #bytes = 0;
  #usedMs: number;

  /** @param options.pull the first question; the snapshot is of this very moment. */
  constructor(options: {
    pull: Extract<Body, { kind: "pull" }>;
    to: ReplicaId;
    state: ReplicaState;
    effects: ReplicaEffect[];
    limits: ReplicaLimits;
    snapshot: number;
    nowMs: number;
  }) {
    const { pull, state, effects, limits, snapshot } = options;
    this.transfer = pull.transfer;
    this.to = options.to;
    this.snapshot = snapshot;
    this.#effects = effects;
    this.#limits = limits;
    this.#generation = state.generation;
    this.#claim = state.claim;
    this.#root = new Uint32Array(state.root);
    this.#isWhole = pull.digests.byteLength === 0;
    this.#target = BucketDigests.fromBytes(pull.digests);
    this.#usedMs = options.nowMs;
    effects.push({ kind: "snapshot", snapshot });
    if (this.#isWhole) this.#differing = new Uint8Array(128).fill(0xff);
    else if (state.buckets !== undefined) this.#differing = state.buckets.differing(this.#target);
    else {
      this.#question = pull;
      this.#gathering = new BucketGathering({ snapshot, state, effects, limits });
      return;
    }
    this.#begin(pull);
  }

  isIdle(nowMs: number): boolean {
    return nowMs - this.#usedMs > IDLE_MS;
  }

  /** A question repeated while it is being answered is not begun again. */
  asked(question: Question, nowMs: number): void {
    this.#usedMs = nowMs;
    if (this.#question === undefined && !this.#isDamaged) this.#begin(question);
  }

  scanned(scanned: Scanned, nowMs: number): void {
    this.#usedMs = nowMs;
    if (this.#gathering !== undefined) {
      const buckets = this.#gathering.scanned(scanned);
      if (buckets === undefined) return;
      this.#gathering = undefined;
      if (buckets === "damaged") {
        this.#isDamaged = true;
        return;
      }
      this.#differing = buckets.differing(this.#target);
      this.#begin(this.#question!);
      return;
    }
    const question = this.#question;
    if (question === undefined) return;
    if (question.kind === "fetch") {
      const entry = scanned.entries[0];
      if (entry !== undefined && entry.key === question.keys[this.#fetchIndex - 1]) {
        this.#fetched.push(carried(entry));
        this.#bytes += entry.key.length + entry.value.byteLength + ENTRY_BYTES;
      }
      this.#fetchNext(question);
      return;
    }
    for (const { key, version, value, expiresAtMs } of scanned.entries) {
      if (!isMarked(this.#differing!, key)) continue;
      this.#items.push({
        key,
        version,
        size: value.byteLength,
        ...(this.#isWhole ? { value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) } : {}),
      });
      this.#bytes += key.length + version.length + ENTRY_BYTES + (this.#isWhole ? value.byteLength : 0);
    }
    const last = scanned.entries.at(-1);
    if (scanned.isLast || last === undefined) this.#list(null);
    else if (this.#bytes >= this.#limits.messageBytes) this.#list(last.key);
    else this.#scan(last.key);
  }

  end(): void {
    this.#gathering?.end();
    this.#effects.push({ kind: "release", snapshot: this.snapshot });
  }

  #begin(question: Question): void {
    this.#question = question;
    this.#bytes = 0;
    if (question.kind === "fetch") {
      this.#fetchIndex = 0;
      this.#fetched = [];
      this.#fetchNext(question);
      return;
    }
    this.#items = [];
    this.#scan(question.kind === "more" ? question.after : undefined);
  }

  #scan(after: Key | undefined): void {
    const { scanEntries: limit, messageBytes: bytesMax } = this.#limits;
    this.#effects.push({
      kind: "scan",
      snapshot: this.snapshot,
      generation: this.#generation,
      prefix: "",
      after,
      limit,
      bytesMax,
      isTransfer: true,
    });
  }

  #list(after: Key | null): void {
    this.#answer({
      kind: "listed",
      transfer: this.transfer,
      question: this.#question!.question,
      claim: this.#claim,
      root: digestToBytes(this.#root),
      differing: this.#differing!,
      items: this.#items,
      after,
    });
    this.#items = [];
  }

  #fetchNext(question: Extract<Question, { kind: "fetch" }>): void {
    const key = question.keys[this.#fetchIndex];
    if (key === undefined || this.#bytes >= this.#limits.messageBytes) {
      this.#answer({
        kind: "fetched",
        transfer: this.transfer,
        question: question.question,
        claim: this.#claim,
        entries: this.#fetched,
      });
      this.#fetched = [];
      return;
    }
    this.#fetchIndex++;
    this.#effects.push({
      kind: "scan",
      snapshot: this.snapshot,
      generation: this.#generation,
      prefix: key,
      after: undefined,
      limit: 1,
      bytesMax: this.#limits.messageBytes,
      isTransfer: true,
    });
  }

  #answer(body: Body): void {
    this.#question = undefined;
    this.#effects.push({ kind: "send", to: this.to, body });
  }
}

export function carried({ key, version, value, expiresAtMs }: HeldEntry & { readonly key: Key }): Carried {
  return { key, version, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) };
}
