/** What a job's leader has been told is durable: records and accounts, also very many of them. */
import { test } from "tap";
import type { JobRecord } from "../../src/job/job-record.ts";
import { jobSpecSchema } from "../../src/job/job-spec.ts";
import { JobLedger } from "../../src/node/job-ledger.ts";
import { KeyLayout } from "../../src/node/key-layout.ts";
import { BATCH_CHANGES_MAX, type Operation, type Outcome } from "../../src/replication/register.ts";
import { testNames } from "../simulation/crawl-cluster.ts";

const JOB = "0123456789abcdef0123456789abcdef";
const layout = new KeyLayout(testNames, 2048);
const { seeds, ...spec } = jobSpecSchema.parse({ seeds: ["https://a.test/"] });

const record = (): JobRecord => ({
  jobId: JOB,
  owner: "ann",
  status: "running",
  run: 1,
  spec,
  seeds,
  seedCount: 1,
  seededTo: 0,
  scopeHosts: ["a.test"],
  specHash: "",
  createdAtMs: 1,
  startedAtMs: 1,
  finishedAtMs: null,
  error: null,
  stats: null,
  deleted: false,
});

/** A ledger, the entries that are durable, and the sizes of the batches that made them so. */
function ledgerOf(operate?: (operation: Operation) => Promise<Outcome>) {
  const entries = new Set<string>();
  const batches: number[] = [];
  const failures: unknown[] = [];
  const ledger = new JobLedger(7, { round: 1, replicaId: "r" }, record(), new Map(), {
    layout,
    operate:
      operate ??
      (async (operation) => {
        if (operation.kind !== "batch") throw new Error(`not expected: ${operation.kind}`);
        batches.push(operation.changes.length);
        for (const { kind, key } of operation.changes) {
          if (kind === "put") entries.add(key);
          else entries.delete(key);
        }
        return { kind: "written", version: "1" };
      }),
    failed: (error) => failures.push(error),
  });
  return { ledger, entries, batches, failures };
}

test("all accounts changed before a save are durable after it, however many there are", async (t) => {
  const { ledger, entries, batches } = ledgerOf();
  for (let partition = 0; partition < 1500; partition++) {
    ledger.setAccount(partition, { granted: 1, returned: 0 });
  }
  ledger.change({ seededTo: 1 });

  await ledger.save();

  t.equal(entries.size, 1501);
  t.ok(entries.has(layout.participant(JOB, 1499)));
  t.ok(entries.has(layout.job(JOB)));
  t.ok(batches.every((changes) => changes <= BATCH_CHANGES_MAX));
});

test("what changes while a batch is under way goes with the next one, once for all who wait", async (t) => {
  const { ledger, entries, batches } = ledgerOf();
  ledger.setAccount(0, { granted: 1, returned: 0 });
  const first = ledger.save();
  ledger.setAccount(1, { granted: 1, returned: 0 });
  ledger.strike(0);

  await Promise.all([first, ledger.save(), ledger.save()]);

  t.same(batches, [1, 2]);
  t.same([...entries], [layout.participant(JOB, 1)]);
});

test("a batch that failed is told to who leads the job and to all who wait for it", async (t) => {
  const { ledger, failures } = ledgerOf(async () => {
    throw new Error("no quorum");
  });
  ledger.change({ seededTo: 1 });

  await t.rejects(ledger.save(), { message: "no quorum" });

  t.equal(failures.length, 1);
});

test("a ledger that has ended saves nothing and answers nothing", async (t) => {
  const { ledger, batches } = ledgerOf();
  ledger.change({ seededTo: 1 });
  ledger.end();

  await t.rejects(ledger.save(), { code: "NOT_LEADER" });
  await t.rejects(ledger.read(), { code: "NOT_LEADER" });

  t.same(batches, []);
});
