/** What one server may do to the other four: die under load, come back from the past, speak nonsense. */
import { cp, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { t as tap, test } from "tap";
import {
  createAuthority,
  createKeyPair,
  issueCertificate,
} from "../../src/identity/certificate-authority.ts";
import { nodeStatusSchema } from "../../src/node/peer-contract.ts";
import { AnswerReader, packCalls, packMessages } from "../../src/peer/frame.ts";
import { pack } from "../../src/peer/msgpack.ts";
import { NO_BALLOT, nodeOf, replicaIdOf } from "../../src/replication/ballot.ts";
import { createSite } from "../fixture/site/site.ts";
import { watchTakeover } from "../fixture/takeover.ts";
import { allServed, logOf, slowness, startGround, until, untilOver } from "./ground.ts";
import { mutatedFrames, oversized, type Standing, unreadableFrames, untimelyMessages } from "./nonsense.ts";
import { SmallJobs } from "./small-jobs.ts";
import { headOf, readMember, StrayMember } from "./stray-member.ts";

/** Three times what is promised. */
const TAKEOVER_MS_MAX = 3 * 2_000;
const TEST_MS_MAX = 200_000;
const STEADY_MS = 1_000;

tap.setTimeout(TEST_MS_MAX);

test("one server that fails", async (t) => {
  const site = await createSite({ hosts: 2, pages: 60 });
  t.teardown(() => site.close());
  const ground = await startGround(t);
  const { servers, client } = ground;
  const [one, two, victim, four, five] = servers;

  await t.test("one server killed (SIGKILL) under load", async (t) => {
    const reader = client(one);
    // Each writer has another favourite, so that one of them loses the server that it speaks to.
    const load = new SmallJobs([client(victim, four), client(four, five), client(five, one)], site.homes[0]!);
    t.teardown(() => load.stop());
    await until("the load runs", 20_000, () => load.acknowledged.size >= 10);

    const takeoverMs = await watchTakeover(reader, [victim.nodeId], () => victim.kill());
    const killedAnswers = load.answers;
    const survivors = client(one, two, four, five);
    const readFromMs = performance.now();
    const known = [...load.acknowledged];
    const found = await Promise.all(known.map(async ([id]) => (await survivors.jobs.get(id)).name));
    const readMs = performance.now() - readFromMs;
    await until("the load goes on", 20_000, () => load.answers >= killedAnswers + 20);
    await victim.restart();
    await until("the load goes on", 20_000, () => load.answers >= killedAnswers + 40);
    await load.stop();

    const limitMs = TAKEOVER_MS_MAX * slowness();
    t.comment(`at most ${Math.round(limitMs)} ms`);
    t.ok(takeoverMs !== null, "it led something");
    t.ok(takeoverMs! < limitMs, `each partition was led again after ${Math.round(takeoverMs!)} ms`);
    t.ok(load.longestMs < limitMs, `the longest call took ${Math.round(load.longestMs)} ms`);
    t.ok(readMs < limitMs, `and each job answered within ${Math.round(readMs)} ms`);
    t.same(
      found,
      known.map(([, name]) => name),
      "with what was acknowledged",
    );
    t.same(load.failed, [], `none of ${load.answers} calls failed`);
    const lost: string[] = [];
    for (const [id, name] of load.acknowledged) {
      const job = await untilOver(reader, id, 20_000);
      if (job.name !== name || job.status !== "completed" || job.stats.results !== 1)
        lost.push(`${name}: ${job.status}, ${JSON.stringify(job.stats)}`);
    }
    t.same(lost, [], `all ${load.acknowledged.size} jobs ended with their page`);
  });

  await t.test("malformed, oversized, repeated and out-of-order peer messages", async (t) => {
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
      const isElected =
        now !== undefined && now.ballot.round > ballot.round && !isOf(self.nodeId, now.ballot);
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
  });

  await t.test("an old copy of a data directory is started", async (t) => {
    const others = client(one, victim, four, five);
    const nodeId = two.nodeId;
    const before = (await others.jobs.list({ limit: 1000 })).items.map(({ id, status }) => ({ id, status }));
    await two.kill();
    const copy = join(ground.directory, "copy");
    await cp(two.directory, copy, { recursive: true });
    await two.restart();
    // Long enough to have been heard: it is a member again.
    await allServed(others, 5);
    await two.kill();
    await rename(two.directory, join(ground.directory, "newer"));
    await rename(copy, two.directory);

    for (const start of ["the first start", "a repeated start"]) {
      const refused = two.start([]);
      const { process } = two;
      await t.rejects(refused, { message: /ended before it was ready/ }, `${start} is refused`);
      t.equal(process.exitCode, 1, "with an exit code that says so");
      const words = await until("its last word", 5_000, async () =>
        (await logOf(two)).findLast(
          ({ level, event }) => level === "text" && event.startsWith("orbweaver: "),
        ),
      );
      t.match(
        words.event,
        /is an old copy.*--as-new --join HOST:PORT --join-token-file FILE/,
        "and what to do",
      );
    }
    t.equal(
      (await logOf(two)).filter(({ event }) => event === "data directory is stale").length,
      1,
      "the second time it does not even ask the others",
    );

    const { token } = await others.cluster.createJoinToken();
    const tokenFile = join(ground.directory, "join-token-again");
    await writeFile(tokenFile, token, { mode: 0o600 });
    await two.start(["--as-new", "--join", one.peer, "--join-token-file", tokenFile]);
    t.not(two.nodeId, nodeId, "with --as-new it joins as a new node");
    const joined = client(two);
    const member = (await joined.cluster.nodes()).find((node) => node.self);
    t.match(member, { nodeId: two.nodeId, state: "alive" });
    await until("the others know it", 20_000, async () =>
      (await others.cluster.nodes()).some((node) => node.nodeId === two.nodeId && node.state === "alive"),
    );
    t.same(
      (await joined.jobs.list({ limit: 1000 })).items.map(({ id, status }) => ({ id, status })),
      before,
      "and serves what the cluster holds",
    );
    t.equal(joined.server, two.edge, "by itself");
  });
});

function isOf(nodeId: string, { replicaId }: Standing["ballot"]): boolean {
  return nodeOf(replicaId) === nodeId;
}
