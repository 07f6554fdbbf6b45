/** Questions to leaders as messages: who is answered, who is not, and what they hear. */
import { test } from "tap";
import { BusyError, type ClusterError, NotLeaderError, UnavailableError } from "../../src/errors.ts";
import type { Log } from "../../src/log.ts";
import { LeaderQuestions } from "../../src/node/leader-questions.ts";
import type { PeerRef, PeerSender } from "../../src/peer/transport.ts";
import { BriefReader } from "../../src/replication/brief-reader.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import { VirtualTime } from "../simulation/virtual-clock.ts";

const A = "a".repeat(40);
const B = "b".repeat(40);
const LATE_MS = 10_000;
const GET: Operation = { kind: "get", keys: ["k"] };
const NOTHING: Outcome = { kind: "entries", entries: [undefined] };

const quiet: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => quiet,
};

/** Two servers; what they send waits until `deliver`. */
function pair(operate: (partition: number, operation: Operation) => Promise<Outcome>) {
  const time = new VirtualTime();
  const sent: { from: string; to: string; bytes: Uint8Array }[] = [];
  const called: { to: string; operation: Operation; timeoutMs: number }[] = [];
  const incarnations: Record<string, number> = { [A]: 1, [B]: 1 };
  const make = (self: string) =>
    new LeaderQuestions({
      clock: time.clock(0, 0, () => false),
      log: quiet,
      send: (to, bytes) => sent.push({ from: self, to: to.nodeId, bytes }),
      operate,
      call: async (to, { operation }, timeoutMs) => {
        called.push({ to: to.nodeId, operation, timeoutMs });
        return { kind: "written", version: "by a call" };
      },
    });
  const servers: Record<string, LeaderQuestions> = { [A]: make(A), [B]: make(B) };
  const senderOf = (nodeId: string, incarnation: number): PeerSender => ({
    ...refOf(nodeId),
    incarnation,
    instance: String(incarnation),
  });
  const deliver = async (from?: PeerSender) => {
    for (const { to, bytes, ...message } of sent.splice(0)) {
      const reader = new BriefReader(bytes);
      const sender = from ?? senderOf(message.from, incarnations[message.from]!);
      servers[to]!.receive(sender, reader.byte(), reader);
    }
    await time.run(() => true, time.nowMs);
  };
  return { asker: servers[A]!, time, sent, called, incarnations, senderOf, deliver };
}

function refOf(nodeId: string): PeerRef {
  return { nodeId, address: { host: "127.0.0.1", port: 1 } };
}

const failureOf = (answer: Promise<unknown>) =>
  answer.then(
    () => undefined,
    (error: ClusterError) => error,
  );

test("an answer goes to who asked, an error arrives as the same class", async (t) => {
  const { asker, deliver } = pair(async (partition) => {
    if (partition === 7) throw new NotLeaderError(7, A);
    return { kind: "written", version: `1.x/1.${partition}` };
  });
  const asked = [1, 2].map((partition) => asker.ask(refOf(B), { partition, operation: GET }, 1000));
  const refused = failureOf(asker.ask(refOf(B), { partition: 7, operation: GET }, 1000));

  await deliver();
  await deliver();

  t.strictSame(await Promise.all(asked), [
    { kind: "written", version: "1.x/1.1" },
    { kind: "written", version: "1.x/1.2" },
  ]);
  const error = await refused;
  t.ok(error instanceof NotLeaderError);
  t.equal(error instanceof NotLeaderError && error.leader, A);
});

test("nobody waits longer than asked for, and a late answer changes nothing", async (t) => {
  const { asker, time, deliver } = pair(async () => NOTHING);
  const soon = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, 100));
  const later = asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS);

  await time.run(() => false, 200);
  t.ok((await soon) instanceof UnavailableError);
  await deliver();
  await deliver();

  t.strictSame(await later, NOTHING);
});

test("who went away answers nothing any more; others do", async (t) => {
  const { asker, deliver } = pair(async () => NOTHING);
  const gone = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS));
  const other = asker.ask(refOf(A), { partition: 1, operation: GET }, LATE_MS);

  asker.lost(B);
  await deliver();
  await deliver();

  t.ok((await gone) instanceof UnavailableError);
  t.strictSame(await other, NOTHING);
});

test("a server that has started anew knows nothing of what it was asked before", async (t) => {
  const { asker, incarnations, deliver, sent } = pair(async () => NOTHING);
  const known = asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS);
  await deliver();
  await deliver();
  await known;
  const before = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS));
  sent.length = 0;
  incarnations[B] = 2;
  const after = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS));

  await deliver();
  await deliver();

  t.ok((await before) instanceof UnavailableError);
  t.ok((await after) instanceof UnavailableError, "it can't be told apart from those before");
});

test("an answer of who was not asked is none", async (t) => {
  const { asker, deliver, senderOf } = pair(async () => NOTHING);
  const answer = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS));

  await deliver();
  await deliver(senderOf("c".repeat(40), 1));
  asker.stop();

  t.ok((await answer) instanceof UnavailableError);
});

test("what is rare or large goes by a call", async (t) => {
  const value = Buffer.alloc(65 * 1024);
  const { asker, called, sent, deliver, time } = pair(async () => ({
    kind: "entries",
    entries: [{ key: "k", version: "1.x/1.1", value }],
  }));
  const scan: Operation = { kind: "scan", prefix: "", limit: 1 };
  const put: Operation = { kind: "batch", changes: [{ kind: "put", key: "k", value }], conditions: [] };

  await asker.ask(refOf(B), { partition: 1, operation: scan }, 1000);
  await asker.ask(refOf(B), { partition: 1, operation: put }, 1000);
  t.equal(sent.length, 0);
  const read = asker.ask(refOf(B), { partition: 1, operation: GET }, 1000);
  await deliver();
  await time.run(() => false, 400);
  await deliver();
  await read;

  t.strictSame(
    called.map(({ to, operation, timeoutMs }) => [to, operation.kind, timeoutMs]),
    [
      [B, "scan", 1000],
      [B, "batch", 1000],
      [B, "get", 600],
    ],
  );
});

test("a server takes 1,024 questions of another at once", async (t) => {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const { asker, deliver } = pair(() => promise);
  const asked = Array.from({ length: 1025 }, () =>
    failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS)),
  );

  await deliver();
  await deliver();
  t.ok((await asked[1024]) instanceof BusyError);
  resolve(NOTHING);
  await deliver();
  await deliver();

  t.strictSame(new Set(await Promise.all(asked.slice(0, 1024))), new Set([undefined]));
});

test("after the end there are no answers", async (t) => {
  const { asker } = pair(async () => NOTHING);
  const before = failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, LATE_MS));
  asker.stop();

  t.ok((await before) instanceof UnavailableError);
  t.ok(
    (await failureOf(asker.ask(refOf(B), { partition: 1, operation: GET }, 1))) instanceof UnavailableError,
  );
});
