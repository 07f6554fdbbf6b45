/**
 * The short form of what members say to each other all the time: appends, reads,
 * writes and their answers, each as one string of bytes, read and checked in one
 * pass. Field names and general schemas cost several times what is done with the
 * message; everything else stays in the general form.
 */
import { type BriefReader, malformed } from "./brief-reader.ts";
import type { BriefWriter } from "./brief-writer.ts";
import type { Body, DecidedChange, ReplicationMessage } from "./message.ts";
import {
  BATCH_CHANGES_MAX,
  type Ballot,
  type Change,
  type Condition,
  type Entry,
  KEY_BYTES_MAX,
  type Operation,
  type Outcome,
  VALUE_BYTES_MAX,
} from "./register.ts";

const KIND = { append: 1, appended: 2, confirm: 3, confirmed: 4, led: 5 } as const;
const OPERATION = { get: 1, batch: 2 } as const;
const OUTCOME = { entries: 1, written: 2, conflict: 3 } as const;
const PUT = 1;
const EXPIRES = 2;
const STEP = 4;
const IS = { absent: 0, present: 1, version: 2 } as const;
const ID_BYTES_MAX = 64;
const VERSION_BYTES_MAX = 128;
const PARTITION_MAX = 65_535;
const APPENDED_CHANGES_MAX = 2 * BATCH_CHANGES_MAX + 1;

// --- what replicas say --------------------------------------------------------------

/** @returns false, with nothing written, when the message has no short form. */
export function writeMessage(writer: BriefWriter, message: ReplicationMessage): boolean {
  if ("node" in message) {
    if (message.node.kind !== "led" || message.node.isLeaving === true) return false;
    writer.byte(KIND.led);
    writer.int(message.node.list.length);
    for (const [partition, round] of message.node.list) {
      writer.short(partition);
      writer.int(round);
    }
    return true;
  }
  const { partition, from, to, body } = message;
  switch (body.kind) {
    case "append":
      head(writer, KIND.append, partition, from, to, body.ballot);
      writer.int(body.seq);
      writer.int(body.committed);
      writer.int(body.round);
      writer.short(body.changes.length);
      for (const change of body.changes) writeChange(writer, change);
      return true;
    case "appended":
      head(writer, KIND.appended, partition, from, to, body.ballot);
      writer.int(body.seq);
      writer.int(body.round);
      return true;
    case "confirm":
      head(writer, KIND.confirm, partition, from, to, body.ballot);
      writer.int(body.round);
      writer.int(body.seq ?? -1);
      return true;
    case "confirmed":
      head(writer, KIND.confirmed, partition, from, to, body.ballot);
      writer.int(body.round);
      return true;
    default:
      return false;
  }
}

/** @throws {DamagedError} */
export function readMessage(reader: BriefReader): ReplicationMessage {
  const kind = reader.byte();
  if (kind === KIND.led) return { node: { kind: "led", list: readLed(reader) } };
  const partition = reader.short(PARTITION_MAX);
  const from = reader.text(3, ID_BYTES_MAX);
  const to = reader.text(0, ID_BYTES_MAX);
  const ballot = readBallot(reader, from, to);
  const message = { partition, from, to, body: readBody(reader, kind, ballot) };
  reader.end();
  return message;
}

function readLed(reader: BriefReader): [partition: number, round: number][] {
  const count = reader.int();
  if (count > PARTITION_MAX + 1) throw malformed("over its bound");
  const list: [number, number][] = [];
  for (let i = 0; i < count; i++) list.push([reader.short(PARTITION_MAX), reader.int()]);
  reader.end();
  return list;
}

