/**
 * Sees all replicas of a simulated group from above, and holds them to what no
 * history of answers alone can show: the invariants of the protocol itself.
 */
import { type Claim, compareBallots, isSameBallot } from "../../src/replication/ballot.ts";
import type { Change, Version } from "../../src/replication/register.ts";
import type { HeldEntry, ReplicaMeta } from "../../src/replication/replica-state.ts";
import type { DiskImage, StoreWrite } from "./replication-disk.ts";

type Ballot = Claim["accepted"];

interface Reign {
  readonly ballot: Ballot;
  /** The start of the process that served. */
  readonly server: string;
}

export class ReplicationWitness {
  readonly problems: string[] = [];
  leaders = 0;
  // A ballot's base is some state of an earlier ballot.
  readonly #bases = new Map<string, Claim>();
  /** What a claim stands for, wherever it is made. */
  readonly #states = new Map<string, string>();
  /** Those that ever served, in order of their ballots. */
  readonly #reigns: Reign[] = [];
  /** Greatest acknowledged batch of each ballot. */
  readonly #acknowledged = new Map<string, { readonly ballot: Ballot; seq: number }>();
  readonly #handedValues = new Set<string>();
  readonly #deniedValues = new Set<string>();

  complain(problem: string): void {
    if (this.problems.length < 20) this.problems.push(problem);
  }

