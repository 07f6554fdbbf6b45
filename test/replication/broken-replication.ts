/**
 * The protocol with one rule broken, for the simulation to find. The sources
 * themselves know nothing of it: a break replaces text while modules are loaded,
 * into a graph of modules of its own.
 */
import { type Edit, loadBrokenModule } from "../simulation/broken-module.ts";
import type { ReplicationSimulator } from "../simulation/replication-simulator.ts";

export interface Break {
  readonly name: string;
  /** Which story finds it; left out: what seeds invent. */
  readonly story?: string;
  /** Tried first: it has noticed the break before. What changes in the code may give a seed another life. */
  readonly seed?: number;
  readonly edits: readonly Edit[];
}

/** @throws {AssertionError} a text to be replaced does not stand in its file exactly once. */
export async function loadBroken({ name, edits }: Break): Promise<typeof ReplicationSimulator> {
  const module = (await loadBrokenModule(name, edits, "test/simulation/replication-simulator.ts")) as {
    ReplicationSimulator: typeof ReplicationSimulator;
  };
  return module.ReplicationSimulator;
}

const R = "src/replication/";

export const BREAKS: readonly Break[] = [
  {
    name: "a promise leaves before it is durable",
    story: "promises",
    edits: [
      [
        `${R}replica.ts`,
        `this.state.whenDurable(() => this.#send(to, { kind: "promise", ballot, claim, config }));`,
        `this.#send(to, { kind: "promise", ballot, claim, config });`,
      ],
    ],
  },
  {
    name: "a promise leaves out what was handed to the store before",
    story: "promises",
    edits: [
      [
        `${R}replica.ts`,
        `const { claim, config } = this.state;\n    this.state.whenDurable(() =>`,
        `const { config } = this.state;\n    const { claim } = this.state.durable;\n    this.state.whenDurable(() =>`,
      ],
    ],
  },
  {
    name: "a batch counts as committed with one answer too few",
    seed: 10,
    edits: [
      [
        `${R}quorum.ts`,
        "const needed = majorityOf(values.length);",
        "const needed = Math.max(1, majorityOf(values.length) - 1);",
      ],
    ],
  },
  {
    name: "the leader counts itself before its own batch is durable",
    seed: 11,
    edits: [[`${R}leader.ts`, "const { claim } = this.#state.durable;", "const { claim } = this.#state;"]],
  },
  {
    name: "reads are not confirmed",
    seed: 15,
    story: "reads",
    edits: [
      [
        `${R}operations.ts`,
        "seq <= this.#committed && round <= this.#confirmedRound",
        "seq <= this.#committed",
      ],
      [
        `${R}operations.ts`,
        "this.#reads.push({ asked, outcome, seq, round: this.#wantRound(), bytes });",
        "this.#reads.push({ asked, outcome, seq, round: this.#wantRound(), bytes });\n    this.#settle();",
      ],
    ],
  },
  {
    name: "the answer to an older append confirms",
    seed: 12,
    story: "reads",
    edits: [
      [
        `${R}leader.ts`,
        "progress.confirmedRound = Math.max(progress.confirmedRound, body.round);\n        if (this.#window",
        "progress.confirmedRound = this.#round;\n        if (this.#window",
      ],
    ],
  },
  {
    name: "a failed compare-and-set is not confirmed",
    seed: 24,
    story: "reads",
    edits: [
      [
        `${R}operations.ts`,
        "const round = failed === undefined ? 0 : this.#wantRound();",
        "const round = 0;",
      ],
      [
        `${R}operations.ts`,
        "this.#wait(asked, Math.max(this.#committed, ...seen), outcome);",
        "this.#reads.push({ asked, outcome, seq: Math.max(this.#committed, ...seen), round: 0, bytes: 0 });\n      this.#settle();",
      ],
    ],
  },
  {
    name: "a memory that was lost votes under its old id",
    story: "memories",
    edits: [
      [
        "test/simulation/replication-node.ts",
        "this.disk.durable = this.disk.current.copy();\n    this.serial++;",
        "this.disk.durable = this.disk.current.copy();",
      ],
      [
        "test/simulation/replication-node.ts",
        `if (body.kind !== "invite" && body.kind !== "offer") return;`,
        "",
      ],
    ],
  },
  {
    name: "a memory that was given up returns under its old id",
    seed: 15,
    story: "members",
    edits: [
      [
        "test/simulation/replication-node.ts",
        "this.serial = Math.max(this.serial, serialOf(id)) + 1;",
        "this.serial = serialOf(id);",
      ],
    ],
  },
  {
    name: "the best state is chosen without regard to its batch",
    seed: 18,
    edits: [
      [
        `${R}candidate.ts`,
        "if (compareClaims(promised.claim, best.claim) > 0) best",
        "if (compareBallots(promised.claim.accepted, best.claim.accepted) > 0) best",
      ],
    ],
  },
  {
    name: "the best state is chosen without regard to its ballot",
    seed: 8,
    edits: [
      [
        `${R}candidate.ts`,
        "if (compareClaims(promised.claim, best.claim) > 0) best",
        "if (promised.claim.seq > best.claim.seq) best",
      ],
    ],
  },
  {
    name: "a candidate counts by its own config instead of the best state's",
    seed: 1016,
    story: "old config",
    edits: [
      [`${R}candidate.ts`, "const { members } = best.config;", "const { members } = this.#ownConfig;"],
      [
        `${R}candidate.ts`,
        "this.#state = options.state;",
        "this.#state = options.state;\n    this.#ownConfig = options.state.config;",
      ],
      [
        `${R}candidate.ts`,
        "readonly #handOver: Ballot | null;",
        "readonly #handOver: Ballot | null;\n  readonly #ownConfig: Config;",
      ],
    ],
  },
  {
    name: "a transfer deletes nothing",
    edits: [
      [
        `${R}transfer-target.ts`,
        "if (theirs === undefined) this.#deletes.push(key);",
        "if (theirs === undefined) continue;",
      ],
    ],
  },
  {
    name: "a config is in force only once it is committed",
    seed: 5,
    story: "configs",
    edits: [
      [
        `${R}replica-state.ts`,
        '    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);\n    this.#isMember = this.config.members.includes(this.replicaId);\n    this.epoch = entry?.version ?? "";\n  }\n\n  #digested',
        '    this.former = { config: this.config, claim: this.claim };\n    this.config = entry === undefined ? { members: [] } : decodeConfig(entry.value);\n    this.#isMember = this.config.members.includes(this.replicaId);\n    this.epoch = entry?.version ?? "";\n  }\n\n  #digested',
      ],
      [
        `${R}replica-state.ts`,
        "  get claim(): Claim {",
        "  former: { config: Config; claim: Claim } | undefined;\n\n  get configInForce(): Config {\n    return this.former === undefined || this.former.config.members.length === 0 ? this.config : this.former.config;\n  }\n\n  get claim(): Claim {",
      ],
      [
        `${R}replica.ts`,
        "    const reached = state.seq;\n    state.whenDurable(() => {",
        "    if (state.former !== undefined && (!isSameBallot(state.former.claim.accepted, ballot) || body.committed >= state.former.claim.seq)) state.former = undefined;\n    const reached = state.seq;\n    state.whenDurable(() => {",
      ],
      [
        `${R}replica.ts`,
        "const { claim, config } = this.state;",
        "const { claim, configInForce: config } = this.state;",
      ],
      [
        `${R}candidate.ts`,
        "this.#promises.set(this.#state.replicaId, { claim, config: this.#state.config });",
        "this.#promises.set(this.#state.replicaId, { claim, config: this.#state.configInForce });",
      ],
    ],
  },
  {
    name: "two members are changed at once",
    story: "configs",
    edits: [
      [
        `${R}membership.ts`,
        "this.#stepAtMs = Number.POSITIVE_INFINITY;\n    if (this.#group.changing() !== undefined) return;",
        "this.#stepAtMs = Number.POSITIVE_INFINITY;",
      ],
    ],
  },
  {
    name: "a batch is taken with a gap before it",
    edits: [
      [
        `${R}replica.ts`,
        `if (seq > state.seq + 1) return this.#send(from, { kind: "behind", ballot, claim: state.durable.claim });\n    this.#levelMs = this.#lastNowMs;\n    if (seq === state.seq + 1) {`,
        `if (seq > state.seq) {`,
      ],
      [`${R}replica-state.ts`, "assert(seq === this.seq + 1, ", "assert(seq > this.seq, "],
    ],
  },
  {
    name: "NOT_LEADER is told of a batch that is on the own disk",
    seed: 14,
    edits: [[`${R}operations.ts`, "const seqMax = this.#state.seq;", "const seqMax = this.#committed;"]],
  },
  {
    name: "failed outcomes are not recorded",
    edits: [
      [
        `${R}operations.ts`,
        "if (recordKey !== undefined) {\n      changes.push({",
        "if (recordKey !== undefined && failed === undefined) {\n      changes.push({",
      ],
    ],
  },
  {
    name: "absence by expiry is told without a batch",
    seed: 125,
    story: "wrong clocks",
    edits: [
      [
        `${R}operations.ts`,
        'const deletes = expired.map(({ key }): Change => ({ kind: "delete", key }));',
        "const deletes: Change[] = [];",
      ],
    ],
  },
  {
    name: "operations of one batch share a version",
    story: "crowd",
    edits: [
      [
        `${R}open-batch.ts`,
        "return !this.isEmpty && changes.some(({ key }) => this.#changes.has(key)) ? this.#step + 1 : 0;",
        "return changes.length > 0 ? 0 : 0;",
      ],
    ],
  },
  {
    name: "members are changed before the leader serves",
    story: "early change",
    edits: [
      [
        `${R}leader.ts`,
        `if (this.#phase === "serving") {\n      if (this.#handOver === undefined) this.#membership`,
        `if (this.#phase !== "handingOver") {\n      this.#membership`,
      ],
    ],
  },
  {
    name: "a ballot is used twice",
    edits: [
      [
        `${R}replica.ts`,
        "round: Math.max(this.#roundSeen, this.state.promised.round) + 1,",
        "round: Math.max(this.#roundSeen, this.state.promised.round) + (this.state.promised.replicaId === this.id ? 0 : 1),",
      ],
      [
        `${R}candidate.ts`,
        "if (compareBallots(this.ballot, this.#state.promised) <= 0) {",
        "if (compareBallots(this.ballot, this.#state.promised) < 0) {",
      ],
      [
        `${R}replica-state.ts`,
        'assert(compareBallots(ballot, this.promised) > 0, "a promise is never taken back");\n    this.promised = ballot;\n    this.#hand([]);',
        "this.promised = ballot;\n    this.#hand([]);",
      ],
      [
        `${R}replica-state.ts`,
        `assert(compareBallots(ballot, this.accepted) > 0, "a base is fixed once");`,
        "",
      ],
    ],
  },
  {
    name: "a batch is taken onto a state that is not of its ballot",
    seed: 27,
    story: "elections",
    edits: [
      [
        `${R}replica.ts`,
        "if (!isSameBallot(state.promised, ballot) || !isSameBallot(state.accepted, ballot)) {",
        "if (!isSameBallot(state.promised, ballot)) {",
      ],
      [
        `${R}replica.ts`,
        'if (isSameBallot(state.accepted, ballot))\n        this.#send(from, { kind: "appended", ballot, seq: reached, round });',
        'this.#send(from, { kind: "appended", ballot, seq: reached, round });',
      ],
      [
        `${R}leader.ts`,
        "if ((!progress.isLevel && !progress.isExpected) || progress.sent >= this.#state.seq) return;",
        "if (progress.sent >= this.#state.seq) return;",
      ],
    ],
  },
  {
    name: "a large difference is applied in place",
    story: "transfers",
    edits: [
      [`${R}transfer-target.ts`, "if (bytes <= this.#limits.atomicBytes) return", "if (bytes >= 0) return"],
      [
        `${R}transfer-target.ts`,
        "if (this.#copy === undefined) for (const entry of body.entries) this.#keep(entry);",
        "if (this.#copy === undefined) this.#state.writeBeside(this.#ownGeneration, body.entries);",
      ],
      [
        `${R}replica-state.ts`,
        "    this.#token++;\n    this.#store.write({",
        '    if (generation === this.generation) this.#toggle(this.#togglesOf(carried.map(({ key, ...entry }) => ({ kind: "put", key, entry }))));\n    this.#token++;\n    this.#store.write({',
      ],
    ],
  },
  {
    name: "a source gives what it holds by now",
    edits: [
      [
        "test/simulation/replication-node.ts",
        "this.#snapshots.set(effect.snapshot, this.disk.current.copy());",
        "this.#snapshots.set(effect.snapshot, this.disk.current);",
      ],
    ],
  },
  {
    name: "a transfer lowers what is promised",
    seed: 86,
    story: "transfers",
    edits: [
      [
        `${R}replica.ts`,
        "this.#standDown(nowMs, ballot);\n    this.#transfers.end();\n    this.state.promise(ballot);",
        "this.#standDown(nowMs, ballot);\n    this.state.promise(ballot);",
      ],
      [
        `${R}transfer-target.ts`,
        "if (order > 0 || (this.#wanted !== null && order !== 0))",
        "if (this.#wanted !== null && order !== 0)",
      ],
      [
        `${R}replica-state.ts`,
        `assert(compareBallots(promised, this.promised) >= 0, "a promise is never taken back");`,
        "",
      ],
    ],
  },
  {
    name: "a transfer's id is used again",
    story: "transfers",
    edits: [
      [
        `${R}transfer-target.ts`,
        "this.transfer = options.transfer;",
        `this.transfer = options.transfer.slice(0, options.transfer.lastIndexOf("."));`,
      ],
      [
        `${R}transfer-target.ts`,
        `    if (!this.#isSameSource(body.claim)) return this.#fail("the source has moved on");\n    const keys`,
        "    const keys",
      ],
    ],
  },
  {
    name: "what was pending under a refused ballot is answered though the next base lacks it",
    seed: 25,
    story: "pending",
    edits: [
      [
        `${R}pending-operations.ts`,
        "isSameBallot(old, base.accepted) && seq <= base.seq;",
        "old.round > 0 && seq >= 0;",
      ],
    ],
  },
  {
    name: "a watch tells of what is not committed",
    story: "reads",
    edits: [
      [
        `${R}operations.ts`,
        "    this.#watches.committed(seq);",
        "    this.#watches.committed(this.#state.seq);",
      ],
    ],
  },
  {
    name: "a watch that has told leaves out the rest of what is committed",
    seed: 7,
    edits: [
      [
        `${R}watch-list.ts`,
        "const version = versionOf(this.#ballot, watcher.seq);",
        "const version = versionOf(this.#ballot, this.#committed);",
      ],
    ],
  },
  {
    name: "a watch goes on from a state that is not the base",
    edits: [
      [
        `${R}watch-list.ts`,
        "this.#bases.some((base) => compareClaims(claim, base) === 0) ? 0 : undefined",
        "this.#bases.some((base) => isSameBallot(claim.accepted, base.accepted)) ? 0 : undefined",
      ],
    ],
  },
  {
    name: "a stale read shows what has expired",
    edits: [[`${R}stale-reads.ts`, "      if (isExpired(entry, scan.epochMs)) continue;\n", ""]],
  },
  {
    name: "a live node counts as a heard leader",
    story: "leader forgets",
    edits: [
      [
        "test/simulation/replication-node.ts",
        "return !this.suspects.has(nodeId) && (this.#led.get(nodeId)?.round ?? -1) >= ballot.round;",
        "return !this.suspects.has(nodeId);",
      ],
    ],
  },
  {
    name: "a leader serves before a majority is level",
    seed: 5,
    story: "elections",
    edits: [
      [
        `${R}leader.ts`,
        `if (this.#phase === "synchronising" && committed >= 0) {`,
        `if (this.#phase === "synchronising") {`,
      ],
      [
        `${R}leader.ts`,
        "if (committed > this.#committed) {",
        `if (committed > this.#committed || this.#phase === "synchronising") {`,
      ],
    ],
  },
];
