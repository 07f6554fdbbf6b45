/** The short form of frequent messages: what is written is read, what is not of the form is refused. */
import { test } from "tap";
import { DamagedError } from "../../src/errors.ts";
import {
  readMessage,
  readOperation,
  readOutcome,
  writeMessage,
  writeOperation,
  writeOutcome,
} from "../../src/replication/brief-form.ts";
import { BriefReader } from "../../src/replication/brief-reader.ts";
import { BriefWriter } from "../../src/replication/brief-writer.ts";
import type { ReplicationMessage } from "../../src/replication/message.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import { SeededRandom } from "../fixture/site/seeded-random.ts";

const A = `${"a".repeat(40)}/1`;
const B = `${"b".repeat(40)}/1732532400000`;
const OTHER = `${"c".repeat(40)}/2`;
const bytes = (...values: number[]) => Buffer.from(values);

const MESSAGES: readonly ReplicationMessage[] = [
  {
    partition: 65_535,
    from: A,
    to: B,
    body: {
      kind: "append",
      ballot: { round: 7, replicaId: A },
      seq: 2 ** 40,
      committed: -1,
      round: 3,
      changes: [
        { kind: "put", key: "\x00\xff key", value: bytes() },
        { kind: "put", key: "k", value: bytes(0, 255, 7), expiresAtMs: 1_732_532_400_000.5, step: 2 },
        { kind: "delete", key: "gone" },
        { kind: "delete", key: "gone", step: 1 },
      ],
    },
  },
  {
    partition: 0,
    from: B,
    to: A,
    body: { kind: "appended", ballot: { round: 7, replicaId: A }, seq: 0, round: 9 },
  },
  { partition: 1, from: A, to: B, body: { kind: "confirm", ballot: { round: 1, replicaId: A }, round: 0 } },
  {
    partition: 1,
    from: A,
    to: B,
    body: { kind: "confirm", ballot: { round: 1, replicaId: A }, round: 0, seq: 0 },
  },
  {
    partition: 1,
    from: B,
    to: A,
    body: { kind: "confirmed", ballot: { round: 2, replicaId: OTHER }, round: 5 },
  },
];

const LISTS: readonly ReplicationMessage[] = [
  { node: { kind: "led", list: [] } },
  {
    node: {
      kind: "led",
      list: [
        [0, 1],
        [65_535, 2 ** 40],
      ],
    },
  },
];

const OPERATIONS: readonly Operation[] = [
  { kind: "get", keys: ["\x00", "\xff".repeat(512)] },
  { kind: "batch", changes: [], conditions: [] },
  {
    kind: "batch",
    changes: [
      { kind: "put", key: "a", value: bytes(1), expiresAtMs: 5 },
      { kind: "delete", key: "b" },
    ],
    conditions: [
      { key: "a", is: "absent" },
      { key: "b", is: "present" },
      { key: "c", is: "3.x/1.5" },
    ],
    requestId: "once",
  },
];

const OUTCOMES: readonly Outcome[] = [
  {
    kind: "entries",
    entries: [
      undefined,
      { key: "a", version: "1.x/1.2", value: bytes(9) },
      { key: "b", version: "1.x/1.2.1", value: bytes(), expiresAtMs: 12.5 },
    ],
  },
  { kind: "written", version: "1.x/1.2" },
  { kind: "conflict", failed: { key: "a", found: "1.x/1.2" } },
  { kind: "conflict", failed: { key: "a", found: undefined } },
];

/** Written, and whether it was; then read by `read`, to the end. */
function there<T>(write: (writer: BriefWriter) => boolean, read: (reader: BriefReader) => T): T {
  const writer = new BriefWriter();
  if (!write(writer)) throw new Error("has no short form");
  const reader = new BriefReader(writer.take());
  const value = read(reader);
  reader.end();
  return value;
}