  /** @param before the meta record that `write` replaces. */
  wrote(before: ReplicaMeta | undefined, write: StoreWrite, image: DiskImage): void {
    for (const change of write.changes) {
      if (change.kind === "put") this.#handed(change.entry.value);
    }
    const { meta } = write;
    if (meta === undefined) return;
    if (before !== undefined && before.replicaId === meta.replicaId) {
      const who = meta.replicaId;
      if (compareBallots(meta.promised, before.promised) < 0) this.complain(`${who} took a promise back`);
      if (compareBallots(meta.accepted, before.accepted) < 0) this.complain(`${who} took acceptance back`);
      if (isSameBallot(meta.accepted, before.accepted) && meta.seq < before.seq) {
        this.complain(`${who} went back from batch ${before.seq} to ${meta.seq}`);
      }
    }
    if (compareBallots(meta.accepted, meta.promised) > 0)
      this.complain(`${meta.replicaId} accepted more than it promised`);
    // One that lost power before its base was durable may take it back from another, when it stands again.
    const isBase =
      isSameBallot(meta.promised, meta.accepted) &&
      meta.accepted.replicaId === meta.replicaId &&
      meta.seq === 0 &&
      (before === undefined || !isSameBallot(before.accepted, meta.accepted));
    if (isBase) {
      const key = ballotKey(meta.accepted);
      if (this.#bases.has(key)) this.complain(`ballot ${key} has two bases`);
      this.#bases.set(key, {
        accepted: before?.accepted ?? { round: 0, replicaId: "" },
        seq: before?.seq ?? 0,
      });
    }
    if (meta.accepted.round === 0) return;
    const claim = `${ballotKey(meta.accepted)}.${meta.seq}`;
    const state = fingerprint(image);
    const known = this.#states.get(claim);
    if (known === undefined) this.#states.set(claim, state);
    else if (known !== state)
      this.complain(`${meta.replicaId} claims ${claim} for other entries:\n    ${known}\n    ${state}`);
  }

  /** Changes of a batch that left its leader. */
  sent(changes: readonly Change[]): void {
    for (const change of changes) if (change.kind === "put") this.#handed(change.value);
  }

  #handed(value: Uint8Array): void {
    const text = textOf(value);
    if (this.#deniedValues.has(text)) this.complain(`${text} was answered NOT_LEADER and took effect`);
    this.#handedValues.add(text);
  }

  /** An operation with these values was answered with "nothing has happened". */
  denied(values: readonly string[]): void {
    for (const value of values) {
      if (this.#handedValues.has(value))
        this.complain(`${value} was answered NOT_LEADER but had been handed over`);
      this.#deniedValues.add(value);
    }
  }

  /** Descriptions of all entries of the state that a version names; undefined: nobody ever held it. */
  stateAt(version: Version): readonly string[] | undefined {
    const { ballot, seq } = parseVersion(version);
    const state = this.#states.get(`${ballotKey(ballot)}.${seq}`);
    return state === undefined || state === "" ? (state === undefined ? undefined : []) : state.split(" ");
  }

  serving(ballot: Ballot, server: string): void {
    const known = this.#reigns.find((reign) => isSameBallot(reign.ballot, ballot));
    if (known !== undefined) {
      // A leader whose hand-over came to nothing goes on.
      if (known.server !== server) this.complain(`${ballotKey(ballot)} was served by two`);
      return;
    }
    this.leaders++;
    this.#reigns.push({ ballot, server });
    this.#reigns.sort((a, b) => compareBallots(a.ballot, b.ballot));
    const at = this.#reigns.findIndex((reign) => isSameBallot(reign.ballot, ballot));
    // All that ever served form one chain: what one base lacks never comes back.
    const earlier = this.#reigns[at - 1];
    const later = this.#reigns[at + 1];
    if (earlier !== undefined) this.#descends(ballot, earlier.ballot);
    if (later !== undefined) this.#descends(later.ballot, ballot);
    for (const acknowledged of this.#acknowledged.values()) {
      if (compareBallots(acknowledged.ballot, ballot) < 0) this.#contains(ballot, acknowledged);
    }
  }

  /** @param version of a batch whose success was told. */
  acknowledged(version: Version): void {
    const { ballot, seq } = parseVersion(version);
    const key = ballotKey(ballot);
    const known = this.#acknowledged.get(key) ?? { ballot, seq: -1 };
    known.seq = Math.max(known.seq, seq);
    this.#acknowledged.set(key, known);
    for (const reign of this.#reigns) {
      if (compareBallots(reign.ballot, ballot) > 0) this.#contains(reign.ballot, { ballot, seq });
    }
  }

  #contains(ballot: Ballot, batch: { readonly ballot: Ballot; readonly seq: number }): void {
    const cut = this.#cutOf(ballot, batch.ballot);
    if (cut === undefined || cut < batch.seq) {
      this.complain(
        `the base of ${ballotKey(ballot)} lacks the acknowledged batch ${ballotKey(batch.ballot)}.${batch.seq} (has ${cut})`,
      );
    }
  }

  #descends(ballot: Ballot, ancestor: Ballot): void {
    if (this.#cutOf(ballot, ancestor) === undefined)
      this.complain(
        `${ballotKey(ballot)} serves, but does not come from ${ballotKey(ancestor)}, which served`,
      );
  }

  /** Up to which batch of `ancestor` the base of `ballot` holds; undefined: none, it comes from elsewhere. */
  #cutOf(ballot: Ballot, ancestor: Ballot): number | undefined {
    let base = this.#bases.get(ballotKey(ballot));
    while (base !== undefined) {
      if (isSameBallot(base.accepted, ancestor)) return base.seq;
      base = this.#bases.get(ballotKey(base.accepted));
    }
    return undefined;
  }
}

export function ballotKey({ round, replicaId }: Ballot): string {
  return `${round}.${replicaId}`;
}

function parseVersion(version: Version): { ballot: Ballot; seq: number } {
  const [round, replicaId, seq] = version.split(".");
  return { ballot: { round: Number(round), replicaId: replicaId! }, seq: Number(seq) };
}

export function textOf(value: Uint8Array): string {
  // What follows the blank only makes it longer.
  return Buffer.from(value).toString("latin1").split(" ")[0]!;
}

/** Entries are never changed, so what was made of one holds. */
const descriptions = new WeakMap<HeldEntry, string>();

/** One entry in words, without blanks; reserved ones begin with "#". */
export function describe(key: string, entry: HeldEntry): string {
  let text = descriptions.get(entry);
  if (text === undefined) {
    const { version, value, expiresAtMs } = entry;
    text = `${key.replace("\x00", "#")}@${version}=${textOf(value)}${expiresAtMs ?? ""}`;
    descriptions.set(entry, text);
  }
  return text;
}

export function fingerprint(image: DiskImage): string {
  const texts: string[] = [];
  for (const [key, entry] of image.entries) texts.push(describe(key, entry));
  return texts.sort().join(" ");
}
