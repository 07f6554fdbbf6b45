/** Letters between servers: what shares one, in which order it arrives, and what a bad part does to the rest. */
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { BriefChannel } from "../../src/node/brief-channel.ts";
import type { PeerRef, PeerSender } from "../../src/peer/transport.ts";
import type { BriefReader } from "../../src/replication/brief-reader.ts";
import type { ReplicationMessage } from "../../src/replication/message.ts";

const A = "a".repeat(40);
const B = "b".repeat(40);
const C = "c".repeat(40);
const refOf = (nodeId: string): PeerRef => ({ nodeId, address: { host: "127.0.0.1", port: 1 } });
const sender: PeerSender = { ...refOf(A), incarnation: 1, instance: "i" };
const ballot = { round: 1, replicaId: `${A}/1` };

function appended(seq: number): ReplicationMessage {
  return { partition: 3, from: `${A}/1`, to: `${B}/1`, body: { kind: "appended", ballot, seq, round: 0 } };
}

function channel() {
  const lines: string[] = [];
  const letters: { to: string; bytes: Uint8Array }[] = [];
  const brief = new BriefChannel({
    log: createLog({ level: "info", text: false, write: (line) => lines.push(line) }),
    send: ({ nodeId }, bytes) => letters.push({ to: nodeId, bytes }),
  });
  const heard: (number | string)[] = [];
  const receive = (bytes: Uint8Array, then: (seq: number) => void = () => {}) =>
    brief.receive(sender, bytes, {
      replicas: {
        receive: (_, message) => {
          if (!("body" in message) || message.body.kind !== "appended") throw new Error("another message");
          heard.push(message.body.seq);
          then(message.body.seq);
        },
      },
      questions: {
        receive: (_, kind, reader: BriefReader) => {
          heard.push(`${kind}:${reader.byte()}`);
          reader.end();
        },
      },
    });
  return { brief, letters, lines, heard, receive };
}

test("what arises for a server in one turn is one letter, read in the order in which it was written", async (t) => {
  const { brief, letters, heard, receive } = channel();

  t.ok(brief.send(refOf(B), appended(1)));
  brief.sendBytes(refOf(B), Buffer.from([1, 42]));
  t.ok(brief.send(refOf(C), appended(7)));
  t.ok(brief.send(refOf(B), appended(2)));
  t.equal(letters.length, 0);
  await null;

  t.same(
    letters.map(({ to }) => to),
    [B, C],
  );
  receive(letters[0]!.bytes);
  t.same(heard, [1, "1:42", 2]);
  brief.send(refOf(B), appended(3));
  await null;
  receive(letters[2]!.bytes);
  t.same(heard, [1, "1:42", 2, 3]);
});

test("before a message without a short form leaves what was said before it", async (t) => {
  const { brief, letters } = channel();

  brief.send(refOf(B), appended(1));
  const isBrief = brief.send(refOf(B), {
    partition: 3,
    from: `${A}/1`,
    to: `${B}/1`,
    body: { kind: "stopped", ballot },
  });

  t.notOk(isBrief);
  t.equal(letters.length, 1);
  await null;
  t.equal(letters.length, 1, "and nothing of it comes after");
});

test("what a letter gives rise to has left when it was taken; a large one leaves at once", (t) => {
  const { brief, letters, receive } = channel();
  brief.sendBytes(refOf(B), Buffer.alloc(130 * 1024, 1));
  t.equal(letters.length, 1);

  brief.send(refOf(C), appended(4));
  receive(Buffer.alloc(0));

  t.same(
    letters.map(({ to }) => to),
    [B, C],
  );
  t.end();
});

test("a part that can't be read, or whose reader throws, takes no other with it", async (t) => {
  const { brief, letters, lines, heard, receive } = channel();
  brief.send(refOf(B), appended(1));
  brief.sendBytes(refOf(B), Buffer.from([0, 99]));
  brief.sendBytes(refOf(B), Buffer.alloc(0));
  brief.sendBytes(refOf(B), Buffer.from([1, 1, 1]));
  brief.send(refOf(B), appended(2));
  await null;
  const { bytes } = letters[0]!;

  receive(bytes, (seq) => {
    if (seq === 1) throw new Error("a defect");
  });
  t.same(heard, [1, "1:1", 2]);
  t.match(lines.join(), /a defect.*message not taken/);
  for (let cut = 0; cut < bytes.byteLength; cut++) receive(bytes.subarray(0, cut));
  receive(Buffer.from([255, 255, 255, 255, 0]));
  t.equal(heard.filter((one) => one === 2).length, 1, "the last one is whole in the whole letter only");
});