test("what is written is read", async (t) => {
  for (const message of [...MESSAGES, ...LISTS]) {
    t.strictSame(
      there((writer) => writeMessage(writer, message), readMessage),
      message,
    );
  }
  for (const operation of OPERATIONS) {
    t.strictSame(
      there((writer) => writeOperation(writer, operation), readOperation),
      operation,
    );
  }
  for (const outcome of OUTCOMES) {
    t.strictSame(
      there((writer) => writeOutcome(writer, outcome), readOutcome),
      outcome,
    );
  }
});

test("large values grow the writer, and later ones begin anew", async (t) => {
  const writer = new BriefWriter();
  const value = Buffer.alloc(1024 * 1024, 7);
  writeOperation(writer, { kind: "batch", changes: [{ kind: "put", key: "k", value }], conditions: [] });
  const large = writer.take();
  writeOperation(writer, { kind: "get", keys: ["k"] });
  const small = writer.take();

  t.strictSame(readOperation(new BriefReader(large)), {
    kind: "batch",
    changes: [{ kind: "put", key: "k", value }],
    conditions: [],
  });
  t.strictSame(readOperation(new BriefReader(small)), { kind: "get", keys: ["k"] });
});

test("what is rare keeps its general form, and leaves nothing behind", async (t) => {
  const writer = new BriefWriter();
  const ballot = { round: 1, replicaId: A };
  const rare = [
    writeMessage(writer, { partition: 1, from: A, to: B, body: { kind: "stopped", ballot } }),
    writeMessage(writer, { node: { kind: "ledAsk" } }),
    writeOperation(writer, { kind: "scan", prefix: "", limit: 1 }),
    writeOperation(writer, { kind: "get", keys: ["k"], stale: true }),
    writeOperation(writer, { kind: "batch", changes: [], conditions: [], onlyUnder: ballot }),
    writeOutcome(writer, { kind: "scanned", entries: [], more: false }),
    writeOutcome(writer, { kind: "entries", entries: [], ageMs: null }),
  ];

  t.strictSame(rare, Array(7).fill(false));
  t.equal(writer.take().byteLength, 0);
});

test("a step is the leader's to give", async (t) => {
  const writer = new BriefWriter();
  const [append] = MESSAGES;
  if (append === undefined || "node" in append || append.body.kind !== "append") return t.fail();
  writeOperation(writer, { kind: "batch", changes: append.body.changes, conditions: [] });

  t.throws(() => readOperation(new BriefReader(writer.take())), DamagedError);
});

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);

test(`cut short, prolonged or changed bytes are refused or read as something in bounds (SEED=${seed})`, async (t) => {
  const random = new SeededRandom(seed);
  const forms: [Uint8Array, (reader: BriefReader) => unknown][] = [];
  const form = (write: (writer: BriefWriter) => boolean, read: (reader: BriefReader) => unknown) => {
    const writer = new BriefWriter();
    write(writer);
    forms.push([writer.take(), read]);
  };
  for (const message of [...MESSAGES, ...LISTS]) form((writer) => writeMessage(writer, message), readMessage);
  for (const one of OPERATIONS) form((writer) => writeOperation(writer, one), readOperation);
  for (const one of OUTCOMES) form((writer) => writeOutcome(writer, one), readOutcome);
  const isRefused = (given: Uint8Array, read: (reader: BriefReader) => unknown) => {
    try {
      const reader = new BriefReader(given);
      read(reader);
      reader.end();
      return false;
    } catch (error) {
      if (error instanceof DamagedError) return true;
      throw error;
    }
  };

  for (const [good, read] of forms) {
    for (let length = 0; length < good.byteLength; length++) {
      if (!isRefused(good.subarray(0, length), read))
        t.fail(`${length} of ${good.byteLength} bytes were taken`);
    }
    t.ok(isRefused(Buffer.concat([good, bytes(0)]), read), "with a byte more");
    for (let i = 0; i < 300; i++) {
      const changed = Buffer.from(good);
      changed[random.between(0, good.byteLength - 1)] = random.between(0, 255);
      isRefused(changed, read);
    }
  }
});
