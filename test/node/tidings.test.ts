/** What rides with the pings: clocks are read from answers in time only, and whoever knows the members otherwise looks again. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import type { Log } from "../../src/log.ts";
import type { MemberRecord } from "../../src/node/cluster-entries.ts";
import { Roster } from "../../src/node/roster.ts";
import { Tidings } from "../../src/node/tidings.ts";
import { isNodeId, type NodeId } from "../../src/ring/identifier.ts";
import { DataDirectory } from "../../src/store/data-directory.ts";

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent };
const EPOCH_MS = 1_700_000_000_000;
const LED = new Uint8Array([7, 8, 9]);

function nodeId(digit: string): NodeId {
  const id = digit.repeat(40);
  if (!isNodeId(id)) throw new Error(id);
  return id;
}

/** The entries that all servers read. */
class Members {
  readonly states = new Map<string, MemberRecord["state"]>([
    [nodeId("1"), "active"],
    [nodeId("2"), "active"],
  ]);
  looks = 0;

  async members(): Promise<MemberRecord[]> {
    this.looks++;
    return Array.from(this.states, ([id, state]) => ({
      nodeId: id,
      addresses: { peer: "a:1", edge: "a:2" },
      zone: "",
      serial: "",
      state,
    }));
  }
}

async function rosterOf(t: Test, members: Members): Promise<Roster> {
  const path = await mkdtemp(join(tmpdir(), "orbweaver-roster-"));
  const directory = await DataDirectory.open(path, { create: true });
  const roster = await Roster.open(members, directory, silent);
  t.teardown(async () => {
    roster.stop();
    await directory.close();
    await rm(path, { recursive: true, force: true });
  });
  return roster;
}

function tidingsOf(roster: Pick<Roster, "digest" | "heard">) {
  const clocks: [NodeId, number][] = [];
  const led: [NodeId, number, Uint8Array][] = [];
  const tidings = new Tidings({
    wall: () => EPOCH_MS,
    clockWatch: { heard: (id, epochMs) => clocks.push([id, epochMs]) },
    roster,
    replicas: {
      ledDigest: () => LED,
      ledHeard: (id, incarnation, bytes) => led.push([id, incarnation, Uint8Array.from(bytes)]),
    },
  });
  return { tidings, clocks, led };
}

test("clock, members and what is led arrive as they were told; a clock that was long on its way does not count", async (t) => {
  const digests: Uint8Array[] = [];
  const { tidings, clocks, led } = tidingsOf({
    digest: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]),
    heard: (digest) => digests.push(Uint8Array.from(digest)),
  });
  const bytes = tidings.outgoing(nodeId("2"));

  tidings.incoming(nodeId("1"), 3, bytes, 20);
  t.same(clocks, [[nodeId("1"), EPOCH_MS + 10]], "read in the middle of the way there and back");
  t.same(digests, [new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])]);
  t.same(led, [[nodeId("1"), 3, LED]]);

  tidings.incoming(nodeId("1"), 3, bytes, 1500);
  tidings.incoming(nodeId("1"), 3, bytes, undefined);
  t.equal(clocks.length, 1);
  t.equal(led.length, 3);

  tidings.incoming(nodeId("1"), 3, new Uint8Array(5), 1);
  t.equal(led.length, 3, "too short to say anything");
});

test("a server that is behind looks once a ping shows it, and not again and again for one that stays behind itself", async (t) => {
  const members = new Members();
  const [one, two] = [await rosterOf(t, members), await rosterOf(t, members)];
  const unknown = Uint8Array.from(one.digest);
  await one.renew();
  await two.renew();
  t.same(one.digest, two.digest);
  const before = one.digest;

  members.looks = 0;
  two.heard(one.digest);
  two.heard(unknown);
  t.equal(members.looks, 0, "they agree; one that does not know yet says nothing");

  members.states.set(nodeId("2"), "removed");
  await one.renew();
  const changed = new Promise<void>((resolve) => two.once("changed", resolve));
  two.heard(one.digest);
  await changed;
  t.same([...two.removed], [nodeId("2")]);
  t.same(two.digest, one.digest);

  members.looks = 0;
  for (let i = 0; i < 100; i++) two.heard(before);
  await two.renew();
  t.equal(members.looks, 2, "one for the hundred, and the one that was asked for");
});