function readBody(reader: BriefReader, kind: number, ballot: Ballot): Body {
  switch (kind) {
    case KIND.append: {
      const seq = reader.int();
      const committed = reader.int(-1);
      const round = reader.int();
      const count = reader.short(APPENDED_CHANGES_MAX);
      const changes: DecidedChange[] = [];
      for (let i = 0; i < count; i++) changes.push(readChange(reader));
      return { kind: "append", ballot, seq, changes, committed, round };
    }
    case KIND.appended:
      return { kind: "appended", ballot, seq: reader.int(), round: reader.int() };
    case KIND.confirm: {
      const round = reader.int();
      const seq = reader.int(-1);
      return { kind: "confirm", ballot, round, ...(seq < 0 ? {} : { seq }) };
    }
    case KIND.confirmed:
      return { kind: "confirmed", ballot, round: reader.int() };
    default:
      throw malformed("a message of no known kind");
  }
}

const PROPOSED_BY = { from: 0, to: 1, other: 2 } as const;

/** The ballot's proposer is nearly always one of the two who speak. */
function head(
  writer: BriefWriter,
  kind: number,
  partition: number,
  from: string,
  to: string,
  ballot: Ballot,
): void {
  const { round, replicaId } = ballot;
  writer.byte(kind);
  writer.short(partition);
  writer.text(from);
  writer.text(to);
  writer.int(round);
  if (replicaId === from) writer.byte(PROPOSED_BY.from);
  else if (replicaId === to) writer.byte(PROPOSED_BY.to);
  else {
    writer.byte(PROPOSED_BY.other);
    writer.text(replicaId);
  }
}

function readBallot(reader: BriefReader, from: string, to: string): Ballot {
  const round = reader.int();
  switch (reader.byte()) {
    case PROPOSED_BY.from:
      return { round, replicaId: from };
    case PROPOSED_BY.to:
      return { round, replicaId: to };
    case PROPOSED_BY.other:
      return { round, replicaId: reader.text(0, ID_BYTES_MAX) };
    default:
      throw malformed("a ballot of nobody");
  }
}

function writeChange(writer: BriefWriter, change: DecidedChange): void {
  const { key, step } = change;
  const expiresAtMs = change.kind === "put" ? change.expiresAtMs : undefined;
  writer.byte(
    (change.kind === "put" ? PUT : 0) |
      (expiresAtMs === undefined ? 0 : EXPIRES) |
      (step === undefined ? 0 : STEP),
  );
  writer.text(key);
  if (change.kind === "put") writer.bytes(change.value);
  if (expiresAtMs !== undefined) writer.int(expiresAtMs);
  if (step !== undefined) writer.int(step);
}

function readChange(reader: BriefReader): DecidedChange {
  const flags = reader.byte();
  const key = reader.text(1, KEY_BYTES_MAX);
  const value = (flags & PUT) === 0 ? undefined : reader.bytes(VALUE_BYTES_MAX);
  const expiresAtMs = (flags & EXPIRES) === 0 ? undefined : reader.number();
  const step = (flags & STEP) === 0 ? {} : { step: reader.int(1) };
  if (value === undefined) return { kind: "delete", key, ...step };
  return { kind: "put", key, value, ...(expiresAtMs === undefined ? {} : { expiresAtMs }), ...step };
}

// --- what leaders are asked, and answer ------------------------------------------------

/** @returns false, with nothing written, when the operation has no short form. */
export function writeOperation(writer: BriefWriter, operation: Operation): boolean {
  if (operation.kind === "get" && operation.stale !== true) {
    writer.byte(OPERATION.get);
    writer.short(operation.keys.length);
    for (const key of operation.keys) writer.text(key);
    return true;
  }
  if (operation.kind !== "batch" || operation.onlyUnder !== undefined) return false;
  const { changes, conditions, requestId = "" } = operation;
  writer.byte(OPERATION.batch);
  writer.text(requestId);
  writer.short(changes.length);
  for (const change of changes) writeChange(writer, change);
  writer.short(conditions.length);
  for (const { key, is } of conditions) {
    writer.text(key);
    if (is === "absent") writer.byte(IS.absent);
    else if (is === "present") writer.byte(IS.present);
    else {
      writer.byte(IS.version);
      writer.text(is);
    }
  }
  return true;
}

