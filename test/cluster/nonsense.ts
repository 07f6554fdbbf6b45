/** What a member must never be moved by: frames that can't be read, and messages from another time. */
import { type PeerSelf, packCalls, packHead, packMessages } from "../../src/peer/frame.ts";
import { pack } from "../../src/peer/msgpack.ts";
import type { Body, ReplicationMessage } from "../../src/replication/message.ts";
import type { Ballot, Change } from "../../src/replication/register.ts";
import { SeededRandom } from "../fixture/site/seeded-random.ts";
import { headOf } from "./stray-member.ts";

const FRAME_BYTES_MAX = 8 * 1024 * 1024;

/** What a partition is said to stand at by whom the messages go to. */
export interface Standing {
  readonly partition: number;
  readonly role: string;
  readonly ballot: Ballot;
  readonly seq: number;
  readonly members: readonly string[];
}

/** [what it is, the frame, the status of the answer that it gets]. */
export function unreadableFrames(self: PeerSelf): [string, Buffer, number][] {
  const head = headOf(self);
  const ping = (input: unknown) => packMessages(head, [pack(["ring", input])]);
  const address = { host: "127.0.0.1", port: 1 };
  const headWith = (change: object) => {
    const bytes = pack({
      version: [1, 0],
      clusterId: self.clusterId,
      from: self.nodeId,
      address,
      incarnation: self.incarnation,
      instance: self.instance,
      ...change,
    });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(bytes.length);
    return packCalls(Buffer.concat([length, bytes]), [pack(["status", { partitions: false }])]);
  };
  const nested = Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.from([0xc0])]);
  const manyCalls = Array.from({ length: 257 }, () => pack(["status", { partitions: false }]));
  const hello = (start: Partial<PeerSelf>, earlier: readonly string[]) =>
    packCalls(packHead({ ...self, ...start }, address), [pack(["hello", { earlier }])]);
  return [
    ["nothing", Buffer.alloc(0), 400],
    ["half a length", Buffer.from([0]), 400],
    ["a head that is longer than the frame", Buffer.from([0xff, 0xff, 1, 2, 3]), 400],
    ["text", Buffer.from("GET / HTTP/1.1\r\n\r\n"), 400],
    ["a head that is none", Buffer.from([0, 1, 0xc0, 0xc0]), 400],
    ["a head alone", head, 400],
    ["calls nested 100,000 deep", Buffer.concat([head, nested]), 400],
    ["an array of four milliards", Buffer.concat([head, Buffer.from("ddffffffff", "hex")]), 400],
    ["text of four milliards", Buffer.concat([head, Buffer.from("dbffffffff", "hex")]), 400],
    ["an extension type", Buffer.concat([head, Buffer.from("91d40100", "hex")]), 400],
    ["something behind the calls", Buffer.concat([packCalls(head, []), Buffer.from([0xc0])]), 400],
    ["calls of another shape", Buffer.concat([head, pack({ calls: [] })]), 400],
    ["more calls than allowed", packCalls(head, manyCalls), 400],
    ["a hello of another shape", packCalls(head, [pack(["hello", { earlier: "all" }])]), 400],
    ["a version that does not count", headWith({ version: ["one", 0] }), 400],
    ["another major version", headWith({ version: [2, 0] }), 403],
    ["another cluster's name", headWith({ clusterId: "0".repeat(32) }), 403],
    ["another member's name", headWith({ from: "f".repeat(40) }), 403],
    ["a start that has not shown itself", headWith({ instance: "f".repeat(16) }), 428],
    // What a frame of an earlier start is, when it is delivered once more.
    [
      "the hello of an earlier start",
      hello({ incarnation: self.incarnation - 1, instance: self.earlierInstances[0] ?? "" }, []),
      403,
    ],
    [
      "a start that does not know the last one",
      hello({ incarnation: 9_999, instance: "e".repeat(16) }, []),
      403,
    ],
    ["a message of no known channel", packMessages(head, [pack(["gossip", {}])]), 200],
    ["a message of no known kind", ping({ kind: "shout", id: 1 }), 200],
    ["a message without what it needs", ping({ kind: "ping", id: 1 }), 200],
    ["a message with what it must not have", ping({ kind: "neighbours", id: -1 }), 200],
    ["a procedure that nobody has", packCalls(head, [pack(["format", null])]), 200],
    ["the procedure of those who join", packCalls(head, [pack(["join", {}])]), 200],
    [
      "an operation of another shape",
      packCalls(head, [pack(["operate", { partition: -1, operation: { kind: "drop" } }])]),
      200,
    ],
  ];
}

