/**
 * Where everything is: placements and keys. Servers of one cluster must agree on
 * all of it, so numbers here are never given a second meaning.
 *
 * A key is a namespace byte and components: names as 16-byte HMACs under the
 * cluster's naming secret, numbers in clear. So keys tell nothing, and still have
 * prefixes and an order.
 */
import { HOST_PARTS } from "../frontier/host-spread.ts";
import type { DuePlace } from "../frontier/page.ts";
import { partitionOf } from "../ring/identifier.ts";

export const NAMESPACE = {
  cluster: 0x01,
  member: 0x02,
  authority: 0x03,
  revoked: 0x04,
  token: 0x05,
  signing: 0x06,
  user: 0x07,
  session: 0x08,
  apiKey: 0x09,
  audit: 0x0a,
  jobIndex: 0x10,
  job: 0x11,
  seed: 0x12,
  participant: 0x13,
  cursor: 0x14,
  jobKey: 0x15,
  pace: 0x20,
  robots: 0x21,
  count: 0x22,
  size: 0x23,
  page: 0x24,
  due: 0x25,
  result: 0x26,
  failure: 0x27,
  cookie: 0x28,
  out: 0x29,
  content: 0x2a,
  trap: 0x2b,
  value: 0x30,
  lock: 0x31,
  fence: 0x32,
  request: 0x33,
} as const;

/** Makes the components; structurally the vault's Naming. */
export interface Names {
  /** 16 bytes as a binary string. */
  name(namespace: number, text: string): string;
  /** 8 bytes, big-endian, as a binary string. */
  number(n: bigint | number): string;
}

const PRIORITY_ZERO = 2n ** 63n;
const TIME_MAX = 2n ** 64n - 1n;
const NAMES_KEPT_MAX = 8_192;

export class KeyLayout {
  readonly partitionCount: number;
  readonly #names: Names;
  // HMACs of jobs and hosts, which stand in every key of a page.
  readonly #kept = new Map<string, string>();
  // By host.
  readonly #partitions = new Map<string, number>();

  constructor(names: Names, partitionCount: number) {
    this.#names = names;
    this.partitionCount = partitionCount;
  }

  // --- placements ---

  systemPartition(): number {
    return partitionOf("system", this.partitionCount);
  }

  ownerPartition(user: string): number {
    return partitionOf(`owner/${user}`, this.partitionCount);
  }

  jobPartition(jobId: string): number {
    return partitionOf(`job/${jobId}`, this.partitionCount);
  }

