/** A replica's record on disk: of this version and the one before, and what makes it unreadable. */
import { Packr } from "msgpackr";
import { test } from "tap";
import { DamagedError } from "../../src/errors.ts";
import { decodeMeta, encodeClaim, encodeMeta, isSameLasting } from "../../src/node/replica-meta.ts";

const ballot = (round: number) => ({ round, replicaId: "a/1" });
const meta = {
  replicaId: "b/2",
  promised: ballot(4),
  accepted: ballot(3),
  seq: 2 ** 40 + 1,
  generation: 7,
  root: [0, 1, 2 ** 31, 2 ** 32 - 1],
  leftovers: [5],
};

test("what seldom changes and what each batch changes are put together again", async (t) => {
  const claim = encodeClaim(meta);
  t.same(
    decodeMeta(encodeMeta(meta), () => claim),
    meta,
  );
  t.ok(isSameLasting(meta, { ...meta, promised: ballot(4) }));
  for (const other of [
    { replicaId: "b/3" },
    { promised: ballot(5) },
    { accepted: ballot(4) },
    { generation: 8 },
    { leftovers: [5, 6] },
    { leftovers: [6] },
  ]) {
    t.notOk(isSameLasting(meta, { ...meta, ...other }), JSON.stringify(other));
  }
  t.notOk(isSameLasting(undefined, meta));
});

test("a record of the version before, which held all of it, is read", async (t) => {
  const bytes = Buffer.concat([Buffer.of(1), new Packr({ useRecords: false }).pack(meta)]);

  t.same(
    decodeMeta(bytes, () => undefined),
    meta,
  );
});

test("without its claim, or of a later version, a record says nothing", async (t) => {
  const bytes = encodeMeta(meta);
  t.throws(() => decodeMeta(bytes, () => undefined), DamagedError);
  t.throws(() => decodeMeta(bytes, () => Buffer.alloc(23)), DamagedError);
  t.throws(() => decodeMeta(Buffer.concat([Buffer.of(3), bytes.subarray(1)]), () => encodeClaim(meta)), {
    message: "replica meta has version 3, not 2",
  });
  t.throws(() => decodeMeta(bytes.subarray(0, 9), () => encodeClaim(meta)), DamagedError);
});