/** @throws {DamagedError} */
export function readOperation(reader: BriefReader): Operation {
  switch (reader.byte()) {
    case OPERATION.get: {
      const count = reader.short(BATCH_CHANGES_MAX);
      if (count === 0) throw malformed("a read of no key");
      const keys: string[] = [];
      for (let i = 0; i < count; i++) keys.push(reader.text(1, KEY_BYTES_MAX));
      return { kind: "get", keys };
    }
    case OPERATION.batch: {
      const requestId = reader.text(0, VERSION_BYTES_MAX);
      const changes: Change[] = [];
      for (let left = reader.short(BATCH_CHANGES_MAX); left > 0; left--) {
        const change = readChange(reader);
        if (change.step !== undefined) throw malformed("steps are the leader's to give");
        changes.push(change);
      }
      const conditions: Condition[] = [];
      for (let left = reader.short(BATCH_CHANGES_MAX); left > 0; left--) {
        conditions.push({ key: reader.text(1, KEY_BYTES_MAX), is: readIs(reader) });
      }
      return { kind: "batch", changes, conditions, ...(requestId === "" ? {} : { requestId }) };
    }
    default:
      throw malformed("an operation of no known kind");
  }
}

function readIs(reader: BriefReader): Condition["is"] {
  switch (reader.byte()) {
    case IS.absent:
      return "absent";
    case IS.present:
      return "present";
    case IS.version:
      return reader.text(0, VERSION_BYTES_MAX);
    default:
      throw malformed("a condition of no known kind");
  }
}

/** @returns false, with nothing written, when the outcome has no short form. */
export function writeOutcome(writer: BriefWriter, outcome: Outcome): boolean {
  switch (outcome.kind) {
    case "entries":
      if (outcome.ageMs !== undefined) return false;
      writer.byte(OUTCOME.entries);
      writer.short(outcome.entries.length);
      for (const entry of outcome.entries) writeEntry(writer, entry);
      return true;
    case "written":
      writer.byte(OUTCOME.written);
      writer.text(outcome.version);
      return true;
    case "conflict": {
      const { key, found } = outcome.failed;
      writer.byte(OUTCOME.conflict);
      writer.text(key);
      writer.text(found ?? "");
      return true;
    }
    default:
      return false;
  }
}

/** @throws {DamagedError} */
export function readOutcome(reader: BriefReader): Outcome {
  switch (reader.byte()) {
    case OUTCOME.entries: {
      const count = reader.short(BATCH_CHANGES_MAX);
      const entries: (Entry | undefined)[] = [];
      for (let i = 0; i < count; i++) entries.push(readEntry(reader));
      return { kind: "entries", entries };
    }
    case OUTCOME.written:
      return { kind: "written", version: reader.text(0, VERSION_BYTES_MAX) };
    case OUTCOME.conflict: {
      const key = reader.text(1, KEY_BYTES_MAX);
      const found = reader.text(0, VERSION_BYTES_MAX);
      return { kind: "conflict", failed: { key, found: found === "" ? undefined : found } };
    }
    default:
      throw malformed("an outcome of no known kind");
  }
}

function writeEntry(writer: BriefWriter, entry: Entry | undefined): void {
  if (entry === undefined) {
    writer.byte(0);
    return;
  }
  const { key, version, value, expiresAtMs } = entry;
  writer.byte(PUT | (expiresAtMs === undefined ? 0 : EXPIRES));
  writer.text(key);
  writer.text(version);
  writer.bytes(value);
  if (expiresAtMs !== undefined) writer.int(expiresAtMs);
}

function readEntry(reader: BriefReader): Entry | undefined {
  const flags = reader.byte();
  if ((flags & PUT) === 0) return undefined;
  const key = reader.text(1, KEY_BYTES_MAX);
  const version = reader.text(0, VERSION_BYTES_MAX);
  const value = reader.bytes(VALUE_BYTES_MAX);
  if ((flags & EXPIRES) === 0) return { key, version, value };
  return { key, version, value, expiresAtMs: reader.number() };
}
