/** Row 28: a member sends what can't be read, what is too much, and what comes from another time. */
import { isDeepStrictEqual } from "node:util";
import type { Test } from "tap";
import {
  createAuthority,
  createKeyPair,
  issueCertificate,
} from "../../src/identity/certificate-authority.ts";
import { nodeStatusSchema } from "../../src/node/peer-contract.ts";
import { AnswerReader, packCalls, packMessages } from "../../src/peer/frame.ts";
import { pack } from "../../src/peer/msgpack.ts";
import { NO_BALLOT, nodeOf, replicaIdOf } from "../../src/replication/ballot.ts";
import { allServed, type Ground, logOf, until } from "../cluster/ground.ts";
import {
  mutatedFrames,
  oversized,
  type Standing,
  unreadableFrames,
  untimelyMessages,
} from "../cluster/nonsense.ts";
import { headOf, readMember, StrayMember } from "../cluster/stray-member.ts";

const STEADY_MS = 1_000;

/** The third server is the member whose name is used; it and the first are stopped and started again. */
export async function strangeMessages(t: Test, ground: Ground): Promise<void> {
  const { servers, client } = ground;
  const [one, two, victim, four, five] = servers;
  await allServed(client(one), 5);
  const jobs = async () => (await client(one).jobs.list({ limit: 1000 })).items.map(({ id }) => id);
  const jobsBefore = await jobs();
  await victim.kill();
  const { self, node, edge } = await readMember(victim.directory);
  const stray = new StrayMember(one.peer, ground.cluster.ca, node);
  t.teardown(() => stray.close());
  const head = headOf(self);
  const ask = async (procedure: string, input: unknown) => {
    const { status, body } = await stray.post(packCalls(head, [pack([procedure, input])]));
    t.equal(status, 200, `${procedure} is answered`);
    return new AnswerReader().read(body)[0];
  };
  // What each replica of server one stands at, as it says itself.
  const standings = async () => {
    const answer = await ask("status", { partitions: true });
    return nodeStatusSchema.parse(answer?.[2]).partitions!.map((status) => ({
      partition: status.partition,
      role: status.role,
      ballot: status.ballot ?? NO_BALLOT,
      seq: status.seq,
      members: status.members,
    }));
  };
  // The takeover is over, and leaderships are where they shall be, when nothing has moved for a while.
  let before: readonly Standing[] = await standings();
  let since = performance.now();
  await until("nothing moves any more", 30_000, async () => {
    const now = await standings();
    if (!isDeepStrictEqual(now, before)) since = performance.now();
    before = now;
    return performance.now() - since > STEADY_MS;
  });

  for (const [what, frame, wanted] of unreadableFrames(self)) {
    for (const time of ["once", "once more"]) {
      const { status, reason } = await stray.post(frame);
      t.equal(status, wanted, `${what}, ${time}: ${status} ${reason}`);
    }
  }
  const large = await stray.post(oversized, { pieceBytes: 64 * 1024 });
  t.ok([413, 0].includes(large.status), `a frame that grows too long is cut off: ${large.status}`);
  t.equal((await stray.post(Buffer.alloc(1), { contentLength: oversized.length })).status, 413);
  t.equal((await stray.post(head, { method: "GET" })).status, 404);
  t.equal((await stray.post(head, { path: "/" })).status, 404);
  const seed = Number(process.env.SEED ?? 1);
  t.comment(`SEED=${seed}`);
  const statuses = new Set<number>();
  for (const frame of mutatedFrames(self, 300, seed)) statuses.add((await stray.post(frame)).status);
  t.same(
    [...statuses].filter((status) => ![200, 400, 403, 428].includes(status)),
    [],
    "mutated frames",
  );

  const elsewhere = await createAuthority(self.clusterId, Date.now());
  const pair = createKeyPair();
  const forged = await issueCertificate(elsewhere, {
    role: "node",
    name: self.nodeId,
    hosts: ["127.0.0.1"],
    publicKey: pair.publicKey,
    nowMs: Date.now(),
  });
  for (const [who, credentials, wanted] of [
    ["somebody without a certificate", undefined, [0]],
    ["another authority's node of the same name", { certificate: forged, key: pair.privateKey }, [0]],
    ["an edge", edge, [403, 0]],
  ] as const) {
    const stranger = new StrayMember(one.peer, ground.cluster.ca, credentials);
    t.teardown(() => stranger.close());
    const { status, reason } = await stranger.post(
      packCalls(head, [pack(["status", { partitions: false }])]),
    );
    t.ok(
      wanted.some((one) => one === status),
      `${who}: ${status} ${reason}`,
    );
  }

  // Its replica and that of server one, as they were made when the cluster grew.
  const untimely = untimelyMessages(replicaIdOf(self.nodeId, 1), replicaIdOf(one.nodeId, 1), before);
  for (const messages of [untimely, untimely.toReversed(), [...untimely, ...untimely]]) {
    for (let at = 0; at < messages.length; at += 1000) {
      const packed = messages.slice(at, at + 1000).map((message) => pack(["replication", message]));
      t.equal((await stray.post(packMessages(head, packed))).status, 200, "untimely messages are taken");
    }
  }

  const after = new Map((await standings()).map((standing) => [standing.partition, standing]));
  const moved = before.filter(({ partition, ballot, seq, members }) => {
    const now = after.get(partition);
    const isSameTerm = isDeepStrictEqual(now?.ballot, ballot);
    // A slow machine may suspect a member and elect another, but never for what the stray one says.
    const isElected = now !== undefined && now.ballot.round > ballot.round && !isOf(self.nodeId, now.ballot);
    return !isDeepStrictEqual(now?.members, members) || !(isSameTerm ? now?.seq === seq : isElected);
  });
  t.same(moved, [], "no replica has moved");
  const ghosts = await Promise.all(
    before
      .filter(({ role }) => role === "leader")
      .map(({ partition }) => ask("operate", { partition, operation: { kind: "get", keys: ["ghost"] } })),
  );
  t.ok(ghosts.length > 0);
  t.same(
    ghosts.filter((answer) => !isDeepStrictEqual(answer?.[2], { kind: "entries", entries: [undefined] })),
    [],
    "nothing that it said is kept",
  );
  t.same(await jobs(), jobsBefore, "no job has come or gone");
  const known = (await client(one).cluster.nodes()).find(({ nodeId }) => nodeId === self.nodeId);
  // Else its next start would not be believed.
  t.equal(known?.incarnation, self.incarnation, "nor is its name used for another start");
  const reads = await Promise.all([one, two, four, five].map((server) => client(server).cluster.status()));
  t.same(
    reads.map(({ ready }) => ready),
    [true, true, true, true],
    "all servers are well",
  );

  // A question that is repeated because its answer was lost changes nothing a second time.
  const led = before.find(({ role }) => role === "leader");
  const write = (value: string) =>
    ask("operate", {
      partition: led?.partition,
      operation: {
        kind: "batch",
        changes: [{ kind: "put", key: "stray", value: Buffer.from(value) }],
        conditions: [{ key: "stray", is: "absent" }],
        requestId: "the same",
      },
    });
  const [first, second] = [await write("first"), await write("second")];
  t.match(first?.[2], { kind: "written" });
  t.same(second, first, "a repeated write gets the first one's answer");

  const { pid } = one.process;
  await one.stop();
  const log = (await logOf(one)).filter((line) => line.pid === undefined || line.pid === pid);
  const counts = log.findLast(({ event }) => event === "peer port closed");
  t.comment(JSON.stringify(counts));
  t.ok(Number(counts?.malformed) >= 2 * 17 + 2, "what could not be read was counted");
  t.ok(Number(counts?.refused) >= 2 * 5 + 3, "and who was refused");
  t.ok(Number(counts?.unsupported) >= 2 * 2, "and what is not known");
  for (const reason of [
    /version 1 of the protocol/,
    /the sender belongs to/,
    /names another node/,
    /old copy/,
  ])
    t.ok(
      log.some((line) => line.event === "peer refused" && reason.test(String(line.reason))),
      `the log tells ${reason}`,
    );
  t.same(
    log.filter(({ level }) => level === "error"),
    [],
    "nothing broke",
  );
  await Promise.all([one.restart(), victim.restart()]);
  await allServed(client(two), 5);
}

function isOf(nodeId: string, { replicaId }: Standing["ballot"]): boolean {
  return nodeOf(replicaId) === nodeId;
}