/** Of the greatest length that is taken, and one byte more. */
export const oversized = Buffer.alloc(FRAME_BYTES_MAX + 1, 0xc1);

/** Good frames with bytes changed, cut off, doubled: most can't be read, none may do harm. */
export function mutatedFrames(self: PeerSelf, count: number, seed: number): Buffer[] {
  const random = new SeededRandom(`mutations ${seed}`);
  const head = headOf(self);
  const good = [
    packCalls(head, [pack(["status", { partitions: true }])]),
    packCalls(head, [pack(["hasBlob", { jobId: "0".repeat(32), sha256: "0".repeat(64) }])]),
    packMessages(head, [
      pack(["ring", { kind: "closest", id: 1, point: "0".repeat(40), avoid: [], claimed: false }]),
    ]),
    packMessages(head, [pack(["replication", { node: { kind: "ledAsk" } }])]),
  ];
  return Array.from({ length: count }, () => {
    const frame = Buffer.from(random.pick(good));
    const changes = random.between(1, 8);
    for (let i = 0; i < changes; i++) frame[random.between(0, frame.length - 1)] = random.between(0, 255);
    if (random.chance(0.3)) return frame.subarray(0, random.between(0, frame.length - 1));
    return random.chance(0.2) ? Buffer.concat([frame, frame]) : frame;
  });
}

/** Messages of replicas that come too late, too early, or unasked; each must be without effect. */
export function untimelyMessages(
  from: string,
  to: string,
  standings: readonly Standing[],
): ReplicationMessage[] {
  return standings.flatMap(({ partition, ballot, seq }) => {
    const past: Ballot = { round: 0, replicaId: from };
    const claim = { accepted: past, seq: 1 };
    const changes: Change[] = [{ kind: "put", key: "ghost", value: Buffer.from("boo") }];
    const append = { kind: "append" as const, changes, committed: seq + 20, round: 1 };
    const config = { members: [from] };
    const transfer = `${from}.1.1`;
    const bodies: Body[] = [
      { kind: "canvass", ballot: past },
      { kind: "would", ballot: past, yes: true, promised: past },
      { kind: "prepare", ballot: past, handOver: null },
      { kind: "promise", ballot: past, claim, config },
      { kind: "stopped", ballot: past },
      { kind: "refused", ballot: past, promised: past },
      { kind: "lead", ballot: past, seq },
      { kind: "lead", ballot, seq: seq + 7 },
      { ...append, ballot: past, seq: 1 },
      // Of the leader that is served: one that leaves a gap, and one that came before.
      { ...append, ballot, seq: seq + 10 },
      { ...append, ballot, seq },
      { kind: "appended", ballot: past, seq: seq + 10, round: 1 },
      { kind: "behind", ballot: past, claim },
      { kind: "confirm", ballot: past, round: 1 },
      { kind: "confirmed", ballot: past, round: 1_000_000 },
      { kind: "offer", ballot: past, seq, reach: 1, root: Buffer.alloc(16) },
      { kind: "pull", transfer, question: 1, ballot: past, claim, digests: Buffer.alloc(0) },
      { kind: "more", transfer, question: 2, after: "ghost" },
      { kind: "fetch", transfer, question: 3, keys: ["ghost"] },
      {
        kind: "fetched",
        transfer,
        question: 4,
        claim,
        entries: [{ key: "ghost", version: "9.x.9", value: Buffer.from("boo") }],
      },
      { kind: "end", transfer },
      { kind: "forget", ballot: past, epoch: "9.x.9" },
      { kind: "outside", ballot: past, epoch: "9.x.9" },
      { kind: "gone", ballot: past },
      { kind: "damaged", ballot: past },
    ];
    return [
      ...bodies.map((body) => ({ partition, from, to, body })),
      // For a memory that is no more, from one that the sender does not have, of a partition that is not there.
      { partition, from, to: to.replace(/\/\d+$/, "/99"), body: { ...append, ballot, seq: seq + 1 } },
      { partition, from: to, to, body: { ...append, ballot, seq: seq + 1 } },
      { partition: 60_000, from, to, body: { ...append, ballot, seq: seq + 1 } },
    ];
  });
}