  hostPartition(host: string): number {
    // Each link of each page asks for it.
    let partition = this.#partitions.get(host);
    if (partition === undefined) {
      if (this.#partitions.size >= NAMES_KEPT_MAX) this.#partitions.clear();
      partition = partitionOf(`host/${host}`, this.partitionCount);
      this.#partitions.set(host, partition);
    }
    return partition;
  }

  /** Where a page of a large host is that its own partition has no room for. */
  hostPart(host: string, key: string): number {
    const part = (Buffer.from(key.slice(0, 2), "base64url")[0] ?? 0) >> 4;
    return partitionOf(`host/${host}/${part}`, this.partitionCount);
  }

  /** All places where such pages can be. */
  hostParts(host: string): number[] {
    const parts = Array.from({ length: HOST_PARTS }, (_, n) =>
      partitionOf(`host/${host}/${n}`, this.partitionCount),
    );
    return [...new Set(parts)];
  }

  // --- system ---

  cluster(): string {
    return prefix(NAMESPACE.cluster);
  }

  /** `namespace`: any of member, revoked, token, signing, user, session, apiKey, authority. */
  system(namespace: number, name: string): string {
    return prefix(namespace) + this.#names.name(namespace, name);
  }

  auditPrefix(): string {
    return prefix(NAMESPACE.audit);
  }

  audit(n: number): string {
    return prefix(NAMESPACE.audit) + this.#names.number(n);
  }

  // --- owner ---

  jobIndexPrefix(user: string): string {
    return prefix(NAMESPACE.jobIndex) + this.#keep(NAMESPACE.jobIndex, user);
  }

  /** Newest first. The owner's name stands in front: several owners share a partition. */
  jobIndex(user: string, createdAtMs: number, jobId: string): string {
    return (
      this.jobIndexPrefix(user) +
      this.#names.number(TIME_MAX - BigInt(Math.round(createdAtMs))) +
      this.#keep(NAMESPACE.job, jobId)
    );
  }

  // --- job ---

  /** The id of the job that a user submits under a key of theirs: the same for every repeat. */
  jobIdFor(user: string, idempotencyKey: string): string {
    const name = this.#names.name(NAMESPACE.jobKey, `${user}\n${idempotencyKey}`);
    return Buffer.from(name, "latin1").toString("hex");
  }

  jobs(): string {
    return prefix(NAMESPACE.job);
  }

  job(jobId: string): string {
    return prefix(NAMESPACE.job) + this.#keep(NAMESPACE.job, jobId);
  }

  seeds(jobId: string): string {
    return prefix(NAMESPACE.seed) + this.#keep(NAMESPACE.job, jobId);
  }

  seed(jobId: string, n: number): string {
    return this.seeds(jobId) + this.#names.number(n);
  }

  participants(jobId: string): string {
    return prefix(NAMESPACE.participant) + this.#keep(NAMESPACE.job, jobId);
  }

  participant(jobId: string, partition: number): string {
    return this.participants(jobId) + this.#names.number(partition);
  }

  cursor(jobId: string, id: string): string {
    return (
      prefix(NAMESPACE.cursor) + this.#keep(NAMESPACE.job, jobId) + this.#names.name(NAMESPACE.cursor, id)
    );
  }

  // --- host ---

  pace(host: string): string {
    return prefix(NAMESPACE.pace) + this.#keep(NAMESPACE.page, host);
  }

  robotsOf(host: string): string {
    return prefix(NAMESPACE.robots) + this.#keep(NAMESPACE.page, host);
  }

  robots(host: string, origin: string): string {
    return this.robotsOf(host) + this.#names.name(NAMESPACE.robots, origin);
  }

  counts(): string {
    return prefix(NAMESPACE.count);
  }

  count(jobId: string): string {
    return prefix(NAMESPACE.count) + this.#keep(NAMESPACE.job, jobId);
  }

  sizes(jobId: string): string {
    return prefix(NAMESPACE.size) + this.#keep(NAMESPACE.job, jobId);
  }

  size(jobId: string, host: string): string {
    return this.sizes(jobId) + this.#keep(NAMESPACE.page, host);
  }

  page(jobId: string, host: string, key: string): string {
    return this.#ofHost(NAMESPACE.page, jobId, host) + this.#names.name(NAMESPACE.page, key);
  }

  /** Pages under way. */
  dueFlying(jobId: string, host: string): string {
    return this.#ofHost(NAMESPACE.due, jobId, host) + this.#names.number(0);
  }

  /** All due pages of a host, those under way included. */
  dues(jobId: string, host: string): string {
    return this.#ofHost(NAMESPACE.due, jobId, host);
  }

  due(jobId: string, host: string, place: DuePlace): string {
    const band = place.band === "flying" ? 0n : PRIORITY_ZERO - BigInt(place.priority);
    return this.dues(jobId, host) + this.#names.number(band) + this.#names.number(place.seq);
  }

  results(jobId: string): string {
    return prefix(NAMESPACE.result) + this.#keep(NAMESPACE.job, jobId);
  }

  result(jobId: string, n: number): string {
    return this.results(jobId) + this.#names.number(n);
  }

  failures(jobId: string): string {
    return prefix(NAMESPACE.failure) + this.#keep(NAMESPACE.job, jobId);
  }

  failure(jobId: string, n: number): string {
    return this.failures(jobId) + this.#names.number(n);
  }

  /** Pages under way that other partitions store. */
  outs(jobId: string): string {
    return prefix(NAMESPACE.out) + this.#keep(NAMESPACE.job, jobId);
  }

  out(jobId: string, host: string, key: string): string {
    return this.#ofHost(NAMESPACE.out, jobId, host) + this.#names.name(NAMESPACE.page, key);
  }

  /** What the pages of a host said. */
  contents(jobId: string, host: string): string {
    return this.#ofHost(NAMESPACE.content, jobId, host);
  }

  content(jobId: string, host: string, chunk: number): string {
    return this.contents(jobId, host) + this.#names.number(chunk);
  }

  traps(jobId: string): string {
    return prefix(NAMESPACE.trap) + this.#keep(NAMESPACE.job, jobId);
  }

  trap(jobId: string, host: string): string {
    return this.#ofHost(NAMESPACE.trap, jobId, host);
  }

  /** All that a partition keeps of a job's pages, largest first; the counts are the last to go. */
  ofJob(jobId: string): string[] {
    const job = this.#keep(NAMESPACE.job, jobId);
    const spaces = [
      NAMESPACE.due,
      NAMESPACE.page,
      NAMESPACE.result,
      NAMESPACE.failure,
      NAMESPACE.cookie,
      NAMESPACE.out,
      NAMESPACE.content,
      NAMESPACE.trap,
      NAMESPACE.size,
      NAMESPACE.count,
    ];
    return spaces.map((namespace) => prefix(namespace) + job);
  }

  // --- values and locks of users ---

  /** All that a partition keeps of what its users let end. */
  readonly ending = [prefix(NAMESPACE.value), prefix(NAMESPACE.lock)] as const;

  valuePartition(user: string, namespace: string, key: string): number {
    return partitionOf(`kv/${user}/${namespace}/${key}`, this.partitionCount);
  }

  /** All values of a user's namespace that a partition keeps. */
  values(user: string, namespace: string): string {
    return (
      prefix(NAMESPACE.value) + this.#keep(NAMESPACE.value, user) + this.#keep(NAMESPACE.value, namespace)
    );
  }

  value(user: string, namespace: string, key: string): string {
    return this.values(user, namespace) + this.#names.name(NAMESPACE.value, key);
  }

  /** One request of a user as its repeats name it; `parts` tell it from all others. Fits a request id. */
  requestId(user: string, parts: readonly string[]): string {
    const name = this.#names.name(NAMESPACE.request, JSON.stringify([user, ...parts]));
    return Buffer.from(name, "latin1").toString("hex");
  }

  lockPartition(user: string, name: string): number {
    return partitionOf(`lock/${user}/${name}`, this.partitionCount);
  }

  lock(user: string, name: string): string {
    return prefix(NAMESPACE.lock) + this.#keep(NAMESPACE.lock, user) + this.#names.name(NAMESPACE.lock, name);
  }

  fence(): string {
    return prefix(NAMESPACE.fence);
  }

  #ofHost(namespace: number, jobId: string, host: string): string {
    return prefix(namespace) + this.#keep(NAMESPACE.job, jobId) + this.#keep(NAMESPACE.page, host);
  }

  #keep(namespace: number, text: string): string {
    const id = `${namespace}/${text}`;
    let name = this.#kept.get(id);
    if (name === undefined) {
      if (this.#kept.size >= NAMES_KEPT_MAX) this.#kept.clear();
      name = this.#names.name(namespace, text);
      this.#kept.set(id, name);
    }
    return name;
  }
}

function prefix(namespace: number): string {
  return String.fromCharCode(namespace);
}

/** The number at the end of a key: of a result, a failure, a seed. */
export function numberOfKey(key: string): number {
  return Number(Buffer.from(key.slice(-8), "latin1").readBigUInt64BE());
}
